"""Means over episodes with bootstrap intervals.

Knows numbers; knows nothing about what they mean. Percentile bootstrap: Efron, Ann. Statist. 7 (1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, and the interval that covers it with 95 %."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean of one number an episode, with its interval; the same for the same numbers in any order.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("an estimate needs at least one episode")
    sample = np.sort(np.asarray(values, np.float64))
    random = np.random.default_rng(seed)
    means = sample[random.integers(0, len(sample), (RESAMPLES, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(sample.mean())
    return Estimate(mean, min(float(low), mean), max(float(high), mean))
