"""Imitation of another driver: distributions over actions are brought near to the expert's, perception is kept up meanwhile.

Knows networks with heads and labelled frames; knows nothing about who the expert is or where frames come from. Divergence of
distributions rather than of actions: Roach (Zhang et al., ICCV 2021).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perception.heads import Predictions
from perception.labels import LabelledFrames
from perception.losses import task_losses
from perception.train_perception import Objective, TaskWeights, tensors_of, weighted_sum
from planning.action import ACTION_SIZE
from planning.beta import BetaActions
from planning.perceiver import Perceiver

STEER, THROTTLE = 0, 1
BRAKES_BELOW, TURNS_ABOVE = -0.1, 0.15  # modes of the expert that count as braking and as turning


class ImitationConfig(BaseModel):
    """How the expert is imitated."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    concentration: float = Field(
        40.0, gt=2, le=1000, description="alpha + beta of the distribution around what a rule-based expert does"
    )
    weight: float = Field(2.0, gt=0, description="of the divergence from the expert, beside the tasks of perception")
    brake_weight: float = Field(1.0, ge=0, description="added to the weight 1 of a frame in which the expert brakes")
    turn_weight: float = Field(1.0, ge=0, description="and in which it turns")


def expert_distribution(actions: NDArray[np.float32], concentration: float) -> NDArray[np.float32]:
    """`LabelledFrames.expert` (B, A, 2) of a driver who only says what to do, actions (B, A) in [-1, 1]."""
    return BetaActions.around(torch.from_numpy(actions), concentration).concentrations().numpy()  # type: ignore[no-any-return]


def mode_of(expert: NDArray[np.float32]) -> NDArray[np.float32]:
    """The actions (B, A) that such a driver takes, the modes of its distribution; as `BetaActions.mode` has them."""
    above = expert - 1.0
    mode = 2.0 * above[..., 0] / np.maximum(above.sum(-1), 1e-6) - 1.0
    return np.where((above == 0.0).all(-1), 0.0, np.clip(mode, -1.0, 1.0)).astype(np.float32)


def imitation_objective(model: Perceiver, config: ImitationConfig, weights: TaskWeights) -> Objective:
    """The expert's distribution over actions, and all tasks of perception that the frames have labels for.

    Curves beside the tasks: `policy` (weighted mean of the divergence, nats), `steer_error`, `throttle_error` (of the modes).
    """

    def objective(frames: LabelledFrames) -> tuple[dict[str, Tensor], Tensor, Predictions]:
        assert frames.expert is not None, "frames must say what the expert would do"
        driven, predictions = model.act(tensors_of(frames, model.spec))
        losses = task_losses(predictions, frames, model.grid)
        policy, errors = imitation_loss(driven, torch.from_numpy(frames.expert), config)
        total = weighted_sum(losses, weights) + config.weight * policy
        return {**losses, "policy": policy, **errors}, total, predictions

    return objective


def imitation_loss(driven: BetaActions, expert: Tensor, config: ImitationConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted mean divergence of `driven` from the expert (B, A, 2), and how far apart the modes are."""
    wanted = BetaActions(expert[..., 0], expert[..., 1])
    mode = wanted.mode()
    weight = torch.ones(len(mode))
    weight = weight + config.brake_weight * (mode[:, THROTTLE] < BRAKES_BELOW)
    weight = weight + config.turn_weight * (mode[:, STEER].abs() > TURNS_ABOVE)
    loss = (weight * wanted.divergence_to(driven).sum(-1)).sum() / weight.sum()
    apart = (driven.mode().detach() - mode).abs().mean(0)
    assert len(apart) == ACTION_SIZE
    return loss, {"steer_error": apart[STEER], "throttle_error": apart[THROTTLE]}
