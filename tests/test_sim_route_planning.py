"""Shortest ways over the lane graph, against networkx."""

from itertools import pairwise

import networkx
import numpy as np
import pytest

from sim.lane_graph import LaneGraph, build_lane_graph
from sim.roads.driving_map import load_map
from sim.route_planning import CHANGE_COST_M, CHANGE_ROOM_M, NoRoute, shortest_route


@pytest.fixture(scope="module", params=["grid-small", "town:3"])
def graph(request) -> LaneGraph:
    return build_lane_graph(load_map(request.param).network)


def neighbours(graph: LaneGraph, lane: int) -> list[int]:
    return [int(graph.lanes[lane][side]) for side in ("left", "right") if graph.lanes[lane][side] >= 0]


def followers(graph: LaneGraph, lane: int) -> list[int]:
    return [int(n) for n in graph.onward[graph.lanes[lane]["next"] : graph.lanes[lane]["next_end"]]]


def as_networkx(graph: LaneGraph) -> networkx.DiGraph:
    """An edge weighs what it costs to get from the beginning of a lane to the beginning of the next."""
    result = networkx.DiGraph()
    length = graph.lanes["length"]
    for lane in np.unique(graph.cell_lane).tolist():
        result.add_node(lane)
        for other in followers(graph, lane):
            result.add_edge(lane, other, weight=float(length[lane]))
        for other in neighbours(graph, lane):
            if min(length[lane], length[other]) >= CHANGE_ROOM_M:
                result.add_edge(lane, other, weight=CHANGE_COST_M)
    return result


def test_no_way_is_shorter_than_the_one_found(graph):
    oracle, lanes = as_networkx(graph), np.unique(graph.cell_lane)
    draws = np.random.default_rng(0)
    reached = changed = 0
    for _ in range(150):
        start, goal = draws.choice(lanes, 2, replace=False).tolist()
        ends_m = float(graph.lanes["length"][goal])
        if not networkx.has_path(oracle, start, goal):
            with pytest.raises(NoRoute, match=f"from lane {start} to lane {goal}"):
                shortest_route(graph, start, goal)
            continue
        route = shortest_route(graph, start, goal)
        expected = networkx.dijkstra_path_length(oracle, start, goal) + ends_m
        assert route.length_m + CHANGE_COST_M * route.changes == pytest.approx(expected, abs=1e-6)
        assert (route.lanes[0], route.lanes[-1]) == (start, goal)
        for a, b in pairwise(route.lanes):
            assert b in followers(graph, a) + neighbours(graph, a)
        reached, changed = reached + 1, changed + (route.changes > 0)
    assert reached > 100
    assert changed > 10


def test_places_within_lanes_count_exactly(graph):
    """Starting later saves what was not driven; who has passed the goal goes around, and who has not stays on the lane."""
    for lane in graph.start_lanes[::5].tolist():
        length = float(graph.lanes["length"][lane])
        assert shortest_route(graph, lane, lane, 3.0, length - 2.0).length_m == pytest.approx(length - 5.0)
        try:
            around = shortest_route(graph, lane, lane, length - 2.0, 3.0)
        except NoRoute:
            continue
        assert around.lanes[0] == around.lanes[-1] == lane
        assert len(around.lanes) > 2
        goal = around.lanes[len(around.lanes) // 2]
        late = shortest_route(graph, lane, goal, length - 1.0)
        for before_m in (2.0, 0.5):
            later = shortest_route(graph, lane, goal, length - before_m)
            if later.lanes == late.lanes and late.changes == 0:
                assert later.length_m == pytest.approx(late.length_m + before_m - 1.0)


def test_a_lane_changes_only_where_there_is_room(graph):
    pairs = [(k, n) for k in graph.start_lanes.tolist() for n in neighbours(graph, k)]
    assert pairs
    for lane, other in pairs:
        length, its = (float(graph.lanes["length"][k]) for k in (lane, other))
        beside = shortest_route(graph, lane, other, 0.0)
        assert beside.lanes == (lane, other)
        assert beside.length_m == pytest.approx(its)
        try:
            around = shortest_route(graph, lane, other, length - 0.5 * CHANGE_ROOM_M)
        except NoRoute:
            continue
        assert len(around.lanes) > 2


def test_mistakes_are_named(graph):
    lane = int(graph.start_lanes[0])
    with pytest.raises(ValueError, match=r"from_lane must be the number of a driving lane, 0 to \d+, got -1"):
        shortest_route(graph, -1, lane)
    with pytest.raises(ValueError, match=rf"to_m must be within lane {lane}, 0 to .* m, got 1000000000"):
        shortest_route(graph, lane, lane, 0.0, 1e9)


def test_a_network_does_as_well_as_its_graph(town):
    graph = build_lane_graph(town.network)
    start, goal = graph.start_lanes[[0, -1]].tolist()
    assert shortest_route(town.network, start, goal) == shortest_route(graph, start, goal)
