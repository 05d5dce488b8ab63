"""Where the paths through one junction come too close. Knows polylines; knows nothing about SUMO or traffic."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

CONFLICT_DISTANCE_M = 2.2
SAMPLE_M = 0.25


@njit(cache=True)
def _distance_to_polyline(x: float, y: float, line_x: F64, line_y: F64, first: int, last: int) -> float:
    """Distance in metres from (x, y) to the polyline of points first .. last - 1. Cost: one segment each."""
    best = math.inf
    for i in range(first, last - 1):
        dx = line_x[i + 1] - line_x[i]
        dy = line_y[i + 1] - line_y[i]
        square = dx * dx + dy * dy
        t = 0.0
        if square > 0.0:
            t = min(1.0, max(0.0, ((x - line_x[i]) * dx + (y - line_y[i]) * dy) / square))
        ex = line_x[i] + t * dx - x
        ey = line_y[i] + t * dy - y
        best = min(best, ex * ex + ey * ey)
    return math.sqrt(best)


@njit(cache=True)
def stretches_too_close(
    point_start: I32,
    point_x: F64,
    point_y: F64,
    step_m: F64,
    first_lane: I32,
    second_lane: I32,
    enter_m: F64,
    exit_m: F64,
) -> None:
    """For each pair (first_lane[p], second_lane[p]) the stretch of the first lane closer than 2.2 m to the second.

    enter_m, exit_m: (pairs,) float64, written; metres along the first lane; enter inf where the two never come close.
    Cost: (samples of the first) x (segments of the second) for each pair.
    """
    for pair in range(len(first_lane)):
        lane = first_lane[pair]
        other = second_lane[pair]
        begin, end = point_start[lane], point_start[lane + 1]
        other_begin, other_end = point_start[other], point_start[other + 1]
        length = (end - begin - 1) * step_m[lane]
        samples = max(1, int(np.ceil(length / SAMPLE_M)))
        enter, leave = np.inf, -np.inf
        for k in range(samples + 1):
            s = length * k / samples
            i = min(int(s / step_m[lane]), end - begin - 2)
            t = s / step_m[lane] - i
            x = point_x[begin + i] + t * (point_x[begin + i + 1] - point_x[begin + i])
            y = point_y[begin + i] + t * (point_y[begin + i + 1] - point_y[begin + i])
            if _distance_to_polyline(x, y, point_x, point_y, other_begin, other_end) < CONFLICT_DISTANCE_M:
                enter = min(enter, s)
                leave = max(leave, s)
        enter_m[pair] = max(0.0, enter - 0.5 * length / samples)
        exit_m[pair] = min(length, leave + 0.5 * length / samples)
