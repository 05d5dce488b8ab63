"""Detection, overlap and open-loop metrics: nuscenes-devkit's own figures, areas by hand, and limits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sim.evaluation.detection_metrics import DISTANCES_M, ERRORS, BoxSet, class_metrics, mean_metrics
from sim.evaluation.kitti_ap import ap_r40, recall_thresholds
from sim.evaluation.open_loop import collision_rate, l2_at_3s, l2_mean_to_3s
from sim.evaluation.overlaps import iou_from_above, iou_in_space, mask_iou, overlap_area

ORACLES = json.loads((Path(__file__).parent / "data" / "metric-oracles.json").read_text(encoding="utf-8"))
F64 = NDArray[np.float64]
finite = st.floats(-20, 20)
boxes = st.tuples(finite, finite, st.floats(0.2, 8), st.floats(0.2, 8), st.floats(-7, 7)).map(np.array)


def box_set(rows: list[list[float]]) -> BoxSet:
    table = np.array(rows, np.float64).reshape(-1, 11)
    frame = table[:, 0].astype(np.int64)
    return BoxSet(frame, table[:, 1:4], table[:, 4:7], table[:, 7], table[:, 8:10], table[:, 10])


@pytest.mark.parametrize("case", ORACLES["detection"], ids=lambda case: case["class"])
def test_nuscenes_metrics_are_those_of_the_devkit(case: dict) -> None:
    ours = class_metrics(box_set(case["truth"]), box_set(case["predicted"]), half_turn=case["class"] == "barrier")
    assert {str(d): ap for d, ap in ours.ap.items()} == pytest.approx(case["ap"], abs=1e-6)
    assert ours.errors == pytest.approx(case["errors"], abs=1e-6)


def test_the_devkits_cases_are_not_trivial() -> None:
    aps = [ap for case in ORACLES["detection"] for ap in case["ap"].values()]
    errors = [error for case in ORACLES["detection"] for error in case["errors"].values()]
    assert min(aps) < 0.1
    assert max(aps) > 0.5
    assert len({round(error, 6) for error in errors}) > 6


def test_perfect_predictions_score_one_and_none_scores_zero() -> None:
    truth = box_set(ORACLES["detection"][0]["truth"])
    perfect, nothing = class_metrics(truth, truth), class_metrics(truth, box_set([]))
    assert perfect.ap == dict.fromkeys(DISTANCES_M, pytest.approx(1.0))
    assert perfect.errors == pytest.approx(dict.fromkeys(ERRORS, 0.0), abs=1e-12)
    assert nothing.ap == dict.fromkeys(DISTANCES_M, 0.0)
    assert nothing.errors == dict.fromkeys(ERRORS, 1.0)
    assert mean_metrics([perfect, nothing])["mean_ap"] == pytest.approx(0.5)


@given(st.integers(0, 2), st.integers(0, 10**6))
def test_a_false_box_above_all_others_never_helps(which: int, seed: int) -> None:
    case = ORACLES["detection"][which]
    random = np.random.default_rng(seed)
    invented = [float(random.integers(8)), *random.uniform(100, 200, 2), 0.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0, 1.0]
    before = class_metrics(box_set(case["truth"]), box_set(case["predicted"]))
    after = class_metrics(box_set(case["truth"]), box_set([*case["predicted"], invented]))
    assert all(after.ap[d] <= before.ap[d] + 1e-12 for d in DISTANCES_M)


@given(boxes, boxes)
def test_overlap_agrees_with_counting(a: F64, b: F64) -> None:
    """Of 150 x 150 places in the first box, the share that lies in the second."""
    places = (np.arange(150) + 0.5) / 150 - 0.5
    ahead, left = (side.ravel() for side in np.meshgrid(a[2] * places, a[3] * places))
    x = a[0] + ahead * np.cos(a[4]) - left * np.sin(a[4]) - b[0]
    y = a[1] + ahead * np.sin(a[4]) + left * np.cos(a[4]) - b[1]
    along, across = x * np.cos(b[4]) + y * np.sin(b[4]), y * np.cos(b[4]) - x * np.sin(b[4])
    inside = np.mean((np.abs(along) <= b[2] / 2) & (np.abs(across) <= b[3] / 2))
    assert overlap_area(a, b) == pytest.approx(inside * a[2] * a[3], abs=0.02 * a[2] * a[3])


@given(boxes, boxes)
def test_overlap_is_symmetric_and_bounded(a: F64, b: F64) -> None:
    shared = overlap_area(a, b)
    assert shared == pytest.approx(overlap_area(b, a), abs=1e-9)
    assert 0.0 <= shared <= min(a[2] * a[3], b[2] * b[3]) + 1e-9
    assert iou_from_above(a, a) == pytest.approx(1.0)
    tall = np.array([a[0], a[1], 1.0, a[2], a[3], 2.0, a[4]])
    half = tall + np.array([0, 0, 1.0, 0, 0, 0, 0])
    assert iou_in_space(tall, half) == pytest.approx(1 / 3)
    assert iou_in_space(tall, tall + np.array([0, 0, 2.5, 0, 0, 0, 0])) == 0.0


def test_map_iou_is_total_over_total() -> None:
    true, predicted = np.zeros((2, 4, 4), np.bool_), np.zeros((2, 4, 4), np.bool_)
    true[0, :2], predicted[0, :1] = True, True  # 4 of 8
    true[1, 0, 0], predicted[1, 0, 0] = True, True  # 1 of 1
    assert mask_iou(predicted, true) == pytest.approx(5 / 9)  # the mean over frames would be 3/4
    assert math.isnan(mask_iou(true & False, true & False))
    with pytest.raises(ValueError, match="same shape"):
        mask_iou(predicted, true[0])


def frames_of_boxes(count: int, seed: int) -> list[F64]:
    random = np.random.default_rng(seed)
    return [
        np.column_stack([np.arange(6) * 10.0, random.uniform(-3, 3, 6), np.ones(6), np.full((6, 3), (4.0, 2.0, 1.5)),
                         random.uniform(-3, 3, 6)])
        for _ in range(count)
    ]  # fmt: skip


def test_kitti_ap_by_hand() -> None:
    """80 boxes, of which the better half of the scores is right and the others are in empty places."""
    truth = [box[:4] for box in frames_of_boxes(20, 0)]
    assert ap_r40(truth, truth, [np.ones(4)] * 20, 0.7) == pytest.approx(1.0)
    scores = [np.linspace(0.9, 0.1, 80)[4 * k : 4 * k + 4] for k in range(20)]
    assert ap_r40(truth, truth, scores, 0.7) == pytest.approx(1.0)
    far = np.array([0, 500.0, 0, 0, 0, 0, 0])
    half = [boxes if k < 10 else boxes + far for k, boxes in enumerate(truth)]
    assert ap_r40(truth, half, scores, 0.7) == pytest.approx(0.5, abs=1 / 40)
    assert ap_r40(truth, half, scores, 0.7, "above") == pytest.approx(ap_r40(truth, half, scores, 0.7))
    assert ap_r40([np.zeros((0, 7))], [truth[0]], [scores[0]], 0.5) == 0.0


def test_kitti_thresholds_are_as_many_as_recalls_reached() -> None:
    assert len(recall_thresholds(np.linspace(0, 1, 400), 400)) == 41
    assert len(recall_thresholds(np.linspace(0, 1, 200), 400)) == 21
    assert recall_thresholds(np.array([0.3, 0.9]), 2) == [0.9, 0.3]


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_kitti_ap_is_bounded_and_false_boxes_never_help(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = frames_of_boxes(3, seed)
    predicted = [boxes[random.random(6) < 0.7] + random.normal(0, 0.1, 7) for boxes in truth]
    scores = [random.random(len(boxes)) for boxes in predicted]
    before = ap_r40(truth, predicted, scores, 0.5)
    extra = [np.vstack([boxes, boxes[:1] + 300.0]) for boxes in predicted]
    after = ap_r40(truth, extra, [np.append(s, 1.0)[: len(b)] for s, b in zip(scores, extra, strict=True)], 0.5)
    assert 0.0 <= after <= before + 1e-12 <= 1.0 + 1e-12


def test_two_protocols_give_two_numbers_for_the_same_predictions() -> None:
    """An error that grows with the square of time: at 3 s it is 1.65 m, on the way 0.42 m to it."""
    times = 0.5 * np.arange(1, 7)
    driven = np.zeros((1, 6, 2))
    planned = driven + (1.65 / 9 * times**2)[None, :, None] * np.array([1.0, 0.0])
    assert l2_at_3s(planned, driven, 0.5) == pytest.approx(1.65)
    assert l2_mean_to_3s(planned, driven, 0.5) == pytest.approx(1.65 / 9 * np.mean(times**2))
    longer = np.concatenate([planned, planned + 9], axis=1)
    assert l2_mean_to_3s(longer, np.zeros_like(longer), 0.5) == pytest.approx(l2_mean_to_3s(planned, driven, 0.5))
    with pytest.raises(ValueError, match="reach 3 s"):
        l2_at_3s(planned[:, :3], driven[:, :3], 0.5)


def test_collisions_of_plans_are_between_oriented_boxes() -> None:
    straight = np.array([[0.0, 0.0, 4.0, 2.0, 0.0], [5.0, 0.0, 4.0, 2.0, 0.0]])
    beside = [[np.array([0.0, 2.4, 4.0, 2.0, 0.0])], [np.array([5.0, 2.4, 4.0, 2.0, 0.0])]]
    turned = [[beside[0][0]], [np.array([5.0, 2.4, 4.0, 2.0, math.pi / 2])]]
    assert collision_rate(np.stack([straight, straight]), [beside, turned]) == 0.5
