"""Light of lamps after dark: on the road, on what the ego's own low beam meets, and around the lamps themselves.

Knows boxes, attributes and what the camera's rays met; knows nothing about traffic or the sky.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from perception.sensors import SemanticClass
from sim.sensors.camera import in_picture
from sim.sensors.cast import COS, CX, CY, CZ, FAST, GROUND, HX, HY, HZ, INLINE, SIN
from sim.sensors.light import BEAM, HAZE, LAMPS, WET
from sim.sensors.parts import INSTANCE, MATERIAL, RED, SEMANTIC
from sim.sensors.pinhole import nearest_corner
from sim.simd import WIDTH, any_lane, fma, greatest, lane_numbers, least, to_float, to_int, where
from sim.simd_memory import load2, store2
from sim.solids import Material

_ON, _OFF = int(Material.LAMP_ON), int(Material.LAMP_OFF)
_POLE, _SIGNAL = int(SemanticClass.POLE), int(SemanticClass.TRAFFIC_LIGHT)
FIRST_STATIC = 1_000_000  # instances from here on stand still for good: parked cars keep their lamps off
POOL_RANGE_M = np.float32(70.0)
# The ego's low beam: where its lamps are, in ego.
BEAM_X, BEAM_Z = np.float32(3.7), np.float32(0.65)
# What a lamp is: none that shines, a rear lamp, a white one in front, a street lamp, one that is lit by itself (brake, signal).
DARK, TAIL, HEAD, STREET, LIT = range(5)


@njit(**FAST)
def lamp_kind(attribute, lamps):
    """Whether and how a box with these attributes shines; lamps: `LAMPS` of the light."""
    material = attribute[MATERIAL]
    if material == _ON:
        return LIT
    if (material != _OFF) | (lamps == np.float32(0.0)) | (attribute[SEMANTIC] == _SIGNAL):
        return DARK
    if attribute[SEMANTIC] == _POLE:
        return STREET
    if attribute[INSTANCE] >= FIRST_STATIC:
        return DARK
    red, green = attribute[RED], attribute[RED + 1]
    return HEAD if green > 180 else (TAIL if (red > 80) & (green < 40) else DARK)


@njit(**INLINE)
def _pool(shade, code, depth, dx, dy, bounds, ax, ay, cos_yaw, sin_yaw, per_x, per_y, strength):
    """Add the light of one lamp to the ground pixels of a rectangle; a is the sensor in the pool's frame."""
    zero, one, last = np.float32(0.0), np.float32(1.0), depth.shape[1] - WIDTH
    for v in range(bounds[2], bounds[3]):
        for u in range(bounds[0], bounds[1], WIDTH):
            c = min(u, last)
            t, across, along = load2(depth, v, c), load2(dx, v, c), load2(dy, v, c)
            x = fma(t, fma(across, cos_yaw, sin_yaw * along), ax) * per_x
            y = fma(t, fma(along, cos_yaw, -sin_yaw * across), ay) * per_y
            q = greatest(one - x * x - y * y, zero)
            # A vector that was moved back from the edge has pixels that are done already.
            lit = (load2(code, v, c) == GROUND) & (q > zero) & (lane_numbers() >= np.int32(u - c))
            if any_lane(lit):
                old = load2(shade, v, c)
                light = least(to_float(old) + strength * q * q, np.float32(255.0))
                store2(shade, v, c, where(lit, to_int(light), old))


@njit(**FAST)
def cast_pools(boxes, attributes, count, origin, view, lens, light, dx, dy, depth, code, shade, corners, bounds, flat):
    """Fill shade (H, W) uint8 with the light of street lamps and other cars' headlights on the ground: 255 right under a lamp.

    view, corners and bounds as in `cast_camera`; flat: (BOX_COLUMNS,) float32 scratch.
    """
    one = np.float32(1.0)
    shade[:] = np.uint8(0)
    for k in range(count):
        kind = lamp_kind(attributes[k], light[LAMPS])
        if (kind != STREET) & (kind != HEAD):
            continue
        x, y = boxes[k, CX], boxes[k, CY]
        if x * x + y * y > POOL_RANGE_M * POOL_RANGE_M:
            continue
        cos_yaw, sin_yaw = boxes[k, COS], boxes[k, SIN]
        ahead, long, wide, strength = np.float32(0.0), np.float32(11.0), np.float32(11.0), np.float32(235.0)
        if kind == HEAD:
            ahead, long, wide, strength = np.float32(9.5), np.float32(9.5), np.float32(2.4), np.float32(120.0)
        x, y = x + cos_yaw * ahead, y + sin_yaw * ahead
        flat[:] = np.float32(0.0)
        flat[CX], flat[CY], flat[HX], flat[HY], flat[HZ] = x, y, long, wide, np.float32(0.02)
        flat[COS], flat[SIN] = cos_yaw, sin_yaw
        if not in_picture(flat, origin, view, lens, corners, bounds):
            continue
        x, y = origin[0] - x, origin[1] - y
        ax, ay = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
        _pool(
            shade, code, depth, dx, dy, bounds, ax, ay, cos_yaw, sin_yaw, one / long, one / wide, strength
        )  # fmt: skip


@njit(**INLINE)
def beam_light(t, dx, dy, dz, origin, strength):
    """Light of the ego's low beam on what sixteen rays meet: wide, cut off above, falling with distance."""
    one, zero = np.float32(1.0), np.float32(0.0)
    x, y = (origin[0] - BEAM_X) + t * dx, origin[1] + t * dy
    ahead = greatest(x, np.float32(0.3))
    per = one / ahead
    aside, up = y * per * np.float32(1.9), ((origin[2] - BEAM_Z) + t * dz) * per
    aside *= aside
    lateral = one / (one + aside * aside * aside)
    cut = greatest(least((np.float32(0.015) - up) * np.float32(55.0), one), np.float32(0.06))
    near = least(greatest((x + np.float32(0.2)) * np.float32(0.5), zero), one)
    return strength * near * lateral * cut / (one + ahead * ahead * np.float32(1.0 / 500.0))


@njit(**FAST)
def _add_spot(image, code, depth, farthest, u, v, half_w, half_h, red, green, blue, ground_only):
    """Add a soft spot to a picture (uint8), in front of what is further away than `farthest` (or only on the ground before it)."""
    rows, columns = depth.shape
    v0, v1 = max(0, math.floor(v - half_h)), min(rows, math.ceil(v + half_h) + 1)
    u0, u1 = max(0, math.floor(u - half_w)), min(columns, math.ceil(u + half_w) + 1)
    one = np.float32(1.0)
    for row in range(v0, v1):
        y = (np.float32(row) - v) / half_h
        for column in range(u0, u1):
            x = (np.float32(column) - u) / half_w
            q = one - x * x - y * y
            if q <= np.float32(0.0):
                continue
            ground = code[row, column] == GROUND
            if ground_only & ((not ground) | (depth[row, column] > farthest)):
                continue
            q = q * q * q
            image[row, column, 0] = min(np.int32(255), np.int32(image[row, column, 0]) + np.int32(q * red))
            image[row, column, 1] = min(np.int32(255), np.int32(image[row, column, 1]) + np.int32(q * green))
            image[row, column, 2] = min(np.int32(255), np.int32(image[row, column, 2]) + np.int32(q * blue))


@njit(**FAST)
def add_halos(
    image, depth, code, boxes, attributes, count, origin, view, lens, light, corners, bounds, flat
):  # fmt: skip
    """Glare around each lamp of boxes[:count] that is seen, smaller than a pixel too, and its streak on a wet road."""
    focal, (rows, columns) = view[1][0], view[2]
    half, one = np.float32(0.5), np.float32(1.0)
    fog = min(light[HAZE] * np.float32(60.0), one)
    night = min(light[BEAM], one)
    for k in range(count):
        kind = lamp_kind(attributes[k], light[LAMPS])
        if kind == DARK:
            continue
        x, y, z = boxes[k, CX] - origin[0], boxes[k, CY] - origin[1], boxes[k, CZ] - origin[2]
        away = math.sqrt(x * x + y * y + z * z)
        behind = boxes[k, COS] * x + boxes[k, SIN] * y > np.float32(0.0)
        if (away < one) | ((kind == HEAD) & behind) | (not in_picture(boxes[k], origin, view, lens, corners, bounds)):
            continue
        nearest = nearest_corner(corners)
        u = half * np.float32(bounds[0] + bounds[1] - 1)
        v = half * np.float32(bounds[2] + bounds[3] - 1)
        column, row = math.floor(u), math.floor(v)
        if (column < 0) | (column >= columns) | (row < 0) | (row >= rows):
            continue
        if depth[row, column] < nearest - np.float32(0.4):
            continue
        red, green, blue = np.float32(255.0), np.float32(236.0), np.float32(200.0)
        strength = np.float32(0.75)
        if kind == STREET:
            red, green, blue = np.float32(255.0), np.float32(206.0), np.float32(140.0)
        elif kind == TAIL:
            red, green, blue, strength = np.float32(255.0), np.float32(40.0), np.float32(30.0), np.float32(0.4)
        elif kind == LIT:
            red, green = np.float32(attributes[k, RED]), np.float32(attributes[k, RED + 1])
            blue, strength = np.float32(attributes[k, RED + 2]), np.float32(0.6)
        clear = one / (one + light[HAZE] * away)
        strength *= (np.float32(0.25) + np.float32(0.75) * night) * clear
        radius = focal * (np.float32(0.4) + fog) / away + np.float32(0.006) * np.float32(columns) + one
        _add_spot(
            image, code, depth, away, u, v, radius, radius, red * strength, green * strength, blue * strength, False
        )
        if light[WET] > np.float32(0.05):
            for c in range(flat.shape[0]):
                flat[c] = boxes[k, c]
            flat[CZ] = -boxes[k, CZ]
            if not in_picture(flat, origin, view, lens, corners, bounds):
                continue
            low = half * np.float32(bounds[2] + bounds[3] - 1)
            wide = max(focal * np.float32(0.22) / away, np.float32(1.3))
            strength *= light[WET] * np.float32(1.1)
            _add_spot(
                image, code, depth, away, u, low, wide, max(np.float32(0.75) * (low - v), one), red * strength,
                green * strength, blue * strength, True,
            )  # fmt: skip
