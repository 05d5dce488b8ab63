"""What a run of pixels that see one face looks like: windows, leaves, glass, roundness.

Knows rows of colours and where their rays end; knows nothing about boxes, lamps or the ground.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sim.sensors.cast import FAST

PER_STOREY = np.float32(1.0 / 3.1)
# Light that reaches a face from the sky, by which way it faces: aside, up, down.
ASIDE, UP, DOWN = np.float32(0.78), np.float32(1.0), np.float32(0.45)


@njit(**FAST)
def _hash_share(i, j, tile):
    """A number in [-0.5, 0.5) that belongs to the cell (i, j) of a tile; int32 in, float32 out."""
    # A product of uint32 is uint64 to numba; cut back each time, it vectorises.
    h = np.uint32(np.uint32(i) * np.uint32(0x9E3779B1)) ^ np.uint32(np.uint32(j) * np.uint32(0x85EBCA77)) ^ tile
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0xC2B2AE3D))
    h = h ^ (h >> np.uint32(13))
    return np.float32(np.int32(h & np.uint32(0xFFFF)) - np.int32(0x8000)) * np.float32(1.0 / 0x10000)


@njit(**FAST)
def _floor(value):
    """The next lower whole number as int32, in a form that vectorises."""
    whole = np.int32(value)
    return whole - np.int32(1) if value < np.float32(whole) else whole


@njit(**FAST)
def _share(value):
    """Cut off at 0 and 1."""
    value = value if value > np.float32(0.0) else np.float32(0.0)
    return value if value < np.float32(1.0) else np.float32(1.0)


@njit(**FAST)
def facade_run(
    red, green, blue, depth, dx, dy, dz, along, per_x, per_y, up, per_bay, storeys, tile, pane_r, pane_g, pane_b, wide,
    high, shop, balcony, trim, lit, pixel_angle,
):  # fmt: skip
    """Windows, doors, shop fronts, balconies and dirt on a run of pixels of one wall.

    along + depth * (per_x * dx + per_y * dy): metres along the wall; up + depth * dz: metres above its foot. wide, high: half
    size of a window as shares of its bay and storey; shop, balcony: 1 where the house has them; trim: brightness of frames
    against the wall's; lit: share of windows with a light behind them.
    """
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    for i in range(red.shape[0]):
        t = depth[i]
        u = (along + t * (per_x * dx[i] + per_y * dy[i])) * per_bay
        v = (up + t * dz[i]) * PER_STOREY
        footprint = t * math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i]) * pixel_angle
        bay, storey = np.int32(u), np.int32(v)
        sharp = one / (footprint * per_bay + np.float32(0.006))
        chance, other = _hash_share(bay, storey, tile), _hash_share(bay, np.int32(91), tile)
        x, y = abs(u - np.float32(bay) - half), v - np.float32(storey) - half
        street = v < one
        door = street & (shop < half) & (other > np.float32(0.2))
        front = street & (shop > half)
        half_w = np.float32(0.43) if front else (np.float32(0.17) if door else wide)
        half_h = np.float32(0.33) if front else (np.float32(0.36) if door else high)
        middle = np.float32(-0.12) if front | door else np.float32(0.05)
        off = abs(y - middle)
        inner = _share((half_w - x) * sharp + half) * _share((half_h - off) * sharp + half)
        outer = _share((half_w + np.float32(0.03) - x) * sharp + half)
        outer *= _share((half_h + np.float32(0.03) - off) * sharp + half)
        inner *= one - np.float32(0.7) * _share((np.float32(0.014) - x) * sharp + half)
        inside = one if v < storeys else zero
        inner *= inside
        outer *= inside
        # Rain and dirt darken a wall towards its foot; a moulding runs between storeys.
        wall = one - np.float32(0.24) / (one + np.float32(14.0) * v * v)
        wall -= np.float32(0.10) * _share((np.float32(0.035) + abs(y) - half) * sharp + half)
        wall += (
            np.float32(0.04)
            * _hash_share(_floor(u * np.float32(9.0)), _floor(v * np.float32(14.0)), tile)
            * _share(sharp * np.float32(0.02))
        )
        awning = front & (y > np.float32(0.24)) & (y < np.float32(0.44))
        tone = _hash_share(bay >> np.int32(1), np.int32(57), tile)
        frame = wall + (trim - wall) * outer
        r, g, b = red[i] * frame, green[i] * frame, blue[i] * frame
        bright = one if lit > zero else np.float32(0.8) + half * chance
        glowing = (chance + half < lit) | (front & (lit > zero))
        warmth = np.float32(0.75) + np.float32(0.5) * chance
        pr = np.float32(250.0) * warmth if glowing else pane_r * bright
        pg = np.float32(196.0) * warmth if glowing else pane_g * bright
        pb = np.float32(122.0) * warmth if glowing else pane_b * bright
        dim = np.float32(0.55) if door else one
        r, g, b = r + (pr * dim - r) * inner, g + (pg * dim - g) * inner, b + (pb * dim - b) * inner
        rail = (
            (balcony > half)
            & (storey > 0)
            & (other < np.float32(0.12))
            & (y < np.float32(-0.14))
            & (x < np.float32(0.46))
        )
        cover = np.float32(0.72) if rail else zero
        cover = cover * inside
        shade = red[i] * np.float32(0.42)
        r, g, b = r + (shade - r) * cover, g + (shade - g) * cover, b + (shade - b) * cover
        light = (red[i] + green[i] + blue[i]) * np.float32(0.45)
        cover = np.float32(0.9) if awning else zero
        r += (light * (np.float32(0.62) + np.float32(0.8) * tone) - r) * cover
        g += (light * (np.float32(0.42) - np.float32(0.3) * tone) - g) * cover
        b += (light * (np.float32(0.42) - np.float32(0.7) * tone) - b) * cover
        red[i], green[i], blue[i] = r, g, b


@njit(**FAST)
def foliage_run(red, green, blue, depth, dx, dy, dz, ox, oy, z0, cos_yaw, sin_yaw, per_half, tile, pixel_angle):
    """Leaves on a run of pixels; o is the sensor in the box's frame, z0 its height above the box's middle."""
    one, fine, coarse = np.float32(1.0), np.float32(9.0), np.float32(2.3)
    for i in range(red.shape[0]):
        t = depth[i]
        px = ox + t * (cos_yaw * dx[i] + sin_yaw * dy[i])
        py = oy + t * (cos_yaw * dy[i] - sin_yaw * dx[i])
        z = z0 + t * dz[i]
        footprint = t * math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i]) * pixel_angle
        leaf = _hash_share(_floor(px * fine) + _floor(z * fine) * np.int32(17), _floor(py * fine), tile)
        shift = np.float32(0.35) * leaf
        px, py, z_0 = px * coarse + shift, py * coarse - shift, z * coarse + shift
        twig = _hash_share(_floor(px) + _floor(z_0) * np.int32(31), _floor(py), tile)
        light = np.float32(0.86) + np.float32(0.2) * z * per_half
        light *= one + np.float32(0.7) * leaf / (one + np.float32(22.0) * footprint)
        light *= one + np.float32(0.5) * twig / (one + np.float32(5.0) * footprint)
        red[i], green[i], blue[i] = red[i] * light, green[i] * light, blue[i] * light


@njit(**FAST)
def gloss_run(red, green, blue, depth, dz, z0, per_half, least, rise, pane_r, pane_g, pane_b):
    """The sky mirrored in a run of pixels of glass or paint, more of it higher up."""
    for i in range(red.shape[0]):
        height = (z0 + depth[i] * dz[i]) * per_half
        mirror = least + rise * (height + np.float32(1.0))
        red[i] += (pane_r - red[i]) * mirror
        green[i] += (pane_g - green[i]) * mirror
        blue[i] += (pane_b - blue[i]) * mirror


@njit(**FAST)
def curved_run(
    red, green, blue, depth, dx, dy, dz, ox, oy, z0, cos_yaw, sin_yaw, wx, wy, wz, sun_x, sun_y, sun_z, ambient, direct,
    veil,
):  # fmt: skip
    """Light on a run of pixels of a curved face; o, w (`normal_weights`) and sun are in the solid's frame. ambient, direct,
    veil: RGB."""
    zero = np.float32(0.0)
    ambient_r, ambient_g, ambient_b = ambient
    direct_r, direct_g, direct_b = direct
    veil_r, veil_g, veil_b = veil
    for i in range(red.shape[0]):
        t = depth[i]
        nx = wx * (ox + t * (cos_yaw * dx[i] + sin_yaw * dy[i]))
        ny = wy * (oy + t * (cos_yaw * dy[i] - sin_yaw * dx[i]))
        nz = wz * (z0 + t * dz[i])
        per = np.float32(1.0) / math.sqrt(nx * nx + ny * ny + nz * nz)
        cosine = (nx * sun_x + ny * sun_y + nz * sun_z) * per
        cosine = cosine if cosine > zero else zero
        up = nz * per
        sky = ASIDE + up * ((UP - ASIDE) if up > zero else (ASIDE - DOWN))
        red[i] = (red[i] - veil_r) * (ambient_r * sky + direct_r * cosine) + veil_r
        green[i] = (green[i] - veil_g) * (ambient_g * sky + direct_g * cosine) + veil_g
        blue[i] = (blue[i] - veil_b) * (ambient_b * sky + direct_b * cosine) + veil_b
