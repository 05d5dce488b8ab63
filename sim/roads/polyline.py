"""Polylines in the plane: length, even resampling, heading. Knows numpy; knows nothing about roads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def without_repeats(points: F64, shortest_m: float = 1e-3) -> F64:
    """The points (N, 2) without those closer than `shortest_m` to the one kept before; both ends always stay."""
    kept = [0]
    for index in range(1, len(points)):
        if np.hypot(*(points[index] - points[kept[-1]])) >= shortest_m:
            kept.append(index)
    if kept[-1] != len(points) - 1:
        if len(kept) > 1:
            kept.pop()
        kept.append(len(points) - 1)
    return np.ascontiguousarray(points[kept])


def arc_lengths(points: F64) -> F64:
    """(N,) metres from the first of the points (N, 2) along the polyline."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def resampled(points: F64, step_m: float) -> tuple[F64, float]:
    """Points that stand evenly along the polyline (N, 2), ends included, and their spacing, near step_m.

    The spacing is measured along the given polyline; there are at least two points.
    """
    lengths = arc_lengths(points)
    count = max(1, round(lengths[-1] / step_m))
    stations = np.linspace(0.0, lengths[-1], count + 1)
    x = np.interp(stations, lengths, points[:, 0])
    y = np.interp(stations, lengths, points[:, 1])
    return np.stack([x, y], axis=1), float(lengths[-1] / count)


def headings(points: F64) -> F64:
    """(N,) radians, counter-clockwise from east, continuous: the mean of the segments that meet in a point."""
    segments = np.diff(points, axis=0)
    yaw = np.unwrap(np.arctan2(segments[:, 1], segments[:, 0]))
    return np.concatenate([[yaw[0]], 0.5 * (yaw[:-1] + yaw[1:]), [yaw[-1]]])


def start_yaw(points: F64) -> float:
    """Radians, counter-clockwise from east: the first segment of the points (N, 2)."""
    ahead = points[1] - points[0]
    return float(np.arctan2(ahead[1], ahead[0]))


def end_yaw(points: F64) -> float:
    """Radians, counter-clockwise from east: the last segment of the points (N, 2)."""
    return start_yaw(points[-2:])


def offset(points: F64, left_m: float | F64) -> F64:
    """The polyline (N, 2) moved sideways, to the left where positive, along the normals in its points; left_m may be (N,)."""
    yaw = headings(points)
    moved: F64 = points + np.reshape(left_m, (-1, 1)) * np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)
    return moved


def ribbon(points: F64, width_m: float | F64) -> F64:
    """The polygon (2N, 2) that a line of that width, or widths (N,), covers along the polyline, with square ends."""
    return np.concatenate([offset(points, 0.5 * width_m), offset(points, -0.5 * width_m)[::-1]])
