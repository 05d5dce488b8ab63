"""Overlap of oriented boxes: intersection over union from above and in space.

Knows boxes as rows of numbers; knows nothing about where they come from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def corners(x: float, y: float, length: float, width: float, yaw_rad: float) -> F64:
    """(4, 2) float64 corners of an oriented rectangle, counter-clockwise; metres."""
    along = 0.5 * length * np.array([np.cos(yaw_rad), np.sin(yaw_rad)])
    across = 0.5 * width * np.array([-np.sin(yaw_rad), np.cos(yaw_rad)])
    middle = np.array([x, y])
    return np.array(
        [middle - along - across, middle + along - across, middle + along + across, middle - along + across]
    )


def polygon_area(points: F64) -> float:
    """Area of a polygon (K, 2) whose corners go counter-clockwise; 0 for fewer than three. Shoelace formula."""
    if len(points) < 3:
        return 0.0
    moved = points - points[0]  # keeps the products small, whatever the place
    after = np.roll(moved, -1, axis=0)
    return 0.5 * float(np.sum(moved[:, 0] * after[:, 1] - moved[:, 1] * after[:, 0]))


def clipped(points: F64, edges: F64) -> F64:
    """The part (K, 2) of a polygon that is inside a convex one, both counter-clockwise. Sutherland and Hodgman 1974."""
    result = points
    for a, b in zip(edges, np.roll(edges, -1, axis=0), strict=True):
        if len(result) == 0:
            break
        edge = b - a
        side = edge[0] * (result[:, 1] - a[1]) - edge[1] * (result[:, 0] - a[0])
        kept: list[F64] = []
        for k in range(len(result)):
            before = k - 1
            if (side[k] >= 0.0) != (side[before] >= 0.0):
                share = side[before] / (side[before] - side[k])
                kept.append(result[before] + share * (result[k] - result[before]))
            if side[k] >= 0.0:
                kept.append(result[k])
        result = np.array(kept).reshape(-1, 2)
    return result


def overlap_area(a: F64, b: F64) -> float:
    """Area in m2 that two rectangles share. a, b: (5,) float64 x, y, length, width, yaw."""
    if np.hypot(a[0] - b[0], a[1] - b[1]) > 0.5 * (np.hypot(a[2], a[3]) + np.hypot(b[2], b[3])):
        return 0.0
    return max(polygon_area(clipped(corners(*a), corners(*b))), 0.0)


def iou_from_above(a: F64, b: F64) -> float:
    """Intersection over union of two rectangles, in [0, 1]. a, b: (5,) float64 x, y, length, width, yaw."""
    shared = overlap_area(a, b)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return float(min(shared / union, 1.0)) if union > 0.0 else 0.0


def iou_in_space(a: F64, b: F64) -> float:
    """Intersection over union of two upright boxes, in [0, 1]. a, b: (7,) float64 centre x y z, length width height, yaw."""
    height = min(a[2] + a[5] / 2, b[2] + b[5] / 2) - max(a[2] - a[5] / 2, b[2] - b[5] / 2)
    if height <= 0.0:
        return 0.0
    flat = [0, 1, 3, 4, 6]
    shared = overlap_area(a[flat], b[flat]) * height
    union = a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - shared
    return float(min(shared / union, 1.0)) if union > 0.0 else 0.0


def mask_iou(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """BEV IoU of any number of maps (..., H, W) bool: total intersection over total union; nan where both are empty."""
    if predicted.shape != true.shape:
        raise ValueError(f"both maps need the same shape, got {predicted.shape} and {true.shape}")
    union = int(np.count_nonzero(predicted | true))
    return int(np.count_nonzero(predicted & true)) / union if union else float("nan")
