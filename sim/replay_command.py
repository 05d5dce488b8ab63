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

from perception.preprocess import frames_to_observation
from perception.sensors import SensorFrame
from planning.network_policy import NetworkPolicy
from sim.config import ConfigError
from sim.drive import RULE_BASED, load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.logs.log import Log, LogError
from sim.logs.reader import open_log
from sim.playback.scene_bytes import unpack_scene
from sim.replay import Resimulation, compare_steps, replay_open_loop
from sim.roads.driving_map import map_from_network, map_from_scene
from sim.step import Step, StepObserver


def replay_logs(
    paths: Sequence[Path], policy: str | None, resimulate: bool, video: Path | None, console: Console
) -> list[dict[str, Any]]:
    """Replay each log; one report each, as `replay --json` prints it."""
    reports = []
    for path in paths:
        with open_log(path) as log:
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
    spec = policy.network.spec
    observers: list[StepObserver] = []
    if video is not None:
        from sim.view import VideoWriter, ViewContext

        video.parent.mkdir(parents=True, exist_ok=True)
        observers.append(VideoWriter(video, ViewContext(map_name=log.path.name, policy=policy.name)))

    def observation_of(frames: Sequence[SensorFrame]) -> dict[str, NDArray[np.generic]]:
        return frames_to_observation(frames, spec)

    with console.status(f"replaying {log.path}"):
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
    if log.actions_estimated:
        console.print("The recorded actions are estimates from odometry.")
    if video is not None:
        console.print(f"wrote {video}", highlight=False)
    return {**asdict(result), "video": str(video) if video else None}


def _resimulate(log: Log, console: Console) -> Resimulation:
    header, network, scene = log.header, log.road_network, log.recorded_scene
    if header is None or (network is None and scene is None):
        raise LogError(f"{log.path}: only a log that automedon recorded can be re-simulated; this is a {log.kind}")
    try:
        config = EnvConfig.model_validate_json(header.config)
    except ValidationError as error:
        raise LogError(f"{log.path}: the recorded configuration does not fit this version: {error}") from None
    if scene is not None:
        driving_map = map_from_scene(header.map_name, unpack_scene(scene, str(log.path)))
    else:
        assert network is not None
        driving_map = map_from_network(header.map_name, network, seed=config.scenery_seed)
    batch = DriveBatch(config, 1, driving_map)
    with console.status(f"re-simulating {log.path}"):
        simulated = _simulated(batch, log, header.seed, header.episode)
        result = compare_steps(log.steps(), simulated, log.image_sha256)
    if result.equal:
        console.print(f"[green]equal[/]: {result.steps} steps, every sensor byte the same")
    else:
        console.print(f"[red]different[/]: {result.first_difference}", highlight=False)
    return result


def _simulated(batch: DriveBatch, log: Log, seed: int, episode: int) -> Iterator[Step]:
    """The recorded episode once more, driven by the recorded actions."""
    batch.reset(np.ones(1, np.bool_), np.array([seed], np.uint64), np.array([episode], np.int64))
    for recorded in log.steps():
        yield batch.snapshot(0, recorded.action)
        if recorded.action is None:
            return
        batch.step(recorded.action.as_vector()[None])
