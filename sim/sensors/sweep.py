"""Boxes cast into one sweep of a LiDAR: a grid of beams and columns.

Knows beams and solids in boxes; knows nothing about returns, traffic or environments.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.sensors.cast import CX, CY, CZ, FAST, HX, HY, HZ, INLINE, boxes_of_ranks, cast_solid
from sim.simd import WIDTH, fma, greatest, least, lowest_bit, mask_bits, splat, sqrt, where
from sim.simd_memory import store2

TWO_PI = np.float32(2 * math.pi)
# Rows of scratch: see `_upright_bounds`.
HIGH, LOW, MIDDLE, HALF, NEAREST = range(5)
BOUNDS = 5
ARC_ERROR = 3e-4  # of `arc`, radians; a column of the finest LiDAR is ten times as wide


@njit(**INLINE)
def arc(y, x):
    """Angles of sixteen points (x, y) from the x axis, within ARC_ERROR. The library's is exact, takes one number, and is ten times
    as slow."""
    zero, half_pi = np.float32(0.0), np.float32(0.5 * math.pi)
    across, along = abs(y), abs(x)
    steep = across > along
    a = least(across, along) / greatest(greatest(across, along), np.float32(1e-30))
    s = a * a
    angle = fma(fma(s, np.float32(-0.0464964749), np.float32(0.15931422)), s, np.float32(-0.327622764))
    angle = fma(angle * s, a, a)
    angle = where(steep, half_pi - angle, angle)
    angle = where(x < zero, np.float32(math.pi) - angle, angle)
    return where(y < zero, -angle, angle)


@njit(**INLINE)
def _first_below(slopes, limit, strictly):
    """The first of falling slopes that is at most (or strictly below) the limit."""
    low, high = 0, slopes.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if (slopes[middle] < limit) if strictly else (slopes[middle] <= limit):
            high = middle
        else:
            low = middle + 1
    return low


@njit(**INLINE)
def _tilted_bounds(boxes, order, rank, count, origin, lidar_from_ego, reach, out):
    """`_upright_bounds` for a sensor that does not stand upright: those of the balls around the boxes."""
    m, one, margin = lidar_from_ego, np.float32(1.0), np.float32(1e-4)
    bits = 0
    for i in range(min(WIDTH, count - rank)):
        box = boxes[order[rank + i]]
        x, y, z = box[CX] - origin[0], box[CY] - origin[1], box[CZ] - origin[2]
        radius = math.sqrt(box[HX] * box[HX] + box[HY] * box[HY] + box[HZ] * box[HZ])
        distance = math.sqrt(x * x + y * y + z * z)
        if distance - radius > reach:
            continue
        bits |= 1 << i
        sx, sy = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z, m[1, 0] * x + m[1, 1] * y + m[1, 2] * z
        away = math.sqrt(sx * sx + sy * sy)
        out[HIGH, i], out[LOW, i] = np.float32(1e9), np.float32(-1e9)
        out[MIDDLE, i], out[HALF, i] = math.atan2(sy, sx), np.float32(math.pi)
        out[NEAREST, i] = max(distance - radius, np.float32(0.0)) * np.float32(0.9999)
        if distance > radius * (one + np.float32(0.01)):
            angle = math.asin(radius / distance) + margin
            elevation = math.atan2(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z, away)
            if elevation - angle > np.float32(-1.5):
                out[LOW, i] = math.tan(elevation - angle)
            if elevation + angle < np.float32(1.5):
                out[HIGH, i] = math.tan(elevation + angle)
            if away > radius * (one + np.float32(0.01)):
                out[HALF, i] = math.asin(radius / away) + margin
    return bits


@njit(**INLINE)
def _upright_bounds(boxes, order, rank, count, origin, lidar_from_ego, reach, out):
    """Where sixteen boxes (ranks from rank on) may be seen: rows of `out` (BOUNDS, 8) are the greatest and the least tangent of the
    elevation, azimuth of the middle and half width in the sensor's frame, and the nearest range that each can have.

    Returns bits: which of them are within reach.
    """
    zero, margin = np.float32(0.0), np.float32(1e-4)
    (x, y, z, hx, hy, hz, cos_yaw, sin_yaw), there = boxes_of_ranks(boxes, order, rank, count)
    x, y, z = x - origin[0], y - origin[1], z - origin[2]
    square = fma(x, x, y * y)
    radius = sqrt(fma(hx, hx, fma(hy, hy, hz * hz)))
    bits = mask_bits(there & (sqrt(fma(z, z, square)) - radius <= reach))
    if bits == 0:
        return bits
    # Nearest and farthest horizontal distance of the box's rectangle, from the sensor in the box's own frame.
    ox, oy = abs(fma(x, cos_yaw, sin_yaw * y)), abs(fma(y, cos_yaw, -sin_yaw * x))
    near_x, near_y = greatest(ox - hx, zero), greatest(oy - hy, zero)
    far_x, far_y = ox + hx, oy + hy
    nearest, farthest = sqrt(fma(near_x, near_x, near_y * near_y)), sqrt(fma(far_x, far_x, far_y * far_y))
    high, low, close = z + hz, z - hz, greatest(nearest, np.float32(1e-4))
    store2(out, HIGH, 0, high / where(high > zero, close, farthest) + margin)
    store2(out, LOW, 0, low / where(low < zero, close, farthest) - margin)
    m = lidar_from_ego
    store2(out, MIDDLE, 0, arc(fma(x, m[1, 0], m[1, 1] * y), fma(x, m[0, 0], m[0, 1] * y)))
    store2(out, NEAREST, 0, nearest * np.float32(0.9999))
    # Half width: the largest angle between the middle and a corner, by cross and dot product.
    widest = splat(zero)
    for k in range(4):
        cx, cy = hx if k & 1 else -hx, hy if k & 2 else -hy
        px, py = fma(cx, cos_yaw, fma(cy, -sin_yaw, x)), fma(cx, sin_yaw, fma(cy, cos_yaw, y))
        cross, dot = abs(fma(x, py, -y * px)), fma(x, px, y * py)
        widest = greatest(widest, where(dot > zero, cross / dot, np.float32(1e9)))
    # At more than 60 degrees, rounding and corners behind the sensor make the tangent useless.
    narrow = (nearest > zero) & (widest < np.float32(1.7))
    half = arc(widest, splat(np.float32(1.0))) + (np.float32(2.0 * ARC_ERROR) + margin)
    store2(out, HALF, 0, where(narrow, half, np.float32(math.pi)))
    return bits


@njit(**FAST)
def cast_sweep(
    boxes, order, count, origin, lidar_from_ego, upright, reach, slopes, first_azimuth, azimuth_step, azimuth_spread,
    dx, dy, dz, depth, code, bounds,
):  # fmt: skip
    """Cast boxes[order[:count]] into a grid of beams x columns; everything in ego, float32.

    slopes (beams,): tangents of the elevations, falling; column c looks at first_azimuth + c * azimuth_step, radians
    in the sensor's frame, give or take azimuth_spread. Boxes further away than reach are left out.
    upright: whether the sensor's z axis is that of the ego (then bounds are tight). dx, dy, dz (beams, columns): unit
    directions in ego; depth is the range. code as in `camera.cast_camera`. bounds (BOUNDS, WIDTH) float32 is scratch.
    """
    columns = depth.shape[1]
    for rank in range(0, count, WIDTH):
        if upright:
            bits = _upright_bounds(boxes, order, rank, count, origin, lidar_from_ego, reach, bounds)
        else:
            bits = _tilted_bounds(boxes, order, rank, count, origin, lidar_from_ego, reach, bounds)
        while bits != 0:
            i = lowest_bit(bits)
            bits &= bits - 1
            first, end = _first_below(slopes, bounds[HIGH, i], False), _first_below(slopes, bounds[LOW, i], True)
            if first >= end:
                continue
            k, middle = order[rank + i], bounds[MIDDLE, i] - first_azimuth
            half = bounds[HALF, i] + azimuth_spread
            # Where columns begin anywhere and a box may wrap around, two turns either way are needed.
            for turn in range(-2, 3):
                away = middle + turn * TWO_PI  # a turn need not be a whole number of columns
                c0 = max(0, math.ceil((away - half) / azimuth_step))
                c1 = min(columns, math.floor((away + half) / azimuth_step) + 1)
                if half >= 0.5 * TWO_PI:
                    c0, c1 = 0, columns if turn == 0 else 0
                if c1 <= c0:
                    continue
                cast_solid(
                    depth, code, dx, dy, dz, first, end, c0, c1, bounds[NEAREST, i], origin, boxes[k], np.int32(4 * k)
                )


def sweep_directions(
    elevations_rad: NDArray[np.float64], azimuths_rad: NDArray[np.float64], ego_from_lidar: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Unit ray directions (3, beams, columns) float32 in ego; azimuths (columns,) or (beams, columns)."""
    elevation, azimuth = elevations_rad[:, None], np.atleast_2d(azimuths_rad)
    rays = np.stack(
        np.broadcast_arrays(
            np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation) + 0 * azimuth
        )
    )
    directions = np.einsum("ij,jbc->ibc", ego_from_lidar[:3, :3], rays)
    return np.ascontiguousarray(directions, np.float32)
