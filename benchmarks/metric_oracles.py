"""What nuscenes-devkit and SciPy say about boxes and series from a seed: tests/data/metric-oracles.json, for the tests.

nuscenes-devkit needs numpy 1 and cannot share an environment with this project, so the script has one of its own:

    python -m venv runs/oracles && runs/oracles/bin/pip install nuscenes-devkit
    runs/oracles/bin/python benchmarks/metric_oracles.py

It imports nothing of this project. The file holds the inputs too, so a test needs neither of the two.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.utils import center_distance
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.data_classes import DetectionBox
from scipy.signal import savgol_filter

TARGET = Path(__file__).resolve().parent.parent / "tests" / "data" / "metric-oracles.json"
CLASSES = ("car", "pedestrian", "barrier")
FRAMES = 8
ERRORS = {"translation": "trans_err", "scale": "scale_err", "orientation": "orient_err", "velocity": "vel_err"}
Row = list[float]  # frame, center x y z, size length width height, yaw, velocity x y, score


def rows_of(random: np.random.Generator, noise: float, missed: float, invented: int) -> tuple[list[Row], list[Row]]:
    """True boxes and predictions of one class: shifted by noise, some missed, some invented, some with equal scores."""
    truth, predicted = [], []
    for frame in range(FRAMES):
        for _ in range(random.integers(2, 9)):
            box = [*random.uniform(-40, 40, 2), random.uniform(0, 2), *random.uniform(0.4, 5, 3), random.uniform(-4, 4)]
            row = [frame, *box, *random.normal(0, 4, 2), 1.0]
            truth.append(row)
            if random.random() >= missed:
                off = [
                    *random.normal(0, noise, 3),
                    *random.normal(0, 0.1, 3),
                    random.normal(0, 0.6),
                    *random.normal(0, 1, 2),
                ]
                moved = np.array(row[1:10]) + off
                moved[3:6] = np.maximum(moved[3:6], 0.1)
                predicted.append([frame, *moved, random.choice([random.random(), 0.5])])
        for _ in range(invented):
            box = [*random.uniform(-40, 40, 2), 0.0, 4.0, 2.0, 1.5, random.uniform(-3, 3)]
            predicted.append([frame, *box, *random.normal(0, 4, 2), 0.8 * random.random()])
    return rounded(truth), rounded(predicted)


def rounded(rows: list[Row]) -> list[Row]:
    return [[round(float(value), 6) for value in row] for row in rows]


def boxes_of(rows: list[Row], name: str) -> EvalBoxes:
    boxes = EvalBoxes()
    for frame in range(FRAMES):
        here = [
            DetectionBox(
                sample_token=str(frame),
                translation=tuple(r[1:4]),
                size=(r[5], r[4], r[6]),
                rotation=(math.cos(r[7] / 2), 0.0, 0.0, math.sin(r[7] / 2)),
                velocity=tuple(r[8:10]),
                detection_name=name,
                detection_score=r[10],
            )
            for r in rows
            if r[0] == frame
        ]
        boxes.add_boxes(str(frame), here)
    return boxes


def detection() -> list[dict[str, Any]]:
    random = np.random.default_rng(20)
    cases = []
    for name, noise, missed, invented in zip(CLASSES, (0.4, 0.8, 2.0), (0.1, 0.3, 0.85), (2, 5, 1), strict=True):
        truth, predicted = rows_of(random, noise, missed, invented)
        there, said = boxes_of(truth, name), boxes_of(predicted, name)
        data = {d: accumulate(there, said, name, center_distance, d) for d in (0.5, 1.0, 2.0, 4.0)}
        cases.append({
            "class": name,
            "truth": truth,
            "predicted": predicted,
            "ap": {str(d): calc_ap(md, 0.1, 0.1) for d, md in data.items()},
            "errors": {ours: calc_tp(data[2.0], 0.1, theirs) for ours, theirs in ERRORS.items()},
        })  # fmt: skip
    return cases


def derivatives() -> list[dict[str, Any]]:
    random = np.random.default_rng(21)
    cases = []
    for count, window, order, derivative in (
        (40, 8, 2, 0),
        (40, 15, 2, 1),
        (33, 15, 3, 2),
        (15, 15, 2, 1),
        (9, 8, 2, 0),
    ):
        values = np.round(np.cumsum(random.normal(0, 1, count)), 6)
        fitted = savgol_filter(values, window, order, deriv=derivative, delta=0.1)
        case = {"window": window, "order": order, "derivative": derivative}
        cases.append({**case, "values": values.tolist(), "fitted": fitted.tolist()})
    return cases


if __name__ == "__main__":
    TARGET.write_text(json.dumps({"detection": detection(), "derivatives": derivatives()}) + "\n", encoding="utf-8")
    print(f"wrote {TARGET}")
