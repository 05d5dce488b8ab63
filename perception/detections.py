"""The map of centres to boxes. Knows predictions; knows nothing about labels or metrics."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from perception.heads import VELOCITY_MPS, CenterField
from perception.labels import BoxClass, BoxField
from perception.points import BevGrid

MOST = 64


def decode_centers(
    centers: Tensor, grid: BevGrid, least_score: float = 0.05
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Of each frame: boxes (N, len(BoxField)) float32, best first, and their scores (N,) float32.

    A cell is a centre if no neighbour is hotter; at most MOST of a frame are kept.
    """
    heat = centers[:, : len(BoxClass)].float().sigmoid()
    heat = heat * (functional.max_pool2d(heat, 3, stride=1, padding=1) == heat)
    batch, kinds, rows, columns = heat.shape
    scores, places = heat.flatten(1).topk(min(MOST, kinds * rows * columns), dim=1)
    cell = 2 * grid.cell_m
    found = []
    for e in range(batch):
        kept = scores[e] > least_score
        place = places[e][kept]
        kind, row, column = place // (rows * columns), place // columns % rows, place % columns
        v = centers[e, :, row, column].float().T
        f = CenterField
        boxes = torch.zeros(len(place), len(BoxField))
        boxes[:, BoxField.CLASS] = kind.float()
        boxes[:, BoxField.X] = grid.x_min_m + (row + 0.5 + v[:, f.ROW]) * cell
        boxes[:, BoxField.Y] = grid.y_min_m + (column + 0.5 + v[:, f.COLUMN]) * cell
        boxes[:, BoxField.Z] = v[:, f.Z]
        boxes[:, BoxField.LENGTH : BoxField.HEIGHT + 1] = v[:, f.LENGTH : f.HEIGHT + 1].clamp(-3, 3).exp()
        boxes[:, BoxField.YAW] = torch.atan2(v[:, f.SIN], v[:, f.COS])
        boxes[:, BoxField.VX : BoxField.VY + 1] = v[:, f.VX : f.VY + 1] * VELOCITY_MPS
        boxes[:, BoxField.SEEN] = 1.0
        found.append((boxes.numpy(), scores[e][kept].numpy()))
    return found
