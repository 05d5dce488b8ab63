"""Where the sun is hidden: shadows of boxes on the ground, for one camera.

Knows boxes, the sun and what the camera's rays met; knows nothing about colours.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from perception.sensors import SemanticClass
from sim.sensors.camera import in_picture
from sim.sensors.cast import COS, CX, CY, CZ, FAST, GROUND, HX, HY, HZ, INLINE, SHAPE, SIN, box_of_rank, slab
from sim.sensors.parts import BIN_M, MATERIAL, SEMANTIC, distance_of
from sim.simd import WIDTH, any_lane, greatest, least, load2, splat, sqrt, store2, to_int, where
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
    """Which of eight pixels are ground that the sun still reaches."""
    return (load2(code, v, c) == GROUND) & (load2(shade, v, c) != np.int32(SHADOW))


@njit(**INLINE)
def _darken(shade, v, c, hidden):
    if any_lane(hidden):
        store2(shade, v, c, where(hidden, np.int32(SHADOW), load2(shade, v, c)))


@njit(**INLINE)
def _box_shadow(shade, code, depth, dx, dy, bounds, ax, ay, cos_yaw, sin_yaw, hx, hy, z0, z1, rx, ry, rz):
    """Darken the ground pixels of a rectangle from which the sun is hidden by a box.

    a is the sensor's foot in the box's frame; z0 and z1 are the heights of its lower and upper side; r is one over the
    direction to the sun.
    """
    last, low, high = depth.shape[1] - WIDTH, z0 * rz, z1 * rz
    for v in range(bounds[2], bounds[3]):
        for u in range(bounds[0], bounds[1], WIDTH):
            c = min(u, last)
            lit = _sunny_ground(shade, code, v, c)
            if not any_lane(lit):
                continue
            t, x, y = load2(depth, v, c), load2(dx, v, c), load2(dy, v, c)
            near_x, far_x = slab(hx, ax + t * (cos_yaw * x + sin_yaw * y), rx)
            near_y, far_y = slab(hy, ay + t * (cos_yaw * y - sin_yaw * x), ry)
            near, far = greatest(greatest(near_x, near_y), low), least(least(far_x, far_y), high)
            _darken(shade, v, c, lit & (near < far))


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
            x, y = ax + t * (cos_yaw * across + sin_yaw * along), ay + t * (cos_yaw * along - sin_yaw * across)
            p, q = x * px, y * py
            cu, cv, cw = q * dw - w * dv, w * du - p * dw, p * dv - q * du
            room = square - (cu * cu + cv * cv + cw * cw)
            lit = lit & (room > zero)
            if not any_lane(lit):
                continue
            root, middle = sqrt(greatest(room, zero)), -(p * du + q * dv + w * dw)
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
            x, y = ax + t * (cos_yaw * across + sin_yaw * along), ay + t * (cos_yaw * along - sin_yaw * across)
            near_x, far_x = slab(hx, x, rx)
            near_y, far_y = slab(hy, y, ry)
            near, far = greatest(greatest(near_x, near_y), low), least(least(far_x, far_y), high)
            slope = -(x * per_x + above) * per_rise
            if rise < zero:
                near = greatest(near, slope)
            else:
                far = least(far, slope)
            _darken(shade, v, c, lit & (near < far) & (far > zero))


@njit(**FAST)
def cast_shadows(boxes, order, count, origin, view, lens, sun, dx, dy, depth, code, shade, corners, bounds, flat):
    """Fill shade (H, W) uint8: SHADOW where the ground is hidden from the sun (unit vector in ego), else SUNNY.

    boxes, order, view, lens, corners and bounds as in `cast_camera`, order being that of `sort_boxes`; flat: (BOX_COLUMNS,)
    float32 scratch.
    """
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    shade[:] = SUNNY
    for rank in range(count):
        k = box_of_rank(boxes, order, rank, count)
        away = distance_of(boxes[k])
        if away > SHADOW_RANGE_M:
            if away > SHADOW_RANGE_M + np.float32(BIN_M):
                break
            continue
        x, y = boxes[k, CX], boxes[k, CY]
        hx, hy, hz = boxes[k, HX], boxes[k, HY], boxes[k, HZ]
        size = max(hx, hy, hz)
        if (size < np.float32(0.01) * away) | (size < np.float32(0.2)):
            continue
        cos_yaw, sin_yaw = boxes[k, COS], boxes[k, SIN]
        sx, sy = cos_yaw * sun[0] + sin_yaw * sun[1], cos_yaw * sun[1] - sin_yaw * sun[0]
        top = boxes[k, CZ] + hz
        # On the ground the shadow lies within the box's foot, drawn out by how far its top is shifted.
        mid_x, mid_y = -half * sx / sun[2] * top, -half * sy / sun[2] * top
        flat[CX], flat[CY], flat[CZ] = x + cos_yaw * mid_x - sin_yaw * mid_y, y + sin_yaw * mid_x + cos_yaw * mid_y, 0.0
        flat[HX], flat[HY], flat[HZ] = hx + abs(mid_x), hy + abs(mid_y), 0.02
        flat[COS], flat[SIN] = cos_yaw, sin_yaw
        if not in_picture(flat, origin, view, lens, corners, bounds):
            continue
        x, y = origin[0] - x, origin[1] - y
        ax, ay = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
        foot = boxes[k, CZ] - hz
        shape = np.int32(boxes[k, SHAPE])
        half_w = zero if shape == _ELLIPSOID else (hy if shape == _WHEEL else hz)
        py, pz = zero if shape == _WHEEL else one / hy, zero if shape == _CYLINDER else one / hz
        if shape == _BOX:
            _box_shadow(
                shade, code, depth, dx, dy, bounds, ax, ay, cos_yaw, sin_yaw, hx, hy, foot, top, one / sx, one / sy,
                one / sun[2],
            )  # fmt: skip
        elif shape == _WEDGE:
            _wedge_shadow(
                shade, code, depth, dx, dy, bounds, ax, ay, -boxes[k, CZ], cos_yaw, sin_yaw, hx, hy, hz, sx, sy, sun[2]
            )
        else:
            _round_shadow(
                shade, code, depth, dx, dy, bounds, ax, ay, -boxes[k, CZ], cos_yaw, sin_yaw, one / hx, py, pz, half_w,
                shape == _WHEEL, sx, sy, sun[2],
            )  # fmt: skip


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
            x = greatest(abs(ax + t * (cos_yaw * across + sin_yaw * along)) - hx, zero)
            y = greatest(abs(ay + t * (cos_yaw * along - sin_yaw * across)) - hy, zero)
            share = one - sqrt(x * x + y * y) * per_reach
            near = ground & (share > zero)
            if any_lane(near):
                old = load2(contact, v, c)
                level = least(to_int(np.float32(255.0) - dark * share * share), old)
                store2(contact, v, c, where(near, level, old))


@njit(**FAST)
def cast_contact(
    boxes, attributes, order, count, origin, view, lens, dx, dy, depth, code, contact, corners, bounds, flat
):
    """Fill contact (H, W) uint8: how much of the sky the ground sees beside vehicles, people and walls, 255 for all of it.

    Arguments as in `cast_shadows`.
    """
    one = np.float32(1.0)
    contact[:] = OPEN
    for rank in range(count):
        k = box_of_rank(boxes, order, rank, count)
        away = distance_of(boxes[k])
        if away > CONTACT_RANGE_M + np.float32(BIN_M):
            break
        hx, hy, hz = boxes[k, HX], boxes[k, HY], boxes[k, HZ]
        x, y, foot = boxes[k, CX], boxes[k, CY], boxes[k, CZ] - hz
        out = (away > CONTACT_RANGE_M) | (foot > np.float32(0.45)) | (max(hx, hy) < np.float32(0.09))
        if out | (attributes[k, MATERIAL] == _RUBBER):
            continue
        semantic = attributes[k, SEMANTIC]
        # Under a car it is darkest; a wall takes half of the sky at its foot.
        dark = np.float32(185.0) if (semantic == _VEHICLE) | (semantic == _TWO_WHEELER) else np.float32(95.0)
        reach = min(np.float32(0.25) + np.float32(0.35) * hz, np.float32(1.4))
        flat[:] = np.float32(0.0)
        flat[CX], flat[CY], flat[HX], flat[HY], flat[HZ] = x, y, hx + reach, hy + reach, np.float32(0.02)
        flat[COS], flat[SIN] = boxes[k, COS], boxes[k, SIN]
        if not in_picture(flat, origin, view, lens, corners, bounds):
            continue
        x, y = origin[0] - x, origin[1] - y
        cos_yaw, sin_yaw = boxes[k, COS], boxes[k, SIN]
        ax, ay = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
        _contact(contact, code, depth, dx, dy, bounds, ax, ay, cos_yaw, sin_yaw, hx, hy, one / reach, dark)
