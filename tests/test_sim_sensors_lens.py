"""Lenses against OpenCV's, there and back, and the pixels that may see a box against every ray of the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.geometry import inverse, rotation_from_euler, se3, transform
from perception.sensors import CameraCalibration, DistortionModel
from sim.sensors.cast import BOX_COLUMNS, COS, CX, CZ, HX, HZ, SIN
from sim.sensors.lens import (
    LensError,
    distorted_bounds,
    lens_tables,
    measures_range,
    project,
    ray_directions,
    unproject,
)
from sim.simd import WIDTH as LANES

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WIDTH, HEIGHT = 96, 64
AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
CENTRE = st.floats(-4.0, 4.0)


def camera(
    focal: float, model: DistortionModel, distortion: list[float], dx: float = 0.0, dy: float = 0.0,
    pose: NDArray[np.float64] | None = None,
) -> CameraCalibration:  # fmt: skip
    k = np.array([[focal, 0, (WIDTH - 1) / 2 + dx], [0, 1.05 * focal, (HEIGHT - 1) / 2 + dy], [0, 0, 1]])
    pose = se3(AXES, [0.0, 0.0, 0.0]) if pose is None else pose
    return CameraCalibration(WIDTH, HEIGHT, k, pose, model, np.array(distortion))


@st.composite
def brown_conrady(draw: st.DrawFn) -> CameraCalibration:
    """Lenses from tele to 100 degrees, barrel and pincushion; 4, 5 or 8 coefficients."""
    tangential = st.floats(-0.004, 0.004)
    k = [draw(st.floats(-0.4, 0.3)), draw(st.floats(-0.1, 0.2)), draw(tangential), draw(tangential)]
    more = draw(st.sampled_from([0, 1, 4]))
    k += [draw(st.floats(-0.06, 0.06)) for _ in range(more)]
    return camera(draw(st.floats(42.0, 300.0)), "brown_conrady", k, draw(CENTRE), draw(CENTRE))


@st.composite
def fisheye(draw: st.DrawFn, narrowest: float = 24.0) -> CameraCalibration:
    """Up to about 200 degrees from corner to corner."""
    k = [draw(st.floats(-0.05, 0.05)), draw(st.floats(-0.01, 0.01)), draw(st.floats(-0.003, 0.003)), 0.0]
    return camera(draw(st.floats(narrowest, 120.0)), "kannala_brandt", k, draw(CENTRE), draw(CENTRE))


def pixels_of(calibration: CameraCalibration) -> NDArray[np.float64]:
    u, v = np.meshgrid(np.arange(calibration.width_px), np.arange(calibration.height_px))
    return np.stack([u.ravel(), v.ravel()], 1).astype(np.float64)


def usable_rays(calibration: CameraCalibration) -> NDArray[np.float32]:
    try:
        return ray_directions(calibration)
    except LensError:
        assume(False)
        raise


def in_camera(calibration: CameraCalibration, directions: NDArray[np.float32]) -> NDArray[np.float64]:
    return transform(inverse(calibration.ego_from_camera), directions.reshape(3, -1).T.astype(np.float64))


@SETTINGS
@given(brown_conrady())
def test_brown_conrady_rays_project_back_with_opencv(calibration: CameraCalibration) -> None:
    rays = in_camera(calibration, usable_rays(calibration))
    assert np.abs(rays[:, 2] - 1).max() < 1e-6
    still = np.zeros(3)
    theirs, _ = cv2.projectPoints(rays[:, None] * 5.0, still, still, calibration.intrinsics, calibration.distortion)
    assert np.abs(theirs[:, 0] - pixels_of(calibration)).max() < 0.05
    assert np.abs(project(calibration, rays) - theirs[:, 0]).max() < 1e-6


@SETTINGS
@given(brown_conrady())
def test_brown_conrady_rays_are_those_of_opencv(calibration: CameraCalibration) -> None:
    rays = in_camera(calibration, usable_rays(calibration))
    stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    flat = cv2.undistortPoints(
        pixels_of(calibration)[:, None], calibration.intrinsics, calibration.distortion, None, None, None, stop
    )[:, 0]
    # Their fixed-point iteration does not converge where a lens bends strongly: what it says there is no inverse.
    still = np.zeros(3)
    points = np.concatenate([flat, np.ones((len(flat), 1))], 1)
    back, _ = cv2.projectPoints(points[:, None], still, still, calibration.intrinsics, calibration.distortion)
    converged = np.abs(back[:, 0] - pixels_of(calibration)).max(1) < 1e-3
    assume(converged.mean() > 0.5)
    assert np.abs(rays[converged, :2] - flat[converged]).max() * calibration.intrinsics[0, 0] < 0.05


@SETTINGS
@given(fisheye())
def test_fisheye_rays_project_back_with_opencv(calibration: CameraCalibration) -> None:
    rays = in_camera(calibration, usable_rays(calibration))
    assert np.abs(project(calibration, rays) - pixels_of(calibration)).max() < 0.05
    forward = rays[:, 2] > 0.1 * np.linalg.norm(rays, axis=1)  # theirs sees forward only
    still = np.zeros(3)
    points = np.ascontiguousarray(rays[forward, None])
    theirs, _ = cv2.fisheye.projectPoints(points, still, still, calibration.intrinsics, calibration.distortion)
    assert np.abs(theirs[:, 0] - pixels_of(calibration)[forward]).max() < 0.05


@SETTINGS
@given(fisheye(narrowest=60.0))
def test_fisheye_rays_are_those_of_opencv(calibration: CameraCalibration) -> None:
    rays = in_camera(calibration, usable_rays(calibration))
    pixels = pixels_of(calibration)[:, None]
    stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-10)
    flat = cv2.fisheye.undistortPoints(pixels, calibration.intrinsics, calibration.distortion, None, None, None, stop)
    near = rays[:, 2] > 0.3 * np.linalg.norm(rays, axis=1)
    ours = rays[:, :2] / rays[:, 2:]
    assert np.abs(ours - flat[:, 0])[near].max() * calibration.intrinsics[0, 0] < 0.05


def test_rays_beyond_85_degrees_have_unit_length() -> None:
    wide, narrow = (camera(f, "kannala_brandt", [0.0] * 4) for f in (30.0, 80.0))
    assert measures_range(wide)
    assert not measures_range(narrow)
    rays = in_camera(wide, ray_directions(wide))
    assert np.abs(np.linalg.norm(rays, axis=1) - 1).max() < 1e-6
    assert rays[:, 2].min() < 0
    assert np.abs(in_camera(narrow, ray_directions(narrow))[:, 2] - 1).max() < 1e-6


def test_an_undistorted_lens_of_either_model_is_what_it_should_be() -> None:
    plain, brown = camera(70.0, "none", []), camera(70.0, "brown_conrady", [0.0] * 5)
    assert np.abs(ray_directions(plain) - ray_directions(brown)).max() < 1e-6
    equidistant = camera(70.0, "kannala_brandt", [0.0] * 4)
    rays = unproject(equidistant, pixels_of(equidistant))
    x, y = ((pixels_of(equidistant) - equidistant.intrinsics[:2, 2]) / np.diag(equidistant.intrinsics)[:2]).T
    assert np.abs(np.arccos(rays[:, 2]) - np.hypot(x, y)).max() < 1e-6


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (camera(60.0, "brown_conrady", [-0.9, 0.0, 0.0, 0.0]), "no ray reaches pixel"),
        (camera(60.0, "brown_conrady", [0.1] + [0.0] * 11), "takes 4 or 5 or 8 coefficients"),
        (camera(12.0, "kannala_brandt", [0.0] * 4), "no ray reaches pixel"),
        (camera(40.0, "kannala_brandt", [-0.3, 0.0, 0.0, 0.0]), "folds back"),
        (CameraCalibration(8, 8, np.array([[50.0, 1.0, 4], [0, 50, 4], [0, 0, 1]]), np.eye(4)), "intrinsics must be"),
        (CameraCalibration(8, 8, np.array([[50.0, 0, 4], [0, 50, 4], [0, 0, 0]]), np.eye(4)), "intrinsics must be"),
    ],
)  # fmt: skip
def test_impossible_lenses_are_refused(calibration: CameraCalibration, message: str) -> None:
    with pytest.raises(LensError, match=message):
        ray_directions(calibration)
    if calibration.distortion_model != "none":
        with pytest.raises(LensError, match=message):
            lens_tables(calibration)


def random_box(rng: np.random.Generator, reach_m: float) -> NDArray[np.float32]:
    box = np.zeros(BOX_COLUMNS, np.float32)
    box[HX : HZ + 1] = np.exp(rng.uniform(np.log(0.03), np.log(5.0), 3))
    box[CX : CZ + 1] = rng.uniform(-reach_m, reach_m, 3) * [1, 1, 0.4]
    yaw = rng.uniform(-np.pi, np.pi)
    box[COS], box[SIN] = np.cos(yaw), np.sin(yaw)
    return box


def hits(box: NDArray[np.float32], origin: NDArray[np.float64], directions: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance (H, W) in lengths of the directions at which rays meet a box, in float64; infinity where they miss."""
    b = box.astype(np.float64)
    turn = np.array([[b[COS], b[SIN], 0], [-b[SIN], b[COS], 0], [0, 0, 1]])
    start = turn @ (origin - b[CX : CZ + 1])
    rays = np.einsum("ij,jvu->ivu", turn, directions.astype(np.float64))
    half = b[HX : HZ + 1][:, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        a, z = (-half - start[:, None, None]) / rays, (half - start[:, None, None]) / rays
    near, far = np.minimum(a, z).max(0), np.maximum(a, z).min(0)
    return np.where((near <= far) & (far > 0), np.maximum(near, 0), np.inf)


@SETTINGS
@given(
    lens=st.one_of(brown_conrady(), fisheye()), seed=st.integers(0, 2**32 - 1), yaw=st.floats(-3.1, 3.1),
    pitch=st.floats(-1.5, 1.5), roll=st.floats(-3.1, 3.1), reach=st.sampled_from([2.0, 8.0, 60.0]),
)  # fmt: skip
def test_bounds_hold_every_pixel_that_sees_the_box(
    lens: CameraCalibration, seed: int, yaw: float, pitch: float, roll: float, reach: float
) -> None:
    pose = se3(rotation_from_euler(yaw, pitch, roll), [0.2, -0.1, 1.4]) @ se3(AXES, [0.0, 0.0, 0.0])
    lens = CameraCalibration(
        lens.width_px, lens.height_px, lens.intrinsics, pose, lens.distortion_model, lens.distortion
    )
    directions = usable_rays(lens)
    tables = lens_tables(lens)
    rotation = tuple(np.float32(r) for r in pose[:3, :3].T.ravel())
    origin = pose[:3, 3].astype(np.float32)
    corners, out = np.zeros((3, LANES), np.float32), np.zeros(4, np.int64)
    rng = np.random.default_rng(seed)
    for _ in range(40):
        box = random_box(rng, reach)
        distance = hits(box, origin.astype(np.float64), directions)
        seen = np.isfinite(distance)
        possible = distorted_bounds(box, origin, rotation, tables, corners, out)
        if not possible:
            assert not seen.any()
            continue
        u0, u1, v0, v1 = out
        assert 0 <= u0 < u1 <= WIDTH
        assert 0 <= v0 < v1 <= HEIGHT
        inside = np.zeros_like(seen)
        inside[v0:v1, u0:u1] = True
        assert not (seen & ~inside).any()
        if seen.any():
            assert corners[2].min() <= distance[seen].min() * (1 + 1e-5) + 1e-5


def test_bounds_are_tight_for_what_is_small_and_far() -> None:
    """Conservative must not mean everything: a car 30 m away covers little of a picture, and of its bounds."""
    rng = np.random.default_rng(1)
    lenses = [
        camera(45.0, "brown_conrady", [-0.2, 0.03, 0.001, -0.001]),
        camera(30.0, "kannala_brandt", [0.02, 0, 0, 0]),
    ]
    for lens in lenses:
        directions, tables = ray_directions(lens), lens_tables(lens)
        rotation = tuple(np.float32(r) for r in lens.ego_from_camera[:3, :3].T.ravel())
        origin, corners, out = np.zeros(3, np.float32), np.zeros((3, LANES), np.float32), np.zeros(4, np.int64)
        slack = []
        for _ in range(100):
            box = random_box(rng, 30.0)
            box[HX : HZ + 1] = [2.2, 0.9, 0.8]
            seen = np.isfinite(hits(box, np.zeros(3), directions))
            if np.hypot(box[CX], box[CX + 1]) < 8.0 or not distorted_bounds(
                box, origin, rotation, tables, corners, out
            ):
                continue
            v, u = np.nonzero(seen)
            tight = (np.ptp(u) + 1) * (np.ptp(v) + 1) if len(u) else 0
            slack.append(((out[1] - out[0]) * (out[3] - out[2]), tight))
        bounds, needed = np.array(slack).sum(0)
        assert len(slack) > 10
        assert bounds < 2.0 * needed
