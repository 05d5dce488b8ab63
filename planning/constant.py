"""Policies that do the same whatever they see: the baselines that every policy has to beat.

Know nothing but the size of their batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planning.policy import Observation, Situation


@dataclass(frozen=True)
class ConstantPolicy:
    """One action for good; as in `Action`, steer and throttle in [-1, 1]."""

    name: str
    steer: float
    throttle: float

    def reset(self, started: NDArray[np.bool_]) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        """Actions (N, 2) float32."""
        actions = np.empty((len(next(iter(observation.values()))), 2), np.float32)
        actions[:] = self.steer, self.throttle
        return actions


# Stands, or comes to a stand, with its wheels straight.
IDLE = ConstantPolicy("idle", 0.0, -1.0)
# Rolls straight ahead, ever a little faster.
CONSTANT = ConstantPolicy("constant", 0.0, 0.1)
