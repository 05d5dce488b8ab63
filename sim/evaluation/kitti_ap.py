"""Average precision of KITTI at 40 recall positions (AP R40), by overlap from above or in space.

Knows boxes as arrays; knows nothing about networks. Source: Geiger et al., CVPR 2012, and Simonelli et al., ICCV 2019 for the
40 positions. KITTI's classes of difficulty and its regions without labels are not there: every box counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.evaluation.overlaps import iou_from_above, iou_in_space

F64 = NDArray[np.float64]
POSITIONS = 40


def ap_r40(
    truth: Sequence[F64],
    predicted: Sequence[F64],
    scores: Sequence[F64],
    least_iou: float,
    seen: Literal["above", "space"] = "space",
) -> float:
    """AP R40 in [0, 1] of one class.

    truth, predicted: for each frame (N, 7) float64 centre x y z, length width height, yaw; scores: (N,) of the predictions.
    """
    if not len(truth) == len(predicted) == len(scores):
        raise ValueError(f"frames must agree, got {len(truth)}, {len(predicted)} and {len(scores)}")
    overlaps = [_overlaps(t, p, seen) for t, p in zip(truth, predicted, strict=True)]
    total = sum(len(t) for t in truth)
    if total == 0:
        return 0.0
    found = [_best_scores(o, s, least_iou) for o, s in zip(overlaps, scores, strict=True)]
    thresholds = recall_thresholds(np.concatenate(found), total)
    precision = np.zeros(POSITIONS + 1)
    for k, threshold in enumerate(thresholds):
        hits = tries = 0
        for overlap, score in zip(overlaps, scores, strict=True):
            kept = score >= threshold
            hits += _hits(overlap[:, kept], least_iou)
            tries += int(kept.sum())
        precision[k] = hits / tries if tries else 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[1:].sum() / POSITIONS)


def _overlaps(truth: F64, predicted: F64, seen: Literal["above", "space"]) -> F64:
    flat = [0, 1, 3, 4, 6]
    result = np.zeros((len(truth), len(predicted)))
    for i, a in enumerate(truth):
        for j, b in enumerate(predicted):
            result[i, j] = iou_in_space(a, b) if seen == "space" else iou_from_above(a[flat], b[flat])
    return result


def _best_scores(overlap: F64, scores: F64, least_iou: float) -> F64:
    """Scores at which true boxes are found: each, in turn, takes the free prediction with the highest score."""
    free = np.ones(len(scores), np.bool_)
    found = []
    for row in overlap:
        able = np.flatnonzero(free & (row > least_iou))
        if len(able):
            best = able[np.argmax(scores[able])]
            free[best] = False
            found.append(float(scores[best]))
    return np.array(found)


def recall_thresholds(scores: F64, total: int) -> list[float]:
    """The scores at which recall comes nearest to 0, 1/40, 2/40, ... as KITTI picks them. scores: of true positives."""
    falling = np.sort(scores)[::-1].tolist()
    thresholds: list[float] = []
    wanted = 0.0
    for k, score in enumerate(falling):
        here, after = (k + 1) / total, (k + 2) / total
        if k < len(falling) - 1 and after - wanted < wanted - here:
            continue
        thresholds.append(score)
        wanted += 1.0 / POSITIONS
    return thresholds[: POSITIONS + 1]


def _hits(overlap: F64, least_iou: float) -> int:
    """True boxes that are found when each, in turn, takes the free prediction that overlaps it most."""
    free = np.ones(overlap.shape[1], np.bool_)
    hits = 0
    for row in overlap:
        able = np.flatnonzero(free & (row > least_iou))
        if len(able):
            free[able[np.argmax(row[able])]] = False
            hits += 1
    return hits
