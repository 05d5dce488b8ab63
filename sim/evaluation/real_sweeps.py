"""Real LiDAR sweeps with the boxes that people drew in them, in our terms.

Knows how PandaSet and Argoverse 2 write theirs; knows nothing about networks. Sweeps are given as an observation is, thinned
evenly to as many points.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.feather as feather
from numpy.typing import NDArray

from perception.geometry import rotation_from_quaternion, yaw_of
from perception.labels import BoxClass, BoxField
from perception.preprocess import points_in_ego
from perception.sensors import LidarSweep
from sim.logs.reader import open_log
from sim.sensors.labels import points_in_boxes

LEAST_RETURNS = 2
AV2_AXLE_HEIGHT_M = 0.33  # Argoverse's vehicle frame lies in the rear axle, ours on the ground below it
SAME_SWEEP_S = 0.05  # half the time from one sweep to the next
# Names as the two data sets write them; what is not listed is neither. Argoverse's signs on wheels (TRAFFIC_LIGHT_TRAILER,
# MESSAGE_BOARD_TRAILER, MOBILE_PEDESTRIAN_CROSSING_SIGN) are street furniture.
_VEHICLES = frozenset({
    "Car", "Pickup Truck", "Medium-sized Truck", "Semi-truck", "Bus", "Emergency Vehicle", "Motorcycle", "Bicycle",
    "Other Vehicle - Construction Vehicle", "Other Vehicle - Pedicab", "Other Vehicle - Uncommon",
    "REGULAR_VEHICLE", "LARGE_VEHICLE", "RAILED_VEHICLE", "BOX_TRUCK", "TRUCK", "TRUCK_CAB", "VEHICULAR_TRAILER", "BUS",
    "SCHOOL_BUS", "ARTICULATED_BUS", "BICYCLE", "MOTORCYCLE",
})  # fmt: skip
_WALKERS = frozenset({"Pedestrian", "Pedestrian with Object", "PEDESTRIAN"})


@dataclass(frozen=True)
class LabelledSweep:
    """source: whose sweep. points: (M, 4) float32 x y z intensity in ego. boxes: (N, len(BoxField)) float32, SEEN where at least
    LEAST_RETURNS of the points lie inside.
    """

    source: str
    points: NDArray[np.float32]
    boxes: NDArray[np.float32]


def labelled_sweeps(folder: Path, max_points: int) -> Iterator[LabelledSweep]:
    """Every labelled sweep below a folder laid out as docs/evaluation.md says; nothing where there is none."""
    if (folder / "pandaset" / "boxes.json").is_file():
        yield from _pandaset(folder / "pandaset", max_points)
    for log in sorted((folder / "argoverse2").glob("*/annotations.feather")):
        yield from _argoverse2(log.parent, max_points)


def _pandaset(folder: Path, max_points: int) -> Iterator[LabelledSweep]:
    labels = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    with open_log(folder / "ros2_mcap") as log:
        for step in log.steps():
            labelled = [frame for frame in labels if abs(frame["timestamp_s"] - step.timestamp_us / 1e6) < SAME_SWEEP_S]
            if not labelled:
                continue
            rows = [
                [
                    kind, *b["center_in_base_link_m"], *b["length_width_height_m"], b["yaw_in_base_link_rad"], 0.0, 0.0, 0.0,
                ]
                for b in labelled[0]["boxes"]
                if (kind := _class_of(b["label"])) is not None
            ]  # fmt: skip
            sweeps = [sweep for sweep in step.frame.lidars.values() if sweep is not None]
            yield _sweep("pandaset", points_in_ego(sweeps, max_points), rows)


def _argoverse2(folder: Path, max_points: int) -> Iterator[LabelledSweep]:
    table = feather.read_table(folder / "annotations.feather").to_pydict()
    stamps = np.array(table["timestamp_ns"])
    for path in sorted((folder / "sensors" / "lidar").glob("*.feather")):
        cloud = feather.read_table(path)
        columns = [cloud[name].to_numpy().astype(np.float32) for name in ("x", "y", "z")]
        intensity = cloud["intensity"].to_numpy().astype(np.float32) / 255
        ground = np.eye(4)
        ground[2, 3] = AV2_AXLE_HEIGHT_M
        # Beam after beam, as sweeps of ours are, so that thinning takes evenly from each.
        order = np.argsort(cloud["laser_number"].to_numpy(), kind="stable")
        points = points_in_ego([LidarSweep(np.column_stack([*columns, intensity])[order], ground, 0)], max_points)
        rows = []
        for i in np.flatnonzero(stamps == int(path.stem)):
            kind = _class_of(table["category"][i])
            if kind is None:
                continue
            turn = rotation_from_quaternion(*(table[name][i] for name in ("qx", "qy", "qz", "qw")))
            center = [table[name][i] for name in ("tx_m", "ty_m", "tz_m")]
            center[2] += AV2_AXLE_HEIGHT_M
            size = [table[name][i] for name in ("length_m", "width_m", "height_m")]
            rows.append([kind, *center, *size, yaw_of(turn), 0.0, 0.0, 0.0])
        yield _sweep("argoverse2", points, rows)


def _class_of(label: str) -> BoxClass | None:
    if label in _WALKERS:
        return BoxClass.WALKER
    return BoxClass.VEHICLE if label in _VEHICLES else None


def _sweep(source: str, points: NDArray[np.float32], rows: list[list[Any]]) -> LabelledSweep:
    boxes = np.array(rows, np.float32).reshape(-1, len(BoxField))
    b = boxes.astype(np.float64)
    f = BoxField
    inside = points_in_boxes(
        points[:, :3].astype(np.float64), b[:, f.X : f.Z + 1], b[:, f.LENGTH : f.HEIGHT + 1], b[:, f.YAW]
    )
    boxes[:, f.SEEN] = inside >= LEAST_RETURNS
    return LabelledSweep(source, points, boxes)
