"""Our caster against Embree on the same scene and rays, and its bounds against hypothesis's worst ideas."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, reject, settings
from hypothesis import strategies as st
from kernel_arguments import view_of
from numba import njit
from numpy.typing import NDArray

from perception.geometry import inverse, rotation_from_euler, se3, transform
from perception.sensors import CameraCalibration, DistortionModel
from sim.sensors.camera import cast_camera
from sim.sensors.cast import (
    BOX_COLUMNS,
    COS,
    CX,
    CZ,
    FAR_M,
    FAST,
    HX,
    HZ,
    NEAR,
    SHAPE,
    SIN,
    cast_ground,
    cast_solid,
)
from sim.sensors.embree_oracle import EmbreeScene
from sim.sensors.lens import LensError, lens_tables, ray_directions
from sim.sensors.pinhole import pinhole_directions
from sim.sensors.rig import rig
from sim.sensors.sweep import ARC_ERROR, BOUNDS, arc, cast_sweep, sweep_directions
from sim.simd import WIDTH as LANES
from sim.simd_memory import load, store
from sim.solids import Shape

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WIDTH, HEIGHT = 96, 64
ROUND = (Shape.CYLINDER, Shape.WHEEL, Shape.ELLIPSOID)
SEGMENTS = 120
SAGITTA = 3.5e-4  # of the radius, half of it inside
AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

# Model, coefficients, and by how much the field of view that a test draws is scaled, up to where the lens can be inverted.
Lens = tuple[DistortionModel, list[float], float]
LENSES: list[Lens] = [
    ("none", [], 1.0),
    ("none", [], 1.0),
    ("brown_conrady", [-0.3, 0.09, 0.002, -0.001, -0.01], 0.7),
    ("brown_conrady", [0.2, 0.05, -0.001, 0.002], 0.8),
    ("kannala_brandt", [0.03, -0.004, 0.0005, 0.0], 1.0),
    ("kannala_brandt", [-0.02, 0.001, 0.0, 0.0], 1.4),
]

seeds = st.integers(0, 2**32 - 1)
angles = st.floats(-3.1, 3.1)
tilts = st.floats(-0.6, 0.6)


def random_boxes(seed: int, count: int, reach_m: float) -> NDArray[np.float32]:
    """Solids on and above the ground, near and far, small and large, some around the sensor itself."""
    rng = np.random.default_rng(seed)
    boxes = np.zeros((count, BOX_COLUMNS), np.float32)
    boxes[:, HX : HZ + 1] = rng.uniform(0.05, 1.0, (count, 3)) * rng.choice([1.0, 4.0], (count, 1))
    boxes[:, CX : CX + 2] = rng.uniform(-reach_m, reach_m, (count, 2))
    # Not quite on the ground, and at no round height: faces in one plane with the ground or the sensor are ambiguous.
    boxes[:, CZ] = boxes[:, HZ] + rng.choice([0.01, 0.01, 1.5], count) + rng.uniform(0.001, 0.01, count)
    yaw = rng.uniform(-np.pi, np.pi, count)
    boxes[:, COS], boxes[:, SIN] = np.cos(yaw), np.sin(yaw)
    boxes[:, SHAPE] = rng.choice(len(Shape), count)
    # Triangles stand for a round solid only to within their sagitta, so big ones would need too many of them.
    big_round = np.isin(boxes[:, SHAPE], ROUND) & (boxes[:, HX : HZ + 1].max(axis=1) > 1.0)
    boxes[big_round, SHAPE] = Shape.BOX
    return boxes


def ground_hits(
    directions: NDArray[np.float32], origin: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    depth, code = np.empty(directions.shape[1:], np.float32), np.empty(directions.shape[1:], np.int32)
    cast_ground(origin, directions[2], depth, code)
    return depth, code


def agree(
    depth: NDArray[np.float32], code: NDArray[np.int32], boxes: NDArray[np.float32], scene: EmbreeScene, rays: Any
) -> tuple[float, float]:
    """Shares of rays on which distance (1 mm, and a millionth of it for far ground) and identity agree with Embree.

    On a round solid the millimetre counts across the surface: along a grazing ray its triangles are further from it.
    """
    theirs, identity = scene.cast(rays)
    # A column of rays may graze an upright edge, all of them at once: rays that see something else a hair aside say nothing.
    hair = 2e-5
    clear = np.ones(identity.shape, np.bool_)
    for shift in ([hair, 0, 0], [-hair, 0, 0], [0, hair, 0], [0, -hair, 0], [0, 0, hair], [0, 0, -hair]):
        nudged = rays.numpy().copy()
        nudged[..., 3:] += np.array(shift, np.float32)
        clear &= scene.cast(nudged)[1] == identity
    # Nor do those past the rim of something round, where its triangles are not: within a sagitta.
    for size in (1.0 - SAGITTA, 1.0 + SAGITTA):
        other = boxes.copy()
        other[np.isin(boxes[:, SHAPE], ROUND), HX : HZ + 1] *= size
        clear &= EmbreeScene(other, SEGMENTS).cast(rays)[1] == identity
    assume(theirs.min() > 1.1 * NEAR)  # what is closer than the near plane is not drawn
    near = (theirs < 1000.0) & clear
    if not near.any():
        return 1.0, 1.0
    ours, theirs, identity = np.where(code >= 0, code >> 2, code)[near], theirs[near], identity[near]
    normals = scene.cast_tensor(rays)["primitive_normals"].numpy()[near]
    across = np.minimum(np.abs((normals * rays.numpy()[near][:, 3:]).sum(-1)), 1.0)
    across[(ours < 0) | ~np.isin(np.append(boxes[:, SHAPE], Shape.BOX)[ours], ROUND)] = 1.0
    away = np.abs(depth[near] - theirs) * across
    return float(np.mean(away < 1e-3 + 1e-6 * theirs)), float(np.mean(ours == identity))


@SETTINGS
@given(seed=seeds, count=st.integers(0, 40), reach=st.sampled_from([6.0, 30.0, 120.0]), yaw=angles, pitch=tilts,
       roll=tilts, height=st.floats(0.3, 8.0), fov=st.floats(20.0, 130.0), lens=st.sampled_from(LENSES))  # fmt: skip
def test_pictures_agree_with_embree(
    seed: int, count: int, reach: float, yaw: float, pitch: float, roll: float, height: float, fov: float, lens: Lens
) -> None:
    model, distortion, narrower = lens
    boxes = random_boxes(seed, count, reach)
    pose = se3(rotation_from_euler(yaw, pitch, roll), [0.3, -0.2, height]) @ se3(AXES, [0.0, 0.0, 0.0])
    half = np.radians(fov) * narrower / 2
    focal = 0.5 * WIDTH / (half if model == "kannala_brandt" else np.tan(half))
    k = np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal * 1.1, (HEIGHT - 1) / 2 + 3], [0, 0, 1]])
    calibration = CameraCalibration(WIDTH, HEIGHT, k, pose, model, np.array(distortion))
    try:
        directions = ray_directions(calibration)
    except LensError:  # strong distortion at a wide angle folds back: no such lens
        reject()
    origin = pose[:3, 3].astype(np.float32)
    depth, code = ground_hits(directions, origin)
    view = view_of(calibration)
    drawn = np.zeros(count, np.int32)
    number = cast_camera(
        boxes, np.arange(count, dtype=np.int32)[::-1].copy(), count, origin, view, lens_tables(calibration), *directions,
        depth, code, np.zeros((3, LANES), np.float32), np.zeros(4, np.int64), drawn,
    )  # fmt: skip
    assert set(np.unique(code[code >= 0] >> 2)) <= set(drawn[:number])
    scene = EmbreeScene(boxes, SEGMENTS)
    same_depth, same_identity = agree(depth, code, boxes, scene, scene.rays(origin, directions))
    assert same_depth >= 0.999
    assert same_identity >= 0.999


@SETTINGS
@given(seed=seeds, count=st.integers(0, 40), reach=st.sampled_from([6.0, 30.0, 120.0]), yaw=angles,
       tilt=st.sampled_from([0.0, 0.0, 0.3]), start=st.floats(-180.0, 180.0),
       span=st.sampled_from([360.0, 360.0, 120.0, 40.0]))  # fmt: skip
@example(seed=0, count=22, reach=30.0, yaw=1.0, tilt=0.0, start=151.0, span=360.0)
def test_sweeps_agree_with_embree(
    seed: int, count: int, reach: float, yaw: float, tilt: float, start: float, span: float
) -> None:
    boxes = random_boxes(seed, count, reach)
    pose = se3(rotation_from_euler(yaw, tilt), [1.2, 0.0, 1.8])
    columns = 180
    elevations, azimuths = (
        np.radians(np.linspace(12, -32, 24)),
        np.radians(start + (np.arange(columns) + 0.5) * span / columns),
    )
    directions = sweep_directions(elevations, azimuths, pose)
    origin = pose[:3, 3].astype(np.float32)
    depth, code = ground_hits(directions, origin)
    cast_sweep(
        boxes, np.arange(count, dtype=np.int32), count, origin, np.ascontiguousarray(pose[:3, :3].T, np.float32),
        tilt == 0.0, FAR_M, np.tan(elevations).astype(np.float32), np.float32(azimuths[0]), np.float32(np.radians(span) / columns),
        np.float32(0.0), *directions, depth, code, np.zeros((BOUNDS, LANES), np.float32),
    )  # fmt: skip
    scene = EmbreeScene(boxes, SEGMENTS)
    same_depth, same_identity = agree(depth, code, boxes, scene, scene.rays(origin, directions))
    assert same_depth >= 0.999
    assert same_identity >= 0.999


def test_nothing_is_hit_above_an_empty_plane() -> None:
    directions = sweep_directions(np.radians([10.0, -10.0]), np.radians(np.arange(18) * 20.0), np.eye(4))
    depth, code = ground_hits(directions, np.array([0, 0, 1.8], np.float32))
    assert (depth[0] == FAR_M).all()
    assert np.allclose(depth[1], 1.8 / np.sin(np.radians(10.0)), rtol=1e-6)
    assert code.tolist() == [[-2] * 18, [-1] * 18]


@pytest.mark.parametrize("name", ["camera_wide", "camera_tele"])
def test_a_pixels_ray_projects_back_to_it(name: str) -> None:
    calibration = next(c for c in rig("small").cameras if c.name == name).calibration()
    directions = pinhole_directions(
        calibration.intrinsics, calibration.ego_from_camera, calibration.width_px, calibration.height_px
    )
    points = calibration.ego_from_camera[:3, 3] + 7.0 * directions.reshape(3, -1).T.astype(np.float64)
    in_camera = transform(inverse(calibration.ego_from_camera), points)
    pixels, _ = cv2.projectPoints(in_camera, np.zeros(3), np.zeros(3), calibration.intrinsics, None)
    u, v = np.meshgrid(np.arange(calibration.width_px), np.arange(calibration.height_px))
    expected = np.stack([u.ravel(), v.ravel()], axis=1)
    assert np.abs(pixels[:, 0] - expected).max() < 0.01


def test_rays_along_a_boxs_sides_are_exact() -> None:
    """Parallel rays that start within a box's slabs, and beside them: one over their speed across is infinite."""
    boxes = np.zeros((1, BOX_COLUMNS), np.float32)
    boxes[0, [CX, CX + 1, CZ, HX, HX + 1, HZ, COS]] = [10.0, 0.0, 1.0, 2.0, 1.0, 1.0, 1.0]
    depth, code = np.full((1, 32), FAR_M, np.float32), np.full((1, 32), -2, np.int32)
    ones, zeros = np.ones((1, 32), np.float32), np.zeros((1, 32), np.float32)
    for side, expected in ((0.5, 8.0), (1.5, FAR_M)):
        for direction in ((ones, zeros, zeros), (ones, -zeros, -zeros)):
            depth[:], code[:] = FAR_M, -2
            cast_one(depth, code, *direction, np.array([0.0, side, 1.25], np.float32), boxes[0])
            assert (depth == expected).all()


@njit(**FAST)
def cast_one(depth, code, dx, dy, dz, origin, box):
    """One solid against all rays."""
    rows, columns = depth.shape
    cast_solid(depth, code, dx, dy, dz, 0, rows, 0, columns, np.float32(0.0), origin, box, np.int32(0))


@njit(**FAST)
def arcs(y, x, out):
    """`arc`, which is inlined into kernels, of many points."""
    for i in range(0, len(y), LANES):
        store(out, i, arc(load(y, i), load(x, i)))


def test_fast_angles_are_as_good_as_they_say() -> None:
    turn = np.linspace(-np.pi, np.pi, 200_000)
    scale = np.random.default_rng(0).choice([1e-3, 1.0, 1e4], len(turn))
    y, x = (scale * np.sin(turn)).astype(np.float32), (scale * np.cos(turn)).astype(np.float32)
    out = np.zeros(len(turn), np.float32)
    arcs(y, x, out)
    assert np.abs(np.angle(np.exp(1j * (out - np.arctan2(y, x).astype(np.float64))))).max() < ARC_ERROR
