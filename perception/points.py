"""LiDAR points to bird's-eye features by dynamic pillars. Knows torch; knows nothing about cameras or driving.

PointPillars (Lang et al., CVPR 2019) with dynamic voxelisation (Zhou et al., CoRL 2019): every point counts, no
pillar overflows. Plain torch operations only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from perception.camera import group_norm

POINT_FEATURES = 9
HEIGHT_SCALE_M = 3.0


@dataclass(frozen=True)
class BevGrid:
    """Bird's-eye grid in ego: rows along x (forward), columns along y (left), cells of `cell_m`, from the minima on."""

    rows: int = 96
    columns: int = 96
    cell_m: float = 0.5
    x_min_m: float = -16.0
    y_min_m: float = -24.0


class PointEncoder(nn.Module):
    """Points (B, P, 4) and counts (B,) to features (B, 4 * width, rows / 8, columns / 8).

    Args:
        width: channels of a pillar, a multiple of 8.
        blocks: basic blocks per stage of the convolutional part.
        grid: where the pillars stand; rows and columns multiples of 8.
    """

    def __init__(self, width: int, blocks: int, grid: BevGrid | None = None) -> None:
        super().__init__()
        self.grid = grid or BevGrid()
        self.width = width
        self.out_channels = 4 * width
        self.point = nn.Sequential(nn.Linear(POINT_FEATURES, width), nn.LayerNorm(width), nn.ReLU())
        self.stem = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), group_norm(width), nn.ReLU()
        )
        stages: list[nn.Module] = []
        channels = width
        for planes in (2 * width, 4 * width):
            shortcut = nn.Sequential(nn.Conv2d(channels, planes, 1, stride=2, bias=False), group_norm(planes))
            stages.append(BasicBlock(channels, planes, stride=2, downsample=shortcut, norm_layer=group_norm))
            stages += [BasicBlock(planes, planes, norm_layer=group_norm) for _ in range(blocks - 1)]
            channels = planes
        self.stages = nn.Sequential(*stages)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, points: Tensor, count: Tensor) -> Tensor:
        """Features (B, 4 * width, rows / 8, columns / 8) of points (B, P, 4) float32, x y z intensity in ego.

        Only the first `count` (B,) points of each row are looked at.
        """
        return self.stages(self.stem(self.pillars(points, count)))  # type: ignore[no-any-return]

    def pillars(self, points: Tensor, count: Tensor) -> Tensor:
        """The pseudo-image (B, width, rows, columns), channels_last: the maximum over the points of every cell."""
        grid, batch = self.grid, len(points)
        row = torch.floor((points[..., 0] - grid.x_min_m) / grid.cell_m)
        column = torch.floor((points[..., 1] - grid.y_min_m) / grid.cell_m)
        real = torch.arange(points.shape[1]) < count.reshape(-1, 1)
        inside = real & (row >= 0) & (row < grid.rows) & (column >= 0) & (column < grid.columns)
        sample, index = inside.nonzero(as_tuple=True)
        xyzi, row, column = points[sample, index], row[inside], column[inside]
        cell = (sample * grid.rows + row.long()) * grid.columns + column.long()
        cells = batch * grid.rows * grid.columns

        ones_and_xyz = torch.cat([torch.ones_like(xyzi[:, :1]), xyzi[:, :3]], dim=1)
        sums = torch.zeros(cells, 4).index_add_(0, cell, ones_and_xyz)[cell]
        from_mean = xyzi[:, :3] - sums[:, 1:] / sums[:, :1]
        center_x = grid.x_min_m + (row + 0.5) * grid.cell_m
        center_y = grid.y_min_m + (column + 0.5) * grid.cell_m
        from_center = xyzi[:, :2] - torch.stack([center_x, center_y], dim=1)
        half_x, half_y = 0.5 * grid.rows * grid.cell_m, 0.5 * grid.columns * grid.cell_m
        features = torch.cat(
            [
                (xyzi[:, :1] - grid.x_min_m - half_x) / half_x,
                (xyzi[:, 1:2] - grid.y_min_m - half_y) / half_y,
                xyzi[:, 2:3] / HEIGHT_SCALE_M,
                xyzi[:, 3:],
                from_mean / grid.cell_m,
                from_center / grid.cell_m,
            ],
            dim=1,
        )
        encoded = self.point(features)
        # After the ReLU nothing is below zero, so the zeros of empty cells do not disturb the maximum.
        flat = torch.zeros(cells, self.width, dtype=encoded.dtype)
        flat = flat.scatter_reduce(0, cell[:, None].expand_as(encoded), encoded, "amax", include_self=True)
        return flat.view(batch, grid.rows, grid.columns, self.width).permute(0, 3, 1, 2)
