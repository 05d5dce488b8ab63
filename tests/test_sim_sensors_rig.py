"""Rigs: calibrations there and back, the recorded cars against their recordings, and what is no calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from perception.geometry import inverse, require_rigid, rotation_from_euler, se3, transform
from perception.sensors import CameraCalibration
from sim.config import ConfigError
from sim.drive_batch import EnvConfig
from sim.env import DriveEnv
from sim.logs.reader import open_log
from sim.observation import sensor_space
from sim.sensors.camera_effects import EffectsConfig
from sim.sensors.recorded_rigs import kitti, nuscenes, pandaset
from sim.sensors.rig import CameraConfig, Mount, RigError, RigName, rig

POSE = se3(rotation_from_euler(0.1), [1.0, 0.0, 1.5]) @ se3([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 0])
angles = st.floats(-3.1, 3.1)


@given(yaw=angles, pitch=st.floats(-np.pi / 2, np.pi / 2), roll=angles, x=st.floats(-3, 3), z=st.floats(0.1, 5))
def test_any_pose_is_a_mount(yaw: float, pitch: float, roll: float, x: float, z: float) -> None:
    pose = se3(rotation_from_euler(yaw, pitch, roll), [x, -x, z])
    assert np.abs(Mount.of(pose).ego_from_mount() - pose).max() < 1e-6


def test_a_calibration_comes_back() -> None:
    k = np.array([[800.5, 0, 630.25], [0, 790.0, 355.5], [0, 0, 1]])
    given_ = CameraCalibration(1280, 720, k, POSE, "brown_conrady", np.array([-0.2, 0.05, 0.001, -0.002, 0.01]))
    config = CameraConfig.of("camera_roof", given_, effects=EffectsConfig(read_noise=2.0))
    back = config.calibration()
    assert config.effects.read_noise == 2.0
    assert np.array_equal(back.intrinsics, k)
    assert np.array_equal(back.distortion, given_.distortion)
    assert back.distortion_model == "brown_conrady"
    assert np.abs(back.ego_from_camera - POSE).max() < 1e-9
    assert CameraConfig.model_validate(config.model_dump()) == config


def numbers(path: Path) -> dict[str, NDArray[np.float64]]:
    """The lines of a KITTI calibration file that hold numbers."""
    lines = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return {key: np.array(text.split(), np.float64) for key, text in lines if "time" not in key}


def test_the_car_of_kitti_projects_as_its_files_say(shared_data: Path) -> None:
    folder = shared_data / "kitti_raw" / "2011_09_26"
    cameras, velodyne = numbers(folder / "calib_cam_to_cam.txt"), numbers(folder / "calib_velo_to_cam.txt")
    rig = kitti()
    rng = np.random.default_rng(0)
    points = rng.uniform([4, -8, -1.7], [60, 8, 2], (200, 3))  # in the Velodyne's frame
    homogeneous = np.concatenate([points, np.ones((200, 1))], 1)
    rectified, camera0 = np.eye(4), np.eye(4)
    rectified[:3, :3] = cameras["R_rect_00"].reshape(3, 3)
    camera0[:3, :3], camera0[:3, 3] = velodyne["R"].reshape(3, 3), velodyne["T"]
    for name in ("02", "03"):
        pixels = cameras[f"P_rect_{name}"].reshape(3, 4) @ rectified @ camera0 @ homogeneous.T
        pixels = (pixels[:2] / pixels[2]).T
        calibration = rig.cameras[f"camera_{int(name)}"]
        assert [calibration.width_px, calibration.height_px] == cameras[f"S_rect_{name}"].tolist()
        in_camera = transform(inverse(calibration.ego_from_camera) @ rig.ego_from_lidar, points)
        ours, _ = cv2.projectPoints(in_camera, np.zeros(3), np.zeros(3), calibration.intrinsics, None)
        assert np.abs(ours[:, 0] - pixels).max() < 1e-3


def test_the_car_of_pandaset_is_that_of_its_recording(shared_data: Path) -> None:
    with open_log(shared_data / "pandaset" / "ros2_mcap") as log:
        frame = next(iter(log.steps())).frame
    recorded = next(c for c in frame.cameras.values() if c is not None).calibration
    ours = pandaset().cameras["camera_front"]
    assert (ours.width_px, ours.height_px) == (recorded.width_px, recorded.height_px)
    assert np.abs(ours.intrinsics - recorded.intrinsics).max() < 1e-3
    assert np.abs(ours.ego_from_camera - recorded.ego_from_camera).max() < 1e-6
    assert recorded.distortion_model == ours.distortion_model


def test_the_cameras_of_nuscenes_stand_on_the_car_and_see_all_around() -> None:
    rig = nuscenes()
    seen = np.zeros(360, np.bool_)
    for name, calibration in rig.cameras.items():
        require_rigid(name, calibration.ego_from_camera)
        axis, down = calibration.ego_from_camera[:3, 2], calibration.ego_from_camera[:3, 1]
        assert abs(axis[2]) < 0.03, "level"
        assert down[2] < -0.99
        x, y, z = calibration.ego_from_camera[:3, 3]
        assert 0.0 < x < 2.0
        assert abs(y) < 0.6
        assert 1.4 < z < 1.7
        assert (y > 0.1) == ("left" in name)
        half = np.degrees(np.arctan(800 / calibration.intrinsics[0, 0]))
        yaw = np.degrees(np.arctan2(axis[1], axis[0]))
        turned = (np.arange(360) - yaw + 180) % 360 - 180
        seen |= np.abs(turned) < half
    assert seen.all()
    assert rig.ego_from_lidar[0, 0] > 0.999, "the LiDAR's housing looks forward"


PINHOLE = {"name": "c", "width_px": 64, "height_px": 48, "fx_px": 50.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx_px": None}, "either horizontal_fov_deg or fx_px"),
        ({"horizontal_fov_deg": 60.0}, "either horizontal_fov_deg or fx_px"),
        ({"fx_px": 0.0}, "greater than 0"),
        ({"fx_px": float("nan")}, "finite number"),
        ({"width_px": 0}, "greater than or equal to 16"),
        ({"fx_px": None, "horizontal_fov_deg": 60.0, "distortion_model": "brown_conrady"}, "give fx_px instead"),
        ({"distortion_model": "kannala_brandt", "distortion": [0.1]}, "takes 4 coefficients"),
        ({"distortion_model": "brown_conrady", "distortion": [0.1, 0.0, 0.0, float("inf")]}, "finite number"),
        ({"distortion_model": "fov"}, "'none', 'brown_conrady' or 'kannala_brandt'"),
        ({"mount": {"x_m": float("nan")}}, "finite number"),
        ({"range_m": 60.0}, "range_m"),
    ],
)
def test_what_is_no_camera_is_refused(change: dict[str, Any], message: str) -> None:
    CameraConfig.model_validate(PINHOLE)
    with pytest.raises(ValidationError, match=message):
        CameraConfig.model_validate({**PINHOLE, **change})


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        ([[500.0, 2.0, 320], [0, 500, 240], [0, 0, 1]], "intrinsics must be"),
        ([[500.0, 0, 320], [0, 500, 240], [0, 0, 0]], "intrinsics must be"),
        ([[5e6, 0, 320], [0, 5e6, 240], [0, 0, 1]], "fx_px: Input should be less than"),
    ],
)
def test_a_calibration_that_cannot_be_simulated_is_refused(intrinsics: list[list[float]], message: str) -> None:
    calibration = CameraCalibration(640, 480, np.array(intrinsics), POSE)
    with pytest.raises(RigError, match=f"camera roof: {message}"):
        CameraConfig.of("roof", calibration)


def test_a_camera_of_an_older_log_is_the_same_without_its_range() -> None:
    assert CameraConfig.model_validate({**PINHOLE, "range_m": 150.0}) == CameraConfig.model_validate(PINHOLE)


@pytest.mark.parametrize("name", get_args(RigName))
def test_a_rig_by_name_is_the_rig_sensor_by_sensor(name: str) -> None:
    """Also after a detour through the plain values of a configuration file or a log."""
    config = EnvConfig.of(rig=name)
    assert config.rig == name
    plain = rig(name).model_dump(mode="json")
    assert EnvConfig.of(rig=plain).rig == rig(name)
    for camera in rig(name).cameras:
        assert np.isfinite(camera.calibration().ego_from_camera).all()
    assert rig(name).max_points > 0


def test_the_recorded_cars_carry_the_lidars_of_their_data_sheets() -> None:
    for name, beams, columns in (("kitti", 64, 2083), ("nuscenes", 32, 1085), ("pandaset", 64, 1800)):
        lidar = rig(name).lidar
        assert lidar is not None
        assert (lidar.beams, lidar.columns) == (beams, columns)


def test_surround_sees_all_around_with_an_overlap() -> None:
    covered = np.zeros(360, np.int64)
    for camera in rig("surround").cameras:
        assert camera.horizontal_fov_deg is not None
        turned = (np.arange(360) - camera.mount.yaw_deg + 180) % 360 - 180
        covered += np.abs(turned) <= camera.horizontal_fov_deg / 2
    assert covered.min() == 1
    assert covered.max() == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("huge", "rig: .*'small'.*got 'huge'"),
        ({"cameras": [{"name": "a", "width_px": 64, "height_px": 48}]}, "needs either horizontal_fov_deg or fx_px"),
        ({"cameras": [{**PINHOLE, "fx_px": float("nan")}]}, "rig.cameras.0.fx_px: .*finite"),
        ({"cameras": [PINHOLE, PINHOLE]}, "different names"),
        ({"cameras": []}, "at least one"),
        ({"cameras": [{**PINHOLE, "name": "ego"}]}, "no camera can be called ego"),
        (
            {"cameras": [PINHOLE], "lidar": {"elevations_deg": [1.0], "columns": 0}},
            "columns: .*greater than or equal to 16",
        ),
    ],
)
def test_what_is_no_rig_is_one_line(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        EnvConfig.of(rig=value)
    assert "\n" not in str(caught.value)


def test_no_camera_takes_the_place_of_another_part_of_the_observation() -> None:
    parts = sensor_space(rig("smoke"), privileged=True).spaces.keys()
    for taken in parts - {camera.name for camera in rig("smoke").cameras}:
        with pytest.raises(ValidationError, match=f"no camera can be called {taken}"):
            CameraConfig.model_validate({**PINHOLE, "name": taken})


def test_a_lidar_that_sees_far_stays_within_the_observation_space() -> None:
    far = {"elevations_deg": [-0.3], "columns": 64, "max_range_m": 500.0, "sensitivity_m": 2000.0}
    env = DriveEnv(rig={"cameras": [], "lidar": far}, world={"agents": 1})
    observation, _ = env.reset(seed=0)
    assert np.abs(observation["points"]).max() > 300.0
    assert env.observation_space.contains(observation)
    for name in get_args(RigName):
        assert sensor_space(rig(name), privileged=False)["points"].high.max() == 250.0  # type: ignore[attr-defined]
