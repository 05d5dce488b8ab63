"""Vehicles that follow lanes: their records, the leader on the path, the Intelligent Driver Model, motion and pose.

Knows lanes; knows nothing about right of way, the ego's controls or sensors. A vehicle is where the arc length of its
front bumper is on its lane. IDM: Treiber, Hennecke and Helbing, Phys. Rev. E 62 (2000), with the gentler free term of
Treiber and Kesting, Traffic Flow Dynamics, section 11.3.7 above the wanted speed.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.numba_setup import KERNEL
from sim.lane_graph import LaneGraph, cap_at, pose_at

BEHIND = 3  # lanes of the path that the vehicle has left
PATH = 12  # lanes of the path in all: `BEHIND`, the one it is on, and those to come
CLAIMS = 4
CLAIM_HORIZON_M = 80.0
COMFORT_BRAKE_MPS2 = 2.0
HARDEST_BRAKE_MPS2 = 8.0
STANDSTILL_GAP_M = 2.0
SUBSTEPS = 5
SUBSTEP_S = 0.02

CAR = np.dtype(
    [
        ("s", "f8"), ("speed", "f8"), ("acceleration", "f8"), ("length", "f8"), ("width", "f8"), ("height", "f8"),
        ("front_axle", "f8"), ("wheelbase", "f8"), ("factor", "f8"), ("headway", "f8"), ("most", "f8"),
        ("x", "f8"), ("y", "f8"), ("yaw", "f8"), ("gap", "f8"), ("gap_speed", "f8"),
        ("wait", "i4"), ("turns", "i4"), ("active", "i1"), ("kind", "i1"), ("indicator", "i1"), ("waiting", "i1"),
    ],
    align=True,
)  # fmt: skip
"""A vehicle. s: front bumper along its lane, m. front_axle: behind the front bumper, m. factor: of the wanted to the
allowed speed. headway: s. most: acceleration, m/s2. x, y, yaw: centre of the box. gap, gap_speed: leader. wait: ticks
it has waited. turns: number of lanes chosen so far (the counter of its random numbers). waiting: 1 while it gives way.
"""

CLAIM = np.dtype([("u", "f8"), ("early", "f8"), ("late", "f8"), ("lane", "i4"), ("car", "i4")], align=True)
"""A junction lane that a vehicle is on or comes to. u: its front bumper along that lane, negative before it, m."""

PRESENCE = np.dtype([("rear", "f8"), ("front", "f8"), ("speed", "f8"), ("lane", "i4")], align=True)
"""Part of a lane that the ego covers with its box, m along it, and its speed along the lane."""


@njit(**KERNEL)
def idm(speed: float, wanted: float, gap: float, leader_speed: float, headway: float, most: float) -> float:
    """Acceleration in m/s2, never below -HARDEST_BRAKE_MPS2. gap in m, bumper to bumper, inf without a leader."""
    wanted = max(wanted, 0.1)
    if speed <= wanted:
        free = most * (1.0 - (speed / wanted) ** 4)
    else:
        free = -COMFORT_BRAKE_MPS2 * (1.0 - (wanted / speed) ** (4.0 * most / COMFORT_BRAKE_MPS2))
    if gap > 200.0:
        return free
    approach = speed * (speed - leader_speed) / (2.0 * math.sqrt(most * COMFORT_BRAKE_MPS2))
    desired = STANDSTILL_GAP_M + max(0.0, speed * headway + approach)
    ratio = desired / max(gap, 0.1)
    return max(-HARDEST_BRAKE_MPS2, min(free, most * (1.0 - ratio * ratio)))


@njit(**KERNEL)
def extend_path(graph: LaneGraph, path: NDArray[np.int32], filled: int, draw: float) -> int:
    """Append the lane that the number draw in [0, 1) picks among those that follow; -1 at a dead end. Returns it."""
    last = path[filled - 1]
    chosen = -1
    if last >= 0:
        record = graph.lanes[last]
        count = record.next_end - record.next
        if count > 0:
            chosen = graph.onward[record.next + min(int(draw * count), count - 1)]
    path[filled] = chosen
    return chosen


@njit(**KERNEL)
def path_distance(graph: LaneGraph, path: NDArray[np.int32], s: float, k: int) -> float:
    """Distance in m from a front bumper at s of lane path[BEHIND] to the start of lane path[k]; negative behind it."""
    distance = -s
    for i in range(BEHIND, k):
        distance += graph.lanes[path[i]].length
    for i in range(k, BEHIND):
        if path[i] >= 0:
            distance -= graph.lanes[path[i]].length
    return distance


@njit(**KERNEL)
def _tail_beside(graph: LaneGraph, lane: int, other_lane: int, tail: float) -> float:
    """Where the tail of a vehicle on a lane that begins where mine does is, while the two are close; else inf."""
    record = graph.lanes[lane]
    for q in range(record.sibling, record.sibling_end):
        if graph.siblings[q].lane == other_lane and tail < graph.siblings[q].until:
            return tail
    return np.inf


@njit(**KERNEL)
def find_leader(
    graph: LaneGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    presence: NDArray[np.void],
    present: int,
    i: int,
    horizon: float,
) -> None:
    """Write gap and gap_speed of vehicle i: the nearest tail on its path within the horizon, the ego's included.

    Cost: agents x lanes of the path within the horizon.
    """
    path = paths[i]
    me = cars[i]
    best, best_speed = np.inf, 0.0
    start = -me.s
    for k in range(BEHIND, PATH):
        lane = path[k]
        if lane < 0 or start > horizon:
            break
        length = graph.lanes[lane].length
        for j in range(1, len(cars)):
            if j == i or cars[j].active == 0:
                continue
            other = cars[j]
            if paths[j, BEHIND] == lane:
                if k == BEHIND and (other.s < me.s or (other.s == me.s and j > i)):
                    continue
                gap = start + other.s - other.length
            else:
                tail = other.s - other.length
                found = False
                for b in range(BEHIND - 1, -1, -1):
                    back = paths[j, b]
                    if back < 0:
                        break
                    tail += graph.lanes[back].length
                    if back == lane:
                        found = tail < length
                        break
                    if tail >= 0.0:
                        break
                if not found or (k == BEHIND and tail + other.length < me.s):
                    tail = _tail_beside(graph, lane, paths[j, BEHIND], other.s - other.length)
                    if tail == np.inf or (k == BEHIND and tail + other.length < me.s):
                        continue
                gap = start + tail
            if gap < best:
                best, best_speed = gap, other.speed
        for p in range(present):
            if presence[p].lane == lane and (k > BEHIND or presence[p].front > me.s):
                gap = start + presence[p].rear
                if gap < best:
                    best, best_speed = gap, presence[p].speed
        start += length
        if best < start:
            break
    me.gap, me.gap_speed = best, max(best_speed, 0.0)


@njit(**KERNEL)
def wanted_speed(graph: LaneGraph, path: NDArray[np.int32], s: float, factor: float, speed: float) -> float:
    """Speed in m/s that limits and curves on the path allow now, braking in comfort to what comes."""
    wanted = factor * cap_at(graph.lanes, graph.points, path[BEHIND], s)
    distance = graph.lanes[path[BEHIND]].length - s
    reach = speed * speed / 3.0 + 5.0
    for k in range(BEHIND + 1, PATH):
        lane = path[k]
        if lane < 0 or distance > reach:
            break
        cap = factor * cap_at(graph.lanes, graph.points, lane, 0.0)
        wanted = min(wanted, math.sqrt(cap * cap + 3.0 * max(distance, 0.0)))
        distance += graph.lanes[lane].length
    return wanted


@njit(**KERNEL)
def move(car: np.void) -> None:
    """Five substeps with the acceleration that was decided; the vehicle stops rather than roll back."""
    speed, s = car.speed, car.s
    for _ in range(SUBSTEPS):
        faster = max(0.0, speed + car.acceleration * SUBSTEP_S)
        s += 0.5 * (speed + faster) * SUBSTEP_S
        speed = faster
    car.s, car.speed = s, speed


@njit(**KERNEL)
def place_on_path(graph: LaneGraph, path: NDArray[np.int32], s: float) -> tuple[float, float]:
    """World x, y of arc length s of lane path[BEHIND], following the path backwards where s is negative."""
    k = BEHIND
    while s < 0.0 and k > 0 and path[k - 1] >= 0:
        k -= 1
        s += graph.lanes[path[k]].length
    x, y, _ = pose_at(graph.lanes, graph.points, path[k], s)
    return x, y


@njit(**KERNEL)
def update_pose(graph: LaneGraph, path: NDArray[np.int32], car: np.void) -> None:
    """Set x, y, yaw of the box: both axles stand on the path."""
    front = car.s - car.front_axle
    fx, fy = place_on_path(graph, path, front)
    rx, ry = place_on_path(graph, path, front - car.wheelbase)
    car.yaw = math.atan2(fy - ry, fx - rx)
    ahead = car.front_axle - 0.5 * car.length
    car.x = fx + ahead * math.cos(car.yaw)
    car.y = fy + ahead * math.sin(car.yaw)
