"""Colours of the ground at several resolutions, so that markings neither shimmer nor vanish in the distance.

Knows the ground raster; knows nothing about rays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.roads.driving_map import GroundClass, GroundRaster
from sim.sensors.cast import FAST

LEVELS = 7

_COLORS = {
    GroundClass.TERRAIN: (92, 108, 62),
    GroundClass.ROAD: (78, 79, 82),
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
_GRAIN = {GroundClass.TERRAIN: 0.30, GroundClass.ROAD: 0.14, GroundClass.SIDEWALK: 0.08, GroundClass.KERB: 0.06}

PALETTE = np.array([_COLORS[c] for c in GroundClass], np.float32)
SEMANTIC_OF = np.array([_SEMANTIC[c] for c in GroundClass], np.uint8)
GRAIN_OF = np.array([_GRAIN.get(c, 0.05) for c in GroundClass], np.float32)


@dataclass(frozen=True)
class GroundTexture:
    """classes: (rows, columns) uint8. texels: (N, 3) uint8, all levels after one another, each row by row.

    Level l has cells of cell_m * 2**l; offset, rows and columns (LEVELS,) int64 say where it lies. Level 0 holds no
    colours of its own: it is the palette of the classes.
    """

    classes: NDArray[np.uint8]
    texels: NDArray[np.uint8]
    offset: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    origin: NDArray[np.float64]
    cell_m: float

    @staticmethod
    def of(ground: GroundRaster) -> GroundTexture:
        """Average the colours of 2 x 2 cells, again and again."""
        rows, columns = ground.classes.shape
        picture = cv2.resize(
            PALETTE.astype(np.uint8)[ground.classes],
            (max(1, columns // 2), max(1, rows // 2)),
            interpolation=cv2.INTER_AREA,
        )
        levels, shapes = [np.zeros((0, 3), np.uint8)], [(rows, columns)]
        for _ in range(1, LEVELS):
            levels.append(picture.reshape(-1, 3))
            shapes.append(picture.shape[:2])
            smaller = (max(1, picture.shape[1] // 2), max(1, picture.shape[0] // 2))
            picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        offset = np.cumsum([0, *[len(level) for level in levels[:-1]]])
        return GroundTexture(
            classes=ground.classes,
            texels=np.concatenate(levels),
            offset=offset.astype(np.int64),
            rows=np.array([r for r, _ in shapes], np.int64),
            columns=np.array([c for _, c in shapes], np.int64),
            origin=ground.origin,
            cell_m=ground.cell_m,
        )


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
