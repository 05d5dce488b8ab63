"""Paths through junctions that a car can drive: they leave and arrive in the directions of the lanes they join.

Knows curves; knows nothing about SUMO, right of way or traffic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.roads.polyline import headings, resampled, without_repeats

F64 = NDArray[np.float64]

SHORTEST_M = 0.05
JOINT_M = 0.4  # lanes that end and start this near to each other need no curve
LARGEST_DETOUR_M = 1.2  # from paths that netconvert made up
FAITHFUL_DETOUR_M = 0.2  # from paths that the source of the map has drawn
SMALLEST_RADIUS_M = 4.2  # a car turns on 4.1 m
NEAR_END_M = 0.3  # drawn points this near to an end could lie behind it
SAMPLES = 33
# Lengths of the two handles of a Bezier curve as shares of the distance between its ends.
HANDLES = np.array([0.22, 0.3, 0.38, 0.46, 0.54, 0.62, 0.72, 0.84, 1.0])


def drivable_path(
    start: F64,
    start_yaw: float,
    end: F64,
    end_yaw: float,
    drawn: F64,
    faithful: bool = False,
) -> F64:
    """(N, 2) points of the path from start (2,) to end (2,), leaving and arriving with those headings in radians.

    The cubic Bezier curve with the lowest peak of curvature among those within 1.2 m of `drawn` (M, 2), the path as the
    map has it; where there is none, because the map's path winds more than such a curve can, the map's own path.
    faithful: a curve within 0.2 m or the map's own path come first, where a car can drive them, then the nearest curve that
    it can drive.
    """
    ahead = np.array([np.cos(start_yaw), np.sin(start_yaw)])
    gap = float(np.hypot(*(end - start)))
    if gap < JOINT_M:
        return np.stack([start, start + max(gap, SHORTEST_M) * ahead])
    out, into = np.meshgrid(HANDLES * gap, HANDLES * gap)
    arriving = np.array([np.cos(end_yaw), np.sin(end_yaw)])
    p1 = start + out.reshape(-1, 1) * ahead
    p2 = end - into.reshape(-1, 1) * arriving
    t = np.linspace(0.0, 1.0, SAMPLES)[:, None, None]
    curves = (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * end
    velocity = 3 * ((1 - t) ** 2 * (p1 - start) + 2 * (1 - t) * t * (p2 - p1) + t**2 * (end - p2))
    change = 6 * ((1 - t) * (p2 - 2 * p1 + start) + t * (end - 2 * p2 + p1))
    speed = np.hypot(velocity[..., 0], velocity[..., 1])
    cross = velocity[..., 0] * change[..., 1] - velocity[..., 1] * change[..., 0]
    peak = (np.abs(cross) / np.maximum(speed, 1e-6) ** 3).max(axis=0)
    apart = (np.hypot(*(drawn - start).T) > NEAR_END_M) & (np.hypot(*(drawn - end).T) > NEAR_END_M)
    line = without_repeats(np.concatenate([start[None], drawn[apart], end[None]]))
    order = np.argsort(peak, kind="stable")
    detour = np.array([_largest_distance(curves[:, k], line) for k in order])
    if faithful:
        drivable = peak[order] <= 1.0 / SMALLEST_RADIUS_M
        near = order[drivable & (detour <= FAITHFUL_DETOUR_M)]
        if len(near):
            return np.ascontiguousarray(curves[:, near[0]])
        joined = np.concatenate([[start - ahead], line, [end + arriving]])
        if sharpest_turn(*resampled(joined, 0.5)) <= 1.0 / SMALLEST_RADIUS_M:
            return line
        if drivable.any():
            nearest = np.argmin(np.where(drivable, detour, np.inf))
            if detour[nearest] <= LARGEST_DETOUR_M:
                return np.ascontiguousarray(curves[:, order[nearest]])
    near = order[detour <= LARGEST_DETOUR_M]
    return np.ascontiguousarray(curves[:, near[0]]) if len(near) else line


def sharpest_turn(points: F64, spacing_m: float) -> float:
    """The largest curvature, 1/m, along evenly spaced points (N, 2)."""
    steps = np.diff(headings(points))
    return float(np.abs(steps).max() / spacing_m) if len(points) > 2 else 0.0


def _largest_distance(points: F64, line: F64) -> float:
    """How far the points (N, 2) get from the polyline (M, 2), metres."""
    a, along = line[:-1], np.diff(line, axis=0)
    square = np.maximum((along**2).sum(axis=1), 1e-12)
    t = np.clip(((points[:, None] - a) * along).sum(axis=2) / square, 0.0, 1.0)
    foot = a + t[..., None] * along
    gaps = np.hypot(points[:, None, 0] - foot[..., 0], points[:, None, 1] - foot[..., 1])
    return float(gaps.min(axis=1).max())
