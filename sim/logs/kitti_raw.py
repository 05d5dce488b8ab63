"""Drives of KITTI's raw recordings: a folder with `image_00` to `image_03`, `velodyne_points` and `oxts`.

Knows their files (Geiger et al., "Vision meets Robotics: The KITTI Dataset", 2013, and the development kit's readme); knows nothing
about how frames are put together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.geometry import inverse, require_rigid, rotation_from_euler, se3
from sim.logs.file_source import FileSource, picture_of_file
from sim.logs.log import LogError, LogSummary
from sim.logs.navigation_messages import recorded_fix, recorded_imu
from sim.logs.pictures import PictureError, picture_size
from sim.logs.recorded import (
    MessageError,
    RawMessage,
    RecordedCalibration,
    RecordedCloud,
    RecordedFix,
    RecordedImu,
    RecordedOdometry,
    RecordedTransform,
    RecordedTransforms,
)

CAMERAS = ("image_00", "image_01", "image_02", "image_03")
VELODYNE, OXTS = "velodyne_points", "oxts"
PERIOD_US = 100_000  # of synchronised drives, where no times are given
# The Velodyne over the middle of the rear axle's place on the ground; the drawing of the setup on the dataset's page.
BASE_FROM_VELODYNE = se3(np.eye(3), [0.76, 0.0, 1.73])
EARTH_RADIUS_M = 6_378_137.0  # WGS 84, equator
MAX_TEXT_BYTES, MAX_PACKET_BYTES = 1 << 22, 1 << 16
# Of the 30 numbers of a packet of OXTS: how it is turned, how fast it is, how fast it turns to the left, and how exact it is.
# Before them latitude, longitude (degrees) and altitude; FORCE and RATE are about the IMU's own axes.
ROLL, PITCH, YAW, NORTH_MPS, EAST_MPS, FORWARD_MPS, UP_MPS, FORCE, RATE = (
    3,
    4,
    5,
    6,
    7,
    8,
    10,
    slice(11, 14),
    slice(17, 20),
)
TURNING_RADPS, POSITION_ACCURACY_M, OXTS_NUMBERS = 22, 23, 30
MAX_LATITUDE_DEG = 85.0  # Mercator's northings grow beyond all bounds at the poles
CALIBRATION, TEXT_SWEEP = "KITTI calibration", "KITTI Velodyne sweep, as text"
# What files of a sensor are and how their names end; the first of which there are some.
_PICTURES = (("KITTI picture", (".png", ".jpg", ".jpeg")),)
_KINDS = {
    VELODYNE: (("KITTI Velodyne sweep", (".bin",)), (TEXT_SWEEP, (".txt",))),
    OXTS: (("KITTI OXTS packet", (".txt",)),),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_kitti_raw(folder: Path) -> bool:
    """Whether a folder is laid out as a drive of KITTI's raw recordings."""
    return any((folder / name / "data").is_dir() for name in (*CAMERAS, VELODYNE))


class KittiRaw(FileSource):
    """A drive, synchronised (rectified pictures) or not; the folder of the day, above it, has the calibration.

    Frames: `base_link` on the ground under the rear axle, `velodyne`, `imu` and the cameras.

    Raises:
        LogError: a folder cannot be listed, or a calibration or list of times is damaged.
    """

    def __init__(self, path: Path, summary: LogSummary) -> None:
        super().__init__("KITTI raw drive", summary)
        self._path = path
        self._origin: tuple[float, float, float] | None = None
        names = [name for name in (*CAMERAS, VELODYNE, OXTS) if (path / name / "data").is_dir()]
        untimed = [name for name in names if not (path / name / "timestamps.txt").is_file()]
        if untimed:
            summary.warn(
                f"{path}: no timestamps.txt in {', '.join(untimed)}, so all is taken for synchronised, at 10 Hz from time 0 on"
            )
        there: dict[str, Path] = {}  # the first file of each sensor that has some
        for name in names:
            kind, files = self._timed(name, with_times=not untimed)
            topic = f"/{name}/data"
            match name:
                case "velodyne_points":
                    self.add_files(topic, "lidar", kind, files, _cloud)
                case "oxts":
                    self.add_files(topic, "odometry", kind, files, self._odometry, MAX_PACKET_BYTES)
                    self.add_files("/oxts/gnss", "gnss", kind, files, _fix, MAX_PACKET_BYTES)
                    self.add_files("/oxts/imu", "imu", kind, files, _imu, MAX_PACKET_BYTES)
                case _:
                    self.add_files(topic, "camera", kind, files, picture_of_file)
            if files:
                there[name] = files[0][1]
        transforms = [_fixed_transform("base_link", "velodyne", BASE_FROM_VELODYNE)]
        if OXTS in there and (numbers := self._calibration_file("calib_imu_to_velo.txt")) is not None:
            transforms.append(_fixed_transform("velodyne", "imu", numbers.pose("R", "T")))
        transforms += self._calibrate({name: file for name, file in there.items() if name in CAMERAS})
        start_us = self.span_us[0]
        self.add_known("/calibration", "transforms", CALIBRATION, [(start_us, RecordedTransforms(tuple(transforms)))])

    def _timed(self, name: str, *, with_times: bool) -> tuple[str, list[tuple[int, Path]]]:
        """What the files of a sensor are, and those with their times; a sweep's is its end, where it is given."""
        folder = self._path / name
        try:
            found = sorted(file for file in (folder / "data").iterdir() if re.fullmatch(r"[0-9]{1,10}", file.stem))
        except OSError as error:
            raise LogError(f"{folder / 'data'} cannot be listed: {error.strerror}") from None
        by_kind = [(kind, [f for f in found if f.suffix.lower() in ends]) for kind, ends in _KINDS.get(name, _PICTURES)]
        kind, files = next((pair for pair in by_kind if pair[1]), by_kind[0])
        if not with_times:
            return kind, [(int(file.stem) * PERIOD_US, file) for file in files]
        ends = folder / "timestamps_end.txt"
        times_us = _times_us(ends if name == VELODYNE and ends.is_file() else folder / "timestamps.txt")
        timed = [(times_us[int(file.stem)], file) for file in files if int(file.stem) < len(times_us)]
        if len(timed) < len(files):
            self._summary.skip(f"/{name}/data", "file without a line in the list of times", len(files) - len(timed))
        return kind, timed

    def _calibrate(self, pictures: Mapping[str, Path]) -> list[RecordedTransform]:
        """Add the calibrations of the cameras, of each of which one picture is given; where they are mounted."""
        velodyne, cameras = (
            self._calibration_file(file) if pictures else None
            for file in ("calib_velo_to_cam.txt", "calib_cam_to_cam.txt")
        )
        if velodyne is None or cameras is None:
            return []
        camera0_from_velodyne = velodyne.pose("R", "T")
        mounted = []
        for name, picture in pictures.items():
            number = name.removeprefix("image_")
            size = _picture_size(picture)
            taken = cameras.size(f"S_{number}")
            if size == taken and taken != cameras.size(f"S_rect_{number}"):
                intrinsics, lens = cameras.array(f"K_{number}", (3, 3)), cameras.array(f"D_{number}", (5,))
                calibration = RecordedCalibration(name, *taken, intrinsics, "brown_conrady", lens)
                camera_from_velodyne = cameras.pose(f"R_{number}", f"T_{number}") @ camera0_from_velodyne
            else:
                projection = cameras.array(f"P_rect_{number}", (3, 4))
                intrinsics = projection[:, :3]
                if np.linalg.matrix_rank(intrinsics) < 3:
                    raise LogError(f"{cameras.path}: P_rect_{number} is no projection")
                no_lens = np.zeros(0)
                calibration = RecordedCalibration(name, *cameras.size(f"S_rect_{number}"), intrinsics, "none", no_lens)
                camera_from_rectified = se3(np.eye(3), np.linalg.solve(intrinsics, projection[:, 3]))
                rectified = se3(cameras.rotation("R_rect_00"), np.zeros(3))
                camera_from_velodyne = camera_from_rectified @ rectified @ camera0_from_velodyne
            mounted.append(_fixed_transform("velodyne", name, inverse(camera_from_velodyne)))
            self.add_known(f"/{name}/calibration", "calibration", CALIBRATION, [(self.span_us[0], calibration)])
        return mounted

    def _calibration_file(self, name: str) -> _Numbers | None:
        for folder in (self._path.absolute().parent, self._path):
            if (folder / name).is_file():
                return _Numbers.of(folder / name)
        self._summary.warn(f"{self._path}: there is no {name} in the folder above, nor in it")
        return None

    def _odometry(self, message: RawMessage) -> RecordedOdometry:
        """One packet: where the IMU is, east, north and up of the first that decodes (Mercator, as in the development kit)."""
        numbers = _packet(message)
        latitude, longitude, altitude_m = numbers[:3]
        if abs(latitude) >= MAX_LATITUDE_DEG:
            raise MessageError("packet whose place is too near to a pole")
        if self._origin is None:
            self._origin = latitude, longitude, altitude_m
        scale_m = EARTH_RADIUS_M * math.cos(math.radians(self._origin[0]))
        east_m = scale_m * math.remainder(math.radians(longitude - self._origin[1]), math.tau)
        north_m = scale_m * (_mercator(latitude) - _mercator(self._origin[0]))
        turned = rotation_from_euler(numbers[YAW], numbers[PITCH], numbers[ROLL])
        pose = se3(turned, [east_m, north_m, altitude_m - self._origin[2]])
        return RecordedOdometry("imu", message.time_us, pose, numbers[FORWARD_MPS], numbers[TURNING_RADPS])


def _packet(message: RawMessage) -> list[float]:
    """The numbers of an OXTS packet."""
    try:
        numbers = [float(word) for word in message.data.split()]
    except ValueError:
        raise MessageError("packet that is not made of numbers") from None
    if len(numbers) != OXTS_NUMBERS or not all(map(math.isfinite, numbers)):
        raise MessageError(f"packet without {OXTS_NUMBERS} finite numbers")
    if not (abs(numbers[1]) <= 360 and abs(numbers[2]) < 1e5):
        raise MessageError("packet whose place is not on earth")
    return numbers


def _fix(message: RawMessage) -> RecordedFix:
    numbers = _packet(message)
    latitude, longitude, altitude_m = numbers[:3]
    fix = recorded_fix(message.time_us, latitude, longitude, altitude_m, None).fix
    velocity = np.array([numbers[EAST_MPS], numbers[NORTH_MPS], numbers[UP_MPS]])
    return RecordedFix(replace(fix, velocity_mps=velocity, horizontal_m=abs(numbers[POSITION_ACCURACY_M])))


def _imu(message: RawMessage) -> RecordedImu:
    numbers = _packet(message)
    return recorded_imu("imu", message.time_us, numbers[FORCE], numbers[RATE])


class _Numbers(NamedTuple):
    """A calibration file: lines of a name, a colon and numbers."""

    path: Path
    values: Mapping[str, NDArray[np.float64]]

    @staticmethod
    def of(path: Path) -> _Numbers:
        values: dict[str, NDArray[np.float64]] = {}
        for line in _lines(path):
            name, _, rest = line.partition(":")
            try:
                values[name.strip()] = np.array(rest.split(), np.float64)
            except ValueError:  # the day of the calibration
                continue
        return _Numbers(path, values)

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Raises LogError unless there are as many numbers, all finite."""
        numbers = self.values.get(name, np.zeros(0))
        if numbers.size != math.prod(shape) or not np.isfinite(numbers).all():
            raise LogError(
                f"{self.path} has no {math.prod(shape)} finite numbers for {name}: it is damaged, or of another kind"
            )
        return numbers.reshape(shape)

    def size(self, name: str) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = self.array(name, (2,))
        if not (1 <= width <= 1e5 and 1 <= height <= 1e5):
            raise LogError(f"{self.path}: {name} gives pictures of {width:g} by {height:g} pixels")
        return int(width), int(height)

    def rotation(self, name: str) -> NDArray[np.float64]:
        """The rotation nearest to what is written, which is rounded."""
        written = self.array(name, (3, 3))
        try:
            require_rigid(name, se3(written, np.zeros(3)))
        except ValueError as error:
            raise LogError(f"{self.path}: {error}") from None
        u, _, vt = np.linalg.svd(written)
        return np.asarray(u @ vt)

    def pose(self, rotation: str, translation: str) -> NDArray[np.float64]:
        return se3(self.rotation(rotation), self.array(translation, (3,)))


def _fixed_transform(parent: str, child: str, parent_from_child: NDArray[np.float64]) -> RecordedTransform:
    return RecordedTransform(parent, child, 0, parent_from_child)


def _picture_size(file: Path) -> tuple[int, int] | None:
    try:
        with file.open("rb") as opened:
            return picture_size(opened.read(1 << 16))
    except (OSError, PictureError):
        return None


def _mercator(latitude_deg: float) -> float:
    return math.log(math.tan(math.radians(45 + latitude_deg / 2)))


def _lines(path: Path) -> Sequence[str]:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise LogError(f"{path} is larger than the {MAX_TEXT_BYTES >> 20} MB that such a file may have")
        return path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LogError(f"{path} is no text") from None


def _times_us(path: Path) -> list[int]:
    """A time for each line, in microseconds; local times without a zone are taken for UTC."""
    times = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            time = datetime.fromisoformat(line.strip()).replace(tzinfo=UTC)
        except ValueError:
            raise LogError(f"{path}, line {number}: {line.strip()[:40]!r} is no time") from None
        times.append((time - _EPOCH) // timedelta(microseconds=1))
    return times


def _cloud(message: RawMessage) -> RecordedCloud:
    """A sweep: x y z and reflectance (0 to 1) of each point, as float32 or in words."""
    try:
        if message.type == TEXT_SWEEP and message.data.strip():
            points = np.loadtxt(BytesIO(message.data), np.float32, comments=None, ndmin=2).reshape(-1, 4)
        else:
            points = np.frombuffer(message.data, "<f4").reshape(-1, 4)
    except ValueError:
        raise MessageError("sweep that is not made of four numbers a point: cut off or damaged") from None
    finite = np.isfinite(points).all(axis=1)
    return RecordedCloud("velodyne", message.time_us, points[finite], None, int(len(points) - finite.sum()))
