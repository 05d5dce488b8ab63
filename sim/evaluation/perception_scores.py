"""How well a network perceives: bird's-eye IoU, detection AP, pictures, signal and lane, on labelled frames.

Knows labels, predictions and metrics; knows nothing about where frames come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from perception.detections import decode_centers
from perception.labels import UNKNOWN, BevClass, BoxClass, BoxField, LabelledFrames, PictureClass
from perception.points import BevGrid
from perception.train_perception import tensors_of
from planning.perceiver import Perceiver
from sim.evaluation.detection_metrics import BoxSet, class_metrics
from sim.evaluation.kitti_ap import ap_r40
from sim.evaluation.overlaps import mask_iou

Sensors = Literal["both", "camera", "lidar"]
VEHICLE_IOU = 0.5  # KITTI asks for 0.7 of cars in sweeps with four times as many beams
CHUNK = 16


class PerceptionScores:
    """Gathers predictions frame by frame; memory grows with boxes and small maps only."""

    def __init__(self, grid: BevGrid) -> None:
        self.grid = grid
        self._true: list[NDArray[np.float32]] = []
        self._found: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        self._bev: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self._pictures = np.zeros((len(PictureClass), len(PictureClass)), np.int64)
        self._depth_errors: list[float] = []
        self._lights: list[tuple[int, int]] = []
        self._lanes: list[NDArray[np.float32]] = []

    def see(self, model: Perceiver, frames: LabelledFrames, sensors: Sensors = "both") -> None:
        """Predict from those sensors only, and keep what there is to compare."""
        given = tensors_of(frames, model.spec)
        if sensors == "lidar":
            given |= {name: torch.zeros_like(given[name]) for name in model.spec.cameras}
        if sensors == "camera" and model.spec.max_points:
            given |= {name: torch.zeros_like(given[name]) for name in ("points", "point_count")}
        with torch.inference_mode():
            predicted = model(given)
        self._found += decode_centers(predicted.centers, self.grid)
        self._true += [self._in_reach(frames.boxes[e, : frames.box_count[e]]) for e in range(len(frames))]
        self._bev.append((frames.bev, predicted.bev.argmax(1).numpy().astype(np.uint8)))
        self._lights += list(zip(frames.light.tolist(), predicted.light.argmax(1).tolist(), strict=True))
        self._lanes.append(predicted.lane.numpy() - frames.lane)
        for name in predicted.semantic if sensors != "lidar" else ():
            true, metres = frames.semantic[name], frames.depth[name]
            rows, columns = true.shape[1:]
            classes = predicted.semantic[name][:, :, :rows, :columns].argmax(1).numpy()
            pairs = true.astype(np.int64) * len(PictureClass) + classes
            self._pictures += np.bincount(pairs.ravel(), minlength=self._pictures.size).reshape(self._pictures.shape)
            solid = (metres > 0) & (metres < 80.0)
            away = predicted.log_depth[name][:, :rows, :columns].exp().numpy()
            if solid.any():
                self._depth_errors.append(float(np.median(np.abs(away[solid] / metres[solid] - 1.0))))

    def boxes_only(self) -> dict[str, float]:
        """Detection: nuScenes' AP (mean over 0.5, 1, 2 and 4 m) and errors, KITTI's AP R40 of vehicles from above.

        A class without a true box has NaN.
        """
        scores: dict[str, float] = {}
        for kind in BoxClass:
            name = kind.name.lower()
            truth = self._set([b[b[:, BoxField.CLASS] == kind] for b in self._true], None)
            mine = [b[:, BoxField.CLASS] == kind for b, _ in self._found]
            found = self._set(
                [b[m] for (b, _), m in zip(self._found, mine, strict=True)],
                [s[m] for (_, s), m in zip(self._found, mine, strict=True)],
            )
            scores[f"{name}_boxes"] = float(len(truth))
            metrics = class_metrics(truth, found)
            some = len(truth) > 0
            scores[f"{name}_ap"] = metrics.mean_ap if some else float("nan")
            scores[f"{name}_ap_2m"] = metrics.ap[2.0] if some else float("nan")
            scores |= {
                f"{name}_{error}_error": value if some else float("nan") for error, value in metrics.errors.items()
            }
        columns = [BoxField.X, BoxField.Y, BoxField.Z, BoxField.LENGTH, BoxField.WIDTH, BoxField.HEIGHT, BoxField.YAW]
        true = [b[b[:, BoxField.CLASS] == BoxClass.VEHICLE][:, columns].astype(float) for b in self._true]
        kept = [b[:, BoxField.CLASS] == BoxClass.VEHICLE for b, _ in self._found]
        found_boxes = [b[k][:, columns].astype(float) for (b, _), k in zip(self._found, kept, strict=True)]
        found_scores = [s[k].astype(float) for (_, s), k in zip(self._found, kept, strict=True)]
        ap = (
            ap_r40(true, found_boxes, found_scores, VEHICLE_IOU, "above") if any(len(t) for t in true) else float("nan")
        )
        return {
            **scores,
            "mean_ap": _mean([scores["vehicle_ap"], scores["walker_ap"]]),
            "vehicle_ap_r40": ap,
        }

    def all(self) -> dict[str, float]:
        """Everything; NaN where frames had nothing of the kind."""
        true, predicted = (np.concatenate(maps) for maps in zip(*self._bev, strict=True))
        bev = {f"bev_iou_{c.name.lower()}": mask_iou(predicted == c, true == c) for c in BevClass}
        scores = {"evaluated_frames": float(len(true)), **bev, "bev_iou": _mean(list(bev.values()))}
        scores |= self.boxes_only()
        if self._depth_errors:
            hits = np.diag(self._pictures)
            union = self._pictures.sum(0) + self._pictures.sum(1) - hits
            scores["picture_iou"] = float((hits[union > 0] / union[union > 0]).mean())
            for kind in (PictureClass.SIGNAL_RED, PictureClass.SIGNAL_GREEN):
                scores[f"picture_iou_{kind.name.lower()}"] = (
                    float(hits[kind] / union[kind]) if union[kind] else float("nan")
                )
            scores["picture_depth_error"] = float(np.mean(self._depth_errors))
        told = [(t, p) for t, p in self._lights if t != UNKNOWN]
        states = [np.mean([p == t for t, p in told if t == state]) for state in sorted({t for t, _ in told})]
        scores["light_accuracy"] = float(np.mean(states)) if states else float("nan")
        lanes = np.concatenate(self._lanes)
        lanes = np.abs(lanes[np.isfinite(lanes).all(1)])
        if len(lanes):
            scores["lane_offset_error_m"], scores["lane_heading_error_rad"] = (float(v) for v in lanes.mean(0))
        return scores

    def _in_reach(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Those that a sensor sees and whose centre is on the grid."""
        grid, f = self.grid, BoxField
        row = (boxes[:, f.X] - grid.x_min_m) / grid.cell_m
        column = (boxes[:, f.Y] - grid.y_min_m) / grid.cell_m
        inside = (row >= 0) & (row < grid.rows) & (column >= 0) & (column < grid.columns)
        return boxes[inside & (boxes[:, f.SEEN] > 0)]

    @staticmethod
    def _set(boxes: list[NDArray[np.float32]], scores: list[NDArray[np.float32]] | None) -> BoxSet:
        rows = np.concatenate(boxes).astype(np.float64)
        f = BoxField
        return BoxSet(
            frame=np.repeat(np.arange(len(boxes)), [len(b) for b in boxes]),
            center=rows[:, f.X : f.Z + 1],
            size=rows[:, f.LENGTH : f.HEIGHT + 1],
            yaw_rad=rows[:, f.YAW],
            velocity_mps=rows[:, f.VX : f.VY + 1],
            score=np.ones(len(rows)) if scores is None else np.concatenate(scores).astype(np.float64),
        )


def _mean(values: list[float]) -> float:
    """Mean of those that are numbers; NaN of none."""
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def perception_scores(
    model: Perceiver, batches: Iterable[LabelledFrames], sensors: Sensors = "both"
) -> dict[str, float]:
    """All scores of a network on frames, seen through those sensors only."""
    scores = PerceptionScores(model.grid)
    for frames in batches:
        scores.see(model, frames, sensors)
    return scores.all()
