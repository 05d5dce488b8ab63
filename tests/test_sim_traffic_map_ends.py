"""Traffic where a road ends with the map: it drives on out of sight, and nobody has to queue behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from straight_road import straight_road

from planning.route_follower import RouteFollower
from sim.lane_graph import build_lane_graph
from sim.roads.driving_map import DrivingMap, load_map
from sim.roads.network import LaneKind
from sim.traffic.vehicles import BEHIND
from sim.world import EGO, World, WorldConfig

ENVS, TICKS = 6, 900


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> DrivingMap:
    return straight_road(tmp_path_factory.mktemp("map"))


def test_only_lanes_that_end_with_the_map_leave_it(road: DrivingMap) -> None:
    lanes = build_lane_graph(road.network).lanes
    driving = road.network.lane_kind == LaneKind.DRIVING
    assert (lanes["leaves"][driving] == 1).all()
    town = load_map("grid-small")
    assert (build_lane_graph(town.network).lanes["leaves"] == 0).all()


def test_a_lane_that_ends_beside_one_that_goes_on_does_not_leave(shared_data: Path) -> None:
    network = load_map(str(shared_data / "opendrive" / "two_plus_one.xodr")).network
    leaves = build_lane_graph(network).lanes["leaves"] == 1
    followers = np.diff(network.successor_start)
    dropped = [
        k for k in np.flatnonzero((network.lane_kind == LaneKind.DRIVING) & (followers == 0))
        if any(lane >= 0 and followers[lane] for lane in (network.lane_left[k], network.lane_right[k]))
    ]  # fmt: skip
    assert leaves.any()
    assert dropped
    assert not leaves[dropped].any()


def test_traffic_leaves_the_map_out_of_sight_and_nobody_waits_at_its_end(road: DrivingMap) -> None:
    config = WorldConfig(agents=16, spawn_radius_m=250.0, route_min_m=300.0, route_max_m=550.0)
    world, driver = World(road, config, ENVS), RouteFollower()
    world.reset(np.ones(ENVS, np.bool_), np.arange(ENVS, dtype=np.uint64), np.zeros(ENVS, np.int64))
    lengths = build_lane_graph(road.network).lanes["length"]
    arrived, beyond, left, longest = np.zeros(ENVS, np.bool_), 0, 0, 0
    for _ in range(TICKS):
        before = world._hidden.cars.copy()
        world.step(driver.act({}, world.situation()))
        cars, lanes = world._hidden.cars, world._hidden.paths[:, :, BEHIND]
        others = (cars["active"] == 1) & (lanes >= 0)
        others[:, EGO] = False
        out = others & (cars["s"] > lengths[np.maximum(lanes, 0)] + 1.0)
        beyond += int(out.sum())
        assert (cars["speed"][out] > 1.0).all()
        longest = max(longest, int(cars["wait"][others].max(initial=0)))
        gone = (before["active"] == 1) & (cars["active"] == 0)
        left += int(gone.sum())
        away = np.hypot(before["x"] - before["x"][:, :1], before["y"] - before["y"][:, :1])
        assert (away[gone] > config.respawn_distance_m - 5.0).all()
        assert (world.events.collision[~arrived] == 0).all()
        arrived |= world.events.arrived != 0
    assert beyond > 50
    assert left > 10
    assert longest < 300
    assert arrived.all()
