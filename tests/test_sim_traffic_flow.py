"""Traffic as it flows through a crowded town: kinds, lane changes, buses, red lights."""

import numpy as np
import pytest
from straight_road import straight_road

from planning.route_follower import RouteFollower
from sim.roads.driving_map import load_map
from sim.roads.network import LaneControl
from sim.traffic.spawning import KIND_SHARES, RUNS_RED
from sim.traffic.vehicles import BEHIND
from sim.world import ActorKind, World, WorldConfig

ENVS, AGENTS, TICKS = 12, 40, 500
RED = 1


def start(world: World, first_seed: int) -> None:
    count = world.num_envs
    seeds = np.arange(first_seed, first_seed + count, dtype=np.uint64)
    world.reset(np.ones(count, np.bool_), seeds, np.zeros(count, np.int64))


@pytest.fixture(scope="module")
def flow():
    """Records of all agents and what signals showed, tick by tick, (T, E, A) and (T, E, G); lane of each, (T, E, A)."""
    world = World(load_map("grid-small"), WorldConfig(agents=AGENTS, spawn_radius_m=200.0), ENVS)
    start(world, 500)
    driver, cars, lanes, shown = RouteFollower(), [], [], []
    for _ in range(TICKS):
        world.step(driver.act({}, world.situation()))
        cars.append(world._hidden.cars.copy())
        lanes.append(world._hidden.paths[:, :, BEHIND].copy())
        shown.append(world.state.signal.copy())
    return world.map.network, np.array(cars), np.array(lanes), np.array(shown)


def test_every_kind_of_vehicle_is_on_the_road_in_its_share():
    world = World(load_map("grid-small"), WorldConfig(agents=60, spawn_radius_m=300.0), 40)
    start(world, 0)
    cars = world._hidden.cars[:, 1:]
    vehicles = cars[(cars["active"] == 1) & (cars["kind"] != ActorKind.PEDESTRIAN)]
    for kind, share in enumerate(KIND_SHARES):
        assert np.mean(vehicles["kind"] == kind) == pytest.approx(share, abs=0.03)
    bicycles = vehicles[vehicles["kind"] == ActorKind.BICYCLE]
    assert len(bicycles) > 20
    assert (bicycles["lateral"] < -1.0).all()
    assert (bicycles["speed"] <= 7.0).all()
    assert 0.04 < np.mean(vehicles["breaks"] != 0) < 0.12
    assert (vehicles["siren"] == 1).sum() >= 1


@pytest.mark.parametrize(("width_m", "passes"), [(3.0, False), (3.5, True)])
def test_bicycles_are_passed_within_a_lane_only_where_it_is_wide_enough(tmp_path, width_m, passes):
    """Nobody's box reaches over the middle of the road, where somebody who comes may be passing, too."""
    road = straight_road(tmp_path, width_m)
    world = World(road, WorldConfig(agents=30, spawn_radius_m=300.0, route_min_m=300.0, route_max_m=550.0), 8)
    start(world, 0)
    driver, moved_over = RouteFollower(), 0
    for _ in range(300):
        world.step(driver.act({}, world.situation()))
        cars = world._hidden.cars[:, 1:]
        usual = (cars["active"] == 1) & (cars["kind"] == ActorKind.CAR) & (cars["siren"] == 0)
        moved_over += (usual & (cars["offset"] > 0.0)).sum()
        assert (cars["lateral"] + 0.5 * cars["width"])[usual].max() < 0.5 * width_m
    assert (moved_over > 0) == passes


def lane_changes(network, cars, lanes):
    """(tick, env, agent) of each change between lanes outside junctions."""
    both = (lanes[1:] >= 0) & (lanes[:-1] >= 0) & (lanes[1:] != lanes[:-1])
    both &= (cars["active"][1:] == 1) & (cars["active"][:-1] == 1) & (cars["from_lane"][1:] == lanes[:-1])
    outside = network.lane_junction < 0
    both &= outside[np.maximum(lanes[1:], 0)] & outside[np.maximum(lanes[:-1], 0)]
    both[:, :, 0] = False
    return np.argwhere(both)


def test_lane_changes_are_signalled_and_move_nobody_at_once(flow):
    network, cars, lanes, _ = flow
    changes = lane_changes(network, cars, lanes)
    assert len(changes) >= 5
    for tick, e, i in changes:
        before, after = cars[tick, e, i], cars[tick + 1, e, i]
        side = 1 if lanes[tick + 1, e, i] == network.lane_left[lanes[tick, e, i]] else -1
        assert lanes[tick + 1, e, i] in (network.lane_left[lanes[tick, e, i]], network.lane_right[lanes[tick, e, i]])
        if before["signals"] == 1 and tick > 12:
            assert (cars["indicator"][tick - 12 : tick, e, i] == side).all()
        moved = np.hypot(after["x"] - before["x"], after["y"] - before["y"])
        assert moved == pytest.approx(0.05 * (before["speed"] + after["speed"]), abs=0.35)
        assert after["lateral"] * side < 0.0


def test_nobody_who_keeps_the_rules_drives_into_a_junction_at_red(flow):
    network, cars, lanes, shown = flow
    entered = (lanes[1:] != lanes[:-1]) & (lanes[:-1] >= 0) & (cars["active"][:-1] == 1) & (cars["active"][1:] == 1)
    link = np.where(lanes[1:] >= 0, network.lane_signal_link[np.maximum(lanes[1:], 0)], -1)
    light = np.take_along_axis(shown[1:], np.maximum(link, 0).reshape(*link.shape[:2], -1), axis=2)
    red = entered & (link >= 0) & (light == RED)
    lawful = (cars["breaks"][1:] != RUNS_RED) & (cars["siren"][1:] == 0)
    assert (entered & (link >= 0))[:, :, 1:].sum() > 50
    assert not (red & lawful)[:, :, 1:].any()


def test_who_keeps_the_rules_stands_before_it_passes_a_stop_sign_and_nobody_stands_there_for_ever():
    world = World(load_map("town:3"), WorldConfig(agents=AGENTS, spawn_radius_m=200.0), 6)
    start(world, 40)
    network, driver = world.map.network, RouteFollower()
    stops = network.lane_control == LaneControl.STOP
    cars, lanes = [], []
    for _ in range(900):
        world.step(driver.act({}, world.situation()))
        cars.append(world._hidden.cars.copy())
        lanes.append(world._hidden.paths[:, :, BEHIND].copy())
    car, lane = np.array(cars), np.array(lanes)
    entered = (lane[1:] != lane[:-1]) & (lane[:-1] >= 0) & (lane[1:] >= 0) & stops[np.maximum(lane[1:], 0)]
    entered &= (car["active"][1:] == 1) & (car["active"][:-1] == 1)
    passed = {"lawful": 0, "ego": 0}
    for tick, e, i in np.argwhere(entered):
        before = car[: tick + 1, e, i]
        if before["siren"][-1] == 1 or before["breaks"][-1] == RUNS_RED:
            continue
        away = network.lane_length_m[lane[tick, e, i]] - before["s"]
        same = lane[: tick + 1, e, i] == lane[tick, e, i]
        assert (same & (away <= 5.0) & (before["speed"] < 0.1)).any()
        passed["ego" if i == 0 else "lawful"] += 1
    assert passed["lawful"] > 20
    assert passed["ego"] > 0
    assert car["wait"][:, :, 1:].max() < 1200


def test_buses_stand_at_their_stops_and_leave_them():
    world = World(load_map("grid-small"), WorldConfig(agents=60, spawn_radius_m=300.0), 10)
    start(world, 0)
    served = 0
    for _ in range(600):
        world.step(np.tile(np.array([[0.0, -1.0]], np.float32), (10, 1)))
        cars = world._hidden.cars
        standing = (cars["dwell"] > 0) & (cars["active"] == 1)
        assert (cars["kind"][standing] == ActorKind.BUS).all()
        assert (cars["speed"][standing] < 0.5).all()
        served = max(served, int(((cars["served"] >= 0) & (cars["kind"] == ActorKind.BUS)).sum()))
    assert served >= 1
