"""The same scene as triangles, for Open3D's RaycastingScene (Embree): the oracle of tests and the rival of benchmarks.

Knows boxes and rays in the ego frame; knows nothing about how our own caster works.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.open3d_loader import load_open3d
from sim.sensors.cast import COS, CX, CZ, HX, HZ, SHAPE, SIN
from sim.solids import Shape

GROUND_HALF_M = 20_000.0
SEGMENTS = 24  # of a round solid, where looks and speed matter; tests that compare distances ask for more

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]


def _unit_box() -> tuple[F32, U32]:
    corners = np.array([[(k & 1) * 2 - 1, (k >> 1 & 1) * 2 - 1, (k >> 2 & 1) * 2 - 1] for k in range(8)], np.float32)
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.uint32)


def _unit_wedge() -> tuple[F32, U32]:
    corners = [[-1, -1, -1], [-1, 1, -1], [-1, -1, 1], [-1, 1, 1], [1, -1, -1], [1, 1, -1]]
    triangles = [[0, 2, 4], [1, 5, 3], [0, 4, 5], [0, 5, 1], [0, 1, 3], [0, 3, 2], [2, 3, 5], [2, 5, 4]]
    return np.array(corners, np.float32), np.array(triangles, np.uint32)


def _unit_cylinder(segments: int) -> tuple[F32, U32]:
    """Upright, radius 1: as many facets inside as outside the true surface."""
    angle = 2 * np.pi * np.arange(segments) / segments
    radius = 2.0 / (1.0 + np.cos(np.pi / segments))
    ring = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    low, high = np.column_stack([ring, -np.ones(segments)]), np.column_stack([ring, np.ones(segments)])
    points = np.vstack([low, high, [[0, 0, -1], [0, 0, 1]]]).astype(np.float32)
    k, after = np.arange(segments), (np.arange(segments) + 1) % segments
    n = segments
    return points, np.vstack(
        [
            np.column_stack([k, after, n + after]),
            np.column_stack([k, n + after, n + k]),
            np.column_stack([after, k, np.full(n, 2 * n)]),
            np.column_stack([n + k, n + after, np.full(n, 2 * n + 1)]),
        ]
    ).astype(np.uint32)


def _unit_ball(segments: int) -> tuple[F32, U32]:
    bands = segments // 2
    theta, phi = np.pi * np.arange(bands + 1) / bands, 2 * np.pi * np.arange(segments) / segments
    radius = 2.0 / (1.0 + np.cos(np.pi / segments) ** 2)
    grid = radius * np.stack(
        np.broadcast_arrays(
            np.sin(theta)[:, None] * np.cos(phi), np.sin(theta)[:, None] * np.sin(phi), np.cos(theta)[:, None]
        ),
        axis=-1,
    )
    i, j = np.meshgrid(np.arange(bands), np.arange(segments), indexing="ij")
    a, b = i * segments + j, i * segments + (j + 1) % segments
    c, d = a + segments, b + segments
    triangles = np.concatenate([np.stack([a, c, d], -1).reshape(-1, 3), np.stack([a, d, b], -1).reshape(-1, 3)])
    return grid.reshape(-1, 3).astype(np.float32), triangles.astype(np.uint32)


def solid_triangles(boxes: F32, segments: int = SEGMENTS) -> tuple[F32, U32, NDArray[np.int64]]:
    """Vertices (V, 3), triangles (T, 3) and the solid of each triangle (T,) of solids (N, BOX_COLUMNS)."""
    cylinder = _unit_cylinder(segments)
    wheel = (cylinder[0][:, [0, 2, 1]], cylinder[1][:, [0, 2, 1]])
    units = {
        Shape.BOX: _unit_box(), Shape.CYLINDER: cylinder, Shape.WHEEL: wheel, Shape.ELLIPSOID: _unit_ball(segments),
        Shape.WEDGE: _unit_wedge(),
    }  # fmt: skip
    vertices, triangles, solids, count = (
        [np.zeros((0, 3), np.float32)],
        [np.zeros((0, 3), np.int64)],
        [np.zeros(0, np.int64)],
        0,
    )
    for shape, (points, faces) in units.items():
        which = np.flatnonzero(boxes[:, SHAPE] == shape)
        if len(which) == 0:
            continue
        local = points[None] * boxes[which, None, HX : HZ + 1]
        c, s = boxes[which, None, COS], boxes[which, None, SIN]
        turned = [c * local[..., 0] - s * local[..., 1], s * local[..., 0] + c * local[..., 1], local[..., 2]]
        vertices.append((np.stack(turned, -1) + boxes[which, None, CX : CZ + 1]).reshape(-1, 3))
        first = count + len(points) * np.arange(len(which))
        triangles.append((faces[None].astype(np.int64) + first[:, None, None]).reshape(-1, 3))
        solids.append(np.repeat(which, len(faces)))
        count += len(points) * len(which)
    return (
        np.concatenate(vertices).astype(np.float32), np.concatenate(triangles).astype(np.uint32), np.concatenate(solids)
    )  # fmt: skip


class EmbreeScene:
    """Solids and the ground plane z = 0 as triangles in a built Embree scene; round solids have that many segments."""

    def __init__(self, boxes: NDArray[np.float32], segments: int = SEGMENTS) -> None:
        o3d = load_open3d()
        self._core: Any = o3d.core
        self.scene: Any = o3d.t.geometry.RaycastingScene(nthreads=1)
        g = GROUND_HALF_M
        ground = np.array([[-g, -g, 0], [g, -g, 0], [g, g, 0], [-g, g, 0]], np.float32)
        self._ground = self.scene.add_triangles(ground, np.array([[0, 1, 2], [0, 2, 3]], np.uint32))
        vertices, triangles, self._solid = solid_triangles(boxes, segments)
        self.triangles = len(triangles) + 2
        if len(boxes):
            self.scene.add_triangles(vertices, triangles)
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
        primitive = answer["primitive_ids"].numpy().astype(np.int64)
        met = (geometry != self._ground) & np.isfinite(distance)
        identity = np.full(geometry.shape, -1)
        identity[met] = self._solid[primitive[met]]
        return distance, np.where(np.isinf(distance), -2, identity)
