"""Vehicles that follow lanes: their records, the Intelligent Driver Model, motion along and across the lane, and pose.

Knows lanes; knows nothing about other vehicles, right of way, the ego's controls or sensors. A vehicle is where the arc
length of its front bumper is on its lane. IDM: Treiber, Hennecke and Helbing, Phys. Rev. E 62 (2000), with the gentler free term of
Treiber and Kesting, Traffic Flow Dynamics, section 11.3.7 above the wanted speed.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import LaneGraph, cap_at, pose_at
from sim.numba_setup import INNER, KERNEL

BEHIND = 3  # lanes of the path that the vehicle has left
PATH = 12  # lanes of the path in all: `BEHIND`, the one it is on, and those to come
CLAIMS = 4
CLAIM_HORIZON_M = 80.0
COMFORT_BRAKE_MPS2 = 2.0
HARDEST_BRAKE_MPS2 = 8.0
STANDSTILL_GAP_M = 2.0
SUBSTEPS = 5
SUBSTEP_S = 0.02
MOST_DRIFT_MPS = 1.1
DRIFT_CHANGE_MPS = 0.15  # in a tick

CAR = np.dtype(
    [
        ("s", "f8"), ("speed", "f8"), ("acceleration", "f8"), ("length", "f8"), ("width", "f8"), ("height", "f8"),
        ("front_axle", "f8"), ("wheelbase", "f8"), ("factor", "f8"), ("fastest", "f8"), ("headway", "f8"), ("most", "f8"),
        ("x", "f8"), ("y", "f8"), ("yaw", "f8"), ("gap", "f8"), ("gap_speed", "f8"),
        ("lateral", "f8"), ("drift", "f8"), ("offset", "f8"), ("from_shift", "f8"), ("from_lateral", "f8"),
        ("politeness", "f8"), ("boldness", "f8"), ("sideways", "f8"),
        ("wait", "i4"), ("turns", "i4"), ("from_lane", "i4"), ("rest", "i4"), ("signalling", "i4"),
        ("dwell", "i4"), ("served", "i4"), ("stop", "i4"), ("stood", "i4"),
        ("active", "i1"), ("kind", "i1"), ("indicator", "i1"), ("waiting", "i1"),
        ("change", "i1"), ("signals", "i1"), ("narrow", "i1"), ("breaks", "i1"), ("siren", "i1"), ("blind", "i1"),
    ],
    align=True,
)  # fmt: skip
"""A road user: a vehicle on its path, the ego, or a walker (of which only size, pose, speed, kind and active are used).

s: front bumper along its lane, m. front_axle: behind the front bumper, m. factor: of the wanted to the allowed speed.
fastest: wanted speed at most, m/s. headway: s. most: acceleration, m/s2. x, y, yaw: centre of the box. gap, gap_speed:
leader. lateral: left of the lane's middle, m; drift: its rate, m/s; offset: where in the lane it wants to be. from_lane: the
lane that it is leaving, or -1; from_shift: what is added to s to be along that one; from_lateral: its middle as seen from
the new lane. politeness, boldness: of MOBIL, the
latter in m/s2. wait: ticks it has waited. turns: number of lanes chosen so far (the counter of its random numbers). rest:
ticks until it may change lanes again. signalling: ticks that the indicator has yet to show; change: the side it wants to
change to, 1 left, -1 right. dwell: ticks that a bus has yet to stand at its stop; served: lane whose stop it has left.
stop: junction lane at whose stop sign it has come to a standstill, or -1; stood: ticks since then.
waiting: 1 while it gives way. signals: 1 if it indicates lane changes. narrow: 1 for a bicycle. breaks: `RuleBreak`.
siren: 1 for an emergency vehicle on duty. blind: 1 if it does not heed the ego. sideways: how fast it may move across its lane if
that is more than usual, m/s.
"""

CLAIM = np.dtype([("u", "f8"), ("early", "f8"), ("late", "f8"), ("lane", "i4"), ("car", "i4")], align=True)
"""A junction lane that a vehicle is on or comes to. u: its front bumper along that lane, negative before it, m."""


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


@njit(**INNER)
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


@njit(**INNER)
def path_distance(graph: LaneGraph, path: NDArray[np.int32], s: float, k: int) -> float:
    """Distance in m from a front bumper at s of lane path[BEHIND] to the start of lane path[k]; negative behind it."""
    distance = -s
    for i in range(BEHIND, k):
        distance += graph.lanes[path[i]].length
    for i in range(k, BEHIND):
        if path[i] >= 0:
            distance -= graph.lanes[path[i]].length
    return distance


@njit(**INNER)
def wanted_speed(
    graph: LaneGraph, path: NDArray[np.int32], s: float, factor: float, fastest: float, speed: float
) -> float:
    """Speed in m/s that limits and curves on the path allow now, braking in comfort to what comes."""
    wanted = min(factor * cap_at(graph.lanes, graph.points, path[BEHIND], s), fastest)
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


@njit(**INNER)
def move(car: np.void) -> None:
    """Five substeps with the acceleration that was decided; the vehicle stops rather than roll back.

    Across the lane it moves towards its offset, the slower the slower it drives.
    """
    speed, s = car.speed, car.s
    for _ in range(SUBSTEPS):
        faster = max(0.0, speed + car.acceleration * SUBSTEP_S)
        s += 0.5 * (speed + faster) * SUBSTEP_S
        speed = faster
    car.s, car.speed = s, speed
    missing = car.offset - car.lateral
    if missing == 0.0 and car.drift == 0.0:
        return
    most = min(max(MOST_DRIFT_MPS, car.sideways), 0.2 * speed)
    wanted = min(max(0.9 * missing, -most), most)
    car.drift += min(max(wanted - car.drift, -DRIFT_CHANGE_MPS), DRIFT_CHANGE_MPS)
    car.drift = min(max(car.drift, -most), most)
    step = car.drift * SUBSTEPS * SUBSTEP_S
    if abs(missing) < 0.02 and abs(step) < 0.02:
        car.lateral, car.drift = car.offset, 0.0
    else:
        car.lateral += step


@njit(**INNER)
def place_on_path(graph: LaneGraph, path: NDArray[np.int32], s: float) -> tuple[float, float, float]:
    """World x, y, yaw of arc length s of lane path[BEHIND], following the path backwards where s is negative."""
    k = BEHIND
    while s < 0.0 and k > 0 and path[k - 1] >= 0:
        k -= 1
        s += graph.lanes[path[k]].length
    return pose_at(graph.lanes, graph.points, path[k], s)


@njit(**INNER)
def update_pose(graph: LaneGraph, path: NDArray[np.int32], car: np.void) -> None:
    """Set x, y, yaw of the box: both axles stand on the path, `lateral` left of it, and it points where it moves."""
    front = car.s - car.front_axle
    fx, fy, _ = place_on_path(graph, path, front)
    rx, ry, _ = place_on_path(graph, path, front - car.wheelbase)
    yaw = math.atan2(fy - ry, fx - rx)
    if car.lateral != 0.0:
        fx, fy = fx - car.lateral * math.sin(yaw), fy + car.lateral * math.cos(yaw)
    if car.drift != 0.0:
        yaw += math.atan2(car.drift, max(car.speed, 2.0))
    car.yaw = yaw
    ahead = car.front_axle - 0.5 * car.length
    car.x = fx + ahead * math.cos(yaw)
    car.y = fy + ahead * math.sin(yaw)
