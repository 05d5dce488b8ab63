"""Where an ego stands: on its lane, beside it, off the road, in junctions, at stop signs, against others."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from planning.route_follower import RouteFollower
from sim.drive_batch import DriveBatch, EnvConfig
from sim.events import _first_of_thing, boxes_overlap
from sim.parked import parked_things
from sim.roads.driving_map import DrivingMap
from sim.roads.network import LaneControl
from sim.step import Step

ALONE = {"agents": 1, "route_min_m": 150.0, "route_max_m": 300.0}


def alone(town: DrivingMap, seed: int = 5, **config: object) -> DriveBatch:
    batch = DriveBatch(EnvConfig.of(observation="privileged", world=ALONE, **config), 1, town)
    batch.reset(np.ones(1, np.bool_), np.array([seed], np.uint64), np.zeros(1, np.int64))
    return batch


def moved(batch: DriveBatch, left_m: float = 0.0, turned_rad: float = 0.0) -> None:
    """Put the ego beside its place, or turn it there."""
    cars = batch.world._hidden.cars[0]
    yaw = float(batch.world.state.yaw_rad[0, 0])
    for array, shift in ((batch.world.state.x_m, -math.sin(yaw)), (batch.world.state.y_m, math.cos(yaw))):
        array[0, 0] += left_m * shift
    batch.world.state.yaw_rad[0, 0] = yaw + turned_rad
    cars[0]["x"], cars[0]["y"] = batch.world.state.x_m[0, 0], batch.world.state.y_m[0, 0]
    cars[0]["yaw"] = yaw + turned_rad


def test_an_ego_at_its_start_is_in_its_lane(town: DrivingMap) -> None:
    standing = alone(town).world.standing(0)
    assert standing.lane_offset_m == pytest.approx(0.0, abs=0.05)
    assert (standing.length_m, standing.width_m) == (4.6, 1.86)
    assert standing.off_drivable_m == 0.0
    flags = (standing.in_several_lanes, standing.off_lanes, standing.against_flow, standing.in_junction)
    assert flags == (False,) * 4
    assert standing.touched == ()


@pytest.mark.parametrize("left_m", [0.4, -0.4, 0.9, -0.9])
def test_offset_is_how_far_left_the_ego_was_put(town: DrivingMap, left_m: float) -> None:
    batch = alone(town)
    moved(batch, left_m)
    standing = batch.world.standing(0)
    assert standing.lane_offset_m == pytest.approx(left_m, abs=0.05)
    assert standing.in_several_lanes is (abs(left_m) > 0.8)


def test_far_beside_the_road_there_is_neither_lane_nor_drivable_ground(town: DrivingMap) -> None:
    batch = alone(town)
    moved(batch, -9.0)
    standing = batch.world.standing(0)
    assert standing.lane_offset_m is None
    assert standing.off_lanes
    assert standing.off_drivable_m == 1.0


def test_distance_from_drivable_ground_grows_as_the_ego_leaves_it(town: DrivingMap) -> None:
    batch = alone(town)
    distances = []
    for _ in range(60):
        moved(batch, -0.1)
        distances.append(batch.world.standing(0).off_drivable_m)
    assert distances[0] == 0.0
    assert distances[-1] == 1.0
    steps = np.diff([d for d in distances if 0.0 < d < 1.0])
    assert np.all(steps > 0.0)
    assert steps.mean() == pytest.approx(0.1, abs=0.03)


def test_turned_round_it_is_against_the_flow(town: DrivingMap) -> None:
    batch = alone(town)
    moved(batch, turned_rad=math.pi)
    standing = batch.world.standing(0)
    assert standing.against_flow
    assert standing.off_lanes


@pytest.mark.parametrize(("right_m", "off"), [(2.0, False), (2.6, True)])
def test_half_a_metre_beside_the_lane_is_still_in_it(town: DrivingMap, right_m: float, off: bool) -> None:
    batch = alone(town)
    moved(batch, -right_m)
    standing = batch.world.standing(0)
    half = float(batch.world._fixed[0].lanes["half_width"][batch.world._hidden.route_lane[0, 0]])
    assert half < 2.0 < half + 0.5 < 2.6
    assert standing.off_lanes is off
    assert standing.in_several_lanes


def put(batch: DriveBatch, x: float, y: float, yaw: float, speed: float) -> None:
    state, car = batch.world.state, batch.world._hidden.cars[0, 0]
    state.x_m[0, 0], state.y_m[0, 0], state.yaw_rad[0, 0] = car["x"], car["y"], car["yaw"] = x, y, yaw
    car["speed"] = speed


def test_parked_are_those_that_the_ego_would_meet_going_straight_on(town: DrivingMap) -> None:
    batch = alone(town)
    thing, boxes = parked_things(town.scenery)
    assert len(boxes) > 50
    rng, met = np.random.default_rng(0), 0
    for k in rng.integers(0, len(boxes), 12):
        yaw, away_m, speed = rng.uniform(-math.pi, math.pi), rng.uniform(6.0, 40.0), rng.uniform(2.0, 14.0)
        x, y = boxes[k, 0] - away_m * math.cos(yaw), boxes[k, 1] - away_m * math.sin(yaw)
        put(batch, x, y, yaw, speed)
        wanted = {
            -(int(thing[j]) + 1)
            for j, box in enumerate(boxes)
            for t in np.arange(31) * 0.1
            if boxes_overlap(
                x + speed * t * math.cos(yaw), y + speed * t * math.sin(yaw), yaw, 2.3, 0.93, *box.tolist()
            )
        }
        found = batch.world.standing(0).parked
        assert found is not None
        assert {vehicle.other for vehicle in found} == wanted
        met += len(wanted)
        assert bool(wanted) or away_m > 3 * speed - 3.0
    assert met > 5


def test_a_parked_car_that_is_touched_is_among_the_parked(town: DrivingMap) -> None:
    batch = alone(town)
    thing, boxes = parked_things(town.scenery)
    put(batch, *boxes[7, :3].tolist(), 0.0)
    standing = batch.world.standing(0)
    other = -(int(thing[7]) + 1)
    assert other in standing.touched
    assert standing.parked is not None
    (found,) = (vehicle for vehicle in standing.parked if vehicle.other == other)
    assert found[1:] == pytest.approx((*boxes[7, :3], 2 * boxes[7, 3], 2 * boxes[7, 4]))
    batch.reset(np.ones(1, np.bool_), np.array([5], np.uint64), np.zeros(1, np.int64))
    assert batch.world.standing(0).parked == ()  # stands on its lane


def test_touched_are_those_whose_boxes_overlap(town: DrivingMap) -> None:
    batch = alone(town)
    solids = batch.world._fixed[3].solids
    k = len(solids) // 2
    state, cars = batch.world.state, batch.world._hidden.cars[0]
    state.x_m[0, 0], state.y_m[0, 0] = solids[k, :2]
    cars[0]["x"], cars[0]["y"] = solids[k, :2]
    x, y, yaw = float(state.x_m[0, 0]), float(state.y_m[0, 0]), float(state.yaw_rad[0, 0])
    first = batch.world._fixed[3].first
    expected = [-(first[j] + 1) for j, s in enumerate(solids) if boxes_overlap(x, y, yaw, 2.3, 0.93, *s)]
    assert -(first[k] + 1) in expected
    touched = batch.world.standing(0).touched
    assert sorted(touched) == sorted(set(expected))


def test_solids_without_an_instance_are_things_of_their_own() -> None:
    assert _first_of_thing(np.array([0, 5, 5, 0, 7, 5], np.int32)).tolist() == [0, 1, 1, 3, 4, 1]


def test_a_parked_car_is_touched_once_however_many_solids_it_has(town: DrivingMap) -> None:
    batch = alone(town)
    around = batch.world._fixed[3]
    parts = np.bincount(around.first)
    k = int(np.argmax(parts))
    assert parts[k] > 10
    state, cars = batch.world.state, batch.world._hidden.cars[0]
    state.x_m[0, 0], state.y_m[0, 0] = cars[0]["x"], cars[0]["y"] = around.solids[k, :2]
    assert batch.world.standing(0).touched.count(-(k + 1)) == 1
    assert len(batch.world.standing(0).touched) < parts[k]


def drive(batch: DriveBatch) -> list[Step]:
    steps, driver = [batch.snapshot(0, None)], RouteFollower()
    while not (batch.terminated[0] or batch.truncated[0]):
        batch.step(driver.act({}, batch.situation))
        steps.append(batch.snapshot(0, None))
    return steps


def test_along_a_route_each_signal_comes_and_stays_until_the_tail_is_behind_its_line(town: DrivingMap) -> None:
    links, passed = town.network.lane_signal_link, 0
    for seed in range(8):
        batch = alone(town, seed)
        steps = drive(batch)
        hidden = batch.world._hidden
        route, starts = hidden.route_lane[0, : hidden.egos[0]["lanes"]], hidden.route_from[0]
        tail = float(hidden.egos[0]["front"]) - 4.6
        seen = []
        for before, after in pairwise(step.standing for step in steps):
            assert before is not None
            assert after is not None
            if after.signal is None or after.signal < 0:
                assert after.signal_distance_m is None
                continue
            assert after.signal_distance_m is not None
            assert -4.6 - 6.0 < after.signal_distance_m <= 40.0
            if before.signal != after.signal or before.signal_distance_m is None:
                continue
            assert after.signal_distance_m <= before.signal_distance_m + 1e-6
            if before.signal_distance_m >= -4.6 > after.signal_distance_m:
                seen.append(after.signal)
        wanted = [int(links[lane]) for k, lane in enumerate(route) if links[lane] >= 0 and starts[k] < tail]
        assert seen == wanted
        passed += len(wanted)
    assert passed >= 3


def test_far_beside_the_route_no_line_counts(town: DrivingMap) -> None:
    batch, lines = alone(town, 0), []
    for step in range(60):
        batch.step(RouteFollower().act({}, batch.situation))
        lines.append(batch.world.standing(0).signal_distance_m)
        if step > 10 and lines[-1] is not None:
            break
    assert lines[-1] is not None
    batch.world._hidden.egos[0]["lateral"] = -7.0
    standing = batch.world.standing(0)
    assert (standing.signal, standing.signal_distance_m, standing.stop_sign) == (-1, None, -1)


def test_along_a_route_junctions_and_stop_signs_come_and_go(town: DrivingMap) -> None:
    control, junction = town.network.lane_control, town.network.lane_junction
    seen_stop = False
    for seed in range(12):
        batch = alone(town, seed)
        steps = drive(batch)
        assert all(step.standing is not None and abs(step.standing.lane_offset_m or 0.0) < 1.0 for step in steps)
        route = batch.world._hidden.route_lane[0, : batch.world._hidden.egos[0]["lanes"]]
        crossed = route[batch.world._hidden.route_from[0, : len(route)] < steps[-1].progress_m]
        assert any(s.standing is not None and s.standing.in_junction for s in steps) == bool(
            (junction[crossed] >= 0).any()
        )
        for before, after in pairwise(steps):
            one, other = before.standing, after.standing
            assert one is not None
            assert other is not None
            if other.stop_sign >= 0:
                seen_stop = True
                assert control[other.stop_sign] == LaneControl.STOP
                if one.stop_sign == other.stop_sign:
                    assert other.stop_sign_distance_m is not None
                    assert one.stop_sign_distance_m is not None
                    assert other.stop_sign_distance_m <= one.stop_sign_distance_m + 1e-6
    assert seen_stop


def test_an_infraction_ends_the_episode_only_where_it_is_to(town: DrivingMap) -> None:
    lengths = {}
    for switch in (True, False):
        batch = alone(town, end_on_infraction=switch, max_steps=250)
        count, names = 0, set()
        while not (batch.terminated[0] or batch.truncated[0]):
            batch.step(np.array([[1.0, 0.3]], np.float32))  # in circles, over whatever stands beside the road
            names |= set(batch.infractions(0))
            count += 1
        assert names & {"off_road", "collision_static"}
        lengths[switch] = count
    assert lengths[True] < 100 < lengths[False]


def test_180_s_at_a_standstill_end_an_episode_that_infractions_do_not_end(town: DrivingMap) -> None:
    batch = alone(town, end_on_infraction=False, max_steps=3000)
    idle = np.array([[0.0, -1.0]], np.float32)
    for _ in range(1799):
        batch.step(idle)
        assert not batch.terminated[0]
    batch.step(idle)
    assert batch.terminated[0]
    assert "blocked" in batch.infractions(0)
