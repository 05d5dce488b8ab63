"""Sweeps of a moving car: against rays that each start where the car was at their own time, cast by Embree."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.drive_batch import EnvConfig
from sim.roads.driving_map import DrivingMap
from sim.sensors.cast import CX, CY, FAR_M
from sim.sensors.embree_oracle import EmbreeScene
from sim.sensors.rig import LidarConfig, RigConfig
from sim.sensors.suite import SensorSuite
from sim.sensors.sweep_motion import boxes_before, ego_before
from sim.world import ActorKind, World, WorldState

COLUMNS = 600  # no whole number of sectors


def driving(state: WorldState, ego_mps: float, others_mps: float, yaw_rate: float = 0.0) -> WorldState:
    changed = copy.deepcopy(state)
    changed.speed_mps[:] = others_mps
    changed.speed_mps[:, 0] = ego_mps
    changed.yaw_rate_radps[:] = 0.0
    changed.yaw_rate_radps[:, 0] = yaw_rate
    return changed


def swept(town: DrivingMap, state: WorldState, motion: bool, clockwise: bool = True) -> SensorSuite:
    lidar = LidarConfig.of_model("VLP-16", columns=COLUMNS, motion=motion, clockwise=clockwise)
    suite = SensorSuite(RigConfig(cameras=(), lidar=lidar), town, 2, state.x_m.shape[1], labels=True)
    suite.observe(state)
    return suite


@settings(deadline=None)
@given(time_s=st.floats(-0.2, 0.0), speed=st.floats(0, 40), yaw_rate=st.floats(-1, 1))
def test_the_ego_came_along_an_arc(time_s: float, speed: float, yaw_rate: float) -> None:
    x, y, c, s = ego_before(time_s, speed, yaw_rate)
    assert np.hypot(c, s) == pytest.approx(1.0)
    assert np.arctan2(s, c) == pytest.approx(yaw_rate * time_s)
    # Small steps of the same motion, backwards.
    steps = 2000
    heading = (np.arange(steps) + 0.5) / steps * yaw_rate * time_s
    assert x == pytest.approx(speed * time_s * np.cos(heading).mean(), abs=1e-6)
    assert y == pytest.approx(speed * time_s * np.sin(heading).mean(), abs=1e-6)


def test_a_standing_world_looks_the_same_with_and_without_motion(town: DrivingMap, state: WorldState) -> None:
    still = driving(state, 0.0, 0.0)
    plain, moving = swept(town, still, False), swept(town, still, True)
    name = "lidar"
    assert np.array_equal(plain.code[name], moving.code[name])
    assert np.allclose(plain.depth[name], moving.depth[name], rtol=1e-6)
    assert np.array_equal(plain.semantic[name], moving.semantic[name])
    assert np.array_equal(plain.instance[name], moving.instance[name])
    assert np.abs(plain.point_count - moving.point_count).max() < 0.01 * plain.point_count.max()
    for suite in (plain, moving):
        for e in range(2):
            seen = suite.point_labels[e, : suite.point_count[e], 0]
            assert (np.bincount(seen, minlength=16) <= COLUMNS).all()
            assert not suite.points[e, suite.point_count[e] :].any()


@pytest.mark.parametrize(("speed", "yaw_rate", "clockwise"), [(15.0, 0.0, True), (15.0, 0.3, False), (5.0, -0.6, True)])
def test_every_ray_starts_where_the_car_was_at_its_time(
    town: DrivingMap, state: WorldState, speed: float, yaw_rate: float, clockwise: bool
) -> None:
    """Others stand, so Embree can cast every column from its own pose into one scene."""
    driven = driving(state, speed, 0.0, yaw_rate)
    moving, plain = (swept(town, driven, motion, clockwise) for motion in (True, False))
    lidar = moving.rig.lidar
    assert lidar is not None
    e = 0
    scene = EmbreeScene(moving.boxes[e, : moving.counts[e, 0]])
    mount = lidar.mount.ego_from_mount()[:3, 3]
    elevation, azimuth = np.radians(lidar.elevations_deg)[:, None], lidar.azimuths_rad()[None, :]
    rays = np.empty((lidar.beams, COLUMNS, 6), np.float32)
    for c, time_s in enumerate(lidar.column_times_s()):
        x, y, cos, sin = ego_before(time_s, speed, yaw_rate)
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        ahead = azimuth[0, c]
        look = np.column_stack(
            [np.cos(elevation) * np.cos(ahead), np.cos(elevation) * np.sin(ahead), np.sin(elevation)]
        )
        rays[:, c, :3] = turn @ mount + [x, y, 0.0]
        rays[:, c, 3:] = look @ turn.T
    theirs, identity = scene.cast(rays)
    half_sector = 16 / COLUMNS * 0.1  # 19 sectors of 32 columns
    errors = {}
    for suite in (moving, plain):
        ours = np.where(suite.code["lidar"][e] >= 0, suite.code["lidar"][e] >> 2, suite.code["lidar"][e])
        solid = (identity >= 0) & (theirs < 60.0)
        same = solid & (ours == identity)
        errors[suite is moving] = np.abs(suite.depth["lidar"][e] - theirs)[same], same.sum() / solid.sum()
    error, agreed = errors[True]
    # Half a sector of driving, and of turning at the range of the surface; walls met at a flat angle show more of it.
    bound = half_sector * (speed + abs(yaw_rate) * 60.0)
    assert agreed > 0.96
    assert np.median(error) < bound / 2
    assert np.percentile(error, 90) < 2.5 * bound
    # Without motion the error is many times that, or this test would say nothing.
    assert np.percentile(errors[False][0], 90) > 8 * np.percentile(error, 90)
    assert agreed > errors[False][1]


def test_who_drives_beside_the_ego_is_measured_where_he_is(town: DrivingMap, state: WorldState) -> None:
    """At the same speed on the same heading, nothing moves in the ego's frame."""
    boxes = np.zeros((3, 9), np.float32)
    boxes[:, CX : CY + 1] = [[10, 3], [-5, 3], [20, -8]]
    boxes[:, 6] = 1.0
    attributes = np.zeros((3, 6), np.int32)
    attributes[:, 2] = [1, 2, 3]
    moved = np.zeros_like(boxes)
    velocities = np.full((4, 2), [12.0, 0.0])
    boxes_before(boxes, np.arange(3), 3, 2, attributes, -0.08, ego_before(-0.08, 12.0, 0.0), velocities, moved)
    assert np.allclose(moved[:2], boxes[:2], atol=1e-5)
    # The third stands: 0.08 s ago it was 0.96 m further ahead.
    assert moved[2, CX] == pytest.approx(20.96, abs=1e-5)


def test_all_that_is_met_of_a_vehicle_lies_where_the_vehicle_was(town: DrivingMap, state: WorldState) -> None:
    """Also parts that look backwards, as rear windows do."""
    fast = driving(state, 0.0, 40.0)
    suite = swept(town, fast, True)
    lidar = suite.rig.lidar
    assert lidar is not None
    elevation, azimuth = np.radians(lidar.elevations_deg)[:, None], lidar.azimuths_rad()[None, :]
    mount = lidar.mount.ego_from_mount()[:3, 3]
    met = 0
    for e in range(2):
        level = suite.depth["lidar"][e] * np.cos(elevation)
        yaw = fast.yaw_rad[e, 0]
        c, s = np.cos(yaw), np.sin(yaw)
        x, y = mount[0] + level * np.cos(azimuth), mount[1] + level * np.sin(azimuth)
        east = fast.x_m[e, 0] - fast.rear_axle_m[e, 0] * c + c * x - s * y
        north = fast.y_m[e, 0] - fast.rear_axle_m[e, 0] * s + s * x + c * y
        for a in np.flatnonzero(fast.kind[e] <= ActorKind.BUS)[1:]:
            beam, column = np.nonzero(suite.instance["lidar"][e] == a)
            away = np.column_stack([east[beam, column] - fast.x_m[e, a], north[beam, column] - fast.y_m[e, a]])
            heading = np.array([np.cos(fast.yaw_rad[e, a]), np.sin(fast.yaw_rad[e, a])])
            along = away @ heading - 40.0 * lidar.column_times_s()[column]
            assert (np.abs(along) < fast.length_m[e, a] / 2 + 0.35).all()
            assert (np.abs(away @ [-heading[1], heading[0]]) < fast.width_m[e, a] / 2 + 0.35).all()
            met += len(beam)
    assert met > 100


def test_times_cover_the_sweep_and_points_come_from_their_sector(town: DrivingMap, state: WorldState) -> None:
    suite = swept(town, driving(state, 10.0, 5.0), True)
    lidar = suite.rig.lidar
    assert lidar is not None
    times = suite.point_time_us[0, : suite.point_count[0]]
    assert times.max() <= 0
    assert times.min() > -100_000
    assert np.ptp(times) > 95_000
    points, beam = (
        suite.points[0, : suite.point_count[0]].astype(float),
        suite.point_labels[0, : suite.point_count[0], 0],
    )
    offset = points[:, :3] - lidar.mount.ego_from_mount()[:3, 3]
    azimuth = np.arctan2(offset[:, 1], offset[:, 0])
    column = np.rint((azimuth - lidar.azimuths_rad()[0]) / np.radians(lidar.azimuth_step_deg)).astype(int) % COLUMNS
    assert np.array_equal(times, lidar.time_offsets_us()[beam, column])
    assert (suite.depth["lidar"][0][beam, column] < FAR_M).all()


@pytest.mark.parametrize("motion", [False, True])
def test_a_sweep_is_the_same_alone_and_in_a_batch(town: DrivingMap, motion: bool) -> None:
    sweeps = []
    for seeds in ([4], [3, 4, 5]):
        count = len(seeds)
        world = World(town, EnvConfig.of().world, count)
        world.reset(np.ones(count, np.bool_), np.array(seeds, np.uint64), np.zeros(count, np.int64))
        for _ in range(20):
            world.step(np.full((count, 2), [0.1, 0.5], np.float32))
        lidar = LidarConfig.of_model("Pandar64", columns=128, motion=motion)
        suite = SensorSuite(RigConfig(cameras=(), lidar=lidar), town, count, world.state.x_m.shape[1], labels=True)
        suite.air[:] = [0.02, 10.0, 0.5]
        suite.observe(world.state)
        e = seeds.index(4)
        sweeps.append((suite.points[e], suite.point_labels[e, : suite.point_count[e]], suite.depth["lidar"][e]))
    assert all(np.array_equal(alone, batched) for alone, batched in zip(*sweeps, strict=True))


@pytest.mark.parametrize("weather", ["clear-noon", "fog-noon", "hard-rain-noon"])
def test_nothing_comes_back_from_beyond_the_last_column(town: DrivingMap, state: WorldState, weather: str) -> None:
    """Beams that all meet the ground, and more of the air than a sweep has room for if columns that do not exist answered."""
    down = tuple(np.linspace(-8, -40, 32).round(4).tolist())
    lidar = LidarConfig(elevations_deg=down, columns=1000, motion=True, sensitivity_m=500.0, min_range_m=0.0)
    agents = state.x_m.shape[1]
    suite = SensorSuite(RigConfig(cameras=(), lidar=lidar), town, 2, agents, weather=weather)
    suite.points[1] = 7.0
    suite.observe(driving(state, 0.0, 0.0), np.array([True, False]))
    assert 0 < suite.point_count[0] <= suite.points.shape[1]
    assert (suite.points[1] == 7.0).all()


@pytest.mark.parametrize("motion", [False, True])
def test_a_turn_more_or_less_at_the_beginning_changes_nothing(
    town: DrivingMap, state: WorldState, motion: bool
) -> None:
    def codes(start_deg: float, range_deg: float, columns: int) -> np.ndarray:
        lidar = LidarConfig.of_model(
            "VLP-16", columns=columns, motion=motion, azimuth_start_deg=start_deg, azimuth_range_deg=range_deg
        )
        suite = SensorSuite(RigConfig(cameras=(), lidar=lidar), town, 2, state.x_m.shape[1])
        suite.observe(driving(state, 0.0, 0.0))
        return suite.code["lidar"]

    for start_deg, range_deg, columns in ((-90.0, 360.0, COLUMNS), (-45.0, 50.0, 64), (-160.0, 70.0, 50)):
        one, other = codes(start_deg, range_deg, columns), codes(start_deg + 360.0, range_deg, columns)
        assert (one >= 0).sum() > 50
        assert (one != other).mean() < 1e-3  # rounding of azimuths
