"""The policy that brakes: what an episode looks like when nobody drives. Knows numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planning.action import ACTION_SIZE
from planning.policy import Observation, Situation


class IdlePolicy:
    """Full brake, wheels straight."""

    name = "idle"

    def reset(self, started: NDArray[np.bool_]) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        """Actions (N, 2) float32."""
        num_cars = len(next(iter(observation.values())))
        actions = np.zeros((num_cars, ACTION_SIZE), np.float32)
        actions[:, 1] = -1.0
        return actions
