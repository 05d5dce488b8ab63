"""Where an ego stands among lanes, ground, stop lines and others: what scores need to know and no sensor says.

Only who asks pays: the world itself never does. Knows lanes, ground and boxes; knows nothing about scores.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.events import SOLID_CELL_M, Surroundings, boxes_overlap, is_wrong_way
from sim.lane_graph import GRID_CELL_M, LaneGraph, wrapped
from sim.numba_setup import KERNEL
from sim.parked import Parked
from sim.roads.network import LaneControl
from sim.step import ParkedVehicle, Standing

FURTHEST_OFF_M = 1.0
BESIDE_LANES_M = 0.5  # that far beside a lane the ego is still in it: CARLA leaves room for the strip before the kerb
AHEAD_S, AHEAD_STEP_S = 3.0, 0.1
STOP_SIGN_RANGE_M = 40.0
SIGNAL_RANGE_M, PASSED_M = 40.0, 6.0  # until the tail is that far behind its line, more than it drives in a tick
BESIDE_ROUTE_M = 6.0  # further beside the route its lines are not passed
MOST_TOUCHED = 16
MOST_PARKED = 16
_ALIGNED = 0.5  # cosine of the angle within which a lane leads the ego's way
_STOP = int(LaneControl.STOP)
# Columns of what the kernel gives back.
_OFFSET, _LIMIT, _OFF_DRIVABLE, _IN_JUNCTION, _SEVERAL, _OFF_LANES, _AGAINST = range(7)
_STOP_SIGN, _STOP_DISTANCE, _SIGNAL, _SIGNAL_DISTANCE, _TOUCHED, _COLUMNS = range(7, 13)


@njit(**KERNEL)
def _off_drivable(x: float, y: float, around: Surroundings) -> float:
    """Distance of a place from drivable ground, m; 0 on it, at most FURTHEST_OFF_M."""
    cell_m = around.ground[2]
    column, row = math.floor((x - around.ground[0]) / cell_m), math.floor((y - around.ground[1]) / cell_m)
    rows, columns = around.drivable.shape
    if 0 <= row < rows and 0 <= column < columns and around.drivable[row, column] != 0:
        return 0.0
    reach = int(FURTHEST_OFF_M / cell_m) + 1
    nearest = FURTHEST_OFF_M
    for r in range(max(row - reach, 0), min(row + reach + 1, rows)):
        for c in range(max(column - reach, 0), min(column + reach + 1, columns)):
            if around.drivable[r, c] != 0:
                dx = x - (around.ground[0] + (c + 0.5) * cell_m)
                dy = y - (around.ground[1] + (r + 0.5) * cell_m)
                nearest = min(nearest, max(math.sqrt(dx * dx + dy * dy) - 0.5 * cell_m, 0.0))
    return nearest


@njit(**KERNEL)
def _nearest_lane(me: np.void, graph: LaneGraph) -> tuple[int, float, float]:
    """Lane that leads the ego's way and whose centre line is nearest, signed offset from it (left positive, m) and its yaw.

    Looked for within 3 m of the centre of the box; lane -1 where there is none.
    """
    columns, rows = int(graph.grid[2]), int(graph.grid[3])
    column, row = math.floor((me.x - graph.grid[0]) / GRID_CELL_M), math.floor((me.y - graph.grid[1]) / GRID_CELL_M)
    lane, offset, yaw = -1, np.inf, 0.0
    for r in range(max(row - 1, 0), min(row + 2, rows)):
        for c in range(max(column - 1, 0), min(column + 2, columns)):
            cell = r * columns + c
            for k in range(graph.cell_start[cell], graph.cell_start[cell + 1]):
                point = graph.points[graph.cell_point[k]]
                dx, dy = me.x - point.x, me.y - point.y
                if dx * dx + dy * dy > 9.0 or math.cos(me.yaw - point.yaw) < _ALIGNED:
                    continue
                cos, sin = math.cos(point.yaw), math.sin(point.yaw)
                if abs(dx * cos + dy * sin) > 1.0:
                    continue
                side = dy * cos - dx * sin
                if abs(side) < abs(offset):
                    lane, offset, yaw = graph.cell_lane[k], side, point.yaw
    return lane, offset, yaw


@njit(**KERNEL)
def _list_touched(cars: NDArray[np.void], around: Surroundings, touched: NDArray[np.int32]) -> int:
    """Write what the ego's box overlaps: j for agent j, -(k + 1) for a thing whose first solid is k; returns how many."""
    me, count = cars[0], 0
    half_length, half_width = 0.5 * me.length, 0.5 * me.width
    for j in range(1, len(cars)):
        other = cars[j]
        if count < len(touched) and other.active == 1 and boxes_overlap(
            me.x, me.y, me.yaw, half_length, half_width,
            other.x, other.y, other.yaw, 0.5 * other.length, 0.5 * other.width,
        ):  # fmt: skip
            touched[count] = j
            count += 1
    reach = half_length + half_width
    columns, rows = int(around.grid[2]), int(around.grid[3])
    left = max(math.floor((me.x - reach - around.grid[0]) / SOLID_CELL_M), 0)
    right = min(math.floor((me.x + reach - around.grid[0]) / SOLID_CELL_M), columns - 1)
    low = max(math.floor((me.y - reach - around.grid[1]) / SOLID_CELL_M), 0)
    high = min(math.floor((me.y + reach - around.grid[1]) / SOLID_CELL_M), rows - 1)
    for row in range(low, high + 1):
        for column in range(left, right + 1):
            cell = row * columns + column
            for k in range(around.cell_start[cell], around.cell_start[cell + 1]):
                solid, thing = around.solids[around.cell_solid[k]], -(around.first[around.cell_solid[k]] + 1)
                known = count == len(touched)
                for n in range(count):
                    known = known or touched[n] == thing
                if not known and boxes_overlap(
                    me.x, me.y, me.yaw, half_length, half_width, solid[0], solid[1], solid[2], solid[3], solid[4]
                ):
                    touched[count] = thing
                    count += 1
    return count


@njit(**KERNEL)
def _list_parked(me: np.void, boxes: NDArray[np.float64], listed: NDArray[np.int32]) -> int:
    """Write which of the boxes (P, 5) the ego touches, or would within AHEAD_S going straight on; returns how many."""
    count = 0
    half_length, half_width = 0.5 * me.length, 0.5 * me.width
    vx, vy = math.cos(me.yaw) * me.speed, math.sin(me.yaw) * me.speed
    for k in range(len(boxes)):
        box = boxes[k]
        reach = AHEAD_S * abs(me.speed) + half_length + half_width + box[3] + box[4]
        dx, dy = box[0] - me.x, box[1] - me.y
        if count == len(listed) or dx * dx + dy * dy > reach * reach:
            continue
        for i in range(round(AHEAD_S / AHEAD_STEP_S) + 1):
            t = i * AHEAD_STEP_S
            if boxes_overlap(
                me.x + vx * t, me.y + vy * t, me.yaw, half_length, half_width, box[0], box[1], box[2], box[3], box[4]
            ):
                listed[count] = k
                count += 1
                break
    return count


@njit(**KERNEL)
def _find_lines(
    graph: LaneGraph,
    me: np.void,
    ego: np.void,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Fill in the next stop sign's line and the next signal's on the route, the latter until the tail is well behind it."""
    out[_STOP_SIGN], out[_STOP_DISTANCE], out[_SIGNAL], out[_SIGNAL_DISTANCE] = -1.0, np.inf, -1.0, np.inf
    if abs(ego.lateral) >= BESIDE_ROUTE_M:
        return
    for k in range(ego.at, ego.lanes):
        distance = route_from[k] - ego.front
        if distance > STOP_SIGN_RANGE_M:
            break
        if graph.lanes[route_lane[k]].control == _STOP:
            out[_STOP_SIGN], out[_STOP_DISTANCE] = float(route_lane[k]), distance
            break
    first = ego.at
    while first > 0 and route_from[first] - ego.front > -(me.length + PASSED_M):
        first -= 1
    for k in range(first, ego.lanes):
        distance, link = route_from[k] - ego.front, graph.lanes[route_lane[k]].link
        if distance > SIGNAL_RANGE_M:
            break
        if link >= 0 and distance > -(me.length + PASSED_M):
            out[_SIGNAL], out[_SIGNAL_DISTANCE] = float(link), distance
            break


@njit(**KERNEL)
def _stand(
    graph: LaneGraph,
    around: Surroundings,
    cars: NDArray[np.void],
    ego: np.void,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    out: NDArray[np.float64],
    touched: NDArray[np.int32],
) -> None:
    """Fill out (_COLUMNS,) and touched (MOST_TOUCHED,) for one ego. Cost: lane points and solids within some metres."""
    me = cars[0]
    lane, offset, yaw = _nearest_lane(me, graph)
    out[_OFFSET] = offset
    out[_LIMIT] = graph.lanes[route_lane[ego.at]].limit
    cos, sin = math.cos(me.yaw), math.sin(me.yaw)
    off = 0.0
    for corner in range(4):
        ahead = 0.5 * me.length if corner < 2 else -0.5 * me.length
        left = 0.5 * me.width if corner % 2 == 0 else -0.5 * me.width
        off = max(off, _off_drivable(me.x + cos * ahead - sin * left, me.y + sin * ahead + cos * left, around))
    out[_OFF_DRIVABLE] = off
    out[_IN_JUNCTION], out[_SEVERAL], out[_OFF_LANES] = 0.0, 1.0, 1.0
    if lane >= 0:
        turned = wrapped(me.yaw - yaw)
        across = 0.5 * (me.length * abs(math.sin(turned)) + me.width * abs(math.cos(turned)))
        half = graph.lanes[lane].half_width
        out[_IN_JUNCTION] = 1.0 if graph.lanes[lane].junction >= 0 else 0.0
        out[_SEVERAL] = 1.0 if abs(offset) + across > half else 0.0
        out[_OFF_LANES] = 1.0 if abs(offset) > half + BESIDE_LANES_M else 0.0
    out[_AGAINST] = 1.0 if is_wrong_way(me, graph) else 0.0
    _find_lines(graph, me, ego, route_lane, route_from, out)
    out[_TOUCHED] = float(_list_touched(cars, around, touched))


def standing_of(
    graph: LaneGraph,
    around: Surroundings,
    cars: NDArray[np.void],
    ego: np.void,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    center_ahead_m: float,
    parked: Parked,
) -> Standing:
    """The `Standing` of one ego: cars (A,) with the ego first, its `EGO` record and its route lanes."""
    out, touched, listed = np.zeros(_COLUMNS), np.zeros(MOST_TOUCHED, np.int32), np.zeros(MOST_PARKED, np.int32)
    _stand(graph, around, cars, ego, route_lane, route_from, out, touched)
    near = listed[: _list_parked(cars[0], parked.boxes, listed)]
    places = zip(parked.thing[near].tolist(), parked.boxes[near].tolist(), strict=True)
    return Standing(
        length_m=float(cars[0]["length"]),
        width_m=float(cars[0]["width"]),
        center_ahead_m=center_ahead_m,
        lane_offset_m=float(out[_OFFSET]) if math.isfinite(out[_OFFSET]) else None,
        speed_limit_mps=float(out[_LIMIT]),
        off_drivable_m=float(out[_OFF_DRIVABLE]),
        in_junction=bool(out[_IN_JUNCTION]),
        in_several_lanes=bool(out[_SEVERAL]),
        off_lanes=bool(out[_OFF_LANES]),
        against_flow=bool(out[_AGAINST]),
        stop_sign=int(out[_STOP_SIGN]),
        stop_sign_distance_m=float(out[_STOP_DISTANCE]) if math.isfinite(out[_STOP_DISTANCE]) else None,
        signal=int(out[_SIGNAL]),
        signal_distance_m=float(out[_SIGNAL_DISTANCE]) if math.isfinite(out[_SIGNAL_DISTANCE]) else None,
        touched=tuple(touched[: int(out[_TOUCHED])].tolist()),
        parked=tuple(
            ParkedVehicle(-(k + 1), x, y, yaw, 2.0 * half_length, 2.0 * half_width)
            for k, (x, y, yaw, half_length, half_width) in places
        ),
    )
