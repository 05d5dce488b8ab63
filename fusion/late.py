"""Late fusion: one vector for each sensor, all of them side by side, as in the two-ResNet design of the literature.

Knows torch; knows nothing about where things are: what a sensor saw where is lost before the others are heard.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perception.features import FusedFeatures, SensorFeatures


class LateFusion(nn.Module):
    """Means of maps and vectors as they are, concatenated, through a perceptron. A learned vector stands for what is silent.

    Args:
        pictures: camera to channels of its features. points: channels of the coarsest bird's-eye map, 0 without a LiDAR.
        vectors: name to (tokens, channels). width: of each sensor's vector. out_features: of the latent.
    """

    def __init__(
        self,
        pictures: Mapping[str, int],
        points: int,
        vectors: Mapping[str, tuple[int, int]],
        width: int,
        out_features: int,
    ) -> None:
        super().__init__()
        sizes = {**pictures, **({"points": points} if points else {}), **{n: t * c for n, (t, c) in vectors.items()}}
        self.out_features = self.bev_channels = out_features
        self.embed = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.silent = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(width)) for name in sizes})
        self.mix = nn.Sequential(
            nn.LayerNorm(width * len(sizes)), nn.Linear(width * len(sizes), out_features), nn.GELU(),
            nn.Linear(out_features, out_features), nn.LayerNorm(out_features),
        )  # fmt: skip

    def latent(self, features: SensorFeatures) -> Tensor:
        """Latent (B, out_features) float32 of the features of all sensors."""
        maps = {**features.pictures, **({"points": features.points[-1]} if features.points else {})}
        given = {name: m.float().mean((2, 3)) for name, m in maps.items()}
        given |= {name: v.flatten(1) for name, v in features.vectors.items()}
        parts = []
        for name, embed in self.embed.items():
            part = embed(given[name])
            if name in features.present:
                part = torch.where(features.present[name][:, None], part, self.silent[name])
            parts.append(part)
        return self.mix(torch.cat(parts, dim=1))  # type: ignore[no-any-return]

    def fuse(self, features: SensorFeatures) -> FusedFeatures:
        """The latent, and the same as a map of one cell."""
        latent = self.latent(features)
        return FusedFeatures(latent, latent[:, :, None, None])
