"""GNSS and IMU: geodesy against a real drive, errors against their statistics, motion against calculus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from sim.drive_batch import EnvConfig
from sim.roads.driving_map import DrivingMap
from sim.sensors.navigation import (
    GRAVITY_MPS2,
    GeoOrigin,
    GnssConfig,
    ImuConfig,
    Navigation,
    ecef_from_enu,
    ecef_from_geodetic,
    geodetic_from_ecef,
)
from sim.sensors.rig import Mount
from sim.world import EGO, World

SILENT_GNSS = {
    "horizontal_noise_m": 0.0, "vertical_noise_m": 0.0, "horizontal_bias_m": 0.0, "vertical_bias_m": 0.0, "bias_walk_m": 0.0,
    "velocity_noise_mps": 0.0,
}  # fmt: skip
SILENT_IMU = {
    "acceleration_noise": 0.0, "gyro_noise": 0.0, "acceleration_bias_mps2": 0.0, "gyro_bias_radps": 0.0,
    "acceleration_bias_walk": 0.0, "gyro_bias_walk": 0.0,
}  # fmt: skip


def new_world(town: DrivingMap, seeds: tuple[int, ...] = (3,)) -> World:
    world = World(town, EnvConfig.of().world, len(seeds))
    world.reset(np.ones(len(seeds), np.bool_), np.array(seeds, np.uint64), np.zeros(len(seeds), np.int64))
    return world


def enu_of(origin: GeoOrigin, latitude_deg: float, longitude_deg: float, altitude_m: float) -> NDArray[np.float64]:
    rotation, translation = ecef_from_enu(origin)
    return np.asarray(rotation.T @ (ecef_from_geodetic(latitude_deg, longitude_deg, altitude_m) - translation))


@given(latitude=st.floats(-90, 90), longitude=st.floats(-179.9, 180), altitude=st.floats(-500, 9000))
def test_geodetic_positions_come_back(latitude: float, longitude: float, altitude: float) -> None:
    back = geodetic_from_ecef(ecef_from_geodetic(latitude, longitude, altitude))
    assert back[0] == pytest.approx(latitude, abs=1e-9)
    assert back[2] == pytest.approx(altitude, abs=1e-5)
    if abs(latitude) < 89.99:
        assert back[1] == pytest.approx(longitude, abs=1e-9)


def test_geodesy_by_known_lengths() -> None:
    """A degree on WGS 84: 110,574.3 m of latitude and 111,319.5 m of longitude at the equator, 111,694 m at the pole."""
    equator = GeoOrigin(latitude_deg=0.0, longitude_deg=0.0, altitude_m=0.0)
    assert enu_of(equator, 0.001, 0.0, 0.0)[1] == pytest.approx(110.5743, abs=1e-3)
    assert enu_of(equator, 0.0, 0.001, 0.0)[0] == pytest.approx(111.3195, abs=1e-3)
    north = GeoOrigin(latitude_deg=89.0, longitude_deg=30.0, altitude_m=0.0)
    assert enu_of(north, 89.001, 30.0, 0.0)[1] == pytest.approx(111.694, abs=1e-2)
    assert np.linalg.norm(ecef_from_geodetic(90.0, 0.0, 0.0)) == pytest.approx(6_356_752.3142, abs=1e-3)


def test_geodesy_against_a_real_receiver(shared_data: Path) -> None:
    """A u-blox receiver's latitude and longitude, and the same drive's positions around the Earth's centre by others."""
    drive = shared_data / "comma2k19" / "segment_40"
    receiver = drive / "processed_log" / "GNSS" / "live_gnss_ublox"
    fixes, times = np.load(receiver / "value"), np.load(receiver / "t")
    poses, pose_times = (
        np.load(drive / "global_pose" / "frame_positions"),
        np.load(drive / "global_pose" / "frame_times"),
    )
    inside = (times > pose_times[0]) & (times < pose_times[-1])
    expected = np.column_stack([np.interp(times[inside], pose_times, poses[:, i]) for i in range(3)])
    # Columns: latitude, longitude, speed, time, altitude.
    ours = np.array([ecef_from_geodetic(f[0], f[1], f[4]) for f in fixes[inside]])
    assert inside.sum() > 300
    error = np.linalg.norm(ours - expected, axis=1)
    assert np.median(error) < 10.0
    back = np.array([geodetic_from_ecef(p)[:2] for p in expected])
    assert np.abs(back - fixes[inside, :2]).max() < 2e-4


def test_a_perfect_receiver_tells_where_its_antenna_is(town: DrivingMap) -> None:
    origin = GeoOrigin(latitude_deg=37.7, longitude_deg=-122.4, altitude_m=12.0)
    mount = Mount(x_m=1.0, y_m=-0.4, z_m=1.7)
    navigation = Navigation(GnssConfig(origin=origin, mount=mount, **SILENT_GNSS), None, 1)
    world = new_world(town)
    places, velocities = [], []
    for _ in range(30):
        world.step(np.array([[0.2, 0.6]], np.float32))
        fix = navigation.observe(world.state, 0).gnss
        assert fix is not None
        enu = enu_of(origin, fix.latitude_deg, fix.longitude_deg, fix.altitude_m)
        antenna = world.world_from_ego(0) @ [mount.x_m, mount.y_m, mount.z_m, 1.0]
        assert np.abs(enu - antenna[:3]).max() < 1e-3  # the Earth is round
        places.append(antenna[:3])
        velocities.append(fix.velocity_mps)
    travelled = (np.array(places[2:]) - np.array(places[:-2])) / 0.2
    assert np.abs(travelled - np.array(velocities)[1:-1]).max() < 0.15
    assert np.linalg.norm(velocities[-1]) > 1.0


def test_fixes_come_at_their_rate(town: DrivingMap) -> None:
    navigation = Navigation(GnssConfig(rate_hz=2), ImuConfig(rate_hz=50), 1)
    world = new_world(town)
    fixes, stamps = [], []
    for _ in range(20):
        world.step(np.array([[0.0, 0.3]], np.float32))
        frame = navigation.observe(world.state, 0)
        fixes.append(frame.gnss is not None)
        assert frame.imu is not None
        stamps.append(frame.imu.timestamp_us)
    assert sum(fixes) == 4
    assert (np.diff(np.concatenate(stamps)) == 20_000).all()
    assert stamps[-1][-1] == 2_000_000


def test_an_imu_at_rest_feels_gravity_and_a_moving_one_its_motion(town: DrivingMap) -> None:
    centre = ImuConfig(mount=Mount(x_m=0.0, z_m=0.5), **SILENT_IMU)
    tilted = ImuConfig(mount=Mount(x_m=0.0, z_m=0.5, pitch_deg=90.0), **SILENT_IMU)
    level, down = Navigation(None, centre, 1), Navigation(None, tilted, 1)
    world = new_world(town)
    for _ in range(40):
        world.step(np.array([[0.0, -1.0]], np.float32))
        frames = [n.observe(world.state, 0).imu for n in (level, down)]
    assert frames[0] is not None
    assert frames[1] is not None
    assert np.abs(frames[0].acceleration_mps2 - [0, 0, GRAVITY_MPS2]).max() < 1e-6
    assert np.abs(frames[1].acceleration_mps2 - [-GRAVITY_MPS2, 0, 0]).max() < 1e-6
    assert np.abs(frames[0].angular_rate_radps).max() < 1e-9
    speeds, forces, headings = [float(world.state.speed_mps[0, EGO])], [], [float(world.state.yaw_rad[0, EGO])]
    rates = []
    for _ in range(30):
        world.step(np.array([[0.3, 0.8]], np.float32))
        imu = level.observe(world.state, 0).imu
        assert imu is not None
        speeds.append(float(world.state.speed_mps[0, EGO]))
        headings.append(float(world.state.yaw_rad[0, EGO]))
        forces.append(imu.acceleration_mps2.mean(0))
        rates.append(imu.angular_rate_radps[:, 2].mean())
        lateral = speeds[-1] * world.state.yaw_rate_radps[0, EGO]
        assert imu.acceleration_mps2[-1, 1] == pytest.approx(lateral, abs=1e-6), "left is positive"
    assert np.sum(forces, axis=0)[0] * 0.1 == pytest.approx(speeds[-1] - speeds[0], abs=0.1 * speeds[-1])
    turned = np.unwrap(headings)[-1] - headings[0]
    assert abs(turned) > 0.1
    assert np.sum(rates) * 0.1 == pytest.approx(turned, abs=0.1 * abs(turned))


def test_a_lever_arm_feels_the_turning(town: DrivingMap) -> None:
    """Against second differences of the place of the IMU itself."""
    mount = Mount(x_m=2.0, y_m=0.7, z_m=1.0)
    navigation = Navigation(None, ImuConfig(mount=mount, **SILENT_IMU), 1)
    world = new_world(town)
    places, forces = [], []
    for _ in range(60):
        world.step(np.array([[0.35, 0.5]], np.float32))
        imu = navigation.observe(world.state, 0).imu
        assert imu is not None
        pose = world.world_from_ego(0)
        places.append((pose @ [mount.x_m, mount.y_m, 0.0, 1.0])[:2])
        forces.append(pose[:2, :2] @ imu.acceleration_mps2[-1, :2])
    second = (np.array(places[2:]) - 2 * np.array(places[1:-1]) + np.array(places[:-2])) / 0.01
    steady = slice(30, None)  # the steering has reached its stop
    assert np.abs(second[steady]).max() > 1.0
    assert np.abs(second - np.array(forces)[1:-1])[steady].max() < 0.15 * np.abs(second[steady]).max()


def test_an_imu_that_is_asked_seldom_feels_the_same(town: DrivingMap) -> None:
    mount = Mount(x_m=2.0, y_m=0.7, z_m=1.0)
    always, seldom = (Navigation(None, ImuConfig(mount=mount, **SILENT_IMU), 1) for _ in range(2))
    state = new_world(town).state
    for tick in range(21):
        state.tick[0], state.speed_mps[0, EGO] = tick, 8.0
        state.acceleration_mps2[0, EGO], state.yaw_rate_radps[0, EGO] = 0.1 * tick, 0.02 * tick
        each = always.observe(state, 0).imu
        if tick % 10 == 0:
            rare = seldom.observe(state, 0).imu
            assert each is not None
            assert rare is not None
            assert np.abs(rare.acceleration_mps2 - each.acceleration_mps2).max() < 1e-9
            assert np.abs(rare.angular_rate_radps - each.angular_rate_radps).max() < 1e-9


def test_errors_have_the_stated_size(town: DrivingMap) -> None:
    envs = 300
    gnss = GnssConfig(
        horizontal_noise_m=0.2, horizontal_bias_m=1.0, bias_walk_m=0.5, vertical_noise_m=0.0, vertical_bias_m=2.0
    )
    imu = ImuConfig(rate_hz=100, **{**SILENT_IMU, "gyro_noise": 2e-3, "gyro_bias_radps": 0.05, "gyro_bias_walk": 0.01})
    navigation = Navigation(gnss, imu, envs)
    world = new_world(town, (1,))
    state, seconds = world.state, 5
    first, last, rates = [], [], []
    for e in range(envs):  # one world, other seeds: only the errors differ
        copy = {name: np.repeat(getattr(state, name), e + 1, axis=0) for name in state.__dataclass_fields__}
        copy["seed"][e], copy["tick"][e] = 1000 + e, 0
        here = type(state)(**copy)
        frames = [navigation.observe(here, e)]
        here.tick[e] = 10 * seconds
        frames.append(navigation.observe(here, e))
        fixes = [f.gnss for f in frames]
        places = [enu_of(gnss.origin, f.latitude_deg, f.longitude_deg, f.altitude_m) for f in fixes if f is not None]
        first.append(places[0])
        last.append(places[1])
        assert frames[1].imu is not None
        rates.append(frames[1].imu.angular_rate_radps)
    antenna = world.world_from_ego(0) @ [gnss.mount.x_m, gnss.mount.y_m, gnss.mount.z_m, 1.0]
    start, end, gyro = np.array(first) - antenna[:3], np.array(last) - antenna[:3], np.array(rates)
    assert np.abs(start.mean(0)).max() < 0.4
    assert start[:, :2].std() == pytest.approx(np.hypot(1.0, 0.2), rel=0.12)
    assert start[:, 2].std() == pytest.approx(2.0, rel=0.15)
    assert (end - start)[:, :2].std() == pytest.approx(np.hypot(0.5 * np.sqrt(seconds), 0.2 * np.sqrt(2)), rel=0.12)
    assert (end - start)[:, 2].std() == pytest.approx(2 * 0.5 * np.sqrt(seconds), rel=0.15)
    assert (gyro - gyro.mean(1, keepdims=True)).std() == pytest.approx(2e-3 * 10 * np.sqrt(0.9), rel=0.05)
    assert gyro.mean(1).std() == pytest.approx(np.hypot(0.05, 0.01 * np.sqrt(seconds)), rel=0.12)


def test_errors_belong_to_seed_episode_and_tick_alone(town: DrivingMap) -> None:
    world = new_world(town, (3, 4))
    every, sparse = (Navigation(GnssConfig(), ImuConfig(), 2) for _ in range(2))
    for tick in range(1, 21):
        world.step(np.full((2, 2), [0.0, 0.4], np.float32))
        frames = [every.observe(world.state, e) for e in (0, 1)]
        if tick % 10 == 0:
            late = sparse.observe(world.state, 1)
    assert late.gnss is not None
    assert frames[1].gnss is not None
    assert frames[0].gnss is not None
    assert late.gnss.latitude_deg == frames[1].gnss.latitude_deg
    assert np.array_equal(late.gnss.velocity_mps, frames[1].gnss.velocity_mps)
    assert late.gnss.latitude_deg != frames[0].gnss.latitude_deg
    again = Navigation(GnssConfig(), ImuConfig(), 2)
    world.reset(np.array([False, True]), np.array([3, 4], np.uint64), np.array([0, 1]))
    other = sparse.observe(world.state, 1)
    fresh = again.observe(world.state, 1)
    assert other.gnss is not None
    assert fresh.gnss is not None
    assert other.gnss.longitude_deg == fresh.gnss.longitude_deg, "a new episode starts anew"
    assert other.imu is not None
    assert fresh.imu is not None
    assert np.array_equal(other.imu.acceleration_mps2, fresh.imu.acceleration_mps2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latitude_deg": 95.0}, "less than or equal to 89"),
        ({"longitude_deg": float("nan")}, "finite number"),
    ],
)
def test_an_origin_off_the_earth_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GeoOrigin(**values)


def test_rates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must divide 10"):
        Navigation(GnssConfig(rate_hz=3), None, 1)
    with pytest.raises(ValueError, match="must be a multiple of 10"):
        Navigation(None, ImuConfig(rate_hz=105), 1)
