"""Beta actions against torch.distributions, and their bounds."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Beta

from planning.beta import BetaActions
from planning.imitation import mode_of

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=4, max_size=4)


@given(LOGITS)
def test_density_and_entropy_are_those_of_torch_distributions(logits: list[float]) -> None:
    ours = BetaActions.from_logits(torch.tensor([logits]))
    theirs = Beta(ours.alpha.double(), ours.beta.double())
    actions = ours.sample(torch.Generator().manual_seed(0))
    x = (actions.double() + 1) / 2
    # Stretched to twice the width, the density halves in each of the two dimensions.
    expected = (theirs.log_prob(x) - math.log(2)).sum(-1)
    torch.testing.assert_close(ours.log_prob(actions).double(), expected, rtol=1e-4, atol=1e-3)
    expected = (theirs.entropy() + math.log(2)).sum(-1)
    torch.testing.assert_close(ours.entropy().double(), expected, rtol=1e-4, atol=1e-3)


@settings(max_examples=30)
@given(LOGITS)
def test_the_mode_has_the_highest_density(logits: list[float]) -> None:
    policy = BetaActions.from_logits(torch.tensor([logits]))
    grid = torch.linspace(-0.999, 0.999, 101)
    everywhere = torch.cartesian_prod(grid, grid)
    many = BetaActions(policy.alpha.expand(len(everywhere), 2), policy.beta.expand(len(everywhere), 2))
    assert policy.log_prob(policy.mode()) >= many.log_prob(everywhere).max() - 1e-3


@given(LOGITS, st.floats(1.5, 50.0))
def test_sharper_actions_keep_their_modes_and_stay_nearer_to_them(logits: list[float], times: float) -> None:
    policy = BetaActions.from_logits(torch.tensor([logits]))
    sharp = policy.sharpened(times)
    torch.testing.assert_close(sharp.mode(), policy.mode(), rtol=1e-4, atol=1e-3)
    assert (sharp.entropy() < policy.entropy() + 1e-5).all()
    assert ((sharp.mean() - policy.mode()).abs() <= (policy.mean() - policy.mode()).abs() + 1e-4).all()
    assert torch.equal(policy.sharpened(1.0).alpha, policy.alpha)


def test_the_density_integrates_to_one_and_samples_follow_it() -> None:
    policy = BetaActions(torch.tensor([[2.0, 5.0]]), torch.tensor([[3.5, 1.2]]))
    grid = torch.linspace(-1, 1, 801)
    many = BetaActions(policy.alpha.expand(801 * 801, 2), policy.beta.expand(801 * 801, 2))
    density = many.log_prob(torch.cartesian_prod(grid, grid)).exp().view(801, 801)
    assert abs(float(torch.trapezoid(torch.trapezoid(density, grid), grid)) - 1) < 0.01
    drawn = BetaActions(policy.alpha.expand(40_000, 2), policy.beta.expand(40_000, 2)).sample(
        torch.Generator().manual_seed(1)
    )
    assert torch.allclose(drawn.mean(0), policy.mean()[0], atol=0.01)


def test_samples_stay_inside_where_the_density_is_finite() -> None:
    extreme = BetaActions(torch.tensor([[1.0, 900.0]]).expand(5000, 2), torch.tensor([[900.0, 1.0]]).expand(5000, 2))
    actions = extreme.sample(torch.Generator().manual_seed(0))
    assert actions.abs().max() < 1
    assert torch.isfinite(extreme.log_prob(actions)).all()
    assert torch.isfinite(extreme.log_prob(torch.ones(5000, 2))).all()


def test_modes_are_actions_whatever_the_rounding() -> None:
    """Where one of both is nearly 1 and the other large, the quotient is not exact; where both are 1 any action is as good."""
    generator = torch.Generator().manual_seed(0)
    large, small = 60 * torch.rand(20_000, 2, generator=generator), 15 * torch.rand(20_000, 2, generator=generator) - 20
    for logits in (torch.cat([large, small], dim=1), torch.cat([small, large], dim=1)):
        driven = BetaActions.from_logits(logits)
        for mode in (driven.mode(), torch.from_numpy(mode_of(driven.concentrations().numpy()))):
            assert mode.abs().max() <= 1.0
    flat = BetaActions(torch.ones(1, 2), torch.ones(1, 2))
    assert torch.equal(flat.mode(), torch.zeros(1, 2))
    assert not mode_of(flat.concentrations().numpy()).any()


def test_ordinary_modes_are_the_quotient_to_the_bit() -> None:
    logits = 3 * torch.randn(20_000, 4, generator=torch.Generator().manual_seed(1))
    driven = BetaActions.from_logits(logits)
    plain = 2.0 * (driven.alpha - 1.0) / (driven.alpha + driven.beta - 2.0).clamp(min=1e-6) - 1.0
    inside = plain.abs() <= 1.0
    assert inside.float().mean() > 0.999
    assert torch.equal(driven.mode()[inside], plain[inside])
