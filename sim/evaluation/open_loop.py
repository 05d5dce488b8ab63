"""Open-loop errors of planned paths, each named by its protocol, because the two in use differ by half.

Knows paths as arrays; knows nothing about planners. `l2_at_3s` is the distance at 3 s, as UniAD reports it; `l2_mean_to_3s` the
mean of the distances up to 3 s, as ST-P3 and VAD do. Collisions are between oriented boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.evaluation.overlaps import overlap_area

F64 = NDArray[np.float64]


def _distances(planned: F64, driven: F64) -> F64:
    if planned.shape != driven.shape or planned.ndim != 3 or planned.shape[2] != 2:
        raise ValueError(f"both must have shape (N, T, 2), got {planned.shape} and {driven.shape}")
    return np.asarray(np.linalg.norm(planned - driven, axis=2))


def l2_at_3s(planned: F64, driven: F64, dt_s: float) -> float:
    """Mean over N paths of the distance at 3 s, m. planned, driven: (N, T, 2) metres, places after dt_s, 2 dt_s, ..."""
    return float(_distances(planned, driven)[:, _last(planned, dt_s)].mean())


def l2_mean_to_3s(planned: F64, driven: F64, dt_s: float) -> float:
    """Mean over N paths and all places up to 3 s of the distance, m."""
    return float(_distances(planned, driven)[:, : _last(planned, dt_s) + 1].mean())


def _last(planned: F64, dt_s: float) -> int:
    last = round(3.0 / dt_s) - 1
    if last < 0 or last >= planned.shape[1]:
        raise ValueError(f"paths must reach 3 s: {round(3.0 / dt_s)} places {dt_s} s apart, got {planned.shape[1]}")
    return last


def collision_rate(ego: F64, others: Sequence[Sequence[F64]]) -> float:
    """Share of N planned paths on which the ego's box meets another. ego: (N, T, 5) float64 x, y, length, width, yaw.

    others: for each path and time (M, 5) boxes of the others.
    """
    hit = [
        any(overlap_area(box, other) > 0.0 for box, there in zip(path, around, strict=True) for other in there)
        for path, around in zip(ego, others, strict=True)
    ]
    return float(np.mean(hit))
