"""Where the sun is hidden: shadows of boxes on the ground, for one camera.

Knows boxes, the sun and what the camera's rays met; knows nothing about colours.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from perception.sensors import SemanticClass
from sim.sensors.camera import in_picture
from sim.sensors.cast import COS, CX, CY, CZ, FAST, GROUND, HX, HY, HZ, SHAPE, SIN
from sim.sensors.parts import MATERIAL, SEMANTIC
from sim.solids import Material, Shape

_BOX, _CYLINDER, _WHEEL, _WEDGE = int(Shape.BOX), int(Shape.CYLINDER), int(Shape.WHEEL), int(Shape.WEDGE)
_ELLIPSOID = int(Shape.ELLIPSOID)
_RUBBER, _VEHICLE, _TWO_WHEELER = int(Material.RUBBER), int(SemanticClass.VEHICLE), int(SemanticClass.TWO_WHEELER)
SUNNY, SHADOW = np.uint8(255), np.uint8(0)
OPEN = np.uint8(255)  # of the sky, where nothing stands near
CONTACT_RANGE_M = np.float32(45.0)
SHADOW_RANGE_M = np.float32(60.0)


@njit(**FAST)
def _shadow_row(shade, code, depth, dx, dy, ax, ay, cos_yaw, sin_yaw, x0, x1, y0, y1, z0, z1, rx, ry, rz):
    """Darken the ground pixels of one row from which the sun is hidden by a box.

    a is the sensor's place and x0 to z1 are the box's sides, in its own frame; r is one over the direction to the sun.
    """
    for i in range(shade.shape[0]):
        px = ax + depth[i] * (cos_yaw * dx[i] + sin_yaw * dy[i])
        py = ay + depth[i] * (cos_yaw * dy[i] - sin_yaw * dx[i])
        tx0, tx1 = (x0 - px) * rx, (x1 - px) * rx
        ty0, ty1 = (y0 - py) * ry, (y1 - py) * ry
        tz0, tz1 = z0 * rz, z1 * rz
        near = tx0 if tx0 < tx1 else tx1
        near_y = ty0 if ty0 < ty1 else ty1
        near = near if near > near_y else near_y
        near = near if near > tz0 else tz0
        far = tx0 if tx0 > tx1 else tx1
        far_y = ty0 if ty0 > ty1 else ty1
        far = far if far < far_y else far_y
        far = far if far < tz1 else tz1
        hidden = (near < far) & (code[i] == GROUND)
        shade[i] = SHADOW if hidden else shade[i]


@njit(**FAST)
def _round_shadow_row(
    shade, code, depth, dx, dy, ax, ay, az, cos_yaw, sin_yaw, px, py, pz, half_w, along_y, sx, sy, sz
):  # fmt: skip
    """The same for a cylinder (its axis along y or z) or, with half_w 0, an ellipsoid.

    a is the sensor's foot in the solid's frame, p one over its half sizes and 0 along a cylinder's axis, s the direction to
    the sun.
    """
    zero = np.float32(0.0)
    du, dv, dw = sx * px, sy * py, sz * pz
    square = du * du + dv * dv + dw * dw
    open_ended = half_w == zero
    per_w = np.float32(1.0) / (sy if along_y else sz)
    for i in range(shade.shape[0]):
        x = ax + depth[i] * (cos_yaw * dx[i] + sin_yaw * dy[i])
        y = ay + depth[i] * (cos_yaw * dy[i] - sin_yaw * dx[i])
        u, v, w = x * px, y * py, az * pz
        cu, cv, cw = v * dw - w * dv, w * du - u * dw, u * dv - v * du
        room = square - (cu * cu + cv * cv + cw * cw)
        root = math.sqrt(room if room > zero else zero)
        middle = -(u * du + v * dv + w * dw)
        near, far = (middle - root) / square, (middle + root) / square
        at = y if along_y else az
        w0, w1 = (-half_w - at) * per_w, (half_w - at) * per_w
        low, high = (w0, w1) if w0 < w1 else (w1, w0)
        near = near if open_ended | (near > low) else low
        far = far if open_ended | (far < high) else high
        hidden = (room > zero) & (near < far) & (far > zero) & (code[i] == GROUND)
        shade[i] = SHADOW if hidden else shade[i]


@njit(**FAST)
def _wedge_shadow_row(
    shade, code, depth, dx, dy, ax, ay, az, cos_yaw, sin_yaw, hx, hy, hz, sx, sy, sz
):  # fmt: skip
    """The same for a wedge."""
    one, zero = np.float32(1.0), np.float32(0.0)
    rx, ry, rz = one / sx, one / sy, one / sz
    rise = sx / hx + sz / hz
    for i in range(shade.shape[0]):
        x = ax + depth[i] * (cos_yaw * dx[i] + sin_yaw * dy[i])
        y = ay + depth[i] * (cos_yaw * dy[i] - sin_yaw * dx[i])
        x0, x1 = (-hx - x) * rx, (hx - x) * rx
        y0, y1 = (-hy - y) * ry, (hy - y) * ry
        near = x0 if x0 < x1 else x1
        far = x0 if x0 > x1 else x1
        near_y, far_y = (y0, y1) if y0 < y1 else (y1, y0)
        near = near if near > near_y else near_y
        far = far if far < far_y else far_y
        near_z, far_z = (-hz - az) * rz, (hz - az) * rz
        near = near if near > near_z else near_z
        far = far if far < far_z else far_z
        slope = -(x / hx + az / hz) / rise
        near = slope if (rise < zero) & (slope > near) else near
        far = slope if (rise > zero) & (slope < far) else far
        hidden = (near < far) & (far > zero) & (code[i] == GROUND)
        shade[i] = SHADOW if hidden else shade[i]


@njit(**FAST)
def cast_shadows(boxes, count, origin, view, lens, sun, dx, dy, depth, code, shade, corners, bounds, flat):
    """Fill shade (H, W) uint8: SHADOW where the ground is hidden from the sun (unit vector in ego), else SUNNY.

    view, lens, corners and bounds as in `cast_camera`; flat: (BOX_COLUMNS,) float32 scratch.
    """
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    shade[:] = SUNNY
    for k in range(count):
        x, y = boxes[k, CX], boxes[k, CY]
        hx, hy, hz = boxes[k, HX], boxes[k, HY], boxes[k, HZ]
        distance = math.sqrt(x * x + y * y)
        size = max(hx, hy, hz)
        if (distance - size > SHADOW_RANGE_M) | (size < np.float32(0.01) * distance) | (size < np.float32(0.2)):
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
        u0, u1 = bounds[0], bounds[1]
        for v in range(bounds[2], bounds[3]):
            row_shade, row_code, row_depth = shade[v, u0:u1], code[v, u0:u1], depth[v, u0:u1]
            row_dx, row_dy = dx[v, u0:u1], dy[v, u0:u1]
            if shape == _BOX:
                _shadow_row(
                    row_shade, row_code, row_depth, row_dx, row_dy, ax, ay, cos_yaw, sin_yaw, -hx, hx, -hy, hy, foot, top,
                    one / sx, one / sy, one / sun[2],
                )  # fmt: skip
            elif shape == _WEDGE:
                _wedge_shadow_row(
                    row_shade, row_code, row_depth, row_dx, row_dy, ax, ay, -boxes[k, CZ], cos_yaw, sin_yaw, hx, hy, hz, sx,
                    sy, sun[2],
                )  # fmt: skip
            else:
                _round_shadow_row(
                    row_shade, row_code, row_depth, row_dx, row_dy, ax, ay, -boxes[k, CZ], cos_yaw, sin_yaw, one / hx, py, pz,
                    half_w, shape == _WHEEL, sx, sy, sun[2],
                )  # fmt: skip


@njit(**FAST)
def _contact_row(contact, code, depth, dx, dy, ax, ay, cos_yaw, sin_yaw, hx, hy, per_reach, dark):
    """Darken the ground pixels of one row under and around a box; a is the sensor in its frame."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(contact.shape[0]):
        x = abs(ax + depth[i] * (cos_yaw * dx[i] + sin_yaw * dy[i])) - hx
        y = abs(ay + depth[i] * (cos_yaw * dy[i] - sin_yaw * dx[i])) - hy
        x = x if x > zero else zero
        y = y if y > zero else zero
        share = one - math.sqrt(x * x + y * y) * per_reach
        share = share if share > zero else zero
        level = np.float32(255.0) - dark * share * share
        old = np.float32(np.int32(contact[i]))
        level = level if level < old else old
        contact[i] = np.uint8(np.int32(level)) if code[i] == GROUND else contact[i]


@njit(**FAST)
def cast_contact(boxes, attributes, count, origin, view, lens, dx, dy, depth, code, contact, corners, bounds, flat):
    """Fill contact (H, W) uint8: how much of the sky the ground sees beside vehicles, people and walls, 255 for all of it.

    Arguments as in `cast_shadows`.
    """
    one = np.float32(1.0)
    contact[:] = OPEN
    for k in range(count):
        hx, hy, hz = boxes[k, HX], boxes[k, HY], boxes[k, HZ]
        foot = boxes[k, CZ] - hz
        if (foot > np.float32(0.45)) | (max(hx, hy) < np.float32(0.09)):
            continue
        x, y = boxes[k, CX], boxes[k, CY]
        away = math.sqrt(x * x + y * y) - max(hx, hy)
        if (away > CONTACT_RANGE_M) | (attributes[k, MATERIAL] == _RUBBER):
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
        u0, u1 = bounds[0], bounds[1]
        for v in range(bounds[2], bounds[3]):
            _contact_row(
                contact[v, u0:u1], code[v, u0:u1], depth[v, u0:u1], dx[v, u0:u1], dy[v, u0:u1], ax, ay, cos_yaw, sin_yaw,
                hx, hy, one / reach, dark,
            )  # fmt: skip
