"""Advantages in closed form, and against the definition written out as a double sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.advantages import generalised_advantages


def by_definition(rewards, values, next_values, terminated, truncated, gamma, lam):  # type: ignore[no-untyped-def]
    """A_t = sum over k of (gamma lam)^k delta_{t+k}, up to the end of the episode or of the rollout."""
    steps, n = rewards.shape
    advantages = np.zeros((steps, n))
    for e in range(n):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                future = 0.0 if terminated[k, e] else gamma * next_values[k, e]
                advantages[t, e] += weight * (rewards[k, e] + future - values[k, e])
                weight *= gamma * lam
                if terminated[k, e] or truncated[k, e]:
                    break
    return advantages


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_they_are_the_weighted_sum_of_the_definition(seed: int, gamma: float, lam: float) -> None:
    rng = np.random.default_rng(seed)
    steps, n = int(rng.integers(1, 12)), int(rng.integers(1, 4))
    rewards, values, next_values = rng.normal(size=(3, steps, n)).astype(np.float32)
    ends = rng.integers(0, 6, (steps, n))
    arguments = (rewards, values, next_values, ends == 0, ends == 1, gamma, lam)
    advantages, targets = generalised_advantages(*arguments)
    np.testing.assert_allclose(advantages, by_definition(*arguments), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(targets, advantages + values, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_with_lambda_one_the_target_is_the_discounted_return(gamma: float) -> None:
    rewards = np.ones((5, 1), np.float32)
    values = np.linspace(3, -2, 5, dtype=np.float32)[:, None]
    next_values = np.concatenate([values[1:], [[7.0]]]).astype(np.float32)
    ended = np.array([False] * 4 + [True])[:, None]
    never = np.zeros((5, 1), bool)
    powers = gamma ** np.arange(5)
    expected = [powers[: 5 - t].sum() for t in range(5)]
    _, targets = generalised_advantages(rewards, values, next_values, ended, never, gamma, 1.0)
    np.testing.assert_allclose(targets[:, 0], expected, rtol=1e-5)
    # The same episode cut off by a time limit is worth what its last state was, too.
    bootstrap = [gamma ** (5 - t) * 7.0 for t in range(5)]
    _, targets = generalised_advantages(rewards, values, next_values, never, ended, gamma, 1.0)
    np.testing.assert_allclose(targets[:, 0], np.add(expected, bootstrap), rtol=1e-5)


def test_nothing_leaks_from_one_episode_or_environment_into_another() -> None:
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 10, 2)).astype(np.float32)
    ended = np.zeros((10, 2), bool)
    ended[4, 0] = True
    never = np.zeros((10, 2), bool)
    before, _ = generalised_advantages(rewards, values, next_values, ended, never, 0.99, 0.95)
    rewards[5:, 0] += 100
    after, _ = generalised_advantages(rewards, values, next_values, ended, never, 0.99, 0.95)
    np.testing.assert_array_equal(after[:5, 0], before[:5, 0])
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    assert (after[5:, 0] > before[5:, 0] + 50).all()
