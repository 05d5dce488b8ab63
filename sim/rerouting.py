"""A route planned anew for an ego that has left the old one, and what its progress then is.

Knows routes and lanes; knows nothing about events or rewards. The new route leads from the lane that the ego is on to the same
goal, the shortest way; its arc length begins with 0 at the ego. Progress goes on in metres of the route that the episode began
with (`progress_of`). Fields of `EGO` that belong here: done, metres driven on routes given up; asked, length of the first route;
replans, how many were planned anew; tried, the lane from which the goal could last not be reached, so that this is not asked at
every tick.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.detour import swing_at
from sim.lane_graph import LaneGraph
from sim.numba_setup import INNER
from sim.route_planning import Planner, find_route, lane_begins, lane_under
from sim.routes import BEYOND_GOAL_M, POINT_STEP_M, lay_out_route

CORRIDOR_M = 5.0  # from the centre line: a lane and a half; a car that passes another one stays within it
AGAINST = -0.5  # cosine of the angle to the route beyond which an ego goes back on it
WAY_BACK_M = 1000.0  # by so much more than the longest route a new one may measure


@njit(**INNER)
def has_left_route(ego: np.void) -> bool:
    """Whether the ego, not at its goal yet, is out of its route's corridor and off the path around things, or points back."""
    if ego.progress >= ego.length:
        return False
    aside = min(abs(ego.lateral), abs(ego.lateral - swing_at(ego, ego.s)))
    return aside > CORRIDOR_M or math.cos(ego.heading) < AGAINST


@njit(**INNER)
def plan_anew(
    graph: LaneGraph,
    planner: Planner,
    thread: int,
    ego: np.void,
    me: np.void,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    line: NDArray[np.float64],
) -> bool:
    """Lead the ego from the lane that it is on to the goal of its route. False, and nothing changed, where that cannot be.

    Cost: that of `sim.route_planning.find_route`, at most once for each lane that the ego strays to.
    """
    lane, s = lane_under(graph, me.x, me.y, me.yaw)
    if lane < 0 or lane == ego.tried:
        return False
    ego.tried = lane
    if not take_shortest(graph, planner, thread, ego, lane, s, route_lane, route_from, line):
        return False
    ego.replans, ego.tried = ego.replans + 1, -1
    return True


@njit(**INNER)
def take_shortest(
    graph: LaneGraph,
    planner: Planner,
    thread: int,
    ego: np.void,
    lane: int,
    s: float,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    line: NDArray[np.float64],
) -> bool:
    """Replace the route by the shortest one from s of a lane to the same goal. False, and nothing changed, where none fits."""
    last = 0
    while last + 1 < ego.lanes and route_from[last + 1] <= ego.length:
        last += 1
    goal_s = ego.length - route_from[last]
    count = find_route(graph, planner, thread, lane, s, np.int64(route_lane[last]), goal_s)
    lanes, begins = planner.lanes[thread], planner.begins[thread]
    beyond = ego.lanes - (last + 1)
    if count == 0 or count + beyond > len(lanes):
        return False
    for k in range(beyond):
        lanes[count + k] = route_lane[last + 1 + k]
    total = count + beyond
    lane_begins(graph, lanes, total, s, begins)
    length = begins[count - 1] + goal_s
    if length + BEYOND_GOAL_M > (len(line) - 2) * POINT_STEP_M:
        return False
    for k in range(total):
        route_lane[k], route_from[k] = lanes[k], begins[k]
    ego.done += ego.progress
    ego.lanes, ego.length = total, length
    ego.points = lay_out_route(graph, route_lane, route_from, total, line)
    ego.s, ego.progress, ego.at, ego.swinging = 0.0, 0.0, 0, 0
    return True


@njit(**INNER)
def progress_of(ego: np.void, goal: float, before: float) -> float:
    """Progress of an ego in m, `before` being that of the last tick. goal: length of its route.

    On the first route: the furthest arc length. After that, what is left to drive taken from the length of the first route, but
    never more than was driven along routes, and never less than before.
    """
    furthest = min(ego.progress, goal)
    if ego.replans == 0:
        return furthest
    return max(before, min(ego.done + furthest, ego.asked - (goal - furthest)))
