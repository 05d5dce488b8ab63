"""The verb `drive`: closed-loop episodes with a named policy, recorded and filmed on request.

Composes environment, policy, log writer and video; torch is loaded only where the policy is a network.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from planning.constant import CONSTANT, IDLE
from planning.policy import Policy
from planning.sense import Sense
from planning.shipped import SHIPPED, SHIPPED_FILE, SHIPPED_RIG
from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.dynamics import SEDAN, Vehicle, vehicle_of
from sim.episode import EpisodeResult, run_episodes
from sim.playback.scene_bytes import pack_scene
from sim.roads.driving_map import DrivingMap
from sim.step import StepObserver
from sim.threads import MOST_THREADS, limit_torch

RULE_BASED = ("expert", "idle", "constant")
POLICIES = (SHIPPED, *RULE_BASED)


class DriveConfig(BaseModel):
    """What `automedon drive` runs; options of the command line override it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str | None = Field(
        default=None,
        description="shipped, expert, idle, constant, or the path of a checkpoint; if left out: shipped, or the expert in a car "
        "whose sensors that network was not trained with",
    )
    without: tuple[Sense, ...] = Field(
        default=(), description="sensors that a network drives without, as if they had failed"
    )
    seed: int = Field(default=0, ge=0, lt=2**62, description="episode k has seed + k")
    episodes: int = Field(default=1, ge=1, le=100_000)
    envs: int = Field(default=1, ge=1, le=4096, description="environments side by side")
    env: EnvConfig = EnvConfig()

    @property
    def driver(self) -> str:
        """The name of the policy that drives."""
        if self.policy is not None:
            return self.policy
        return SHIPPED if self.env.rig == SHIPPED_RIG and self.env.observation != "privileged" else "expert"


@dataclass(frozen=True)
class DriveReport:
    """What `drive` measured; logs and videos are in the order of the episodes, None where nothing was written."""

    episodes: list[EpisodeResult]
    steps_per_s: float
    logs: list[Path | None]
    videos: list[Path | None]

    def as_json(self) -> dict[str, Any]:
        """The object that `drive --json` prints."""
        return {
            "episodes": [
                {**asdict(result), "log": str(log) if log else None, "video": str(video) if video else None}
                for result, log, video in zip(self.episodes, self.logs, self.videos, strict=True)
            ],
            "steps_per_s": self.steps_per_s,
        }


def load_policy(name: str, car: Vehicle = SEDAN, without: Sequence[Sense] = ()) -> Policy:
    """The policy of that name: a rule-based one, which has to know its car, the shipped network, or the one in a checkpoint.

    without: sensors that a network is to drive without.

    Raises:
        ConfigError: neither a known name nor a file, or one that looks through no sensors. CheckpointError: the file is no usable
            checkpoint.
    """
    if without and name in RULE_BASED:
        raise ConfigError(f"{name} looks through no sensors, so it cannot drive without {without[0]}; give a network")
    match name:
        case "expert":
            from planning.route_follower import RouteFollower

            return RouteFollower(
                wheelbase_m=car.wheelbase, max_steer_rad=car.max_steer, max_acceleration_mps2=car.max_acceleration,
                power_wpkg=car.power, max_brake_mps2=car.max_brake, rolling_mps2=car.rolling, drag_per_m=car.drag,
            )  # fmt: skip
        case "idle":
            return IDLE
        case "constant":
            return CONSTANT
        case "shipped":
            from planning.network_policy import NetworkPolicy

            return NetworkPolicy.load(SHIPPED_FILE, SHIPPED, without)
        case _:
            if not _is_file(name):
                close = difflib.get_close_matches(name, POLICIES, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"no policy named {name!r}, and no such file. Known: {', '.join(POLICIES)}; or the path of a "
                    f"checkpoint (.safetensors).{hint}"
                )
            from planning.network_policy import NetworkPolicy

            return NetworkPolicy.load(name, without=without)


def with_rig_of_network(config: DriveConfig) -> DriveConfig:
    """The config with the rig that the checkpoint of its policy was trained with, where it names a checkpoint and no rig.

    Raises:
        ConfigError: this version does not know that rig. CheckpointError: the file is no usable checkpoint.
    """
    if (
        config.policy is None
        or "rig" in config.env.model_fields_set
        or config.policy in POLICIES
        or not _is_file(config.policy)
    ):
        return config
    from planning.checkpoint import read_tensors

    run = read_tensors(config.policy)[0].get("run_config")
    env = run.get("env", run) if isinstance(run, dict) else None  # PPO trains in environments, other stages on frames
    if not isinstance(env, dict) or "rig" not in env:
        return config
    try:
        trained = EnvConfig.of(**{**config.env.model_dump(exclude_unset=True), "rig": env["rig"]})
    except ConfigError as error:
        raise ConfigError(
            f"{config.policy} was trained with a rig that is not known here ({error}); give --rig"
        ) from None
    return config.model_copy(update={"env": trained})


def _is_file(policy: str) -> bool:
    return "://" in policy or Path(policy).exists()


def drive(
    config: DriveConfig,
    record: Path | None = None,
    video: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    driving_map: DrivingMap | None = None,
) -> DriveReport:
    """Run the episodes.

    record: folder for one log an episode. video: the file, or one beside it for each of several episodes.
    """
    car = vehicle_of(config.env.world.vehicle, config.env.world.vehicle_model)
    policy = load_policy(config.driver, car, config.without)
    watched = record is not None or video is not None
    env_config = config.env
    if not watched and config.driver in RULE_BASED and env_config.observation == "sensors":
        # Nobody looks through the sensors, so they are not simulated; the world does not depend on them.
        env_config = env_config.model_copy(update={"observation": "privileged"})
    envs = min(config.envs, config.episodes)
    if config.driver not in RULE_BASED:
        # One frame keeps one thread busy; another would wait for it, and spin meanwhile.
        limit_torch(min(envs, MOST_THREADS))
    batch = DriveBatch(env_config, envs, driving_map, blind=config.driver in RULE_BASED)
    seeds = [config.seed + k for k in range(config.episodes)]
    files = _Files(config, batch, policy.name, record, video)
    results, steps_per_s = run_episodes(batch, policy, seeds, files.observers_for if watched else None, on_progress)
    logs = [files.log_of(seed) if record else None for seed in seeds]
    videos = [files.video_of(seed) if video else None for seed in seeds]
    return DriveReport(results, steps_per_s, logs, videos)


def reproducing_command(config: DriveConfig, seed: int, file: Path | None, overrides: Sequence[str]) -> str:
    """The command line that drives one episode of a run again, alone.

    config: of the run. file, overrides: what it was resolved from, beside options. Those count more than file and overrides, so
    whatever an option can say is said.
    """
    words = ["automedon", "drive"]
    if file is not None:
        words.append(str(file))
    if config.env.scenario is not None:
        words += ["--scenario", config.env.scenario]
    words += ["--map", config.env.map]
    if isinstance(config.env.rig, str):  # one that is given sensor by sensor stands in the file or the overrides
        words += ["--rig", config.env.rig]
    words += ["--weather", config.env.weather, "--seed", str(seed), "--episodes", "1", "--policy", config.driver]
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)


class _Files:
    """Names and opens what an episode leaves behind."""

    def __init__(
        self, config: DriveConfig, batch: DriveBatch, policy: str, record: Path | None, video: Path | None
    ) -> None:
        self._config, self._batch, self._policy = config, batch, policy
        self._record, self._video = record, video
        self._logs: dict[int, Path] = {}

    def log_of(self, seed: int) -> Path:
        """The episode's log; a log that is there already is kept, and the new one gets a number."""
        assert self._record is not None
        if seed not in self._logs:
            staged = "" if self._config.env.scenario is None else f"{self._config.env.scenario}-"
            name = f"{staged}{Path(self._batch.map.name).stem.replace(':', '-')}-{Path(self._policy).stem}-{seed}"
            path, number = self._record / f"{name}.mcap", 2
            while path.exists():
                path, number = self._record / f"{name}-{number}.mcap", number + 1
            self._logs[seed] = path
        return self._logs[seed]

    def video_of(self, seed: int) -> Path:
        assert self._video is not None
        if self._config.episodes == 1:
            return self._video
        return self._video.with_name(f"{self._video.stem}-{seed}{self._video.suffix}")

    def observers_for(self, seed: int) -> Sequence[StepObserver]:
        from sim.logs.log import LogError, LogHeader
        from sim.logs.writer import LogWriter
        from sim.view import VideoWriter, ViewContext

        observers: list[StepObserver] = []
        driving_map = self._batch.map
        if self._record is not None:
            header = LogHeader.of_this_machine(
                config=self._batch.config.model_dump_json(),
                seed=seed,
                episode=0,
                policy=self._policy,
                map_name=driving_map.name,
            )
            path = self.log_of(seed)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LogError(f"{path} cannot be written: {error.strerror}; choose another folder") from None
            scene = driving_map.recording
            observers.append(
                LogWriter(
                    path,
                    header,
                    net_xml=driving_map.net_xml if scene is None else None,
                    scene=None if scene is None else pack_scene(scene),
                    map_lines=_lane_lines(driving_map),
                )
            )
        if self._video is not None:
            path = self.video_of(seed)
            context = ViewContext(Path(driving_map.name).name, self._policy, seed, driving_map)
            observers.append(VideoWriter(path, context))
        return observers


def _lane_lines(driving_map: DrivingMap) -> list[NDArray[np.float64]]:
    """Centre lines (K, 2) of all lanes, world frame."""
    network = driving_map.network
    points = np.column_stack([network.point_x, network.point_y])
    return np.split(points, network.point_start[1:-1])
