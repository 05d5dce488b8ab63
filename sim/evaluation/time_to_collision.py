"""When the ego would meet others if everybody went on as they are, and from which side somebody was hit.

Knows boxes that move; knows nothing about roads. Which others count, and how a collision is called, are nuPlan's rules
(nuplan-devkit: `time_to_collision_within_bound`, `no_ego_at_fault_collisions`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.events import boxes_overlap
from sim.numba_setup import KERNEL

HORIZON_S, STEP_S = 3.0, 0.1
STANDING_MPS, STANDING_FOR_TTC_MPS = 0.05, 0.005
AHEAD_RAD, BEHIND_RAD = math.radians(30), math.radians(150)


@njit(**KERNEL)
def _meeting_time(
    ego: NDArray[np.float64], speed: float, other: NDArray[np.float64], times: NDArray[np.float64]
) -> float:
    """The first of the times at which two boxes (x, y, yaw, half length, half width[, speed]) overlap, inf if at none."""
    ex, ey = math.cos(ego[2]) * speed, math.sin(ego[2]) * speed
    ox, oy = math.cos(other[2]) * other[5], math.sin(other[2]) * other[5]
    for t in times:
        if boxes_overlap(
            ego[0] + ex * t, ego[1] + ey * t, ego[2], ego[3], ego[4],
            other[0] + ox * t, other[1] + oy * t, other[2], other[3], other[4],
        ):  # fmt: skip
            return float(t)
    return np.inf


@njit(**KERNEL)
def least_meeting_time(
    ego: NDArray[np.float64],
    speed: float,
    rear_axle: NDArray[np.float64],
    others: NDArray[np.float64],
    counts: NDArray[np.bool_],
    sides_count: bool,
    times: NDArray[np.float64],
) -> float:
    """Least of the times, s, at which the ego meets one of the others on straight paths at constant speed; inf if none.

    ego: (5,) x, y, yaw, half length, half width. others: (M, 6), the same and speed. counts: (M,) which of them may count;
    of these, only who is ahead does, and with sides_count everybody who is not behind. A standing ego meets nobody.
    """
    least = np.inf
    if speed <= STANDING_FOR_TTC_MPS:
        return least
    for k in range(len(others)):
        if not counts[k]:
            continue
        away = abs(bearing_of(ego, rear_axle, others[k]))
        if away < AHEAD_RAD or (sides_count and away < BEHIND_RAD):
            least = min(least, _meeting_time(ego, speed, others[k], times))
    return least


@njit(**KERNEL)
def bearing_of(ego: NDArray[np.float64], rear_axle: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Direction of another's centre seen from the ego's rear axle, rad, 0 ahead, left positive."""
    angle = math.atan2(other[1] - rear_axle[1], other[0] - rear_axle[0]) - ego[2]
    return float(angle - 2.0 * math.pi * math.floor((angle + math.pi) / (2.0 * math.pi)))


def is_at_fault(
    ego: NDArray[np.float64], speed: float, rear_axle: NDArray[np.float64], other: NDArray[np.float64], strayed: bool
) -> bool:
    """Whether a collision is the ego's fault: it moved, and hit what stands or is before its front, or strayed sideways.

    other: (6,) as above. strayed: the ego is in several lanes or off the road.
    """
    if speed <= STANDING_MPS:
        return False
    if abs(other[5]) <= STANDING_MPS:
        return True
    if abs(bearing_of(ego, rear_axle, other)) > BEHIND_RAD:
        return False
    nose_x, nose_y = ego[0] + ego[3] * math.cos(ego[2]), ego[1] + ego[3] * math.sin(ego[2])
    if boxes_overlap(nose_x, nose_y, ego[2], 0.0, ego[4], other[0], other[1], other[2], other[3], other[4]):
        return True
    return strayed
