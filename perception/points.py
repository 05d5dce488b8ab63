"""LiDAR points to bird's-eye features by dynamic pillars. Knows torch; knows nothing about cameras or driving.

PointPillars (Lang et al., CVPR 2019) with dynamic voxelisation (Zhou et al., CoRL 2019): every point counts, no
pillar overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from perception.camera import GroupNorm
from perception.pillars import gradient_of_highest, highest_of_pillars, sort_into_pillars

HEIGHT_SCALE_M = 3.0


@dataclass(frozen=True)
class BevGrid:
    """Bird's-eye grid in ego: rows along x (forward), columns along y (left), cells of `cell_m`, from the minima on."""

    rows: int = 96
    columns: int = 96
    cell_m: float = 0.5
    x_min_m: float = -16.0
    y_min_m: float = -24.0

    @staticmethod
    def of_cells(cells: int) -> BevGrid:
        """48 m x 48 m around and ahead of the car with that many cells along each side."""
        return BevGrid(rows=cells, columns=cells, cell_m=48.0 / cells)


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
        self.point = nn.Linear(4, width, bias=False)
        self.pillar = nn.Linear(5, width)
        self.pillar_norm = nn.LayerNorm(width)
        self.stem = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), GroupNorm.of(width), nn.ReLU()
        )
        stages: list[nn.Module] = []
        channels = width
        for planes in (2 * width, 4 * width):
            shortcut = nn.Sequential(nn.Conv2d(channels, planes, 1, stride=2, bias=False), GroupNorm.of(planes))
            stages.append(BasicBlock(channels, planes, stride=2, downsample=shortcut, norm_layer=GroupNorm.of))
            stages += [BasicBlock(planes, planes, norm_layer=GroupNorm.of) for _ in range(blocks - 1)]
            channels = planes
        self.stages = nn.Sequential(*stages)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, points: Tensor, count: Tensor) -> Tensor:
        """Features (B, 4 * width, rows / 8, columns / 8) of points (B, P, 4) float32, x y z intensity in ego.

        Only the first `count` (B,) points of each row are looked at.
        """
        return self.pyramid(points, count)[-1]

    def pyramid(self, points: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features with strides 2, 4 and 8: (B, width, ...), (B, 2 * width, ...) and (B, 4 * width, ...)."""
        half = self.stem(self.pillars(points, count))
        middle = len(self.stages) // 2
        quarter = self.stages[:middle](half)
        return half, quarter, self.stages[middle:](quarter)

    def pillars(self, points: Tensor, count: Tensor) -> Tensor:
        """The pseudo-image (B, width, rows, columns), channels_last; 0 where no point lies.

        PointPillars maximises, over the points of a cell, a linear map of nine features: x y z intensity, offset from
        the mean of the cell's points, offset from the cell's centre. All of them are sums of what belongs to the point
        (offset from the centre, z, intensity) and what belongs to the cell (mean and centre), and the latter can be
        left out of the maximum and added to it. So only a linear map of four features is worked out for every point.
        """
        grid, batch = self.grid, len(points)
        with torch.autocast("cpu", enabled=False):
            local, pillar, occupied, sums = _sorted_into_pillars(points, count, grid)
            rest = occupied % (grid.rows * grid.columns)
            where = torch.stack([rest // grid.columns, rest % grid.columns], dim=1).float()
            where = (where + 0.5) / torch.tensor([0.5 * grid.rows, 0.5 * grid.columns]) - 1.0
            shared = torch.cat([sums[:, :3] / sums[:, 3:], where], dim=1)
            highest = _PillarMax.apply(self.point.weight, local, pillar, len(occupied))
            encoded = self.pillar_norm(highest + self.pillar(shared)).relu()
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        cells = batch * grid.rows * grid.columns
        flat = torch.zeros(cells, self.width, dtype=dtype).index_copy_(0, occupied, encoded.to(dtype))
        return flat.view(batch, grid.rows, grid.columns, self.width).permute(0, 3, 1, 2)


def _sorted_into_pillars(points: Tensor, count: Tensor, grid: BevGrid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points (M, 4) that lie on the grid as their pillars see them, their pillars (M,), and of these K cells and sums.

    See `perception.pillars.sort_into_pillars`.
    """
    batch, most = points.shape[:2]
    local, pillar = np.empty((batch * most, 4), np.float32), np.empty(batch * most, np.int32)
    cells_most = min(batch * most, batch * grid.rows * grid.columns)
    cells, sums = np.empty(cells_most, np.int64), np.empty((cells_most, 4), np.float32)
    scale = (grid.x_min_m, grid.y_min_m, grid.cell_m, HEIGHT_SCALE_M)
    real = np.ascontiguousarray(count.reshape(-1).numpy(), np.int64)
    found, pillars = sort_into_pillars(
        np.ascontiguousarray(points.detach().numpy(), np.float32),
        real,
        scale,
        grid.rows,
        grid.columns,
        local,
        pillar,
        cells,
        sums,
    )
    parts = (local[:found], pillar[:found], cells[:pillars], sums[:pillars])
    return tuple(torch.from_numpy(part) for part in parts)  # type: ignore[return-value]


class _PillarMax(torch.autograd.Function):
    """Maximum over the points (M, 4) of each of K pillars, none of them empty, of a linear map (C, 4): (K, C).

    Only the map has a gradient, which comes from the first of equal points. Whole rows (M, C) are never made.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, local: Tensor, pillar: Tensor, pillars: int) -> Tensor:
        highest, winner = np.empty((pillars, len(weight)), np.float32), np.empty((pillars, len(weight)), np.int32)
        across = np.ascontiguousarray(weight.detach().numpy().T, np.float32)
        highest_of_pillars(local.numpy(), across, pillar.numpy(), highest, winner)
        ctx.save_for_backward(local, torch.from_numpy(winner))
        return torch.from_numpy(highest)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        local, winner = ctx.saved_tensors
        out = np.empty((4, winner.shape[1]))
        gradient_of_highest(gradients[0].contiguous().numpy(), local.numpy(), winner.numpy(), out)
        return torch.from_numpy(np.ascontiguousarray(out.T, np.float32)), None, None, None
