"""Drives one episode of a suite and writes what came of it: scores, parts, infractions, and how to repeat it.

Knows suites, environments, policies and files; knows nothing about workers. Everything but `timing` in an episode's file is a
function of suite, policy and version alone, whoever computes it and in whatever order.
"""

from __future__ import annotations

import gzip
import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planning.policy import Observation, Policy, Situation
from planning.sense import Sense
from sim.drive import RULE_BASED, load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.dynamics import vehicle_of
from sim.episode import run_episodes
from sim.evaluation.episode_scores import as_plain, score_episode
from sim.evaluation.rates import episode_rates, latency_of
from sim.evaluation.recorded_driver import beyond_the_goal, recorded_track
from sim.evaluation.scene import SceneRecorder
from sim.evaluation.suite import Suite, env_config
from sim.evaluation.track import Track
from sim.evaluation.track_observer import TrackObserver
from sim.roads.driving_map import load_map
from sim.step import StepObserver
from sim.threads import limit_torch

EXPERT = "expert"


@dataclass(frozen=True)
class Job:
    """What a worker needs to know; plain values only. out: the run's folder. `*_name`: of a file in it. maps: folder of maps.

    without: sensors that the policy drives without.
    """

    suite: Suite
    suite_file: str
    policy: str
    rig: str
    out: str
    maps: str | None = None
    without: tuple[Sense, ...] = ()

    def episode_name(self, index: int) -> str:
        return f"episodes/{self.suite.id_of(index)}.json"

    def scene_name(self, index: int) -> str:
        return f"scenes/{self.suite.id_of(index)}.json.gz"

    def reference_name(self, index: int) -> str:
        return f"references/{self.suite.id_of(index)}.json.gz"

    def episode_file(self, index: int) -> Path:
        return Path(self.out) / self.episode_name(index)

    def forget(self, index: int) -> None:
        """Remove what an earlier drive of an episode left, its reference too, so that nothing old is taken for new."""
        for name in (self.episode_name(index), self.scene_name(index), self.reference_name(index)):
            (Path(self.out) / name).unlink(missing_ok=True)

    def env_config(self, index: int, observation: str) -> EnvConfig:
        """The environment of an episode. Raises as `suite.env_config`."""
        maps = None if self.maps is None else Path(self.maps)
        return env_config(self.suite, index, Path(self.suite_file), self.rig, observation, maps)

    def command(self, index: int) -> str:
        """The command that repeats one episode."""
        words = ["automedon", "evaluate", self.suite_file, "--policy", self.policy, "--rig", self.rig]
        words += [] if self.maps is None else ["--maps-dir", self.maps]
        words += [word for sense in self.without for word in ("--without", sense)]
        return shlex.join([*words, "--only", self.suite.id_of(index)])


@dataclass
class _Timed:
    """A policy, and the seconds that each of its decisions took."""

    policy: Policy
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.policy.name

    def reset(self, started: NDArray[np.bool_]) -> None:
        self.policy.reset(started)

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        begin = time.perf_counter()
        actions = self.policy.act(observation, situation)
        self.seconds.append(time.perf_counter() - begin)
        return actions


def observation_for(policy: str) -> str:
    """What the environment has to simulate for a policy: sensors only where it looks through them."""
    if policy in RULE_BASED:
        return "privileged"
    loaded = load_policy(policy)
    kind = getattr(getattr(getattr(loaded, "network", None), "config", None), "kind", None)
    return "privileged" if kind == "privileged" else "sensors"


def drive_episode(
    batch: DriveBatch, policy: Policy, seed: int, watchers: Sequence[StepObserver] = ()
) -> tuple[Track, list[float]]:
    """The track of an episode in a batch of one, and seconds of each decision."""
    timed, observer = _Timed(policy), TrackObserver()
    run_episodes(batch, timed, [seed], lambda _: [observer, *watchers])
    return observer.track(), timed.seconds


class EpisodeRunner:
    """Runs episodes of one job in this process; loads the policy once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._observation = observation_for(job.policy)
        if job.policy not in RULE_BASED:
            limit_torch(1)  # sums over threads would depend on their number
        self._policies: dict[tuple[str, str, str], Policy] = {}
        self._batch: DriveBatch | None = None  # of the last episode; the next one is often on the same map

    def run(self, index: int) -> None:
        """Drive an episode and write its files, each whole or not at all, the report last.

        Raises:
            ConfigError, MapError, ObservationError, ...: a mistake in what was asked for.
        """
        for name, data in self.files_of(index).items():
            write_atomically(Path(self.job.out) / name, data)

    def files_of(self, index: int) -> dict[str, bytes]:
        """Drive an episode; what is to be written in the run's folder, by name, the report last. Raises as `run`."""
        files: dict[str, bytes] = {}
        job, suite = self.job, self.job.suite
        episode = suite.episodes[index]
        config = job.env_config(index, self._observation)
        began = time.perf_counter()
        recorder = SceneRecorder()
        batch = self._batch_of(config)
        track, seconds = drive_episode(batch, self._policy(job.policy, config), episode.seed, (recorder,))
        elapsed_s = time.perf_counter() - began
        if batch.map.recording is not None:
            track, expert = beyond_the_goal(track, batch.map), recorded_track(batch.map)
        else:
            expert = track if job.policy == EXPERT else self._reference(index, config, files)
        scores, rates = score_episode(track, expert), episode_rates(track)
        report: dict[str, Any] = {
            "id": suite.id_of(index),
            "suite": suite.name,
            "index": index,
            "family": episode.family,
            "condition": episode.condition,
            "map": config.map if episode.map is None else episode.map,
            "scenario": episode.scenario,
            "seed": episode.seed,
            "weather": episode.weather,
            "policy": job.policy,
            "rig": job.rig,
            "route_length_m": track.route_length_m,
            "reference": "route follower" if batch.map.recording is None else "recorded driver",
            "scores": as_plain(scores),
            "rates": asdict(rates),
            "infractions": [asdict(infraction) for infraction in track.infractions],
            "contacts": [asdict(contact) for contact in track.contacts],
            "command": job.command(index),
            "timing": {"policy": asdict(latency_of(seconds)), "elapsed_s": elapsed_s, "ticks": track.ticks},
        }
        scene = recorder.scene(batch.map.network)
        files[job.scene_name(index)] = _packed(scene)
        files[job.episode_name(index)] = (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()
        return files

    def _policy(self, name: str, config: EnvConfig) -> Policy:
        world = config.world
        key = (name, world.vehicle, world.vehicle_model)
        if key not in self._policies:
            without = self.job.without if name == self.job.policy else ()
            self._policies[key] = load_policy(name, vehicle_of(world.vehicle, world.vehicle_model), without)
        return self._policies[key]

    def _batch_of(self, config: EnvConfig) -> DriveBatch:
        """A batch of one; the last one again where nothing but weather that nobody sees has changed."""
        if config.observation == "privileged":
            config = config.model_copy(update={"weather": "clear"})
        if self._batch is None or self._batch.config != config:
            self._batch = None  # gives its memory back first
            # Where the policy looks through sensors, what is simulated without them is the expert's run beside it.
            blind = self.job.policy in RULE_BASED or self._observation == "sensors"
            self._batch = DriveBatch(config, 1, load_map(config.map, seed=config.scenery_seed), blind=blind)
        return self._batch

    def _reference(self, index: int, config: EnvConfig, files: dict[str, bytes]) -> Track:
        """The route follower's own run of the episode, from the run's folder or put among the files for it."""
        name = self.job.reference_name(index)
        try:
            return Track.from_json(json.loads(gzip.decompress((Path(self.job.out) / name).read_bytes())))
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            pass  # not there, or damaged
        batch = self._batch_of(config.model_copy(update={"observation": "privileged"}))
        track, _ = drive_episode(batch, self._policy(EXPERT, config), self.job.suite.episodes[index].seed)
        files[name] = _packed(track.as_json())
        return track


def is_users_mistake(error: Exception) -> bool:
    """Whether somebody asked for what cannot be: a `ValueError` of a kind of our own. Every episode would meet it."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, ValueError) and package in ("perception", "fusion", "planning", "sim")


def _packed(values: Any) -> bytes:
    text = json.dumps(values, allow_nan=False, separators=(",", ":")).encode()
    return gzip.compress(text, compresslevel=3, mtime=0)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)
