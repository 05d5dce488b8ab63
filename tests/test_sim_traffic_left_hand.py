"""Traffic on a map and on its mirror image: what happens on one is the mirror image of what happens on the other."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from sim.lane_graph import TURN_BACK, LaneGraph, build_lane_graph, turn_side
from sim.roads.driving_map import DrivingMap, load_map, map_from_network
from sim.roads.left_hand import mirror_net_xml
from sim.traffic.scripts import OFF_LANE
from sim.traffic.spans import PASSING_OFFSET_M, SPAN, _has_room_to_pass
from sim.traffic.vehicles import BEHIND, CAR
from sim.world import ActorKind, World, WorldConfig

NEAR_M = 1e-6
NOBODY_COMES_M = 3000.0


@pytest.fixture(scope="module")
def towns() -> tuple[DrivingMap, DrivingMap]:
    """A town, and the same one with left-hand traffic."""
    right = load_map("town")
    return right, map_from_network("left", mirror_net_xml(right.net_xml))


def started(town: DrivingMap, count: int, *, agents: int = 40, walker_share: float = 0.25) -> World:
    """Nobody appears or vanishes after the beginning: where somebody appears is drawn in the world's own axes."""
    world = World(
        town, WorldConfig(agents=agents, walker_share=walker_share, spawn_radius_m=300.0, replan=False), count
    )
    world.reset(np.ones(count, np.bool_), np.arange(count, dtype=np.uint64), np.zeros(count, np.int64))
    world._rules = world._rules._replace(spawn_radius_m=NOBODY_COMES_M, respawn_distance_m=NOBODY_COMES_M - 1.0)
    return world


def mirror(world: World, image: World) -> None:
    """Makes one world the mirror image of the other."""
    for ours, theirs in ((world._hidden, image._hidden), (world._state, image._state)):
        for name in ours._fields:
            getattr(theirs, name)[...] = getattr(ours, name)
    hidden, state = image._hidden, image._state
    for name in ("y", "yaw", "lateral", "drift", "offset", "from_lateral", "indicator", "change"):
        hidden.cars[name] *= -1
    for name in ("lateral", "heading", "swing"):
        hidden.egos[name] *= -1
    hidden.spans["low"], hidden.spans["high"] = -world._hidden.spans["high"], -world._hidden.spans["low"]
    hidden.walkers["aside"] *= -1
    hidden.scripts["goal_y"] *= -1
    hidden.line[..., 1:] *= -1
    for array in (state.y_m, state.yaw_rad, state.yaw_rate_radps, state.steer_rad, state.indicator):
        array *= -1
    state.last_action[:, 0] *= -1


def assert_mirrored(world: World, image: World) -> None:
    ours, theirs = world._hidden.cars, image._hidden.cars
    np.testing.assert_array_equal(ours["active"], theirs["active"])
    here = ours["active"] == 1
    for name, sign in (("x", 1), ("y", -1), ("lateral", -1), ("speed", 1)):
        np.testing.assert_allclose(theirs[name][here], sign * ours[name][here], atol=NEAR_M, err_msg=name)
    for name, sign in (("indicator", -1), ("change", -1), ("dwell", 1), ("served", 1)):
        np.testing.assert_array_equal(theirs[name][here], sign * ours[name][here], err_msg=name)
    np.testing.assert_array_equal(image._hidden.paths, world._hidden.paths)
    np.testing.assert_allclose(image._hidden.egos["swing"], -world._hidden.egos["swing"], atol=NEAR_M)


def test_traffic_is_mirrored(towns: tuple[DrivingMap, DrivingMap]) -> None:
    """Bicycles and who passes them, lane changes, turns, people on foot; in some environments buses and nothing else."""
    world, image = (started(town, 12) for town in towns)
    vehicles = world._hidden.cars[:4, 1:]
    vehicles["kind"][(vehicles["kind"] != ActorKind.PEDESTRIAN) & (vehicles["narrow"] == 0)] = ActorKind.BUS
    mirror(world, image)
    cars = world._hidden.cars
    actions = np.tile(np.array([[0.0, -1.0]], np.float32), (12, 1))
    passing, changes, narrow, served = False, 0, cars["narrow"].any(), np.empty(0, np.int32)
    for _ in range(250):
        for each in (world, image):
            each.step(actions)
        assert_mirrored(world, image)
        passing |= bool(((cars["offset"] > 0.0) & (cars["narrow"] == 0)).any())
        changes += int((cars["change"] != 0).sum())
        served = np.union1d(served, cars["served"][cars["dwell"] == 0])
    assert narrow
    assert passing
    assert changes > 20
    network = towns[0].network
    assert (network.lane_left[served[served >= 0]] >= 0).any()
    assert (network.lane_right[served[served >= 0]] < 0).all()


def test_what_stands_in_the_way_is_passed_on_the_other_side(towns: tuple[DrivingMap, DrivingMap]) -> None:
    """A car that stands in the lane, or a bicycle."""
    world, image = (started(town, 60, agents=2, walker_share=0.0) for town in towns)
    hidden = world._hidden
    obstacle, script, spot = hidden.cars[:, 1], hidden.scripts[:, 1], hidden.line[:, 45]
    obstacle["active"], obstacle["kind"], obstacle["speed"] = 1, ActorKind.CAR, 0.0
    obstacle["length"], obstacle["width"], obstacle["height"] = 4.5, 1.8, 1.5
    obstacle["narrow"] = np.arange(60) % 2
    obstacle["x"], obstacle["y"], obstacle["yaw"] = spot.T
    hidden.paths[:, 1] = -1
    script["mode"], script["stage"], script["goal_x"], script["goal_y"] = OFF_LANE, 0, spot[:, 0], spot[:, 1]
    mirror(world, image)
    actions = np.tile(np.array([[0.0, 0.15]], np.float32), (60, 1))
    swung = np.zeros(60, np.bool_)
    for _ in range(60):
        for each in (world, image):
            each.step(actions)
        assert_mirrored(world, image)
        swung |= hidden.egos["swinging"] == 1
    assert swung[::2].sum() > 5
    assert swung[1::2].sum() > 0


def test_who_appears_keeps_to_the_side_of_the_road(towns: tuple[DrivingMap, DrivingMap]) -> None:
    for town, left in zip(towns, (-1, 1), strict=True):
        hidden = started(town, 20, agents=60)._hidden
        beside = town.network.lane_right if left < 0 else town.network.lane_left
        riding = (hidden.cars["active"] == 1) & (hidden.cars["narrow"] == 1)
        assert riding.sum() > 10
        assert (left * hidden.cars["lateral"][riding] > 1.0).all()
        assert (beside[hidden.paths[riding, BEHIND]] < 0).all()
        walking = hidden.cars["active"][:, -hidden.walkers.shape[1] :] == 1
        assert walking.any()
        assert (left * hidden.walkers["aside"][walking] < 0.0).all()  # measured to the right


@njit
def side_of(graph: LaneGraph, lane: int) -> int:
    return turn_side(graph, lane)


def test_who_turns_back_turns_across_the_road(towns: tuple[DrivingMap, DrivingMap]) -> None:
    for town, side in zip(towns, (1, -1), strict=True):
        graph = build_lane_graph(town.network)
        inner = np.flatnonzero(graph.lanes["junction"] >= 0)
        assert [side_of(graph, lane) for lane in inner] == graph.lanes["turn"][inner].tolist()
        graph.lanes["turn"][inner[0]] = TURN_BACK
        assert side_of(graph, inner[0]) == side


@njit
def goes_on_passing(me: np.void, span: np.void, hand: int) -> bool:
    return _has_room_to_pass(me, span, 50.0, 8.0, -1, hand)


def test_who_is_beside_a_bicycle_on_its_inner_side_goes_on_passing_it() -> None:
    """Five metres before the end of the lane, where nobody begins."""
    me, bicycle = np.zeros(1, CAR), np.zeros(1, SPAN)
    me["s"], me["length"], me["speed"], me["factor"] = 45.0, 4.5, 8.0, 1.0
    bicycle["rear"], bicycle["front"], bicycle["speed"] = 44.0, 46.0, 4.0
    for hand in (1, -1):
        for inwards in (1, 0, -1):
            me["offset"] = hand * inwards * PASSING_OFFSET_M
            assert goes_on_passing(me[0], bicycle[0], hand) == (inwards == 1)
