"""Argoverse 2's sensor logs: a real one against its labels and the reader of playback, made-up ones for cameras and damage."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather
from test_sim_logs_reader import FUZZ, read, read_or_error

from perception.geometry import (
    inverse,
    quaternion_from_rotation,
    rotation_from_euler,
    rotation_from_quaternion,
    se3,
    transform,
)
from sim.feather import MAX_ROWS, feather_columns
from sim.logs.argoverse2_sensors import BASE_FROM_CAR, MOUNTING, POSES
from sim.logs.log import LogError
from sim.logs.mounting import BODY_FROM_OPTICAL
from sim.logs.reader import log_info, open_log
from sim.playback.argoverse2 import read_argoverse2

START_NS = 315_966_070_000_000_000
FRONT = se3(rotation_from_euler(0.02, -0.01), [1.6, 0.0, 1.4]) @ BODY_FROM_OPTICAL
SWEEP = f"sensors/lidar/{START_NS + 100_000_000}.feather"
POSE_NAMES = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")


@pytest.fixture
def real(shared_data: Path) -> Path:
    return next(path for path in (shared_data / "argoverse2").iterdir() if path.is_dir())


def write(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pa.table(columns), str(path))


def poses_of(*poses: np.ndarray) -> dict[str, list[float]]:
    rows = [(*np.roll(quaternion_from_rotation(pose[:3, :3]), 1), *pose[:3, 3]) for pose in poses]
    return dict(zip(POSE_NAMES, map(list, zip(*rows, strict=True)), strict=True))


def make_log(folder: Path, sweeps: int = 5) -> Path:
    """A left turn of 10 m at 4 m/s: a sweep and, 30 ms before it, a picture every 0.1 s; a pose every 5 ms, the last one twice."""
    log = folder / "log"
    for k in range(sweeps):
        at_ns = START_NS + 100_000_000 * (k + 1)
        half = np.float16
        points = {name: np.array(v, half) for name, v in (("x", [5, 8]), ("y", [k, -1]), ("z", [-0.33, 1]))}
        write(log / f"sensors/lidar/{at_ns}.feather", **points, intensity=np.array([0, 255], np.uint8))
        picture = log / f"sensors/cameras/ring_front_center/{at_ns - 30_000_000}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture), np.full((48, 32, 3), 40 * k, np.uint8))
    times = np.append(np.arange(START_NS, START_NS + (sweeps + 3) * 100_000_000, 5_000_000), START_NS + 1)
    turned = [0.4 * (t - START_NS) / 1e9 for t in times.tolist()]
    driven = [se3(rotation_from_euler(a), [700 + 10 * math.sin(a), 10 - 10 * math.cos(a), 15.0]) for a in turned]
    write(log / POSES, timestamp_ns=times, **poses_of(*driven))
    write(log / MOUNTING, sensor_name=["ring_front_center", "up_lidar"], **poses_of(FRONT, np.eye(4)))
    numbers = {"fx_px": 40.0, "fy_px": 41.0, "cx_px": 15.5, "cy_px": 23.5, "k1": -0.25}
    sizes = {"width_px": np.array([32], np.uint32), "height_px": np.array([48], np.uint32)}
    columns = {name: [value] for name, value in numbers.items()}
    write(log / "calibration/intrinsics.feather", sensor_name=["ring_front_center"], **columns, **sizes)
    return log


def test_a_real_sweep_lies_in_the_boxes_that_people_drew_and_on_the_road(real: Path) -> None:
    steps, problems = read(real)
    assert problems == []
    (step,) = steps
    sweep = step.frame.lidars["lidar"]
    assert sweep is not None
    assert sweep.points.shape == (100_660, 4)
    assert 0.9 < sweep.points[:, 3].max() <= 1.0
    points = transform(sweep.ego_from_lidar, sweep.points[:, :3])
    road = points[(points[:, 0] < -5) & (points[:, 0] > -9) & (np.abs(points[:, 1]) < 1.2)]
    assert len(road) > 200
    assert abs(np.median(road[:, 2])) < 0.05
    names = ("timestamp_ns", "category", "length_m", "width_m", "height_m", *POSE_NAMES)
    boxes = feather_columns(real / "annotations.feather", names)
    near = np.hypot(boxes["tx_m"], boxes["ty_m"]) < 25
    cars = np.flatnonzero(
        (boxes["timestamp_ns"] // 1000 == step.timestamp_us) & (boxes["category"] == "REGULAR_VEHICLE") & near
    )
    assert len(cars) >= 5

    def share_inside(lift_m: float, left_m: float) -> float:
        """Of the points in and up to a metre around the boxes, above the road, those inside; median over the cars."""
        shares = []
        for k in cars:
            pose = se3(
                rotation_from_quaternion(*(boxes[name][k] for name in ("qx", "qy", "qz", "qw"))), [0.0, 0.0, 0.0]
            )
            pose[:3, 3] = BASE_FROM_CAR[:3, 3] + [boxes["tx_m"][k], boxes["ty_m"][k], boxes["tz_m"][k]]
            away = np.abs(transform(inverse(pose), points) - [0, left_m, lift_m])
            half = 0.5 * np.array([boxes["length_m"][k], boxes["width_m"][k], boxes["height_m"][k]])
            around = points[:, 2] > boxes["tz_m"][k] + 0.33 - half[2] + 0.3
            around &= (away < half + np.array([1.0, 1.0, 0.5])).all(axis=1)
            shares.append((away[around] < half + 0.05).all(axis=1).mean())
        return float(np.median(shares))

    moved = [share_inside(*shift) for shift in ((0.0, 0.0), (0.0, 1.0), (0.0, -1.0), (0.5, 0.0), (-0.5, 0.0))]
    assert moved[0] > 0.95
    assert max(moved[1:]) < 0.9


def test_motion_is_that_which_playback_reads(real: Path, tmp_path: Path) -> None:
    """The same sweep again at other times of the drive; playback reads the same poses by code of its own."""
    log = tmp_path / "log"
    (log / "sensors/lidar").mkdir(parents=True)
    shutil.copy(real / POSES, log)
    begin_ns = int(feather_columns(real / "annotations.feather", ("timestamp_ns",))["timestamp_ns"].min())
    (sweep,) = (real / "sensors/lidar").iterdir()
    ticks = range(10, 150, 10)
    for tick in ticks:
        (log / f"sensors/lidar/{begin_ns + tick * 100_000_000}.feather").symlink_to(sweep)
    scene = read_argoverse2(real)
    steps, _ = read(log)
    assert len(steps) == len(ticks)
    assert scene.ego.speed_mps[0].max() > 3.0
    for tick, step in zip(ticks, steps, strict=True):
        ego = step.frame.ego
        assert ego is not None
        assert ego.speed_mps == pytest.approx(scene.ego.speed_mps[0, tick], abs=0.3)
        middle = ego.world_from_ego @ [1.4, 0, 0, 1]
        assert middle[:2] - scene.origin_m == pytest.approx([scene.ego.x_m[0, tick], scene.ego.y_m[0, tick]], abs=0.15)


def test_cameras_see_what_their_files_say_and_motion_is_that_of_the_rear_axle(tmp_path: Path) -> None:
    steps, problems = read(make_log(tmp_path))
    assert problems == []
    assert [step.timestamp_us for step in steps] == [START_NS // 1000 + 100_000 * (k + 1) for k in range(5)]
    for k, step in enumerate(steps):
        camera, sweep, ego = step.frame.cameras["ring_front_center"], step.frame.lidars["lidar"], step.frame.ego
        assert camera is not None
        assert sweep is not None
        assert ego is not None
        assert step.frame.sensor_age_us()["ring_front_center"] == 30_000
        assert abs(int(camera.image[20, 20, 0]) - 40 * k) < 4
        calibration = camera.calibration
        assert calibration.intrinsics.tolist() == [[40, 0, 15.5], [0, 41, 23.5], [0, 0, 1]]
        assert calibration.distortion_model == "none"
        assert calibration.ego_from_camera == pytest.approx(BASE_FROM_CAR @ FRONT, abs=1e-6)
        assert sweep.points == pytest.approx(np.array([[5, k, -0.33, 0], [8, -1, 1, 1]]), abs=2e-3)
        assert transform(sweep.ego_from_lidar, sweep.points[:1, :3])[0, 2] == pytest.approx(0.0, abs=2e-3)
        assert ego.speed_mps == pytest.approx(4.0, abs=0.01)
        assert ego.yaw_rate_radps == pytest.approx(0.4, abs=0.001)


def test_what_is_missing_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    shutil.rmtree(log / "calibration")
    (log / POSES).unlink()
    (log / SWEEP).write_bytes(b"no feather")
    (log / "sensors/lidar/latest.feather").write_bytes(b"a file of another name")
    steps, problems = read(log)
    assert len(steps) == 4
    assert steps[0].frame.ego is None
    told = "\n".join(problems)
    assert "there is no calibration/egovehicle_SE3_sensor.feather, which cameras need" in told
    assert "there is no calibration/intrinsics.feather, which cameras need" in told
    assert "/lidar: sweep that is damaged or of another kind" in told
    assert "(1 times)" in told
    assert log_info(log)["kind"] == "Argoverse 2 log"


@pytest.mark.parametrize(
    ("file", "columns", "message"),
    [
        (POSES, {"timestamp_ns": [1.5], **poses_of(np.eye(4))}, "timestamp_ns holds double|timestamp_ns holds float64"),
        (POSES, {"timestamp_ns": [5], **poses_of(np.eye(4)), "tx_m": [np.nan]}, "tx_m holds what is no finite number"),
        (POSES, {"timestamp_ns": [5], **poses_of(np.eye(4)), "qw": [0.0]}, "row 0 is no pose"),
        (POSES, {"timestamp_ns": [5], **poses_of(np.eye(4)), "ty_m": [1e12]}, "row 0 is a place over 1e.09 m away"),
        (POSES, {"timestamp_ns": [5]}, "city_SE3_egovehicle.feather is damaged, or of another kind"),
        (MOUNTING, {"sensor_name": ["a"], "qw": ["b"]}, "egovehicle_SE3_sensor.feather is damaged"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, file: Path, columns: dict[str, Any], message: str) -> None:
    log = make_log(tmp_path)
    write(log / file, **columns)
    with pytest.raises(LogError, match=message):
        open_log(log)


def test_tables_of_too_many_rows_are_refused_before_they_are_read(tmp_path: Path) -> None:
    write(tmp_path / "long.feather", a=np.zeros(MAX_ROWS + 1, np.uint8))
    for source in (tmp_path / "long.feather", (tmp_path / "long.feather").read_bytes()):
        with pytest.raises(ValueError, match=r"2000001 rows; 1 to 2000000 are read"):
            feather_columns(source, ("a",))


@FUZZ
@given(
    st.sampled_from(
        [str(POSES), str(MOUNTING), "calibration/intrinsics.feather", f"sensors/lidar/{START_NS + 100_000_000}.feather"]
    ),
    st.lists(st.tuples(st.integers(0, 100_000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    st.integers(0, 10_000),
)
def test_damage_anywhere_gives_one_line(
    tmp_path_factory: pytest.TempPathFactory, file: str, changes: list[tuple[int, bytes]], cut: int
) -> None:
    log = make_log(tmp_path_factory.mktemp("argoverse2"), sweeps=2)
    data = bytearray((log / file).read_bytes())
    for at, given_bytes in changes:
        data[at % len(data) : at % len(data) + len(given_bytes)] = given_bytes
    (log / file).write_bytes(bytes(data[: max(1, len(data) - cut % len(data) // 8)]))
    read_or_error(log)
