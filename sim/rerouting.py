"""A route planned anew for an ego that has left the old one, what its progress then is, and routes that are short from the start.

Knows routes and lanes; knows nothing about events or rewards. The new route leads from the lane that the ego is on to the same
goal, the shortest way; its arc length begins with 0 at the ego. Progress goes on in metres of the route that the episode began
with (`progress_of`). Fields of `EGO` that belong here: lost, whether the ego has left its route; done, metres driven on routes
given up; asked, length of the first route; replans, how many were planned anew; tried, the lane from which the goal could last not
be reached, so that this is not asked at every tick; planned, whether the route of the next episode is there already.

Planning has kernels of its own, called before those of the world where somebody needs them: few ever do, and they take long to
compile.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.counter_random import Purpose, hash_key
from sim.detour import swing_at
from sim.lane_graph import LaneGraph
from sim.numba_setup import INNER, UNLOCKED
from sim.route_planning import Planner, find_route, lane_begins, lane_under
from sim.routes import BEYOND_GOAL_M, POINT_STEP_M, draw_route, lay_out_route
from sim.world_arrays import Hidden, Rules

CORRIDOR_M = 5.0  # from the centre line: a lane and a half
AGAINST = -0.5  # cosine of the angle to the route beyond which an ego goes back on it
WAY_BACK_M = 1000.0  # by so much more than the longest route a new one may measure
_ROUTE = int(Purpose.ROUTE)


@njit(**INNER)
def has_left_route(ego: np.void) -> bool:
    """Whether the ego, not at its goal yet, is out of its route's corridor and off the path around things, or points back."""
    if ego.progress >= ego.length:
        return False
    aside = min(abs(ego.lateral), abs(ego.lateral - swing_at(ego, ego.s)))
    return aside > CORRIDOR_M or math.cos(ego.heading) < AGAINST


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


@njit(**INNER)
def _take_shortest(
    graph: LaneGraph,
    planner: Planner,
    thread: int,
    ego: np.void,
    lane: int,
    s: float,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    most_points: int,
) -> bool:
    """Replace the lanes of a route by those of the shortest one from s of a lane to the same goal.

    Sets lanes and length of the ego. False, and nothing changed, where there is none, or none whose centre line fits into
    most_points.
    """
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
    if length + BEYOND_GOAL_M > (most_points - 2) * POINT_STEP_M:
        return False
    for k in range(total):
        route_lane[k], route_from[k] = lanes[k], begins[k]
    ego.lanes, ego.length = total, length
    return True


@njit(**INNER)
def _plan_anew(graph: LaneGraph, planner: Planner, thread: int, hidden: Hidden, e: int) -> None:
    """Lead the ego of environment e from the lane that it is on to the goal of its route, if that can be."""
    ego, me, line = hidden.egos[e], hidden.cars[e][0], hidden.line[e]
    route_lane, route_from = hidden.route_lane[e], hidden.route_from[e]
    lane, s = lane_under(graph, me.x, me.y, me.yaw)
    if lane < 0 or lane == ego.tried:
        return
    ego.tried = lane
    if not _take_shortest(graph, planner, thread, ego, lane, s, route_lane, route_from, len(line)):
        return
    ego.points = lay_out_route(graph, route_lane, route_from, ego.lanes, line)
    ego.done += ego.progress
    ego.s, ego.progress, ego.front, ego.swinging = 0.0, 0.0, 0.5 * me.length, 0
    ego.at = 0
    while ego.at + 1 < ego.lanes and ego.front >= route_from[ego.at + 1]:
        ego.at += 1
    ego.replans, ego.tried, ego.lost = ego.replans + 1, -1, 0


@njit(**UNLOCKED)
def plan_routes_anew(k: int, which: NDArray[np.intp], graph: LaneGraph, planner: Planner, hidden: Hidden) -> None:
    """Plan the routes of the egos of the environments `which` anew; for `threads.over_environments`.

    Cost: that of `sim.route_planning.find_route`, at most once for each lane that an ego strays to.
    """
    for e in which:
        _plan_anew(graph, planner, k, hidden, e)


@njit(**UNLOCKED)
def plan_shortest_routes(
    k: int,
    which: NDArray[np.intp],
    graph: LaneGraph,
    rules: Rules,
    planner: Planner,
    hidden: Hidden,
    seed: NDArray[np.uint64],
    episode: NDArray[np.int64],
) -> None:
    """Draw the routes of the episodes that begin in the environments `which`, and shorten them between start and goal.

    Where a scenario gives the route nothing is done. For `threads.over_environments`.
    """
    for e in which:
        if hidden.scenes[e].given == 1:
            continue
        ego, route_lane, route_from = hidden.egos[e], hidden.route_lane[e], hidden.route_from[e]
        route_lane[:], route_from[:] = 0, 0.0
        key = hash_key(seed[e], episode[e], 0, 0, _ROUTE)
        ego.lanes, ego.length = draw_route(graph, key, rules.route_min_m, rules.route_max_m, route_lane, route_from)
        _take_shortest(
            graph, planner, k, ego, np.int64(route_lane[0]), -route_from[0], route_lane, route_from, hidden.line.shape[1]
        )  # fmt: skip
        ego.planned = 1
