"""Colours of the ground at several resolutions, so that markings neither shimmer nor vanish in the distance.

Knows the ground raster; knows nothing about rays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.roads.driving_map import GroundClass, GroundRaster
from sim.sensors.cast import FAST, INLINE
from sim.simd import (
    all_lanes,
    any_lane,
    blend,
    first_false,
    floor,
    fma,
    greatest,
    lane,
    least,
    shift_right,
    splat,
    to_float,
    to_int,
    where,
)
from sim.simd_memory import gather, gather_pair, prefetch_places

LEVELS = 7

_COLORS = {
    GroundClass.TERRAIN: (100, 109, 66),
    GroundClass.ROAD: (86, 87, 89),
    GroundClass.LINE_WHITE: (226, 226, 220),
    GroundClass.LINE_YELLOW: (222, 178, 52),
    GroundClass.STOP_LINE: (230, 230, 226),
    GroundClass.CROSSWALK: (222, 222, 216),
    GroundClass.SIDEWALK: (150, 147, 141),
    GroundClass.KERB: (176, 174, 168),
}
_SEMANTIC = {
    GroundClass.TERRAIN: SemanticClass.TERRAIN,
    GroundClass.ROAD: SemanticClass.ROAD,
    GroundClass.LINE_WHITE: SemanticClass.LANE_MARKING,
    GroundClass.LINE_YELLOW: SemanticClass.LANE_MARKING,
    GroundClass.STOP_LINE: SemanticClass.LANE_MARKING,
    GroundClass.CROSSWALK: SemanticClass.CROSSWALK,
    GroundClass.SIDEWALK: SemanticClass.SIDEWALK,
    GroundClass.KERB: SemanticClass.SIDEWALK,
}
# How much the grain of a class varies its brightness close up.
_GRAIN = {GroundClass.TERRAIN: 0.42, GroundClass.ROAD: 0.20, GroundClass.SIDEWALK: 0.12, GroundClass.KERB: 0.08}

SEMANTIC_OF = np.array([*(_SEMANTIC[c] for c in GroundClass), 0, 0, 0], np.uint8)  # `gather` reads three bytes more
GRAIN_OF = np.array([_GRAIN.get(c, 0.05) for c in GroundClass], np.float32)


# What lies under a marking.
_UNDER = {k: GroundClass.ROAD for k in (
    GroundClass.LINE_WHITE, GroundClass.LINE_YELLOW, GroundClass.STOP_LINE, GroundClass.CROSSWALK
)}  # fmt: skip
_SURFACE_CLASS = np.array([_UNDER.get(c, c) for c in GroundClass], np.uint8)
SURFACE = np.array([_COLORS[_UNDER.get(c, c)] for c in GroundClass], np.float32)
WHITE, YELLOW = (np.array(_COLORS[c], np.float32) for c in (GroundClass.LINE_WHITE, GroundClass.LINE_YELLOW))
_YELLOW = int(GroundClass.LINE_YELLOW)
# A class's colour, packed as texels are.
SURFACE_WORD = np.array([sum(int(SURFACE[k, c]) << 8 * c for c in range(3)) for k in range(len(SURFACE))], np.int32)
# Parts of `cells`: the class; whether a surface of another colour is next to it; whether it or one beside it has paint.
CLASS, BORDER, PAINT = 15, 64, 128
# Levels below the texture's own: how much smaller than a cell a pixel's footprint is, in powers of two.
FINER = 2
_TERRAIN_TEXEL = np.uint32(sum(c << 8 * k for k, c in enumerate(_COLORS[GroundClass.TERRAIN])))


@dataclass(frozen=True)
class GroundTexture:
    """classes: (rows, columns) uint8. cells: the same in uint16: `CLASS`, `BORDER`, `PAINT`, and from the ninth bit on the share
    of the cell that lies under a marking, 0 to 255.

    texels: (N,) uint32: red, green, blue, and class in the middle with `BORDER` where the texel differs from one beside it, from
    the lowest byte up; levels 1 and more after one another, each row by row. Level l has cells of cell_m * 2**l; offset and
    columns (LEVELS,) int64 say where it lies.
    """

    classes: NDArray[np.uint8]
    cells: NDArray[np.uint16]
    texels: NDArray[np.uint32]
    offset: NDArray[np.int64]
    columns: NDArray[np.int64]
    origin: NDArray[np.float64]
    cell_m: float

    @staticmethod
    def of(ground: GroundRaster) -> GroundTexture:
        """Average the colours of 2 x 2 cells, again and again."""
        classes, paint = ground.classes, ground.paint
        around = np.ones((3, 3), np.uint8)
        surface = _SURFACE_CLASS[classes]
        border = cv2.erode(surface, around) != cv2.dilate(surface, around)
        flags = border * np.uint16(BORDER) + (cv2.dilate(paint, around) > 0) * np.uint16(PAINT)
        rows, columns = classes.shape
        size = (max(1, columns // 2), max(1, rows // 2))
        picture = cv2.resize(_painted(classes, paint), size, interpolation=cv2.INTER_AREA)
        levels, widths = [np.zeros(0, np.uint32)], [columns]
        for level in range(1, LEVELS):
            step = 2**level
            middle = classes[step // 2 :: step, step // 2 :: step][: picture.shape[0], : picture.shape[1]]
            levels.append(_packed(picture, middle).reshape(-1))
            widths.append(picture.shape[1])
            smaller = (max(1, picture.shape[1] // 2), max(1, picture.shape[0] // 2))
            picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        return GroundTexture(
            classes=classes,
            cells=classes.astype(np.uint16) | flags | (paint.astype(np.uint16) << 8),
            texels=np.concatenate(levels),
            offset=np.cumsum([0, *[len(level) for level in levels[:-1]]]).astype(np.int64),
            columns=np.array(widths, np.int64),
            origin=ground.origin,
            cell_m=ground.cell_m,
        )

    def arrays(self) -> tuple[Any, ...]:
        """What the shading of cameras takes."""
        return self.texels, self.offset, self.columns, self.cells, self.origin, self.cell_m


def _painted(classes: NDArray[np.uint8], paint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: the surface with its markings, each cell as far as it is painted."""
    picture = SURFACE.astype(np.uint8)[classes]
    spots = np.flatnonzero(paint)
    share = (paint.reshape(-1)[spots] / 255.0)[:, None]
    yellow = cv2.dilate((classes == _YELLOW).astype(np.uint8), np.ones((3, 3), np.uint8)).reshape(-1)[spots, None] > 0
    flat = picture.reshape(-1, 3)
    flat[spots] = np.rint(flat[spots] * (1 - share) + np.where(yellow, YELLOW, WHITE) * share).astype(np.uint8)
    return picture


def _packed(picture: NDArray[np.uint8], classes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    around = np.ones((3, 3), np.uint8)
    mixed = (cv2.dilate(picture, around) - cv2.erode(picture, around)).max(axis=-1) > 3
    padded = np.zeros(mixed.shape, np.uint8)
    padded[: classes.shape[0], : classes.shape[1]] = classes
    marks = padded | (mixed * np.uint8(BORDER))
    return np.ascontiguousarray(np.dstack([picture, marks])).view(np.uint32)[..., 0]


def grain_tiles() -> NDArray[np.uint8]:
    """(3, 256, 256) uint8, 128 for none and 127 more or less for all of it (`grain_at`): coarse grain, all grain, and fine grain
    for the closest pixels; each wraps."""
    rng = np.random.default_rng(7)
    tiles = []
    for blur in (24.0, 6.0, 1.2, 0.0):
        tile = np.tile(rng.random((256, 256)) - 0.5, (3, 3))
        if blur:
            tile = cv2.GaussianBlur(tile, (0, 0), blur)
        tile = tile[256:512, 256:512]
        tiles.append(tile / tile.std())
    coarse = 0.6 * tiles[0] + 0.4 * tiles[1]
    everything = 0.35 * tiles[0] + 0.3 * tiles[1] + 0.45 * tiles[2] + 0.3 * tiles[3]
    grain = (0.29 * np.stack([0.8 * coarse, everything, tiles[3]])).clip(-1.0, 1.0)
    padded = np.zeros(grain.size + 3, np.uint8)  # `gather` reads three bytes more
    padded[: grain.size] = np.rint(128 + 127 * grain).reshape(-1)
    return padded[: grain.size].reshape(grain.shape)


@njit(**INLINE)
def _unpacked(word):
    """Red, green and blue of sixteen packed texels."""
    low = np.int32(255)
    return to_float(word & low), to_float((word >> 8) & low), to_float((word >> 16) & low)


@njit(**INLINE)
def grain_at(noise, place):
    """Grain at sixteen places of the tiles, -1 to 1."""
    return (to_float(gather(noise, place)) - np.float32(128.0)) * np.float32(1.0 / 127.0)


@njit(**INLINE)
def _bordered(cells, width, at, x, y):
    """Colours of sixteen places where surfaces of several classes meet: those of nine cells, by quadratic B-spline weights, since
    their edges run along whole cells."""
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    left, low = half * (one - x) * (one - x), half * (one - y) * (one - y)
    right, high = half * x * x, half * y * y
    middle, centre = one - left - right, one - low - high
    red, green, blue = splat(zero), splat(zero), splat(zero)
    for j in range(3):
        weight_y = low if j == 0 else (centre if j == 1 else high)
        first = at + np.int32((j - 1) * width - 1)
        cell_left, cell_middle = gather_pair(cells, first)
        cell_right = gather(cells, first + np.int32(2))
        for i in range(3):
            weight = weight_y * (left if i == 0 else (middle if i == 1 else right))
            kind = (cell_left if i == 0 else (cell_middle if i == 1 else cell_right)) & np.int32(CLASS)
            r, g, b = _unpacked(gather(SURFACE_WORD, kind))
            red, green, blue = fma(weight, r, red), fma(weight, g, green), fma(weight, b, blue)
    return red, green, blue


@njit(**INLINE)
def _painted_share(cells, width, at, x, y, step):
    """How much of sixteen places lies under a marking, and which markings are yellow: the shares of four cells are interpolated,
    and the edge is drawn where they cross a half."""
    one, half = np.float32(1.0), np.float32(0.5)
    left, low = x < half, y < half
    first = at - where(left, splat(np.int32(1)), 0) - where(low, splat(np.int32(width)), 0)
    fx, fy = where(left, x + half, x - half), where(low, y + half, y - half)
    c00, c01 = gather_pair(cells, first)
    c10, c11 = gather_pair(cells, first + np.int32(width))
    lower = blend(to_float(c00 >> 8), to_float(c01 >> 8), fx)
    upper = blend(to_float(c10 >> 8), to_float(c11 >> 8), fx)
    cover = blend(lower, upper, fy) * np.float32(1.0 / 255.0)
    sharp = np.float32(2.6) if step == 0 else (np.float32(1.9) if step == 1 else np.float32(1.25))
    kind = np.int32(CLASS)
    yellow = (
        ((c00 & kind) == _YELLOW) | ((c01 & kind) == _YELLOW) | ((c10 & kind) == _YELLOW) | ((c11 & kind) == _YELLOW)
    )
    return least(greatest((cover - half) * sharp + half, np.float32(0.0)), one), yellow


@njit(**INLINE)
def _between(texels, first, width, height, fine, column, row, x, y):
    """Colours of sixteen places at a coarse level, interpolated between four texels."""
    one, half = np.float32(1.0), np.float32(0.5)
    cells = np.int32(1) << fine
    per, within = one / np.float32(cells), cells - np.int32(1)
    fx, fy = (to_float(column & within) + x) * per, (to_float(row & within) + y) * per
    left, low, zero = fx < half, fy < half, splat(np.int32(0))
    c0 = (column >> fine) - where(left, splat(np.int32(1)), 0)
    r0 = (row >> fine) - where(low, splat(np.int32(1)), 0)
    fx, fy = where(left, fx + half, fx - half), where(low, fy + half, fy - half)
    c0, r0 = least(greatest(c0, zero), width - np.int32(2)), least(greatest(r0, zero), height - np.int32(2))
    at = first + r0 * width + c0
    low_left, low_right = gather_pair(texels, at)
    high_left, high_right = gather_pair(texels, at + width)
    ra, ga, ba = _unpacked(low_left)
    rb, gb, bb = _unpacked(low_right)
    rc, gc, bc = _unpacked(high_left)
    rd, gd, bd = _unpacked(high_right)
    return (
        blend(blend(ra, rb, fx), blend(rc, rd, fx), fy),
        blend(blend(ga, gb, fx), blend(gc, gd, fx), fy),
        blend(blend(ba, bb, fx), blend(bc, bd, fx), fy),
    )


@njit(**INLINE)
def _texels_of_level(step, inside, column, row, x, y, ground, noise):
    """What `ground_texels` gives, at one level and with cells that are inside the raster."""
    texels, offset, columns, cells, _, _ = ground
    fine, low = step - np.int32(FINER), np.int32(255)
    place = ((row & low) << 8) | (column & low)
    if fine > 0:
        first, width, height = np.int32(offset[fine]), np.int32(columns[fine]), np.int32(cells.shape[0]) >> fine
        last_row, last_column = height - np.int32(1), width - np.int32(1)
        at = first + least(row >> fine, last_row) * width + least(column >> fine, last_column)
        word = where(inside, gather(texels, at), np.int32(_TERRAIN_TEXEL))
        red, green, blue = _unpacked(word)
        mark = shift_right(word, 24)
        mixed = (mark & np.int32(BORDER)) != 0
        if any_lane(mixed):
            r, g, b = _between(texels, first, width, height, fine, column, row, x, y)
            red, green, blue = where(mixed, r, red), where(mixed, g, green), where(mixed, b, blue)
        return red, green, blue, grain_at(noise, place), mark & np.int32(CLASS)
    width = np.int32(columns[0])
    at = row * width + column
    cell = where(inside, gather(cells, at), np.int32(0))
    kind = cell & np.int32(CLASS)
    grain = grain_at(noise, place + np.int32(65536))
    if step == 0:
        finer_row, finer_column = (row << 2) + to_int(np.float32(4.0) * y), (column << 2) + to_int(np.float32(4.0) * x)
        finest = np.int32(131072) + (((finer_row & low) << 8) | (finer_column & low))
        grain += np.float32(0.5) * grain_at(noise, finest)
    first = lane(kind, 0)
    word = splat(SURFACE_WORD[first]) if all_lanes(kind == first) else gather(SURFACE_WORD, kind)
    red, green, blue = _unpacked(word)
    border, paint = (cell & np.int32(BORDER)) != 0, (cell & np.int32(PAINT)) != 0
    if any_lane(border):
        r, g, b = _bordered(cells, width, at, x, y)
        red, green, blue = where(border, r, red), where(border, g, green), where(border, b, blue)
    if any_lane(paint):
        cover, yellow = _painted_share(cells, width, at, x, y, step)
        cover = where(paint, cover, np.float32(0.0))
        red = blend(red, where(yellow, splat(YELLOW[0]), WHITE[0]), cover)
        green = blend(green, where(yellow, splat(YELLOW[1]), WHITE[1]), cover)
        blue = blend(blue, where(yellow, splat(YELLOW[2]), WHITE[2]), cover)
    return red, green, blue, grain, kind


@njit(**INLINE)
def ask_for_texels(wanted, steps, column, row, ground):
    """Have brought near what `ground_texels` will look at first in the same places."""
    texels, offset, columns, cells, _, _ = ground
    fine = lane(steps, first_false(~wanted)) - np.int32(FINER)
    if fine > 0:
        width, height = np.int32(columns[fine]), np.int32(cells.shape[0]) >> fine
        ask_for_cells(texels, np.int32(offset[fine]), wanted, column >> fine, row >> fine, width, height)
    else:
        ask_for_cells(cells, np.int32(0), wanted, column, row, np.int32(columns[0]), np.int32(cells.shape[0]))


@njit(**INLINE)
def ask_for_cells(raster, first, wanted, column, row, width, height):
    """Have the wanted of sixteen cells of a raster, which begins at `first` of an array, brought near. The scenes in between have
    driven them out of the caches, and a ray waits longer for its cell than all its light takes."""
    zero, one = splat(np.int32(0)), np.int32(1)
    at = first + least(greatest(row, zero), height - one) * width + least(greatest(column, zero), width - one)
    prefetch_places(raster, where(wanted, at, lane(at, first_false(~wanted))))


@njit(**INLINE)
def ground_texels(wanted, steps, column, row, x, y, ground, noise):
    """Base colour (red, green, blue), brightness, class and semantic class of sixteen places on the ground, where `wanted`.

    steps: levels of the texture; column, row: the cell; x, y: where in it, 0 to 1. Most of the ground is of one colour and
    takes one look. Neighbours may be of different levels: they are done one level after another.
    """
    _, _, columns, cells, _, _ = ground
    width, rows = np.int32(columns[0]), np.int32(cells.shape[0])
    inside = (column >= 1) & (column < width - np.int32(1)) & (row >= 1) & (row < rows - np.int32(1))
    column, row = where(inside, column, np.int32(1)), where(inside, row, np.int32(1))
    # In a loop from the first level on it takes half as long again: nearly always there is but one.
    step = lane(steps, first_false(~wanted))
    red, green, blue, grain, kind = _texels_of_level(step, inside, column, row, x, y, ground, noise)
    todo = wanted & (steps != step)
    while any_lane(todo):
        step = lane(steps, first_false(~todo))
        now = todo & (steps == step)
        r, g, b, more, other = _texels_of_level(step, inside, column, row, x, y, ground, noise)
        red, green, blue = where(now, r, red), where(now, g, green), where(now, b, blue)
        grain, kind = where(now, more, grain), where(now, other, kind)
        todo = todo & (steps != step)
    one, first = np.float32(1.0), lane(kind, first_false(~wanted))
    if all_lanes((kind == first) | ~wanted):
        return red, green, blue, one + grain * GRAIN_OF[first], kind, splat(np.int32(SEMANTIC_OF[first]))
    return red, green, blue, one + grain * gather(GRAIN_OF, kind), kind, gather(SEMANTIC_OF, kind)


@njit(**FAST)
def raster_place(ego_x, ego_y, ego_cos, ego_sin, raster_origin, cell_m):
    """How the ego lies in the raster: its cell (column, row), the float32 rest, and its heading in cells per metre.

    The world is large and float32 is short: whole cells are split off in float64.
    """
    at_x, at_y = (ego_x - raster_origin[0]) / cell_m, (ego_y - raster_origin[1]) / cell_m
    column, row = np.int32(math.floor(at_x)), np.int32(math.floor(at_y))
    return (
        column, row, np.float32(at_x - column), np.float32(at_y - row), np.float32(ego_cos / cell_m),
        np.float32(ego_sin / cell_m),
    )  # fmt: skip


@njit(**INLINE)
def cell_places(t, dx, dy, ox, oy, place):
    """Cells of the raster (column, row) under where sixteen rays end, and where in its cell each ends, 0 to 1."""
    column, row, rest_x, rest_y, cos_cell, sin_cell = place
    x, y = fma(t, dx, ox), fma(t, dy, oy)
    at_x, at_y = fma(x, cos_cell, fma(y, -sin_cell, rest_x)), fma(x, sin_cell, fma(y, cos_cell, rest_y))
    whole_x, whole_y = floor(at_x), floor(at_y)
    return column + to_int(whole_x), row + to_int(whole_y), at_x - whole_x, at_y - whole_y
