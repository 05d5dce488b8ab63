"""A driving network together with the heads that only its training has, and both as files.

Knows networks, heads and files; knows nothing about training or the simulator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from perception.heads import HeadsConfig, PerceptionHeads, Predictions
from perception.points import BevGrid
from perception.train_perception import PerceivingModule
from planning.beta import BetaActions
from planning.checkpoint import (
    CheckpointError,
    check_tensors,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from planning.network import DrivingNetwork

NETWORK, HEADS = "latest.safetensors", "heads.safetensors"


class Perceiver(PerceivingModule):
    """Observation to what the heads say. `config` and `spec` are the network's, `grid` is that of its bird's-eye maps."""

    def __init__(self, network: DrivingNetwork, heads_config: HeadsConfig) -> None:
        super().__init__()
        self.network, self.heads_config = network, heads_config
        self.config, self.spec = network.config, network.spec
        self.grid = BevGrid.of_cells(network.config.bev_cells)
        width = network.config.points_width
        self.heads = PerceptionHeads(
            heads_config,
            self.grid,
            tuple(self.spec.cameras),
            network.camera.out_channels if self.spec.cameras else 0,
            (width, 2 * width, 4 * width) if self.spec.max_points else (),
            network.fusion.bev_channels,
            None if network.config.outlook else network.fusion.out_features,
        )

    def forward(self, observation: Mapping[str, Tensor]) -> Predictions:
        """What the heads say of a batched observation."""
        return self.heads(*self.network.perceive(observation))  # type: ignore[no-any-return]

    def act(self, observation: Mapping[str, Tensor]) -> tuple[BetaActions, Predictions]:
        """How the network would drive, and what the heads say, from one pass through the encoders."""
        features, fused = self.network.perceive(observation)
        return BetaActions.from_logits(self.network.policy(fused.latent)), self.heads(features, fused)

    def freeze_policy(self) -> None:
        """Policy and value are not trained here: no gradients, no weight decay."""
        for part in (self.network.policy, self.network.value):
            part.requires_grad_(False)


def save_perceiver(
    folder: Path, perceiver: Perceiver, run_config: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """Write the driving network as a checkpoint like any other, and its heads beside it."""
    save_checkpoint(folder / NETWORK, perceiver.network, run_config, metrics)
    header = {"heads": perceiver.heads_config.model_dump(mode="json"), "network_digest": _digest(perceiver.network)}
    write_tensors(folder / HEADS, perceiver.heads.state_dict(), header)


def load_perceiver(folder: Path) -> tuple[Perceiver, dict[str, Any]]:
    """Read what `save_perceiver` wrote: network with heads, and the configuration of the run.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not belong together.
    """
    checkpoint = load_checkpoint(folder / NETWORK)
    if not isinstance(checkpoint.network, DrivingNetwork):
        raise CheckpointError(f"{folder / NETWORK}: a privileged network perceives nothing; give a run of perception")
    header, tensors = read_tensors(folder / HEADS)
    if header.get("network_digest") != _digest(checkpoint.network):
        raise CheckpointError(
            f"{folder}: {HEADS} was trained with another network than {NETWORK}; one of them was replaced"
        )
    try:
        with torch.random.fork_rng():
            perceiver = Perceiver(checkpoint.network, HeadsConfig.model_validate(header.get("heads")))
    except (ValidationError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder / HEADS}: does not fit the network beside it: {text}") from None
    check_tensors(folder / HEADS, perceiver.heads.state_dict(), tensors)
    perceiver.heads.load_state_dict(tensors)
    return perceiver.eval(), checkpoint.run_config


def _digest(network: DrivingNetwork) -> str:
    """SHA-256 of all weights, by name, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
