"""What a scenario checks: functions of what happened in an episode and of how it was placed.

Knows traces and placements; knows nothing about how either came about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planning.policy import SignalState
from sim.scenarios.placement import Placement

Float = NDArray[np.float64]
STANDS_MPS = 0.5
STOPS_WITHIN_M = 14.0
FORCED_BRAKE_MPS2 = 4.5
CLEARANCE_M = 0.6
BESIDE_MPS = 1.0


@dataclass(frozen=True)
class Trace:
    """What happened in T ticks to the ego (column 0) and the K actors of the placement (columns 1 to K), world frame, SI.

    ego_s_m: (T,) float64 along the route. x_m, y_m, yaw_rad, speed_mps, acceleration_mps2: (T, 1 + K) float64. active: (T, 1 + K)
    bool, false for good once an actor has gone; the other columns are of no meaning then. stage: (T, 1 + K) int8, 0 while a script
    waits for its trigger. length_m, width_m: (1 + K,) float64. stop_line_m, signal: (T,) to the next stop line with a signal, and
    what it showed. arrived: whether the goal was reached. infractions: kinds (`sim.drive_batch.INFRACTIONS`) that occurred.
    """

    ego_s_m: Float
    x_m: Float
    y_m: Float
    yaw_rad: Float
    speed_mps: Float
    acceleration_mps2: Float
    active: NDArray[np.bool_]
    stage: NDArray[np.int8]
    length_m: Float
    width_m: Float
    stop_line_m: Float
    signal: NDArray[np.int8]
    arrived: bool
    infractions: frozenset[str]


@dataclass(frozen=True)
class Check:
    """A named condition; words: what it asks of the driver. holds: whether it was kept."""

    name: str
    words: str
    holds: Callable[[Trace, Placement], bool]


def _corners(x: Float, y: Float, yaw: Float, length: float, width: float) -> Float:
    """(T, 4, 2) corners of a box."""
    ahead, left = 0.5 * length * np.array([1, 1, -1, -1]), 0.5 * width * np.array([1, -1, -1, 1])
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    return np.stack([x[:, None] + c * ahead - s * left, y[:, None] + s * ahead + c * left], axis=2)


def _from_box(points: Float, x: Float, y: Float, yaw: Float, length: float, width: float) -> tuple[Float, Float]:
    """Of the corners (T, 4, 2) of another box: (T,) the smallest distance from this box, and the widest gap along its axes."""
    dx, dy = points[..., 0] - x[:, None], points[..., 1] - y[:, None]
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    ahead, left = c * dx + s * dy, c * dy - s * dx
    outside = np.hypot(
        np.maximum(np.abs(ahead) - 0.5 * length, 0.0), np.maximum(np.abs(left) - 0.5 * width, 0.0)
    )  # fmt: skip
    apart = [
        np.maximum(along.min(axis=1) - half, -half - along.max(axis=1))
        for along, half in ((ahead, 0.5 * length), (left, 0.5 * width))
    ]
    return np.asarray(outside.min(axis=1)), np.maximum(*apart)


def gap_to(trace: Trace, k: int) -> Float:
    """(T,) m between the box of the ego and that of column k, 0 where they overlap; inf where it is gone."""
    ego, other = (
        (trace.x_m[:, c], trace.y_m[:, c], trace.yaw_rad[:, c], float(trace.length_m[c]), float(trace.width_m[c]))
        for c in (0, k)
    )
    its_corners, its_axes = _from_box(_corners(*other), *ego)
    my_corners, my_axes = _from_box(_corners(*ego), *other)
    overlap = np.maximum(its_axes, my_axes) <= 0.0  # no separating axis
    gap = np.where(
        overlap, 0.0, np.minimum(its_corners, my_corners)
    )  # two convex shapes are nearest at a corner of one
    return np.where(trace.active[:, k], gap, np.inf)


def _columns(placement: Placement, prefix: str) -> list[int]:
    """Columns of the actors whose name begins so."""
    return [k + 1 for k, actor in enumerate(placement.actors) if actor.name.startswith(prefix)]


def _no_collision(trace: Trace, placement: Placement) -> bool:
    return not any(kind.startswith("collision") for kind in trace.infractions)


def _kept_rules(trace: Trace, placement: Placement) -> bool:
    return not any(not kind.startswith("collision") and kind != "timeout" for kind in trace.infractions)


def _arrived(trace: Trace, placement: Placement) -> bool:
    return trace.arrived


def _gave_way(trace: Trace, placement: Placement) -> bool:
    """Nobody who had priority came very near to the moving ego, or had to brake hard near it."""
    for k in _columns(placement, "priority"):
        gap = gap_to(trace, k)
        moving = trace.speed_mps[:, 0] > BESIDE_MPS
        if (gap[moving] < CLEARANCE_M).any():
            return False
        acting = (trace.stage[:, k] > 0) & (gap < 20.0) & moving
        if (trace.acceleration_mps2[acting, k] < -FORCED_BRAKE_MPS2).any():
            return False
    return True


def _kept_distance(trace: Trace, placement: Placement) -> bool:
    """Never closer than a metre to whoever drives or stands in front, pointing the same way."""
    for k in _columns(placement, "leader"):
        in_line = np.cos(trace.yaw_rad[:, k] - trace.yaw_rad[:, 0]) > 0.8
        if (gap_to(trace, k)[in_line] < 1.0).any():
            return False
    return True


def _let_walk(trace: Trace, placement: Placement) -> bool:
    """Nobody on foot came within a metre of the moving ego."""
    for k in _columns(placement, "walker"):
        both = (trace.speed_mps[:, 0] > BESIDE_MPS) & (trace.speed_mps[:, k] > 0.0)
        if (gap_to(trace, k)[both] < 1.0).any():
            return False
    return True


def _kept_side_gap(trace: Trace, placement: Placement) -> bool:
    """At least a metre from the cyclist while the ego moves."""
    moving = trace.speed_mps[:, 0] > BESIDE_MPS
    return all((gap_to(trace, k)[moving] >= 1.0).all() for k in _columns(placement, "cyclist"))


def _passed(trace: Trace, placement: Placement) -> bool:
    return bool(trace.ego_s_m.max(initial=0.0) > placement.marks["passed_m"])


def _stopped_at_red(trace: Trace, placement: Placement) -> bool:
    """Stood shortly before the stop line while it was red, and did not cross it then."""
    near = (trace.stop_line_m > -0.5) & (trace.stop_line_m < STOPS_WITHIN_M) & (trace.signal == SignalState.RED)
    stood = bool((trace.speed_mps[near, 0] < STANDS_MPS).any())
    return stood and "red_light" not in trace.infractions


NO_COLLISION = Check("no_collision", "hits nothing", _no_collision)
KEPT_RULES = Check("kept_rules", "no red light, stays on road, route and its side, does not get stuck", _kept_rules)
ARRIVED = Check("arrived", "reaches the goal in time", _arrived)
GAVE_WAY = Check("gave_way", "nobody with priority has to brake hard or is passed within 0.6 m", _gave_way)
KEPT_DISTANCE = Check("kept_distance", "never closer than 1 m to whoever is in front", _kept_distance)
LET_WALK = Check("let_walk", "does not pass within 1 m of somebody on foot", _let_walk)
KEPT_SIDE_GAP = Check("kept_side_gap", "passes the cyclist with at least 1 m", _kept_side_gap)
PASSED = Check("passed", "gets past what is in the way", _passed)
STOPPED_AT_RED = Check("stopped_at_red", "stops before the line at red", _stopped_at_red)

EVERYWHERE = (NO_COLLISION, KEPT_RULES, ARRIVED)


def judge(checks: tuple[Check, ...], trace: Trace, placement: Placement) -> dict[str, bool]:
    """Each check by name, and whether it holds."""
    return {check.name: bool(check.holds(trace, placement)) for check in checks}
