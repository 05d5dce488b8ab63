"""LiDAR points to bird's-eye features by dynamic pillars. Knows torch; knows nothing about cameras or driving.

PointPillars (Lang et al., CVPR 2019) with dynamic voxelisation (Zhou et al., CoRL 2019): every point counts, no
pillar overflows. Plain torch operations only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from perception.camera import GroupNorm

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
        left out of the maximum and added to it. So only a linear map of four features is worked out for every point,
        which here takes less than half the time.
        """
        grid, batch = self.grid, len(points)
        with torch.autocast("cpu", enabled=False):
            points, sample, row, column = self._inside(points, count)
            cells = batch * grid.rows * grid.columns
            cell = (sample * grid.rows + row) * grid.columns + column
            # Only cells that hold points are worked on: a sweep fills some hundred of the 9216.
            hit = torch.zeros(cells, dtype=torch.bool).index_fill_(0, cell, True)
            occupied = hit.nonzero().squeeze(1)
            pillar = (hit.cumsum(0) - 1).index_select(0, cell)

            center = torch.stack([row, column], dim=1).float().add_(0.5).mul_(grid.cell_m)
            origin = torch.tensor([grid.x_min_m, grid.y_min_m])
            offset = (points[:, :2] - (center + origin)) / grid.cell_m
            local = torch.cat([offset, points[:, 2:3] / HEIGHT_SCALE_M, points[:, 3:]], dim=1)
            sums = torch.zeros(len(occupied), 4)
            sums.index_add_(0, pillar, torch.cat([local[:, :3], torch.ones_like(local[:, :1])], dim=1))
            rest = occupied % (grid.rows * grid.columns)
            where = torch.stack([rest // grid.columns, rest % grid.columns], dim=1).float()
            where = (where + 0.5) / torch.tensor([0.5 * grid.rows, 0.5 * grid.columns]) - 1.0
            shared = torch.cat([sums[:, :3] / sums[:, 3:], where], dim=1)

            highest = _PillarMax.apply(self.point(local), pillar, len(occupied))
            encoded = self.pillar_norm(highest + self.pillar(shared)).relu()
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        flat = torch.zeros(cells, self.width, dtype=dtype).index_copy_(0, occupied, encoded.to(dtype))
        return flat.view(batch, grid.rows, grid.columns, self.width).permute(0, 3, 1, 2)

    def _inside(self, points: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The real points (M, 4) that lie on the grid, with their sample, row and column, each (M,) int64."""
        grid = self.grid
        row = torch.floor((points[..., 0] - grid.x_min_m) / grid.cell_m)
        column = torch.floor((points[..., 1] - grid.y_min_m) / grid.cell_m)
        inside = torch.arange(points.shape[1]) < count.reshape(-1, 1)
        inside &= (row >= 0) & (row < grid.rows) & (column >= 0) & (column < grid.columns)
        chosen = inside.flatten().nonzero().squeeze(1)
        row, column = (v.flatten().index_select(0, chosen).long() for v in (row, column))
        return points.reshape(-1, 4).index_select(0, chosen), chosen // points.shape[1], row, column


class _PillarMax(torch.autograd.Function):
    """Maximum over the rows (M, C) of each of K pillars, none of them empty, (K, C); equal rows share the gradient.

    `scatter_reduce` alone gives the same, but its gradient takes twice the passes over memory.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, pillar: Tensor, pillars: int) -> Tensor:
        highest = torch.full((pillars, rows.shape[1]), -torch.inf, dtype=rows.dtype)
        highest.scatter_reduce_(0, pillar[:, None].expand_as(rows), rows, "amax")
        ctx.save_for_backward(rows, pillar, highest)
        return highest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, pillar, highest = ctx.saved_tensors
        winner = (rows == highest.index_select(0, pillar)).to(rows.dtype)
        winners = torch.zeros_like(highest).index_add_(0, pillar, winner)
        return winner.mul_((gradients[0] / winners).index_select(0, pillar)), None, None
