"""Agents that follow a script: what they do before and after a trigger. One record an agent, filled when an episode begins.

Knows vehicles on paths, and bodies off them; knows nothing about which scenario wrote the script, or why. Everybody else is
normal traffic.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import LaneGraph
from sim.numba_setup import INNER, KERNEL
from sim.traffic.right_of_way import travel_time
from sim.traffic.spawning import complete_path, shape_of
from sim.traffic.vehicles import BEHIND, PATH, update_pose

TICK_S = 0.1
UNSCRIPTED, ON_LANE, OFF_LANE = 0, 1, 2
NEVER, AT_ONCE, EGO_WITHIN, EGO_ARRIVES, EGO_PASSES, ARRIVES = 0, 1, 2, 3, 4, 5
FREE_PACE, MEETS_EGO, BESIDE_EGO = 0, 1, 2
IGNORES_LEADER, IGNORES_SIGNALS, IGNORES_PRIORITY, IGNORES_EGO = 1, 2, 4, 8
WAITING, ACTING, DONE = 0, 1, 2
LIKE_TRAFFIC = -1.0  # as a speed: whatever the traffic's own rules say
GAIN_PER_S = 4.0  # of the speed regulator
KEEP_UP_PER_S = 0.5  # m/s for each metre that somebody beside the ego is out of place
MOST_RATE_MPS2 = 3.0
CURVE_FACTOR = 1.3  # of the speed that traffic would take a curve at
PEDESTRIAN_KIND, BARRIER_KIND, CONE_KIND = 6, 7, 8
BIG = 1e9
EGO_RATE_MPS2 = 1.4  # with which a driver speeds up and slows down
PAST_M = 15.0  # behind the place where it met the ego a vehicle is like any other

SCRIPT = np.dtype(
    [
        ("s", "f8"), ("x", "f8"), ("y", "f8"), ("yaw", "f8"), ("size", "f8"), ("lateral", "f8"), ("speed", "f8"),
        ("at", "f8"), ("threshold", "f8"), ("gap", "f8"), ("ego_speed", "f8"), ("left", "f8"),
        ("speed_before", "f8"), ("speed_acting", "f8"), ("speed_after", "f8"), ("rate", "f8"),
        ("lateral_acting", "f8"), ("lateral_after", "f8"), ("sideways", "f8"), ("goal_x", "f8"), ("goal_y", "f8"),
        ("lane", "i4"), ("hold", "i4"), ("ticks", "i4"),
        ("mode", "i1"), ("kind", "i1"), ("trigger", "i1"), ("stage", "i1"), ("pace", "i1"), ("change", "i1"),
        ("ignores", "i1"), ("siren", "i1"),
        ("red", "u1"), ("green", "u1"), ("blue", "u1"),
    ],
    align=True,
)  # fmt: skip
"""What one agent does.

mode: UNSCRIPTED, ON_LANE (a vehicle on its path, like traffic), or OFF_LANE (a body that stands at x, y, yaw, and after the
trigger moves straight to goal_x, goal_y). kind, size in [0, 1], red, green, blue: of its body. siren: 1 for an emergency vehicle
on duty. lane, s: where its front bumper begins. lateral, lateral_acting, lateral_after: its place across the lane in each
stage, left positive, m; sideways: how fast it may move across, m/s. speed: at the start; speed_before, speed_acting, speed_after:
wanted in each stage, m/s, LIKE_TRAFFIC for what traffic would do; rate: hardest change of speed while acting, m/s2.
trigger: NEVER, AT_ONCE, EGO_WITHIN (threshold metres), EGO_ARRIVES (the ego's front will be at arc length `at` of its route
within threshold seconds, which it passes at ego_speed), EGO_PASSES (it is there), ARRIVES (its own `left` is down to threshold).
stage: WAITING, ACTING, then after `hold` ticks (0: never) DONE; ticks: acted so far.
pace, before the trigger: FREE_PACE, MEETS_EGO (reaches the place `left` metres ahead when the ego reaches `at`; from threshold
seconds before that place it acts, whatever the ego does, and PAST_M behind it it is done), or BESIDE_EGO (its rear is `gap`
metres ahead of the ego's front). change: the side to which it changes lanes at the trigger, 1 left, -1 right.
ignores: sum of IGNORES_*, until it is done."""

SCENE = np.dtype(
    [
        ("offset", "f8"), ("length", "f8"), ("speed", "f8"), ("clear_x", "f8"), ("clear_y", "f8"), ("clear_m", "f8"),
        ("cross_from", "f8"), ("cross_to", "f8"), ("shift_ms", "i8"), ("lanes", "i4"), ("given", "i1"),
    ],
    align=True,
)  # fmt: skip
"""How an episode begins if given is 1, and not drawn: the route's lanes (their number; they stand in the world's own arrays), the
ego's offset on the first, the length to the goal, the ego's speed; no traffic appears within clear_m of clear_x, clear_y;
between the arc lengths cross_from and cross_to the ego may use the oncoming lane; shift_ms: where signal programs begin, or -1."""


@njit(**KERNEL)
def time_to(distance: float, speed: float, there: float) -> float:
    """About how long a driver takes to a place in m if it may drive through it at most at the speed `there`, m/s; s."""
    if distance <= 0.0:
        return 0.0
    if there <= 0.0:
        return distance / max(speed, 2.0)
    if speed <= there:
        return travel_time(distance, max(speed, 1.0), EGO_RATE_MPS2, there)
    braking = (speed * speed - there * there) / (2.0 * EGO_RATE_MPS2)
    if distance < braking:
        return 2.0 * distance / (speed + there)
    return (distance - braking) / speed + (speed - there) / EGO_RATE_MPS2


@njit(**INNER)
def is_kept_clear(scene: np.void, x: float, y: float) -> bool:
    """Whether nobody but scripted agents may appear at a place."""
    if scene.given == 0:
        return False
    return (x - scene.clear_x) ** 2 + (y - scene.clear_y) ** 2 < scene.clear_m * scene.clear_m


@njit(**INNER)
def begin_scripts(
    graph: LaneGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    paint: NDArray[np.uint8],
    scripts: NDArray[np.void],
    script_paths: NDArray[np.int32],
    seed: np.uint64,
    episode: int,
) -> None:
    """Put all scripted agents where their scripts say."""
    for i in range(1, len(cars)):
        script, car, path = scripts[i], cars[i], paths[i]
        if script.mode == UNSCRIPTED:
            continue
        _give_body(car, script)
        paint[i, 0], paint[i, 1], paint[i, 2] = script.red, script.green, script.blue
        car.s, car.speed, car.acceleration, car.indicator = script.s, script.speed, 0.0, 0
        car.lateral, car.offset, car.drift, car.sideways = script.lateral, script.lateral, 0.0, script.sideways
        car.from_lane, car.change, car.rest, car.signalling, car.dwell, car.served = -1, 0, 0, 0, 0, -1
        car.factor, car.headway, car.politeness, car.boldness = 1.0, 1.4, 0.2, 2.0
        car.signals, car.breaks, car.siren, car.blind = 1, 0, script.siren, 0
        car.wait, car.waiting, car.turns, car.active = 0, 0, 0, 1
        script.stage, script.ticks = WAITING, 0
        if script.ignores & IGNORES_EGO:
            car.blind = 1
        if script.mode == ON_LANE:
            known = BEHIND
            for k in range(PATH):
                path[k] = script_paths[i, k]
                if path[k] >= 0 and k > known:
                    known = k
            complete_path(graph, path, car, seed, episode, i, known + 1)
            update_pose(graph, path, car)
        else:
            path[:] = -1
            car.x, car.y, car.yaw = script.x, script.y, script.yaw


@njit(**INNER)
def _give_body(car: np.void, script: np.void) -> None:
    if script.kind < PEDESTRIAN_KIND:
        shape_of(car, script.kind, script.size)
        return
    car.kind, car.narrow, car.fastest, car.most = script.kind, 0, 60.0, 2.0
    if script.kind == PEDESTRIAN_KIND:
        car.length, car.width, car.height = 0.5, 0.55, 1.55 + 0.35 * script.size
    elif script.kind == BARRIER_KIND:
        car.length, car.width, car.height = 0.35, 1.5, 1.05
    else:
        car.length, car.width, car.height = 0.36, 0.36, 0.75
    car.front_axle, car.wheelbase = 0.5 * car.length, 0.0


@njit(**INNER)
def _is_due(script: np.void, car: np.void, me: np.void, ego: np.void) -> bool:
    """Whether the trigger of an agent fires now."""
    if script.trigger == AT_ONCE:
        return True
    if script.trigger == EGO_WITHIN:
        return math.hypot(car.x - me.x, car.y - me.y) < script.threshold
    if script.trigger == EGO_ARRIVES:
        if script.pace == MEETS_EGO and script.left < script.threshold * max(script.speed_acting, 2.0):
            return True
        return time_to(script.at - ego.front, me.speed, script.ego_speed) < script.threshold
    if script.trigger == EGO_PASSES:
        return ego.front >= script.at
    return script.trigger == ARRIVES and script.left <= script.threshold


@njit(**INNER)
def advance_scripts(cars: NDArray[np.void], scripts: NDArray[np.void], ego: np.void) -> None:
    """Fire triggers, count the ticks of those that act, and move bodies off lanes. Once a tick, before anybody decides."""
    me = cars[0]
    for i in range(1, len(cars)):
        script, car = scripts[i], cars[i]
        if script.mode == UNSCRIPTED or car.active == 0:
            continue
        if script.stage == WAITING and _is_due(script, car, me, ego):
            script.stage = ACTING
            car.offset = script.lateral_acting
        elif script.stage == ACTING:
            script.ticks += 1
            past = script.pace == MEETS_EGO and script.left < -PAST_M
            if past or (script.hold > 0 and script.ticks >= script.hold):
                script.stage = DONE
                car.offset, car.blind = script.lateral_after, 0
        if script.mode == OFF_LANE:
            _move_body(car, script)
        else:
            script.left -= car.speed * TICK_S


@njit(**INNER)
def _move_body(car: np.void, script: np.void) -> None:
    """One tick of a body off its lane: straight to its goal, where it stays."""
    away = math.hypot(script.goal_x - car.x, script.goal_y - car.y)
    if script.stage == WAITING or away < 0.01:
        car.speed, car.acceleration = 0.0, 0.0
        return
    wanted = max(script.speed_acting if script.stage == ACTING else script.speed_after, 0.0)
    change = script.rate * TICK_S
    speed = min(max(wanted, car.speed - change), car.speed + change)
    speed = min(speed, away / TICK_S)
    car.acceleration, car.speed = (speed - car.speed) / TICK_S, speed
    car.yaw = math.atan2(script.goal_y - car.y, script.goal_x - car.x)
    share = speed * TICK_S / away
    car.x += (script.goal_x - car.x) * share
    car.y += (script.goal_y - car.y) * share


@njit(**INNER)
def scripted_speed(script: np.void, car: np.void, me: np.void, ego: np.void) -> float:
    """Speed in m/s that the script wants now, LIKE_TRAFFIC where it leaves that to the traffic's rules."""
    if script.stage == ACTING:
        return script.speed_acting
    if script.stage == DONE:
        return script.speed_after
    if script.pace == MEETS_EGO:
        wanted = script.left / max(time_to(script.at - ego.front, me.speed, script.ego_speed), 0.3)
        return min(max(wanted, 0.5 * script.speed_before), 1.2 * script.speed_before)
    if script.pace == BESIDE_EGO:
        ahead = (car.x - me.x) * math.cos(me.yaw) + (car.y - me.y) * math.sin(me.yaw) - 0.5 * (car.length + me.length)
        return max(me.speed + KEEP_UP_PER_S * (script.gap - ahead), 0.0)
    return script.speed_before


@njit(**INNER)
def scripted_acceleration(script: np.void, speed: float, wanted: float) -> float:
    """Acceleration in m/s2 towards a wanted speed."""
    rate = script.rate if script.stage == ACTING else MOST_RATE_MPS2
    return min(max(GAIN_PER_S * (wanted - speed), -rate), min(rate, MOST_RATE_MPS2))
