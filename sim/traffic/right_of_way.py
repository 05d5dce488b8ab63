"""Who may enter a junction, and when: signals, stop signs, priority by gap acceptance, room behind it, standstills broken.

Knows lanes and vehicles on paths, of which the ego is one like the others; knows nothing about how anybody steers.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import LaneGraph
from sim.numba_setup import INNER, KERNEL
from sim.roads.network import LaneControl
from sim.traffic.vehicles import BEHIND, CLAIM_HORIZON_M, CLAIMS, PATH

RED, YELLOW = 1, 2
GAP_BEFORE_S = 1.5  # between my leaving the conflict and the other's coming
GAP_AFTER_S = 0.3  # between the other's leaving it and my coming
START_UP_MPS2 = 1.5  # of the others, as far as one can tell
YELLOW_BRAKE_MPS2 = 3.0
UNSUSPICIOUS_MPS2 = 1.7  # who would have to brake harder than that for a red light brakes already
PATIENCE_TICKS = 30
HURRY_TICKS = 150  # who has stood that long takes smaller gaps
HURRIED_GAP_BEFORE_S = 0.7
STANDING_MPS = 0.3
DRIVING_MPS = 3.0
ROOM_M = 1.5
WIDE_M = 2.2  # trucks and buses, whose tails swing out in turns
SWING_M = 2.5  # by which one stops earlier for those
SIREN_GAP_S = 3.0
LATE_MS = 2_500  # so long after the change to red a red-light runner still drives on
IGNORES_SIGNALS, KEEPS_SIGNALS, RUNS_SIGNALS = 0, 1, 2
STOP_SIGN_MPS, STOP_SIGN_WITHIN_M = 0.1, 5.0  # traffic's standstill at a stop sign, how far before its line it counts
MERGE_BRAKE_MPS2 = 2.5  # with which one can still stop where the lane ends when one begins to heed those beside
MERGE_BEHIND_S, MERGE_AHEAD_S = 1.2, 1.4  # between two who merge
MERGE_COMFORT_MPS2 = 2.0  # with which the one behind, if it is faster, is made to slow down at most
FAST_CLAIM_S = 8.0  # so far ahead, at their speed, vehicles on fast roads are heeded
COURTESY_TICKS = 40  # somebody who has stood that long where a lane ends is let in
_STOP = int(LaneControl.STOP)


@njit(**KERNEL)
def waited(ticks: int, speed: float) -> int:
    """Ticks that a vehicle has waited: one more while it stands, kept while it creeps, none once it drives."""
    if speed < STANDING_MPS:
        return ticks + 1
    return ticks if speed < DRIVING_MPS else 0


@njit(**KERNEL)
def travel_time(distance: float, speed: float, acceleration: float, most: float) -> float:
    """Seconds for a distance in m, from a speed, accelerating up to the speed `most`; 0 for what lies behind."""
    if distance <= 0.0:
        return 0.0
    most = max(most, speed, 0.5)
    gaining = (most * most - speed * speed) / (2.0 * acceleration)
    if distance <= gaining:
        return (math.sqrt(speed * speed + 2.0 * acceleration * distance) - speed) / acceleration
    return (most - speed) / acceleration + (distance - gaining) / most


@njit(**KERNEL)
def stops_at_yellow(distance: float, speed: float) -> bool:
    """Whether a vehicle can still stop in comfort before a line at a distance in m."""
    return speed * speed <= 2.0 * YELLOW_BRAKE_MPS2 * max(distance, 0.01)


@njit(**KERNEL)
def _is_stopping(distance: float, speed: float, acceleration: float) -> bool:
    """Whether one may take it that a vehicle will stop before a line at red: it can, and does not go on as if there were none."""
    needed = speed * speed / (2.0 * max(distance, 0.01))
    return needed <= YELLOW_BRAKE_MPS2 and (needed < UNSUSPICIOUS_MPS2 or acceleration < -0.3)


@njit(**INNER)
def note_standstill(graph: LaneGraph, car: np.void, path: NDArray[np.int32], below_mps: float) -> None:
    """Remember the stop sign at which a vehicle has come to a standstill, until it is past it or another line comes first.

    Sets stop and stood; call it once a tick. below_mps: so slow is a standstill. Cost: lanes of the path within STOP_SIGN_WITHIN_M.
    """
    if car.stop == path[BEHIND]:
        return
    away = graph.lanes[path[BEHIND]].length - car.s
    for k in range(BEHIND + 1, PATH):
        lane = path[k]
        if lane < 0 or away > STOP_SIGN_WITHIN_M:
            break
        record = graph.lanes[lane]
        if record.junction >= 0:
            if lane == car.stop:
                car.stood += 1
                return
            if record.control == _STOP and car.speed < below_mps:
                car.stop, car.stood = lane, 0
                return
            break
        away += record.length
    car.stop = -1


@njit(**INNER)
def list_claims(graph: LaneGraph, cars: NDArray[np.void], paths: NDArray[np.int32], claims: NDArray[np.void]) -> int:
    """Write every junction lane that a vehicle covers or comes to within CLAIM_HORIZON_M; returns their number.

    On fast roads it is what it drives in FAST_CLAIM_S, if that is more.
    """
    count = 0
    for i in range(len(cars)):
        if cars[i].active == 0 or paths[i, BEHIND] < 0:
            continue
        mine = 0
        u = cars[i].s
        first = BEHIND
        horizon = CLAIM_HORIZON_M
        if graph.lanes[paths[i, BEHIND]].fast == 1:
            horizon = max(horizon, FAST_CLAIM_S * cars[i].speed)
        while first > 0 and paths[i, first - 1] >= 0 and u - cars[i].length < 0.0:
            first -= 1
            u += graph.lanes[paths[i, first]].length
        for k in range(first, PATH):
            lane = paths[i, k]
            if lane < 0 or u < -horizon or mine == CLAIMS:
                break
            if graph.lanes[lane].junction >= 0 and u - cars[i].length < graph.lanes[lane].length:
                claims[count].lane, claims[count].car, claims[count].u = lane, i, u
                count += 1
                mine += 1
            u -= graph.lanes[lane].length
    return count


@njit(**INNER)
def _has_to_let_merge(
    graph: LaneGraph, cars: NDArray[np.void], conflict: np.void, claim: np.void, i: int, lane: int, u: float
) -> bool:
    """`_has_to_wait_for` where two lanes of a fast road become one: whoever is on its way there is followed, not waited for.

    Who gives way takes a gap in which the one behind, whichever it is, need not brake hard; those who have priority let in
    somebody who stands at the end of its lane, if they can stop in comfort.
    """
    me, other = cars[i], cars[claim.car]
    if u > 0.0 or claim.u > 0.0:
        return False
    if conflict.yields == 0:
        able = me.speed * me.speed <= 2.0 * MERGE_COMFORT_MPS2 * max(-u - 2.0, 0.01)
        return able and other.wait > COURTESY_TICKS and other.speed < DRIVING_MPS and claim.u > -4.0
    if -u > me.speed * me.speed / (2.0 * MERGE_BRAKE_MPS2) + 8.0:
        return False
    if other.waiting == 1 and me.wait > COURTESY_TICKS:
        return False
    start_up, most = 0.85 * me.most, max(graph.lanes[lane].limit, 4.0)
    arrive = travel_time(conflict.enter - u, me.speed, start_up, most)
    other_arrives = travel_time(conflict.other_enter - claim.u, other.speed, 0.5, graph.lanes[claim.lane].limit)
    arriving_mps = min(
        math.sqrt(me.speed * me.speed + 2.0 * start_up * max(conflict.enter - u, 0.0)), max(most, me.speed)
    )
    if arrive < other_arrives:
        slows = max(other.speed - arriving_mps, 0.0) / (2.0 * MERGE_COMFORT_MPS2)
        return other_arrives - arrive < MERGE_AHEAD_S + slows + me.length / max(arriving_mps, 1.0)
    slows = max(arriving_mps - other.speed, 0.0) / (2.0 * MERGE_COMFORT_MPS2)
    return arrive - other_arrives < MERGE_BEHIND_S + slows + other.length / max(other.speed, 1.0)


@njit(**INNER)
def _has_to_wait_for(
    graph: LaneGraph,
    cars: NDArray[np.void],
    shown: NDArray[np.int8],
    conflict: np.void,
    claim: np.void,
    i: int,
    lane: int,
    u: float,
    inside: bool,
) -> bool:
    """Whether vehicle i, with its front at u of its junction lane, has to let the vehicle of a claim go first.

    Of two that have stood at stop signs the one that came first goes first, unless it has to wait itself and the other has
    been patient. Who has stood does not wait for somebody who has yet to stop.
    """
    if conflict.merges == 1:
        return _has_to_let_merge(graph, cars, conflict, claim, i, lane, u)
    me, other = cars[i], cars[claim.car]
    most = max(graph.lanes[claim.lane].limit * 0.7, 4.0)
    start_up = 0.85 * me.most
    spare = GAP_BEFORE_S if me.wait < HURRY_TICKS else HURRIED_GAP_BEFORE_S
    arrive = travel_time(conflict.enter - u, me.speed, start_up, most)
    leave = travel_time(conflict.exit + me.length - u, me.speed, start_up, most)
    to_conflict = conflict.other_enter - claim.u
    to_clear = conflict.other_exit + other.length - claim.u
    if to_clear <= 0.0:
        return False
    other_arrives = travel_time(to_conflict, other.speed, START_UP_MPS2, graph.lanes[claim.lane].limit)
    other_leaves = travel_time(to_clear, other.speed, START_UP_MPS2, most)
    if claim.u > 0.0:  # it is on its way through the junction
        if inside and to_conflict > 0.0:
            mine, its = conflict.enter - u, to_conflict
            if mine < its or (mine == its and i < claim.car):
                return False
        if inside and conflict.enter - u <= 0.0 and (to_conflict > 0.0 or i < claim.car):
            return False
        standing = other.speed < STANDING_MPS
        return standing or arrive < to_clear / max(other.speed, 1.0) + GAP_AFTER_S
    if inside:
        return False
    link = graph.lanes[claim.lane].link
    runs = link >= 0 and shown[link] == RED and other.siren == 0  # it cannot stop any more, whatever it should do
    if link >= 0 and other.siren == 0:
        if shown[link] == RED and (other.speed < 2.0 or _is_stopping(-claim.u, other.speed, other.acceleration)):
            return False
        if shown[link] == YELLOW and stops_at_yellow(-claim.u, other.speed):
            return False
    if other.speed < STANDING_MPS and other.gap < -claim.u:  # it stands in a queue before the line
        return False
    if other.siren == 1 and me.siren == 0:
        return arrive < other_leaves + GAP_AFTER_S and other_arrives < leave + SIREN_GAP_S
    if me.siren == 1 and stops_at_yellow(-claim.u, other.speed):
        return False
    if runs:
        return arrive < other_leaves + GAP_AFTER_S and other_arrives < leave + spare
    if me.stop == lane and graph.lanes[claim.lane].control == _STOP:
        if other.stop != claim.lane:
            if _is_stopping(-claim.u, other.speed, other.acceleration):
                return False
        elif me.stood > other.stood or (me.stood == other.stood and i < claim.car):
            return False
        elif other.speed >= STANDING_MPS or other.waiting == 0 or me.stood < PATIENCE_TICKS:
            return arrive < other_leaves + GAP_AFTER_S and other_arrives < leave + spare
    if conflict.yields == 0 and conflict.other_yields == 1:
        return False
    if other.speed < STANDING_MPS:
        patient = me.wait > PATIENCE_TICKS or (other.waiting == 1 and conflict.yields == 0)
        if patient and (me.wait > other.wait or (me.wait == other.wait and i < claim.car)):
            return False
    if conflict.yields == conflict.other_yields and (
        arrive < other_arrives or (arrive == other_arrives and i < claim.car)
    ):
        return False
    return arrive < other_leaves + GAP_AFTER_S and other_arrives < leave + spare


@njit(**INNER)
def stop_distance(
    graph: LaneGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    claims: NDArray[np.void],
    num_claims: int,
    shown: NDArray[np.int8],
    i: int,
    late: NDArray[np.int8],
    heed: int,
) -> float:
    """Distance in m from the front bumper of vehicle i to where it has to stop now, inf if nowhere.

    A line is the start of a junction lane; within a junction it is where a conflict that is taken begins. heed: which red and
    yellow lights count: IGNORES_SIGNALS, KEEPS_SIGNALS, or RUNS_SIGNALS, which drives on at yellow and as long as late (G,),
    what was shown LATE_MS ago, was not red, and rolls past stop signs. Emergency vehicles do not stop at those either. The
    leader (gap, gap_speed) must be known already. Cost: vehicles at the same junction x conflicts of the lane.
    """
    me = cars[i]
    horizon = 12.0 + me.speed * me.speed / 3.0
    start = -me.s
    for k in range(BEHIND, PATH):
        lane = paths[i, k]
        if lane < 0 or start > horizon:
            break
        record = graph.lanes[lane]
        if record.junction >= 0:
            u = -start
            inside = u > 0.0
            if not inside:
                stops = record.control == _STOP and me.stop != lane and me.siren == 0 and heed != RUNS_SIGNALS
                if stops and me.speed * me.speed <= 2.0 * 7.0 * max(start, 0.05):
                    return start
                if heed != IGNORES_SIGNALS and record.link >= 0:
                    light = shown[record.link]
                    if heed == RUNS_SIGNALS and (light == YELLOW or late[record.link] != RED):
                        light = 0
                    if light == RED and me.speed * me.speed <= 2.0 * 7.0 * max(start, 0.05):
                        return start
                    if light == YELLOW and stops_at_yellow(start, me.speed):
                        return start
                room = me.gap - start - record.length
                if me.gap_speed < 2.5 and room < me.length + ROOM_M and me.gap >= start:
                    return start
            if inside or me.speed * me.speed <= 2.0 * 6.0 * max(start, 0.05):
                nearest = np.inf
                for c in range(num_claims):
                    claim = claims[c]
                    if (
                        claim.car == i
                        or (claim.car == 0 and me.blind == 1)
                        or graph.lanes[claim.lane].junction != record.junction
                    ):
                        continue
                    for q in range(record.conflict, record.conflict_end):
                        conflict = graph.conflicts[q]
                        if conflict.lane != claim.lane or u - me.length > conflict.exit:
                            continue
                        if inside and u > conflict.enter + 0.5:
                            continue
                        if _has_to_wait_for(graph, cars, shown, conflict, claim, i, lane, u, inside):
                            swing = SWING_M if max(cars[claim.car].width, me.width) > WIDE_M else 0.0
                            nearest = min(nearest, start + conflict.enter - swing if inside else start)
                if nearest < np.inf:
                    return max(nearest, 0.0)
        start += record.length
    return np.inf
