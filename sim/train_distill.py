"""Stage 3 of `train`: a network that has learned to perceive imitates an expert, who is asked on roads that both drive (DAgger).

Composes frames, network, heads, expert, training loop, files and validation drives.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from perception.prediction_pictures import paint_predictions
from perception.train_perception import PerceptionConfig, train_perception
from planning.checkpoint import load_checkpoint
from planning.imitation import ImitationConfig, expert_distribution, imitation_objective
from planning.network import DrivingNetwork, PrivilegedNetwork
from planning.perceiver import Perceiver, load_perceiver
from sim.config import ConfigError
from sim.drive_batch import EnvConfig
from sim.imitation_frames import Expert, ImitationFrames, ImitationFramesConfig, Label, Student
from sim.judge import Judge
from sim.mixed_env import mixed_batch
from sim.observation import PRIVILEGED_SIZE
from sim.sensors.rig import rig as rig_by_name
from sim.train_perception import FrameTrainingConfig, RunKeeper, announce, begin_run, report_of

MAY_CHANGE = ("threads", "evaluation_episodes", "evaluation_towns", "evaluation_max_steps")


class ImitatingConfig(FrameTrainingConfig):
    """What stages that imitate an expert have in common."""

    start_from: str | None = Field(
        default=None, description="folder of a run of perception, or of this stage, whose weights the run begins with"
    )
    expert: str = Field(
        default="rules",
        description="who is imitated: rules, the rule-based expert who knows what sensors can see; or a privileged checkpoint",
    )
    evaluation_episodes: int = Field(
        default=4, ge=0, le=1000, description="validation seeds driven on each of its towns"
    )
    evaluation_max_steps: int = Field(default=1200, ge=1, description="ticks after which such an episode has failed")
    imitation: ImitationConfig = ImitationConfig.model_validate({})


class TrainDistillConfig(ImitatingConfig):
    """What `automedon train` runs where `stage = "distill"`."""

    stage: Literal["distill"] = "distill"
    teacher: str | None = Field(
        default=None,
        description="checkpoint of a sensor network that is imitated in place of the expert, to make a smaller one",
    )
    frames: ImitationFramesConfig = ImitationFramesConfig()
    perception: PerceptionConfig = PerceptionConfig.model_validate({})


def distill_stage(config: TrainDistillConfig, out_dir: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Train, and drive validation seeds with the network.

    Returns: figures of the run: losses at the start and at the end, frames per second, success, files.

    Raises:
        ConfigError: the parts of the configuration do not fit each other, or the folder holds a run already.
        MapError: a town kept for validation or tests. PerceptionError, CheckpointError: as the loop and files say.
    """
    model = begin_run(config, out_dir, resume, MAY_CHANGE)
    network = model.network
    if config.start_from is not None:
        _take_weights(model, config.start_from)
    network.value.requires_grad_(False)
    teacher = None if config.teacher is None else _teacher(config.teacher, network)
    label = None if teacher is None else _label_by(teacher)
    rig, expert = rig_by_name(config.rig), expert_of(config)
    source = ImitationFrames(config.frames, rig, model.grid, config.seed, "train", student_of(network), expert, label)
    announce(model, source, console)
    drives = Drives(config)
    keeper = RunKeeper(config.model_dump(mode="json"), model, out_dir, lambda: drives(network))
    result = train_perception(
        model, source, config.perception, config.seed, out_dir, keeper, lambda f, p: paint_predictions(f, p, model.grid),
        objective=imitation_objective(model, config.imitation, config.perception.weights), quiet=console.quiet,
    )  # fmt: skip
    report = report_of(result, out_dir)
    if teacher is not None:
        report |= {f"teacher_{name}": value for name, value in drives(teacher).items() if not name.startswith("failed")}
        report["parameters_of_teacher"] = sum(p.numel() for p in teacher.parameters())
    return {**report, "parameters": sum(p.numel() for p in network.parameters())}


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
            return driven.concentrations().numpy()  # type: ignore[no-any-return]

    return label


def expert_of(config: ImitatingConfig) -> Expert:
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
            return driven.concentrations().numpy()  # type: ignore[no-any-return]

    return act


class Drives:
    """Validation drives of networks; environments are built when they are needed first."""

    def __init__(self, config: ImitatingConfig) -> None:
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
