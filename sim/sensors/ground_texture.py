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
from sim.sensors.cast import FAST, GROUND

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

SEMANTIC_OF = np.array([_SEMANTIC[c] for c in GroundClass], np.uint8)
GRAIN_OF = np.array([_GRAIN.get(c, 0.05) for c in GroundClass], np.float32)


# What lies under a marking.
_UNDER = {k: GroundClass.ROAD for k in (
    GroundClass.LINE_WHITE, GroundClass.LINE_YELLOW, GroundClass.STOP_LINE, GroundClass.CROSSWALK
)}  # fmt: skip
SURFACE = np.array([_COLORS[_UNDER.get(c, c)] for c in GroundClass], np.float32)
WHITE, YELLOW = (np.array(_COLORS[c], np.float32) for c in (GroundClass.LINE_WHITE, GroundClass.LINE_YELLOW))
_YELLOW = int(GroundClass.LINE_YELLOW)
# Set in `near` where a cell or one beside it has paint or another class: there, colours are interpolated.
MIXED = np.uint8(128)
# Levels below the texture's own: how much smaller than a cell a pixel's footprint is, in powers of two.
FINER = 2
_TERRAIN_TEXEL = np.uint32(sum(c << 8 * k for k, c in enumerate(_COLORS[GroundClass.TERRAIN])))


@dataclass(frozen=True)
class GroundTexture:
    """classes, near, paint: (rows, columns) uint8. texels: (N,) uint32 red, green, blue and 1 where the texel differs from one
    beside it, from the lowest byte up: levels 1 and more after one another, each row by row.

    near: class, and `MIXED`. paint: share of the cell under a marking, 0 to 255. Level l has cells of cell_m * 2**l; offset and
    columns (LEVELS,) int64 say where it lies.
    """

    classes: NDArray[np.uint8]
    near: NDArray[np.uint8]
    paint: NDArray[np.uint8]
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
        mixed = (cv2.erode(classes, around) != cv2.dilate(classes, around)) | (cv2.dilate(paint, around) > 0)
        rows, columns = classes.shape
        size = (max(1, columns // 2), max(1, rows // 2))
        picture = cv2.resize(_painted(classes, paint), size, interpolation=cv2.INTER_AREA)
        levels, widths = [np.zeros(0, np.uint32)], [columns]
        for _ in range(1, LEVELS):
            levels.append(_packed(picture).reshape(-1))
            widths.append(picture.shape[1])
            smaller = (max(1, picture.shape[1] // 2), max(1, picture.shape[0] // 2))
            picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        return GroundTexture(
            classes=classes,
            near=classes | (mixed.astype(np.uint8) * MIXED),
            paint=paint,
            texels=np.concatenate(levels),
            offset=np.cumsum([0, *[len(level) for level in levels[:-1]]]).astype(np.int64),
            columns=np.array(widths, np.int64),
            origin=ground.origin,
            cell_m=ground.cell_m,
        )

    def arrays(self) -> tuple[Any, ...]:
        """What the shading of cameras takes."""
        return self.texels, self.offset, self.columns, self.near, self.paint, self.origin, self.cell_m


def _painted(classes: NDArray[np.uint8], paint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: the surface with its markings, each cell as far as it is painted."""
    picture = SURFACE.astype(np.uint8)[classes]
    spots = np.flatnonzero(paint)
    share = (paint.reshape(-1)[spots] / 255.0)[:, None]
    yellow = cv2.dilate((classes == _YELLOW).astype(np.uint8), np.ones((3, 3), np.uint8)).reshape(-1)[spots, None] > 0
    flat = picture.reshape(-1, 3)
    flat[spots] = np.rint(flat[spots] * (1 - share) + np.where(yellow, YELLOW, WHITE) * share).astype(np.uint8)
    return picture


def _packed(picture: NDArray[np.uint8]) -> NDArray[np.uint32]:
    around = np.ones((3, 3), np.uint8)
    mixed = (cv2.dilate(picture, around) - cv2.erode(picture, around)).max(axis=-1) > 3
    return np.ascontiguousarray(np.dstack([picture, mixed.astype(np.uint8)])).view(np.uint32)[..., 0]


def grain_tiles() -> NDArray[np.float32]:
    """(3, 256, 256) float32 about -0.5 to 0.5: coarse grain, all grain, and fine grain for the closest pixels; each wraps."""
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
    return (0.29 * np.stack([0.8 * coarse, everything, tiles[3]])).clip(-1.0, 1.0).astype(np.float32)


@njit(**FAST)
def ground_texels_row(code, level, cell_column, cell_row, across, along, ground, noise, colors, semantic, labels):
    """Base colour and texture of the ground pixels of a row, into rows 3 to 6 of colors (and their class).

    across, along: places within the cell, 0 to 1. Most of the ground is of one colour and takes one look; where colours
    meet, those of the cells around are interpolated, and the edge of a marking is drawn where its share crosses a half.
    """
    texels, offset, columns, near, paint, _, _ = ground
    low, one, half = np.uint32(255), np.float32(1.0), np.float32(0.5)
    rows_0, columns_0 = np.uint32(near.shape[0] - 2), np.uint32(near.shape[1] - 2)
    for u in range(code.shape[0]):
        if code[u] != GROUND:
            continue
        c, r = cell_column[u], cell_row[u]
        step = np.int32(level[u])
        fine = step - np.int32(FINER)
        inside = (np.uint32(c - 1) < columns_0) & (np.uint32(r - 1) < rows_0)
        mark = near[np.uint32(r), np.uint32(c)] if inside else np.uint8(0)
        kind = mark & np.uint8(127)
        if labels:
            semantic[u] = SEMANTIC_OF[kind]
        tile = np.uint32(1) if fine <= 0 else np.uint32(0)
        grain = noise[tile, np.uint32(r) & low, np.uint32(c) & low]
        x, y = across[u], along[u]
        if step == 0:
            grain += (
                half
                * noise[
                    2,
                    np.uint32(4 * r + np.int32(np.float32(4.0) * y)) & low,
                    np.uint32(4 * c + np.int32(np.float32(4.0) * x)) & low,
                ]
            )
        colors[6, u] = GRAIN_OF[kind] * grain
        if (fine <= 0) & (mark < MIXED):
            colors[3, u], colors[4, u], colors[5, u] = SURFACE[kind, 0], SURFACE[kind, 1], SURFACE[kind, 2]
            continue
        if fine <= 0:
            # Paint by bilinear, surfaces by quadratic B-spline weights: their edges come from whole cells and need more.
            left, low_y = half * (one - x) * (one - x), half * (one - y) * (one - y)
            right, high_y = half * x * x, half * y * y
            paint_left, paint_low = max(half - x, np.float32(0.0)), max(half - y, np.float32(0.0))
            paint_right, paint_high = max(x - half, np.float32(0.0)), max(y - half, np.float32(0.0))
            red, green, blue, cover, yellow = (
                np.float32(0.0),
                np.float32(0.0),
                np.float32(0.0),
                np.float32(0.0),
                np.int32(0),
            )
            for j in range(3):
                weight_y = low_y if j == 0 else (one - low_y - high_y if j == 1 else high_y)
                paint_y = paint_low if j == 0 else (one - paint_low - paint_high if j == 1 else paint_high)
                for i in range(3):
                    weight = weight_y * (left if i == 0 else (one - left - right if i == 1 else right))
                    thick = paint_y * (
                        paint_left if i == 0 else (one - paint_left - paint_right if i == 1 else paint_right)
                    )
                    at_r, at_c = np.uint32(r + j - 1), np.uint32(c + i - 1)
                    there = near[at_r, at_c] & np.uint8(127)
                    red += weight * SURFACE[there, 0]
                    green += weight * SURFACE[there, 1]
                    blue += weight * SURFACE[there, 2]
                    cover += thick * np.float32(np.int32(paint[at_r, at_c]))
                    yellow += 1 if there == _YELLOW else 0
            sharp = np.float32(2.6) if step == 0 else (np.float32(1.9) if step == 1 else np.float32(1.25))
            cover = (cover * np.float32(1.0 / 255.0) - half) * sharp + half
            cover = min(max(cover, np.float32(0.0)), one)
            white = yellow == 0
            red += ((WHITE[0] if white else YELLOW[0]) - red) * cover
            green += ((WHITE[1] if white else YELLOW[1]) - green) * cover
            blue += ((WHITE[2] if white else YELLOW[2]) - blue) * cover
            colors[3, u], colors[4, u], colors[5, u] = red, green, blue
            continue
        width = columns[fine]
        texel = texels[np.uint64(offset[fine] + (r >> fine) * width + (c >> fine))] if inside else _TERRAIN_TEXEL
        red, green, blue = _red(texel), _green(texel), _blue(texel)
        if (texel >> np.uint32(24)) > np.uint32(0):
            cells = np.int32(1) << fine
            per = one / np.float32(cells)
            fx = (np.float32(c & (cells - 1)) + x) * per
            fy = (np.float32(r & (cells - 1)) + y) * per
            last_c, last_r = np.int32(width - 1), np.int32(np.int32(near.shape[0]) >> fine) - np.int32(1)
            c0, r0 = (c >> fine) - (1 if fx < half else 0), (r >> fine) - (1 if fy < half else 0)
            fx = fx + half if fx < half else fx - half
            fy = fy + half if fy < half else fy - half
            c0, r0 = min(max(c0, 0), last_c - 1), min(max(r0, 0), last_r - 1)
            at = offset[fine] + r0 * width + c0
            t00, t01 = texels[np.uint64(at)], texels[np.uint64(at + 1)]
            t10, t11 = texels[np.uint64(at + width)], texels[np.uint64(at + width + 1)]
            w00, w01, w10, w11 = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
            red = w00 * _red(t00) + w01 * _red(t01) + w10 * _red(t10) + w11 * _red(t11)
            green = w00 * _green(t00) + w01 * _green(t01) + w10 * _green(t10) + w11 * _green(t11)
            blue = w00 * _blue(t00) + w01 * _blue(t01) + w10 * _blue(t10) + w11 * _blue(t11)
        colors[3, u], colors[4, u], colors[5, u] = red, green, blue


@njit(**FAST)
def _red(texel):
    return np.float32(np.int32(texel & np.uint32(255)))


@njit(**FAST)
def _green(texel):
    return np.float32(np.int32((texel >> np.uint32(8)) & np.uint32(255)))


@njit(**FAST)
def _blue(texel):
    return np.float32(np.int32((texel >> np.uint32(16)) & np.uint32(255)))


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


@njit(**FAST)
def cells_row(depth, dx, dy, ox, oy, place, columns, rows):
    """Cells of the raster under where the rays of a row end; int32, outside the raster for rays that meet nothing."""
    column, row, rest_x, rest_y, cos_cell, sin_cell = place
    for i in range(depth.shape[0]):
        x, y = ox + depth[i] * dx[i], oy + depth[i] * dy[i]
        across, along = rest_x + cos_cell * x - sin_cell * y, rest_y + sin_cell * x + cos_cell * y
        c, r = np.int32(across), np.int32(along)
        c -= np.int32(1) if across < np.float32(c) else np.int32(0)
        r -= np.int32(1) if along < np.float32(r) else np.int32(0)
        columns[i], rows[i] = column + c, row + r


@njit(**FAST)
def cell_places_row(depth, dx, dy, ox, oy, place, columns, rows, across, along):
    """The same as `cells_row`, and where in its cell each ray ends, 0 to 1."""
    column, row, rest_x, rest_y, cos_cell, sin_cell = place
    for i in range(depth.shape[0]):
        x, y = ox + depth[i] * dx[i], oy + depth[i] * dy[i]
        at_x, at_y = rest_x + cos_cell * x - sin_cell * y, rest_y + sin_cell * x + cos_cell * y
        c, r = np.int32(at_x), np.int32(at_y)
        c -= np.int32(1) if at_x < np.float32(c) else np.int32(0)
        r -= np.int32(1) if at_y < np.float32(r) else np.int32(0)
        columns[i], rows[i] = column + c, row + r
        across[i], along[i] = at_x - np.float32(c), at_y - np.float32(r)
