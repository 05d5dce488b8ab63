"""Boxes cast into one sweep of a LiDAR: a grid of beams and columns.

Knows beams and solids in boxes; knows nothing about returns, traffic or environments.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.sensors.cast import COS, CX, CY, CZ, FAST, HX, HY, HZ, INLINE, SIN, box_of_rank, cast_solid

TWO_PI = np.float32(2 * math.pi)
ARC_ERROR = 3e-4  # of `arc`, radians; a column of the finest LiDAR is ten times as wide


@njit(**INLINE)
def arc(y, x):
    """Angle of (x, y) from the x axis, within ARC_ERROR; float32. The library's is exact and ten times as slow."""
    across, along = abs(y), abs(x)
    steep = across > along
    a = (along if steep else across) / max(max(across, along), np.float32(1e-30))
    s = a * a
    angle = ((np.float32(-0.0464964749) * s + np.float32(0.15931422)) * s - np.float32(0.327622764)) * s * a + a
    angle = np.float32(0.5 * math.pi) - angle if steep else angle
    angle = np.float32(math.pi) - angle if x < np.float32(0.0) else angle
    return -angle if y < np.float32(0.0) else angle


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
def _tilted_bounds(x, y, z, radius, lidar_from_ego, slopes, out):
    """`_sweep_bounds` of a sensor that does not stand upright: of the ball around the box whose centre is at (x, y, z)."""
    m = lidar_from_ego
    distance = math.sqrt(x * x + y * y + z * z)
    sx, sy = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z, m[1, 0] * x + m[1, 1] * y + m[1, 2] * z
    away = math.sqrt(sx * sx + sy * sy)
    out[0], out[1] = math.atan2(sy, sx), np.float32(math.pi)
    out[2] = max(distance - radius, np.float32(0.0)) * np.float32(0.9999)
    low, high, margin = np.float32(-1e9), np.float32(1e9), np.float32(1e-4)
    if distance > radius * np.float32(1.01):
        angle = math.asin(radius / distance) + margin
        elevation = math.atan2(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z, away)
        if elevation - angle > np.float32(-1.5):
            low = math.tan(elevation - angle)
        if elevation + angle < np.float32(1.5):
            high = math.tan(elevation + angle)
        if away > radius * np.float32(1.01):
            out[1] = math.asin(radius / away) + margin
    return _first_below(slopes, high, False), _first_below(slopes, low, True)


@njit(**INLINE)
def _sweep_bounds(box, origin, lidar_from_ego, upright, reach, slopes, out):
    """Beams (first, end) that may meet a box, none if it is beyond reach.

    out: azimuth of the middle and half width in the sensor's frame, and the nearest range that the box can have.
    """
    x, y, z = box[CX] - origin[0], box[CY] - origin[1], box[CZ] - origin[2]
    hx, hy, hz = box[HX], box[HY], box[HZ]
    square, round_square = x * x + y * y, hx * hx + hy * hy + hz * hz
    # Whether the distance exceeds reach by more than the radius, without a root: (a + b)^2 is at most 2 (a^2 + b^2).
    if square + z * z > np.float32(2.0) * (reach * reach + round_square):
        return 0, 0
    radius = math.sqrt(round_square)
    if math.sqrt(square + z * z) - radius > reach:
        return 0, 0
    if not upright:
        return _tilted_bounds(x, y, z, radius, lidar_from_ego, slopes, out)
    # Nearest and farthest horizontal distance of the box's rectangle, from the sensor in the box's own frame.
    zero, margin = np.float32(0.0), np.float32(1e-4)
    ox, oy = abs(box[COS] * x + box[SIN] * y), abs(box[COS] * y - box[SIN] * x)
    near_x, near_y = max(ox - hx, zero), max(oy - hy, zero)
    nearest = math.sqrt(near_x * near_x + near_y * near_y)
    high, low = z + hz, z - hz
    close = max(nearest, np.float32(1e-4))
    farthest = np.float32(1.0)
    if (low > zero) | (high < zero):
        farthest = math.sqrt((ox + hx) * (ox + hx) + (oy + hy) * (oy + hy))
    first = _first_below(slopes, high / (close if high > zero else farthest) + margin, False)
    end = _first_below(slopes, low / (close if low < zero else farthest) - margin, True)
    if first >= end:
        return 0, 0
    m = lidar_from_ego
    out[0] = arc(m[1, 0] * x + m[1, 1] * y, m[0, 0] * x + m[0, 1] * y)
    out[1], out[2] = np.float32(math.pi), nearest * np.float32(0.9999)
    if nearest > zero:
        # Half width: the largest angle between the middle and a corner, by cross and dot product.
        widest = zero
        for k in range(4):
            cx, cy = hx if k & 1 else -hx, hy if k & 2 else -hy
            px, py = x + box[COS] * cx - box[SIN] * cy, y + box[SIN] * cx + box[COS] * cy
            cross, dot = abs(x * py - y * px), x * px + y * py
            widest = max(widest, cross / dot if dot > zero else np.float32(1e9))
        # At more than 60 degrees, rounding and corners behind the sensor make the tangent useless.
        if widest < np.float32(1.7):
            out[1] = arc(widest, np.float32(1.0)) + np.float32(2.0 * ARC_ERROR) + margin
    return first, end


@njit(**FAST)
def cast_sweep(
    boxes, order, count, origin, lidar_from_ego, upright, reach, slopes, first_azimuth, azimuth_step, azimuth_spread,
    dx, dy, dz, depth, code, bounds,
):  # fmt: skip
    """Cast boxes[order[:count]] into a grid of beams x columns; everything in ego, float32.

    slopes (beams,): tangents of the elevations, falling; column c looks at first_azimuth + c * azimuth_step, radians
    in the sensor's frame, give or take azimuth_spread. Boxes further away than reach are left out.
    upright: whether the sensor's z axis is that of the ego (then bounds are tight). dx, dy, dz (beams, columns): unit
    directions in ego; depth is the range. code as in `camera.cast_camera`.
    """
    columns = depth.shape[1]
    for place in range(count):
        k = box_of_rank(boxes, order, place, count)
        box = boxes[k]
        first, end = _sweep_bounds(box, origin, lidar_from_ego, upright, reach, slopes, bounds)
        if first >= end:
            continue
        low = math.ceil((bounds[0] - bounds[1] - azimuth_spread - first_azimuth) / azimuth_step)
        high = math.floor((bounds[0] + bounds[1] + azimuth_spread - first_azimuth) / azimuth_step) + 1
        per_turn = round(TWO_PI / azimuth_step)
        if high - low >= per_turn:
            low, high = 0, per_turn
        # Where columns begin anywhere and a box may wrap around, two turns either way are needed.
        for turn in range(-2, 3):
            c0, c1 = max(0, low + turn * per_turn), min(columns, high + turn * per_turn)
            if c1 <= c0:
                continue
            cast_solid(depth, code, dx, dy, dz, first, end, c0, c1, bounds[2], origin, box, np.int32(4 * k))


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
