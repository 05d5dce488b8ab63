"""Lift fusion: what the cameras see, looked up at the places of the bird's-eye grid, beside what the LiDAR found there.

Every cell asks each camera for the feature at which its centre would be seen from a few heights, so the calibration decides and
nothing about depth is learned (Harley et al., ICRA 2023, found this as good as learned depth). Knows torch and calibrations.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from perception.camera import GroupNorm
from perception.features import FusedFeatures, SensorFeatures
from perception.geometry import inverse, transform
from perception.points import BevGrid
from perception.preprocess import project_rays
from perception.sensors import CameraCalibration

STRIDE = 4  # of the map on which cameras and LiDAR meet, in cells of the grid
HEIGHTS_M = (0.2, 1.0, 2.5)  # road and markings, bodies of cars and people, signs and trucks
POOLED = 3


class LiftFusion(nn.Module):
    """Lifted pictures and bird's-eye features, concatenated and convolved, to a latent.

    Args:
        cameras: geometry of each camera. picture_channels: of their features. points: channels of the bird's-eye maps with
        strides 4 and 8, empty without a LiDAR. vectors: name to (tokens, channels). width: of the map. out_features: of the
        latent.
    """

    def __init__(
        self,
        cameras: Mapping[str, CameraCalibration],
        picture_channels: int,
        points: tuple[int, ...],
        vectors: Mapping[str, tuple[int, int]],
        width: int,
        out_features: int,
        grid: BevGrid,
    ) -> None:
        super().__init__()
        self.out_features, self.bev_channels, self.width = out_features, width, width
        self.rows, self.columns = grid.rows // STRIDE, grid.columns // STRIDE
        self.cameras = tuple(cameras)
        for name, calibration in cameras.items():
            where, seen = lift_table(calibration, grid)
            self.register_buffer(f"where_{name}", torch.from_numpy(where), persistent=False)
            self.register_buffer(f"seen_{name}", torch.from_numpy(seen), persistent=False)
        if cameras:
            self.narrow = nn.Conv2d(picture_channels, width, 1)
        inputs = (width if cameras else 0) + sum(points)
        self.mix = nn.Sequential(
            nn.Conv2d(inputs, width, 3, padding=1, bias=False), GroupNorm.of(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), GroupNorm.of(width), nn.ReLU(),
        )  # fmt: skip
        self.shrink = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), GroupNorm.of(width), nn.ReLU()
        )
        self.embed = nn.ModuleDict({n: nn.Linear(t * c, width) for n, (t, c) in vectors.items()})
        total = POOLED**2 * width + width * len(vectors)
        self.head = nn.Sequential(
            nn.Linear(total, out_features), nn.GELU(), nn.Linear(out_features, out_features), nn.LayerNorm(out_features)
        )

    def latent(self, features: SensorFeatures) -> Tensor:
        """Latent (B, out_features) float32 of the features of all sensors."""
        return self.fuse(features).latent

    def fuse(self, features: SensorFeatures) -> FusedFeatures:
        """The latent, and the map (B, width, rows / 4, columns / 4) on which cameras and LiDAR meet."""
        maps = [self._lifted(features)] if self.cameras else []
        if features.points:
            quarter, eighth = features.points[1].float(), features.points[2].float()
            maps += [quarter, functional.interpolate(eighth, scale_factor=2, mode="nearest")]
        bev = self.mix(torch.cat(maps, dim=1))
        pooled = functional.adaptive_avg_pool2d(self.shrink(bev), POOLED).flatten(1)
        parts = [pooled]
        for name, embed in self.embed.items():
            part = embed(features.vectors[name].flatten(1))
            if name in features.present:
                part = part * features.present[name][:, None]
            parts.append(part)
        return FusedFeatures(self.head(torch.cat(parts, dim=1)), bev)

    def _lifted(self, features: SensorFeatures) -> Tensor:
        """(B, width, rows / 4, columns / 4): mean, over heights and cameras that see a place, of what they see there."""
        total = count = torch.zeros(())
        for name in self.cameras:
            picture = self.narrow(features.pictures[name].float())
            where, seen = getattr(self, f"where_{name}"), getattr(self, f"seen_{name}")
            batch = len(picture)
            looked = functional.grid_sample(
                picture, where.expand(batch, -1, -1, -1), padding_mode="border", align_corners=False
            )  # (B, width, heights, cells)
            weight = seen.expand(batch, 1, -1, -1)
            if name in features.present:
                weight = weight * features.present[name].view(batch, 1, 1, 1)
            total = total + (looked * weight).sum(2)
            count = count + weight.sum(2)
        mean = total / count.clamp(min=1.0)
        return mean.view(len(mean), self.width, self.rows, self.columns)


def lift_table(camera: CameraCalibration, grid: BevGrid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where a camera sees the cells, STRIDE grid cells wide, at HEIGHTS_M.

    Returns: (1, heights, cells, 2) float32, x and y in [-1, 1] across the picture, and (1, 1, heights, cells) float32,
    1 where the place lies in the picture.
    """
    rows, columns = grid.rows // STRIDE, grid.columns // STRIDE
    x = grid.x_min_m + (np.arange(rows) + 0.5) * STRIDE * grid.cell_m
    y = grid.y_min_m + (np.arange(columns) + 0.5) * STRIDE * grid.cell_m
    z, x, y = (a.ravel() for a in np.meshgrid(np.array(HEIGHTS_M), x, y, indexing="ij"))
    rays = transform(inverse(camera.ego_from_camera), np.stack([x, y, z], axis=1))
    pixels = (project_rays(camera, rays) + 0.5) / [camera.width_px, camera.height_px]
    seen = np.nan_to_num(((pixels >= 0) & (pixels <= 1)).all(1).astype(np.float32))
    where = np.clip(np.nan_to_num(2 * pixels - 1, nan=-2.0), -2.0, 2.0).astype(np.float32)
    shape = (1, len(HEIGHTS_M), rows * columns)
    return where.reshape(*shape, 2), seen.reshape(1, *shape)
