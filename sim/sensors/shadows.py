"""Where the sun is hidden: shadows of boxes on the ground, for one camera.

Knows boxes, the sun and what the camera's rays met; knows nothing about colours.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sim.sensors.cast import COS, CX, CY, CZ, FAST, GROUND, HX, HY, HZ, SIN, pinhole_bounds, sphere_in_view

SUNNY, SHADOW = np.uint8(255), np.uint8(133)
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
def cast_shadows(boxes, count, origin, view, sun, dx, dy, depth, code, shade, corners, bounds, flat):
    """Fill shade (H, W) uint8: SHADOW where the ground is hidden from the sun (unit vector in ego), else SUNNY.

    view, corners and bounds as in `cast_camera`; flat: (BOX_COLUMNS,) float32 scratch.
    """
    one, half = np.float32(1.0), np.float32(0.5)
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
        if not (sphere_in_view(flat, origin, view) and pinhole_bounds(flat, origin, view, corners, bounds)):
            continue
        x, y = origin[0] - x, origin[1] - y
        ax, ay = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
        foot = boxes[k, CZ] - hz
        u0, u1 = bounds[0], bounds[1]
        for v in range(bounds[2], bounds[3]):
            _shadow_row(
                shade[v, u0:u1], code[v, u0:u1], depth[v, u0:u1], dx[v, u0:u1], dy[v, u0:u1], ax, ay, cos_yaw, sin_yaw,
                -hx, hx, -hy, hy, foot, top, one / sx, one / sy, one / sun[2],
            )  # fmt: skip
