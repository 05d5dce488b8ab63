"""GNSS and IMU of recordings: what falls between two frames, in which axes, and what is left out."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sim_logs_kitti_raw import START_US, circle, make_drive
from test_sim_logs_ros import SECOND_NS, T, cloud, message_header, points_of, read, tf, write_bag

from perception.geometry import rotation_from_euler, se3
from perception.sensors import GnssFix
from sim.logs.log import LogSummary
from sim.logs.mounting import FrameTree
from sim.logs.navigation import NavigationReadings
from sim.logs.recorded import RecordedImu

TURN = rotation_from_euler(math.pi / 2, 0.1)


def nav_sat_fix(time_ns: int, latitude: float = 48.1, altitude: float = 520.0, status: int = 0, kind: int = 2) -> Any:
    covariance = np.diag([4.0, 4.0, 9.0]).ravel()
    return T["sensor_msgs/msg/NavSatFix"](
        header=message_header(time_ns, "gnss"), status=T["sensor_msgs/msg/NavSatStatus"](status=status, service=1),
        latitude=latitude, longitude=11.5, altitude=altitude, position_covariance=covariance, position_covariance_type=kind,
    )  # fmt: skip


def imu(time_ns: int, force: tuple[float, float, float], rate: tuple[float, float, float], known: bool = True) -> Any:
    vector, unknown = T["geometry_msgs/msg/Vector3"], np.zeros(9)
    unknown[0] = -1.0
    return T["sensor_msgs/msg/Imu"](
        header=message_header(time_ns, "imu"), orientation=T["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=unknown, angular_velocity=vector(*rate), angular_velocity_covariance=np.zeros(9),
        linear_acceleration=vector(*force), linear_acceleration_covariance=np.zeros(9) if known else unknown,
    )  # fmt: skip


def bag(folder: Path, *more: tuple[str, int, Any], mounted: bool = True) -> Path:
    """Sweeps at 10 Hz, an IMU at 100 Hz, turned on its car, a fix every 0.2 s 10 ms before a sweep."""
    messages: list[tuple[str, int, Any]] = [*more]
    transforms = [("base_link", "lidar", np.eye(4))] + (
        [("base_link", "imu", se3(TURN, [1, 0, 0.5]))] if mounted else []
    )
    messages.append(("/tf_static", SECOND_NS, tf(SECOND_NS, *transforms)))
    force, rate = TURN.T @ [1.0, 2.0, 9.8], TURN.T @ [0.0, 0.1, 0.4]
    for k in range(1, 101):
        at = SECOND_NS + k * 10_000_000
        messages.append(("/imu", at, imu(at, tuple(force), tuple(rate))))
        if k % 10 == 0:
            messages.append(("/points", at, cloud(at, "lidar", points_of([(1, 2, 3, 1)]))))
        if k % 20 == 0:
            messages.append(("/fix", at - 10_000_000, nav_sat_fix(at - 10_000_000, 48.1 + k * 1e-5)))
    return write_bag(folder / "bag", messages)


def test_each_frame_has_the_samples_since_the_last_one_and_a_new_fix_once(tmp_path: Path) -> None:
    steps, problems = read(bag(tmp_path))
    assert len(steps) == 10
    for k, step in enumerate(steps, start=1):
        samples, fix = step.frame.imu, step.frame.gnss
        assert samples is not None
        assert samples.timestamp_us.tolist() == [1_000_000 + 10_000 * n for n in range(10 * k - 9, 10 * k + 1)]
        assert samples.acceleration_mps2 == pytest.approx(np.tile([1.0, 2.0, 9.8], (10, 1)))
        assert samples.angular_rate_radps == pytest.approx(np.tile([0.0, 0.1, 0.4], (10, 1)))
        assert (fix is not None) == (k % 2 == 0)
        if fix is not None:
            assert (fix.latitude_deg, fix.longitude_deg, fix.altitude_m) == (
                pytest.approx(48.1 + k * 1e-4),
                11.5,
                520.0,
            )
            assert (fix.timestamp_us, fix.horizontal_m, fix.vertical_m) == (step.timestamp_us - 10_000, 2.0, 3.0)
            assert np.isnan(fix.velocity_mps).all()
    assert "GNSS" not in problems
    assert "IMU" not in problems


def test_what_says_nothing_is_left_out_and_counted(tmp_path: Path) -> None:
    at = SECOND_NS + 95_000_000
    steps, problems = read(
        bag(
            tmp_path,
            ("/fix", at, nav_sat_fix(at, status=-1)),
            ("/fix", at, nav_sat_fix(at, latitude=math.nan)),
            ("/fix", at, nav_sat_fix(at, altitude=math.inf)),
            ("/imu", at, imu(at, (0.0, 0.0, 9.8), (0.0, 0.0, 0.0), known=False)),
            ("/imu", at, imu(at, (0.0, math.nan, 9.8), (0.0, 0.0, 0.0))),
            ("/second/fix", at, nav_sat_fix(at, 10.0)),
            mounted=False,
        )
    )
    assert steps[0].frame.gnss is None
    assert steps[0].frame.imu is not None
    assert len(steps[0].frame.imu.timestamp_us) == 10
    for line in (
        "/fix: GNSS without a fix (1 times)",
        "/fix: GNSS fix that is no place on earth (2 times)",
        "/imu: IMU without linear acceleration (1 times)",
        "/imu: IMU sample of what no car knows (1 times)",
        "/second/fix: left out, as GNSS is taken from /fix, which has the most messages",
        "the IMU's frame 'imu' is not connected to 'base_link': its axes are taken for the ego's",
    ):
        assert line in problems


def test_deviations_that_the_receiver_does_not_know_are_nan(tmp_path: Path) -> None:
    at = SECOND_NS + 99_000_000
    steps, _ = read(
        bag(
            tmp_path,
            ("/other/fix", at, nav_sat_fix(at, kind=0)),
            *[("/other/fix", at + n, nav_sat_fix(at + n, kind=0)) for n in range(9)],
        )
    )
    fix = steps[0].frame.gnss
    assert fix is not None
    assert math.isnan(fix.horizontal_m)
    assert math.isnan(fix.vertical_m)


@given(
    st.lists(st.integers(0, 100), max_size=30),
    st.lists(st.integers(0, 100), max_size=30),
    st.lists(st.integers(-5, 110), min_size=2, max_size=8, unique=True),
)
def test_between_frames_nothing_is_lost_or_said_twice(fixes: list[int], samples: list[int], frames: list[int]) -> None:
    tree, summary = FrameTree("base_link", LogSummary()), LogSummary()
    said = [GnssFix(at, 48.0, float(n), 0.0, np.zeros(3), 1.0, 1.0) for n, at in enumerate(fixes)]
    felt = [RecordedImu("base_link", at, np.full(3, float(at)), np.zeros(3)) for at in samples]
    readings, frames = NavigationReadings(said, felt, tree, summary), sorted(frames)
    heard: list[int] = []
    for since, now in pairwise(frames):
        fix, imu_samples = readings.between(since, now)
        within = [at for at in fixes if since < at <= now]
        assert (None if fix is None else fix.timestamp_us) == (max(within) if within else None)
        if imu_samples is not None:
            assert (imu_samples.acceleration_mps2[:, 0] == imu_samples.timestamp_us).all()
            heard += imu_samples.timestamp_us.tolist()
    assert heard == sorted({at for at in samples if frames[0] < at <= frames[-1]})
    assert summary.lines() == []


def test_kitti_packets_say_place_velocity_and_forces(tmp_path: Path) -> None:
    packets = []
    for line in circle(4)[0]:
        values = line.split()
        values[6:11] = ["1.0", "2.0", "4.0", "0.0", "-0.5"]  # north, east, forward, left, up
        values[11:14], values[17:20], values[23] = ["0.1", "1.6", "9.8"], ["0.0", "0.0", "0.4"], "0.07"
        packets.append(" ".join(values))
    steps, problems = read(make_drive(tmp_path, packets))
    assert problems == ""
    for k, step in enumerate(steps):
        fix, samples = step.frame.gnss, step.frame.imu
        assert fix is not None
        assert samples is not None
        assert fix.timestamp_us == START_US + 100_000 * k
        assert fix.velocity_mps.tolist() == [2.0, 1.0, -0.5]
        assert fix.horizontal_m == 0.07
        assert math.isnan(fix.vertical_m)
        assert fix.latitude_deg == pytest.approx(49.015, abs=1e-3)
        assert samples.acceleration_mps2[0] == pytest.approx([0.1, 1.6, 9.8], abs=0.4)  # of an IMU turned by 0.02
        assert np.linalg.norm(samples.acceleration_mps2[0]) == pytest.approx(np.linalg.norm([0.1, 1.6, 9.8]))
