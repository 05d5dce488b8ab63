"""Tokens of all sensors to one latent vector by attention. Knows torch; knows nothing about what a sensor is.

A pre-norm transformer (Vaswani et al. 2017; Xiong et al. 2020) over the tokens of every source and a few learned
queries, whose final values are the output. Tokens of a source that is missing are masked out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


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
        qkv = self.query_key_value(self.norm_attention(tokens))
        q, k, v = qkv.view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q[:, :, :wanted], k, v, attn_mask=mask)
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
        self.embed = nn.ModuleDict({name: nn.Linear(channels, width) for name, (_, channels) in sources.items()})
        self.position = nn.ParameterDict(
            {name: nn.Parameter(0.02 * torch.randn(tokens, width)) for name, (tokens, _) in sources.items()}
        )
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.layers = nn.ModuleList([TransformerLayer(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Latent (B, queries * width) of tokens[name] (B, T, channels); present[name] (B,) bool, True if left out."""
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
        x = self.layers[-1](x, mask, len(self.queries))
        return self.norm(x).flatten(1)  # type: ignore[no-any-return]
