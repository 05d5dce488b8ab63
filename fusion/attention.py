"""Tokens of all sensors to one latent vector by attention. Knows torch; knows nothing about what a sensor is.

A pre-norm transformer (Vaswani et al. 2017; Xiong et al. 2020) over the tokens of every source and a few learned
queries, whose final values are the output. Tokens of a source that is missing are masked out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from perception.features import FusedFeatures, SensorFeatures

BEV_TOKENS = 6  # along each side of the bird's-eye grid: 8 m x 8 m
POINTS = "points"


class TransformerLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each behind a layer norm; no dropout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, mask: Tensor, wanted: int | None = None) -> Tensor:
        """Tokens (B, T, width); mask (B, 1, 1, T) bool, False where nobody may look.

        wanted: only that many tokens, the first ones, are worked out and returned.
        """
        batch, count, width = tokens.shape
        normed = self.norm_attention(tokens)
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        asked = functional.linear(normed[:, :wanted], weight[:width], bias[:width])
        told = functional.linear(normed, weight[width:], bias[width:])
        q = asked.view(batch, -1, self.heads, width // self.heads).transpose(1, 2)
        k, v = told.view(batch, count, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        tokens = tokens[:, :wanted]
        tokens = tokens + self.project(attended.transpose(1, 2).reshape(tokens.shape))
        return tokens + self.mlp(self.norm_mlp(tokens))  # type: ignore[no-any-return]


class AttentionFusion(nn.Module):
    """Several groups of tokens to one vector (B, queries * width).

    Args:
        sources: name of the group to (number of tokens, channels of a token).
        width: width of the transformer, a multiple of `heads`.
        layers, heads: of the transformer.
        queries: learned queries.
    """

    def __init__(
        self, sources: Mapping[str, tuple[int, int]], width: int, layers: int, heads: int, queries: int
    ) -> None:
        super().__init__()
        self.sources = dict(sources)
        self.out_features = queries * width
        self.bev_channels = width if POINTS in sources else self.out_features
        self.embed = nn.ModuleDict({name: nn.Linear(channels, width) for name, (_, channels) in sources.items()})
        self.position = nn.ParameterDict(
            {name: nn.Parameter(0.02 * torch.randn(tokens, width)) for name, (tokens, _) in sources.items()}
        )
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.layers = nn.ModuleList([TransformerLayer(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def latent(self, features: SensorFeatures) -> Tensor:
        """Latent (B, queries * width) float32 of the features of all sensors."""
        return self.forward(self.tokens(features), features.present)

    def tokens(self, features: SensorFeatures) -> dict[str, Tensor]:
        """Tokens (B, T, channels) float32 of all sources."""
        return tokens_of(features)

    def fuse(self, features: SensorFeatures) -> FusedFeatures:
        """The latent, and the values of the tokens of the bird's-eye grid, (B, width, 6, 6)."""
        x = self._attend(self.tokens(features), features.present, None)
        first = len(self.queries)
        for name, (count, _) in self.sources.items():
            if name == POINTS:
                places = x[:, first : first + count].transpose(1, 2)
                return FusedFeatures(
                    x[:, : len(self.queries)].flatten(1), places.reshape(*places.shape[:2], BEV_TOKENS, BEV_TOKENS)
                )
            first += count
        latent = x[:, : len(self.queries)].flatten(1)
        return FusedFeatures(latent, latent[:, :, None, None])

    def forward(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Latent (B, queries * width) of tokens[name] (B, T, channels); present[name] (B,) bool, True if left out."""
        return self._attend(tokens, present, len(self.queries)).flatten(1)

    def _attend(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor], wanted: int | None) -> Tensor:
        """The first `wanted` tokens, queries first, after all layers; (B, wanted, width)."""
        batch = len(next(iter(tokens.values())))
        sequence = [self.queries.expand(batch, -1, -1)]
        seen = [torch.ones(batch, len(self.queries), dtype=torch.bool)]
        for name, (count, _) in self.sources.items():
            sequence.append(self.embed[name](tokens[name]) + self.position[name])
            here = present[name] if name in present else torch.ones(batch, dtype=torch.bool)
            seen.append(here.view(batch, 1).expand(batch, count))
        x = torch.cat(sequence, dim=1)
        mask = torch.cat(seen, dim=1)[:, None, None, :]
        for layer in self.layers[:-1]:
            x = layer(x, mask)
        x = self.layers[-1](x, mask, wanted)
        return self.norm(x)  # type: ignore[no-any-return]


def tokens_of(features: SensorFeatures) -> dict[str, Tensor]:
    """Tokens (B, T, channels) float32: every cell of the pictures' features, 6 x 6 of the bird's-eye grid, and the vectors."""
    tokens = {name: picture.flatten(2).transpose(1, 2).float() for name, picture in features.pictures.items()}
    if features.points:
        coarsest = features.points[-1]
        pooled = functional.avg_pool2d(coarsest, coarsest.shape[2] // BEV_TOKENS)
        tokens[POINTS] = pooled.flatten(2).transpose(1, 2).float()
    return {**tokens, **features.vectors}
