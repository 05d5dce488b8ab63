"""Highways: lanes that begin, leave, join and end, who may change where, curves, guard rails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perception.sensors import SemanticClass
from sim.roads.driving_map import DrivingMap, map_from_network
from sim.roads.ground import GroundClass, lane_line
from sim.roads.highway_scenery import highway_lanes
from sim.roads.network import FAST_ROAD_MPS, LaneControl, LaneKind, RoadNetwork
from sim.roads.polyline import offset
from sim.roads.sumo_reader import read_network
from sim.roads.towns import generate_town


@pytest.fixture(scope="module", params=[1, 3, 10_001])
def network(request: pytest.FixtureRequest) -> RoadNetwork:
    return read_network(generate_town("highway", request.param))


@pytest.fixture(scope="module")
def drawn() -> DrivingMap:
    return map_from_network("highway", generate_town("highway", 2), seed=1)


def _row(start: np.ndarray, values: np.ndarray, lane: int) -> list[int]:
    return values[start[lane] : start[lane + 1]].tolist()


def _fast(network: RoadNetwork) -> np.ndarray:
    roads = (network.lane_kind == LaneKind.DRIVING) & (network.lane_junction < 0)
    return np.flatnonzero(roads & (network.lane_limit_mps > FAST_ROAD_MPS))


def _merges(network: RoadNetwork) -> list[tuple[int, int]]:
    """(junction lane that gives way, the one that it joins) where two fast lanes become one."""
    found = []
    for lane in np.flatnonzero((network.lane_junction >= 0) & (network.lane_limit_mps > FAST_ROAD_MPS)):
        for c in range(network.conflict_start[lane], network.conflict_start[lane + 1]):
            if network.conflict_yields[c]:
                found.append((int(lane), int(network.conflict_lane[c])))
    return found


def test_nobody_walks_along_a_highway(network: RoadNetwork) -> None:
    """So the limit alone says which lanes of ours are fast; with a sidewalk along one direction neither is."""
    assert np.array_equal(network.lane_fast, network.lane_limit_mps > FAST_ROAD_MPS)
    lane = int(_fast(network)[0])
    edge, _, index = network.lane_name[lane].rpartition("_")
    names, kinds = list(network.lane_name), network.lane_kind.copy()
    beside = int(np.flatnonzero(network.lane_kind == LaneKind.SIDEWALK)[0])
    names[beside] = f"-{edge}_{index}"
    walked = replace(network, lane_name=tuple(names), lane_kind=kinds)
    assert not walked.lane_fast[lane]
    assert walked.lane_fast.any()


def test_every_lane_is_reached_from_every_other(network: RoadNetwork) -> None:
    """By driving on, and by the lane changes that are allowed: nobody is trapped on a highway or kept away from one."""
    driving = np.flatnonzero(network.lane_kind == LaneKind.DRIVING)
    onward = {int(k): _row(network.successor_start, network.successor, k) for k in driving}
    for k in driving:
        onward[int(k)] += [int(n) for n in (network.lane_left[k], network.lane_right[k]) if n >= 0]
    back: dict[int, list[int]] = {k: [] for k in onward}
    for k, row in onward.items():
        for n in row:
            back[n].append(k)
    for links in (onward, back):
        seen, todo = set(), [int(driving[0])]
        while todo:
            k = todo.pop()
            if k not in seen:
                seen.add(k)
                todo += links[k]
        assert len(seen) == len(driving)


def test_each_carriageway_has_an_exit_and_an_entry(network: RoadNetwork) -> None:
    """At the exit one lane leads to two; at the entry a lane gives way to its neighbour and ends, after 150 m and more."""
    exits = [k for k in _fast(network) if len(_row(network.successor_start, network.successor, int(k))) == 2]
    assert len(exits) == 2
    merges = _merges(network)
    assert len(merges) == 2
    for lane, other in merges:
        assert network.lane_control[lane] == LaneControl.YIELD
        assert network.lane_control[other] == LaneControl.PRIORITY
        (before,) = _row(network.predecessor_start, network.predecessor, lane)
        (beside,) = _row(network.predecessor_start, network.predecessor, other)
        assert network.lane_left[before] == beside, "who joins may change lanes before its own ends"
        assert network.lane_right[beside] < 0, "nobody changes to a lane that ends"
        assert network.lane_length_m[before] > 150.0
        assert (
            len(
                set(_row(network.successor_start, network.successor, lane))
                & set(_row(network.successor_start, network.successor, other))
            )
            == 1
        )
        (ramp,) = _row(network.predecessor_start, network.predecessor, before)
        (ramp,) = _row(network.predecessor_start, network.predecessor, ramp)
        assert network.lane_limit_mps[ramp] == pytest.approx(60 / 3.6, abs=0.01)


def test_limits_lead_down_from_the_highway_to_the_street(network: RoadNetwork) -> None:
    streets = (network.lane_junction < 0) & (network.lane_kind == LaneKind.DRIVING)
    limits = set(np.round(network.lane_limit_mps[streets] * 3.6).astype(int).tolist())
    assert {30, 40, 50, 60, 80} < limits
    assert limits & {100, 120}
    for lane in np.flatnonzero(streets):
        for inner in _row(network.successor_start, network.successor, int(lane)):
            (after,) = _row(network.successor_start, network.successor, inner)
            assert network.lane_limit_mps[after] >= network.lane_limit_mps[lane] - 41 / 3.6


def test_curves_are_wide_enough_for_what_is_allowed_on_them(network: RoadNetwork) -> None:
    """Sideways at most 2.1 m/s2 at the limit on fast roads, and no curve of less than 45 m radius on their ramps."""
    fast = (network.lane_kind == LaneKind.DRIVING) & (network.lane_limit_mps > FAST_ROAD_MPS)
    ramps = sorted(highway_lanes(network) - set(_fast(network).tolist()))
    assert len(ramps) >= 8
    for lane in [*np.flatnonzero(fast).tolist(), *ramps]:
        yaw = network.point_yaw[network.point_start[lane] : network.point_start[lane + 1]]
        curvature = np.abs(yaw[4:] - yaw[:-4]).max(initial=0.0) / (4.0 * network.lane_step_m[lane])
        if lane in ramps:
            assert curvature < 1 / 45.0, network.lane_name[lane]
        elif network.lane_control[lane] != LaneControl.YIELD and network.lane_length_m[lane] > 60.0:
            assert curvature * network.lane_limit_mps[lane] ** 2 < 2.1, network.lane_name[lane]


def test_nobody_walks_beside_a_highway_and_nothing_comes_the_other_way(network: RoadNetwork) -> None:
    walks = np.concatenate([lane_line(network, int(k)) for k in np.flatnonzero(network.lane_kind == LaneKind.SIDEWALK)])
    fast = _fast(network)
    lines = {int(k): lane_line(network, int(k)) for k in fast}
    for k, line in lines.items():
        assert np.hypot(*(walks[:, None] - line[::10]).reshape(-1, 2).T).min() > 30.0, network.lane_name[k]
        heading = network.point_yaw[network.point_start[k] + len(line) // 2]
        for other, its in lines.items():
            its_heading = network.point_yaw[network.point_start[other] + len(its) // 2]
            if np.cos(its_heading - heading) < 0.0:
                assert np.hypot(*(its[:, None] - line[::10]).reshape(-1, 2).T).min() > 3.7


def test_a_town_without_fast_roads_has_no_highway() -> None:
    assert highway_lanes(read_network(generate_town("grid-small", 0))) == set()


def test_lines_go_on_where_lanes_begin_and_end(drawn: DrivingMap) -> None:
    """Through such places the innermost lane keeps the line on its left, and no line crosses the way of who merges."""
    network, ground = drawn.network, drawn.ground

    def classes(points: np.ndarray) -> np.ndarray:
        column, row = np.floor((points - ground.origin) / ground.cell_m).astype(int).T
        return ground.classes[row, column]

    edges = 0
    for lane in np.flatnonzero((network.lane_junction >= 0) & (network.lane_limit_mps > FAST_ROAD_MPS)):
        line = lane_line(network, int(lane))
        assert (classes(line) == GroundClass.ROAD).all(), network.lane_name[lane]
        (before,) = _row(network.predecessor_start, network.predecessor, int(lane))
        (after,) = _row(network.successor_start, network.successor, int(lane))
        if network.lane_left[before] < 0 and network.lane_left[after] < 0 and len(line) > 40:
            border = offset(line, 0.5 * network.lane_width_m[lane] - 0.2)
            assert np.mean(classes(border[2:-2]) == GroundClass.LINE_WHITE) > 0.95
            edges += 1
    assert edges == 4


def test_a_guard_rail_stands_beside_the_highway_and_no_house(drawn: DrivingMap) -> None:
    network, scenery = drawn.network, drawn.scenery
    rails = scenery.center[scenery.semantic == SemanticClass.BARRIER][:, :2]
    houses = np.isin(scenery.semantic, (SemanticClass.BUILDING, SemanticClass.VEHICLE))
    reach = np.hypot(*scenery.half_size[houses, :2].T)
    guarded, looked = 0, 0
    for lane in _fast(network):
        line, half = lane_line(network, int(lane)), 0.5 * network.lane_width_m[lane]
        away = np.hypot(*(scenery.center[houses, None, :2] - line[::8]).reshape(-1, 2).T).reshape(houses.sum(), -1)
        assert (away.min(axis=1) - reach).min() > 8.0
        if network.lane_right[lane] >= 0 or (network.lane_left == lane).any():
            continue
        for point in offset(line, -half)[::5]:
            guarded += np.hypot(*(rails - point).T).min() < 6.0
            looked += 1
    assert looked > 300
    assert guarded > 0.9 * looked
