"""How much of a recording belongs to its scene, and the speed limit that it suggests. Knows arrays of places alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.playback.recorded_scene import MOST_EXTENT_M, Tracks, rounded

F64 = NDArray[np.float64]

LIMIT_STEP_MPS = 5 * 0.44704  # limits go by 5 miles an hour where these recordings come from
LEAST_LIMIT_MPS = 25 * 0.44704
MOVING_MPS = 3.0
SHARE_BELOW_LIMIT = 85.0  # percent; the share by which road engineers set limits


def near_path(points: F64, x_m: F64, y_m: F64, distance_m: float) -> bool:
    """Whether the box around the points (K, 2) comes within a distance of the box around a path, and is no larger than 3 km."""
    if np.ptp(points, axis=0).max() > MOST_EXTENT_M:
        return False
    low = np.array([x_m.min(), y_m.min()]) - distance_m
    high = np.array([x_m.max(), y_m.max()]) + distance_m
    return bool((points.max(axis=0) >= low).all() and (points.min(axis=0) <= high).all())


def assumed_limit(ego: Tracks, others: Tracks) -> float:
    """A speed limit in m/s: the 85th percentile of driven speeds, rounded up to 5 mph, 25 mph at least."""
    driven = [ego.speed_mps[0]]
    driven += [others.speed_mps[k, others.present[k]] for k in range(others.num_actors) if others.kind[k] < 5]
    speed = np.concatenate(driven)
    speed = speed[speed > MOVING_MPS]
    usual = float(np.percentile(speed, SHARE_BELOW_LIMIT)) if len(speed) else 0.0
    steps = np.ceil(max(usual, LEAST_LIMIT_MPS) / LIMIT_STEP_MPS - 1e-9)
    return float(rounded(steps * LIMIT_STEP_MPS))
