"""Navigation commands: the next manoeuvre along the ego's route, in the terms of CARLA's planner.

Knows routes and lanes; knows nothing about who drives. `planning.policy.NavigationCommand` says what they mean.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from planning.policy import NavigationCommand
from sim.lane_graph import LaneGraph, wrapped
from sim.numba_setup import INNER, KERNEL
from sim.route_planning import change_side, change_window

STRAIGHT_RAD = math.radians(30.0)  # who turns less goes straight on
_FOLLOW, _LEFT, _RIGHT, _STRAIGHT = (
    int(NavigationCommand.LANE_FOLLOW), int(NavigationCommand.LEFT), int(NavigationCommand.RIGHT), int(NavigationCommand.STRAIGHT),
)  # fmt: skip
CHANGE_LEFT, CHANGE_RIGHT = int(NavigationCommand.CHANGE_LANE_LEFT), int(NavigationCommand.CHANGE_LANE_RIGHT)


@njit(**KERNEL)
def turn_of(graph: LaneGraph, lane: int) -> float:
    """By how much a lane turns from its beginning to its end, rad, left positive; a U-turn is half a circle."""
    record, total = graph.lanes[lane], 0.0
    for i in range(record.point + 1, record.point + record.points):
        total += wrapped(graph.points[i].yaw - graph.points[i - 1].yaw)
    return total


@njit(**INNER)
def _is_junction(graph: LaneGraph, lane: int) -> bool:
    """Whether a lane leads through a junction where one can go elsewhere or meet others; else the road only goes on."""
    record = graph.lanes[lane]
    return record.junction >= 0 and (record.sibling_end > record.sibling or record.conflict_end > record.conflict)


@njit(**INNER)
def next_command(
    graph: LaneGraph, ego: np.void, route_lane: NDArray[np.int32], route_from: NDArray[np.float64]
) -> tuple[int, float]:
    """`NavigationCommand` of the next manoeuvre before the goal, and the distance in m from the front bumper to where it begins.

    0 m from there until the middle of the ego is through. Without any before the goal: LANE_FOLLOW and the distance to the goal.
    """
    k = ego.at
    while k > 0 and ego.s < route_from[k]:
        k -= 1
    while change_side(graph, route_lane, ego.lanes, k - 1) != 0:
        k -= 1
    while k < ego.lanes and route_from[k] < ego.length:
        side = change_side(graph, route_lane, ego.lanes, k)
        if side != 0:
            begin, end = change_window(graph, route_lane, route_from, ego.lanes, k)
            if ego.s < end and begin < ego.length:
                return (CHANGE_LEFT if side > 0 else CHANGE_RIGHT), max(begin - ego.front, 0.0)
        elif _is_junction(graph, np.int64(route_lane[k])):
            turn = turn_of(graph, np.int64(route_lane[k]))
            command = _STRAIGHT if abs(turn) < STRAIGHT_RAD else _LEFT if turn > 0.0 else _RIGHT
            return command, max(route_from[k] - ego.front, 0.0)
        k += 1
    return _FOLLOW, max(ego.length - ego.s, 0.0)
