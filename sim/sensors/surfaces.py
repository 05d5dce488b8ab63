"""What sixteen pixels that see one face look like: windows, leaves, glass, roundness.

Knows colours and places on a surface; knows nothing about rays, lamps or the ground.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sim.sensors.cast import INLINE
from sim.sensors.light import AMBIENT, DIRECT
from sim.simd import any_lane, blend, floor, fma, greatest, least, shift_right, splat, sqrt, to_float, to_int, where

PER_STOREY = np.float32(1.0 / 3.1)
# Light that reaches a face from the sky, by which way it faces: aside, up, down.
ASIDE, UP, DOWN = np.float32(0.78), np.float32(1.0), np.float32(0.45)


# Columns of a box's panes: what is mirrored in its glass (RGB), window bays per metre along x and y, whole storeys, a number
# that tells its windows or leaves from those of others, the haze before it (RGB), how wide and high its windows are, whether
# it has shops and balconies, how bright its window frames are, and 1 where it is a lamp that shines.
PANE, BAYS, STOREYS, TILE, VEIL, WIDE, HIGH, SHOP, BALCONY, TRIM, LIT = 0, 3, 5, 6, 7, 10, 11, 12, 13, 14, 15
PANE_COLUMNS = 16
# Odd numbers whose multiples are far apart, as int32.
_GOLDEN, _SECOND, _THIRD = (np.int32(n - (1 << 32)) for n in (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D))


@njit(**INLINE)
def _hash_share(i, j, tile):
    """A number in [-0.5, 0.5) that belongs to the cell (i, j) of a tile, in sixteen cells; int32 lanes in, float32 lanes out."""
    h = (i * _GOLDEN) ^ (j * _SECOND) ^ tile
    h = (h ^ shift_right(h, 15)) * _THIRD
    h = h ^ shift_right(h, 13)
    return to_float((h & np.int32(0xFFFF)) - np.int32(0x8000)) * np.float32(1.0 / 0x10000)


@njit(**INLINE)
def _share(value):
    """Cut off at 0 and 1."""
    return least(greatest(value, np.float32(0.0)), np.float32(1.0))


@njit(**INLINE)
def add_windows(red, green, blue, u, v, sharp, pane, tile, lit):
    """Windows, doors, shop fronts, balconies and dirt on sixteen pixels of one wall.

    u, v: bays along the wall, storeys above its foot; sharp: one over a pixel's footprint in bays. pane: the house, as
    `shading` lays it out (`PANE_COLUMNS`); tile: its number, mixed; lit: share of windows with a light behind them.
    """
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    bay, storey = to_int(u), to_int(v)
    chance = _hash_share(bay, storey, tile)
    x, y = abs(u - to_float(bay) - half), v - to_float(storey) - half
    street = v < one
    at_street, shop, balconies = any_lane(street), pane[SHOP] > half, pane[BALCONY] > half
    half_w, half_h, middle = splat(pane[WIDE]), splat(pane[HIGH]), splat(np.float32(0.05))
    other, door = splat(zero), street & (v < zero)
    if at_street | balconies:
        other = _hash_share(bay, splat(np.int32(91)), tile)
    if at_street & shop:
        half_w, half_h = where(street, np.float32(0.43), half_w), where(street, np.float32(0.33), half_h)
        middle = where(street, np.float32(-0.12), middle)
    elif at_street:
        door = street & (other > np.float32(0.2))
        half_w, half_h = where(door, np.float32(0.17), half_w), where(door, np.float32(0.36), half_h)
        middle = where(door, np.float32(-0.12), middle)
    off = abs(y - middle)
    inside = where(v < pane[STOREYS], splat(one), zero)
    inner_x, inner_y, rim = fma(half_w - x, sharp, half), fma(half_h - off, sharp, half), np.float32(0.03) * sharp
    inner = _share(inner_x) * _share(inner_y) * inside
    outer = _share(inner_x + rim) * _share(inner_y + rim) * inside
    inner *= fma(_share(fma(np.float32(0.014) - x, sharp, half)), np.float32(-0.7), one)
    # Rain and dirt darken a wall towards its foot; a moulding runs between storeys.
    wall = one - np.float32(0.24) / fma(np.float32(14.0) * v, v, one)
    wall = fma(_share(fma(abs(y) - np.float32(0.465), sharp, half)), np.float32(-0.10), wall)
    if any_lane(sharp > np.float32(12.0)):
        spot = _hash_share(to_int(floor(u * np.float32(9.0))), to_int(floor(v * np.float32(14.0))), tile)
        wall = fma(np.float32(0.04) * spot, _share((sharp - np.float32(12.0)) * np.float32(0.025)), wall)
    frame = blend(wall, pane[TRIM], outer)
    r, g, b = red * frame, green * frame, blue * frame
    if lit > zero:
        glowing = chance + half < lit
        if shop:
            glowing = glowing | street
        warmth = np.float32(0.75) + np.float32(0.5) * chance
        pr = where(glowing, np.float32(250.0) * warmth, splat(pane[PANE]))
        pg = where(glowing, np.float32(196.0) * warmth, splat(pane[PANE + 1]))
        pb = where(glowing, np.float32(122.0) * warmth, splat(pane[PANE + 2]))
    else:
        bright = np.float32(0.8) + half * chance
        pr, pg, pb = pane[PANE] * bright, pane[PANE + 1] * bright, pane[PANE + 2] * bright
    dim = where(door, np.float32(0.55), splat(one))
    r, g, b = blend(r, pr * dim, inner), blend(g, pg * dim, inner), blend(b, pb * dim, inner)
    if balconies:
        rail = (storey > 0) & (other < np.float32(0.12)) & (y < np.float32(-0.14)) & (x < np.float32(0.46))
        cover = where(rail, np.float32(0.72) * inside, zero)
        metal = red * np.float32(0.42)
        r, g, b = blend(r, metal, cover), blend(g, metal, cover), blend(b, metal, cover)
    if at_street & shop:
        awning = street & (y > np.float32(0.24)) & (y < np.float32(0.44))
        tone = _hash_share(bay >> 1, splat(np.int32(57)), tile)
        light = (red + green + blue) * np.float32(0.45)
        cover = where(awning, np.float32(0.9), splat(zero))
        r = blend(r, light * (np.float32(0.62) + np.float32(0.8) * tone), cover)
        g = blend(g, light * (np.float32(0.42) - np.float32(0.3) * tone), cover)
        b = blend(b, light * (np.float32(0.42) - np.float32(0.7) * tone), cover)
    return r, g, b


@njit(**INLINE)
def leaf_light(px, py, z, footprint, per_half, tile):
    """How bright leaves are at sixteen points (in the frame of their solid), against its own colour."""
    one, fine, coarse = np.float32(1.0), np.float32(9.0), np.float32(2.3)
    light = np.float32(0.86) + np.float32(0.2) * z * per_half
    leaf = _hash_share(
        to_int(floor(px * fine)) + to_int(floor(z * fine)) * np.int32(17), to_int(floor(py * fine)), tile
    )
    shift = np.float32(0.35) * leaf
    px, py, z = px * coarse + shift, py * coarse - shift, z * coarse + shift
    twig = _hash_share(to_int(floor(px)) + to_int(floor(z)) * np.int32(31), to_int(floor(py)), tile)
    light *= one + np.float32(0.7) * leaf / (one + np.float32(22.0) * footprint)
    light *= one + np.float32(0.5) * twig / (one + np.float32(5.0) * footprint)
    return light


@njit(**INLINE)
def add_gloss(red, green, blue, height, least_share, rise, pane):
    """The sky (`PANE` of the solid's panes) mirrored in sixteen pixels of glass or paint, more of it higher up; height: -1 at the
    solid's foot, 1 at its top."""
    mirror = least_share + rise * (height + np.float32(1.0))
    return blend(red, pane[PANE], mirror), blend(green, pane[PANE + 1], mirror), blend(blue, pane[PANE + 2], mirror)


@njit(**INLINE)
def light_curved(red, green, blue, nx, ny, nz, sun_x, sun_y, sun_z, light, pane):
    """Light on sixteen pixels of a curved face; n (of any length) and sun in the solid's frame, colours those in full light."""
    zero = np.float32(0.0)
    per = np.float32(1.0) / sqrt(fma(nx, nx, fma(ny, ny, nz * nz)))
    cosine = greatest(fma(nx, sun_x, fma(ny, sun_y, nz * sun_z)) * per, zero)
    up = nz * per
    sky = ASIDE + up * where(up > zero, splat(UP - ASIDE), ASIDE - DOWN)
    veil_r, veil_g, veil_b = pane[VEIL], pane[VEIL + 1], pane[VEIL + 2]
    return (
        fma(red - veil_r, fma(sky, light[AMBIENT], light[DIRECT] * cosine), splat(veil_r)),
        fma(green - veil_g, fma(sky, light[AMBIENT + 1], light[DIRECT + 1] * cosine), splat(veil_g)),
        fma(blue - veil_b, fma(sky, light[AMBIENT + 2], light[DIRECT + 2] * cosine), splat(veil_b)),
    )
