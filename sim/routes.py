"""The ego's route: drawn over the lane graph, laid out as a centre line, and projected onto.

Knows lanes; knows nothing about vehicles. The arc length of a route begins with 0 at the centre of the ego's box at the
start. The centre line goes on beyond the goal by up to `BEYOND_GOAL_M`, because what stands behind the goal matters, too.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.counter_random import nth_uniform
from sim.lane_graph import LaneGraph, pose_at
from sim.numba_setup import INNER
from sim.route_planning import change_side, change_window

ATTEMPTS = 64
BEYOND_GOAL_M = 80.0
START_MARGIN_M = 4.0
GOAL_MARGIN_M = 10.0
POINT_STEP_M = 1.0
DRAWS = 512  # random numbers that one attempt may take

EGO = np.dtype(
    [
        ("s", "f8"), ("front", "f8"), ("last_front", "f8"), ("lateral", "f8"), ("heading", "f8"), ("length", "f8"),
        ("progress", "f8"), ("drive", "f8"), ("slide", "f8"), ("done", "f8"), ("asked", "f8"),
        ("swing", "f8"), ("swing_from", "f8"), ("swing_to", "f8"), ("swing_end", "f8"), ("swing_back", "f8"),
        ("shift_ms", "i8"), ("lanes", "i4"), ("points", "i4"), ("at", "i4"), ("still", "i4"), ("replans", "i4"), ("tried", "i4"),
        ("ran", "i4"), ("started", "i1"), ("swinging", "i1"), ("lost", "i1"), ("planned", "i1"),
    ],
    align=True,
)  # fmt: skip
"""What belongs to each ego beside its pose. s, front: arc length on the route of the box's centre and of the front bumper.
lateral: of the centre, left positive, m. heading: against the route, rad. length: of the route to the goal. progress:
furthest s. drive: acceleration of engine and brake. slide: velocity of the centre of gravity to the left, of the dynamic
model. shift_ms: where in their programs the signals begin. lanes, points: used part of the route's arrays. at: route lane
under the front bumper. swing, swing_*, swinging: see `sim.detour`. still: ticks stood without a reason. ran: link
of the signal whose line the front bumper passed last, if that was at red, else -1. done, asked, replans, tried, lost, planned:
see `sim.rerouting`."""


@njit(**INNER)
def draw_route(
    graph: LaneGraph,
    key: np.uint64,
    least_m: float,
    most_m: float,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
) -> tuple[int, float]:
    """Draw a route: a random start outside junctions, then random turns, no lane twice where that can be helped.

    route_lane: (R,) int32 and route_from: (R,) float64 receive the lanes and the arc length at which each begins (negative
    for the first: the ego starts within it).

    Returns: the number of lanes, those beyond the goal included, and the arc length of the goal, which lies outside
    junctions and GOAL_MARGIN_M before the end of its lane, within [least_m, most_m] where the map allows that in
    ATTEMPTS attempts; otherwise the longest that was found.
    """
    best_attempt, best_length, best_lanes = -1, -1.0, 0
    for repeat in range(ATTEMPTS + 1):
        attempt = best_attempt if repeat == ATTEMPTS else repeat
        draw = attempt * DRAWS
        wanted = least_m + (most_m - least_m) * nth_uniform(key, draw)
        lane = graph.start_lanes[int(nth_uniform(key, draw + 1) * len(graph.start_lanes))]
        span = max(graph.lanes[lane].length - GOAL_MARGIN_M - START_MARGIN_M, 0.0)
        offset = START_MARGIN_M + span * nth_uniform(key, draw + 2)
        draw += 3
        count, end, goal = 0, -offset, -1.0
        while count < len(route_lane):
            route_lane[count], route_from[count] = lane, end
            count += 1
            record = graph.lanes[lane]
            begin = max(end, 0.0)
            end += record.length
            if goal < wanted and record.junction < 0:
                last = min(end - GOAL_MARGIN_M, most_m)
                first = begin + (START_MARGIN_M if count > 1 else 0.0)
                if last >= first:
                    goal = max(goal, min(max(wanted, first), last))
            if (goal >= wanted or end > most_m) and end >= max(goal, 0.0) + BEYOND_GOAL_M:
                break
            choices = record.next_end - record.next
            if choices == 0 or draw >= (attempt + 1) * DRAWS:
                break
            pick = int(nth_uniform(key, draw) * choices)
            draw += 1
            lane = graph.onward[record.next + pick]
            for other in range(choices):
                candidate = graph.onward[record.next + (pick + other) % choices]
                known = False
                for k in range(count):
                    known = known or route_lane[k] == candidate
                if not known:
                    lane = candidate
                    break
        if repeat == ATTEMPTS or (least_m <= goal <= most_m):
            return count, goal
        if goal > best_length:
            best_attempt, best_length, best_lanes = attempt, goal, count
    return best_lanes, best_length


@njit(**INNER)
def lay_out_route(
    graph: LaneGraph,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    count: int,
    line: NDArray[np.float64],
) -> int:
    """Write the centre line (P, 3) float64: x, y, yaw every POINT_STEP_M of arc length; returns the points written.

    Where the route changes lanes, the line goes over smoothly.
    """
    k = 0
    points = 0
    end = route_from[count - 1] + graph.lanes[route_lane[count - 1]].length
    for i in range(len(line)):
        s = i * POINT_STEP_M
        if s > end:
            break
        while k + 1 < count and s >= route_from[k + 1]:
            k += 1
        line[i, 0], line[i, 1] = _place_on_route(graph, route_lane, route_from, count, k, s)
        points = i + 1
    for i in range(points - 1):
        line[i, 2] = math.atan2(line[i + 1, 1] - line[i, 1], line[i + 1, 0] - line[i, 0])
    line[points - 1, 2] = line[max(points - 2, 0), 2]
    return points


@njit(**INNER)
def _place_on_route(
    graph: LaneGraph, route_lane: NDArray[np.int32], route_from: NDArray[np.float64], count: int, k: int, s: float
) -> tuple[float, float]:
    """x, y at arc length s, which lies on lane k of the route; on lanes beside it before the change to it is complete."""
    while change_side(graph, route_lane, count, k - 1) != 0:
        begin, end = change_window(graph, route_lane, route_from, count, k - 1)
        if s >= end:
            break
        if s > begin:
            x, y, _ = pose_at(graph.lanes, graph.points, route_lane[k], s - route_from[k])
            from_x, from_y, _ = pose_at(graph.lanes, graph.points, route_lane[k - 1], s - route_from[k - 1])
            t = (s - begin) / (end - begin)
            share = t * t * (3.0 - 2.0 * t)
            return from_x + (x - from_x) * share, from_y + (y - from_y) * share
        k -= 1
    x, y, _ = pose_at(graph.lanes, graph.points, route_lane[k], s - route_from[k])
    return x, y


@njit(**INNER)
def point_on_route(line: NDArray[np.float64], points: int, s: float) -> tuple[float, float, float]:
    """x, y, yaw of the centre line at arc length s, straight on beyond its ends."""
    at = s / POINT_STEP_M
    i = min(max(math.floor(at), 0), points - 2)
    t = at - i
    return (
        line[i, 0] + (line[i + 1, 0] - line[i, 0]) * t,
        line[i, 1] + (line[i + 1, 1] - line[i, 1]) * t,
        line[i, 2],
    )


@njit(**INNER)
def project(
    line: NDArray[np.float64], points: int, x: float, y: float, low_m: float, high_m: float
) -> tuple[float, float, float]:
    """Arc length, signed distance (left positive) and yaw of the nearest place of the line between two arc lengths.

    All in m and rad. Cost: one distance for each metre between low_m and high_m.
    """
    first = min(max(int(low_m / POINT_STEP_M), 0), points - 1)
    last = min(max(int(high_m / POINT_STEP_M) + 1, first), points - 1)
    best, nearest = np.inf, first
    for i in range(first, last + 1):
        dx, dy = x - line[i, 0], y - line[i, 1]
        d = dx * dx + dy * dy
        if d < best:
            best, nearest = d, i
    i = min(nearest, points - 2)
    if nearest > 0:
        ax, ay = line[nearest + 1 if nearest + 1 < points else nearest, 0], line[min(nearest + 1, points - 1), 1]
        bx, by = line[nearest - 1, 0], line[nearest - 1, 1]
        ahead = (x - ax) * (x - ax) + (y - ay) * (y - ay)
        behind = (x - bx) * (x - bx) + (y - by) * (y - by)
        if behind < ahead:
            i = nearest - 1
    dx, dy = line[i + 1, 0] - line[i, 0], line[i + 1, 1] - line[i, 1]
    length2 = max(dx * dx + dy * dy, 1e-12)
    t = ((x - line[i, 0]) * dx + (y - line[i, 1]) * dy) / length2
    if 0 < i < points - 2:
        t = min(max(t, 0.0), 1.0)
    elif i == 0 and points > 2:
        t = min(t, 1.0)
    side = (dx * (y - line[i, 1]) - dy * (x - line[i, 0])) / math.sqrt(length2)
    return (i + t) * POINT_STEP_M, side, line[i, 2]
