"""The rule-based driver without eyes for others: it keeps to route, limit and signals, and sees no other road user.

Knows `Situation`; knows nothing about the simulator. What it survives is no danger to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planning.policy import Observation, Situation
from planning.route_follower import RouteFollower


@dataclass(frozen=True)
class BlindDriver:
    """A `RouteFollower` that is told of no leader, of nobody with right of way, and of nothing in its way."""

    driver: RouteFollower = field(default_factory=RouteFollower)

    @property
    def name(self) -> str:
        return "blind"

    def reset(self, started: NDArray[np.bool_]) -> None:
        """Nothing is remembered from tick to tick."""

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        """Actions (N, 2) float32.

        Raises:
            ValueError: there is no privileged view.
        """
        if situation is None:
            return self.driver.act(observation, None)
        nobody = np.full(len(situation.speed_mps), np.inf)
        blinded = replace(situation, leader_gap_m=nobody, yield_distance_m=nobody, path_in_ego=None)
        return self.driver.act(observation, blinded)
