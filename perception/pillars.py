"""Kernels of the point encoder: points into the pillars of a bird's-eye grid, and the maximum of a linear map over each pillar.

Knows numpy and numba; knows nothing about torch or what becomes of pillars. One pass over the points each, where whole-array
operations take ten: together a fifth of the time (docs/decisions/0007).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

KERNEL = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**KERNEL)
def sort_into_pillars(
    points: NDArray[np.float32],
    count: NDArray[np.int64],
    grid: tuple[float, float, float, float],
    rows: int,
    columns: int,
    local: NDArray[np.float32],
    pillar: NDArray[np.int32],
    cells: NDArray[np.int64],
    sums: NDArray[np.float32],
) -> tuple[int, int]:
    """Find the cell of each point; only the first count (B,) of points (B, P, 4), x y z intensity, are looked at.

    grid: least x and y, size of a cell, and what heights are divided by, metres.
    Fills, for the M points that lie on the grid, in their order, local (M, 4): offset from the middle of the cell in cells (two),
    height, intensity; and pillar (M,). For the K cells that hold any, in the order of their first point: cells (K,), which are
    (sample * rows + row) * columns + column, and sums (K, 4) of the first three of local and of 1.

    Returns: M and K.
    """
    x_min, y_min, cell_m, height_m = np.float32(grid[0]), np.float32(grid[1]), np.float32(grid[2]), np.float32(grid[3])
    half, one = np.float32(0.5), np.float32(1.0)
    at = np.full(rows * columns, -1, np.int32)
    found, pillars = 0, 0
    for b in range(len(points)):
        first = pillars
        for i in range(min(count[b], points.shape[1])):
            along = (points[b, i, 0] - x_min) / cell_m
            across = (points[b, i, 1] - y_min) / cell_m
            if not (along >= 0 and along < rows and across >= 0 and across < columns):
                continue
            row, column = int(along), int(across)
            place = row * columns + column
            k = at[place]
            if k < 0:
                k = at[place] = pillars
                cells[k] = b * rows * columns + place
                sums[k] = 0.0
                pillars += 1
            u = along - np.float32(row) - half
            v = across - np.float32(column) - half
            w = points[b, i, 2] / height_m
            local[found, 0], local[found, 1], local[found, 2], local[found, 3] = u, v, w, points[b, i, 3]
            sums[k, 0] += u
            sums[k, 1] += v
            sums[k, 2] += w
            sums[k, 3] += one
            pillar[found] = k
            found += 1
        for k in range(first, pillars):
            at[cells[k] - b * rows * columns] = -1
    return found, pillars


@njit(**KERNEL)
def highest_of_pillars(
    local: NDArray[np.float32],
    weight: NDArray[np.float32],
    pillar: NDArray[np.int32],
    highest: NDArray[np.float32],
    winner: NDArray[np.int32],
) -> None:
    """The maximum of local @ weight over the points of each pillar, and the first point that has it.

    local (M, 4), weight (4, C), pillar (M,); fills highest (K, C) and winner (K, C).
    """
    channels = weight.shape[1]
    highest[:] = -np.inf
    winner[:] = -1
    for i in range(len(pillar)):
        k = pillar[i]
        a, b, c, d = local[i, 0], local[i, 1], local[i, 2], local[i, 3]
        for j in range(channels):
            value = a * weight[0, j] + b * weight[1, j] + c * weight[2, j] + d * weight[3, j]
            better = value > highest[k, j]
            highest[k, j] = value if better else highest[k, j]
            winner[k, j] = i if better else winner[k, j]


@njit(**KERNEL)
def gradient_of_highest(
    gradient: NDArray[np.float32], local: NDArray[np.float32], winner: NDArray[np.int32], out: NDArray[np.float64]
) -> None:
    """Fill out (4, C), the gradient of the weights of `highest_of_pillars`, from that of its result (K, C)."""
    out[:] = 0.0
    for k in range(len(winner)):
        for j in range(winner.shape[1]):
            g, i = gradient[k, j], winner[k, j]
            for feature in range(4):
                out[feature, j] += g * local[i, feature]
