"""Lift fusion: places are looked up where OpenCV projects them, and late fusion: a vector for each sensor."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from fusion.late import LateFusion
from fusion.lift import HEIGHTS_M, STRIDE, LiftFusion, lift_table
from perception.features import SensorFeatures
from perception.geometry import inverse, rotation_from_euler, se3
from perception.points import BevGrid
from perception.sensors import CameraCalibration

AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
CAMERA = CameraCalibration(
    192, 96, np.array([[80.0, 0, 95.5], [0, 80.0, 47.5], [0, 0, 1]]),
    se3(rotation_from_euler(0.3, 0.05) @ AXES, [1.2, 0.3, 1.7]),
)  # fmt: skip
GRID = BevGrid()


def centers() -> np.ndarray:
    """(heights, rows, columns, 3) metres in ego."""
    x = GRID.x_min_m + (np.arange(GRID.rows // STRIDE) + 0.5) * STRIDE * GRID.cell_m
    y = GRID.y_min_m + (np.arange(GRID.columns // STRIDE) + 0.5) * STRIDE * GRID.cell_m
    return np.stack(np.meshgrid(np.array(HEIGHTS_M), x, y, indexing="ij"), -1)[..., [1, 2, 0]]


def test_places_are_where_opencv_projects_them() -> None:
    where, seen = lift_table(CAMERA, GRID)
    points = centers().reshape(-1, 3)
    pose = inverse(CAMERA.ego_from_camera)
    rotation, _ = cv2.Rodrigues(pose[:3, :3])
    projected, _ = cv2.projectPoints(points, rotation, pose[:3, 3], CAMERA.intrinsics, None)
    ahead = (points @ pose[:3, :3].T + pose[:3, 3])[:, 2] > 0.1
    pixels = (where.reshape(-1, 2) + 1) / 2 * [192, 96] - 0.5
    visible = seen.ravel() > 0
    assert 0.1 < visible.mean() < 0.6
    assert not visible[~ahead].any()
    np.testing.assert_allclose(pixels[visible], projected[visible, 0], atol=1e-3)
    inside = ((projected[:, 0] > -0.4) & (projected[:, 0] < [191.4, 95.4])).all(1) & ahead
    assert visible[inside].all()


def lift() -> LiftFusion:
    torch.manual_seed(0)
    return LiftFusion({"camera": CAMERA}, 8, (4, 8), {"ego": (1, 5)}, 8, 32, GRID)


def features(seed: int = 0) -> SensorFeatures:
    generator = torch.Generator().manual_seed(seed)
    points = tuple(torch.randn((2, c, n, n), generator=generator) for c, n in ((2, 48), (4, 24), (8, 12)))
    picture = torch.randn((2, 8, 6, 12), generator=generator)
    ego = torch.randn((2, 1, 5), generator=generator)
    return SensorFeatures({"camera": picture}, points, {"ego": ego}, {"camera": torch.tensor([True, False])})


def test_a_lifted_map_is_linear_in_the_picture_and_empty_where_nobody_looks() -> None:
    fusion, given = lift(), features()
    with torch.no_grad():
        lifted = fusion._lifted(given)
        # A picture that is the same all over gives each place that is seen that feature, and the others nothing.
        even = SensorFeatures({"camera": torch.ones(2, 8, 6, 12)}, (), {}, {})
        flat = fusion._lifted(even)
        value = fusion.narrow(torch.ones(1, 8, 1, 1)).view(1, 8, 1, 1)
    seen = (torch.from_numpy(lift_table(CAMERA, GRID)[1]).sum((0, 1, 2)) > 0).view(1, 1, 24, 24)
    torch.testing.assert_close(flat, value * seen.expand(2, 1, -1, -1))
    assert lifted[1].abs().max() == 0  # silent
    assert lifted[0].abs().max() > 0.1


def test_late_fusion_has_a_vector_of_its_own_for_a_silent_sensor() -> None:
    torch.manual_seed(0)
    fusion = LateFusion({"camera": 8}, 8, {"ego": (1, 5)}, 16, 32)
    given, other = features(), features(1)
    with torch.no_grad():
        before = fusion.latent(given)
        mixed = SensorFeatures(other.pictures, given.points, given.vectors, given.present)
        after = fusion.latent(mixed)
        fusion.silent["camera"].add_(torch.linspace(-1, 1, 16))
        moved = fusion.latent(given)
    assert (after[0] - before[0]).abs().max() > 1e-3
    assert torch.equal(after[1], before[1])
    assert torch.equal(moved[0], before[0])
    assert (moved[1] - before[1]).abs().max() > 1e-3
