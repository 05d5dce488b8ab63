"""How a recorded car moved, from odometry or transforms; the action that the simulator's car would have needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_sim_logs_ros import SECOND_NS, T, cloud, message_header, points_of, read, tf, write_bag

from perception.geometry import inverse, quaternion_from_rotation, se2_as_se3, transform
from perception.sensors import ROUTE_SPACING_M
from sim.dynamics import SEDAN, advance_ego
from sim.logs.odometry import Odometry, odometry_from_samples


def odometry(time_ns: int, body: str, pose: NDArray[np.float64], speed_mps: float = 0.0) -> Any:
    x, y, z, w = quaternion_from_rotation(pose[:3, :3]).tolist()
    vector = T["geometry_msgs/msg/Vector3"]
    where = T["geometry_msgs/msg/Pose"](
        position=T["geometry_msgs/msg/Point"](*pose[:3, 3].tolist()),
        orientation=T["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w),
    )
    twist = T["geometry_msgs/msg/Twist"](linear=vector(speed_mps, 0.0, 0.0), angular=vector(0.0, 0.0, 0.0))
    return T["nav_msgs/msg/Odometry"](
        header=message_header(time_ns, "odom"), child_frame_id=body,
        pose=T["geometry_msgs/msg/PoseWithCovariance"](pose=where, covariance=np.zeros(36)),
        twist=T["geometry_msgs/msg/TwistWithCovariance"](twist=twist, covariance=np.zeros(36)),
    )  # fmt: skip


def test_motion_comes_from_one_odometry_topic(tmp_path: Path) -> None:
    """The other one drives the same way in a frame of its own, far away and turned."""
    messages = []
    for k in range(10, 40):
        at = k * SECOND_NS // 10
        there = se2_as_se3(5000.0, 300.0, 1.0) @ se2_as_se3(float(k), 0.0, 0.0)
        messages.append(("/points", at, cloud(at, "base_link", points_of([(1, 2, 3, 1)]))))
        messages.append(("/odom", at, odometry(at, "base_link", se2_as_se3(float(k), 0.0, 0.0), 10.0)))
        if k % 2 == 0:
            messages.append(("/gps/odom", at + 1_000_000, odometry(at + 1_000_000, "base_link", there, 10.0)))
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    assert steps[15].action is not None
    assert steps[15].action.steer == 0.0
    poses = [ego.world_from_ego for step in steps if (ego := step.frame.ego) is not None]
    assert [pose[0, 3] for pose in poses if pose is not None] == list(range(10, 40))
    assert "/gps/odom: left out, as motion is taken from /odom" in problems


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("speed_mps", [0.0, 10.0])
def test_motion_comes_from_the_transform_that_moves(tmp_path: Path, repeated: bool, speed_mps: float) -> None:
    """Not from a mounting between it and the base frame, even if a node of ROS 1 says that one again and again."""
    mounting = ("base_footprint", "base_link", se2_as_se3(0.5, 0.0, 0.0))
    messages = [("/tf_static", 1, tf(1, mounting))]
    for k in range(10, 40):
        at = k * SECOND_NS // 10
        moving = ("odom", "base_footprint", se2_as_se3(0.1 * k * speed_mps, 0.0, 0.0))
        messages.append(("/tf", at, tf(at, moving, *([mounting] if repeated else []))))
        messages.append(("/points", at, cloud(at, "base_link", points_of([(1, 2, 3, 1)]))))
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    ego = steps[15].frame.ego
    assert ego is not None
    assert ego.world_from_ego is not None
    assert ego.speed_mps == pytest.approx(speed_mps)
    assert ego.world_from_ego[0, 3] == pytest.approx(2.5 * speed_mps + 0.5)
    assert "motion is taken from /tf (odom to base_footprint)" in problems


def test_a_gap_in_the_odometry_has_no_route(tmp_path: Path) -> None:
    """Nobody knows where the car is meanwhile, so nothing can be said of the way ahead of it; nor after the last sample."""
    messages = []
    for k in range(10, 60):
        at = k * SECOND_NS // 10
        messages.append(("/points", at, cloud(at, "base_link", points_of([(1, 2, 3, 1)]))))
        if not (20 < k < 40) and k < 50:
            messages.append(("/odom", at, odometry(at, "base_link", se2_as_se3(float(k), 0.0, 0.0), 10.0)))
    steps, _ = read(write_bag(tmp_path / "bag", messages))
    known = [k for k, step in zip(range(10, 60), steps, strict=True) if step.frame.ego is not None]
    assert known == [*range(10, 23), *range(40, 52)]
    assert [k for k, step in zip(range(10, 60), steps, strict=True) if step.frame.route_in_ego is not None] == known
    assert all(steps[k - 10].action is None for k in range(23, 40))


@pytest.mark.parametrize("damaged", ["speed", "place"])
def test_odometry_out_of_this_world_is_skipped(tmp_path: Path, damaged: str) -> None:
    """Numbers whose squares no float holds."""
    messages = []
    for k in range(10, 20):
        at = k * SECOND_NS // 10
        far, fast = (
            (1e300 if damaged == "place" and k == 15 else float(k)),
            1e200 if damaged == "speed" and k == 15 else 10.0,
        )
        messages.append(("/odom", at, odometry(at, "base_link", se2_as_se3(far, 0.0, 0.0), fast)))
        messages.append(("/points", at, cloud(at, "base_link", points_of([(1, 2, 3, 1)]))))
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    assert [step.frame.ego.speed_mps for step in steps if step.frame.ego] == [10.0] * 10
    said = "no car moves or turns at 1e+200" if damaged == "speed" else "pose is not finite, or over 1e+09 m away"
    assert f"/odom: {said} (1 times)" in problems


def drive(steer: float, throttle: float, seconds: float = 3.0) -> Odometry:
    """Odometry of the simulator's own car under a constant action, from 5 m/s."""
    x, y, yaw, speed, drive_mps2, wheel = 0.0, 0.0, 0.0, 5.0, 0.0, steer * SEDAN.max_steer
    times, poses, speeds, rates = [], [], [], []
    for k in range(int(seconds * 50) + 1):
        if k % 5 == 0:
            times.append(k * 20_000)
            poses.append(se2_as_se3(x, y, yaw))
            speeds.append(speed)
            rates.append(speed * np.tan(wheel) / SEDAN.wheelbase)
        x, y, yaw, speed, drive_mps2, wheel, _, _ = advance_ego(
            SEDAN, x, y, yaw, speed, drive_mps2, wheel, 0.0, 0.0, steer, throttle, 0.02
        )
    made = odometry_from_samples(times, poses, speeds, rates)
    assert made is not None
    return made


@pytest.mark.parametrize(("steer", "throttle"), [(0.0, 0.5), (0.1, 0.3), (-0.2, 0.2), (0.05, -0.05)])
def test_estimated_action_inverts_the_simulators_car(steer: float, throttle: float) -> None:
    odometry = drive(steer, throttle)
    action = odometry.estimated_action(1_500_000)  # the actuators have settled
    assert action is not None
    assert action.steer == pytest.approx(steer, abs=0.01)
    assert action.throttle == pytest.approx(throttle, abs=0.03)
    assert odometry.estimated_action(3_000_000) is None
    assert odometry.estimated_action(-200_000) is None


@pytest.mark.parametrize("steer", [0.0, 0.15, -0.3])
def test_path_ahead_is_where_the_car_drove(steer: float) -> None:
    """Points lie on the circle of its steering, 2.5 m apart along it; the last is repeated."""
    odometry = drive(steer, 0.3)
    route = odometry.path_ahead(200_000)
    assert route is not None
    index = odometry.newest(200_000)
    positions = transform(inverse(odometry.world_from_ego[index]), odometry.world_from_ego[:, :3, 3])[:, :2]
    length = float(np.linalg.norm(np.diff(positions[index:], axis=0), axis=1).sum())
    inside = route[: int(length / ROUTE_SPACING_M)]
    assert len(inside) > 4
    steps = np.linalg.norm(np.diff(np.vstack([[0, 0], inside]), axis=0), axis=1)
    np.testing.assert_allclose(steps, ROUTE_SPACING_M, atol=0.05)
    curvature = np.tan(steer * SEDAN.max_steer) / SEDAN.wheelbase
    if steer:
        center = np.array([0.0, 1 / curvature])
        np.testing.assert_allclose(np.linalg.norm(inside - center, axis=1), 1 / abs(curvature), atol=0.1)
    else:
        np.testing.assert_allclose(inside[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(route[-1], positions[-1], atol=0.3)


def test_speed_comes_from_poses_where_the_recording_has_none() -> None:
    truth = drive(0.1, 0.3)
    missing = [None] * len(truth.timestamp_us)
    made = odometry_from_samples(truth.timestamp_us.tolist(), list(truth.world_from_ego), missing, missing)
    assert made is not None
    np.testing.assert_allclose(made.speed_mps[:-1], truth.speed_mps[:-1], atol=0.2)
    np.testing.assert_allclose(made.yaw_rate_radps[:-1], truth.yaw_rate_radps[:-1], atol=0.02)
