"""Imitation: the divergence is that of torch, its least value is the expert, and what weighs more does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Beta, kl_divergence

from planning.beta import BetaActions
from planning.imitation import ImitationConfig, expert_distribution, imitation_loss

CONCENTRATIONS = st.lists(st.floats(1.0625, 200, width=32), min_size=4, max_size=4)
ACTIONS = st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2)


def config(**values: float) -> ImitationConfig:
    return ImitationConfig.model_validate(values)


@given(CONCENTRATIONS, CONCENTRATIONS)
def test_the_divergence_is_that_of_torch(one: list[float], other: list[float]) -> None:
    a, b = (BetaActions(torch.tensor([v[:2]]).double(), torch.tensor([v[2:]]).double()) for v in (one, other))
    expected = kl_divergence(Beta(a.alpha, a.beta), Beta(b.alpha, b.beta))
    torch.testing.assert_close(a.divergence_to(b), expected, rtol=1e-6, atol=1e-6)
    assert float(a.divergence_to(a).abs().max()) < 1e-9
    assert float(a.divergence_to(b).min()) > -1e-6


@given(ACTIONS, st.floats(2.5, 500))
def test_the_expert_s_distribution_has_its_action_as_mode(actions: list[float], concentration: float) -> None:
    given_actions = np.array([actions], np.float32)
    expert = expert_distribution(given_actions, concentration)
    assert expert.shape == (1, 2, 2)
    assert expert.dtype == np.float32
    assert expert.min() >= 1.0 - 1e-5
    np.testing.assert_allclose(expert.sum(-1), concentration, rtol=1e-5)
    mode = BetaActions(torch.from_numpy(expert[..., 0]), torch.from_numpy(expert[..., 1])).mode()
    np.testing.assert_allclose(mode, given_actions, atol=2e-4)


def test_descending_the_loss_ends_at_the_expert() -> None:
    expert = torch.from_numpy(expert_distribution(np.array([[0.3, -0.8], [-0.9, 0.9]], np.float32), 40.0))
    logits = torch.zeros(2, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(600):
        loss, errors = imitation_loss(BetaActions.from_logits(logits), expert, config())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) < 0.01
    assert float(errors["steer_error"]) < 0.02
    assert float(errors["throttle_error"]) < 0.02


def test_frames_in_which_the_expert_brakes_or_turns_weigh_more() -> None:
    """Two frames: one imitated perfectly, one badly. The bad one counts more if the expert brakes or turns in it."""

    def loss(steer: float, throttle: float, **weights: float) -> float:
        actions = np.array([[0.0, 0.5], [steer, throttle]], np.float32)
        expert = torch.from_numpy(expert_distribution(actions, 40.0))
        driven = BetaActions(expert[..., 0].clone(), expert[..., 1].clone())
        driven.alpha[1, 1] += 5.0
        return float(imitation_loss(driven, expert, config(**weights))[0])

    nothing = {"brake_weight": 0.0, "turn_weight": 0.0}
    ratio = loss(0.0, -0.5, brake_weight=2.0, turn_weight=0.0) / loss(0.0, -0.5, **nothing)
    assert ratio == pytest.approx((3 / 4) / (1 / 2), rel=1e-4)
    ratio = loss(-0.4, 0.5, brake_weight=0.0, turn_weight=1.0) / loss(-0.4, 0.5, **nothing)
    assert ratio == pytest.approx((2 / 3) / (1 / 2), rel=1e-4)
    both = loss(0.4, -0.5, brake_weight=1.0, turn_weight=1.0) / loss(0.4, -0.5, **nothing)
    assert both == pytest.approx((3 / 4) / (1 / 2), rel=1e-4)
    assert loss(0.1, 0.0, brake_weight=5.0, turn_weight=5.0) == pytest.approx(loss(0.1, 0.0, **nothing))
