"""KITTI's raw drives: a real one against its calibration files and the road, made-up ones for motion, times, and damage."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_sim_logs_reader import FUZZ, read, read_or_error
from test_sim_sensors_rig import numbers

from perception.geometry import inverse, rotation_from_euler, se3, transform
from sim.logs.kitti_raw import BASE_FROM_VELODYNE, KittiRaw
from sim.logs.log import LogError, LogSummary
from sim.logs.reader import log_info, open_log
from sim.logs.recording import ReadOptions
from sim.sensors.navigation import ecef_from_geodetic

Float = NDArray[np.float64]
DRIVE = Path("kitti_raw/2011_09_26/2011_09_26_drive_sync")
START_US = 1_317_042_145_000_000  # 13:02:25 on 26 September 2011
CAMERA0_FROM_VELODYNE = se3([[0, -1, 0], [0, 0, -1], [1, 0, 0]], [0.01, -0.08, -0.27])
VELODYNE_FROM_IMU = se3(rotation_from_euler(0.01, 0.02, 0.005), [-0.81, 0.32, -0.8])
INTRINSICS = np.array([[70.0, 0, 31], [0, 70, 15], [0, 0, 1]])
TAKEN = np.array([[90.0, 0, 39], [0, 91, 23], [0, 0, 1]])
LENS = [-0.36, 0.2, 0.002, 0.001, -0.07]
TURN_02 = rotation_from_euler(0.02, -0.01, 0.03)
RECTIFYING = rotation_from_euler(-0.01, 0.005, 0.002)


DAMAGED = (
    *("../calib_cam_to_cam.txt", "../calib_velo_to_cam.txt", "../calib_imu_to_velo.txt", "oxts/timestamps.txt"),
    *("oxts/data/0000000001.txt", "velodyne_points/data/0000000001.bin", "image_02/data/0000000000.png"),
)


def words(values: object) -> str:
    return " ".join(f"{value:.7e}" for value in np.ravel(np.asarray(values, np.float64)))


def stamps(times_us: list[int]) -> str:
    return "".join(f"{np.datetime64(time_us, 'us')}000\n".replace("T", " ") for time_us in times_us)


def packet(latitude: float, longitude: float, yaw: float, speed: float, turning: float) -> str:
    values = [latitude, longitude, 112.0, 0.0, 0.0, yaw, 0.0, 0.0, speed, *[0.0] * 13, turning, *[0.0] * 7]
    return " ".join(f"{value:.12f}" for value in values)


def make_drive(
    folder: Path, packets: list[str], *, size: tuple[int, int] = (64, 32), as_text: bool = False, times: bool = True
) -> Path:
    """A drive at 10 Hz: sweeps that end 50 ms after the pictures are taken, a packet with each picture."""
    drive = folder / "2011_09_26" / "2011_09_26_drive_0001_sync"
    for name in ("image_02", "velodyne_points", "oxts"):
        (drive / name / "data").mkdir(parents=True)
    taken = [START_US + 100_000 * k for k in range(len(packets))]
    picture = np.full((size[1], size[0], 3), (10, 20, 30), np.uint8)
    for k, line in enumerate(packets):
        cv2.imwrite(str(drive / "image_02" / "data" / f"{k:010}.png"), picture)
        points = np.array([[10, k, -1.73, 0.5], [20, 1, 0, 0.25]], np.float32)
        if as_text:
            np.savetxt(drive / "velodyne_points" / "data" / f"{k:010}.txt", points, fmt="%.3f")
        else:
            points.tofile(drive / "velodyne_points" / "data" / f"{k:010}.bin")
        (drive / "oxts" / "data" / f"{k:010}.txt").write_text(line + "\n")
    if times:
        for name in ("image_02", "velodyne_points", "oxts"):
            (drive / name / "timestamps.txt").write_text(stamps(taken))
        (drive / "velodyne_points" / "timestamps_end.txt").write_text(stamps([t + 50_000 for t in taken]))
    day, projection = drive.parent, np.column_stack([INTRINSICS, INTRINSICS @ [0.06, 0.001, 0.002]])
    (day / "calib_velo_to_cam.txt").write_text(
        f"calib_time: 15-Mar-2012 11:37:16\nR: {words(CAMERA0_FROM_VELODYNE[:3, :3])}\nT: {words(CAMERA0_FROM_VELODYNE[:3, 3])}\n"
    )
    imu_to_velodyne = VELODYNE_FROM_IMU
    (day / "calib_imu_to_velo.txt").write_text(
        f"R: {words(imu_to_velodyne[:3, :3])}\nT: {words(imu_to_velodyne[:3, 3])}\n"
    )
    (day / "calib_cam_to_cam.txt").write_text(
        f"S_02: 8.0e+01 4.8e+01\nK_02: {words(TAKEN)}\nD_02: {words(LENS)}\nR_02: {words(TURN_02)}\nT_02: 6.0e-02 0 0\n"
        f"S_rect_02: 6.4e+01 3.2e+01\nR_rect_00: {words(RECTIFYING)}\nP_rect_02: {words(projection)}\n"
    )
    return drive


def circle(count: int, radius_m: float = 10.0, speed_mps: float = 4.0) -> tuple[list[str], list[Float]]:
    """Packets of a left turn, and world_from_base (4, 4) for each, x east and y north, on the ellipsoid of WGS 84."""
    latitude, longitude = 49.015, 8.43
    at = np.array(ecef_from_geodetic(latitude, longitude, 112.0))
    degree = 1e-4  # what a degree is worth here, in metres
    north_m = np.linalg.norm(ecef_from_geodetic(latitude + degree, longitude, 112.0) - at) / degree
    east_m = np.linalg.norm(ecef_from_geodetic(latitude, longitude + degree, 112.0) - at) / degree
    base_from_imu = BASE_FROM_VELODYNE @ VELODYNE_FROM_IMU
    packets, poses = [], []
    for k in range(count):
        along = speed_mps * 0.1 * k / radius_m
        base = se3(rotation_from_euler(along), [radius_m * math.sin(along), radius_m * (1 - math.cos(along)), 0])
        imu = base @ base_from_imu
        yaw = math.atan2(imu[1, 0], imu[0, 0])
        pitch, roll = -math.asin(imu[2, 0]), math.atan2(imu[2, 1], imu[2, 2])
        line = packet(
            latitude + imu[1, 3] / north_m, longitude + imu[0, 3] / east_m, yaw, speed_mps, speed_mps / radius_m
        )
        values = line.split()
        values[2:5] = [f"{112 + imu[2, 3]:.6f}", f"{roll:.12f}", f"{pitch:.12f}"]
        packets.append(" ".join(values))
        poses.append(base)
    return packets, poses


def test_a_real_drive_reads(shared_data: Path) -> None:
    steps, problems = read(shared_data / DRIVE)
    assert [step.timestamp_us for step in steps] == [0, 100_000, 200_000, 300_000]
    for step in steps:
        camera, sweep = step.frame.cameras["image_02"], step.frame.lidars["velodyne_points"]
        assert camera is not None
        assert sweep is not None
        assert camera.image.shape == (375, 1242, 3)
        assert camera.image.std() > 30
        assert 113_000 < len(sweep.points) < 115_000
        assert 0.9 < sweep.points[:, 3].max() <= 1.0
        assert step.frame.ego is None
    assert len(problems) == 2
    assert "no timestamps.txt in image_02, velodyne_points" in problems[0]
    assert "10 Hz" in problems[0]
    assert log_info(shared_data / DRIVE)["kind"] == "KITTI raw drive"


def test_a_real_drive_projects_as_its_files_say_and_stands_on_the_road(shared_data: Path) -> None:
    steps, _ = read(shared_data / DRIVE)
    camera, sweep = steps[0].frame.cameras["image_02"], steps[0].frame.lidars["velodyne_points"]
    assert camera is not None
    assert sweep is not None
    day = (shared_data / DRIVE).parent
    cameras, velodyne = numbers(day / "calib_cam_to_cam.txt"), numbers(day / "calib_velo_to_cam.txt")
    ahead = sweep.points[sweep.points[:, 0] > 5, :3].astype(np.float64)
    rectified = cameras["R_rect_00"].reshape(3, 3) @ (velodyne["R"].reshape(3, 3) @ ahead.T + velodyne["T"][:, None])
    pixels = cameras["P_rect_02"].reshape(3, 4) @ np.vstack([rectified, np.ones(len(ahead))])
    in_ego = transform(sweep.ego_from_lidar, ahead)
    ours = transform(inverse(camera.calibration.ego_from_camera), in_ego) @ camera.calibration.intrinsics.T
    assert np.abs(pixels[:2] / pixels[2] - (ours[:, :2] / ours[:, 2:]).T).max() < 0.01
    points = transform(sweep.ego_from_lidar, sweep.points[:, :3])
    road = points[(points[:, 0] > 6) & (points[:, 0] < 10) & (np.abs(points[:, 1]) < 1.5)]
    assert len(road) > 500
    assert np.abs(np.median(road[:, 2])) < 0.15


def test_motion_is_that_of_the_rear_axle(tmp_path: Path) -> None:
    """Packets are of the IMU, 0.3 m to its left and 0.9 m above, on an earth that is no sphere (0.3 %)."""
    packets, driven = circle(40)
    steps, problems = read(make_drive(tmp_path, packets))
    assert problems == []
    assert len(steps) == 40
    first = steps[0].frame.ego
    assert first is not None
    for step, pose in zip(steps, driven, strict=True):
        ego = step.frame.ego
        assert ego is not None
        moved = inverse(first.world_from_ego) @ ego.world_from_ego
        wanted = inverse(driven[0]) @ pose
        assert np.abs(moved[:3, 3] - wanted[:3, 3]).max() < 0.002 + 0.003 * np.linalg.norm(wanted[:3, 3])
        assert np.abs(moved[:3, :3] - wanted[:3, :3]).max() < 1e-4
        assert ego.speed_mps == pytest.approx(4.0)
        assert ego.yaw_rate_radps == pytest.approx(0.4)
    action, route = steps[10].action, steps[0].frame.route_in_ego
    assert action is not None
    assert 0.2 < action.steer < 0.8
    assert route is not None
    assert np.hypot(route[:5, 0], route[:5, 1] - 10) == pytest.approx(10, abs=0.1)


def test_a_frame_is_made_at_the_end_of_a_sweep_with_the_picture_taken_during_it(tmp_path: Path) -> None:
    drive = make_drive(tmp_path, circle(6)[0])
    (drive / "velodyne_points" / "data" / f"{3:010}.bin").unlink()  # as in drive 9 of that day
    (drive / "image_02" / "data" / "notes.txt").write_text("not a picture")
    steps, problems = read(drive)
    assert [step.timestamp_us - START_US for step in steps] == [50_000, 150_000, 250_000, 450_000, 550_000]
    assert {step.frame.sensor_age_us()["image_02"] for step in steps} == {50_000}
    sweep = steps[3].frame.lidars["velodyne_points"]
    assert sweep is not None
    assert sweep.points[0].tolist() == pytest.approx([10, 4, -1.73, 0.5])
    camera = steps[3].frame.cameras["image_02"]
    assert camera is not None
    assert camera.image[0, 0].tolist() == [30, 20, 10]
    assert problems == []
    by_camera, _ = read(drive, ReadOptions(trigger="image_02"))
    assert [step.timestamp_us - START_US for step in by_camera] == [100_000 * k for k in range(6)]


def test_pictures_that_were_not_rectified_have_the_lens(tmp_path: Path) -> None:
    steps, problems = read(make_drive(tmp_path, circle(2)[0], size=(80, 48), as_text=True))
    assert problems == []
    camera, sweep = steps[1].frame.cameras["image_02"], steps[1].frame.lidars["velodyne_points"]
    assert camera is not None
    assert sweep is not None
    calibration = camera.calibration
    assert calibration.distortion_model == "brown_conrady"
    assert calibration.distortion.tolist() == pytest.approx(LENS)
    assert calibration.intrinsics == pytest.approx(TAKEN)
    wanted = se3(TURN_02, [0.06, 0, 0]) @ CAMERA0_FROM_VELODYNE
    assert inverse(calibration.ego_from_camera) @ BASE_FROM_VELODYNE == pytest.approx(wanted, abs=1e-6)
    assert sweep.points == pytest.approx(np.array([[10, 1, -1.73, 0.5], [20, 1, 0, 0.25]]), abs=1e-3)


def test_what_is_missing_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    drive = make_drive(tmp_path, circle(3)[0])
    for name in ("calib_cam_to_cam.txt", "calib_imu_to_velo.txt"):
        (drive.parent / name).unlink()
    (drive / "velodyne_points" / "data" / f"{0:010}.bin").write_bytes(b"\0" * 30)
    (drive / "velodyne_points" / "data" / f"{1:010}.bin").write_bytes(np.array([np.nan, 0, 0, 0], "<f4").tobytes())
    (drive / "oxts" / "data" / f"{2:010}.txt").write_text("49.0 8.4 inf")
    (drive / "oxts" / "timestamps.txt").write_text(stamps([START_US, START_US + 100_000, START_US + 200_000]))
    (drive / "oxts" / "data" / "0000000007.txt").write_text(circle(1)[0][0])
    steps, problems = read(drive)
    assert len(steps) == 2
    told = "\n".join(problems)
    for words_of in (
        "there is no calib_cam_to_cam.txt in the folder above, nor in it",
        "odometry is of 'imu', which /tf does not connect to 'base_link'",
        "sweep that is not made of four numbers a point: cut off or damaged (1 times)",
        "point that is not finite (1 times)",
        "packet without 30 finite numbers (1 times)",
        "file without a line in the list of times (1 times)",
    ):
        assert words_of in told
    assert "image_02" not in steps[0].frame.cameras


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("../calib_velo_to_cam.txt", "R: 1 2 3\nT: 0 0 0\n", "calib_velo_to_cam.txt has no 9 finite numbers for R"),
        ("../calib_velo_to_cam.txt", "R: 1 0 0 0 1 0 0 0 2\nT: 0 0 0\n", "R must hold a rotation"),
        ("../calib_imu_to_velo.txt", "\xe9", "calib_imu_to_velo.txt is no text"),
        ("image_02/timestamps.txt", "2011-09-26 13:02:25.9\nyesterday\n", "line 2: 'yesterday' is no time"),
        ("image_02/timestamps.txt", "x" * (5 << 20), "larger than the 4 MB"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    drive = make_drive(tmp_path, circle(2)[0])
    (drive / file).write_text(text, encoding="latin-1")
    with pytest.raises(LogError, match=message):
        open_log(drive)


def test_a_folder_of_another_kind_is_told_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(LogError, match=r"no drive of KITTI .no image_02/data.*KITTI's raw drives"):
        open_log(tmp_path)


def test_the_folder_of_a_day_leads_to_its_drives(tmp_path: Path) -> None:
    drive = make_drive(tmp_path, circle(2)[0])
    with pytest.raises(LogError, match=f"give {drive} inside it, or our .mcap logs"):
        open_log(drive.parent)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    drive = make_drive(tmp_path, circle(2)[0])
    with (drive / "velodyne_points" / "data" / f"{0:010}.bin").open("wb") as file:
        file.truncate(1 << 40)
    steps, problems = read(drive)
    assert len(steps) == 1
    assert problems == ["/velodyne_points/data: file of more than 65536 kB (1 times)"]


@FUZZ
@given(
    st.sampled_from(DAMAGED),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    st.integers(0, 10_000),
)
def test_damage_anywhere_gives_one_line(
    tmp_path_factory: pytest.TempPathFactory, file: str, changes: list[tuple[int, bytes]], cut: int
) -> None:
    drive = make_drive(tmp_path_factory.mktemp("kitti"), circle(3)[0])
    data = bytearray((drive / file).read_bytes())
    for at, given_bytes in changes:
        data[at % len(data) : at % len(data) + len(given_bytes)] = given_bytes
    (drive / file).write_bytes(bytes(data[: max(1, len(data) - cut % len(data))]))
    read_or_error(drive)


def test_numbers_of_frames_that_nobody_wrote_are_left_out(tmp_path: Path) -> None:
    drive = make_drive(tmp_path, circle(2)[0], times=False)
    (drive / "image_02" / "data" / "99999999999.png").write_bytes(b"")
    source = KittiRaw(drive, LogSummary())
    assert source.topics["/image_02/data"].messages == 2
    assert source.span_us == (0, 100_000)
