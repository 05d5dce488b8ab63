"""Generalised advantage estimation (Schulman et al. 2016). Knows numpy; knows nothing about networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def generalised_advantages(
    rewards: Float,
    values: Float,
    next_values: Float,
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    gamma: float,
    lam: float,
) -> tuple[Float, Float]:
    """Advantages and value targets (lambda returns) of T steps of N environments.

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
    A_t = delta_t + gamma lam (1 - terminated_t or truncated_t) A_{t+1},  A_T = 0
    target_t = A_t + V(s_t)

    So a termination is worth nothing afterwards, while a truncation (time limit) is worth what its last state was.

    Args:
        rewards, values: (T, N); the value is that of the state before the step.
        next_values: (T, N), value of the state that the step led to: `final_obs` where the episode ended there.
        terminated, truncated: (T, N), whether the step ended the episode.
        gamma, lam: discount and trace decay, in [0, 1].

    Returns:
        Advantages and targets, (T, N) float32 each.
    """
    delta = rewards + gamma * np.where(terminated, 0.0, next_values) - values
    decay = gamma * lam * ~(terminated | truncated)
    advantages = np.zeros_like(values, np.float32)
    following = np.zeros(values.shape[1])
    for t in range(len(values) - 1, -1, -1):
        following = delta[t] + decay[t] * following
        advantages[t] = following
    return advantages, (advantages + values).astype(np.float32)
