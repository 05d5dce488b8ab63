"""ROS 1 and ROS 2 recordings: bags, databases, and ROS messages in MCAP files.

Knows ROS; knows nothing about how frames are put together. Message definitions inside a recording are never compiled
(rosbags would turn them into Python code): only standard types are decoded, by definitions that rosbags ships.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from io import SEEK_CUR, BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags import rosbag1, rosbag2
from rosbags.rosbag1.reader import Chunk, Header, RecordType, read_uint32
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from perception.geometry import rotation_from_quaternion, se3
from perception.sensors import DistortionModel, require_coefficients
from sim.logs.log import LogError, LogSummary, TopicInfo
from sim.logs.navigation_messages import imu_sample, nav_sat_fix
from sim.logs.pictures import MAX_PIXELS, PictureError, decode_picture
from sim.logs.point_cloud import cloud_of_fields
from sim.logs.recorded import (
    FURTHEST_M,
    MessageError,
    RawMessage,
    Recorded,
    RecordedCalibration,
    RecordedCloud,
    RecordedOdometry,
    RecordedPicture,
    RecordedTransform,
    RecordedTransforms,
    Role,
)
from sim.logs.unpack import unpacked, unpacked_zstd

ROS1_MAGIC = b"#ROSBAG V"
SQLITE_MAGIC = b"SQLite format 3\x00"

ROLES: Mapping[str, Role] = {
    "sensor_msgs/msg/PointCloud2": "lidar",
    "sensor_msgs/msg/CompressedImage": "camera",
    "sensor_msgs/msg/Image": "camera",
    "sensor_msgs/msg/CameraInfo": "calibration",
    "tf2_msgs/msg/TFMessage": "transforms",
    "nav_msgs/msg/Odometry": "odometry",
    "sensor_msgs/msg/NavSatFix": "gnss",
    "sensor_msgs/msg/Imu": "imu",
}
SAME_LAYOUT = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
POINT_FORMATS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 8: "<f8"}

# Bayer patterns: ROS names the first two pixels of the first row and second row, OpenCV those from (1, 1) on.
TO_RGB: Mapping[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
}


@cache
def _typestore(ros1: bool) -> Typestore:
    if not ros1:
        return get_typestore(Stores.ROS2_HUMBLE)
    store = get_typestore(Stores.ROS1_NOETIC)  # lacks the tf packages
    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
    return store


def role_of_type(type_name: str) -> Role | None:
    """What messages of a ROS type are for; None where they are of no use here."""
    return ROLES.get(SAME_LAYOUT.get(type_name, type_name))


class _Ros1Reader(rosbag1.Reader):
    """The library's reader of ROS 1 bags, with a limit to what a chunk unpacks to."""

    def read_chunk(self) -> Chunk:
        assert self.bio is not None
        header = Header.read(self.bio, RecordType.CHUNK)
        compression, size = header.get_string("compression"), header.get_uint32("size")
        packed_size = read_uint32(self.bio)
        position = self.bio.tell()
        self.bio.seek(packed_size, SEEK_CUR)
        return Chunk(packed_size, position, lambda packed: unpacked(packed, compression, size))


class _DatabaseReader(Sqlite3Reader):
    """The library's reader of databases, for any path: it puts the path into a URI as it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(Path(quote(bytes(path))))


class RosBag:
    """A ROS 1 bag, or the databases of a ROS 2 bag: a `MessageSource`.

    Args:
        databases: of a ROS 2 bag; without any, `path` is a ROS 1 bag.
        packed_messages: each message in the databases is compressed by itself (zstd).

    Raises:
        LogError: it cannot be opened.
    """

    def __init__(
        self, path: Path, summary: LogSummary, databases: Sequence[Path] = (), packed_messages: bool = False
    ) -> None:
        self.path = path
        self._summary = summary
        self._ros1 = not databases
        self._packed_messages = packed_messages
        self.kind = "ROS 1 bag" if self._ros1 else "ROS 2 bag"
        self._readers: list[tuple[Path, Any]] = []
        files = databases or (path,)
        try:
            for file in files:
                journal = file.with_name(f"{file.name}-wal")
                if not self._ros1 and journal.is_file() and journal.stat().st_size > 0:
                    summary.warn(
                        f"{file}: what its recorder wrote last stands in {journal.name} beside it, which is not read; "
                        f"`sqlite3 {file.name} 'PRAGMA wal_checkpoint'` brings it in"
                    )
                reader: Any = _Ros1Reader(file) if self._ros1 else _DatabaseReader(file)
                try:
                    reader.open()
                except Exception as error:  # as below
                    if file == files[-1] and not self._readers:
                        raise
                    summary.warn(f"{file}: left out, as it is no readable database ({_first_line(error)})")
                    continue
                self._readers.append((file, reader))
            counts: dict[str, TopicInfo] = {}
            connections = [connection for _, reader in self._readers for connection in reader.connections]
            for c in sorted(connections, key=lambda connection: connection.topic):
                before = counts[c.topic].messages if c.topic in counts else 0
                counts[c.topic] = TopicInfo(c.msgtype, before + c.msgcount)
            self.topics: Mapping[str, TopicInfo] = counts
            facts = [reader if self._ros1 else reader.metadata for _, reader in self._readers]
            self._readers = [self._readers[k] for k in np.argsort([fact.start_time for fact in facts], kind="stable")]
            full = [fact for fact in facts if fact.message_count > 0]
            first, last = min((f.start_time for f in full), default=0), max((f.end_time for f in full), default=1)
            self.span_us = first // 1000, (last - 1) // 1000
        except Exception as error:  # damaged bags break the library's parsers in ways of their own
            self.close()
            advice = "; `rosbag reindex` may repair it" if self._ros1 and path.stat().st_size > 0 else ""
            raise LogError(f"{path} is no readable {self.kind} ({_first_line(error)}){advice}") from None

    def role(self, topic: str) -> Role | None:
        return role_of_type(self.topics[topic].type)

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        for file, reader in self._readers:
            wanted = [c for c in reader.connections if c.topic in topics]
            stream = reader.messages(connections=wanted) if wanted else iter(())
            while True:
                try:
                    connection, time_ns, data = next(stream)
                except StopIteration:
                    break
                except Exception as error:  # as above
                    self._summary.warn(f"{file} is damaged ({_first_line(error)}): the rest of it is left out")
                    if self._ros1:  # the library keeps the chunk before, closed
                        reader.current_chunk = (-1, BytesIO())
                    break
                if not (isinstance(time_ns, int) and isinstance(data, bytes)):  # SQLite's columns hold anything
                    self._summary.skip(connection.topic, "row whose time is no integer or whose data are no bytes")
                    continue
                yield RawMessage(connection.topic, connection.msgtype, time_ns // 1000, data)

    def decode(self, message: RawMessage) -> Recorded:
        return decode_ros(message, ros1=self._ros1, packed=self._packed_messages)

    def close(self) -> None:
        readers, self._readers = self._readers, []
        for _, reader in readers:
            with contextlib.suppress(AssertionError, rosbag1.ReaderError, rosbag2.ReaderError):  # it was not open
                reader.close()


def decode_ros(message: RawMessage, *, ros1: bool, packed: bool = False) -> Recorded:
    """A ROS message in our terms.

    packed: its data are compressed (zstd).

    Raises:
        MessageError: it is damaged, or of a kind that we do not know.
    """
    type_name = SAME_LAYOUT.get(message.type, message.type)
    convert = CONVERTERS.get(type_name)
    if convert is None:
        raise MessageError(f"messages of type {message.type} are not decoded")
    try:
        store = _typestore(ros1)
        data = unpacked_zstd(message.data) if packed else message.data
        decoded = store.deserialize_ros1(data, type_name) if ros1 else store.deserialize_cdr(data, type_name)
        return convert(decoded, message)
    except MessageError:
        raise
    except Exception as error:  # damaged bytes break the deserialiser in ways of its own
        raise MessageError(f"does not decode as {type_name} ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _stamp_us(header: Any, message: RawMessage) -> int:
    """Time of the header; of logging where the header has none."""
    stamp = int(header.stamp.sec) * 1_000_000 + int(header.stamp.nanosec) // 1000
    return stamp if stamp > 0 else message.time_us


def _frame_id(header: Any) -> str:
    """Name of the frame as /tf has it: in the days of ROS 1 names began with a slash, which tf2 has dropped."""
    return str(header.frame_id).lstrip("/")


def _compressed_image(decoded: Any, message: RawMessage) -> RecordedPicture:
    data = bytes(decoded.data)

    def pixels(width_px: int, height_px: int) -> NDArray[np.uint8]:
        try:
            return decode_picture(data, width_px, height_px)
        except PictureError as error:
            raise MessageError(str(error)) from None

    return RecordedPicture(_frame_id(decoded.header), _stamp_us(decoded.header, message), pixels)


def _image(decoded: Any, message: RawMessage) -> RecordedPicture:
    data = np.asarray(decoded.data, np.uint8)
    shape = int(decoded.width), int(decoded.height), int(decoded.step)

    def pixels(width_px: int, height_px: int) -> NDArray[np.uint8]:
        return raw_pixels(data, decoded.encoding, *shape, (width_px, height_px))

    return RecordedPicture(_frame_id(decoded.header), _stamp_us(decoded.header, message), pixels)


def raw_pixels(
    data: NDArray[np.uint8], encoding: str, width: int, height: int, step: int, expected: tuple[int, int]
) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB from uncompressed pixels; `step` bytes from row to row.

    Raises:
        MessageError: unknown encoding, sizes that do not fit, or a size other than expected (width, height).
    """
    if (width, height) != expected:
        raise MessageError(f"picture is {width}x{height}, but its calibration is for {expected[0]}x{expected[1]}")
    if encoding not in TO_RGB:
        raise MessageError(f"encoding {encoding!r} is not one of {', '.join(TO_RGB)}")
    channels, conversion = TO_RGB[encoding]
    if width * height > MAX_PIXELS or step < width * channels or step * height > len(data):
        raise MessageError(f"picture of {width}x{height} with rows of {step} bytes does not fit its {len(data)} bytes")
    rows = data[: step * height].reshape(height, step)[:, : width * channels]
    picture = np.ascontiguousarray(rows).reshape((height, width, channels) if channels > 1 else (height, width))
    return picture if conversion is None else np.asarray(cv2.cvtColor(picture, conversion), np.uint8)


def _point_cloud(decoded: Any, message: RawMessage) -> RecordedCloud:
    fields: dict[str, tuple[int, str]] = {}
    for field in decoded.fields:
        if field.datatype in POINT_FORMATS and field.count <= 1 and field.name:
            layout = POINT_FORMATS[field.datatype]
            fields[field.name] = field.offset, layout.replace("<", ">") if decoded.is_bigendian else layout
    return cloud_of_fields(
        _frame_id(decoded.header),
        _stamp_us(decoded.header, message),
        np.asarray(decoded.data, np.uint8),
        fields,
        int(decoded.point_step),
        int(decoded.width),
        int(decoded.height),
        int(decoded.row_step) or None,
    )


def _camera_info(decoded: Any, message: RawMessage) -> RecordedCalibration:
    # ROS 1 spells the matrices in capitals.
    matrix = {name: getattr(decoded, name, getattr(decoded, name.upper(), None)) for name in "dkp"}
    k, rectified = (
        np.array(matrix["k"], np.float64).reshape(3, 3),
        np.array(matrix["p"], np.float64).reshape(3, 4)[:, :3],
    )
    width, height, region = int(decoded.width), int(decoded.height), decoded.roi
    if region.width and region.height:  # of the whole picture, in its pixels before binning
        width, height = int(region.width), int(region.height)
        for intrinsics in (k, rectified):
            intrinsics[:2, 2] -= region.x_offset, region.y_offset
    return recorded_calibration(
        _frame_id(decoded.header),
        width,
        height,
        k,
        decoded.distortion_model,
        np.asarray(matrix["d"], np.float64),
        rectified,
        binning=(max(1, int(decoded.binning_x)), max(1, int(decoded.binning_y))),
    )


def recorded_calibration(
    frame_id: str,
    width: int,
    height: int,
    k: NDArray[np.float64],
    model: str,
    distortion: NDArray[np.float64],
    rectified: NDArray[np.float64] | None,
    binning: tuple[int, int] = (1, 1),
) -> RecordedCalibration:
    """A calibration from ROS's and Foxglove's names of distortion models.

    Args:
        k, rectified: (3, 3) intrinsics of pictures as they are taken and of rectified ones (K, and the left of P).

    Raises:
        MessageError: uncalibrated (no focal length), an unknown model, or one with another number of coefficients.
    """
    if width < 1 or height < 1 or not _has_focal_length(k):
        raise MessageError("calibration is empty: the camera was not calibrated when it was recorded")
    binned = np.diag([1 / binning[0], 1 / binning[1], 1.0])
    k, width, height = binned @ k, width // binning[0], height // binning[1]
    rectified = binned @ rectified if rectified is not None and _has_focal_length(rectified) else None
    if not distortion.any():
        return RecordedCalibration(frame_id, width, height, k, "none", np.zeros(0), rectified)
    lens: DistortionModel
    match model:
        case "plumb_bob" | "rational_polynomial":
            lens = "brown_conrady"
        case "equidistant" | "fisheye" | "kannala_brandt":
            lens = "kannala_brandt"
        case _:
            known = "plumb_bob, rational_polynomial, equidistant, fisheye, kannala_brandt"
            raise MessageError(f"distortion model {model!r} is not one of {known}")
    try:
        require_coefficients(lens, len(distortion))
    except ValueError as error:
        raise MessageError(f"calibration of {frame_id}: {error}") from None
    return RecordedCalibration(frame_id, width, height, k, lens, distortion, rectified)


def _has_focal_length(k: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(k).all() and k[0, 0] > 0 and k[1, 1] > 0)


def pose_matrix(position: Any, rotation: Any) -> NDArray[np.float64]:
    """(4, 4) from objects with x y z and x y z w; raises MessageError where it is no pose."""
    try:
        turned = rotation_from_quaternion(rotation.x, rotation.y, rotation.z, rotation.w)
    except ValueError as error:
        raise MessageError(str(error)) from None
    matrix = se3(turned, [position.x, position.y, position.z])
    if not (np.abs(matrix) <= FURTHEST_M).all():
        raise MessageError(f"pose is not finite, or over {FURTHEST_M:g} m away")
    return matrix


def recorded_transforms(given: Iterable[Any], convert: Callable[[Any], RecordedTransform]) -> RecordedTransforms:
    """The transforms of one message; of those that are no poses only the number, as they say nothing about the others."""
    kept: list[RecordedTransform] = []
    dropped = 0
    for transform in given:
        try:
            kept.append(convert(transform))
        except MessageError:
            dropped += 1
    return RecordedTransforms(tuple(kept), dropped)


def _transforms(decoded: Any, message: RawMessage) -> RecordedTransforms:
    def convert(t: Any) -> RecordedTransform:
        pose = pose_matrix(t.transform.translation, t.transform.rotation)
        return RecordedTransform(_frame_id(t.header), t.child_frame_id.lstrip("/"), _stamp_us(t.header, message), pose)

    return recorded_transforms(decoded.transforms, convert)


def _odometry(decoded: Any, message: RawMessage) -> RecordedOdometry:
    twist = decoded.twist.twist
    return RecordedOdometry(
        decoded.child_frame_id.lstrip("/"),
        _stamp_us(decoded.header, message),
        pose_matrix(decoded.pose.pose.position, decoded.pose.pose.orientation),
        float(twist.linear.x),
        float(twist.angular.z),
    )


CONVERTERS: Mapping[str, Callable[[Any, RawMessage], Recorded]] = {
    "sensor_msgs/msg/PointCloud2": _point_cloud,
    "sensor_msgs/msg/CompressedImage": _compressed_image,
    "sensor_msgs/msg/Image": _image,
    "sensor_msgs/msg/CameraInfo": _camera_info,
    "tf2_msgs/msg/TFMessage": _transforms,
    "nav_msgs/msg/Odometry": _odometry,
    "sensor_msgs/msg/NavSatFix": lambda decoded, message: nav_sat_fix(decoded, _stamp_us(decoded.header, message)),
    "sensor_msgs/msg/Imu": lambda decoded, message: imu_sample(
        decoded, _frame_id(decoded.header), _stamp_us(decoded.header, message)
    ),
}
