"""Which actors can the ego's sensors see?

Line of sight from the roof to points of an actor's box, past scenery and other actors. Knows upright boxes;
knows nothing about cameras, LiDAR models or policies.
"""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.numba_setup import INNER, UNLOCKED
from sim.solids import Boxes
from sim.threads import MOST_THREADS

ROOF_HEIGHT_M = 1.8
HANGS_ABOVE_M = 3.0
MAX_NEAR_BOXES = 1024
# What is lower, or thinner, hides nobody: a line from the roof to the upper half of an actor passes above it or beside it.
LEAST_TOP_M, LEAST_WIDTH_M, LEAST_THICKNESS_M = 1.0, 0.5, 0.1
# Rows of the scratch: boxes near an ego, x and y as seen from its roof.
_X, _Y, _Z, _YAW, _HALF_X, _HALF_Y, _HALF_Z, _RADIUS, _TOUCHED, _DISTANCE, _PLACE, _ROWS = range(12)


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


def hiding(solids: Boxes) -> Boxes:
    """Those of the solids that can hide an actor: not poles, panes and plates, nor what is low, such as wheels and bonnets, or
    hangs above."""
    across = 2.0 * solids.half_size[:, :2]
    z, half_z = solids.center[:, 2], solids.half_size[:, 2]
    high = (z + half_z >= LEAST_TOP_M) & (z - half_z <= HANGS_ABOVE_M)
    rows = high & (across.max(axis=1) >= LEAST_WIDTH_M) & (across.min(axis=1) >= LEAST_THICKNESS_M)
    return Boxes(**{field.name: getattr(solids, field.name)[rows] for field in fields(Boxes)})


@njit(**INNER)
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


@njit(**INNER)
def _blocked(eye, target, near, count, skip):
    """Is the line from eye to target (x, y, z each) blocked by any of the first boxes in near but the one at index skip?

    A first loop, without branches, marks the boxes whose circle the line touches.
    """
    ex, ey, ez = eye
    tx, ty, tz = target
    length = max(math.hypot(tx - ex, ty - ey), 1e-6)
    ux, uy = (tx - ex) / length, (ty - ey) / length
    x, y, radius, touched = near[_X], near[_Y], near[_RADIUS], near[_TOUCHED]
    for k in range(count):
        along = x[k] * ux + y[k] * uy
        across = abs(x[k] * uy - y[k] * ux)
        inside = (across <= radius[k]) & (along >= -radius[k]) & (along <= length + radius[k])
        touched[k] = 1.0 if inside else 0.0
    for k in range(count):
        if touched[k] == 0.0 or k == skip:
            continue
        if _segment_meets_box(
            0.0, 0.0, ez, tx - ex, ty - ey, tz, x[k], y[k], near[_Z, k], math.cos(near[_YAW, k]), math.sin(near[_YAW, k]),
            near[_HALF_X, k], near[_HALF_Y, k], near[_HALF_Z, k],
        ):  # fmt: skip
            return True
    return False


@njit(**UNLOCKED)
def visible_actors(
    k, which, active, x_m, y_m, yaw_rad, length_m, width_m, height_m, rear_axle_m,
    boxes, start, origin, cell_m, columns, rows, reach_m, range_m, scratch, nearest, visible_count,
):  # fmt: skip
    """The nearest visible actors of the environments `which`; for `threads.over_environments`.

    Takes the actor arrays (E, A) of `WorldState` and the fields of a `BoxGrid`; range_m is the farthest an actor may
    be. Fills nearest (E, K) int32 with actor indices, nearest first, -1 where there are fewer, and visible_count (E,)
    int32. scratch: see `scratch_for`. An actor is visible if the line from the roof to one of five
    points of its upper half (centre and corners, moved in by a tenth) is free. Cost: candidates x boxes within range.
    """
    num_agents, keep, near = x_m.shape[1], nearest.shape[1], scratch[k]
    distance, place = near[_DISTANCE], near[_PLACE]
    most = near.shape[1]
    for e in which:
        yaw = yaw_rad[e, 0]
        eye_forward = 1.2 - rear_axle_m[e, 0]
        eye_x = x_m[e, 0] + eye_forward * math.cos(yaw)
        eye_y = y_m[e, 0] + eye_forward * math.sin(yaw)
        eye = (eye_x, eye_y, ROOF_HEIGHT_M)
        count = 0
        distance[0] = np.inf
        for a in range(1, num_agents):
            distance[a] = np.inf
            if active[e, a] == 0:
                continue
            away = math.hypot(x_m[e, a] - eye_x, y_m[e, a] - eye_y)
            if away > range_m:
                continue
            distance[a], place[a] = away, count
            near[_X, count], near[_Y, count] = x_m[e, a] - eye_x, y_m[e, a] - eye_y
            near[_Z, count], near[_YAW, count] = 0.5 * height_m[e, a], yaw_rad[e, a]
            near[_HALF_X, count], near[_HALF_Y, count] = 0.5 * length_m[e, a], 0.5 * width_m[e, a]
            near[_HALF_Z, count] = 0.5 * height_m[e, a]
            near[_RADIUS, count] = math.hypot(near[_HALF_X, count], near[_HALF_Y, count])
            count += 1
        if count > 0:
            reach = range_m + reach_m
            c0 = max(0, math.floor((eye_x - reach - origin[0]) / cell_m))
            c1 = min(columns - 1, math.floor((eye_x + reach - origin[0]) / cell_m))
            r0 = max(0, math.floor((eye_y - reach - origin[1]) / cell_m))
            r1 = min(rows - 1, math.floor((eye_y + reach - origin[1]) / cell_m))
            for row in range(r0, r1 + 1 if c1 >= c0 else r0):
                for b in range(start[row * columns + c0], start[row * columns + c1 + 1]):
                    dx, dy, far = boxes[b, 0] - eye_x, boxes[b, 1] - eye_y, range_m + boxes[b, 7]
                    if dx * dx + dy * dy > far * far or boxes[b, 2] - boxes[b, 6] > HANGS_ABOVE_M or count >= most:
                        continue
                    near[_X, count], near[_Y, count], near[_Z, count] = dx, dy, boxes[b, 2]
                    near[_YAW, count], near[_RADIUS, count] = boxes[b, 3], boxes[b, 7]
                    near[_HALF_X, count], near[_HALF_Y, count], near[_HALF_Z, count] = (
                        boxes[b, 4],
                        boxes[b, 5],
                        boxes[b, 6],
                    )
                    count += 1
        found = 0
        for _ in range(num_agents):
            a = 0
            for other in range(1, num_agents):
                if distance[other] < distance[a]:
                    a = other
            if found == keep or distance[a] == np.inf:
                break
            distance[a] = np.inf
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
                if not _blocked(eye, target, near, count, int(place[a])):
                    seen = True
                    break
            if seen:
                nearest[e, found] = a
                found += 1
        visible_count[e] = found
        for n in range(found, keep):
            nearest[e, n] = -1


def scratch_for(num_agents: int) -> NDArray[np.float64]:
    """What `visible_actors` works in, allocated once by its caller: (threads, rows, boxes) float64, a row for each quantity."""
    return np.zeros((MOST_THREADS, _ROWS, MAX_NEAR_BOXES + num_agents))
