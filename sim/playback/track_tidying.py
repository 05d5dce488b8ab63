"""Tracks as they were labelled to tracks that can be played: gaps filled, flickers dropped, what is parked held still.

Knows arrays of positions; knows nothing about files, roads or the world.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.playback.recorded_scene import FARTHEST_M, MAX_ACTORS, Tracks, rounded

F64 = NDArray[np.float64]

TICK_S = 0.1
LEAST_TICKS = 5  # a shorter track is a flicker of the labelling
LONGEST_GAP_TICKS = 20
FASTEST_MPS = 70.0  # what moves faster between two ticks is a wrong label
STILL_M = 0.08  # who never leaves a circle of this radius is parked, and held still
SMOOTHING_TICKS = 2
APART_M = 0.2
LEAST_SIZE_M = 0.2
LARGEST_SIZE_M = 40.0


@dataclass(frozen=True)
class LabelledTrack:
    """One actor as it was labelled, on the ticks of the scene: x, y, yaw (T,) float64, valid (T,) bool, size (3,) in m."""

    name: str
    kind: int
    x_m: F64
    y_m: F64
    yaw_rad: F64
    valid: NDArray[np.bool_]
    size_m: tuple[float, float, float]


def speeds(x_m: F64, y_m: F64) -> F64:
    """(T,) speed in m/s of positions (T,) that stand 0.1 s apart: differences over two ticks to either side."""
    last = len(x_m) - 1
    if last < 1:
        return np.zeros(len(x_m))
    low = np.maximum(np.arange(last + 1) - SMOOTHING_TICKS, 0)
    high = np.minimum(np.arange(last + 1) + SMOOTHING_TICKS, last)
    distance = np.hypot(x_m[high] - x_m[low], y_m[high] - y_m[low])
    return np.asarray(distance / ((high - low) * TICK_S))


def tidied(labelled: list[LabelledTrack], ego: Tracks, left_out: Counter[str]) -> Tracks:
    """Tracks that can be played beside those of the recorded car; what is left out is counted.

    Gaps of two seconds at most are filled along a straight line, longer ones end the track there or begin it later,
    whichever leaves more. Who is parked is there from the first tick to the last, unless somebody else passes through.
    """
    kept: list[LabelledTrack] = []
    for track in labelled:
        filled = _filled(track, left_out)
        if filled is not None:
            kept.append(filled)
    nearest = [_distance_to(ego, track) for track in kept]
    order = [k for k in np.argsort(nearest, kind="stable") if nearest[k] <= FARTHEST_M]
    left_out["actors over 150 m from the recorded car"] += len(kept) - len(order)
    left_out["actors beyond the nearest 255"] += max(len(order) - MAX_ACTORS, 0)
    kept = [kept[k] for k in sorted(order[:MAX_ACTORS])]
    ticks = ego.num_ticks
    x, y, yaw = (np.array([getattr(t, field) for t in kept]).reshape(-1, ticks) for field in ("x_m", "y_m", "yaw_rad"))
    present = np.array([t.valid for t in kept], np.bool_).reshape(-1, ticks)
    size = np.array([t.size_m for t in kept]).reshape(-1, 3)
    parked = _hold_parked(x, y, yaw, present)
    _extend_parked(x, y, yaw, present, size, parked, ego)
    speed = np.zeros_like(x)
    for k in np.flatnonzero(~parked):
        part = np.flatnonzero(present[k])
        speed[k, part] = speeds(x[k, part], y[k, part])
    return Tracks(
        x_m=rounded(x), y_m=rounded(y), yaw_rad=rounded(yaw), speed_mps=rounded(speed), present=present,
        size_m=rounded(size), kind=np.array([t.kind for t in kept], np.int8), name=tuple(t.name for t in kept),
    )  # fmt: skip


def ego_track(labelled: LabelledTrack) -> Tracks:
    """The recorded car, present throughout; raises ValueError where it is not."""
    if not labelled.valid.all():
        raise ValueError("the recorded car is not there throughout")
    if len(labelled.x_m) > 1 and np.hypot(np.diff(labelled.x_m), np.diff(labelled.y_m)).max() > FASTEST_MPS * TICK_S:
        raise ValueError("the recorded car jumps")
    row = {name: rounded(getattr(labelled, name))[None] for name in ("x_m", "y_m", "yaw_rad")}
    return Tracks(
        **row, speed_mps=rounded(speeds(labelled.x_m, labelled.y_m))[None], present=labelled.valid[None].copy(),
        size_m=rounded(np.array([labelled.size_m])), kind=np.array([labelled.kind], np.int8), name=(labelled.name,),
    )  # fmt: skip


def _filled(track: LabelledTrack, left_out: Counter[str]) -> LabelledTrack | None:
    """The track without gaps, positions outside it those of its ends; None where nothing worth playing is left."""
    valid = np.flatnonzero(track.valid)
    size = np.array(track.size_m)
    if not np.isfinite(size).all() or size.min() < LEAST_SIZE_M or size.max() > LARGEST_SIZE_M:
        left_out["actors of an impossible size"] += 1
        return None
    if len(valid):
        place = np.array([track.x_m[valid], track.y_m[valid]])
        still = np.hypot(*(place - np.median(place, axis=1, keepdims=True))).max() <= STILL_M
        pieces = [valid] if still else np.split(valid, np.flatnonzero(np.diff(valid) > LONGEST_GAP_TICKS) + 1)
        valid = max(pieces, key=len)
    if len(valid) < LEAST_TICKS:
        left_out["tracks shorter than half a second"] += 1
        return None
    ticks = np.arange(len(track.valid))
    x, y = np.interp(ticks, valid, track.x_m[valid]), np.interp(ticks, valid, track.y_m[valid])
    yaw = np.interp(ticks, valid, np.unwrap(track.yaw_rad[valid]))
    if np.hypot(np.diff(x), np.diff(y)).max() > FASTEST_MPS * TICK_S:
        left_out["tracks that jump"] += 1
        return None
    present = (ticks >= valid[0]) & (ticks <= valid[-1])
    return LabelledTrack(track.name, track.kind, x, y, yaw, present, track.size_m)


def _distance_to(ego: Tracks, track: LabelledTrack) -> float:
    """The nearest that the actor comes to any place of the recorded car, m, as half seconds of both tell it."""
    at = np.flatnonzero(track.valid)[::5]
    dx = track.x_m[at, None] - ego.x_m[0, None, ::5]
    dy = track.y_m[at, None] - ego.y_m[0, None, ::5]
    return float(np.hypot(dx, dy).min())


def _hold_parked(x: F64, y: F64, yaw: F64, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Puts who never moves onto the middle of its places; returns (A,) who that is."""
    parked = np.zeros(len(x), np.bool_)
    for k in range(len(x)):
        at = present[k]
        middle = np.median(x[k, at]), np.median(y[k, at])
        if np.hypot(x[k, at] - middle[0], y[k, at] - middle[1]).max() <= STILL_M:
            x[k], y[k] = middle
            yaw[k] = np.median(yaw[k, at])
            parked[k] = True
    return parked


def _extend_parked(
    x: F64, y: F64, yaw: F64, present: NDArray[np.bool_], size: F64, parked: NDArray[np.bool_], ego: Tracks
) -> None:
    """Lets the parked be there throughout, unless somebody is at their place while they were not labelled."""
    labelled = present.copy()
    for k in np.flatnonzero(parked):
        met = labelled & _meets(x, y, yaw, size, (x[k, 0], y[k, 0], yaw[k, 0], size[k, 0], size[k, 1]))
        met[k] = False
        own = _meets(ego.x_m, ego.y_m, ego.yaw_rad, ego.size_m, (x[k, 0], y[k, 0], yaw[k, 0], size[k, 0], size[k, 1]))
        if not (~labelled[k] & (met.any(axis=0) | own[0])).any():
            present[k] = True


def _meets(x: F64, y: F64, yaw: F64, size: F64, box: tuple[float, float, float, float, float]) -> NDArray[np.bool_]:
    """(A, T) where the upright rectangle around each, in the frame of a box, comes within 0.2 m of it."""
    at_x, at_y, turned, length, width = box
    cos, sin = np.cos(turned), np.sin(turned)
    along, across = cos * (x - at_x) + sin * (y - at_y), cos * (y - at_y) - sin * (x - at_x)
    same, aside = np.abs(np.cos(yaw - turned)), np.abs(np.sin(yaw - turned))
    reach_along = 0.5 * (length + same * size[:, :1] + aside * size[:, 1:2]) + APART_M
    reach_across = 0.5 * (width + aside * size[:, :1] + same * size[:, 1:2]) + APART_M
    return np.asarray((np.abs(along) < reach_along) & (np.abs(across) < reach_across))
