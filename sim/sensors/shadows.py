"""Where the sun is hidden: shadows of boxes on the ground, for one camera.

Knows boxes, the sun and what the camera's rays met; knows nothing about colours.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from perception.sensors import SemanticClass
from sim.sensors.camera import in_cone, rectangle_of
from sim.sensors.cast import COS, CX, CY, CZ, FAST, GROUND, HX, HY, HZ, INLINE, SHAPE, SIN, boxes_of_ranks, slab
from sim.sensors.parts import BIN_M, MATERIAL, SEMANTIC
from sim.simd import (
    WIDTH,
    all_lanes,
    any_lane,
    fma,
    greatest,
    lane,
    least,
    lowest_bit,
    mask_bits,
    splat,
    sqrt,
    to_int,
    where,
)
from sim.simd_memory import load2, store2
from sim.solids import Material, Shape

_BOX, _CYLINDER, _WHEEL, _WEDGE = int(Shape.BOX), int(Shape.CYLINDER), int(Shape.WHEEL), int(Shape.WEDGE)
_ELLIPSOID = int(Shape.ELLIPSOID)
_RUBBER, _VEHICLE, _TWO_WHEELER = int(Material.RUBBER), int(SemanticClass.VEHICLE), int(SemanticClass.TWO_WHEELER)
SUNNY, SHADOW = np.uint8(255), np.uint8(0)
OPEN = np.uint8(255)  # of the sky, where nothing stands near
CONTACT_RANGE_M = np.float32(45.0)
SHADOW_RANGE_M = np.float32(60.0)


@njit(**INLINE)
def _sunny_ground(shade, code, v, c):
    """Which of sixteen pixels are ground that the sun still reaches."""
    return (load2(code, v, c) == GROUND) & (load2(shade, v, c) != np.int32(SHADOW))


@njit(**INLINE)
def _darken(shade, v, c, hidden):
    if any_lane(hidden):
        store2(shade, v, c, where(hidden, np.int32(SHADOW), load2(shade, v, c)))


@njit(**INLINE)
def _finite_inverse(x):
    """One over a component of a unit vector, of one that is too small over something small."""
    return np.float32(1.0) / (x if abs(x) > np.float32(1e-6) else np.float32(1e-6))


@njit(**INLINE)
def _box_shadow(shade, code, depth, dx, dy, bounds, ax, ay, cos_yaw, sin_yaw, hx, hy, z0, z1, rx, ry, rz):
    """Darken the ground pixels of a rectangle from which the sun is hidden by a box.

    a is the sensor's foot in the box's frame; z0 and z1 are the heights of its lower and upper side; r is one over the
    direction to the sun, finite.
    """
    last, low, high = depth.shape[1] - WIDTH, z0 * rz, z1 * rz
    # A point of the ground is a + t * d; towards the sun it enters and leaves the slab across x at -(a + t * d) * rx -+ half.
    half_x, half_y = hx * abs(rx), hy * abs(ry)
    from_x, from_y = -ax * rx, -ay * ry
    xx, xy, yx, yy = -cos_yaw * rx, -sin_yaw * rx, sin_yaw * ry, -cos_yaw * ry
    for v in range(bounds[2], bounds[3]):
        for u in range(bounds[0], bounds[1], WIDTH):
            c = min(u, last)
            lit = _sunny_ground(shade, code, v, c)
            if not any_lane(lit):
                continue
            t, x, y = load2(depth, v, c), load2(dx, v, c), load2(dy, v, c)
            across, along = fma(t, fma(x, xx, xy * y), from_x), fma(t, fma(x, yx, yy * y), from_y)
            near, far = greatest(across - half_x, along - half_y), least(across + half_x, along + half_y)
            _darken(shade, v, c, lit & (greatest(near, low) < least(far, high)))


@njit(**INLINE)
def _round_shadow(
    shade, code, depth, dx, dy, bounds, ax, ay, az, cos_yaw, sin_yaw, px, py, pz, half_w, along_y, sx, sy, sz
):  # fmt: skip
    """The same for a cylinder (its axis along y or z) or, with half_w 0, an ellipsoid.

    p is one over its half sizes and 0 along a cylinder's axis, s the direction to the sun.
    """
    zero, one, last = np.float32(0.0), np.float32(1.0), depth.shape[1] - WIDTH
    du, dv, dw = sx * px, sy * py, sz * pz
    square = du * du + dv * dv + dw * dw
    per = one / square
    open_ended = half_w == zero
    per_w = one / (sy if along_y else sz)
    w = az * pz
    for v in range(bounds[2], bounds[3]):
        for u in range(bounds[0], bounds[1], WIDTH):
            c = min(u, last)
            lit = _sunny_ground(shade, code, v, c)
            if not any_lane(lit):
                continue
            t, across, along = load2(depth, v, c), load2(dx, v, c), load2(dy, v, c)
            x = fma(t, fma(across, cos_yaw, sin_yaw * along), ax)
            y = fma(t, fma(along, cos_yaw, -sin_yaw * across), ay)
            p, q = x * px, y * py
            cu, cv, cw = fma(q, dw, -w * dv), fma(p, -dw, w * du), fma(p, dv, -du * q)
            room = square - fma(cu, cu, fma(cv, cv, cw * cw))
            lit = lit & (room > zero)
            if not any_lane(lit):
                continue
            root, middle = sqrt(greatest(room, zero)), fma(p, -du, fma(q, -dv, -w * dw))
            near, far = (middle - root) * per, (middle + root) * per
            if not open_ended:
                low, high = slab(half_w, y if along_y else splat(az), splat(per_w))
                near, far = greatest(near, low), least(far, high)
            _darken(shade, v, c, lit & (near < far) & (far > zero))


@njit(**INLINE)
def _wedge_shadow(
    shade, code, depth, dx, dy, bounds, ax, ay, az, cos_yaw, sin_yaw, hx, hy, hz, sx, sy, sz
):  # fmt: skip
    """The same for a wedge."""
    one, zero, last = np.float32(1.0), np.float32(0.0), depth.shape[1] - WIDTH
    rx, ry, rz = one / sx, one / sy, one / sz
    rise = sx / hx + sz / hz
    per_rise, per_x, above = one / rise, one / hx, az / hz
    low, high = slab(hz, splat(az), splat(rz))
    for v in range(bounds[2], bounds[3]):
        for u in range(bounds[0], bounds[1], WIDTH):
            c = min(u, last)
            lit = _sunny_ground(shade, code, v, c)
            if not any_lane(lit):
                continue
            t, across, along = load2(depth, v, c), load2(dx, v, c), load2(dy, v, c)
            x = fma(t, fma(across, cos_yaw, sin_yaw * along), ax)
            y = fma(t, fma(along, cos_yaw, -sin_yaw * across), ay)
            near_x, far_x = slab(hx, x, rx)
            near_y, far_y = slab(hy, y, ry)
            near, far = greatest(greatest(near_x, near_y), low), least(least(far_x, far_y), high)
            slope = -(x * per_x + above) * per_rise
            if rise < zero:
                near = greatest(near, slope)
            else:
                far = least(far, slope)
            _darken(shade, v, c, lit & (near < far) & (far > zero))


@njit(**INLINE)
def _cast_shadow(box, origin, view, lens, sun, dx, dy, depth, code, shade, corners, bounds, flat):
    """The shadow of one box."""
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    x, y, hx, hy, hz, cos_yaw, sin_yaw = box[CX], box[CY], box[HX], box[HY], box[HZ], box[COS], box[SIN]
    sx, sy = cos_yaw * sun[0] + sin_yaw * sun[1], cos_yaw * sun[1] - sin_yaw * sun[0]
    top, foot = box[CZ] + hz, box[CZ] - hz
    mid_x, mid_y = -half * sx / sun[2] * top, -half * sy / sun[2] * top
    flat[CX], flat[CY], flat[CZ] = x + cos_yaw * mid_x - sin_yaw * mid_y, y + sin_yaw * mid_x + cos_yaw * mid_y, zero
    flat[HX], flat[HY], flat[HZ] = hx + abs(mid_x), hy + abs(mid_y), np.float32(0.02)
    flat[COS], flat[SIN] = cos_yaw, sin_yaw
    if not rectangle_of(flat, origin, view, lens, corners, bounds):
        return
    x, y = origin[0] - x, origin[1] - y
    ax, ay = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
    shape = np.int32(box[SHAPE])
    half_w = zero if shape == _ELLIPSOID else (hy if shape == _WHEEL else hz)
    py, pz = zero if shape == _WHEEL else one / hy, zero if shape == _CYLINDER else one / hz
    if shape == _BOX:
        _box_shadow(
            shade, code, depth, dx, dy, bounds, ax, ay, cos_yaw, sin_yaw, hx, hy, foot, top, _finite_inverse(sx),
            _finite_inverse(sy), one / sun[2],
        )  # fmt: skip
    elif shape == _WEDGE:
        _wedge_shadow(
            shade, code, depth, dx, dy, bounds, ax, ay, -box[CZ], cos_yaw, sin_yaw, hx, hy, hz, sx, sy, sun[2]
        )
    else:
        _round_shadow(
            shade, code, depth, dx, dy, bounds, ax, ay, -box[CZ], cos_yaw, sin_yaw, one / hx, py, pz, half_w,
            shape == _WHEEL, sx, sy, sun[2],
        )  # fmt: skip


@njit(**FAST)
def cast_shadows(boxes, order, count, origin, view, lens, sun, dx, dy, depth, code, shade, corners, bounds, flat):
    """Fill shade (H, W) uint8: SHADOW where the ground is hidden from the sun (unit vector in ego), else SUNNY.

    boxes, order, view, lens, corners and bounds as in `cast_camera`, order being that of `sort_boxes`; flat: (BOX_COLUMNS,)
    float32 scratch.
    """
    shade[:] = SUNNY
    # On the ground a shadow lies within the box's foot, drawn out by how far its top is shifted.
    half = np.float32(0.5)
    shift_x, shift_y = -half * sun[0] / sun[2], -half * sun[1] / sun[2]
    shift = math.sqrt(shift_x * shift_x + shift_y * shift_y)
    for rank in range(0, count, WIDTH):
        (x, y, z, hx, hy, hz, _, _), there = boxes_of_ranks(boxes, order, rank, count)
        away = sqrt(fma(x, x, y * y)) - greatest(hx, hy)
        if all_lanes(away > SHADOW_RANGE_M + np.float32(BIN_M)):
            break
        size, top = greatest(greatest(hx, hy), hz), z + hz
        radius = fma(abs(top), shift, sqrt(fma(hx, hx, hy * hy))) + np.float32(0.05)
        wanted = there & (away <= SHADOW_RANGE_M) & (size >= np.float32(0.01) * away) & (size >= np.float32(0.2))
        wanted = wanted & in_cone(
            fma(top, shift_x, x), fma(top, shift_y, y), splat(np.float32(0.0)), radius, origin, view, lens
        )
        bits = mask_bits(wanted)
        while bits != 0:
            k = order[rank + lowest_bit(bits)]
            bits &= bits - 1
            _cast_shadow(boxes[k], origin, view, lens, sun, dx, dy, depth, code, shade, corners, bounds, flat)


@njit(**INLINE)
def _contact(contact, code, depth, dx, dy, bounds, ax, ay, cos_yaw, sin_yaw, hx, hy, per_reach, dark):
    """Darken the ground pixels of a rectangle under and around a box; a is the sensor in its frame."""
    zero, one, last = np.float32(0.0), np.float32(1.0), depth.shape[1] - WIDTH
    for v in range(bounds[2], bounds[3]):
        for u in range(bounds[0], bounds[1], WIDTH):
            c = min(u, last)
            ground = load2(code, v, c) == GROUND
            if not any_lane(ground):
                continue
            t, across, along = load2(depth, v, c), load2(dx, v, c), load2(dy, v, c)
            x = greatest(abs(fma(t, fma(across, cos_yaw, sin_yaw * along), ax)) - hx, zero)
            y = greatest(abs(fma(t, fma(along, cos_yaw, -sin_yaw * across), ay)) - hy, zero)
            share = fma(sqrt(fma(x, x, y * y)), -per_reach, one)
            near = ground & (share > zero)
            if any_lane(near):
                old = load2(contact, v, c)
                level = least(to_int(np.float32(255.0) - dark * share * share), old)
                store2(contact, v, c, where(near, level, old))


@njit(**INLINE)
def _reach(hz):
    """How far around solids of that half height (lanes) the ground sees less of the sky."""
    return least(fma(hz, np.float32(0.35), np.float32(0.25)), np.float32(1.4))


@njit(**FAST)
def cast_contact(
    boxes, attributes, order, count, origin, view, lens, dx, dy, depth, code, contact, corners, bounds, flat
):
    """Fill contact (H, W) uint8: how much of the sky the ground sees beside vehicles, people and walls, 255 for all of it.

    Arguments as in `cast_shadows`.
    """
    one = np.float32(1.0)
    contact[:] = OPEN
    for rank in range(0, count, WIDTH):
        (x, y, z, hx, hy, hz, _, _), there = boxes_of_ranks(boxes, order, rank, count)
        away = sqrt(fma(x, x, y * y)) - greatest(hx, hy)
        if all_lanes(away > CONTACT_RANGE_M + np.float32(BIN_M)):
            break
        wanted = there & (away <= CONTACT_RANGE_M) & (z - hz <= np.float32(0.45))
        wanted = wanted & (greatest(hx, hy) >= np.float32(0.09))
        # A corner of the foot with its surroundings is up to 1.42 of their width farther out than that of the foot.
        radius = sqrt(fma(hx, hx, hy * hy)) + np.float32(1.42) * _reach(hz) + np.float32(0.05)
        bits = mask_bits(wanted & in_cone(x, y, splat(np.float32(0.0)), radius, origin, view, lens))
        while bits != 0:
            k = order[rank + lowest_bit(bits)]
            bits &= bits - 1
            if attributes[k, MATERIAL] == _RUBBER:
                continue
            box, semantic = boxes[k], attributes[k, SEMANTIC]
            # Under a car it is darkest; a wall takes half of the sky at its foot.
            dark = np.float32(185.0) if (semantic == _VEHICLE) | (semantic == _TWO_WHEELER) else np.float32(95.0)
            reach = lane(_reach(splat(box[HZ])), 0)
            flat[:] = np.float32(0.0)
            flat[CX], flat[CY], flat[HX], flat[HY] = box[CX], box[CY], box[HX] + reach, box[HY] + reach
            flat[HZ], flat[COS], flat[SIN] = np.float32(0.02), box[COS], box[SIN]
            if not rectangle_of(flat, origin, view, lens, corners, bounds):
                continue
            from_x, from_y = origin[0] - box[CX], origin[1] - box[CY]
            ax, ay = box[COS] * from_x + box[SIN] * from_y, box[COS] * from_y - box[SIN] * from_x
            _contact(
                contact, code, depth, dx, dy, bounds, ax, ay, box[COS], box[SIN], box[HX], box[HY], one / reach, dark
            )
