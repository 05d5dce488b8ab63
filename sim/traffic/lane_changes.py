"""Lane changes: whether they pay (MOBIL), when they are safe, the indicator before and the way across.

MOBIL: Kesting, Treiber and Helbing, Transportation Research Record 1999 (2007). Knows lanes, spans and vehicles; knows nothing
about junctions, except that nobody changes lanes shortly before one.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import INWARDS, OUTWARDS, LaneGraph, lane_beside, pose_at
from sim.numba_setup import INNER
from sim.traffic.spawning import complete_path
from sim.traffic.vehicles import BEHIND, idm, place_on_path

EVERY_TICKS = 8
SIGNAL_TICKS = 15  # the indicator shows that long before
REST_TICKS = 60  # between two changes
UNDONE_M = 1.1  # that near to the new lane's middle the old one is free
GAIN_MPS2 = 0.25
KEEP_OUTWARDS_MPS2 = 0.1
LEAST_GAP_M = 2.5
PULLING_OUT_GAP_M = 3.0
EGO_GAP_M = 7.0  # in front of the ego: nobody knows how well it brakes
EGO_BRAKE_MPS2 = 1.0
FAST_AFTER_S = 2.5  # on fast roads, so long after the beginning of a lane, before which nobody is looked for


@njit(**INNER)
def _gain(
    graph: LaneGraph, cars: NDArray[np.void], spans: NDArray[np.void], count: int, i: int, lane: int, target: int
) -> float:
    """What vehicle i would gain by changing to a lane beside its own, m/s2; -inf where that is not safe."""
    me = cars[i]
    s = me.s * graph.lanes[target].length / graph.lanes[lane].length
    ahead, ahead_speed, behind, follower = np.inf, 0.0, np.inf, -1
    for n in range(count):
        span = spans[n]
        if span.lane != target or span.car == i:
            continue
        if span.front > s:
            if span.rear - s < ahead:
                ahead, ahead_speed = span.rear - s, span.speed
        elif s - me.length - span.front < behind:
            behind, follower = s - me.length - span.front, span.car
    if ahead < LEAST_GAP_M or behind < LEAST_GAP_M or me.gap < PULLING_OUT_GAP_M + 0.3 * me.speed:
        return -np.inf
    wanted = min(me.factor * graph.lanes[target].limit, me.fastest)
    mine = idm(me.speed, wanted, ahead, ahead_speed, me.headway, me.most)
    before = idm(me.speed, wanted, me.gap, me.gap_speed, me.headway, me.most)
    if mine < -me.boldness:
        return -np.inf
    gain = mine - before
    if follower >= 0:
        other = cars[follower]
        headway, most = (1.5, 1.5) if follower == 0 else (other.headway, other.most)
        limit = graph.lanes[target].limit
        its = idm(other.speed, max(limit, other.speed), behind, me.speed, headway, most)
        if its < -me.boldness or (follower == 0 and (behind < EGO_GAP_M or its < -EGO_BRAKE_MPS2)):
            return -np.inf
        gain += me.politeness * min(its - max(other.acceleration, -2.0), 0.0)
    return gain


@njit(**INNER)
def cross_over(
    graph: LaneGraph, me: np.void, path: NDArray[np.int32], target: int, seed: np.uint64, episode: int, i: int
) -> None:
    """Put vehicle i on the lane beside its own, without moving it: what it has yet to cross stands in `lateral`."""
    lane = path[BEHIND]
    x, y, yaw = place_on_path(graph, path, me.s)
    x, y = x - me.lateral * math.sin(yaw), y + me.lateral * math.cos(yaw)
    s = me.s * graph.lanes[target].length / graph.lanes[lane].length
    lateral = 0.0
    for _ in range(3):
        px, py, pyaw = pose_at(graph.lanes, graph.points, target, s)
        s += (x - px) * math.cos(pyaw) + (y - py) * math.sin(pyaw)
        lateral = (y - py) * math.cos(pyaw) - (x - px) * math.sin(pyaw)
    s = min(max(s, 0.1), graph.lanes[target].length - 0.1)
    me.from_lane, me.from_shift = lane, me.s - s
    me.from_lateral = lateral - me.lateral
    me.s, me.lateral = s, lateral
    path[:] = -1
    path[BEHIND] = target
    complete_path(graph, path, me, seed, episode, i, BEHIND + 1)


@njit(**INNER)
def change_lanes(
    graph: LaneGraph,
    cars: NDArray[np.void],
    path: NDArray[np.int32],
    spans: NDArray[np.void],
    count: int,
    i: int,
    seed: np.uint64,
    episode: int,
    tick: int,
) -> bool:
    """Let vehicle i think about a lane change, signal it, and begin it; True where it has begun one now."""
    me = cars[i]
    if me.from_lane >= 0:
        if abs(me.lateral - me.offset) > UNDONE_M:
            return False
        me.from_lane = -1
    if me.rest > 0:
        me.rest -= 1
    if me.change == 0 and (me.rest > 0 or me.narrow == 1 or (tick + i) % EVERY_TICKS != 0):
        return False
    lane = path[BEHIND]
    record = graph.lanes[lane]
    left, right = record.left, record.right
    away = record.length - me.s
    if record.fast == 1 and me.s < me.length + FAST_AFTER_S * me.speed:
        me.change = 0
        return False
    possible = record.junction < 0 and me.s > me.length + 3.0 and away > 15.0 + 4.5 * me.speed and me.speed > 1.0
    if not possible or (left < 0 and right < 0):
        me.change = 0
        return False
    if me.change == 0:
        best = GAIN_MPS2
        for side in (INWARDS, OUTWARDS):
            target = lane_beside(graph, lane, side)
            if target < 0 or graph.lanes[target].endless == 0:
                continue
            gain = _gain(graph, cars, spans, count, i, lane, target) - side * KEEP_OUTWARDS_MPS2
            if gain > best:
                best, me.change = gain, side * graph.hand
        me.signalling = SIGNAL_TICKS if me.signals == 1 else 0
        return False
    if me.signalling > 0:
        me.signalling -= 1
        return False
    target = left if me.change > 0 else right
    me.rest = REST_TICKS
    begun = target >= 0 and _gain(graph, cars, spans, count, i, lane, target) > 0.0
    if begun:
        cross_over(graph, me, path, target, seed, episode, i)
    me.change = 0
    return begun
