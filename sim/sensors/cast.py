"""Object-order ray casting: which surface does each ray of a sensor meet first?

Knows rays, upright solids and a flat ground; knows nothing about colours, traffic or environments. Everything is in the ego
frame. The loop runs over solids, not over rays: a solid is tested only against the rectangle of rays that surely holds its
box, row by row, so that a row is one vectorised loop. Unless it says otherwise, "box" means a solid in its box.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

import sim.numba_setup  # noqa: F401 (chooses the threading layer)
from sim.solids import Shape

# What LLVM may do to floats: ignore the sign of zero, no more. Where it may contract or reassociate, the last bits of a result
# depend on what a function is inlined into, and a process that has just compiled its kernels runs other copies than one that
# found them in the cache. The slab test needs infinities and NaN. Kernels run without numba's reference counts (`_nrt`, an
# option that numba keeps for itself): they own no array, and counting every view of a row, atomically, took half of the
# caster's time. What such a kernel returns must hold no array: nobody would have counted it.
ROUNDING_FREEDOM = {"nsz"}
FAST: dict[str, Any] = {"cache": True, "_nrt": False, "fastmath": ROUNDING_FREEDOM, "error_model": "numpy"}
FAST_PARALLEL: dict[str, Any] = {**FAST, "_nrt": True, "parallel": True}

NEAR = np.float32(0.05)
FAR_M = np.float32(1e6)  # depth of a ray that meets nothing
# Codes of what is no box.
GROUND = np.int32(-1)
SKY = np.int32(-2)
# Rows are widened to whole vectors: testing a few rays too many costs less than a scalar remainder.
LANES = 8
TWO_PI = np.float32(2 * math.pi)

# Columns of a box in the ego frame: centre, half size, cosine and sine of its yaw, `Shape`.
CX, CY, CZ, HX, HY, HZ, COS, SIN, SHAPE = range(9)
BOX_COLUMNS = 9
# The face that a code can name beside those across x, y and z: the curved one, or the slope of a wedge.
CURVED = 3
_BOX, _CYLINDER, _WHEEL, _ELLIPSOID = int(Shape.BOX), int(Shape.CYLINDER), int(Shape.WHEEL), int(Shape.ELLIPSOID)


@njit(**FAST)
def _ground_row(dz, height, depth, code):
    """Depth and code of one row of rays that meet nothing but the ground."""
    for i in range(dz.shape[0]):
        down = dz[i] < np.float32(-1e-6)
        depth[i] = -height / dz[i] if down else FAR_M
        code[i] = GROUND if down else SKY


@njit(**FAST)
def cast_ground(origin, dz, depth, code):
    """Fill depth and code (rows, columns) with where rays from origin (3,) meet the ground z = 0, or the sky."""
    for v in range(dz.shape[0]):
        _ground_row(dz[v], origin[2], depth[v], code[v])


@njit(**FAST)
def _cast_row(depth, code, dx, dy, dz, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code):
    """Keep the nearest hit of one box along one row of rays (1-D float32 slices; depth and code are updated).

    o is the ray origin in the box's frame. Branch-free, so that LLVM vectorises it. Slab method, Kay and Kajiya 1986;
    the axis whose slab is entered last is the face that is seen.
    """
    one = np.float32(1.0)
    for i in range(depth.shape[0]):
        along, across = cos_yaw * dx[i] + sin_yaw * dy[i], cos_yaw * dy[i] - sin_yaw * dx[i]
        rx = one / along
        ry = one / across
        rz = one / dz[i]
        x0, x1 = (-hx - ox) * rx, (hx - ox) * rx
        y0, y1 = (-hy - oy) * ry, (hy - oy) * ry
        z0, z1 = (-hz - oz) * rz, (hz - oz) * rz
        near_x, far_x = (x0, x1) if x0 < x1 else (x1, x0)
        near_y, far_y = (y0, y1) if y0 < y1 else (y1, y0)
        near_z, far_z = (z0, z1) if z0 < z1 else (z1, z0)
        near = near_x if near_x > near_y else near_y
        axis = np.int32(0) if near_x > near_y else np.int32(1)
        axis = axis if near > near_z else np.int32(2)
        near = near if near > near_z else near_z
        far = far_x if far_x < far_y else far_y
        far = far if far < far_z else far_z
        t = near if near > NEAR else far
        hit = (near <= far) & (t > NEAR) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        code[i] = box_code + axis if hit else code[i]


@njit(**FAST)
def _cast_wedge_row(depth, code, dx, dy, dz, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code):
    """The same for a wedge: the box's slabs, and the half space below its slope."""
    one = np.float32(1.0)
    px, pz = one / hx, one / hz
    above = ox * px + oz * pz
    for i in range(depth.shape[0]):
        along = cos_yaw * dx[i] + sin_yaw * dy[i]
        rx = one / along
        ry = one / (cos_yaw * dy[i] - sin_yaw * dx[i])
        rz = one / dz[i]
        x0, x1 = (-hx - ox) * rx, (hx - ox) * rx
        y0, y1 = (-hy - oy) * ry, (hy - oy) * ry
        z0, z1 = (-hz - oz) * rz, (hz - oz) * rz
        near_x, far_x = (x0, x1) if x0 < x1 else (x1, x0)
        near_y, far_y = (y0, y1) if y0 < y1 else (y1, y0)
        near_z, far_z = (z0, z1) if z0 < z1 else (z1, z0)
        rise = along * px + dz[i] * pz
        slope = -above / rise
        near = near_x if near_x > near_y else near_y
        axis = np.int32(0) if near_x > near_y else np.int32(1)
        axis = axis if near > near_z else np.int32(2)
        near = near if near > near_z else near_z
        entering = (rise < np.float32(0.0)) & (slope > near)
        axis = np.int32(CURVED) if entering else axis
        near = slope if entering else near
        far = far_x if far_x < far_y else far_y
        far = far if far < far_z else far_z
        far = slope if (rise > np.float32(0.0)) & (slope < far) else far
        t = near if near > NEAR else far
        hit = (near <= far) & (t > NEAR) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        code[i] = box_code + axis if hit else code[i]


@njit(**FAST)
def _cast_round_row(depth, code, dx, dy, dz, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, upright, box_code):
    """The same for a cylinder, upright or (a wheel) along y.

    In coordinates in which its cross-section is the unit circle, a ray passes the axis at |o x d| / |d|: in that form, unlike
    in that of the quadratic formula, float32 is good enough for something thin that is far away.
    """
    one, zero = np.float32(1.0), np.float32(0.0)
    sx, sy, sz = one / hx, one / hy, one / hz
    side = sy if upright else sz
    ou, ov = ox * sx, (oy * sy if upright else oz * sz)
    ow, half = (oz, hz) if upright else (oy, hy)
    cap = np.int32(2) if upright else np.int32(1)
    for i in range(depth.shape[0]):
        across = cos_yaw * dy[i] - sin_yaw * dx[i]
        du = (cos_yaw * dx[i] + sin_yaw * dy[i]) * sx
        dv = (across if upright else dz[i]) * side
        rw = one / (dz[i] if upright else across)
        a = du * du + dv * dv
        a = a if a > np.float32(1e-12) else np.float32(1e-12)
        cross = ou * dv - ov * du
        room = a - cross * cross
        root = math.sqrt(room if room > zero else zero)
        middle, per = -(ou * du + ov * dv), one / a
        near, far = (middle - root) * per, (middle + root) * per
        w0, w1 = (-half - ow) * rw, (half - ow) * rw
        near_w, far_w = (w0, w1) if w0 < w1 else (w1, w0)
        axis = np.int32(CURVED) if near > near_w else cap
        near = near if near > near_w else near_w
        far = far if far < far_w else far_w
        t = near if near > NEAR else far
        hit = (room > zero) & (near <= far) & (t > NEAR) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        code[i] = box_code + axis if hit else code[i]


@njit(**FAST)
def _cast_ellipsoid_row(depth, code, dx, dy, dz, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code):
    """The same for an ellipsoid: the unit ball in coordinates in which it is one."""
    one, zero = np.float32(1.0), np.float32(0.0)
    sx, sy, sz = one / hx, one / hy, one / hz
    ou, ov, ow = ox * sx, oy * sy, oz * sz
    for i in range(depth.shape[0]):
        du = (cos_yaw * dx[i] + sin_yaw * dy[i]) * sx
        dv = (cos_yaw * dy[i] - sin_yaw * dx[i]) * sy
        dw = dz[i] * sz
        a = du * du + dv * dv + dw * dw
        cu, cv, cw = ov * dw - ow * dv, ow * du - ou * dw, ou * dv - ov * du
        room = a - (cu * cu + cv * cv + cw * cw)
        root = math.sqrt(room if room > zero else zero)
        middle, per = -(ou * du + ov * dv + ow * dw), one / a
        near, far = (middle - root) * per, (middle + root) * per
        t = near if near > NEAR else far
        hit = (room > zero) & (t > NEAR) & (t < depth[i])
        depth[i] = t if hit else depth[i]
        code[i] = box_code + np.int32(CURVED) if hit else code[i]


@njit(**FAST)
def normal_weights(box):
    """Weights of a curved solid's normal at a point p of its surface, in its own frame: n is (wx px, wy py, wz pz)."""
    one, zero = np.float32(1.0), np.float32(0.0)
    shape = np.int32(box[SHAPE])
    wx = one / (box[HX] * box[HX])
    wy = one / (box[HY] * box[HY]) if shape != _WHEEL else zero
    wz = one / (box[HZ] * box[HZ]) if shape != _CYLINDER else zero
    return wx, wy, wz


@njit(**FAST)
def face_normal(box, face):
    """Unit normal in ego of a flat face (code & 3), of either sign."""
    one, zero = np.float32(1.0), np.float32(0.0)
    if face == 0:
        return box[COS], box[SIN], zero
    if face == 1:
        return -box[SIN], box[COS], zero
    if face == 2:
        return zero, zero, one
    along, up = one / box[HX], one / box[HZ]
    per = one / math.sqrt(along * along + up * up)
    return box[COS] * along * per, box[SIN] * along * per, up * per


@njit(**FAST)
def _all_nearer(depth, nearest):
    """Whether every ray of a row already ends before `nearest`, so that a box beyond it cannot be seen."""
    open_rays = 0
    for i in range(depth.shape[0]):
        open_rays += 1 if depth[i] > nearest else 0
    return open_rays == 0


@njit(**FAST)
def cast_solid(depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, origin, box, box_code):
    """Keep the nearest hits of one solid in rows v0 to v1, columns u0 to u1; returns whether any row was open to it.

    A row is not if all its rays end before `nearest`, in the unit of depth.
    """
    cos_yaw, sin_yaw, hx, hy, hz = box[COS], box[SIN], box[HX], box[HY], box[HZ]
    shape = np.int32(box[SHAPE])
    x, y, z = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
    ox, oy = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
    is_open = False
    for v in range(v0, v1):
        depths = depth[v, u0:u1]
        if nearest > NEAR and _all_nearer(depths, nearest):
            continue
        is_open = True
        codes, row_dx, row_dy, row_dz = code[v, u0:u1], dx[v, u0:u1], dy[v, u0:u1], dz[v, u0:u1]
        if shape == _BOX:
            _cast_row(depths, codes, row_dx, row_dy, row_dz, ox, oy, z, cos_yaw, sin_yaw, hx, hy, hz, box_code)
        elif (shape == _CYLINDER) | (shape == _WHEEL):
            _cast_round_row(
                depths,
                codes,
                row_dx,
                row_dy,
                row_dz,
                ox,
                oy,
                z,
                cos_yaw,
                sin_yaw,
                hx,
                hy,
                hz,
                shape == _CYLINDER,
                box_code,
            )
        elif shape == _ELLIPSOID:
            _cast_ellipsoid_row(
                depths, codes, row_dx, row_dy, row_dz, ox, oy, z, cos_yaw, sin_yaw, hx, hy, hz, box_code
            )
        else:
            _cast_wedge_row(depths, codes, row_dx, row_dy, row_dz, ox, oy, z, cos_yaw, sin_yaw, hx, hy, hz, box_code)
    return is_open


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


@njit(**FAST)
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


@njit(**FAST)
def pinhole_bounds(box, origin, view, corners, out):
    """Rectangle of pixels (column, end column, row, end row) that surely holds the box; exact up to one pixel.

    Corners behind the near plane are replaced by where the edges cross it. corners: (8, 3) float32 scratch, afterwards the
    corners in the camera's frame. Returns False if the box is out of the picture.
    """
    (m00, m01, m02, m10, m11, m12, m20, m21, m22), (fx, fy, cx, cy), (rows, columns), _, _ = view
    low_u, high_u, low_v, high_v = np.float32(1e9), np.float32(-1e9), np.float32(1e9), np.float32(-1e9)
    x, y, z = box[CX] - origin[0], box[CY] - origin[1], box[CZ] - origin[2]
    behind = 0
    for k in range(8):
        sx = box[HX] if k & 1 else -box[HX]
        sy = box[HY] if k & 2 else -box[HY]
        sz = box[HZ] if k & 4 else -box[HZ]
        px = x + box[COS] * sx - box[SIN] * sy
        py = y + box[SIN] * sx + box[COS] * sy
        pz = z + sz
        ahead = m20 * px + m21 * py + m22 * pz
        corners[k, 0] = m00 * px + m01 * py + m02 * pz
        corners[k, 1] = m10 * px + m11 * py + m12 * pz
        corners[k, 2] = ahead
        if ahead >= NEAR:
            per_depth = np.float32(1.0) / ahead
            u, v = fx * corners[k, 0] * per_depth + cx, fy * corners[k, 1] * per_depth + cy
            low_u, high_u, low_v, high_v = min(low_u, u), max(high_u, u), min(low_v, v), max(high_v, v)
        else:
            behind += 1
    if behind == 8:
        return False
    if behind > 0:
        for k in range(8):
            for bit in (1, 2, 4):
                other = k | bit
                if k & bit or (corners[k, 2] >= NEAR) == (corners[other, 2] >= NEAR):
                    continue
                share = (NEAR - corners[k, 2]) / (corners[other, 2] - corners[k, 2])
                px = corners[k, 0] + share * (corners[other, 0] - corners[k, 0])
                py = corners[k, 1] + share * (corners[other, 1] - corners[k, 1])
                u, v = fx * px / NEAR + cx, fy * py / NEAR + cy
                low_u, high_u, low_v, high_v = min(low_u, u), max(high_u, u), min(low_v, v), max(high_v, v)
    if high_u < -1 or low_u > columns or high_v < -1 or low_v > rows:
        return False
    out[0] = max(0, math.floor(max(low_u, np.float32(-2.0))))
    out[1] = min(columns, math.ceil(min(high_u, np.float32(columns + 2))) + 1)
    out[2] = max(0, math.floor(max(low_v, np.float32(-2.0))))
    out[3] = min(rows, math.ceil(min(high_v, np.float32(rows + 2))) + 1)
    return out[1] > out[0] and out[3] > out[2]


@njit(**FAST)
def _sweep_bounds(box, origin, lidar_from_ego, upright, reach, out):
    """Azimuths (middle, half width), tangents of elevations (low, high) and nearest range that hold the box.

    Angles are those of the sensor's frame. Returns False if the box is beyond reach.
    """
    x, y, z = box[CX] - origin[0], box[CY] - origin[1], box[CZ] - origin[2]
    radius = math.sqrt(box[HX] * box[HX] + box[HY] * box[HY] + box[HZ] * box[HZ])
    distance = math.sqrt(x * x + y * y + z * z)
    if distance - radius > reach:
        return False
    m = lidar_from_ego
    sx, sy = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z, m[1, 0] * x + m[1, 1] * y + m[1, 2] * z
    away = math.sqrt(sx * sx + sy * sy)
    margin = np.float32(1e-4)
    out[4] = max(distance - radius, np.float32(0.0)) * np.float32(0.9999)
    out[0], out[1] = math.atan2(sy, sx), np.float32(math.pi)
    if not upright:
        out[2], out[3] = np.float32(-1e9), np.float32(1e9)
        if distance > radius * np.float32(1.01):
            angle = math.asin(radius / distance) + margin
            elevation = math.atan2(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z, away)
            if elevation - angle > np.float32(-1.5):
                out[2] = math.tan(elevation - angle)
            if elevation + angle < np.float32(1.5):
                out[3] = math.tan(elevation + angle)
            if away > radius * np.float32(1.01):
                out[1] = math.asin(radius / away) + margin
        return True
    # Nearest and farthest horizontal distance of the box's rectangle, from the sensor in the box's own frame.
    ox, oy = abs(box[COS] * x + box[SIN] * y), abs(box[COS] * y - box[SIN] * x)
    near_x, near_y = max(ox - box[HX], np.float32(0.0)), max(oy - box[HY], np.float32(0.0))
    nearest = math.sqrt(near_x * near_x + near_y * near_y)
    farthest = math.sqrt((ox + box[HX]) * (ox + box[HX]) + (oy + box[HY]) * (oy + box[HY]))
    high, low = z + box[HZ], z - box[HZ]
    close = max(nearest, np.float32(1e-4))
    out[2] = low / (close if low < 0 else farthest) - margin
    out[3] = high / (close if high > 0 else farthest) + margin
    out[4] = nearest * np.float32(0.9999)
    if nearest > 0:
        # Half width: the largest angle between the middle and a corner, by cross and dot product.
        widest = np.float32(0.0)
        for k in range(4):
            cx = box[HX] if k & 1 else -box[HX]
            cy = box[HY] if k & 2 else -box[HY]
            px, py = x + box[COS] * cx - box[SIN] * cy, y + box[SIN] * cx + box[COS] * cy
            cross, dot = abs(x * py - y * px), x * px + y * py
            widest = max(widest, cross / dot if dot > 0 else np.float32(1e9))
        # At more than 60 degrees, rounding and corners behind the sensor make the tangent useless.
        out[1] = math.atan(widest) + margin if widest < np.float32(1.7) else np.float32(math.pi)
    return True


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
    beams, columns = depth.shape
    for place in range(count):
        k = order[place]
        box = boxes[k]
        if not _sweep_bounds(box, origin, lidar_from_ego, upright, reach, bounds):
            continue
        first, last = 0, beams
        while first < beams and slopes[first] > bounds[3]:
            first += 1
        while last > first and slopes[last - 1] < bounds[2]:
            last -= 1
        if first == last:
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
            c0, c1 = (c0 // LANES) * LANES, min(columns, -(-c1 // LANES) * LANES)
            cast_solid(depth, code, dx, dy, dz, first, last, c0, c1, bounds[4], origin, box, np.int32(4 * k))


def pinhole_directions(
    intrinsics: NDArray[np.float64], ego_from_camera: NDArray[np.float64], width_px: int, height_px: int
) -> NDArray[np.float32]:
    """Ray directions (3, H, W) float32 in ego whose component along the optical axis is 1."""
    u, v = np.meshgrid(np.arange(width_px), np.arange(height_px))
    rays = np.stack([u, v, np.ones_like(u)]).reshape(3, -1).astype(np.float64)
    directions = ego_from_camera[:3, :3] @ np.linalg.inv(intrinsics) @ rays
    return np.ascontiguousarray(directions.reshape(3, height_px, width_px), np.float32)


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
