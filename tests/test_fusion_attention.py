"""Attention fusion: a missing source is as if it had never been there, and queries do not mix samples."""

from __future__ import annotations

import torch
from torch import nn

from fusion.attention import AttentionFusion, TransformerLayer

SOURCES = {"camera": (6, 8), "points": (4, 12), "ego": (1, 5)}


def tokens(batch: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn((batch, *shape), generator=generator) for name, shape in SOURCES.items()}


def test_a_missing_source_has_no_influence_and_a_present_one_has() -> None:
    torch.manual_seed(0)
    fusion = AttentionFusion(SOURCES, width=32, layers=2, heads=4, queries=3)
    given = tokens(4)
    present = {"points": torch.tensor([True, False, True, False])}
    with torch.no_grad():
        before = fusion(given, present)
        after = fusion({**given, "points": given["points"] + 1.0}, present)
    assert before.shape == (4, fusion.out_features) == (4, 96)
    changed = (after - before).abs().amax(1)
    assert changed[1] == 0
    assert changed[3] == 0
    assert changed[0] > 1e-3
    assert changed[2] > 1e-3


def test_without_a_source_the_rest_decides_as_in_a_smaller_network() -> None:
    torch.manual_seed(0)
    fusion = AttentionFusion(SOURCES, width=32, layers=2, heads=4, queries=3)
    smaller = AttentionFusion({n: s for n, s in SOURCES.items() if n != "points"}, 32, 2, 4, 3)
    smaller.load_state_dict({n: t for n, t in fusion.state_dict().items() if ".points" not in n})
    given = tokens(2)
    with torch.no_grad():
        masked = fusion(given, {"points": torch.zeros(2, dtype=torch.bool)})
        torch.testing.assert_close(smaller(given, {}), masked, rtol=1e-5, atol=1e-5)


def test_a_layer_is_torchs_own_pre_norm_layer() -> None:
    torch.manual_seed(0)
    ours = TransformerLayer(32, 4)
    theirs = nn.TransformerEncoderLayer(
        32, 4, dim_feedforward=64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.query_key_value.weight,
            "self_attn.in_proj_bias": ours.query_key_value.bias,
            "self_attn.out_proj.weight": ours.project.weight,
            "self_attn.out_proj.bias": ours.project.bias,
            "linear1.weight": ours.mlp[0].weight,
            "linear1.bias": ours.mlp[0].bias,
            "linear2.weight": ours.mlp[2].weight,
            "linear2.bias": ours.mlp[2].bias,
            "norm1.weight": ours.norm_attention.weight,
            "norm1.bias": ours.norm_attention.bias,
            "norm2.weight": ours.norm_mlp.weight,
            "norm2.bias": ours.norm_mlp.bias,
        }
    )
    x = torch.randn(2, 7, 32)
    seen = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    with torch.no_grad():
        expected = theirs(x, src_key_padding_mask=~seen)
        torch.testing.assert_close(ours(x, seen[:, None, None]), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours(x, seen[:, None, None], 3), expected[:, :3], rtol=1e-4, atol=1e-5)
