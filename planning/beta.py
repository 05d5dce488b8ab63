"""Beta distribution over actions in [-1, 1]. Knows torch; knows nothing about networks or training.

Chou, Maturana and Scherer (ICML 2017): bounded support, so no action is clipped after its probability was taken.
Both concentrations lie above 1, so there is a single mode inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MARGIN = 1.0e-6  # actions keep this far from the ends of [0, 1], where the density may be 0


@dataclass(frozen=True)
class BetaActions:
    """Independent Beta distributions, stretched from [0, 1] to [-1, 1].

    alpha, beta: (B, A) float32, above 1.
    """

    alpha: Tensor
    beta: Tensor

    @staticmethod
    def from_logits(logits: Tensor) -> BetaActions:
        """From the raw outputs (B, 2 A) of a network: softplus + 1, first all alphas, then all betas."""
        alpha, beta = (functional.softplus(logits.float()) + 1.0).chunk(2, dim=-1)
        return BetaActions(alpha, beta)

    @staticmethod
    def around(actions: Tensor, concentration: float) -> BetaActions:
        """Distributions with these modes (B, A) in [-1, 1], and alpha + beta the same everywhere, at least 2."""
        x = 0.5 * (actions.clamp(-1.0, 1.0) + 1.0) * (concentration - 2.0)
        return BetaActions(1.0 + x, concentration - 1.0 - x)

    def sharpened(self, times: float) -> BetaActions:
        """The same modes with so many `times` the concentration (beyond the 1 that both have at least)."""
        if times == 1.0:
            return self
        return BetaActions(1.0 + times * (self.alpha - 1.0), 1.0 + times * (self.beta - 1.0))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Random actions (B, A); no gradient."""
        with torch.no_grad():
            x = torch._sample_dirichlet(self.concentrations(), generator)[..., 0]
            return 2.0 * x.clamp(MARGIN, 1.0 - MARGIN) - 1.0

    def concentrations(self) -> Tensor:
        """Alpha and beta of each action (B, A, 2), as frames keep what a driver would do."""
        return torch.stack([self.alpha, self.beta], dim=-1)

    def mode(self) -> Tensor:
        """Most likely actions (B, A) in [-1, 1]; 0 where all are equally likely."""
        above, flat = self.alpha + self.beta - 2.0, (self.alpha == 1.0) & (self.beta == 1.0)
        mode = 2.0 * (self.alpha - 1.0) / above.clamp(min=1e-6) - 1.0
        return torch.where(flat, 0.0, mode.clamp(-1.0, 1.0))  # rounding leads out of it where one is close to 1

    def mean(self) -> Tensor:
        """Mean actions (B, A)."""
        return 2.0 * self.alpha / (self.alpha + self.beta) - 1.0

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density (B,) of actions (B, A) in [-1, 1]."""
        x = (0.5 * (actions + 1.0)).clamp(MARGIN, 1.0 - MARGIN)
        density = (self.alpha - 1.0) * torch.log(x) + (self.beta - 1.0) * torch.log1p(-x) - self._log_beta()
        return (density - math.log(2.0)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy (B,) in nats."""
        a, b = self.alpha, self.beta
        h = self._log_beta() - (a - 1.0) * torch.digamma(a) - (b - 1.0) * torch.digamma(b)
        h = h + (a + b - 2.0) * torch.digamma(a + b)
        return (h + math.log(2.0)).sum(-1)

    def divergence_to(self, other: BetaActions) -> Tensor:
        """Kullback-Leibler divergence (B, A) of the other from this one, in nats: 0 where they are equal."""
        a, b = self.alpha, self.beta
        da, db = a - other.alpha, b - other.beta
        mean_logs = da * torch.digamma(a) + db * torch.digamma(b) - (da + db) * torch.digamma(a + b)
        return other._log_beta() - self._log_beta() + mean_logs

    def _log_beta(self) -> Tensor:
        return torch.lgamma(self.alpha) + torch.lgamma(self.beta) - torch.lgamma(self.alpha + self.beta)
