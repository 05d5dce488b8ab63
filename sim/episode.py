"""Closed-loop episodes: a policy drives a list of seeds, observers watch.

Knows environments, policies and observers; knows nothing about networks, files or the command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planning.action import Action
from planning.policy import Policy
from sim.drive_batch import DriveBatch
from sim.scenarios.catalogue import Scenario
from sim.scenarios.checks import EVERYWHERE
from sim.step import StepObserver

EVERYWHERE_NAMES = tuple(check.name for check in EVERYWHERE)  # infractions say these already
ObserversFor = Callable[[int], Sequence[StepObserver]]


@dataclass
class EpisodeResult:
    """One episode. success: arrived without an infraction, every check kept. infractions: kind to count.

    mean_speed_mps: over steps. replans: how often the route was planned anew. scenario, parameters, checks (name to whether it
    was kept): None and empty without a scenario; triggered: whether everything that waited for the ego has happened.
    """

    map: str
    seed: int
    success: bool = False
    route_completion: float = 0.0
    route_length_m: float = 0.0
    infractions: dict[str, int] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    steps: int = 0
    total_reward: float = 0.0
    mean_speed_mps: float = 0.0
    replans: int = 0
    scenario: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)
    triggered: bool = False


@dataclass
class _Slot:
    """What one environment of the batch is doing now; result is None where it has nothing left to do."""

    result: EpisodeResult | None = None
    observers: Sequence[StepObserver] = ()
    standing: frozenset[str] = frozenset()


def run_episodes(
    batch: DriveBatch,
    policy: Policy,
    seeds: Sequence[int],
    observers_for: ObserversFor | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[EpisodeResult], float]:
    """Drive episode 0 of every seed, as many at once as the batch has environments.

    observers_for(seed): who watches that episode; they are closed when it ends, also by an error.
    on_progress(steps, episodes): called after each tick with what was added.

    Returns: results in the order of the seeds, and steps per second of wall-clock time over all environments.
    """
    waiting = list(reversed(seeds))
    slots = [_Slot() for _ in range(batch.num_envs)]
    seed_of = np.zeros(batch.num_envs, np.uint64)
    episode_of = np.zeros(batch.num_envs, np.int64)
    results: dict[int, EpisodeResult] = {}
    total_steps = 0
    started = np.zeros(batch.num_envs, np.bool_)
    for e, slot in enumerate(slots):
        seed = waiting.pop() if waiting else int(seeds[-1])
        seed_of[e], started[e] = seed, True
        if len(results) < len(seeds):
            _begin(slot, batch, seed, results, observers_for)
    begin = time.perf_counter()
    try:
        while any(slot.result is not None for slot in slots):
            if started.any():
                batch.reset(started, seed_of, episode_of)
                policy.reset(started)
                started[:] = False
            actions = policy.act(batch.observation, batch.situation)
            _show(batch, slots, actions)
            batch.step(actions)
            busy = sum(slot.result is not None for slot in slots)
            total_steps += busy
            finished = _after_step(batch, slots)
            for e in finished:
                if waiting:
                    seed_of[e], started[e] = waiting.pop(), True
                    _begin(slots[e], batch, int(seed_of[e]), results, observers_for)
            if on_progress is not None:
                on_progress(busy, len(finished))
    finally:
        for slot in slots:
            for observer in slot.observers:
                observer.close()
    elapsed = time.perf_counter() - begin
    return [results[seed] for seed in seeds], total_steps / max(elapsed, 1e-9)


def _begin(
    slot: _Slot, batch: DriveBatch, seed: int, results: dict[int, EpisodeResult], observers_for: ObserversFor | None
) -> None:
    slot.result = results[seed] = EpisodeResult(map=batch.map.name, seed=seed)
    slot.observers = observers_for(seed) if observers_for is not None else ()
    slot.standing = frozenset()


def _show(batch: DriveBatch, slots: list[_Slot], actions: NDArray[np.float32]) -> None:
    for e, slot in enumerate(slots):
        if slot.observers:
            step = batch.snapshot(e, Action(float(actions[e, 0]), float(actions[e, 1])))
            for observer in slot.observers:
                observer.on_step(step)


def _after_step(batch: DriveBatch, slots: list[_Slot]) -> list[int]:
    """Book the tick for every busy slot; returns the slots whose episode has just ended."""
    ended = batch.terminated | batch.truncated
    finished = []
    for e, slot in enumerate(slots):
        result = slot.result
        if result is None:
            continue
        infractions = batch.infractions(e)
        for kind, sentence in infractions.items():
            if kind not in slot.standing:
                result.infractions[kind] = result.infractions.get(kind, 0) + 1
                result.details.append(sentence)
        slot.standing = frozenset(infractions)
        result.steps += 1
        result.total_reward += float(batch.reward[e])
        result.mean_speed_mps += float(batch.world.state.speed_mps[e, 0])
        if not ended[e]:
            continue
        result.mean_speed_mps /= result.steps
        result.route_completion = float(batch.route_completion()[e])
        result.route_length_m = float(batch.world.events.route_length_m[e])
        result.replans = int(batch.world.events.replans[e])
        if batch.scenario is not None:
            _judge_scenario(batch.scenario, batch, e, result)
        arrived = bool(batch.world.events.arrived[e])
        result.success = arrived and not result.infractions and all(result.checks.values())
        if slot.observers:
            last = batch.snapshot(e, None)
            for observer in slot.observers:
                observer.on_step(last)
                observer.close()
        slot.result, slot.observers = None, ()
        finished.append(e)
    return finished


def _judge_scenario(scenario: Scenario, batch: DriveBatch, e: int, result: EpisodeResult) -> None:
    """Put down what was drawn for the scenario that has just ended in environment e, and what its checks say."""
    result.scenario = scenario.family.name
    result.parameters = scenario.parameters(result.seed, 0).model_dump()
    result.checks, result.triggered = batch.judge_scenario(e)
    for check in scenario.family.checks:
        if not result.checks[check.name] and check.name not in EVERYWHERE_NAMES:
            result.details.append(f"check {check.name} failed: {check.words}")
