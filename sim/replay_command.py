"""The verb `replay`: recorded logs through a policy (open loop), or through the simulator again (`--resimulate`).

Composes readers, policies, the environment and the video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perception.preprocess import frames_to_observation
from perception.sensors import SensorFrame
from planning.action import Action
from planning.network_policy import NetworkPolicy
from sim.config import ConfigError
from sim.drive import RULE_BASED, load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.logs.log import Log, LogError, LogHeader
from sim.logs.reader import open_log
from sim.logs.recording import ReadOptions
from sim.playback.scene_bytes import unpack_scene
from sim.replay import Resimulation, replay_open_loop, resimulate
from sim.roads.driving_map import map_from_network, map_from_scene
from sim.step import Step, StepObserver
from sim.threads import limit_torch


def replay_logs(
    paths: Sequence[Path],
    policy: str | None,
    resimulate: bool,
    video: Path | None,
    console: Console,
    options: ReadOptions | None = None,
) -> list[dict[str, Any]]:
    """Replay each log; one report each, as `replay --json` prints it. options: for recordings that are not ours."""
    reports = []
    for path in paths:
        with open_log(path, options) as log:
            report: dict[str, Any] = {"log": str(path), "kind": log.kind}
            if policy is not None:
                report |= _open_loop(log, policy, video, console)
            if resimulate:
                report["resimulation"] = asdict(_resimulate(log, console))
            report["problems"] = log.summary.lines()
        for line in report["problems"]:
            console.print(f"{path}: {line}", highlight=False)
        reports.append(report)
    return reports


def _open_loop(log: Log, name: str, video: Path | None, console: Console) -> dict[str, Any]:
    if name in RULE_BASED:
        raise ConfigError(
            f"policy {name!r} looks through no sensors, so there is nothing in a log to replay to it; give a checkpoint"
        )
    policy = load_policy(name)
    assert isinstance(policy, NetworkPolicy)
    limit_torch(1)  # it sees a frame at a time, as where it drove
    spec = policy.network.spec
    observers: list[StepObserver] = []
    if video is not None:
        from sim.view import VideoWriter, ViewContext

        context = ViewContext(log_name=log.path.name, start_us=log.start_us, policy=policy.name)
        observers.append(VideoWriter(video, context))

    def observation_of(frames: Sequence[SensorFrame]) -> dict[str, NDArray[np.generic]]:
        return frames_to_observation(frames, spec)

    with console.status(Text(f"replaying {log.path}")):
        result = replay_open_loop(log, policy, observation_of, observers)
    table = Table(title=f"Open loop: {log.path} ({log.kind})")
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_row("frames", str(result.frames))
    for sensor, age in result.sensor_age_ms.items():
        table.add_row(f"age of {sensor}", ", ".join(f"{key} {value:.1f} ms" for key, value in age.items()))
    for key, value in result.action_error.items():
        table.add_row(f"{key} against the recorded action", f"{value:.3f}")
    console.print(table)
    console.print("Open loop: the recorded world does not react to the policy's actions.")
    if result.recorded_actions == "estimated from odometry":
        console.print("The recorded actions are estimates from odometry.")
    if video is not None:
        console.print(f"wrote {video}", highlight=False)
    return {**asdict(result), "video": str(video) if video else None}


def _resimulate(log: Log, console: Console) -> Resimulation:
    header, network, scene = log.header, log.road_network, log.recorded_scene
    if header is None:
        raise LogError(f"{log.path}: only a log that automedon recorded can be re-simulated; this is a {log.kind}")
    if network is None and scene is None:
        why = "".join(f"; {line}" for line in log.summary.lines())
        raise LogError(f"{log.path}: its map is missing or damaged, so it cannot be re-simulated{why}")
    try:
        config = EnvConfig.model_validate_json(header.config)
    except ValidationError as error:
        raise LogError(f"{log.path}: the recorded configuration does not fit this version: {error}") from None
    if config.meshes:  # the only files that a configuration makes an environment open once it has its map
        named = ", ".join(str(mesh.path) for mesh in config.meshes)
        raise LogError(
            f"{log.path}: its configuration names mesh files ({named}); a log holds no meshes, and no file that it names "
            "is opened, so it cannot be re-simulated"
        )
    if scene is not None:
        driving_map = map_from_scene(header.map_name, unpack_scene(scene, str(log.path)))
    else:
        assert network is not None
        driving_map = map_from_network(header.map_name, network, seed=config.scenery_seed)
    batch = DriveBatch(config, 1, driving_map)
    with console.status(Text(f"re-simulating {log.path}")):
        result = resimulate(log, lambda header, actions: _simulated(batch, header, actions))
    if result.equal:
        said = Text("equal", "green"), f"{result.steps} steps, every sensor byte the same"
    elif result.first_difference is not None:
        said = Text("different", "red"), str(result.first_difference)
    elif result.after_gap is not None:
        said = (
            Text("incomplete", "red"),
            f"the log lost the steps before tick {result.after_gap}; the {result.steps} steps before the gap are the same, "
            "and nothing behind it can be compared",
        )
    else:
        said = Text("nothing compared", "red"), "the log holds no step that can be read"
    console.print(*said, sep=": ", highlight=False)
    return result


def _simulated(batch: DriveBatch, header: LogHeader, actions: Iterator[Action | None]) -> Iterator[Step]:
    """The recorded episode once more, driven by the recorded actions."""
    batch.reset(np.ones(1, np.bool_), np.array([header.seed], np.uint64), np.array([header.episode], np.int64))
    for action in actions:
        yield batch.snapshot(0, action)
        if action is None:
            return
        batch.step(action.as_vector()[None])
