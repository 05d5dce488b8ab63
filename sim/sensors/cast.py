"""Object-order ray casting: which surface does each ray of a sensor meet first?

Knows rays, upright solids and a flat ground; knows nothing about colours, traffic or environments. Everything is in the ego
frame. The loop runs over solids, not over rays: a solid is tested only against the rectangle of rays that surely holds its
box, a vector of neighbours at a time. Unless it says otherwise, "box" means a solid in its box.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

import sim.numba_setup  # noqa: F401 (chooses the threading layer)
from sim.simd import WIDTH, any_lane, fma, greatest, lane_numbers, least, splat, sqrt, where
from sim.simd_memory import load2, load_rows, prefetch, store2
from sim.solids import Shape

# What LLVM may do to floats: ignore the sign of zero, no more. Where it may contract or reassociate, the last bits of a result
# depend on what a function is inlined into, and a process that has just compiled its kernels runs other copies than one that
# found them in the cache. The slab test needs infinities and NaN. Kernels run without numba's reference counts (`_nrt`, an
# option that numba keeps for itself): they own no array, and counting every view of a row, atomically, took half of the
# caster's time. What such a kernel returns must hold no array: nobody would have counted it.
ROUNDING_FREEDOM = {"nsz"}
FAST: dict[str, Any] = {"cache": True, "_nrt": False, "fastmath": ROUNDING_FREEDOM, "error_model": "numpy"}
# For `threads.over_environments`.
UNLOCKED: dict[str, Any] = {**FAST, "nogil": True}
# For what runs once for each solid or each sixteen rays: a call would hand over some fifty numbers, since an array is nine of
# them. Only kernels call these, so they need no wrappers for Python, which take long to compile.
INLINE: dict[str, Any] = {**FAST, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

NEAR = np.float32(0.05)
FAR_M = np.float32(1e6)  # depth of a ray that meets nothing
# Codes of what is no box.
GROUND = np.int32(-1)
SKY = np.int32(-2)

# Columns of a box in the ego frame: centre, half size, cosine and sine of its yaw, `Shape`.
CX, CY, CZ, HX, HY, HZ, COS, SIN, SHAPE = range(9)  # of a box; lanes are made of all but the last
BOX_COLUMNS = 9
AHEAD = 16  # ranks; by then memory has answered
# The face that a code can name beside those across x, y and z: the curved one, or the slope of a wedge.
CURVED = 3
_BOX, _CYLINDER, _WHEEL, _ELLIPSOID = int(Shape.BOX), int(Shape.CYLINDER), int(Shape.WHEEL), int(Shape.ELLIPSOID)


@njit(**FAST)
def cast_ground(origin, dz, depth, code):
    """Fill depth and code (rows, columns) with where rays from origin (3,) meet the ground z = 0, or the sky.

    This and all kernels after it take a vector of neighbours at once: at least that many columns are needed.
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
def boxes_of_ranks(boxes, order, rank, count):
    """Columns CX to SIN, as lanes, of the boxes with ranks rank to rank + 15, and which of these there are.

    Boxes lie in memory in another order, so those that come later are asked for now.
    """
    for k in range(rank + AHEAD, min(rank + AHEAD + WIDTH, count)):
        prefetch(boxes, order[k])
    return load_rows(boxes, order, rank, count), lane_numbers() < np.int32(count - rank)


@njit(**INLINE)
def slab(half, o, per):
    """Where sixteen rays enter and leave the slab |x| <= half; o: where they start, per: one over their speed across it.

    Kay and Kajiya 1986. A ray that runs along the slab has infinities (or no numbers, where it starts on its side), which
    comparisons then sort out.
    """
    a, b = (-half - o) * per, (half - o) * per
    return least(a, b), greatest(a, b)


@njit(**INLINE)
def _keep(depth, code, v, c, old, t, hit, face):
    """Keep the nearer of what was there and what was hit; returns whether anything was."""
    store2(depth, v, c, where(hit, t, old))
    store2(code, v, c, where(hit, face, load2(code, v, c)))
    return any_lane(hit)


@njit(**INLINE)
def _cast_box(depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code):
    """Keep the nearest hits of one box in a rectangle of rays; returns whether any met it.

    o is the ray origin in the box's frame. The axis whose slab is entered last is the face that is seen.
    """
    one, last, seen = np.float32(1.0), depth.shape[1] - WIDTH, False
    for v in range(v0, v1):
        for u in range(u0, u1, WIDTH):
            c = min(u, last)
            old = load2(depth, v, c)
            if not any_lane(old > nearest):
                continue
            x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
            near_x, far_x = slab(hx, ox, one / fma(x, cos_yaw, sin_yaw * y))
            near_y, far_y = slab(hy, oy, one / fma(y, cos_yaw, -sin_yaw * x))
            near_z, far_z = slab(hz, oz, one / z)
            near = greatest(near_x, near_y)
            face = where(near_x > near_y, splat(box_code), box_code + np.int32(1))
            face = where(near > near_z, face, box_code + np.int32(2))
            near, far = greatest(near, near_z), least(least(far_x, far_y), far_z)
            t = where(near > NEAR, near, far)
            seen |= _keep(depth, code, v, c, old, t, (near <= far) & (t > NEAR) & (t < old), face)
    return seen


@njit(**INLINE)
def _cast_wedge(depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code):
    """The same for a wedge: the box's slabs, and the half space below its slope."""
    one, zero, last, seen = np.float32(1.0), np.float32(0.0), depth.shape[1] - WIDTH, False
    px, pz = one / hx, one / hz
    above = ox * px + oz * pz
    for v in range(v0, v1):
        for u in range(u0, u1, WIDTH):
            c = min(u, last)
            old = load2(depth, v, c)
            if not any_lane(old > nearest):
                continue
            x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
            along = fma(x, cos_yaw, sin_yaw * y)
            near_x, far_x = slab(hx, ox, one / along)
            near_y, far_y = slab(hy, oy, one / fma(y, cos_yaw, -sin_yaw * x))
            near_z, far_z = slab(hz, oz, one / z)
            rise = fma(along, px, z * pz)
            slope = -above / rise
            near = greatest(near_x, near_y)
            face = where(near_x > near_y, splat(box_code), box_code + np.int32(1))
            face = where(near > near_z, face, box_code + np.int32(2))
            near, far = greatest(near, near_z), least(least(far_x, far_y), far_z)
            entering = (rise < zero) & (slope > near)
            face, near = where(entering, box_code + np.int32(CURVED), face), where(entering, slope, near)
            far = where((rise > zero) & (slope < far), slope, far)
            t = where(near > NEAR, near, far)
            seen |= _keep(depth, code, v, c, old, t, (near <= far) & (t > NEAR) & (t < old), face)
    return seen


@njit(**INLINE)
def _cast_round(
    depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, upright, box_code
):  # fmt: skip
    """The same for a cylinder, upright or (a wheel) along y.

    In coordinates in which its cross-section is the unit circle, a ray passes the axis at |o x d| / |d|: in that form, unlike
    in that of the quadratic formula, float32 is good enough for something thin that is far away.
    """
    one, zero, last, seen = np.float32(1.0), np.float32(0.0), depth.shape[1] - WIDTH, False
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
            x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
            across = fma(y, cos_yaw, -sin_yaw * x)
            du = fma(x, cos_yaw, sin_yaw * y) * sx
            dv, dw = (across, z) if upright else (z, across)
            dv = dv * side
            a = greatest(fma(du, du, dv * dv), np.float32(1e-12))
            cross = fma(dv, ou, -ov * du)
            room = fma(-cross, cross, a)
            if not any_lane(room > zero):
                continue
            root, middle, per = sqrt(greatest(room, zero)), fma(du, -ou, -ov * dv), one / a
            near, far = (middle - root) * per, (middle + root) * per
            near_w, far_w = slab(half, ow, one / dw)
            face = where(near > near_w, splat(round_face), cap)
            near, far = greatest(near, near_w), least(far, far_w)
            t = where(near > NEAR, near, far)
            seen |= _keep(depth, code, v, c, old, t, (room > zero) & (near <= far) & (t > NEAR) & (t < old), face)
    return seen


@njit(**INLINE)
def _cast_ellipsoid(
    depth, code, dx, dy, dz, v0, v1, u0, u1, nearest, ox, oy, oz, cos_yaw, sin_yaw, hx, hy, hz, box_code
):  # fmt: skip
    """The same for an ellipsoid: the unit ball in coordinates in which it is one."""
    one, zero, last, seen = np.float32(1.0), np.float32(0.0), depth.shape[1] - WIDTH, False
    sx, sy, sz = one / hx, one / hy, one / hz
    ou, ov, ow = ox * sx, oy * sy, oz * sz
    face = splat(box_code + np.int32(CURVED))
    for v in range(v0, v1):
        for u in range(u0, u1, WIDTH):
            c = min(u, last)
            old = load2(depth, v, c)
            if not any_lane(old > nearest):
                continue
            x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
            du, dv, dw = fma(x, cos_yaw, sin_yaw * y) * sx, fma(y, cos_yaw, -sin_yaw * x) * sy, z * sz
            a = fma(du, du, fma(dv, dv, dw * dw))
            cu, cv, cw = fma(dw, ov, -ow * dv), fma(du, ow, -ou * dw), fma(dv, ou, -ov * du)
            room = a - fma(cu, cu, fma(cv, cv, cw * cw))
            if not any_lane(room > zero):
                continue
            root, middle, per = sqrt(greatest(room, zero)), fma(du, -ou, fma(dv, -ov, -ow * dw)), one / a
            near, far = (middle - root) * per, (middle + root) * per
            t = where(near > NEAR, near, far)
            seen |= _keep(depth, code, v, c, old, t, (room > zero) & (t > NEAR) & (t < old), face)
    return seen


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
    """Keep the nearest hits of one solid in rows v0 to v1, columns u0 to u1; returns whether any was, until now.

    Sixteen neighbours at a time, which are passed over if all end before `nearest`, in the unit of depth: no ray meets the solid
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
