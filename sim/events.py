"""What a tick brings to the ego: collisions, and lane, light and route events.

Knows the ground, static solids and boxes of vehicles; knows nothing about how anybody decides, or about rewards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import GRID_CELL_M, LaneGraph
from sim.numba_setup import KERNEL
from sim.roads.driving_map import GroundRaster
from sim.solids import Boxes

OFF_ROUTE_M = 30.0
CORNER_TOLERANCE_M = 0.2
ARRIVAL_M = 2.0
SOLID_CELL_M = 8.0
_LOW_SOLID_M = 1.5
_FLAT_SOLID_M = 0.2
RED = 1
COLLIDED_VEHICLE, COLLIDED_PEDESTRIAN, COLLIDED_STATIC = 1, 2, 3
PEDESTRIAN_KIND = 6


class Surroundings(NamedTuple):
    """Ground and static solids as the kernels read them.

    drivable: (rows, columns) uint8; ground: (3,) float64 x, y of its corner and size of a cell, m. solids: (N, 5) float64 x,
    y, yaw, half length, half width of what a car can hit; first: (N,) int32, the first solid of the thing that each is part of (a
    parked car has two dozen); cell_start, cell_solid: CSR of a grid of SOLID_CELL_M; grid: (4,) float64 x and y of its corner,
    columns, rows.
    """

    drivable: NDArray[np.uint8]
    ground: NDArray[np.float64]
    solids: NDArray[np.float64]
    first: NDArray[np.int32]
    cell_start: NDArray[np.int32]
    cell_solid: NDArray[np.int32]
    grid: NDArray[np.float64]


def build_surroundings(ground: GroundRaster, scenery: Boxes) -> Surroundings:
    """Arrays for the kernels. Only solids whose bottom is below 1.5 m and whose top is above 0.2 m can be hit.

    The raster is used as it is (it is large), everything else is the result's own memory.
    """
    hit = _can_be_hit(scenery)
    solids = np.column_stack([scenery.center[hit, :2], scenery.yaw_rad[hit], scenery.half_size[hit, :2]])
    solids = np.ascontiguousarray(solids, np.float64)
    corner_info = np.array([ground.origin[0], ground.origin[1], ground.cell_m], np.float64)
    drivable = np.ascontiguousarray(ground.drivable, np.uint8)
    drivable = drivable if drivable.flags.writeable else drivable.copy()
    if len(hit) == 0:
        empty = np.zeros(4, np.float64)
        nothing = np.zeros(0, np.int32)
        return Surroundings(drivable, corner_info, solids, nothing, np.zeros(1, np.int32), nothing, empty)

    cos, sin = np.abs(np.cos(solids[:, 2])), np.abs(np.sin(solids[:, 2]))
    reach = np.column_stack([cos * solids[:, 3] + sin * solids[:, 4], sin * solids[:, 3] + cos * solids[:, 4]])
    corner = (solids[:, :2] - reach).min(axis=0)
    columns, rows = (((solids[:, :2] + reach).max(axis=0) - corner) / SOLID_CELL_M).astype(int) + 1
    low = ((solids[:, :2] - reach - corner) / SOLID_CELL_M).astype(int)
    high = ((solids[:, :2] + reach - corner) / SOLID_CELL_M).astype(int)
    cells, members = [], []
    for k in range(len(solids)):
        across, up = np.meshgrid(np.arange(low[k, 0], high[k, 0] + 1), np.arange(low[k, 1], high[k, 1] + 1))
        cells.append((up * columns + across).ravel())
        members.append(np.full(across.size, k))
    cell, member = np.concatenate(cells), np.concatenate(members)
    order = np.argsort(cell, kind="stable")
    start = np.zeros(columns * rows + 1, np.int32)
    np.cumsum(np.bincount(cell, minlength=columns * rows), out=start[1:])
    grid = np.array([corner[0], corner[1], columns, rows], np.float64)
    first = _first_of_thing(scenery.instance[hit])
    return Surroundings(drivable, corner_info, solids, first, start, member[order].astype(np.int32), grid)


def _can_be_hit(scenery: Boxes) -> NDArray[np.intp]:
    """Rows of the solids that a car can hit."""
    bottom = scenery.center[:, 2] - scenery.half_size[:, 2]
    top = scenery.center[:, 2] + scenery.half_size[:, 2]
    return np.flatnonzero((bottom < _LOW_SOLID_M) & (top > _FLAT_SOLID_M))


def first_solids(scenery: Boxes) -> dict[int, int]:
    """Instance of each thing made of several solids to the first of them, as in `Surroundings.first`."""
    instances, first = np.unique(scenery.instance[_can_be_hit(scenery)], return_index=True)
    return {instance: k for instance, k in zip(instances.tolist(), first.tolist(), strict=True) if instance != 0}


def _first_of_thing(instance: NDArray[np.int32]) -> NDArray[np.int32]:
    """(N,) int32: where the instance of each solid occurs first; those of instance 0 are things of their own."""
    _, first, which = np.unique(instance, return_index=True, return_inverse=True)
    return np.where(instance == 0, np.arange(len(instance)), first[which]).astype(np.int32)


@njit(**KERNEL)
def boxes_overlap(
    ax: float, ay: float, ayaw: float, alength: float, awidth: float,
    bx: float, by: float, byaw: float, blength: float, bwidth: float,
) -> bool:  # fmt: skip
    """Whether two oriented rectangles overlap (separating axes). lengths and widths are half sizes, m."""
    dx, dy = bx - ax, by - ay
    reach = alength + awidth + blength + bwidth
    if dx * dx + dy * dy > reach * reach:
        return False
    ca, sa, cb, sb = math.cos(ayaw), math.sin(ayaw), math.cos(byaw), math.sin(byaw)
    along, across = abs(ca * cb + sa * sb), abs(ca * sb - sa * cb)
    if abs(dx * ca + dy * sa) > alength + blength * along + bwidth * across:
        return False
    if abs(-dx * sa + dy * ca) > awidth + blength * across + bwidth * along:
        return False
    if abs(dx * cb + dy * sb) > blength + alength * along + awidth * across:
        return False
    return not abs(-dx * sb + dy * cb) > bwidth + alength * across + awidth * along


@njit(**KERNEL)
def collision_of(cars: NDArray[np.void], around: Surroundings) -> int:
    """`CollisionKind` of the ego (car 0): its box against all others' and every solid's. A vehicle counts first, then people."""
    me, found = cars[0], 0
    half_length, half_width = 0.5 * me.length, 0.5 * me.width
    for j in range(1, len(cars)):
        other = cars[j]
        if other.active == 1 and boxes_overlap(
            me.x, me.y, me.yaw, half_length, half_width,
            other.x, other.y, other.yaw, 0.5 * other.length, 0.5 * other.width,
        ):  # fmt: skip
            if other.kind < PEDESTRIAN_KIND:
                return COLLIDED_VEHICLE
            if other.kind == PEDESTRIAN_KIND:
                found = COLLIDED_PEDESTRIAN
            elif found == 0:
                found = COLLIDED_STATIC
    if found != 0:
        return found
    reach_x = abs(math.cos(me.yaw)) * half_length + abs(math.sin(me.yaw)) * half_width
    reach_y = abs(math.sin(me.yaw)) * half_length + abs(math.cos(me.yaw)) * half_width
    columns, rows = int(around.grid[2]), int(around.grid[3])
    left = max(math.floor((me.x - reach_x - around.grid[0]) / SOLID_CELL_M), 0)
    right = min(math.floor((me.x + reach_x - around.grid[0]) / SOLID_CELL_M), columns - 1)
    low = max(math.floor((me.y - reach_y - around.grid[1]) / SOLID_CELL_M), 0)
    high = min(math.floor((me.y + reach_y - around.grid[1]) / SOLID_CELL_M), rows - 1)
    for row in range(low, high + 1):
        for column in range(left, right + 1):
            cell = row * columns + column
            for k in range(around.cell_start[cell], around.cell_start[cell + 1]):
                solid = around.solids[around.cell_solid[k]]
                if boxes_overlap(
                    me.x, me.y, me.yaw, half_length, half_width, solid[0], solid[1], solid[2], solid[3], solid[4]
                ):
                    return COLLIDED_STATIC
    return 0


@njit(**KERNEL)
def is_off_road(me: np.void, around: Surroundings) -> bool:
    """Whether a corner of the box, drawn in by CORNER_TOLERANCE_M along both sides, stands on ground that is not drivable."""
    c, s = math.cos(me.yaw), math.sin(me.yaw)
    half_length, half_width = 0.5 * me.length - CORNER_TOLERANCE_M, 0.5 * me.width - CORNER_TOLERANCE_M
    rows, columns = around.drivable.shape
    for corner in range(4):
        ahead = half_length if corner < 2 else -half_length
        left = half_width if corner % 2 == 0 else -half_width
        column = math.floor((me.x + c * ahead - s * left - around.ground[0]) / around.ground[2])
        row = math.floor((me.y + s * ahead + c * left - around.ground[1]) / around.ground[2])
        if column < 0 or row < 0 or column >= columns or row >= rows or around.drivable[row, column] == 0:
            return True
    return False


@njit(**KERNEL)
def is_wrong_way(me: np.void, graph: LaneGraph) -> bool:
    """Whether the centre of the box is over a lane against which it points by more than 120 degrees, and over none along
    which it points within 90 degrees (lanes through junctions count)."""
    columns, rows = int(graph.grid[2]), int(graph.grid[3])
    column = math.floor((me.x - graph.grid[0]) / GRID_CELL_M)
    row = math.floor((me.y - graph.grid[1]) / GRID_CELL_M)
    against = False
    for r in range(max(row - 1, 0), min(row + 2, rows)):
        for c in range(max(column - 1, 0), min(column + 2, columns)):
            cell = r * columns + c
            for k in range(graph.cell_start[cell], graph.cell_start[cell + 1]):
                point = graph.points[graph.cell_point[k]]
                dx, dy = me.x - point.x, me.y - point.y
                if dx * dx + dy * dy > 9.0:
                    continue
                cos, sin = math.cos(point.yaw), math.sin(point.yaw)
                if abs(dx * cos + dy * sin) > 1.0:
                    continue
                if abs(dy * cos - dx * sin) > graph.lanes[graph.cell_lane[k]].half_width:
                    continue
                same = math.cos(me.yaw - point.yaw)
                if same > 0.0:
                    return False
                against = against or same < -0.5
    return against
