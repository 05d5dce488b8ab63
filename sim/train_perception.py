"""Stage 1 of `train`: perception, on frames that are rendered while it learns.

Composes frames, network, heads, training loop, files and scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.console import Console

from perception.heads import HeadsConfig
from perception.labels import LabelledFrames
from perception.prediction_pictures import paint_predictions
from perception.preprocess import ObservationSpec
from perception.train_perception import (
    FrameSource,
    PerceptionConfig,
    PerceptionError,
    PerceptionResult,
    train_perception,
)
from planning.checkpoint import (
    changed,
    finite,
    load_training_state,
    read_training_state,
    save_checkpoint,
    save_training_state,
)
from planning.network import DrivingNetwork, NetworkConfig, network_config
from planning.perceiver import HEADS, NETWORK, Perceiver, save_perceiver
from planning.train_kept import KeptTrainingResult
from sim.config import ConfigError, require_finite
from sim.evaluation.perception_scores import perception_scores
from sim.labelled_frames import VALIDATION_TOWNS, DrivenFrames, DrivesConfig, FramesConfig
from sim.roads.towns import check_training_map
from sim.sensors.rig import RigConfig, RigName
from sim.sensors.rig import rig as rig_by_name
from sim.threads import limit_torch

STATE, BEST = "resume.safetensors", "best.safetensors"
_MAY_CHANGE = ("threads", "ray", "evaluation_frames", "evaluation_towns")


class FrameTrainingConfig(BaseModel):
    """What stages that learn from labelled frames have in common. `size` chooses rig and network together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["smoke", "small", "full"] = Field(default="small", description="sets rig and network.size together")
    seed: int = Field(default=0, ge=0, lt=10_000, description="a training seed: 0 to 9999")
    threads: int = Field(default=2, ge=1, le=256, description="of torch")
    rig: RigName = Field(default="small", description="the car's sensors")
    evaluation_towns: tuple[str, ...] = Field(default=VALIDATION_TOWNS, min_length=1, description="validation towns")
    frames: DrivesConfig = DrivesConfig()
    network: NetworkConfig = network_config("small")
    heads: HeadsConfig = HeadsConfig.model_validate({})

    _check = model_validator(mode="after")(require_finite)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_size(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("size") in ("smoke", "small", "full"):
            network = values.get("network") or {}
            if isinstance(network, Mapping):
                size = values["size"]
                return {"rig": size, **values, "network": {"size": size, **network}}
        return values


class TrainPerceptionConfig(FrameTrainingConfig):
    """What `automedon train` runs where `stage = "perception"`."""

    stage: Literal["perception"] = "perception"
    evaluation_frames: int = Field(default=128, ge=0, le=10_000, description="validation frames of each evaluation")
    ray: str | None = Field(
        default=None,
        description="a Ray cluster that renders: auto, local, or its address (extra `ray`); by default this process",
    )
    frames: FramesConfig = FramesConfig()
    perception: PerceptionConfig = PerceptionConfig.model_validate({})


def train_stage(config: TrainPerceptionConfig, out_dir: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Train, and score the network on validation towns.

    Returns: figures of the run: losses at the start and at the end, frames per second, scores, files.

    Raises:
        ConfigError: the parts of the configuration do not fit each other, or the folder holds a run already.
        MapError: a town kept for validation or tests. PerceptionError, CheckpointError: as the loop and files say.
    """
    model = begin_run(config, out_dir, resume, _MAY_CHANGE)
    model.freeze_policy()
    local = DrivenFrames(config.frames, rig_by_name(config.rig), model.grid, config.seed, "train")
    announce(model, local, console)
    keeper = RunKeeper(config.model_dump(mode="json"), model, out_dir, _scores_of(config, model))
    with _rendered_by(config, local) as source:
        result = train_perception(
            model,
            source,
            config.perception,
            config.seed,
            out_dir,
            keeper,
            lambda f, p: paint_predictions(f, p, model.grid),
            quiet=console.quiet,
        )
    return report_of(result, out_dir)


@contextmanager
def _rendered_by(config: TrainPerceptionConfig, local: DrivenFrames) -> Iterator[FrameSource]:
    """Who renders these frames: this process, or a cluster. Raises ConfigError where there is none at that address."""
    if config.ray is None:
        yield local
        return
    from sim.evaluation.ray_cluster import connected  # Ray is an extra, and loaded for nobody else
    from sim.ray_frames import RayFrames

    perception = config.perception
    steps = min(perception.checkpoint_every, max(1, perception.total_frames // local.batch_size))
    with connected(config.ray) as ray:
        yield RayFrames(ray, local, math.ceil(steps / perception.repeats))


def begin_run(config: FrameTrainingConfig, out_dir: Path, resume: bool, may_change: Collection[str]) -> Perceiver:
    """The network with its heads, freshly initialised, once it is clear that the run can be.

    may_change: entries of the configuration that may be others when the run is resumed.

    Raises:
        PerceptionError: others have changed. CheckpointError: the state to resume from is damaged.
        ConfigError: it perceives nothing, or the folder holds a run already. MapError: a town kept for validation or tests.
    """
    if config.network.kind != "sensor":
        raise ConfigError(f"this stage needs network.kind 'sensor', got {config.network.kind!r}")
    if (out_dir / STATE).exists():
        if not resume:
            raise ConfigError(
                f"{out_dir} already holds a training run; add --resume to go on, or choose another folder"
            )
        before = read_training_state(out_dir / STATE, config.network).get("run_config")
        if not isinstance(before, dict):
            raise PerceptionError(
                f"{out_dir / STATE}: does not say the configuration of its run; start in a new folder"
            )
        difference = changed(before, config.model_dump(mode="json"), may_change)
        if difference is not None:
            raise PerceptionError(
                f"{out_dir / STATE}: {difference}; resume with the same value, or start in a new folder"
            )
    for name in config.frames.towns:
        check_training_map(name)
    out_dir.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told before anything is built
    limit_torch(config.threads)
    torch.manual_seed(config.seed)
    rig = rig_by_name(config.rig)
    network = DrivingNetwork(config.network, spec_of(rig))
    if config.network.camera_imagenet and rig.cameras:
        network.camera.load_imagenet()
    return Perceiver(network, config.heads)


def announce(model: Perceiver, source: DrivenFrames, console: Console) -> None:
    """Say how much learns, and from how much at once."""
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.print(f"{learning:,} parameters learn; {source.batch_size} frames a step")


def report_of(result: PerceptionResult | KeptTrainingResult, out_dir: Path) -> dict[str, Any]:
    """Figures and files of a run, flat; what could not be evaluated is left out."""
    report: dict[str, Any] = asdict(result)
    for when in ("first", "last"):
        report |= {f"{when}_loss_{name}": value for name, value in report.pop(f"{when}_losses").items()}
    figures = {name: value for name, value in report.pop("evaluation").items() if math.isfinite(value)}
    best = {"best_checkpoint": str(out_dir / BEST)} if (out_dir / BEST).exists() else {}
    files = {"checkpoint": str(out_dir / NETWORK), **best, "heads": str(out_dir / HEADS), "out": str(out_dir)}
    return {**report, **figures, **files}


def spec_of(rig: RigConfig) -> ObservationSpec:
    """What a network sees of a car with that rig."""
    return ObservationSpec({camera.name: camera.calibration() for camera in rig.cameras}, rig.max_points)


def validation_frames(
    rig: RigConfig, model: Perceiver, frames: int, towns: tuple[str, ...] = VALIDATION_TOWNS
) -> list[LabelledFrames]:
    """Frames of validation towns in any weather, driven without errors; the same for the same arguments."""
    at_once = len(towns)
    per_step = 4 * at_once
    config = FramesConfig(
        towns=towns,
        towns_at_once=at_once,
        envs=per_step,
        ticks_between=50,
        noise_share=0.0,
        jitter_deg=0.0,
        jitter_m=0.0,
    )
    source = DrivenFrames(config, rig, model.grid, 0, "validation")
    source.begin(0)
    return [source.next() for _ in range(max(1, math.ceil(frames / per_step)))]


def _scores_of(config: TrainPerceptionConfig, model: Perceiver) -> Callable[[], dict[str, float]]:
    """Scores on frames of validation towns, the same ones every time."""
    frames: list[LabelledFrames] = []

    def scores() -> dict[str, float]:
        if config.evaluation_frames == 0:
            return {}
        if not frames:
            rig = rig_by_name(config.rig)
            frames.extend(validation_frames(rig, model, config.evaluation_frames, config.evaluation_towns))
        return perception_scores(model, frames)

    return scores


class RunKeeper:
    """Files and scores of a run (perception.train_perception.Keeper).

    Where an evaluation gives a `score`, the network with the highest one is kept as BEST.
    """

    def __init__(
        self,
        run_config: dict[str, Any],
        model: Perceiver,
        out_dir: Path,
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        self._run_config, self._model, self._out_dir = run_config, model, out_dir
        self._evaluate = evaluate
        self._best: float | None = None

    def restore(self, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, float] | None]:
        path = self._out_dir / STATE
        if not path.exists():
            return 0, None
        state = load_training_state(path, self._model, optimizer)  # type: ignore[arg-type]  # has config, spec, tensors
        best, due = state.get("best"), state.get("due")
        try:
            self._best = None if best is None else float(best)
            return int(state["step"]), None if due is None else {name: float(value) for name, value in due.items()}
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise PerceptionError(
                f"{path}: the training state is malformed: {type(error).__name__} {error}; start in a new folder"
            ) from None

    def save(self, optimizer: torch.optim.Optimizer, step: int, curves: Mapping[str, float], due: bool = False) -> None:
        save_perceiver(self._out_dir, self._model, self._run_config, curves)
        score = curves.get("score")
        if score is not None and (self._best is None or score > self._best):
            self._best = score
            save_checkpoint(self._out_dir / BEST, self._model.network, self._run_config, curves)
        state: dict[str, Any] = {"step": step, "best": self._best, "run_config": self._run_config}
        if due:
            state["due"] = finite(curves)
        save_training_state(self._out_dir / STATE, self._model, optimizer, state)  # type: ignore[arg-type]

    def evaluate(self) -> dict[str, float]:
        return self._evaluate()
