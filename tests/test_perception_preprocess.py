"""Observations from sensor frames: cameras against OpenCV's projection, points, and what is silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.geometry import inverse, rotation_from_euler, se3, transform
from perception.preprocess import ObservationSpec, frames_to_observation, points_in_ego, project_rays, resample
from perception.sensors import CameraCalibration, CameraFrame, DistortionModel, EgoState, LidarSweep, SensorFrame

AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def camera(
    width: int, height: int, focal: float, yaw: float = 0.0, pitch: float = 0.0, model: Any = "none", *lens: float
) -> CameraCalibration:
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    pose = se3(rotation_from_euler(yaw, pitch), [1.2, 0.1, 1.6]) @ se3(AXES, [0.0, 0.0, 0.0])
    return CameraCalibration(width, height, intrinsics, pose, model, np.array(lens, np.float64))


TARGET = camera(192, 96, 80.5)
SOURCES = {
    "pinhole": camera(1920, 1080, 1000.0, 0.1, 0.05),
    "same size": camera(192, 96, 80.5, -0.05),
    "barrel": camera(1242, 375, 500.0, -0.1, 0.02, "brown_conrady", -0.2, 0.05, 0.001, -0.002, 0.0),
    "fisheye": camera(1280, 960, 380.0, 0.05, 0.1, "kannala_brandt", 0.05, -0.02, 0.005, -0.001),
}


def frame(cameras: dict[str, CameraFrame | None], sweeps: dict[str, LidarSweep | None] | None = None) -> SensorFrame:
    return SensorFrame(1000, cameras, sweeps or {}, None, None)


def opencv_pixels(c: CameraCalibration, points_in_ego: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenCV's own projection of points (N, 3) in ego."""
    in_camera = transform(inverse(c.ego_from_camera), points_in_ego)[:, None]
    if c.distortion_model == "kannala_brandt":
        pixels, _ = cv2.fisheye.projectPoints(in_camera, np.zeros(3), np.zeros(3), c.intrinsics, c.distortion)
    else:
        lens = c.distortion if len(c.distortion) else None
        pixels, _ = cv2.projectPoints(in_camera, np.zeros(3), np.zeros(3), c.intrinsics, lens)
    return np.asarray(pixels[:, 0])


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_what_is_far_away_lands_where_opencv_projects_it(source: CameraCalibration) -> None:
    """Bright discs 100 km away, drawn into the source where OpenCV puts them, are found where it puts them in the target."""
    for yaw, pitch in [(0.0, 0.0), (0.3, 0.05), (-0.25, 0.1), (0.15, -0.1), (-0.4, -0.05)]:
        direction = rotation_from_euler(yaw, pitch) @ [1e5, 0, 0]
        x, y = opencv_pixels(source, direction[None])[0]
        if not (60 < x < source.width_px - 60 and 60 < y < source.height_px - 60) and source.width_px > 200:
            continue
        # A soft spot about as wide as two target pixels.
        sigma = 1.2 * max(source.intrinsics[0, 0] / TARGET.intrinsics[0, 0], 1.0)
        u, v = np.meshgrid(np.arange(source.width_px), np.arange(source.height_px))
        spot = 255 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))
        image = np.repeat(spot[..., None], 3, axis=2).astype(np.uint8)
        result = resample(CameraFrame(image, source, 0), TARGET).astype(np.float64)[..., 1]
        assert result.max() > 100
        rows, columns = np.indices(result.shape)
        center = np.array([(columns * result).sum(), (rows * result).sum()]) / result.sum()
        np.testing.assert_allclose(center, opencv_pixels(TARGET, direction[None])[0], atol=0.25)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@settings(max_examples=50, deadline=None)
@given(yaw=st.floats(-0.5, 0.5), pitch=st.floats(-0.3, 0.3))
def test_rays_are_projected_as_opencv_does(source: CameraCalibration, yaw: float, pitch: float) -> None:
    points = (rotation_from_euler(yaw, pitch) @ [30.0, 0, 0])[None]
    rays = transform(inverse(source.ego_from_camera), points)
    np.testing.assert_allclose(project_rays(source, rays), opencv_pixels(source, points), atol=1e-6)


def test_a_lens_polynomial_is_not_followed_to_where_it_folds_back() -> None:
    barrel = camera(1242, 375, 500.0, 0.0, 0.0, "brown_conrady", -0.35, 0.0, 0.0, 0.0)  # grows up to 44 degrees
    angles = np.deg2rad([0.0, 20.0, 58.0, 75.0, 95.0, 180.0])
    rays = np.stack([np.sin(angles), np.zeros(6), np.cos(angles)], axis=1)
    pixels = project_rays(barrel, rays)
    assert np.isfinite(pixels[:2]).all()
    assert np.isnan(pixels[2:]).all()
    folded, _ = cv2.projectPoints(rays[2], np.zeros(3), np.zeros(3), barrel.intrinsics, barrel.distortion)
    assert 0 < folded[0, 0, 0] < barrel.width_px  # what OpenCV alone makes of the ray at 58 degrees
    fisheye = project_rays(SOURCES["fisheye"], rays)
    assert np.isfinite(fisheye[:5]).all()  # a fisheye sees beyond 90 degrees
    assert fisheye[4, 0] > fisheye[3, 0] > fisheye[2, 0]


def test_a_large_picture_is_averaged_not_picked_from() -> None:
    rng = np.random.default_rng(0)
    source = camera(1920, 1080, 1000.0)
    noise = rng.integers(0, 2, (1080, 1920, 1)).repeat(3, axis=2).astype(np.uint8) * 255
    result = resample(CameraFrame(noise, source, 0), TARGET).astype(np.float64)
    inside = result[40:60, 70:120]
    assert abs(inside.mean() - 127.5) < 3
    # One target pixel covers 12 x 12 independent samples, so picking would leave 127 and averaging leaves 10.
    assert inside.std() < 20


def test_what_the_source_did_not_see_is_black_and_what_it_saw_is_not() -> None:
    source = camera(400, 200, 400.0)  # 53 degrees wide, the target 100
    white = np.full((200, 400, 3), 255, np.uint8)
    result = resample(CameraFrame(white, source, 0), TARGET)
    corners = np.array([[-0.5, -0.5], [399.5, 199.5]])
    left, top = (corners[0] - [199.5, 99.5]) / 400 * 80.5 + [95.5, 47.5]
    right, bottom = (corners[1] - [199.5, 99.5]) / 400 * 80.5 + [95.5, 47.5]
    seen = result[..., 0] > 127
    rows, columns = np.nonzero(seen)
    np.testing.assert_allclose([columns.min() - 0.5, columns.max() + 0.5], [left, right], atol=1)
    np.testing.assert_allclose([rows.min() - 0.5, rows.max() + 0.5], [top, bottom], atol=1)
    assert result[:, : int(left) - 1].max() == 0
    assert result[int(top) + 2 : int(bottom) - 1, int(left) + 2 : int(right) - 1].min() == 255


def test_the_same_calibration_is_copied_byte_for_byte() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 192, 3)).astype(np.uint8)
    spec = ObservationSpec({"camera_wide": TARGET}, 0)
    copied = frames_to_observation([frame({"camera_wide": CameraFrame(image, TARGET, 0)})], spec)
    np.testing.assert_array_equal(copied["camera_wide"][0], image)


def test_the_camera_that_looks_the_same_way_stands_in_and_a_silent_one_stays_black() -> None:
    def plain(value: int, yaw: float) -> CameraFrame:
        return CameraFrame(np.full((100, 200, 3), value, np.uint8), camera(200, 100, 60.0, yaw), 0)

    spec = ObservationSpec({"camera_wide": TARGET}, 0)
    cameras = {"left": plain(10, 1.0), "front": plain(20, 0.1), "rear": plain(30, np.pi)}
    middle = (0, 48, 96, 0)
    assert frames_to_observation([frame(cameras)], spec)["camera_wide"][middle] == 20
    chosen = frames_to_observation([frame(cameras)], spec, camera_map={"camera_wide": "left"})["camera_wide"]
    assert 10 in chosen
    assert 20 not in chosen
    assert frames_to_observation([frame({"rear": cameras["rear"]})], spec)["camera_wide"].max() == 0
    silent = frames_to_observation([frame({"camera_wide": None, "front": cameras["front"]})], spec)
    assert silent["camera_wide"].max() == 0
    with pytest.raises(ValueError, match='no camera "roof" for camera_wide; it has: left, front, rear'):
        frames_to_observation([frame(cameras)], spec, camera_map={"camera_wide": "roof"})


def test_points_come_in_ego_cropped_and_thinned_evenly() -> None:
    ego_from_lidar = se3(rotation_from_euler(0.5), [1.0, 0.0, 2.0])
    wanted = np.array([[10.0, 5.0, 0.0], [99.0, -99.0, 3.0], [101.0, 0.0, 0.0], [0.0, -100.5, 0.0]])
    points = np.concatenate([transform(inverse(ego_from_lidar), wanted), [[0.1], [0.2], [0.3], [0.4]]], axis=1)
    points = np.concatenate([points, [[np.nan, 0, 0, 0]]]).astype(np.float32)
    sweep = LidarSweep(points, ego_from_lidar, 0)
    np.testing.assert_allclose(points_in_ego([sweep], 10)[:, :3], wanted[:2], atol=1e-4)
    ring = np.zeros((1000, 4), np.float32)
    ring[:, 3] = np.arange(1000) / 1000
    thinned = points_in_ego([LidarSweep(ring, np.eye(4), 0)], 256)
    assert thinned.shape == (256, 4)
    steps = np.diff(thinned[:, 3]) * 1000
    assert 2.5 < steps.min() <= steps.max() < 4.5
    spec = ObservationSpec({}, 10)
    ego = EgoState(0, 3.0, 1.0, 0.1, -0.2, 0.3)
    route = np.arange(40, dtype=np.float32).reshape(20, 2)
    frames = [SensorFrame(0, {}, {"top": sweep, "off": None}, ego, route), frame({}), frame({}, {"off": None})]
    observation = frames_to_observation(frames, spec)
    assert observation["point_count"].tolist() == [[2], [0], [0]]
    np.testing.assert_allclose(observation["points"][0].reshape(10, 4)[:2, 3], [0.1, 0.2], atol=1e-6)
    assert observation["points"][0, 8:].max() == observation["points"][1:].max() == 0
    np.testing.assert_allclose(observation["ego"], [[3, 1, 0.1, -0.2, 0.3], [0] * 5, [0] * 5], atol=1e-6)
    np.testing.assert_array_equal(observation["route"][0].reshape(20, 2), route)
    for key, (shape, dtype) in spec.shapes().items():
        assert observation[key].shape == (3, *shape)
        assert observation[key].dtype == dtype
    with pytest.raises(ValueError, match='no LiDAR "front"; it has: top, off'):
        frames_to_observation(frames[:1], spec, lidar="front")


def test_a_specification_survives_json_and_bad_ones_are_refused() -> None:
    spec = ObservationSpec({"a": TARGET, "b": SOURCES["fisheye"]}, 128, privileged_size=9)
    assert ObservationSpec.from_json(spec.to_json()).to_json() == spec.to_json()
    for text in ("", "[]", "{}", '{"cameras": {"a": 3}}', spec.to_json().replace(" 128,", " -1,")):
        with pytest.raises(ValueError, match=r"not an observation specification|must lie in"):
            ObservationSpec.from_json(text)
    whole = spec.to_json()
    for old, new, said in (
        ('"a":', '"a.b":', "a camera's name is of a-z"),
        ('"a":', '"":', "a camera's name is of a-z"),
        ('"width_px": 192', '"width_px": 262144', "a has more than 8388608 pixels"),
        ('"route_points": 20', '"route_points": 10', "route_points must be 0 or 20, got 10"),
        ('"ego_size": 5', '"ego_size": 3', "ego_size must be 0 or 5, got 3"),
        (
            '"kannala_brandt"',
            '"pinhole"',
            "distortion_model must be none, brown_conrady, kannala_brandt, got 'pinhole'",
        ),
        ('"kannala_brandt"', '"brown_conrady"', None),
        ('"kannala_brandt"', '"none"', "none takes 0 coefficients"),
    ):
        assert old in whole, old
        if said is None:  # four coefficients fit both models
            ObservationSpec.from_json(whole.replace(old, new))
            continue
        with pytest.raises(ValueError, match=said):
            ObservationSpec.from_json(whole.replace(old, new))
    with pytest.raises(ValueError, match="at most 16 cameras, got 17"):
        ObservationSpec({f"camera_{i}": TARGET for i in range(17)}, 128)


@pytest.mark.parametrize(
    ("model", "given"), [("brown_conrady", 3), ("kannala_brandt", 2), ("kannala_brandt", 5), ("none", 4)]
)
def test_a_lens_has_as_many_coefficients_as_its_model(model: DistortionModel, given: int) -> None:
    with pytest.raises(ValueError, match=f"{model} takes .* coefficients .* got {given}"):
        replace(TARGET, distortion_model=model, distortion=np.zeros(given))


def test_a_real_recording_gives_pictures_and_points_that_agree(shared_data: Path) -> None:
    """KITTI's own calibration files: the vehicle's LiDAR points and camera stay aligned through resampling."""
    calibrations = sorted(shared_data.glob("kitti_raw/**/calib_cam_to_cam.txt"))
    assert calibrations
    text = calibrations[0].read_text()
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    projection = np.array(values["P_rect_02"].split(), np.float64).reshape(3, 4)[:, :3]
    width, height = (int(float(v)) for v in values["S_rect_02"].split())
    source = CameraCalibration(width, height, projection, TARGET.ego_from_camera)
    picture = cv2.imread(str(sorted(shared_data.glob("kitti_raw/**/image_02/data/*"))[0]))
    image = np.ascontiguousarray(picture[..., ::-1])
    result = resample(CameraFrame(image, source, 0), TARGET)
    # OpenCV's own way from one pinhole to another of the same place: a homography.
    small = cv2.GaussianBlur(image, (0, 0), 0.5 * projection[0, 0] / TARGET.intrinsics[0, 0])
    homography = TARGET.intrinsics @ np.linalg.inv(projection)
    theirs = cv2.warpPerspective(small, homography, (192, 96))
    inside = cv2.erode((theirs.max(axis=2) > 0).astype(np.uint8), np.ones((5, 5))) > 0
    assert inside.sum() > 1000
    assert np.corrcoef(result[inside].ravel(), theirs[inside].ravel())[0, 1] > 0.98
