"""What all vehicles but the ego do in a tick: decide, change lanes, move, and be taken away or put in.

Knows lanes, scripts and the rules of the world; knows nothing about the ego's physics, sensors or rewards.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import LaneGraph, turn_side
from sim.numba_setup import INNER
from sim.traffic.bus_stops import bus_stop_distance
from sim.traffic.lane_changes import UNDONE_M, change_lanes, cross_over
from sim.traffic.right_of_way import (
    IGNORES_SIGNALS,
    KEEPS_SIGNALS,
    RUNS_SIGNALS,
    STOP_SIGN_MPS,
    note_standstill,
    stop_distance,
    waited,
)
from sim.traffic.scripts import (
    ACTING,
    BIG,
    CURVE_FACTOR,
    DONE,
    IGNORES_LEADER,
    IGNORES_PRIORITY,
    OFF_LANE,
    ON_LANE,
    UNSCRIPTED,
    is_kept_clear,
    scripted_acceleration,
    scripted_speed,
)
from sim.traffic.scripts import IGNORES_SIGNALS as SCRIPT_IGNORES_SIGNALS
from sim.traffic.spans import find_leader
from sim.traffic.spawning import BICYCLE_OFFSET_M, RUNS_RED, complete_path, spawn
from sim.traffic.vehicles import (
    BEHIND,
    HARDEST_BRAKE_MPS2,
    PATH,
    STANDSTILL_GAP_M,
    idm,
    move,
    path_distance,
    update_pose,
    wanted_speed,
)
from sim.traffic.walk_graph import WalkGraph
from sim.traffic.walkers import spawn_walker, walker_stop_distance
from sim.world_arrays import Rules

LINE_GAP_M = 0.8  # where vehicles stop before a line
BICYCLE_INSIDE_M = -0.5  # where bicycles ride in junctions and just before
GIVE_UP_TICKS = 600  # a vehicle that has stood that long, out of sight, drives on elsewhere
RESPAWN_GAP_M = 16.0
BOX_M = 2.0  # by which the middle of a box may lie from the place that was looked for
DESPAWN_FACTOR = 1.25


@njit(**INNER)
def decide(
    graph: LaneGraph,
    walk: WalkGraph,
    walkers: NDArray[np.void],
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    claims: NDArray[np.void],
    num_claims: int,
    spans: NDArray[np.void],
    num_spans: int,
    shown: NDArray[np.int8],
    late: NDArray[np.int8],
    scripts: NDArray[np.void],
    ego: np.void,
) -> None:
    """Accelerations of all vehicles but the ego, from the state of the last tick."""
    last = len(cars) - len(walkers)
    for i in range(1, last):
        if cars[i].active == 1 and scripts[i].mode != OFF_LANE:
            find_leader(graph, cars[i], paths[i], spans, num_spans, i, 60.0 + 3.0 * cars[i].speed)
    for i in range(1, last):
        car = cars[i]
        if car.active == 0 or scripts[i].mode == OFF_LANE:
            continue
        wanted = wanted_speed(graph, paths[i], car.s, car.factor, car.fastest, car.speed)
        ignored = 0
        if scripts[i].mode == ON_LANE:
            ignored = scripts[i].ignores if scripts[i].stage != DONE else 0
            if ignored & IGNORES_LEADER:
                car.gap = np.inf
        acceleration = idm(car.speed, wanted, car.gap, car.gap_speed, car.headway, car.most)
        if scripts[i].mode == ON_LANE:
            asked = scripted_speed(scripts[i], car, cars[0], ego)
            if asked >= 0.0:
                curve = wanted_speed(graph, paths[i], car.s, CURVE_FACTOR, car.fastest, car.speed)
                acceleration = scripted_acceleration(scripts[i], car.speed, min(asked, curve))
                acceleration = min(acceleration, idm(car.speed, BIG, car.gap, car.gap_speed, car.headway, car.most))
        heed = RUNS_SIGNALS if car.breaks == RUNS_RED else IGNORES_SIGNALS if car.siren == 1 else KEEPS_SIGNALS
        if ignored & SCRIPT_IGNORES_SIGNALS:
            heed = IGNORES_SIGNALS
        line = np.inf
        if not ignored & IGNORES_PRIORITY:
            line = stop_distance(graph, cars, paths, claims, num_claims, shown, np.int64(i), late, heed)
            line = min(line, walker_stop_distance(graph, walk, car, paths[i], cars, walkers, shown))
        car.waiting = 1 if line < np.inf else 0
        line = min(line, bus_stop_distance(graph, car, paths[i]))
        for k in range(BEHIND + 1, PATH):
            if paths[i, k] < 0:
                if graph.lanes[paths[i, k - 1]].leaves == 0:
                    line = min(line, path_distance(graph, paths[i], car.s, k))
                break
        if line < np.inf:
            at_line = idm(car.speed, wanted, line - LINE_GAP_M + STANDSTILL_GAP_M, 0.0, 0.6, car.most)
            acceleration = min(acceleration, at_line)
        car.acceleration = max(acceleration, -HARDEST_BRAKE_MPS2)


@njit(**INNER)
def change_all_lanes(
    graph: LaneGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    last: int,
    spans: NDArray[np.void],
    num_spans: int,
    seed: np.uint64,
    episode: int,
    tick: int,
    scripts: NDArray[np.void],
) -> None:
    """Lane changes of all vehicles but the ego. Who begins one is seen on its new lane by those that come after."""
    count = num_spans
    for i in range(1, last):
        car = cars[i]
        if car.active == 0:
            continue
        if scripts[i].mode == UNSCRIPTED:
            begun = change_lanes(graph, cars, paths[i], spans, count, i, seed, episode, tick)
        else:
            begun = _change_as_written(graph, car, paths[i], scripts[i], seed, episode, i)
        if begun:
            span = spans[count]
            span.lane, span.car, span.narrow = paths[i, BEHIND], i, 0
            span.rear, span.front, span.speed, span.low, span.high = car.s - car.length, car.s, car.speed, -2.0, 2.0
            count += 1


@njit(**INNER)
def _change_as_written(
    graph: LaneGraph, car: np.void, path: NDArray[np.int32], script: np.void, seed: np.uint64, episode: int, i: int
) -> bool:
    """The lane change that a script asks for, if there is a lane on that side; True where it has begun now."""
    if car.from_lane >= 0 and abs(car.lateral - car.offset) < UNDONE_M:
        car.from_lane = -1
    if script.mode != ON_LANE or script.change == 0 or script.stage != ACTING:
        return False
    record = graph.lanes[path[BEHIND]]
    target = record.left if script.change > 0 else record.right
    script.change = 0
    if target < 0 or record.junction >= 0:
        return False
    cross_over(graph, car, path, target, seed, episode, i)
    return True


@njit(**INNER)
def indicator_of(graph: LaneGraph, path: NDArray[np.int32], s: float) -> int:
    """1 left, -1 right, 0 none: the turn of the junction lane the vehicle is on or comes to within 30 m."""
    distance = -s
    for k in range(BEHIND, PATH):
        if path[k] < 0 or distance > 30.0:
            break
        record = graph.lanes[path[k]]
        if record.junction >= 0:
            return turn_side(graph, path[k])
        distance += record.length
    return 0


@njit(**INNER)
def move_traffic(
    graph: LaneGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    last: int,
    seed: np.uint64,
    episode: int,
    scripts: NDArray[np.void],
) -> None:
    """Move all vehicles but the ego along their paths for one tick."""
    for i in range(1, last):
        car = cars[i]
        if car.active == 0 or scripts[i].mode == OFF_LANE:
            continue
        move(car)
        path = paths[i]
        while car.s > graph.lanes[path[BEHIND]].length:
            if path[BEHIND + 1] < 0:
                if graph.lanes[path[BEHIND]].leaves == 0:
                    car.s, car.speed = graph.lanes[path[BEHIND]].length, 0.0
                break
            car.s -= graph.lanes[path[BEHIND]].length
            for k in range(PATH - 1):
                path[k] = path[k + 1]
            complete_path(graph, path, car, seed, episode, i, PATH - 1)
        car.wait = waited(car.wait, car.speed)
        note_standstill(graph, car, path, STOP_SIGN_MPS)
        if graph.lanes[path[BEHIND]].junction >= 0:
            car.from_lane = -1
        if car.narrow == 1:
            inside = graph.lanes[path[BEHIND]].junction >= 0 or graph.lanes[path[BEHIND]].length - car.s < 8.0
            car.offset = graph.hand * (BICYCLE_INSIDE_M if inside else BICYCLE_OFFSET_M)
        car.indicator = indicator_of(graph, path, car.s)
        if car.signals == 1 and car.change != 0:
            car.indicator = car.change
        elif car.signals == 1 and car.from_lane >= 0:
            car.indicator = -1 if car.lateral > car.offset else 1
        update_pose(graph, path, car)


@njit(**INNER)
def recycle(
    graph: LaneGraph,
    walk: WalkGraph,
    walkers: NDArray[np.void],
    rules: Rules,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    paint: NDArray[np.uint8],
    seed: np.uint64,
    episode: int,
    tick: int,
    scripts: NDArray[np.void],
    scene: np.void,
) -> None:
    """Take away vehicles that are too far from the ego, or out of its sight and beyond the map or standing for too long, and put
    others in."""
    furthest = rules.spawn_radius_m * DESPAWN_FACTOR
    last = len(cars) - len(walkers)
    vehicles, people = num_wanted(rules, last - 1), num_wanted(rules, len(walkers))
    for i in range(1, len(cars)):
        car = cars[i]
        if car.active == 1:
            d2 = (car.x - cars[0].x) ** 2 + (car.y - cars[0].y) ** 2
            hidden = d2 > rules.respawn_distance_m * rules.respawn_distance_m
            staged = scripts[i].mode != UNSCRIPTED and scripts[i].stage != DONE
            gone = i < last and scripts[i].mode == UNSCRIPTED and car.s > graph.lanes[paths[i, BEHIND]].length
            if not staged and (d2 > furthest * furthest or (hidden and (gone or car.wait > GIVE_UP_TICKS))):
                car.active, scripts[i].mode = 0, UNSCRIPTED
        elif i >= last:
            if i - last < people:
                spawn_walker(
                    walk, cars, walkers[i - last], paint[i], i, seed, episode, tick,
                    rules.respawn_distance_m + BOX_M, rules.spawn_radius_m * 1.1,
                )  # fmt: skip
        elif i <= vehicles:
            spawn(
                graph, cars, paths[i], paint[i], i, seed, episode, tick,
                rules.respawn_distance_m + BOX_M, rules.spawn_radius_m * 1.1, RESPAWN_GAP_M, rules.speed_factor_spread,
                rules.rule_breakers,
            )  # fmt: skip
            if car.active == 1 and is_kept_clear(scene, car.x, car.y):
                car.active = 0


@njit(**INNER)
def num_wanted(rules: Rules, slots: int) -> int:
    return math.floor(rules.traffic_density * slots + 0.5)
