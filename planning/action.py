"""The action that every policy gives and every car takes. Knows numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ACTION_SIZE = 2


@dataclass(frozen=True)
class Action:
    """steer in [-1, 1], positive turns left; throttle in [-1, 1], negative brakes."""

    steer: float
    throttle: float

    def __post_init__(self) -> None:
        if not (-1.0 <= self.steer <= 1.0 and -1.0 <= self.throttle <= 1.0):
            raise ValueError(f"steer and throttle must lie in [-1, 1], got {self.steer} and {self.throttle}")

    def as_vector(self) -> NDArray[np.float32]:
        """(2,) float32: steer, throttle."""
        return np.array([self.steer, self.throttle], np.float32)
