"""The verb `evaluate-perception`: a trained network's perception on validation towns and, LiDAR only, on real sweeps.

Composes files, frames and scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.labels import MAX_BOXES, UNKNOWN, BoxField, LabelledFrames
from perception.preprocess import ObservationSpec
from planning.checkpoint import CheckpointError
from planning.perceiver import NETWORK, Perceiver, load_perceiver
from sim.config import ConfigError
from sim.evaluation.perception_scores import PerceptionScores, Sensors, perception_scores
from sim.evaluation.real_sweeps import LabelledSweep, labelled_sweeps
from sim.sensors.rig import RigError, rig
from sim.train_perception import spec_of, validation_frames

SHOWN: tuple[Sensors, ...] = ("both", "camera", "lidar")
Report = dict[str, dict[str, float]]


def evaluate_perception(run: Path, frames: int, sweeps: Path | None) -> Report:
    """Scores by what was looked at: `both`, `camera` and `lidar` on validation frames, and `real-<source>`.

    Real boxes come without velocities, so their scores have no error of it.

    run: folder of a training run. frames: of validation towns. sweeps: folder with real sweeps, or None.

    Raises:
        CheckpointError: no such network. ConfigError: a folder of sweeps without any, or a network without a LiDAR.
    """
    model, run_config = load_perceiver(run)
    try:
        own_rig = rig(str(run_config.get("rig")))
    except RigError as error:
        raise CheckpointError(f"{run / NETWORK}: {error}") from None
    if spec_of(own_rig).to_json() != model.spec.to_json():
        raise CheckpointError(f"{run / NETWORK}: rig {run_config.get('rig')!r} has changed since; train again")
    report: Report = {}
    if frames:
        rendered = validation_frames(own_rig, model, frames)
        for sensors in SHOWN:
            report[sensors] = perception_scores(model, rendered, sensors)
    if sweeps is not None:
        report |= _real(model, sweeps)
    return report


def _real(model: Perceiver, folder: Path) -> Report:
    if not model.spec.max_points:
        raise ConfigError("this network has no LiDAR, so real sweeps say nothing about it")
    by_source: dict[str, list[LabelledSweep]] = {}
    for sweep in labelled_sweeps(folder, model.spec.max_points):
        by_source.setdefault(sweep.source, []).append(sweep)
    if not by_source:
        raise ConfigError(
            f"no labelled sweeps in {folder}: it needs pandaset/boxes.json or argoverse2/*/annotations.feather"
        )
    report: Report = {}
    for source, found in by_source.items():
        scores = PerceptionScores(model.grid)
        for sweep in found:
            scores.see(model, frame_of_sweep(sweep, model.spec, model.grid.rows, model.grid.columns), "lidar")
        known = {name: score for name, score in scores.boxes_only().items() if not name.endswith("velocity_error")}
        report[f"real-{source}"] = {"evaluated_frames": float(len(found)), **known}
    return report


def frame_of_sweep(sweep: LabelledSweep, spec: ObservationSpec, rows: int, columns: int) -> LabelledFrames:
    """A frame with nothing but that sweep and its boxes; every other sensor is silent, every other label unknown."""
    observation: dict[str, NDArray[Any]] = {
        name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in spec.shapes().items() if name != "privileged"
    }
    observation["points"][0, : sweep.points.size] = sweep.points.ravel()
    observation["point_count"][0] = len(sweep.points)
    boxes = np.zeros((1, MAX_BOXES, len(BoxField)), np.float32)
    near = np.argsort(np.hypot(sweep.boxes[:, BoxField.X], sweep.boxes[:, BoxField.Y]))[:MAX_BOXES]
    boxes[0, : len(near)] = sweep.boxes[near]
    return LabelledFrames(
        observation=observation,
        beam=np.zeros((1, spec.max_points), np.uint8),
        bev=np.zeros((1, rows, columns), np.uint8),
        boxes=boxes,
        box_count=np.array([len(near)], np.int32),
        depth={},
        semantic={},
        light=np.array([UNKNOWN]),
        lane=np.full((1, 2), np.nan, np.float32),
    )
