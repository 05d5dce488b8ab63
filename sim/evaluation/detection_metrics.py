"""Detection metrics of nuScenes: mean average precision by distance of centres, and errors of true positives.

Knows boxes as arrays; knows nothing about networks or sensors. Source: Caesar et al., CVPR 2020, and the definitions in
nuscenes-devkit, with whose figures a test compares. The attribute error, for attributes that we do not have, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

DISTANCES_M = (0.5, 1.0, 2.0, 4.0)
ERROR_DISTANCE_M = 2.0
LEAST_RECALL, LEAST_PRECISION = 0.1, 0.1
RECALLS = np.linspace(0.0, 1.0, 101)
_FIRST = round(100 * LEAST_RECALL) + 1
ERRORS = ("translation", "scale", "orientation", "velocity")


@dataclass(frozen=True)
class BoxSet:
    """N upright boxes of one class in any number of frames.

    frame: (N,) int64, which frame each is in. center, size: (N, 3) float64, metres (size: length, width, height).
    yaw_rad: (N,) float64. velocity_mps: (N, 2) float64. score: (N,) float64, of predictions.
    """

    frame: NDArray[np.int64]
    center: F64
    size: F64
    yaw_rad: F64
    velocity_mps: F64
    score: F64

    def __post_init__(self) -> None:
        n = len(self.frame)
        shapes = {"center": (n, 3), "size": (n, 3), "yaw_rad": (n,), "velocity_mps": (n, 2), "score": (n,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class ClassMetrics:
    """ap: by distance of DISTANCES_M. errors: of true positives, by the names of ERRORS; 1 where recall stays below 0.1."""

    ap: dict[float, float]
    errors: dict[str, float]

    @property
    def mean_ap(self) -> float:
        return float(np.mean(list(self.ap.values())))


@dataclass(frozen=True)
class _Matches:
    """Predictions by falling score. hit: (N,) bool. true: (N,) int64, row of the box that was hit, -1 where none."""

    order: NDArray[np.int64]
    hit: NDArray[np.bool_]
    true: NDArray[np.int64]


def class_metrics(truth: BoxSet, predicted: BoxSet, half_turn: bool = False) -> ClassMetrics:
    """nuScenes' metrics of one class. half_turn: boxes look the same from both ends (barriers)."""
    ap = {}
    errors = dict.fromkeys(ERRORS, 1.0)
    for distance in DISTANCES_M:
        matches = _match(truth, predicted, distance)
        ap[distance] = _average_precision(truth, matches)
        if distance == ERROR_DISTANCE_M:
            errors = _errors(truth, predicted, matches, half_turn)
    return ClassMetrics(ap, errors)


def mean_metrics(classes: Sequence[ClassMetrics]) -> dict[str, float]:
    """`mean_ap` and mean errors `m<name>_error` over classes."""
    report = {"mean_ap": float(np.mean([c.mean_ap for c in classes]))}
    report |= {f"mean_{name}_error": float(np.mean([c.errors[name] for c in classes])) for name in ERRORS}
    return report


def _match(truth: BoxSet, predicted: BoxSet, distance_m: float) -> _Matches:
    """Give each prediction, best first, the nearest true box of its frame that is still free, if it is near enough."""
    rows = np.arange(len(predicted))
    order = np.lexsort((rows, predicted.score))[::-1].astype(np.int64)
    in_frame = {frame: np.flatnonzero(truth.frame == frame) for frame in np.unique(truth.frame).tolist()}
    free = np.ones(len(truth), np.bool_)
    true = np.full(len(predicted), -1, np.int64)
    nobody = np.zeros(0, np.int64)
    for place, row in enumerate(order.tolist()):
        near = in_frame.get(int(predicted.frame[row]), nobody)
        near = near[free[near]]
        if len(near) == 0:
            continue
        away = np.linalg.norm(truth.center[near, :2] - predicted.center[row, :2], axis=1)
        nearest = int(np.argmin(away))
        if away[nearest] < distance_m:
            true[place] = near[nearest]
            free[near[nearest]] = False
    return _Matches(order, true >= 0, true)


def _average_precision(truth: BoxSet, matches: _Matches) -> float:
    """Mean of the precision above 0.1 over recalls above 0.1, brought to [0, 1]."""
    if len(truth) == 0 or not matches.hit.any():
        return 0.0
    hits = np.cumsum(matches.hit)
    precision = np.interp(RECALLS, hits / len(truth), hits / np.arange(1, len(hits) + 1), right=0.0)
    above = np.maximum(precision[_FIRST:] - LEAST_PRECISION, 0.0)
    return float(above.mean()) / (1.0 - LEAST_PRECISION)


def _errors(truth: BoxSet, predicted: BoxSet, matches: _Matches, half_turn: bool) -> dict[str, float]:
    """Means over recalls from 0.1 to the highest reached of the running means of each error."""
    if len(truth) == 0 or not matches.hit.any():
        return dict.fromkeys(ERRORS, 1.0)
    scores = predicted.score[matches.order]
    recall = np.cumsum(matches.hit) / len(truth)
    score_at = np.interp(RECALLS, recall, scores, right=0.0)
    reached = np.flatnonzero(score_at)
    last = int(reached[-1]) if len(reached) else 0
    if last < _FIRST:
        return dict.fromkeys(ERRORS, 1.0)
    mine, its = matches.order[matches.hit], matches.true[matches.hit]
    each = {
        "translation": np.linalg.norm(truth.center[its, :2] - predicted.center[mine, :2], axis=1),
        "scale": 1.0 - _iou_of_sizes(truth.size[its], predicted.size[mine]),
        "orientation": _turn(truth.yaw_rad[its], predicted.yaw_rad[mine], np.pi if half_turn else 2 * np.pi),
        "velocity": np.linalg.norm(truth.velocity_mps[its] - predicted.velocity_mps[mine], axis=1),
    }
    hit_scores = scores[matches.hit]
    result = {}
    for name, values in each.items():
        running = np.cumsum(values) / np.arange(1, len(values) + 1)
        at_recall = np.interp(score_at[::-1], hit_scores[::-1], running[::-1])[::-1]
        result[name] = float(at_recall[_FIRST : last + 1].mean())
    return result


def _iou_of_sizes(a: F64, b: F64) -> F64:
    """(N,) intersection over union of boxes with the same centre and heading."""
    shared = np.minimum(a, b).prod(axis=1)
    return np.asarray(shared / (a.prod(axis=1) + b.prod(axis=1) - shared))


def _turn(a_rad: F64, b_rad: F64, period_rad: float) -> F64:
    """(N,) smallest angle between two headings that repeat with the period."""
    difference = (a_rad - b_rad + period_rad / 2) % period_rad - period_rad / 2
    return np.abs(np.where(difference > np.pi, difference - 2 * np.pi, difference))
