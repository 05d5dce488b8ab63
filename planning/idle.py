"""The policy that does not drive: the brake is held. Knows nothing but the size of its batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planning.policy import Observation, Situation


class IdlePolicy:
    """Stands, or comes to a stand, with wheels straight: the baseline that every policy has to beat."""

    @property
    def name(self) -> str:
        return "idle"

    def reset(self, started: NDArray[np.bool_]) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        """Actions (N, 2) float32: full brake."""
        actions = np.zeros((len(next(iter(observation.values()))), 2), np.float32)
        actions[:, 1] = -1.0
        return actions
