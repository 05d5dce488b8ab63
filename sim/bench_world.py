"""Measures steps of the environment: with sensors against CarRacing, privileged, by batch size; memory; the first drive.

Contestants are timed in turn, round after round in one process, and ratios are medians of the rounds' own ratios, so that what
else the machine does falls on all of them. Only the environments' steps count, not the driver that chooses the actions.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import gymnasium
import numba
import numpy as np
from numpy.typing import NDArray

from planning.route_follower import RouteFollower
from sim.env import DriveVectorEnv
from sim.logs.log import cpu_model, git_commit

AGENTS = 21  # 20 beside the ego
SENSOR_ENVS = 32
PRIVILEGED_ENVS = 256
SMALL_BATCH, LARGE_BATCH = 64, 512
SETTLED_RESETS, RESETS = 50, 1000
WARM_UP_STEPS = 30
DRIVE = ("drive", "--seed", "0", "--json")
Timed = Callable[[], float]


def bench_world(rounds: int = 15, steps: int = 20, *, resets: int = RESETS, drives: bool = True) -> dict[str, Any]:
    """Steps of one environment a second, their ratios, growth of memory, and the seconds of a first and a second drive.

    rounds, steps: each contestant takes that many steps in each round. Batches are as large as the constants above say.
    drives: also measure the first drive after an installation, all compilation included, and the one after it.

    Raises:
        gymnasium.error.DependencyNotInstalled: CarRacing is not there (extra `bench`).
    """
    report: dict[str, Any] = {}
    with _threads(1):
        ours, theirs = _Driven(SENSOR_ENVS, steps, observation="sensors"), _CarRacing(steps * 2)
        times = _in_turn({"sensor": ours, "carracing": theirs}, rounds)
        report["sensor_steps_per_s"] = _median(1.0 / times["sensor"])
        report["carracing_steps_per_s"] = _median(1.0 / times["carracing"])
        report["sensor_ratio"] = _median(times["carracing"] / times["sensor"])
        report["sensor_ratio_quartiles"] = _quartiles(times["carracing"] / times["sensor"])
        report["rss_growth"] = _memory_growth(resets)
        small = _Driven(SMALL_BATCH, steps, observation="privileged")
        large = _Driven(LARGE_BATCH, steps, observation="privileged")
        times = _in_turn({"small": small, "large": large}, rounds)
        report["batch_cost_ratio"] = _median(times["large"] / times["small"])
        report["batch_cost_ratio_quartiles"] = _quartiles(times["large"] / times["small"])
    threads = min(2, numba.config.NUMBA_NUM_THREADS)
    with _threads(threads):
        times = _in_turn({"privileged": _Driven(PRIVILEGED_ENVS, steps, observation="privileged")}, rounds)
        report["privileged_steps_per_s"] = _median(1.0 / times["privileged"])
        report["privileged_quartiles"] = _quartiles(1.0 / times["privileged"])
    if drives:
        report["first_drive_s"], report["second_drive_s"] = _first_drives()
    return report | {
        "rounds": rounds,
        "steps_per_round": steps,
        "agents": AGENTS,
        "threads_privileged": threads,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("numba", "numpy", "gymnasium")},
        "commit": git_commit(),
    }


class _Driven:
    """A batch of our environments with the rule-based driver; a call returns the seconds of one step of one of them."""

    def __init__(self, num_envs: int, steps: int, **config: Any) -> None:
        self._envs = DriveVectorEnv(num_envs, copy=False, world={"agents": AGENTS}, **config)
        self._driver, self._steps = RouteFollower(), steps
        self._envs.reset(seed=0)
        for _ in range(WARM_UP_STEPS):
            self._step()

    def _step(self) -> float:
        actions = self._driver.act({}, self._envs.batch.situation)
        begun = time.perf_counter()
        self._envs.step(actions)
        return time.perf_counter() - begun

    def __call__(self) -> float:
        return sum(self._step() for _ in range(self._steps)) / self._steps / self._envs.num_envs


class _CarRacing:
    """Gymnasium's CarRacing with its 96 x 96 picture, going straight ahead; a call returns the seconds of one step."""

    def __init__(self, steps: int) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        self._env = gymnasium.make("CarRacing-v3")
        self._steps = steps
        self._env.reset(seed=0)

    def __call__(self) -> float:
        seconds = 0.0
        action = np.array([0.0, 0.1, 0.0], np.float32)
        for _ in range(self._steps):
            begun = time.perf_counter()
            *_, terminated, truncated, _ = self._env.step(action)
            seconds += time.perf_counter() - begun
            if terminated or truncated:
                self._env.reset()
        return seconds / self._steps


def _in_turn(contestants: dict[str, Timed], rounds: int) -> dict[str, NDArray[np.float64]]:
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(contestant())
    return {name: np.array(values) for name, values in times.items()}


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


def _quartiles(values: NDArray[np.float64]) -> list[float]:
    return [float(q) for q in np.percentile(values, [25, 75])]


def _memory_growth(resets: int) -> float:
    """By which share resident memory grows over so many resets, after the first ones."""
    envs = DriveVectorEnv(2, copy=False, world={"agents": AGENTS})
    actions = np.zeros((2, 2), np.float32)
    before = 0
    for k in range(SETTLED_RESETS + resets):
        if k == SETTLED_RESETS:
            before = _resident_bytes()
        envs.reset(seed=k)
        envs.step(actions)
    return _resident_bytes() / before - 1.0


def _resident_bytes() -> int:
    """Memory of this process that is in RAM; Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _first_drives() -> tuple[float, float]:
    """Seconds of `automedon drive` in a new process with empty caches, and again with those that it left."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"XDG_CACHE_HOME": folder}
        for _ in range(2):
            begun = time.perf_counter()
            command = [sys.executable, "-m", "sim", *DRIVE]
            subprocess.run(command, env=environment, check=True, capture_output=True)
            seconds.append(time.perf_counter() - begun)
    return seconds[0], seconds[1]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    kernels, pictures = numba.get_num_threads(), cv2.getNumThreads()
    numba.set_num_threads(count)
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        numba.set_num_threads(kernels)
        cv2.setNumThreads(pictures)
