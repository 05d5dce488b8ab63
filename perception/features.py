"""What encoders make of sensors, and what fusion makes of that: the tensors that networks hand on.

Knows torch; knows nothing about how any of it is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SensorFeatures:
    """Features of B cars, channels first.

    pictures: by camera, (B, C, H / 16, W / 16). points: bird's-eye maps from fine to coarse, (B, C, rows, columns) each of
    half the size of the one before, rows along x and columns along y of ego; empty without a LiDAR. vectors: by name, (B, T, C)
    such as ego (B, 1, 5) and route (B, 20, 2). present: by sensor or vector (B,) bool, False where it is silent; what is left
    out is present.
    """

    pictures: Mapping[str, Tensor]
    points: tuple[Tensor, ...]
    vectors: Mapping[str, Tensor]
    present: Mapping[str, Tensor]


@dataclass(frozen=True)
class SensorTokens:
    """The same as what attention looks at. values: by sensor or vector, (B, T, C) float32. present: as in `SensorFeatures`."""

    values: Mapping[str, Tensor]
    present: Mapping[str, Tensor]


@dataclass(frozen=True)
class FusedFeatures:
    """latent: (B, F) float32, what the policy sees. bev: (B, C, r, c), what fusion knows of places on the bird's-eye grid, for
    heads that only training has; one cell where a fusion knows no places. outlook: (B, OUTLOOK_SIZE) as
    `perception.heads.outlook_head` says it, where the policy sees that too.
    """

    latent: Tensor
    bev: Tensor
    outlook: Tensor | None = None
