"""Where and as what vehicles appear: profile, free place, lanes to come. Knows lanes and vehicles, not who steers them.

Every number is drawn by counter, so what appears depends on seed, episode, tick and agent alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.counter_random import Purpose, hash_key, mix, nth_uniform, uniform
from sim.lane_graph import GRID_CELL_M, OUTWARDS, LaneGraph, cap_at, lane_beside, pose_at, wrapped
from sim.numba_setup import INNER
from sim.roads.network import LaneControl
from sim.traffic.vehicles import BEHIND, PATH, extend_path, update_pose, wanted_speed

CAR_KIND, VAN_KIND, TRUCK_KIND, BUS_KIND, MOTORCYCLE_KIND, BICYCLE_KIND = range(6)
KIND_SHARES = (0.66, 0.12, 0.06, 0.03, 0.05)  # and bicycles the rest
SIREN_SHARE = 0.05  # of the vans
RUNS_RED, SPEEDS, TAILGATES, GIVES_NO_SIGNAL = 1, 2, 4, 8
BICYCLE_LIMIT_MPS = 17.0  # no bicycles where more is allowed
BICYCLE_OFFSET_M = -1.3  # from the middle of the lane, in right-hand traffic
TRIES = 40
FLOW_RANGE_M = 150.0  # on fast roads, within which speeds have to fit together
FLOW_GAP_M = 12.0
FLOW_BRAKE_MPS2 = 1.5
_PROFILE, _TURN, _SPAWN = int(Purpose.PROFILE), int(Purpose.TURN), int(Purpose.SPAWN)

_YIELD = int(LaneControl.YIELD)

PAINTS = np.array(
    [
        [236, 236, 234], [32, 33, 36], [112, 116, 120], [176, 180, 184], [24, 48, 96], [150, 24, 28],
        [58, 84, 66], [206, 160, 52], [60, 110, 170], [196, 92, 40], [92, 72, 60], [214, 208, 190],
    ],
    np.uint8,
)  # fmt: skip


@njit(**INNER)
def shape_of(car: np.void, kind: int, size: float) -> None:
    """Kind, size, axles, and what its engine gives. size: in [0, 1], from the smallest of its kind to the largest."""
    car.kind, car.narrow, car.fastest = kind, 0, 60.0
    if kind == CAR_KIND:
        car.length, car.width, car.height = 3.9 + 0.9 * size, 1.72 + 0.16 * size, 1.42 + 0.28 * size
        car.front_axle, car.wheelbase, car.most = 0.19 * car.length, 0.6 * car.length, 1.7 + 0.8 * (1.0 - size)
    elif kind == VAN_KIND:
        car.length, car.width, car.height = 5.0 + 0.9 * size, 1.92 + 0.1 * size, 2.0 + 0.6 * size
        car.front_axle, car.wheelbase, car.most = 0.18 * car.length, 0.6 * car.length, 1.6
    elif kind == TRUCK_KIND:
        car.length, car.width, car.height = 6.8 + 1.6 * size, 2.3 + 0.15 * size, 3.0 + 0.5 * size
        car.front_axle, car.wheelbase, car.most, car.fastest = 0.17 * car.length, 0.6 * car.length, 1.1, 23.0
    elif kind == BUS_KIND:
        car.length, car.width, car.height = 9.0 + 1.5 * size, 2.5, 3.1
        car.front_axle, car.wheelbase, car.most, car.fastest = 0.22 * car.length, 0.52 * car.length, 1.1, 20.0
    elif kind == MOTORCYCLE_KIND:
        car.length, car.width, car.height = 2.0 + 0.3 * size, 0.8, 1.6
        car.front_axle, car.wheelbase, car.most = 0.33, 1.4, 2.2
    else:
        car.length, car.width, car.height, car.narrow = 1.75 + 0.15 * size, 0.6, 1.75, 1
        car.front_axle, car.wheelbase, car.most, car.fastest = 0.34, 1.08, 0.9, 4.0 + 2.5 * size


@njit(**INNER)
def draw_profile(car: np.void, paint: NDArray[np.uint8], key: np.uint64, spread: float, breakers: float) -> None:
    """Kind, size, driver and paint of a vehicle. spread: largest deviation of a lawful driver's speed factor from 1.

    breakers: share of drivers who break a rule. Drivers run from cautious to bold by one number, so that who drives faster
    also follows closer, changes lanes more readily and yields less to those behind.
    """
    draw, kind = nth_uniform(key, 0), 0
    while kind < BICYCLE_KIND and draw >= KIND_SHARES[kind]:
        draw -= KIND_SHARES[kind]
        kind += 1
    size = nth_uniform(key, 1)
    shape_of(car, kind, size)
    bold = 0.5 * (nth_uniform(key, 2) + nth_uniform(key, 3))
    car.factor = 1.0 + spread * (2.0 * bold - 1.0)
    car.headway = 2.1 - 1.1 * bold
    car.most *= 0.85 + 0.3 * bold
    car.politeness, car.boldness = 0.5 * (1.0 - bold), 1.5 + 1.5 * bold
    car.signals, car.breaks, car.siren, car.blind, car.sideways = 1, 0, 0, 0, 0.0
    if nth_uniform(key, 4) < breakers:
        pick = int(nth_uniform(key, 6) * 4.0)
        car.breaks = 1 << pick
        if car.breaks == SPEEDS:
            car.factor = 1.2 + 0.2 * nth_uniform(key, 7)
        elif car.breaks == TAILGATES:
            car.headway = 0.6
        elif car.breaks == GIVES_NO_SIGNAL:
            car.signals = 0
    if kind == VAN_KIND and nth_uniform(key, 8) < SIREN_SHARE:
        car.siren, car.factor, car.fastest, car.headway = 1, 1.25, 20.0, 1.2
    color = int(nth_uniform(key, 5) * len(PAINTS))
    for c in range(3):
        paint[c] = (236, 28, 36)[c] if car.siren == 1 else PAINTS[color, c]


@njit(**INNER)
def complete_path(
    graph: LaneGraph, path: NDArray[np.int32], car: np.void, seed: np.uint64, episode: int, agent: int, first: int
) -> None:
    """Choose the lanes path[first:], each by the next number of the vehicle's own row."""
    key = hash_key(seed, episode, 0, agent, _TURN)
    for k in range(first, PATH):
        car.turns += 1
        extend_path(graph, path, k, nth_uniform(key, car.turns))


@njit(**INNER)
def _is_free(cars: NDArray[np.void], agent: int, x: float, y: float, yaw: float, length: float, gap: float) -> bool:
    """Whether no vehicle stands within a gap in m along, and a lane's width across, of a place."""
    c, s = math.cos(yaw), math.sin(yaw)
    for j in range(len(cars)):
        if j == agent or cars[j].active == 0:
            continue
        dx, dy = cars[j].x - x, cars[j].y - y
        reach = 0.5 * (length + cars[j].length)
        across = 2.6 if cars[j].from_lane < 0 else 4.6  # who changes lanes needs both
        if abs(c * dx + s * dy) < reach + gap and abs(c * dy - s * dx) < across:
            return False
        if dx * dx + dy * dy < (reach + 1.5) * (reach + 1.5) and abs(c * dy - s * dx) < across:
            return False
    return True


@njit(**INNER)
def ends_soon(graph: LaneGraph, onward: int) -> bool:
    """Whether the lane before this one, which a fast road leads to, is one on which one may have to stop at its end."""
    return onward < 0 or graph.lanes[onward].control == _YIELD or graph.lanes[onward].fast == 0


@njit(**INNER)
def flow_speed(
    cars: NDArray[np.void], agent: int, x: float, y: float, yaw: float, length: float, speed: float
) -> float:
    """The speed, at most `speed`, with which a vehicle can appear in the traffic of a fast road; -1 where it cannot.

    Neither it nor anybody behind it has to brake harder than FLOW_BRAKE_MPS2. The road between two bends evenly.
    """
    c, s = math.cos(yaw), math.sin(yaw)
    for behind in (False, True):  # those in front first: they decide how fast it is when those behind are looked at
        for j in range(len(cars)):
            other = cars[j]
            if j == agent or other.active == 0:
                continue
            dx, dy = other.x - x, other.y - y
            along, turned = c * dx + s * dy, wrapped(other.yaw - yaw)
            across = c * dy - s * dx - 0.5 * along * turned
            near = 2.6 if other.from_lane < 0 else 4.6
            if abs(along) > FLOW_RANGE_M or abs(across) > near or abs(turned) > 0.8 or (along < 0.0) != behind:
                continue
            gap = abs(along) - 0.5 * (length + other.length)
            if gap < FLOW_GAP_M:
                return -1.0
            room = 2.0 * FLOW_BRAKE_MPS2 * (gap - FLOW_GAP_M)
            if behind and other.speed * other.speed > speed * speed + room:
                return -1.0
            if not behind:
                speed = min(speed, math.sqrt(other.speed * other.speed + room))
    return speed


@njit(**INNER)
def spawn(
    graph: LaneGraph,
    cars: NDArray[np.void],
    path: NDArray[np.int32],
    paint: NDArray[np.uint8],
    agent: int,
    seed: np.uint64,
    episode: int,
    tick: int,
    nearest_m: float,
    furthest_m: float,
    gap_m: float,
    spread: float,
    breakers: float,
) -> bool:
    """Try to put a vehicle on a free place between two distances from the ego; returns whether there was one.

    Places outside junctions, at least 8 m before the end of a lane, that leave gap_m to everybody. Its speed is one from
    which it can stop for what is in front of it, on fast roads that of the traffic there. Cost: TRIES x agents.
    """
    car = cars[agent]
    base = hash_key(seed, episode, tick, agent, _SPAWN)
    draw_profile(car, paint, hash_key(seed, episode, tick, agent, _PROFILE), spread, breakers)
    columns, rows = int(graph.grid[2]), int(graph.grid[3])
    for t in range(TRIES):
        key = mix(base + np.uint64(t))
        distance = math.sqrt(nearest_m**2 + (furthest_m**2 - nearest_m**2) * nth_uniform(key, 0))
        angle = 2.0 * math.pi * nth_uniform(key, 1)
        column = math.floor((cars[0].x + distance * math.cos(angle) - graph.grid[0]) / GRID_CELL_M)
        row = math.floor((cars[0].y + distance * math.sin(angle) - graph.grid[1]) / GRID_CELL_M)
        if column < 0 or row < 0 or column >= columns or row >= rows:
            continue
        cell = row * columns + column
        count = graph.cell_start[cell + 1] - graph.cell_start[cell]
        if count == 0:
            continue
        entry = graph.cell_start[cell] + int(uniform(key) * count)
        lane = graph.cell_lane[entry]
        record = graph.lanes[lane]
        s = (graph.cell_point[entry] - record.point) * record.step
        if record.junction >= 0 or record.endless == 0 or s < car.length + 1.0 or s > record.length - 8.0:
            continue
        if car.narrow == 1 and (lane_beside(graph, lane, OUTWARDS) >= 0 or record.limit > BICYCLE_LIMIT_MPS):
            continue
        x, y, yaw = pose_at(graph.lanes, graph.points, lane, s - 0.5 * car.length)
        near = (x - cars[0].x) ** 2 + (y - cars[0].y) ** 2 < nearest_m * nearest_m
        if near or not _is_free(cars, agent, x, y, yaw, car.length, gap_m):
            continue
        path[:] = -1
        path[BEHIND] = lane
        car.turns = int(key & np.uint64(0xFFFFF))
        complete_path(graph, path, car, seed, episode, agent, BEHIND + 1)
        car.s, car.acceleration, car.wait, car.waiting, car.indicator = s, 0.0, 0, 0, 0
        car.offset = graph.hand * BICYCLE_OFFSET_M if car.narrow == 1 else 0.0
        car.lateral, car.drift, car.from_lane, car.change, car.rest, car.signalling = car.offset, 0.0, -1, 0, 0, 0
        car.dwell, car.served, car.stop, car.stood = 0, -1, -1, 0
        fast = 0.8 * cap_at(graph.lanes, graph.points, lane, s)
        flows = record.fast == 1
        if not flows or ends_soon(graph, path[BEHIND + 1]):
            fast = min(fast, math.sqrt(2.0 * 1.5 * max(record.length - s - 2.0, 0.0)))
        car.speed = min(fast, wanted_speed(graph, path, s, car.factor, car.fastest, fast))
        if flows:
            car.speed = flow_speed(cars, agent, x, y, yaw, car.length, car.speed)
            if car.speed < 0.0:
                continue
        else:
            car.speed = min(car.speed, math.sqrt(2.0 * gap_m))
        car.active = 1
        update_pose(graph, path, car)
        return True
    car.active = 0
    return False
