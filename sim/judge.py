"""How well a network drives while it is trained: validation seeds, without chance, in environments of their own.

Composes environments and the runner of episodes; knows nothing about training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from planning.network import ActorCritic
from planning.network_policy import NetworkPolicy
from sim.drive_batch import INFRACTIONS, DriveBatch
from sim.episode import run_episodes

EVALUATION_SEED = 10_000  # the first validation seed; training seeds lie below


class Judge:
    """Drives the same episodes at each call."""

    def __init__(self, batches: Sequence[DriveBatch], count: int) -> None:
        """batches: environments to drive in, for instance one for each map. count: episodes in each."""
        self._batches, self._count = batches, count

    def __call__(self, network: ActorCritic) -> dict[str, float]:
        """Means over all episodes. score: percent that succeeded, and completion (0 to 1) where that is equal."""
        policy, results = NetworkPolicy(network), []
        for k, batch in enumerate(self._batches):
            first = EVALUATION_SEED + k * self._count
            results += run_episodes(batch, policy, range(first, first + self._count))[0]
        success = float(np.mean([r.success for r in results]))
        completion = float(np.mean([r.route_completion for r in results]))
        failed = Counter(kind for r in results for kind in r.infractions)
        return {
            "score": 100.0 * success + completion,
            "return": float(np.mean([r.total_reward for r in results])),
            "route_completion": completion,
            "success_rate": success,
            "speed_mps": float(np.mean([r.mean_speed_mps for r in results])),
            **{f"failed_{kind}": failed[kind] / len(results) for kind in INFRACTIONS},
        }
