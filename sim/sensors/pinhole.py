"""What a pinhole camera sees of a box: whether it may be in the picture, and where.

Knows boxes in the ego frame and intrinsics; knows nothing about other lenses, rays or colours.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.sensors.cast import COS, CX, CY, CZ, FAST, HX, HY, HZ, INLINE, NEAR, SIN
from sim.simd import all_lanes, any_lane, fma, largest, signs, smallest, where
from sim.simd_memory import load2, store2


@njit(**FAST)
def pinhole_view(camera_from_ego, intrinsics, rows, columns):
    """What culling needs to know of a camera: rows of its rotation (3, 3), intrinsics (4,) fx fy cx cy, size, then its sides.

    A side is its tangent and one over its cosine, which is how far a sphere of radius 1 may stick out of it.
    """
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    one = np.float32(1.0)
    left, right = (cx + one) / fx, (np.float32(columns) - cx) / fx
    top, bottom = (cy + one) / fy, (np.float32(rows) - cy) / fy
    m = camera_from_ego
    rotation = (m[0, 0], m[0, 1], m[0, 2], m[1, 0], m[1, 1], m[1, 2], m[2, 0], m[2, 1], m[2, 2])
    tangents = (left, right, top, bottom)
    reach = (
        np.float32(math.sqrt(one + left * left)), np.float32(math.sqrt(one + right * right)),
        np.float32(math.sqrt(one + top * top)), np.float32(math.sqrt(one + bottom * bottom)),
    )  # fmt: skip
    return rotation, (fx, fy, cx, cy), (rows, columns), tangents, reach


@njit(**INLINE)
def sphere_in_view(box, origin, view):
    """Whether a box's bounding sphere meets the view of `pinhole_view`."""
    (
        (rx, ry, rz, dx, dy, dz, fx, fy, fz),
        _,
        _,
        (left, right, top, bottom),
        (far_left, far_right, far_top, far_bottom),
    ) = view
    x, y, z = box[CX] - origin[0], box[CY] - origin[1], box[CZ] - origin[2]
    hx, hy, hz = box[HX], box[HY], box[HZ]
    radius = math.sqrt(hx * hx + hy * hy + hz * hz)
    aside, below, forward = rx * x + ry * y + rz * z, dx * x + dy * y + dz * z, fx * x + fy * y + fz * z
    out = forward < NEAR - radius
    out |= (aside + forward * left < -radius * far_left) | (aside - forward * right > radius * far_right)
    out |= (below + forward * top < -radius * far_top) | (below - forward * bottom > radius * far_bottom)
    return not out


@njit(**INLINE)
def spheres_in_view(x, y, z, radius, view):
    """Which of sixteen spheres meet the view of `pinhole_view`; x, y, z: their centres in ego, seen from the camera."""
    (
        (rx, ry, rz, dx, dy, dz, fx, fy, fz),
        _,
        _,
        (left, right, top, bottom),
        (far_left, far_right, far_top, far_bottom),
    ) = view
    aside, below = fma(x, rx, fma(y, ry, z * rz)), fma(x, dx, fma(y, dy, z * dz))
    forward = fma(x, fx, fma(y, fy, z * fz))
    seen = (forward >= NEAR - radius) & (fma(forward, left, aside) >= -far_left * radius)
    seen = seen & (fma(forward, -right, aside) <= far_right * radius)
    return (
        seen & (fma(forward, top, below) >= -far_top * radius) & (fma(forward, -bottom, below) <= far_bottom * radius)
    )


@njit(**INLINE)
def nearest_corner(corners):
    """The smallest depth that the box can have whose corners (3, WIDTH) `pinhole_bounds` or `distorted_bounds` wrote."""
    return smallest(load2(corners, 2, 0))


@njit(**INLINE)
def pinhole_bounds(box, origin, view, corners, out):
    """Rectangle of pixels (column, end column, row, end row) that surely holds the box; exact up to one pixel.

    Corners behind the near plane are replaced by where the edges cross it. corners: (3, WIDTH) float32 scratch, afterwards the
    corners in the camera's frame. Returns False if the box is out of the picture.
    """
    (m00, m01, m02, m10, m11, m12, m20, m21, m22), (fx, fy, cx, cy), (rows, columns), _, _ = view
    x, y, z = box[CX] - origin[0], box[CY] - origin[1], box[CZ] - origin[2]
    sx, sy = box[HX] * signs(1), box[HY] * signs(2)
    px, py = x + box[COS] * sx - box[SIN] * sy, y + box[SIN] * sx + box[COS] * sy
    pz = z + box[HZ] * signs(4)
    ahead = m20 * px + m21 * py + m22 * pz
    aside, below = m00 * px + m01 * py + m02 * pz, m10 * px + m11 * py + m12 * pz
    store2(corners, 0, 0, aside)
    store2(corners, 1, 0, below)
    store2(corners, 2, 0, ahead)
    shown = ahead >= NEAR
    if not any_lane(shown):
        return False
    per_depth = np.float32(1.0) / ahead
    u, v = fx * aside * per_depth + cx, fy * below * per_depth + cy
    far = np.float32(1e9)
    low_u, high_u = smallest(where(shown, u, far)), largest(where(shown, u, -far))
    low_v, high_v = smallest(where(shown, v, far)), largest(where(shown, v, -far))
    if not all_lanes(shown):
        for k in range(8):
            for bit in (1, 2, 4):
                other = k | bit
                if k & bit or (corners[2, k] >= NEAR) == (corners[2, other] >= NEAR):
                    continue
                share = (NEAR - corners[2, k]) / (corners[2, other] - corners[2, k])
                at_x = corners[0, k] + share * (corners[0, other] - corners[0, k])
                at_y = corners[1, k] + share * (corners[1, other] - corners[1, k])
                edge_u, edge_v = fx * at_x / NEAR + cx, fy * at_y / NEAR + cy
                low_u, high_u = min(low_u, edge_u), max(high_u, edge_u)
                low_v, high_v = min(low_v, edge_v), max(high_v, edge_v)
    if high_u < -1 or low_u > columns or high_v < -1 or low_v > rows:
        return False
    out[0] = max(0, math.floor(max(low_u, np.float32(-2.0))))
    out[1] = min(columns, math.ceil(min(high_u, np.float32(columns + 2))) + 1)
    out[2] = max(0, math.floor(max(low_v, np.float32(-2.0))))
    out[3] = min(rows, math.ceil(min(high_v, np.float32(rows + 2))) + 1)
    return out[1] > out[0] and out[3] > out[2]


def pinhole_directions(
    intrinsics: NDArray[np.float64], ego_from_camera: NDArray[np.float64], width_px: int, height_px: int
) -> NDArray[np.float32]:
    """Ray directions (3, H, W) float32 in ego whose component along the optical axis is 1."""
    u, v = np.meshgrid(np.arange(width_px), np.arange(height_px))
    rays = np.stack([u, v, np.ones_like(u)]).reshape(3, -1).astype(np.float64)
    directions = ego_from_camera[:3, :3] @ np.linalg.inv(intrinsics) @ rays
    return np.ascontiguousarray(directions.reshape(3, height_px, width_px), np.float32)
