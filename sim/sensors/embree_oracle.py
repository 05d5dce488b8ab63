"""The same scene as triangles, for Open3D's RaycastingScene (Embree): the oracle of tests and the rival of benchmarks.

Knows boxes and rays in the ego frame; knows nothing about how our own caster works.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.open3d_loader import load_open3d
from sim.sensors.cast import COS, CX, CZ, HX, HZ, SIN

GROUND_HALF_M = 20_000.0
_CORNERS = np.array([[(k & 1) * 2 - 1, (k >> 1 & 1) * 2 - 1, (k >> 2 & 1) * 2 - 1] for k in range(8)], np.float32)
_QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
_TRIANGLES = np.array([t for a, b, c, d in _QUADS for t in ((a, b, c), (a, c, d))], np.uint32)
TRIANGLES_PER_BOX = len(_TRIANGLES)


def box_triangles(boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Vertices (8 N, 3) and triangles (12 N, 3) of boxes (N, BOX_COLUMNS)."""
    local = _CORNERS[None] * boxes[:, None, HX : HZ + 1]
    c, s = boxes[:, None, COS], boxes[:, None, SIN]
    turned = np.stack([c * local[..., 0] - s * local[..., 1], s * local[..., 0] + c * local[..., 1], local[..., 2]], -1)
    vertices = turned + boxes[:, None, CX : CZ + 1]
    triangles = _TRIANGLES[None] + 8 * np.arange(len(boxes), dtype=np.uint32)[:, None, None]
    return vertices.reshape(-1, 3).astype(np.float32), triangles.reshape(-1, 3).astype(np.uint32)


class EmbreeScene:
    """Boxes and the ground plane z = 0 as triangles in a built Embree scene."""

    def __init__(self, boxes: NDArray[np.float32]) -> None:
        o3d = load_open3d()
        self._core: Any = o3d.core
        self.scene: Any = o3d.t.geometry.RaycastingScene(nthreads=1)
        self.num_boxes = len(boxes)
        g = GROUND_HALF_M
        ground = np.array([[-g, -g, 0], [g, -g, 0], [g, g, 0], [-g, g, 0]], np.float32)
        self._ground = self.scene.add_triangles(ground, np.array([[0, 1, 2], [0, 2, 3]], np.uint32))
        if len(boxes):
            self.scene.add_triangles(*box_triangles(boxes))
        self.cast(np.array([[0, 0, 1, 0, 0, -1]], np.float32))  # builds the tree

    def rays(self, origin: NDArray[np.float32], directions: NDArray[np.float32]) -> Any:
        """Open3D's tensor of rays (H, W, 6) for one origin (3,) and directions (3, H, W)."""
        rays = np.empty((*directions.shape[1:], 6), np.float32)
        rays[..., :3] = origin
        rays[..., 3:] = np.moveaxis(directions, 0, -1)
        return self._core.Tensor(rays)

    def cast_tensor(self, rays: Any) -> Any:
        """Open3D's own answer, one thread."""
        return self.scene.cast_rays(rays, nthreads=1)

    def cast(self, rays: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distance in units of the direction's length (inf for none), and the box hit, -1 ground, -2 nothing."""
        answer = self.cast_tensor(rays if not isinstance(rays, np.ndarray) else self._core.Tensor(rays))
        distance = answer["t_hit"].numpy()
        geometry = answer["geometry_ids"].numpy().astype(np.int64)
        box = answer["primitive_ids"].numpy().astype(np.int64) // TRIANGLES_PER_BOX
        identity = np.where(geometry == self._ground, -1, box)
        return distance, np.where(np.isinf(distance), -2, identity)
