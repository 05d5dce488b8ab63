"""Which actors can the ego's sensors see?

Line of sight from the roof to points of an actor's box, past scenery and other actors. Knows upright boxes;
knows nothing about cameras, LiDAR models or policies.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

import sim.numba_setup  # noqa: F401 (chooses the threading layer)
from sim.solids import Boxes

ROOF_HEIGHT_M = 1.8
MAX_NEAR_BOXES = 512


class BoxGrid:
    """Static boxes sorted into square cells, for kernels: which boxes have their centre near (x, y)?

    boxes: (B, 9) float64 x y z yaw half_x half_y half_z radius (of the circle around its ground rectangle) shape, by cell.
    order: (B,) the boxes' places in the `Boxes` given. start: (columns * rows + 1,) int32. origin: (2,) float64.
    columns, rows, cell_m: of the grid.
    reach_m: the largest radius, to widen a search by.
    """

    def __init__(self, solids: Boxes, cell_m: float = 16.0) -> None:
        center, half = solids.center, solids.half_size
        radius = np.hypot(half[:, 0], half[:, 1])
        low = center[:, :2].min(axis=0) if len(solids) else np.zeros(2)
        high = center[:, :2].max(axis=0) if len(solids) else np.zeros(2)
        self.cell_m = cell_m
        self.origin = low.astype(np.float64)
        self.columns, self.rows = (int(n) for n in np.floor((high - low) / cell_m).astype(np.int64) + 1)
        cell = np.floor((center[:, :2] - low) / cell_m).astype(np.int64)
        index = cell[:, 0] + cell[:, 1] * self.columns
        self.order = np.argsort(index, kind="stable")
        self.boxes = np.column_stack([center, solids.yaw_rad, half, radius, solids.shape])[self.order].astype(
            np.float64
        )
        counts = np.bincount(index, minlength=self.columns * self.rows)
        self.start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.reach_m = float(radius.max()) if len(solids) else 0.0


@njit(cache=True, error_model="numpy")
def _segment_meets_box(ax, ay, az, bx, by, bz, x, y, z, cos_yaw, sin_yaw, half_x, half_y, half_z):
    """Does the segment from a to b meet the box? Slab method, Kay and Kajiya 1986."""
    px, py, pz = ax - x, ay - y, az - z
    dx, dy, dz = bx - ax, by - ay, bz - az
    ox, oy = cos_yaw * px + sin_yaw * py, cos_yaw * py - sin_yaw * px
    ux, uy = cos_yaw * dx + sin_yaw * dy, cos_yaw * dy - sin_yaw * dx
    near, far = 0.0, 1.0
    for o, u, h in ((ox, ux, half_x), (oy, uy, half_y), (pz, dz, half_z)):
        if abs(u) < 1e-12:
            if abs(o) > h:
                return False
        else:
            t0, t1 = (-h - o) / u, (h - o) / u
            near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
    return near < far


@njit(cache=True, error_model="numpy")
def _blocked(eye, target, boxes, count, skip):
    """Is the line from eye to target (x, y, z each) blocked by any of boxes[:count] but the one at index skip?"""
    ex, ey, ez = eye
    tx, ty, tz = target
    dx, dy = tx - ex, ty - ey
    length = max(math.hypot(dx, dy), 1e-6)
    for k in range(count):
        if k == skip:
            continue
        x, y, radius = boxes[k, 0] - ex, boxes[k, 1] - ey, boxes[k, 7]
        along = (x * dx + y * dy) / length
        across = (x * dy - y * dx) / length
        if abs(across) > radius or along < -radius or along > length + radius:
            continue
        cos_yaw, sin_yaw = math.cos(boxes[k, 3]), math.sin(boxes[k, 3])
        if _segment_meets_box(
            ex, ey, ez, tx, ty, tz, boxes[k, 0], boxes[k, 1], boxes[k, 2], cos_yaw, sin_yaw,
            boxes[k, 4], boxes[k, 5], boxes[k, 6],
        ):  # fmt: skip
            return True
    return False


@njit(cache=True, parallel=True, error_model="numpy")
def visible_actors(
    active, x_m, y_m, yaw_rad, length_m, width_m, height_m, rear_axle_m,
    boxes, start, origin, cell_m, columns, rows, reach_m, range_m, scratch, nearest, visible_count,
):  # fmt: skip
    """The nearest visible actors of each environment.

    Takes the actor arrays (E, A) of `WorldState` and the fields of a `BoxGrid`; range_m is the farthest an actor may
    be. Fills nearest (E, K) int32 with actor indices, nearest first, -1 where there are fewer, and visible_count (E,)
    int32. scratch: (E, MAX_NEAR_BOXES + A, 8) float64. An actor is visible if the line from the roof to one of five
    points of its upper half (centre and corners, moved in by a tenth) is free. Cost: candidates x boxes within range.
    """
    num_envs, num_agents = x_m.shape
    keep = nearest.shape[1]
    for e in prange(num_envs):
        near = scratch[e]
        yaw = yaw_rad[e, 0]
        eye_forward = 1.2 - rear_axle_m[e, 0]
        eye_x = x_m[e, 0] + eye_forward * math.cos(yaw)
        eye_y = y_m[e, 0] + eye_forward * math.sin(yaw)
        eye = (eye_x, eye_y, ROOF_HEIGHT_M)
        distance = np.full(num_agents, np.inf)
        count = 0
        for a in range(1, num_agents):
            if active[e, a] == 0:
                continue
            away = math.hypot(x_m[e, a] - eye_x, y_m[e, a] - eye_y)
            if away > range_m:
                continue
            distance[a] = away
            near[count, 0], near[count, 1], near[count, 2] = x_m[e, a], y_m[e, a], 0.5 * height_m[e, a]
            near[count, 3] = yaw_rad[e, a]
            near[count, 4], near[count, 5] = 0.5 * length_m[e, a], 0.5 * width_m[e, a]
            near[count, 6] = 0.5 * height_m[e, a]
            near[count, 7] = math.hypot(near[count, 4], near[count, 5])
            count += 1
        reach = range_m + reach_m
        c0 = max(0, math.floor((eye_x - reach - origin[0]) / cell_m))
        c1 = min(columns - 1, math.floor((eye_x + reach - origin[0]) / cell_m))
        r0 = max(0, math.floor((eye_y - reach - origin[1]) / cell_m))
        r1 = min(rows - 1, math.floor((eye_y + reach - origin[1]) / cell_m))
        actors = count
        for row in range(r0, r1 + 1):
            for k in range(start[row * columns + c0], start[row * columns + c1 + 1] if c1 >= c0 else 0):
                gone = math.hypot(boxes[k, 0] - eye_x, boxes[k, 1] - eye_y) > range_m + boxes[k, 7]
                if gone or boxes[k, 2] - boxes[k, 6] > 3.0 or count - actors >= MAX_NEAR_BOXES:
                    continue
                for column in range(8):
                    near[count, column] = boxes[k, column]
                count += 1
        found = 0
        for _ in range(num_agents):
            a = int(np.argmin(distance))
            if found == keep or distance[a] == np.inf:
                break
            distance[a] = np.inf
            own = 0
            for b in range(1, a):
                if active[e, b] != 0 and math.hypot(x_m[e, b] - eye_x, y_m[e, b] - eye_y) <= range_m:
                    own += 1
            cos_yaw, sin_yaw = math.cos(yaw_rad[e, a]), math.sin(yaw_rad[e, a])
            seen = False
            for p in range(5):
                u = 0.0 if p == 0 else (0.4 if p in (1, 2) else -0.4)
                v = 0.0 if p == 0 else (0.4 if p in (1, 3) else -0.4)
                du, dv = u * length_m[e, a], v * width_m[e, a]
                target = (
                    x_m[e, a] + cos_yaw * du - sin_yaw * dv,
                    y_m[e, a] + sin_yaw * du + cos_yaw * dv,
                    (0.95 if p == 0 else 0.75) * height_m[e, a],
                )
                if not _blocked(eye, target, near, count, own):
                    seen = True
                    break
            if seen:
                nearest[e, found] = a
                found += 1
        visible_count[e] = found
        for k in range(found, keep):
            nearest[e, k] = -1


def scratch_for(num_envs: int, num_agents: int) -> NDArray[np.float64]:
    """The scratch array that `visible_actors` wants, allocated once by its caller."""
    return np.zeros((num_envs, MAX_NEAR_BOXES + num_agents, 8))
