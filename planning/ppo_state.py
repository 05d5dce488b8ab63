"""What a run of PPO leaves to go on from, and whether it may go on from it.

Knows networks and checkpoints; knows nothing about environments or losses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from planning.checkpoint import changed, load_training_state, read_training_state, save_training_state
from planning.network import ActorCritic, NetworkConfig
from planning.rollout import EpisodeRecord

STATE = "resume.safetensors"
# What may be another when a run goes on. `ppo` and `num_envs` are compared by themselves: runs from Python have nothing else.
_MAY_CHANGE, _PPO_MAY_CHANGE = ("threads", "ppo", "num_envs"), ("total_steps",)


class PPOError(ValueError):
    """A run that cannot be started or continued; the message is one line for people."""


class RunState(NamedTuple):
    """How far a run has come. done: updates. best_return: highest evaluation score, None before the first. record: episodes."""

    done: int
    best_return: float | None
    record: EpisodeRecord


def check_folder(out_dir: Path, network: NetworkConfig, settings: Mapping[str, Any], resume: bool) -> None:
    """Whether a run can begin in the folder, or go on there: only threads and `ppo.total_steps` may have changed since.

    settings: `ppo`, `num_envs` and `run_config`, as `save_state` gets them. Reads one file and builds nothing.

    Raises:
        PPOError: the folder holds a run already, or one with other settings.
        CheckpointError: it is damaged, or had another network.
    """
    path = out_dir / STATE
    if not path.exists():
        return
    if not resume:
        raise PPOError(f"{out_dir} already holds a training run; add --resume to go on, or choose another folder")
    state = read_training_state(path, network)
    try:
        difference = (
            changed(state["ppo"], settings["ppo"], _PPO_MAY_CHANGE)
            or changed({"num_envs": state["num_envs"]}, {"num_envs": settings["num_envs"]})
            # Those begun by older versions do not say their configuration.
            or changed(state.get("run_config", {}), json.loads(json.dumps(settings["run_config"])), _MAY_CHANGE)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _malformed(path, error) from None
    if difference is not None:
        raise PPOError(f"{path}: {difference}; resume with the same value, or start in a new folder")


def save_state(
    path: Path,
    network: ActorCritic,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    settings: Mapping[str, Any],
) -> None:
    """Write network, optimiser, how far the run has come, and the settings that `check_folder` compares."""
    values = {"update": state.done, "best_return": state.best_return, "record": state.record.to_json()}
    save_training_state(path, network, optimizer, {**values, **settings})


def restore_state(path: Path, network: ActorCritic, optimizer: torch.optim.Optimizer) -> RunState:
    """Bring network and optimiser to the state in the file; a run that begins, where there is none.

    Raises PPOError and CheckpointError where it is damaged.
    """
    if not path.exists():
        return RunState(0, None, EpisodeRecord())
    state = load_training_state(path, network, optimizer)
    try:
        best_return = None if state["best_return"] is None else float(state["best_return"])
        return RunState(int(state["update"]), best_return, EpisodeRecord.from_json(state["record"]))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise _malformed(path, error) from None


def _malformed(path: Path, error: Exception) -> PPOError:
    return PPOError(f"{path}: the training state is malformed: {type(error).__name__} {error}; start in a new folder")
