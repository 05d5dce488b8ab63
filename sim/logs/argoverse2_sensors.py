"""Logs of the Argoverse 2 Sensor Dataset: a folder with `sensors/lidar`, `sensors/cameras`, poses and calibration.

Knows their files (Wilson et al., "Argoverse 2: Next Generation Datasets for Self-Driving Perception and Forecasting", 2021); knows
nothing about how frames are put together. Boxes and map are read by `sim.playback.argoverse2`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.geometry import rotation_from_quaternion, se3
from sim.feather import feather_columns
from sim.logs.file_source import FileSource, picture_of_file
from sim.logs.log import LogError, LogSummary
from sim.logs.recorded import (
    FURTHEST_M,
    MessageError,
    RawMessage,
    RecordedCalibration,
    RecordedCloud,
    RecordedOdometry,
    RecordedTransform,
    RecordedTransforms,
)

LIDAR, CAMERAS = Path("sensors/lidar"), Path("sensors/cameras")
POSES = Path("city_SE3_egovehicle.feather")
MOUNTING, INTRINSICS = Path("calibration/egovehicle_SE3_sensor.feather"), Path("calibration/intrinsics.feather")
# The car's frame begins in the middle of the rear axle; flat ground lies so far below it in sweeps.
BASE_FROM_CAR = se3(np.eye(3), [0.0, 0.0, 0.33])
MAX_TABLE_BYTES = 100_000_000
BETWEEN_POSES_US = 10_000  # they come with every reading of every sensor, some a microsecond apart
_POSE = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
_SIZES = ("width_px", "height_px")
_FOCAL = ("fx_px", "fy_px", "cx_px", "cy_px")


def is_argoverse2_sensors(folder: Path) -> bool:
    """Whether a folder is laid out as a log of the Sensor Dataset with readings of sensors."""
    return (folder / LIDAR).is_dir() or (folder / CAMERAS).is_dir()


class Argoverse2Sensors(FileSource):
    """A log. Frames: `base_link` on the ground under the rear axle, `egovehicle`, in which sweeps are, and the cameras.

    Raises:
        LogError: a folder cannot be listed, or poses or calibration are damaged.
    """

    def __init__(self, path: Path, summary: LogSummary) -> None:
        super().__init__("Argoverse 2 log", summary)
        self._path = path
        self.add_files("/lidar", "lidar", "Argoverse 2 sweep", _timed(path / LIDAR, (".feather",)), _cloud)
        cameras = set()
        for folder in _folders(path / CAMERAS):
            files = _timed(folder, (".jpg", ".jpeg", ".png"))
            self.add_files(f"/{folder.name}/image", "camera", "Argoverse 2 picture", files, picture_of_file)
            cameras.add(folder.name)
        self._start_us = self.span_us[0]
        mounted = [RecordedTransform("base_link", "egovehicle", 0, BASE_FROM_CAR), *self._mountings(cameras)]
        transforms = RecordedTransforms(tuple(mounted))
        self.add_known("/calibration", "transforms", "Argoverse 2 calibration", [(self._start_us, transforms)])
        self._calibrate(cameras)
        if (path / POSES).is_file():
            poses = self._poses()
            self.add_known(
                "/city_from_car", "odometry", "Argoverse 2 pose", [(pose.timestamp_us, pose) for pose in poses]
            )

    def _mountings(self, cameras: set[str]) -> list[RecordedTransform]:
        columns = self._table(MOUNTING, ("sensor_name", *_POSE), cameras)
        return [
            RecordedTransform("egovehicle", name, 0, self._pose(MOUNTING, columns, k))
            for k, name in enumerate(columns["sensor_name"].tolist())
            if name in cameras
        ]

    def _calibrate(self, cameras: set[str]) -> None:
        columns = self._table(INTRINSICS, ("sensor_name", *_FOCAL, *_SIZES), cameras)
        for k, name in enumerate(columns["sensor_name"].tolist()):
            if name not in cameras:
                continue
            fx, fy, cx, cy = (float(columns[column][k]) for column in _FOCAL)
            width, height = (float(columns[column][k]) for column in _SIZES)
            if not (fx > 0 and fy > 0 and 1 <= width <= 1e5 and 1 <= height <= 1e5):
                raise LogError(f"{self._path / INTRINSICS}: {name} has a focal length or a size that no camera has")
            intrinsics = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
            calibration = RecordedCalibration(name, int(width), int(height), intrinsics, "none", np.zeros(0))
            known = [(self._start_us, calibration)]
            self.add_known(f"/{name}/calibration", "calibration", "Argoverse 2 calibration", known)

    def _poses(self) -> list[RecordedOdometry]:
        columns = self._columns(POSES, ("timestamp_ns", *_POSE))
        stamps_us = columns["timestamp_ns"] // 1000
        poses: list[RecordedOdometry] = []
        for k in np.argsort(stamps_us, kind="stable").tolist():
            time_us = int(stamps_us[k])
            if not poses or time_us - poses[-1].timestamp_us >= BETWEEN_POSES_US:
                poses.append(RecordedOdometry("egovehicle", time_us, self._pose(POSES, columns, k), None, None))
        return poses

    def _table(self, file: Path, names: tuple[str, ...], cameras: set[str]) -> dict[str, NDArray[Any]]:
        """What a table says of the cameras; empty where there is none, with a warning where there are cameras."""
        if cameras and (self._path / file).is_file():
            return self._columns(file, names)
        if cameras:
            self._summary.warn(f"{self._path}: there is no {file}, which cameras need")
        return {name: np.zeros(0) for name in names}

    def _columns(self, file: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Columns of one of the log's tables: names as text, stamps int64, other numbers finite."""
        path = self._path / file
        try:
            if path.stat().st_size > MAX_TABLE_BYTES:
                raise ValueError(f"larger than the {MAX_TABLE_BYTES // 1_000_000} MB that such a file may have")
            columns = feather_columns(path, names)
            for name in names:
                if name == "sensor_name":
                    columns[name] = np.array([str(value)[:64] for value in columns[name]])
                elif name == "timestamp_ns" and columns[name].dtype != np.int64:
                    raise ValueError(f"column {name} holds {columns[name].dtype}, not int64")
                elif columns[name].dtype.kind not in "fiu" or not np.isfinite(columns[name]).all():
                    raise ValueError(f"column {name} holds what is no finite number")
        except OSError as error:
            raise LogError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise LogError(f"{path} is damaged, or of another kind ({error})") from None
        return columns

    def _pose(self, file: Path, columns: dict[str, NDArray[Any]], k: int) -> NDArray[np.float64]:
        w, x, y, z, *place = (float(columns[name][k]) for name in _POSE)
        if not all(abs(value) <= FURTHEST_M for value in place):
            raise LogError(f"{self._path / file}: row {k} is a place over {FURTHEST_M:g} m away")
        try:
            return se3(rotation_from_quaternion(x, y, z, w), place)
        except ValueError as error:
            raise LogError(f"{self._path / file}: row {k} is no pose ({error})") from None


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    except OSError as error:
        raise LogError(f"{folder} cannot be listed: {error.strerror}") from None


def _timed(folder: Path, suffixes: tuple[str, ...]) -> list[tuple[int, Path]]:
    """Files named by their time in nanoseconds, with it in microseconds."""
    try:
        found = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise LogError(f"{folder} cannot be listed: {error.strerror}") from None
    named = [path for path in found if path.suffix.lower() in suffixes and re.fullmatch(r"[0-9]{1,18}", path.stem)]
    return [(int(path.stem) // 1000, path) for path in named]


def _cloud(message: RawMessage) -> RecordedCloud:
    """A sweep, whose points are where they were at the time in the file's name, in the car's frame; intensity 0 to 255."""
    names = ("x", "y", "z", "intensity")
    try:
        columns = feather_columns(message.data, names)
        points = np.column_stack([columns[name].astype(np.float32) for name in names])
    except ValueError as error:
        raise MessageError(f"sweep that is damaged or of another kind ({error})") from None
    finite = np.isfinite(points).all(axis=1)
    return RecordedCloud("egovehicle", message.time_us, points[finite], None, int(len(points) - finite.sum()))
