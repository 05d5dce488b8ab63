"""Stage 3 of `train`: a network that has learned to perceive imitates an expert, who is asked on roads that both drive (DAgger).

Composes frames, network, heads, expert, training loop, files and validation drives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.console import Console

from perception.heads import HeadsConfig, Predictions
from perception.labels import LabelledFrames
from perception.prediction_pictures import paint_predictions
from perception.train_perception import PerceptionConfig, train_perception
from planning.checkpoint import load_checkpoint
from planning.imitation import ImitationConfig, expert_distribution, imitation_objective
from planning.network import DrivingNetwork, NetworkConfig, PrivilegedNetwork, network_config
from planning.perceiver import HEADS, NETWORK, Perceiver, load_perceiver
from sim.config import ConfigError
from sim.env import EnvConfig
from sim.imitation_frames import Expert, ImitationFrames, ImitationFramesConfig, Label, Student
from sim.judge import Judge
from sim.labelled_frames import VALIDATION_TOWNS
from sim.mixed_env import mixed_batch
from sim.observation import PRIVILEGED_SIZE
from sim.roads.towns import check_training_map
from sim.sensors.rig import RigName
from sim.sensors.rig import rig as rig_by_name
from sim.train_perception import BEST, STATE, RunKeeper, spec_of

_MAY_CHANGE = ("threads", "evaluation_episodes", "evaluation_towns", "evaluation_max_steps")


class TrainDistillConfig(BaseModel):
    """What `automedon train` runs where `stage = "distill"`. `size` chooses rig and network together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Literal["distill"] = "distill"
    size: Literal["smoke", "small", "full"] = Field(default="small", description="sets rig and network.size together")
    seed: int = Field(default=0, ge=0, lt=10_000, description="a training seed: 0 to 9999")
    threads: int = Field(default=2, ge=1, le=256, description="of torch")
    rig: RigName = Field(default="small", description="the car's sensors")
    start_from: str | None = Field(
        default=None, description="folder of a run of perception, or of this stage, whose weights the run begins with"
    )
    expert: str = Field(
        default="rules",
        description="who is imitated: rules, the rule-based expert who knows what sensors can see; or a privileged checkpoint",
    )
    teacher: str | None = Field(
        default=None,
        description="checkpoint of a sensor network that is imitated in place of the expert, to make a smaller one",
    )
    evaluation_episodes: int = Field(
        default=4, ge=0, le=1000, description="validation seeds driven on each of its towns"
    )
    evaluation_towns: tuple[str, ...] = Field(default=VALIDATION_TOWNS, min_length=1, description="validation towns")
    evaluation_max_steps: int = Field(default=1200, ge=1, description="ticks after which such an episode has failed")
    frames: ImitationFramesConfig = ImitationFramesConfig()
    network: NetworkConfig = network_config("small")
    heads: HeadsConfig = HeadsConfig.model_validate({})
    imitation: ImitationConfig = ImitationConfig.model_validate({})
    perception: PerceptionConfig = PerceptionConfig.model_validate({})

    @model_validator(mode="before")
    @classmethod
    def _fill_from_size(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("size") in ("smoke", "small", "full"):
            network = values.get("network") or {}
            if isinstance(network, Mapping):
                size = values["size"]
                return {"rig": size, **values, "network": {"size": size, **network}}
        return values


def distill_stage(config: TrainDistillConfig, out_dir: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Train, and drive validation seeds with the network.

    Returns: figures of the run: losses at the start and at the end, frames per second, success, files.

    Raises:
        ConfigError: the parts of the configuration do not fit each other, or the folder holds a run already.
        MapError: a town kept for validation or tests. PerceptionError, CheckpointError: as the loop and files say.
    """
    if config.network.kind != "sensor":
        raise ConfigError(f"distillation needs network.kind 'sensor', got {config.network.kind!r}")
    if (out_dir / STATE).exists() and not resume:
        raise ConfigError(f"{out_dir} already holds a training run; add --resume to go on, or choose another folder")
    for name in config.frames.towns:
        check_training_map(name)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rig = rig_by_name(config.rig)
    network = DrivingNetwork(config.network, spec_of(rig))
    model = Perceiver(network, config.heads)
    if config.start_from is not None:
        _take_weights(model, config.start_from)
    network.value.requires_grad_(False)
    teacher = None if config.teacher is None else _teacher(config.teacher, network)
    label = None if teacher is None else _label_by(teacher)
    source = ImitationFrames(
        config.frames, rig, model.grid, config.seed, "train", student_of(network), _expert(config), label
    )
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.print(f"{learning:,} parameters learn; {source.batch_size} frames a step")
    drives = _Drives(config)
    keeper = RunKeeper(config.model_dump(mode="json"), model, out_dir, lambda: drives(network), _MAY_CHANGE)

    def paint(frames: LabelledFrames, predictions: Predictions) -> NDArray[np.uint8]:
        return paint_predictions(frames, predictions, model.grid)

    objective = imitation_objective(model, config.imitation, config.perception.weights)
    result = train_perception(
        model, source, config.perception, config.seed, out_dir, keeper, paint, objective=objective
    )
    report: dict[str, Any] = asdict(result)
    for when in ("first", "last"):
        report |= {f"{when}_loss_{name}": value for name, value in report.pop(f"{when}_losses").items()}
    figures = {name: value for name, value in report.pop("evaluation").items() if math.isfinite(value)}
    if teacher is not None:
        figures |= {
            f"teacher_{name}": value for name, value in drives(teacher).items() if not name.startswith("failed")
        }
        figures["parameters_of_teacher"] = sum(p.numel() for p in teacher.parameters())
    figures["parameters"] = sum(p.numel() for p in network.parameters())
    best = {"best_checkpoint": str(out_dir / BEST)} if (out_dir / BEST).exists() else {}
    files = {"checkpoint": str(out_dir / NETWORK), **best, "heads": str(out_dir / HEADS), "out": str(out_dir)}
    return {**report, **figures, **files}


def student_of(network: DrivingNetwork) -> Student:
    """The network as it is now, without chance."""

    def act(observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        keys = (key for key in network.spec.shapes() if key != "privileged")
        with torch.inference_mode():
            return network.act({key: torch.from_numpy(observation[key]) for key in keys}).mode().numpy()  # type: ignore[no-any-return]

    return act


def _take_weights(model: Perceiver, folder: str) -> None:
    """Raises ConfigError where the run had a network or heads of another shape, CheckpointError where there is none."""
    other, _ = load_perceiver(Path(folder))
    if not model.network.same_shape(other.network) or other.heads_config != model.heads_config:
        raise ConfigError(
            f"start_from: the network in {folder} has another shape, observation or heads; give [network] and [heads] as there"
        )
    model.load_state_dict(other.state_dict())


def _teacher(path: str, student: DrivingNetwork) -> DrivingNetwork:
    """Raises ConfigError where the checkpoint holds no network with the same sensors, CheckpointError where it is none."""
    network = load_checkpoint(path).network
    if not isinstance(network, DrivingNetwork) or not network.spec.same_sensors(student.spec):
        raise ConfigError(f"teacher: {path} holds no network that sees what this one sees; give one of the same rig")
    return network.eval()


def _label_by(teacher: DrivingNetwork) -> Label:
    keys = [key for key in teacher.spec.shapes() if key != "privileged"]

    def label(observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            driven = teacher.act({key: torch.from_numpy(observation[key]) for key in keys})
            return torch.stack([driven.alpha, driven.beta], dim=-1).numpy()  # type: ignore[no-any-return]

    return label


def _expert(config: TrainDistillConfig) -> Expert:
    """Raises ConfigError where the checkpoint holds no privileged network that fits, CheckpointError where it is none."""
    if config.expert == "rules":
        return lambda actions, privileged: expert_distribution(actions, config.imitation.concentration)
    network = load_checkpoint(config.expert).network
    if not isinstance(network, PrivilegedNetwork) or network.spec.privileged_size != PRIVILEGED_SIZE:
        raise ConfigError(
            f"expert: {config.expert} holds no privileged network for {PRIVILEGED_SIZE} numbers; give 'rules' or a checkpoint of "
            "configs/expert.toml"
        )

    def act(actions: NDArray[np.float32], privileged: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            driven = network.act({"privileged": torch.from_numpy(privileged)})
            return torch.stack([driven.alpha, driven.beta], dim=-1).numpy()  # type: ignore[no-any-return]

    return act


class _Drives:
    """Validation drives of networks; environments are built when they are needed first."""

    def __init__(self, config: TrainDistillConfig) -> None:
        self._config = config
        self._judge: Judge | None = None

    def __call__(self, network: DrivingNetwork) -> dict[str, float]:
        config = self._config
        count = config.evaluation_episodes
        if count == 0:
            return {}
        if self._judge is None:
            env = EnvConfig(
                rig=config.rig,
                max_steps=config.evaluation_max_steps,
                weather=config.frames.weather,
                world=config.frames.world,
            )
            share = config.frames.scenario_share
            self._judge = Judge([mixed_batch(env, count, town, share) for town in config.evaluation_towns], count)
        return self._judge(network)
