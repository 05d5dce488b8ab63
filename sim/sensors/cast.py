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
from sim.lanes import (
    WIDTH,
    all_lanes,
    any_lane,
    first_false,
    greatest,
    largest,
    least,
    load2,
    signs,
    smallest,
    splat,
    sqrt,
    store2,
    where,
)  # fmt: skip
from sim.solids import Shape

# What LLVM may do to floats: ignore the sign of zero, no more. Where it may contract or reassociate, the last bits of a result
# depend on what a function is inlined into, and a process that has just compiled its kernels runs other copies than one that
# found them in the cache. The slab test needs infinities and NaN. Kernels run without numba's reference counts (`_nrt`, an
# option that numba keeps for itself): they own no array, and counting every view of a row, atomically, took half of the
# caster's time. What such a kernel returns must hold no array: nobody would have counted it.
ROUNDING_FREEDOM = {"nsz"}
FAST: dict[str, Any] = {"cache": True, "_nrt": False, "fastmath": ROUNDING_FREEDOM, "error_model": "numpy"}
FAST_PARALLEL: dict[str, Any] = {**FAST, "_nrt": True, "parallel": True}
# For what only kernels call: no wrappers for Python, which take long to compile.
INNER: dict[str, Any] = {**FAST, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# For what runs once for each solid or each eight rays: a call would hand over some fifty numbers, since an array is nine of them.
INLINE: dict[str, Any] = {**INNER, "forceinline": True}

NEAR = np.float32(0.05)
FAR_M = np.float32(1e6)  # depth of a ray that meets nothing
# Codes of what is no box.
GROUND = np.int32(-1)
SKY = np.int32(-2)
TWO_PI = np.float32(2 * math.pi)
ARC_ERROR = 3e-4  # of `arc`, radians; a column of the finest LiDAR is ten times as wide

# Columns of a box in the ego frame: centre, half size, cosine and sine of its yaw, `Shape`.
CX, CY, CZ, HX, HY, HZ, COS, SIN, SHAPE = range(9)
BOX_COLUMNS = 9
# The face that a code can name beside those across x, y and z: the curved one, or the slope of a wedge.
CURVED = 3
_BOX, _CYLINDER, _WHEEL, _ELLIPSOID = int(Shape.BOX), int(Shape.CYLINDER), int(Shape.WHEEL), int(Shape.ELLIPSOID)


@njit(**FAST)
def cast_ground(origin, dz, depth, code):
    """Fill depth and code (rows, columns) with where rays from origin (3,) meet the ground z = 0, or the sky.

    This and all kernels after it take eight neighbours at once: at least that many columns are needed.
    """
    assert dz.shape[1] >= WIDTH
    height, last = -origin[2], dz.shape[1] - WIDTH
    for v in range(dz.shape[0]):
        for u in range(0, dz.shape[1], WIDTH):
            c = min(u, last)
            slope = load2(dz, v, c)
            down = slope < np.float32(-1e-6)
            store2(depth, v, c, where(down, height / slope, FAR_M))
            store2(code, v, c, where(down, splat(GROUND), SKY))


@njit(**INLINE)
def slab(half, o, per):
    """Where eight rays enter and leave the slab |x| <= half; o: where they start, per: one over their speed across it.

    Kay and Kajiya 1986. A ray that runs along the slab has infinities (or no numbers, where it starts on its side), which
    comparisons then sort out.
    """
    a, b = (-half - o) * per, (half - o) * per
    return least(a, b), greatest(a, b)


@njit(**INLINE)
def _keep(depth, code, v, c, old, t, hit, face):
    """Keep the nearer of what was there and what was hit."""
    if any_lane(hit):
        store2(depth, v, c, where(hit, t, old))
        store2(code, v, c, where(hit, face, load2(code, v, c)))


@njit(**INLINE)
def _cast_box(depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code):
    """Keep the nearest hits of one box in a rectangle of rays; returns whether any was open to it.

    o is the ray origin in the box's frame. The axis whose slab is entered last is the face that is seen.
    """
    one, last, is_open = np.float32(1.0), depth.shape[1] - WIDTH, False
    for v in range(v0, v1):
        for u in range(u0, u1, WIDTH):
            c = min(u, last)
            old = load2(depth, v, c)
            if not any_lane(old > nearest):
                continue
            is_open = True
            x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
            near_x, far_x = slab(hx, ox, one / (cos_yaw * x + sin_yaw * y))
            near_y, far_y = slab(hy, oy, one / (cos_yaw * y - sin_yaw * x))
            near_z, far_z = slab(hz, oz, one / z)
            near = greatest(near_x, near_y)
            face = where(near_x > near_y, splat(box_code), box_code + np.int32(1))
            face = where(near > near_z, face, box_code + np.int32(2))
            near, far = greatest(near, near_z), least(least(far_x, far_y), far_z)
            t = where(near > NEAR, near, far)
            _keep(depth, code, v, c, old, t, (near <= far) & (t > NEAR) & (t < old), face)
    return is_open


@njit(**INLINE)
def _cast_wedge(depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code):
    """The same for a wedge: the box's slabs, and the half space below its slope."""
    one, zero, last, is_open = np.float32(1.0), np.float32(0.0), depth.shape[1] - WIDTH, False
    px, pz = one / hx, one / hz
    above = ox * px + oz * pz
    for v in range(v0, v1):
        for u in range(u0, u1, WIDTH):
            c = min(u, last)
            old = load2(depth, v, c)
            if not any_lane(old > nearest):
                continue
            is_open = True
            x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
            along = cos_yaw * x + sin_yaw * y
            near_x, far_x = slab(hx, ox, one / along)
            near_y, far_y = slab(hy, oy, one / (cos_yaw * y - sin_yaw * x))
            near_z, far_z = slab(hz, oz, one / z)
            rise = along * px + z * pz
            slope = -above / rise
            near = greatest(near_x, near_y)
            face = where(near_x > near_y, splat(box_code), box_code + np.int32(1))
            face = where(near > near_z, face, box_code + np.int32(2))
            near, far = greatest(near, near_z), least(least(far_x, far_y), far_z)
            entering = (rise < zero) & (slope > near)
            face, near = where(entering, box_code + np.int32(CURVED), face), where(entering, slope, near)
            far = where((rise > zero) & (slope < far), slope, far)
            t = where(near > NEAR, near, far)
            _keep(depth, code, v, c, old, t, (near <= far) & (t > NEAR) & (t < old), face)
    return is_open


@njit(**INLINE)
def _cast_round(
    depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, upright, box_code
):  # fmt: skip
    """The same for a cylinder, upright or (a wheel) along y.

    In coordinates in which its cross-section is the unit circle, a ray passes the axis at |o x d| / |d|: in that form, unlike
    in that of the quadratic formula, float32 is good enough for something thin that is far away.
    """
    one, zero, last, is_open = np.float32(1.0), np.float32(0.0), depth.shape[1] - WIDTH, False
    sx, sy, sz = one / hx, one / hy, one / hz
    side = sy if upright else sz
    ou, ov = ox * sx, (oy * sy if upright else oz * sz)
    ow, half = (oz, hz) if upright else (oy, hy)
    cap, round_face = box_code + np.int32(2 if upright else 1), box_code + np.int32(CURVED)
    for v in range(v0, v1):
        for u in range(u0, u1, WIDTH):
            c = min(u, last)
            old = load2(depth, v, c)
            if not any_lane(old > nearest):
                continue
            is_open = True
            x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
            across = cos_yaw * y - sin_yaw * x
            du = (cos_yaw * x + sin_yaw * y) * sx
            dv, dw = (across, z) if upright else (z, across)
            dv = dv * side
            a = greatest(du * du + dv * dv, np.float32(1e-12))
            cross = ou * dv - ov * du
            room = a - cross * cross
            if not any_lane(room > zero):
                continue
            root, middle, per = sqrt(greatest(room, zero)), -(ou * du + ov * dv), one / a
            near, far = (middle - root) * per, (middle + root) * per
            near_w, far_w = slab(half, ow, one / dw)
            face = where(near > near_w, splat(round_face), cap)
            near, far = greatest(near, near_w), least(far, far_w)
            t = where(near > NEAR, near, far)
            _keep(depth, code, v, c, old, t, (room > zero) & (near <= far) & (t > NEAR) & (t < old), face)
    return is_open


@njit(**INLINE)
def _cast_ellipsoid(
    depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code
):  # fmt: skip
    """The same for an ellipsoid: the unit ball in coordinates in which it is one."""
    one, zero, last, is_open = np.float32(1.0), np.float32(0.0), depth.shape[1] - WIDTH, False
    sx, sy, sz = one / hx, one / hy, one / hz
    ou, ov, ow = ox * sx, oy * sy, oz * sz
    face = splat(box_code + np.int32(CURVED))
    for v in range(v0, v1):
        for u in range(u0, u1, WIDTH):
            c = min(u, last)
            old = load2(depth, v, c)
            if not any_lane(old > nearest):
                continue
            is_open = True
            x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
            du, dv, dw = (cos_yaw * x + sin_yaw * y) * sx, (cos_yaw * y - sin_yaw * x) * sy, z * sz
            a = du * du + dv * dv + dw * dw
            cu, cv, cw = ov * dw - ow * dv, ow * du - ou * dw, ou * dv - ov * du
            room = a - (cu * cu + cv * cv + cw * cw)
            if not any_lane(room > zero):
                continue
            root, middle, per = sqrt(greatest(room, zero)), -(ou * du + ov * dv + ow * dw), one / a
            near, far = (middle - root) * per, (middle + root) * per
            t = where(near > NEAR, near, far)
            _keep(depth, code, v, c, old, t, (room > zero) & (t > NEAR) & (t < old), face)
    return is_open


@njit(**INLINE)
def end_of_run(code, v, u, hit):
    """The first column after u of row v that does not hold this code."""
    end, columns = u + 1, code.shape[1]
    while end + WIDTH <= columns:
        same = first_false(load2(code, v, end) == hit)
        end += same
        if same < WIDTH:
            return end
    while end < columns and code[v, end] == hit:
        end += 1
    return end


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


@njit(**INLINE)
def cast_solid(depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, origin, box, box_code):
    """Keep the nearest hits of one solid in rows v0 to v1, columns u0 to u1; returns whether any ray was open to it.

    Eight neighbours at a time, which are passed over if all end before `nearest`, in the unit of depth: no ray meets the solid
    nearer than that.
    """
    cos_yaw, sin_yaw, hx, hy, hz = box[COS], box[SIN], box[HX], box[HY], box[HZ]
    shape = np.int32(box[SHAPE])
    x, y, oz = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
    ox, oy = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
    nearest = nearest if nearest > NEAR else np.float32(-1.0)
    if shape == _BOX:
        return _cast_box(
            depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code
        )  # fmt: skip
    if (shape == _CYLINDER) | (shape == _WHEEL):
        return _cast_round(
            depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, shape == _CYLINDER,
            box_code,
        )  # fmt: skip
    if shape == _ELLIPSOID:
        return _cast_ellipsoid(
            depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code
        )  # fmt: skip
    return _cast_wedge(
        depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code
    )  # fmt: skip


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
def nearest_corner(corners):
    """The smallest depth that the box can have whose corners (3, 8) `pinhole_bounds` or `distorted_bounds` wrote."""
    return smallest(load2(corners, 2, 0))


@njit(**INLINE)
def pinhole_bounds(box, origin, view, corners, out):
    """Rectangle of pixels (column, end column, row, end row) that surely holds the box; exact up to one pixel.

    Corners behind the near plane are replaced by where the edges cross it. corners: (3, 8) float32 scratch, afterwards the
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
        k = order[place]
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
