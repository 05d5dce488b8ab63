"""The kernels that reset and step the world, one thread for each environment.

Puts traffic, the ego, events and the driver's view together in the order of a tick; knows nothing about sensors, rewards
or torch. Environments share nothing that is written, so the bytes do not depend on threads, batch size or slot.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.ego_kernels import STILL_MPS, judge, look, move_ego, start_ego
from sim.events import PEDESTRIAN_KIND, Surroundings
from sim.lane_graph import LaneGraph, wrapped
from sim.numba_setup import INNER, UNLOCKED
from sim.traffic.moves import change_all_lanes, decide, move_traffic, num_wanted, recycle
from sim.traffic.playback import Playback, begin_playback, play_tick
from sim.traffic.right_of_way import LATE_MS
from sim.traffic.scripts import UNSCRIPTED, advance_scripts, begin_scripts, is_kept_clear
from sim.traffic.signals import SignalPrograms, show_signals
from sim.traffic.spawning import spawn
from sim.traffic.walk_graph import WalkGraph
from sim.traffic.walkers import move_walkers, spawn_walker
from sim.world_arrays import Events, Hidden, Rules, State, View

TICK_MS = 100
RESET_GAP_M = 9.0


@njit(**INNER)
def _begin_episode(
    graph: LaneGraph,
    walk: WalkGraph,
    programs: SignalPrograms,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    e: int,
    seed: np.uint64,
    episode: int,
) -> None:
    """Route, ego, signals and traffic of a new episode in environment e."""
    cars, paths = hidden.cars[e], hidden.paths[e]
    state.seed[e], state.episode[e], state.tick[e] = seed, episode, 0
    for i in range(len(cars)):
        car = cars[i]
        car.active, car.speed, car.acceleration, car.x, car.y, car.yaw = 0, 0.0, 0.0, 0.0, 0.0, 0.0
        car.s, car.gap, car.gap_speed, car.wait, car.waiting, car.indicator = 0.0, np.inf, 0.0, 0, 0, 0
        car.lateral, car.from_lane, car.narrow, car.siren = 0.0, -1, 0, 0
        car.blind, car.sideways, car.drift, car.stop, car.stood = 0, 0.0, 0.0, -1, 0
        paths[i, :] = -1
    start_ego(graph, rules, playback, state, hidden, e)
    show_signals(programs, hidden.egos[e].shift_ms, state.signal[e])
    if len(playback.line) > 0:
        begin_playback(playback, cars, hidden.followers[e], state.paint[e], seed, episode)
        for i in range(1, len(cars)):
            state.yaw_rad[e, i] = cars[i].yaw
        return
    begin_scripts(graph, cars, paths, state.paint[e], hidden.scripts[e], hidden.script_paths[e], seed, episode)
    last, scene = len(cars) - hidden.walkers.shape[1], hidden.scenes[e]
    for i in range(1, 1 + num_wanted(rules, last - 1)):
        if hidden.scripts[e, i].mode != UNSCRIPTED:
            continue
        spawn(
            graph, cars, paths[i], state.paint[e, i], np.int64(i), seed, episode, np.int64(state.tick[e]),
            0.0, rules.spawn_radius_m, RESET_GAP_M, rules.speed_factor_spread, rules.rule_breakers,
        )  # fmt: skip
        if cars[i].active == 1 and is_kept_clear(scene, cars[i].x, cars[i].y):
            cars[i].active = 0
    for n in range(num_wanted(rules, hidden.walkers.shape[1])):
        spawn_walker(
            walk, cars, hidden.walkers[e, n], state.paint[e, last + n], last + n, seed, episode, np.int64(state.tick[e]),
            RESET_GAP_M, rules.spawn_radius_m,
        )  # fmt: skip
    for i in range(1, len(cars)):
        state.yaw_rad[e, i] = cars[i].yaw


@njit(**INNER)
def _publish(state: State, cars: NDArray[np.void], walkers: int, e: int) -> None:
    """Copy the records of all vehicles but the ego into the public state."""
    last = len(cars) - walkers
    for i in range(1, len(cars)):
        car = cars[i]
        yaw_rate = 0.0
        if car.active == 1 and state.active[e, i] == 1:  # who has just appeared has not turned
            yaw_rate = wrapped(car.yaw - state.yaw_rad[e, i]) / 0.1
        state.active[e, i], state.kind[e, i] = car.active, car.kind
        state.yaw_rate_radps[e, i] = yaw_rate if abs(yaw_rate) < 2.0 else 0.0
        state.x_m[e, i], state.y_m[e, i], state.yaw_rad[e, i] = car.x, car.y, car.yaw
        state.length_m[e, i], state.width_m[e, i], state.height_m[e, i] = car.length, car.width, car.height
        state.rear_axle_m[e, i] = car.front_axle + car.wheelbase - 0.5 * car.length
        state.speed_mps[e, i], state.acceleration_mps2[e, i] = car.speed, car.acceleration
        braking = car.acceleration < -0.6 or car.speed < STILL_MPS
        state.brake_light[e, i] = 1 if braking and i < last and car.kind != PEDESTRIAN_KIND else 0
        state.indicator[e, i] = car.indicator


@njit(**INNER)
def _tick(
    graph: LaneGraph,
    walk: WalkGraph,
    programs: SignalPrograms,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    e: int,
    steer: float,
    throttle: float,
) -> None:
    """Signals, decisions and five substeps of one tick of environment e."""
    cars, paths = hidden.cars[e], hidden.paths[e]
    seed, episode = state.seed[e], state.episode[e]
    state.tick[e] += 1
    now_ms = state.tick[e] * TICK_MS + hidden.egos[e].shift_ms
    show_signals(programs, now_ms, state.signal[e])
    show_signals(programs, now_ms - LATE_MS, hidden.late[e])
    if len(playback.line) > 0:
        play_tick(playback, cars, hidden.followers[e], state.yaw_rad[e], state.tick[e], state.yaw_rate_radps[e, 0])
        state.last_action[e, 0], state.last_action[e, 1] = steer, throttle
        move_ego(rules.car[0], state, e, hidden.egos[e], cars[0], steer, throttle)
        return
    walkers, scripts, ego = hidden.walkers[e], hidden.scripts[e], hidden.egos[e]
    last = len(cars) - len(walkers)
    advance_scripts(cars, scripts, ego)
    decide(
        graph, walk, walkers, cars, paths, hidden.claims[e], hidden.num_claims[e], hidden.spans[e], hidden.num_spans[e],
        state.signal[e], hidden.late[e], scripts, ego,
    )  # fmt: skip
    change_all_lanes(
        graph, cars, paths, last, hidden.spans[e], hidden.num_spans[e], seed, episode, state.tick[e], scripts
    )
    move_walkers(graph, walk, cars, paths, walkers, state.signal[e], seed, episode)
    state.last_action[e, 0], state.last_action[e, 1] = steer, throttle
    move_ego(rules.car[0], state, e, ego, cars[0], steer, throttle)
    move_traffic(graph, cars, paths, last, seed, episode, scripts)
    recycle(
        graph, walk, walkers, rules, cars, paths, state.paint[e], seed, episode, state.tick[e], scripts, hidden.scenes[e]
    )  # fmt: skip


@njit(**INNER)
def _run_env(
    graph: LaneGraph,
    walk: WalkGraph,
    programs: SignalPrograms,
    around: Surroundings,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    events: Events,
    view: View,
    e: int,
    starting: bool,
    seed: np.uint64,
    episode: int,
    steer: float,
    throttle: float,
) -> None:
    """Begin an episode of environment e, or drive it one tick on; then events and the driver's view."""
    if starting:
        _begin_episode(graph, walk, programs, rules, playback, state, hidden, e, seed, episode)
    else:
        _tick(graph, walk, programs, rules, playback, state, hidden, e, steer, throttle)
    _publish(state, hidden.cars[e], hidden.walkers.shape[1], e)
    was_at, was_front = hidden.egos[e].at, np.inf if starting else hidden.egos[e].front
    look(graph, walk, rules, state, hidden, view, e)
    judge(graph, around, rules, playback, state, hidden, events, view, e, was_at, was_front)
    if starting:
        hidden.egos[e].still = 0


@njit(**UNLOCKED)
def run_world(
    k: int,
    which: NDArray[np.intp],
    graph: LaneGraph,
    walk: WalkGraph,
    programs: SignalPrograms,
    around: Surroundings,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    events: Events,
    view: View,
    starting: bool,
    seed: NDArray[np.uint64],
    episode: NDArray[np.int64],
    actions: NDArray[np.float32],
) -> None:
    """Begin the given episodes (starting), or drive one tick on, in the environments `which`; for `threads.over_environments`.

    One kernel for both, because compiling it takes most of the time of a first start.
    """
    for e in which:
        _run_env(
            graph, walk, programs, around, rules, playback, state, hidden, events, view, e, starting, seed[e], episode[e],
            actions[e, 0], actions[e, 1],
        )  # fmt: skip
