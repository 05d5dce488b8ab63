"""Real sweeps and their boxes: which label is what, and which sweep a box belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.feather
import pytest

from perception.labels import BoxClass, BoxField
from perception.sensors import LidarSweep, SensorFrame
from sim.evaluation import real_sweeps
from sim.evaluation.real_sweeps import labelled_sweeps
from sim.step import Step

BEGIN_US = 1_557_539_960_000_000
F = BoxField


def pandaset(
    folder: Path, monkeypatch: pytest.MonkeyPatch, labels: list[list[tuple[str, float]]], at_s: list[float]
) -> None:
    """PandaSet's files: boxes (label, x) every tenth of a second, and a log with sweeps at these times."""
    frames = [
        {
            "timestamp_s": BEGIN_US / 1e6 + 0.1 * k,
            "boxes": [
                {"label": label, "center_in_base_link_m": [x, 0, 1], "length_width_height_m": [4, 2, 2], "yaw_in_base_link_rad": 0}
                for label, x in boxes
            ],
        }
        for k, boxes in enumerate(labels)
    ]  # fmt: skip
    (folder / "pandaset").mkdir()
    (folder / "pandaset" / "boxes.json").write_text(json.dumps(frames))

    class Log:
        def steps(self) -> Iterator[Step]:
            for tick, seconds in enumerate(at_s):
                time_us = BEGIN_US + round(seconds * 1e6)
                sweep = LidarSweep(np.zeros((3, 4), np.float32), np.eye(4), time_us)
                yield Step(tick, time_us, SensorFrame(time_us, {}, {"lidar": sweep}, None, None), None)

    @contextmanager
    def opened(path: Path) -> Iterator[Log]:
        yield Log()

    monkeypatch.setattr(real_sweeps, "open_log", opened)


def test_boxes_belong_to_the_sweep_of_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that is missing takes its boxes along, and none is given to a sweep that nobody labelled."""
    pandaset(tmp_path, monkeypatch, [[("Car", 10.0)], [("Car", 20.0)], [("Car", 30.0)]], [0.0015, 0.2015, 0.9])
    found = [sweep.boxes[:, F.X].tolist() for sweep in labelled_sweeps(tmp_path, 16)]
    assert found == [[10.0], [30.0]]


def test_pandasets_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "Semi-truck",
        "Medium-sized Truck",
        "Other Vehicle - Construction Vehicle",
        "Pedestrian with Object",
        "Cones",
    )
    pandaset(tmp_path, monkeypatch, [[(name, 10.0 * k) for k, name in enumerate(names)]], [0.0])
    (sweep,) = labelled_sweeps(tmp_path, 16)
    assert sweep.boxes[:, F.CLASS].tolist() == [BoxClass.VEHICLE] * 3 + [BoxClass.WALKER]
    assert sweep.boxes[:, F.X].tolist() == [0.0, 10.0, 20.0, 30.0]


def test_argoverses_signs_on_wheels_are_no_vehicles_and_no_walkers(tmp_path: Path) -> None:
    names = [
        "TRAFFIC_LIGHT_TRAILER",
        "MESSAGE_BOARD_TRAILER",
        "MOBILE_PEDESTRIAN_CROSSING_SIGN",
        "VEHICULAR_TRAILER",
        "PEDESTRIAN",
    ]
    numbers = {"tx_m": 0.0, "ty_m": 0.0, "tz_m": 1.0, "length_m": 4.0, "width_m": 2.0, "height_m": 2.0, "qw": 1.0, "qx": 0.0,
               "qy": 0.0, "qz": 0.0}  # fmt: skip
    columns = {name: [value] * len(names) for name, value in numbers.items()}
    log = tmp_path / "argoverse2" / "log"
    (log / "sensors" / "lidar").mkdir(parents=True)
    annotations = pyarrow.table({"timestamp_ns": [7] * len(names), "category": names, **columns})
    pyarrow.feather.write_feather(annotations, log / "annotations.feather")
    cloud = pyarrow.table(
        {name: [0.0] * 3 for name in ("x", "y", "z")} | {"intensity": [0] * 3, "laser_number": [0] * 3}
    )
    pyarrow.feather.write_feather(cloud, log / "sensors" / "lidar" / "7.feather")
    (sweep,) = labelled_sweeps(tmp_path, 16)
    assert sweep.boxes[:, F.CLASS].tolist() == [BoxClass.VEHICLE, BoxClass.WALKER]
