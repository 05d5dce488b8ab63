"""What a rule-based driver may see of each ego, and which parts of lanes the ego covers for the others.

Fills `planning.policy.Situation`. Knows routes, lanes, vehicles and right of way; knows nothing about who drives.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.sensors import ROUTE_POINTS, ROUTE_SPACING_M
from sim.detour import NOWHERE, WALKER_KIND, box_along_route, swing_at
from sim.lane_graph import GRID_CELL_M, LaneGraph, wrapped
from sim.numba_setup import INNER
from sim.route_planning import change_side
from sim.routes import POINT_STEP_M, point_on_route, project
from sim.traffic.spans import ASIDE_M
from sim.traffic.vehicles import BEHIND, PATH

LEADER_RANGE_M = 80.0
LEADER_RANGE_S = 4.5  # and at least so far, at the speed of the ego
CORRIDOR_MARGIN_M = 0.35
STOP_LINE_RANGE_M = 100.0
ON_LANE_M = 2.5  # further from the route's centre line the ego is nobody's follower and has no right of way
LANE_REACH_M = 1.0  # half the width that a vehicle on a lane needs
MOST_EGO_SPANS = 12
MERGES_S = 2.5  # so long before it is in the corridor a vehicle that moves over counts as a leader
MOVING_OVER_MPS = 0.25
WALKER_SPARE_S = 0.9


@njit(**INNER)
def add_spans_of_box(graph: LaneGraph, me: np.void, car: int, spans: NDArray[np.void], used: int, more: int) -> int:
    """Append which parts of which lanes the box of agent `car` covers to spans, `used` of which are taken, at most `more`.

    Returns how many are taken then. For the ego, and for what stands or drives beside lanes. Five places along its middle are
    looked up in the grid of points. Cost: points within 6 m of each.
    """
    columns, rows = int(graph.grid[2]), int(graph.grid[3])
    count = used
    most = min(used + more, len(spans))
    for k in range(5):
        ahead = (0.25 * k - 0.5) * me.length
        x, y = me.x + ahead * math.cos(me.yaw), me.y + ahead * math.sin(me.yaw)
        column = math.floor((x - graph.grid[0]) / GRID_CELL_M)
        row = math.floor((y - graph.grid[1]) / GRID_CELL_M)
        for r in range(max(row - 1, 0), min(row + 2, rows)):
            for c in range(max(column - 1, 0), min(column + 2, columns)):
                cell = r * columns + c
                for q in range(graph.cell_start[cell], graph.cell_start[cell + 1]):
                    point = graph.points[graph.cell_point[q]]
                    dx, dy = x - point.x, y - point.y
                    if dx * dx + dy * dy > 9.0:
                        continue
                    lane = graph.cell_lane[q]
                    cos, sin = math.cos(point.yaw), math.sin(point.yaw)
                    along = dx * cos + dy * sin
                    same = math.cos(me.yaw - point.yaw)
                    across = 0.5 * me.width * abs(same) + LANE_REACH_M
                    if abs(along) > 0.6 * graph.lanes[lane].step or abs(dy * cos - dx * sin) > across:
                        continue
                    s = (graph.cell_point[q] - graph.lanes[lane].point) * graph.lanes[lane].step + along
                    spread = 0.5 * me.width * math.sqrt(max(1.0 - same * same, 0.0)) + 0.05
                    entry = used
                    while entry < count and spans[entry].lane != lane:
                        entry += 1
                    if entry == most:
                        continue
                    if entry == count:
                        spans[entry].lane, spans[entry].car, spans[entry].narrow = lane, car, 0
                        spans[entry].low, spans[entry].high = np.inf, -np.inf
                        spans[entry].rear, spans[entry].front = s - spread, s + spread
                        count += 1
                    spans[entry].rear = min(spans[entry].rear, s - spread)
                    spans[entry].front = max(spans[entry].front, s + spread)
                    left, half = dy * cos - dx * sin, 0.5 * me.width * abs(same) + 0.1
                    spans[entry].low = min(spans[entry].low, left - half)
                    spans[entry].high = max(spans[entry].high, left + half)
                    spans[entry].speed = me.speed * same
    return count


@njit(**INNER)
def follow_route(
    graph: LaneGraph,
    ego: np.void,
    me: np.void,
    path: NDArray[np.int32],
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    line: NDArray[np.float64],
) -> None:
    """Project the ego onto its route, and give it, like every vehicle, a path of lanes and a place on it.

    Sets s, front, lateral, heading and progress of the ego, and path (PATH,) and `me.s`; the path is -1 throughout while
    the ego is further than ON_LANE_M from the centre line or points away from it.
    """
    s, lateral, yaw = project(line, ego.points, me.x, me.y, ego.s - 6.0, ego.s + 12.0)
    ego.s, ego.lateral = s, lateral
    ego.heading = wrapped(me.yaw - yaw)
    ego.front = s + 0.5 * me.length
    ego.progress = max(ego.progress, s)
    at = ego.at
    while at > 0 and ego.front < route_from[at]:
        at -= 1
    while at + 1 < ego.lanes and ego.front >= route_from[at + 1]:
        at += 1
    ego.at = at
    path[:] = -1
    if abs(lateral) < ON_LANE_M and math.cos(ego.heading) > 0.3:
        _write_path(graph, ego, path, route_lane)
        me.s = ego.front - route_from[at]


@njit(**INNER)
def _write_path(graph: LaneGraph, ego: np.void, path: NDArray[np.int32], route_lane: NDArray[np.int32]) -> None:
    """The lanes around the route lane under the front bumper; of lanes beside each other the one that the route changes to."""
    index = ego.at
    for k in range(BEHIND, PATH):
        while change_side(graph, route_lane, ego.lanes, index) != 0:
            index += 1
        if index >= ego.lanes:
            break
        path[k] = route_lane[index]
        index += 1
    index = ego.at - 1
    for k in range(BEHIND - 1, -1, -1):
        if index < 0 or change_side(graph, route_lane, ego.lanes, index) != 0:
            break
        path[k] = route_lane[index]
        index -= 1


@njit(**INNER)
def _comes_across(
    me: np.void, other: np.void, on_foot: bool, gap: float, half: float, low: float, high: float, sideways: float
) -> bool:
    """Whether somebody beside the corridor (half: half its width) will be in it when the ego comes, if both go on as now.

    low, high: its right and left side as seen from the middle of the corridor, m. sideways: to the left, m/s.
    """
    away = low - half if low > half else -half - high
    if abs(sideways) < 0.3 or (sideways > 0.0) == (low > half):
        return False
    enters = away / abs(sideways)
    if not on_foot:
        return enters < MERGES_S
    leaves = (away + high - low + 2.0 * half) / abs(sideways)
    speed = max(me.speed, 1.5)
    return enters < (gap + me.length + 1.0) / speed + WALKER_SPARE_S and leaves > gap / speed - WALKER_SPARE_S


@njit(**INNER)
def ego_leader(cars: NDArray[np.void], ego: np.void, line: NDArray[np.float64], walkers: int) -> tuple[float, float]:
    """Gap in m and speed in m/s along the route of the nearest vehicle in the corridor that the ego will sweep.

    A vehicle counts if its box reaches into the corridor (width of the ego and CORRIDOR_MARGIN_M on either side of its path),
    unless it drives across it and will be out a second before the ego comes; or if it is coming in: vehicles that change
    lanes, and people who are no walkers (those, the last agents, have rules of their own). (inf, 0) if there is none within
    LEADER_RANGE_M, or what the ego drives in LEADER_RANGE_S.
    """
    me = cars[0]
    half = 0.5 * me.width + CORRIDOR_MARGIN_M
    horizon = max(LEADER_RANGE_M, LEADER_RANGE_S * me.speed)
    first = min(max(int((ego.s - 2.0) / POINT_STEP_M), 0), ego.points - 1)
    last = min(max(int((ego.front + horizon) / POINT_STEP_M), first), ego.points - 1)
    best, best_speed = np.inf, 0.0
    for j in range(1, len(cars)):
        other = cars[j]
        if other.active == 0:
            continue
        reach = horizon + 10.0
        if (other.x - me.x) ** 2 + (other.y - me.y) ** 2 > reach * reach:
            continue
        s_low, s_high, left_low, left_high, yaw_there = box_along_route(ego, line, other, first, last)
        if s_low == NOWHERE or 0.5 * (s_low + s_high) < ego.s + 0.5:
            continue
        gap = max(s_low - ego.front, 0.0)
        if gap > horizon or gap > best:
            continue
        swing = swing_at(ego, 0.5 * (s_low + s_high))
        left_low, left_high = left_low - swing, left_high - swing
        along = other.speed * math.cos(other.yaw - yaw_there)
        sideways = other.speed * math.sin(other.yaw - yaw_there)
        if left_low > half or left_high < -half:
            on_foot = other.kind == WALKER_KIND
            moving_over = abs(other.drift) > MOVING_OVER_MPS and (along > 0.0 or abs(other.offset) > ASIDE_M)
            if j >= len(cars) - walkers or not (on_foot or moving_over):
                continue
            if not _comes_across(me, other, on_foot, gap, half, left_low, left_high, sideways):
                continue
        elif abs(sideways) > 0.5:
            clear = (half - left_low) / sideways if sideways > 0.0 else (half + left_high) / -sideways
            if clear + 1.0 < gap / max(me.speed, 2.0):
                continue
        best, best_speed = gap, along
    return best, best_speed


@njit(**INNER)
def next_signal(
    graph: LaneGraph,
    ego: np.void,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    shown: NDArray[np.int8],
) -> tuple[float, int]:
    """Distance in m from the front bumper to the next stop line with a signal on the route and what it shows; (inf, 0)."""
    for k in range(ego.at + 1, ego.lanes):
        distance = route_from[k] - ego.front
        if distance > STOP_LINE_RANGE_M:
            break
        link = graph.lanes[route_lane[k]].link
        if link >= 0 and shown[link] != 0:
            return distance, shown[link]
    return np.inf, 0


@njit(**INNER)
def route_ahead(
    me: np.void,
    ego: np.void,
    rear_axle: float,
    line: NDArray[np.float64],
    out: NDArray[np.float32],
    path: NDArray[np.float32],
) -> None:
    """Write the next points of the route and of the path that swings around things, both (ROUTE_POINTS, 2) float32, m.

    In the ego frame (origin under the rear axle).
    """
    c, s = math.cos(me.yaw), math.sin(me.yaw)
    x0, y0 = me.x - rear_axle * c, me.y - rear_axle * s
    for k in range(ROUTE_POINTS):
        at = min(ego.s - rear_axle + (k + 1) * ROUTE_SPACING_M, ego.length)
        x, y, yaw = point_on_route(line, ego.points, at)
        out[k, 0] = c * (x - x0) + s * (y - y0)
        out[k, 1] = c * (y - y0) - s * (x - x0)
        swing = swing_at(ego, at)
        x, y = x - swing * math.sin(yaw), y + swing * math.cos(yaw)
        path[k, 0] = c * (x - x0) + s * (y - y0)
        path[k, 1] = c * (y - y0) - s * (x - x0)
