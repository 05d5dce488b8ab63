"""What `automedon train FILE` runs: the stage that the file names, or a recipe of several, one after the other.

Composes the stages; knows nothing about how any of them learns.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table

from perception.preprocess import ObservationSpec
from planning.checkpoint import save_checkpoint
from planning.network import build_network
from sim.config import ConfigError, load_config, read_stage
from sim.observation import PRIVILEGED_SIZE
from sim.sensors.rig import RigConfig
from sim.sensors.rig import rig as rig_by_name
from sim.train import TrainConfig, train
from sim.train_distill import TrainDistillConfig, distill_stage
from sim.train_fuse import TrainFuseConfig, fuse_stage
from sim.train_perception import TrainPerceptionConfig, spec_of, train_stage

REPORT = "report.json"  # in the folder of a step that is done
# A piece that is measured needs nothing that an earlier step has yet to leave.
_ALONE = {"start_from": None, "expert": "rules"}
StageConfig = TrainConfig | TrainPerceptionConfig | TrainDistillConfig | TrainFuseConfig


class RecipeStep(BaseModel):
    """One stage of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9-]{1,32}$", description="of its folder in the run's folder")
    config: str = Field(min_length=1, description="its file, beside the recipe")
    overrides: tuple[str, ...] = Field(default=(), description="key.path=value; {out} is the run's folder")


class RecipeConfig(BaseModel):
    """What `automedon train` runs where `stage = "all"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Literal["all"] = "all"
    seed: int = Field(default=0, ge=0, lt=10_000, description="of every step")
    threads: int = Field(default=2, ge=1, le=256, description="of torch, in every step")
    steps: tuple[RecipeStep, ...] = Field(min_length=1, max_length=16)


def run_stage(path: Path, overrides: Sequence[str], out_dir: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Train what the configuration file's `stage` says; returns figures of the run.

    Raises:
        ConfigError: no such file or stage, or a value that is not allowed; and what each stage raises.
    """
    if read_stage(path, overrides) == "all":
        return _run_recipe(path, load_config(RecipeConfig, path, overrides), out_dir, resume, console)
    return _run(_stage_config(path, overrides), out_dir, resume, console)


def _stage_config(path: Path, overrides: Sequence[str]) -> StageConfig:
    match read_stage(path, overrides):
        case "policy":
            return load_config(TrainConfig, path, overrides)
        case "perception":
            return load_config(TrainPerceptionConfig, path, overrides)
        case "distill":
            return load_config(TrainDistillConfig, path, overrides)
        case "fuse":
            return load_config(TrainFuseConfig, path, overrides)
        case other:
            raise ConfigError(f"{path}: no stage {other!r}; there are: policy, perception, distill, fuse, all")


def _run(config: StageConfig, out_dir: Path, resume: bool, console: Console) -> dict[str, Any]:
    match config:
        case TrainConfig():
            return train(config, out_dir, resume, console)
        case TrainPerceptionConfig():
            return train_stage(config, out_dir, resume, console)
        case TrainDistillConfig():
            return distill_stage(config, out_dir, resume, console)
        case TrainFuseConfig():
            return fuse_stage(config, out_dir, resume, console)


def _run_recipe(path: Path, recipe: RecipeConfig, out_dir: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Run the steps that are not done, each resumed where it was stopped; says first how long they will take."""
    if any((out_dir / step.name).exists() for step in recipe.steps) and not resume:
        raise ConfigError(f"{out_dir} already holds steps of a recipe; add --resume to go on, or choose another folder")
    configs: dict[str, StageConfig] = {}
    for step in recipe.steps:
        given = [override.replace("{out}", str(out_dir)) for override in step.overrides]
        overrides = [*given, f"seed={recipe.seed}", f"threads={recipe.threads}"]
        configs[step.name] = _stage_config(path.parent / step.config, overrides)
    out_dir.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told before anything is measured
    _announce({name: c for name, c in configs.items() if not (out_dir / name / REPORT).exists()}, console)
    figures: dict[str, Any] = {}
    for name, config in configs.items():
        done = out_dir / name / REPORT
        if done.exists():
            report = json.loads(done.read_text(encoding="utf-8"))
        else:
            console.rule(name)
            report = _run(config, out_dir / name, True, console)
            partial = done.with_suffix(".tmp")
            partial.write_text(json.dumps(report, default=str), encoding="utf-8")
            os.replace(partial, done)
        figures |= {f"{name}_{key}": value for key, value in report.items()}
    return {**figures, "out": str(out_dir)}


def _announce(configs: dict[str, StageConfig], console: Console) -> None:
    """Print what each of these steps will take on this machine, measured on a piece of it."""
    table = Table("step", "amount", "rate on this machine", "hours", title="Before it starts, without evaluations")
    hours = []
    for name, config in configs.items():
        console.print(f"measuring {name} ...")
        total, unit, rate = measured_rate(config)
        hours.append(total / rate / 3600)
        table.add_row(name, f"{total:,} {unit}", f"{rate:,.1f} {unit} a second", f"{hours[-1]:.2f}")
    if len(hours) > 1:
        table.add_row("all", "", "", f"{sum(hours):.2f}")
    console.print(table)


def measured_rate(config: StageConfig) -> tuple[int, str, float]:
    """Amount, unit and measured amount a second of a whole run, from a short piece of it in a folder that is thrown away."""
    quiet = Console(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        if isinstance(config, TrainConfig):
            batch = config.num_envs * config.ppo.rollout_steps
            ppo = config.ppo.model_copy(update={"total_steps": 2 * batch, "demonstration_weight": 0.0})
            short: dict[str, Any] = {
                "ppo": ppo, "demonstrations": None, "evaluation_maps": (), "evaluation_episodes": 1,
                "env": config.env.model_copy(update={"max_steps": min(config.env.max_steps, 20)}),
            }  # fmt: skip
            if config.start_from is not None:
                short["start_from"] = _untrained(config, out / "start.safetensors")
            report = train(config.model_copy(update=short), out / "run", False, quiet)
            return config.ppo.total_steps, "steps", float(report["steps_per_s"])
        if isinstance(config, TrainFuseConfig):
            return _measured_fuse(config, out)
        return _measured_frames(config, out)


def _measured_frames(config: TrainPerceptionConfig | TrainDistillConfig, out: Path) -> tuple[int, str, float]:
    """A chapter takes as long as its towns and its steps: two short ones tell these apart, after one that warms up."""
    quiet, seconds = Console(quiet=True), []
    pieces = (4, 4, 16)
    for number, steps in enumerate(pieces):
        total = steps * config.frames.envs
        perception = config.perception.model_copy(update={"total_frames": total, "checkpoint_every": steps})
        folder = out / str(number)
        if isinstance(config, TrainPerceptionConfig):
            piece = config.model_copy(update={"perception": perception, "evaluation_frames": 0})
            report = train_stage(piece, folder, False, quiet)
        else:
            short = {"perception": perception, "evaluation_episodes": 0, **_ALONE, "teacher": None}
            driven = config.frames.model_copy(update={"expert_chapters": 0})
            report = distill_stage(config.model_copy(update={**short, "frames": driven}), folder, False, quiet)
        seconds.append(float(report["seconds"]))
    step_s = max(seconds[2] - seconds[1], 0.0) / (pieces[2] - pieces[1])
    chapter_s = max(seconds[2] - pieces[2] * step_s, 0.0)
    steps = max(1, config.perception.total_frames // config.frames.envs)
    needed_s = steps * step_s + math.ceil(steps / config.perception.checkpoint_every) * chapter_s
    return config.perception.total_frames, "frames", config.perception.total_frames / needed_s


def _measured_fuse(config: TrainFuseConfig, out: Path) -> tuple[int, str, float]:
    """A shard takes as long as its town and its moments, learning as long as its steps: two short pieces tell these apart."""
    training, report = config.training, {}
    pieces = (10, 50)
    for moments in pieces:
        short = {
            "first_shards": 1, "validation_shards": 0, "evaluation_episodes": 0, **_ALONE,
            "frames": config.frames.model_copy(update={"moments": moments}),
            "training": training.model_copy(update={"rounds": 1, "steps": 4}),
        }  # fmt: skip
        report[moments] = fuse_stage(config.model_copy(update=short), out / str(moments), False, Console(quiet=True))
    few, many = (float(report[moments]["collect_seconds"]) for moments in pieces)
    moment_s = max(many - few, 0.0) / (pieces[1] - pieces[0])
    shard_s = max(many - pieces[1] * moment_s, 0.0) + config.frames.moments * moment_s
    shards = config.first_shards + (training.rounds - 1) * config.shards
    steps = training.rounds * training.steps
    return steps, "steps", steps / (shards * shard_s + float(report[pieces[1]]["learn_seconds"]) / 4 * steps)


def _untrained(config: TrainConfig, path: Path) -> str:
    """A checkpoint of the network's shape, in place of the one that an earlier step will leave."""
    if config.network.kind == "privileged":
        spec = ObservationSpec({}, 0, ego_size=0, route_points=0, privileged_size=PRIVILEGED_SIZE)
    else:
        spec = spec_of(config.env.rig if isinstance(config.env.rig, RigConfig) else rig_by_name(config.env.rig))
    save_checkpoint(path, build_network(config.network, spec), {}, {})
    return str(path)
