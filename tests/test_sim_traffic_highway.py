"""Traffic on highways: who appears fits into the traffic, who merges takes a gap, and the ego begins with the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from planning.route_follower import RouteFollower
from sim.events import boxes_overlap
from sim.roads.driving_map import load_map
from sim.roads.network import FAST_ROAD_MPS, LaneControl
from sim.traffic.spawning import FLOW_BRAKE_MPS2, flow_speed
from sim.traffic.vehicles import BEHIND, CAR
from sim.world import ActorKind, World, WorldConfig

ENVS, TICKS = 6, 500


@pytest.fixture(scope="module")
def world():
    return World(
        load_map("highway"), WorldConfig(agents=40, spawn_radius_m=200.0, route_min_m=600.0, route_max_m=900.0), ENVS
    )


@pytest.fixture(scope="module")
def flow(world):
    """Records of all agents and the lane of each, tick by tick, (T, E, A)."""
    seeds = np.arange(70, 70 + ENVS, dtype=np.uint64)
    world.reset(np.ones(ENVS, np.bool_), seeds, np.zeros(ENVS, np.int64))
    driver, cars, lanes = RouteFollower(), [], []
    for _ in range(TICKS):
        cars.append(world._hidden.cars.copy())
        lanes.append(world._hidden.paths[:, :, BEHIND].copy())
        world.step(driver.act({}, world.situation()))
    return np.array(cars), np.array(lanes)


def on_fast_road(network, cars, lanes):
    return (cars["active"] == 1) & (lanes >= 0) & (network.lane_limit_mps[np.maximum(lanes, 0)] > FAST_ROAD_MPS)


@njit
def speed_in(cars, agent, speed):
    """`flow_speed` at the origin, heading along x; only kernels can call it."""
    return flow_speed(cars, agent, 0.0, 0.0, 0.0, 4.0, speed)


others = st.lists(st.tuples(st.floats(-140.0, 140.0), st.floats(0.0, 35.0), st.booleans()), min_size=1, max_size=6)


@given(others, st.floats(5.0, 33.0))
def test_who_appears_makes_nobody_brake_hard(places, speed):
    """In its lane, along a straight road: neither it behind those in front, nor those behind it."""
    cars = np.zeros(len(places) + 1, CAR)
    cars["length"], cars["from_lane"] = 4.0, -1
    for k, (x, its, beside) in enumerate(places):
        cars[k]["x"], cars[k]["y"], cars[k]["speed"], cars[k]["active"] = x, 3.75 * beside, its, 1
    found = speed_in(cars, len(places), speed)
    mine = [(x, its) for x, its, beside in places if not beside]
    if not mine:
        assert found == speed
    if found < 0.0:
        return
    assert found <= speed
    for x, its in mine:
        gap = abs(x) - 4.0
        assert gap > 0.0
        back, front = (found, its) if x > 0.0 else (its, found)
        assert back**2 - front**2 <= 2.0 * FLOW_BRAKE_MPS2 * gap + 1e-9


def test_an_ego_on_a_highway_begins_with_the_traffic_and_elsewhere_at_rest(world):
    seeds = np.arange(ENVS, dtype=np.uint64)
    fast = 0
    for episode in range(6):
        world.reset(np.ones(ENVS, np.bool_), seeds, np.full(ENVS, episode))
        lane = world._hidden.route_lane[:, 0]
        limit, speed = world.map.network.lane_limit_mps[lane], world.state.speed_mps[:, 0]
        assert (speed[limit <= FAST_ROAD_MPS] == 0.0).all()
        assert (speed <= 0.75 * limit).all()
        fast += int((speed > 15.0).sum())
    assert fast > 5


def test_traffic_flows_and_nobody_brakes_hard_or_touches(world, flow):
    cars, lanes = flow
    network = world.map.network
    fast = on_fast_road(network, cars, lanes)
    fast[:, :, 0] = False
    share = cars["speed"][fast] / network.lane_limit_mps[lanes[fast]]
    assert fast.sum() > 20_000
    assert np.mean(share) > 0.7
    assert np.mean(cars["acceleration"][fast] < -4.0) < 0.004
    kinds = set(cars["kind"][fast].tolist())
    assert not kinds & {ActorKind.BICYCLE, ActorKind.PEDESTRIAN}
    assert (cars["dwell"][fast] == 0).all()
    for tick in range(0, TICKS, 5):
        for e in range(ENVS):
            near = [cars[tick, e, i] for i in np.flatnonzero(fast[tick, e])]
            for k, a in enumerate(near):
                for b in near[:k]:
                    assert not boxes_overlap(
                        a["x"], a["y"], a["yaw"], 0.5 * a["length"], 0.5 * a["width"],
                        b["x"], b["y"], b["yaw"], 0.5 * b["length"], 0.5 * b["width"],
                    )  # fmt: skip


def test_vehicles_merge_without_stopping_those_beside(world, flow):
    """Who leaves a lane that ends enters at speed for the most part, and who has priority there is not brought to a stop."""
    cars, lanes = flow
    network = world.map.network
    merging = (network.lane_control == LaneControl.YIELD) & (network.lane_limit_mps > FAST_ROAD_MPS)
    entered = (lanes[1:] != lanes[:-1]) & (lanes[:-1] >= 0) & merging[np.maximum(lanes[1:], 0)]
    entered &= (cars["active"][1:] == 1) & (cars["active"][:-1] == 1)
    assert entered.sum() >= 5
    assert np.median(cars["speed"][1:][entered]) > 12.0
    past = np.flatnonzero(merging)
    beside = {int(network.conflict_lane[network.conflict_start[k]]) for k in past}
    there = np.isin(lanes, list(beside)) & (cars["active"] == 1)
    there[:, :, 0] = False
    assert there.sum() > 100
    assert cars["speed"][there].min() > 5.0
