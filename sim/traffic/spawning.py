"""Where and as what vehicles appear: profile, free place, lanes to come. Knows lanes and vehicles, not who steers them.

Every number is drawn by counter, so what appears depends on seed, episode, tick and agent alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.numba_setup import INNER
from sim.counter_random import Purpose, hash_key, mix, nth_uniform, uniform
from sim.lane_graph import GRID_CELL_M, LaneGraph, cap_at, pose_at
from sim.traffic.vehicles import BEHIND, PATH, extend_path, update_pose, wanted_speed

CAR_KIND, VAN_KIND, TRUCK_KIND = 0, 1, 2
TRIES = 40
_PROFILE, _TURN, _SPAWN = int(Purpose.PROFILE), int(Purpose.TURN), int(Purpose.SPAWN)

PAINTS = np.array(
    [
        [236, 236, 234], [32, 33, 36], [112, 116, 120], [176, 180, 184], [24, 48, 96], [150, 24, 28],
        [58, 84, 66], [206, 160, 52], [60, 110, 170], [196, 92, 40], [92, 72, 60], [214, 208, 190],
    ],
    np.uint8,
)  # fmt: skip


@njit(**INNER)
def draw_profile(car: np.void, paint: NDArray[np.uint8], key: np.uint64, spread: float) -> None:
    """Size, driver and paint of a vehicle. spread: largest deviation of the speed factor from 1."""
    kind = nth_uniform(key, 0)
    size = nth_uniform(key, 1)
    if kind < 0.78:
        car.kind, car.length, car.width, car.height = CAR_KIND, 3.9 + 0.9 * size, 1.72 + 0.16 * size, 1.42 + 0.28 * size
        car.front_axle, car.wheelbase, car.most = 0.19 * car.length, 0.6 * car.length, 1.6 + nth_uniform(key, 2)
    elif kind < 0.93:
        car.kind, car.length, car.width, car.height = VAN_KIND, 5.0 + 0.9 * size, 1.92 + 0.1 * size, 2.0 + 0.6 * size
        car.front_axle, car.wheelbase, car.most = 0.18 * car.length, 0.6 * car.length, 1.4 + 0.5 * nth_uniform(key, 2)
    else:
        car.kind, car.length, car.width, car.height = TRUCK_KIND, 6.8 + 1.6 * size, 2.3 + 0.15 * size, 3.0 + 0.5 * size
        car.front_axle, car.wheelbase, car.most = 0.17 * car.length, 0.6 * car.length, 1.0 + 0.3 * nth_uniform(key, 2)
    car.factor = 1.0 + spread * (2.0 * nth_uniform(key, 3) - 1.0)
    car.headway = 1.2 + 0.8 * nth_uniform(key, 4)
    color = int(nth_uniform(key, 5) * len(PAINTS))
    for c in range(3):
        paint[c] = PAINTS[color, c]


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
        if abs(c * dx + s * dy) < reach + gap and abs(c * dy - s * dx) < 2.6:
            return False
        if dx * dx + dy * dy < (reach + 1.5) * (reach + 1.5) and abs(c * dy - s * dx) < 2.6:
            return False
    return True


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
) -> bool:
    """Try to put a vehicle on a free place between two distances from the ego; returns whether there was one.

    Places outside junctions, at least 8 m before the end of a lane, that leave gap_m to everybody. Its speed is one from
    which it can stop for what is in front of it. Cost: TRIES x agents.
    """
    car = cars[agent]
    base = hash_key(seed, episode, tick, agent, _SPAWN)
    draw_profile(car, paint, hash_key(seed, episode, tick, agent, _PROFILE), spread)
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
        x, y, yaw = pose_at(graph.lanes, graph.points, lane, s - 0.5 * car.length)
        if not _is_free(cars, agent, x, y, yaw, car.length, gap_m):
            continue
        path[:] = -1
        path[BEHIND] = lane
        car.turns = int(key & np.uint64(0xFFFFF))
        complete_path(graph, path, car, seed, episode, agent, BEHIND + 1)
        car.s, car.acceleration, car.wait, car.waiting, car.indicator = s, 0.0, 0, 0, 0
        fast = 0.8 * cap_at(graph.lanes, graph.points, lane, s)
        fast = min(fast, math.sqrt(2.0 * 1.5 * max(record.length - s - 2.0, 0.0)))
        car.speed = min(fast, wanted_speed(graph, path, s, car.factor, fast), math.sqrt(2.0 * gap_m))
        car.active = 1
        update_pose(graph, path, car)
        return True
    car.active = 0
    return False
