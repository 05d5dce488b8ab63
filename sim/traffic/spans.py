"""Who covers which part of which lane, listed once a tick, and the leader that follows from it.

Knows lanes and vehicles on paths; what else stands on a lane (the ego off its path) is added by others as a span.
Knows nothing about right of way or lane changes.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import LaneGraph
from sim.numba_setup import INNER
from sim.traffic.vehicles import BEHIND, PATH

SPANS = 5  # of one vehicle: the lane it is on, up to three behind, and the one that it is leaving or merges with
SIDE_GAP_M = 0.5  # between two of which one is narrow, so that they pass within one lane
PASSING_RANGE_M = 30.0
PASSING_OFFSET_M = 0.6
PASSING_MARGIN_M = 14.0  # of lane that is left when the bicycle has been passed
AFTER_PASSING_M = 3.0
PULLED_OUT_M = 0.3  # to the side of the leader on the lane that one is leaving
WIDEST_PASSING_M = 2.1
PASSING_SPARE_M = 0.1  # to the edge of the lane: somebody who comes towards the car may be passing, too
ASIDE = 2
ASIDE_M = 1.6  # from the middle of the lane, on purpose, not on the way to another

SPAN = np.dtype(
    [
        ("rear", "f8"), ("front", "f8"), ("speed", "f8"), ("low", "f8"), ("high", "f8"),
        ("lane", "i4"), ("car", "i4"), ("narrow", "i1"),
    ],
    align=True,
)  # fmt: skip
"""Part of a lane that somebody covers. rear, front: along the lane, m. speed: along it. low, high: across it, left positive,
m. car: whose it is. narrow: 1 for a bicycle, which can be passed within its lane; ASIDE for who drives beside its own lane."""


@njit(**INNER)
def list_spans(
    graph: LaneGraph, cars: NDArray[np.void], paths: NDArray[np.int32], last: int, spans: NDArray[np.void]
) -> int:
    """Write the spans of the vehicles 1 to last - 1; returns their number. The ego's own are not among them."""
    count = 0
    for i in range(1, last):
        car = cars[i]
        if car.active == 0:
            continue
        rear = car.s - car.length
        for k in range(BEHIND, -1, -1):
            lane = paths[i, k]
            if lane < 0:
                break
            if k < BEHIND:
                rear += graph.lanes[lane].length
            span = spans[count]
            span.lane, span.car, span.narrow = lane, i, car.narrow
            span.rear, span.front, span.speed = rear, rear + car.length, car.speed
            span.low, span.high = car.lateral - 0.5 * car.width, car.lateral + 0.5 * car.width
            if abs(car.lateral) > ASIDE_M and car.from_lane < 0:
                span.narrow = ASIDE
            count += 1
            if rear >= 0.0:
                break
        if paths[i, BEHIND] < 0:  # on no lane
            continue
        here = graph.lanes[paths[i, BEHIND]]
        for q in range(here.conflict, here.conflict_end):
            if graph.conflicts[q].merges == 0:
                continue
            # Seen from the lane with which its own becomes one it is as far from the place where they do.
            span = spans[count]
            ahead = graph.lanes[graph.conflicts[q].lane].length - here.length
            span.lane, span.car, span.narrow = graph.conflicts[q].lane, i, 0
            span.rear, span.front, span.speed = car.s + ahead - car.length, car.s + ahead, car.speed
            span.low, span.high = -2.0, 2.0
            count += 1
            break
        if car.from_lane >= 0:
            span = spans[count]
            span.lane, span.car, span.narrow = car.from_lane, i, 0
            span.rear, span.front, span.speed = car.s + car.from_shift - car.length, car.s + car.from_shift, car.speed
            span.low, span.high = -2.0, 2.0
            count += 1
    return count


@njit(**INNER)
def _has_room_to_pass(me: np.void, span: np.void, length: float, limit: float, junction: int, hand: int) -> bool:
    """Whether a vehicle can pass a bicycle before the lane ends; true for who is beside it already."""
    if hand * me.offset > 0.0 and me.s > span.rear - 0.5:
        return True
    faster = max(me.factor * limit, me.speed) - span.speed
    if junction >= 0 or faster < 1.5:
        return False
    way = span.front - me.s + me.length + AFTER_PASSING_M
    way += span.speed * way / (0.7 * faster)  # 0.7: it has to gain speed first
    return length - me.s > way + PASSING_MARGIN_M


@njit(**INNER)
def find_leader(
    graph: LaneGraph, me: np.void, path: NDArray[np.int32], spans: NDArray[np.void], count: int, i: int, horizon: float
) -> None:
    """Write gap and gap_speed of vehicle i: the nearest rear on its path within the horizon.

    Who is leaving a lane heeds whoever is in front there, too, until it is out of their way. Decides, too, whether the
    vehicle moves over in its lane to pass a bicycle (offset). Cost: spans x lanes of the path within the horizon.
    """
    best, best_speed = np.inf, 0.0
    start = -me.s
    passing = False
    low, high = me.lateral - 0.5 * me.width, me.lateral + 0.5 * me.width
    widest = 2.0 * (graph.lanes[path[BEHIND]].half_width - PASSING_OFFSET_M - PASSING_SPARE_M)
    for k in range(BEHIND, PATH):
        lane = path[k]
        if lane < 0 or start > horizon:
            break
        record = graph.lanes[lane]
        for n in range(count):
            if spans[n].lane != lane:
                continue
            span = spans[n]
            if span.car == i or (span.car == 0 and me.blind == 1):
                continue
            beside = False
            if k == BEHIND and span.narrow == 1 and me.narrow == 0 and me.width < min(WIDEST_PASSING_M, widest):
                near = span.rear - me.s < PASSING_RANGE_M and span.front > me.s - me.length - AFTER_PASSING_M
                beside = near and _has_room_to_pass(me, span, record.length, record.limit, record.junction, graph.hand)
                passing = passing or beside
            if k == BEHIND and (span.front < me.s or (span.front == me.s and span.car > i)):
                continue
            if (beside or me.narrow == 1 or span.narrow == ASIDE) and (
                low > span.high + SIDE_GAP_M or high < span.low - SIDE_GAP_M
            ):
                continue
            gap = start + span.rear
            if gap < best:
                best, best_speed = gap, span.speed
        for q in range(record.sibling, record.sibling_end):
            for n in range(count):
                span = spans[n]
                if span.lane != graph.siblings[q].lane or span.rear >= graph.siblings[q].until or span.car == i:
                    continue
                if span.car == 0 and me.blind == 1:
                    continue
                if k == BEHIND and span.front < me.s:
                    continue
                gap = start + span.rear
                if gap < best:
                    best, best_speed = gap, span.speed
        start += record.length
        if best < start:
            break
    if me.from_lane >= 0:
        s, shift = me.s + me.from_shift, me.lateral - me.from_lateral
        for n in range(count):
            span = spans[n]
            if span.lane != me.from_lane or span.car == i or span.front < s or (span.car == 0 and me.blind == 1):
                continue
            if shift - 0.5 * me.width > span.high + PULLED_OUT_M or shift + 0.5 * me.width < span.low - PULLED_OUT_M:
                continue
            if span.rear - s < best:
                best, best_speed = span.rear - s, span.speed
    me.gap, me.gap_speed = best, max(best_speed, 0.0)
    if me.narrow == 0 and me.sideways == 0.0:
        me.offset = graph.hand * PASSING_OFFSET_M if passing else 0.0
