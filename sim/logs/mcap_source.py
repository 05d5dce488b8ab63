"""Other people's MCAP files: ROS 1, ROS 2 and Foxglove schemas in one container.

Knows Foxglove's protobuf messages and hands ROS's to ros.py; knows nothing about how frames are put together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from mcap.records import Channel, Schema
from mcap_protobuf.decoder import DecoderFactory
from numpy.typing import NDArray

from perception.geometry import transform
from sim.logs.log import TopicInfo
from sim.logs.mcap_file import McapFile
from sim.logs.navigation_messages import recorded_fix
from sim.logs.pictures import PictureError, decode_picture
from sim.logs.point_cloud import cloud_of_fields
from sim.logs.recorded import (
    MessageError,
    RawMessage,
    Recorded,
    RecordedCloud,
    RecordedOdometry,
    RecordedPicture,
    RecordedTransform,
    RecordedTransforms,
    Role,
)
from sim.logs.ros import decode_ros, pose_matrix, raw_pixels, recorded_calibration, recorded_transforms, role_of_type

FOXGLOVE_ROLES: Mapping[str, Role] = {
    "foxglove.CompressedImage": "camera",
    "foxglove.RawImage": "camera",
    "foxglove.CameraCalibration": "calibration",
    "foxglove.PointCloud": "lidar",
    "foxglove.FrameTransform": "transforms",
    "foxglove.FrameTransforms": "transforms",
    "foxglove.Odometry": "odometry",
    "foxglove.LocationFix": "gnss",
}
# foxglove.PackedElementField.NumericType
POINT_FORMATS = {1: "u1", 2: "i1", 3: "<u2", 4: "<i2", 5: "<u4", 6: "<i4", 7: "<f4", 8: "<f8"}

LATEST_S = 253_402_300_799  # of google.protobuf.Timestamp, the end of the year 9999
NOT_TURNED = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)


class McapSource:
    """A `MessageSource` over an open MCAP file, or over the files of one ROS 2 bag.

    packed_messages: each message in them is compressed by itself (zstd).
    """

    def __init__(self, *files: McapFile, packed_messages: bool = False) -> None:
        self._files = sorted(files, key=lambda file: file.span_us)
        self._packed_messages = packed_messages
        self._protobuf = DecoderFactory()
        self._channel_of_topic: dict[str, Channel] = {}
        self._schema_of_topic: dict[str, Schema | None] = {}
        topics: dict[str, TopicInfo] = {}
        found = [(channel, file) for file in self._files for channel in file.channels.values()]
        for channel, file in sorted(found, key=lambda pair: pair[0].topic):
            self._channel_of_topic[channel.topic] = channel
            self._schema_of_topic[channel.topic] = file.schemas.get(channel.schema_id)
            before = topics[channel.topic].messages if channel.topic in topics else 0
            topics[channel.topic] = TopicInfo(_type_name(file, channel), before + file.counts[channel.id])
        self.topics: Mapping[str, TopicInfo] = topics
        encodings = {channel.message_encoding for channel, _ in found}
        flavour = "ROS 2" if "cdr" in encodings else "ROS 1" if "ros1" in encodings else "Foxglove"
        self.kind = f"{flavour} MCAP" if encodings & {"cdr", "ros1", "protobuf"} else "MCAP"
        if not all(file.complete for file in files):
            self.kind += ", cut off"
        spans = [file.span_us for file in files if file.span_us != (0, 0)] or [(0, 0)]
        self.span_us = min(start for start, _ in spans), max(end for _, end in spans)

    def role(self, topic: str) -> Role | None:
        match self._channel_of_topic[topic].message_encoding:
            case "cdr" | "ros1":
                return role_of_type(self.topics[topic].type)
            case "protobuf":
                return FOXGLOVE_ROLES.get(self.topics[topic].type)
            case _:
                return None

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        for file in self._files:
            wanted = {channel.id for channel in file.channels.values() if channel.topic in topics}
            for message in file.messages(wanted):
                topic = message.channel.topic
                yield RawMessage(topic, self.topics[topic].type, message.time_ns // 1000, message.data)

    def decode(self, message: RawMessage) -> Recorded:
        channel = self._channel_of_topic[message.topic]
        match channel.message_encoding:
            case "cdr":
                return decode_ros(message, ros1=False, packed=self._packed_messages)
            case "ros1":
                return decode_ros(message, ros1=True)
        try:
            schema = self._schema_of_topic[message.topic]
            decoder = self._protobuf.decoder_for(channel.message_encoding, schema)
            if decoder is None:
                raise MessageError(f"encoding {channel.message_encoding!r} is not decoded")
            return _foxglove(decoder(message.data), message)
        except MessageError:
            raise
        except Exception as error:  # damaged bytes or a schema that only has the name break protobuf in many ways
            raise MessageError(f"does not decode as {message.type} ({type(error).__name__}: {error})") from None

    def close(self) -> None:
        for file in self._files:
            file.close()


def _type_name(file: McapFile, channel: Channel) -> str:
    """Schema name; ROS 1 names such as sensor_msgs/Image become sensor_msgs/msg/Image."""
    name = file.schema_name(channel)
    if channel.message_encoding == "ros1" and name.count("/") == 1:
        return name.replace("/", "/msg/")
    return name


def _stamp_us(stamp: Any, message: RawMessage) -> int:
    if stamp.seconds > LATEST_S:
        raise MessageError(f"its stamp of {stamp.seconds} s is no time")
    time_us = int(stamp.seconds) * 1_000_000 + int(stamp.nanos) // 1000
    return time_us if time_us > 0 else message.time_us


def _foxglove(decoded: Any, message: RawMessage) -> Recorded:
    match message.type:
        case "foxglove.CompressedImage":
            return _compressed_image(decoded, message)
        case "foxglove.RawImage":
            return _raw_image(decoded, message)
        case "foxglove.CameraCalibration":
            k, distortion = np.array(decoded.K, np.float64).reshape(3, 3), np.array(decoded.D, np.float64)
            rectified = np.array(decoded.P, np.float64).reshape(3, 4)[:, :3] if decoded.P else None
            return recorded_calibration(
                decoded.frame_id, decoded.width, decoded.height, k, decoded.distortion_model, distortion, rectified
            )
        case "foxglove.PointCloud":
            fields = {f.name: (f.offset, POINT_FORMATS[f.type]) for f in decoded.fields if f.type in POINT_FORMATS}
            data = np.frombuffer(decoded.data, np.uint8)
            count = len(data) // max(1, decoded.point_stride)
            stamp_us = _stamp_us(decoded.timestamp, message)
            cloud = cloud_of_fields(decoded.frame_id, stamp_us, data, fields, decoded.point_stride, count)
            return _posed(cloud, decoded)
        case "foxglove.FrameTransform":
            return RecordedTransforms((_frame_transform(decoded, message),))
        case "foxglove.FrameTransforms":
            return recorded_transforms(decoded.transforms, lambda t: _frame_transform(t, message))
        case "foxglove.Odometry":
            pose = pose_matrix(decoded.pose.position, _turn(decoded.pose, "orientation"))
            stamp_us = _stamp_us(decoded.timestamp, message)
            speed_mps, yaw_rate = float(decoded.linear_velocity.x), float(decoded.angular_velocity.z)
            return RecordedOdometry(decoded.body_frame_id, stamp_us, pose, speed_mps, yaw_rate)
        case "foxglove.LocationFix":
            known = decoded.position_covariance_type != 0 and len(decoded.position_covariance) == 9
            covariance = np.array(decoded.position_covariance, np.float64) if known else None
            place = float(decoded.latitude), float(decoded.longitude), float(decoded.altitude)
            return recorded_fix(_stamp_us(decoded.timestamp, message), *place, covariance)
        case _:
            raise MessageError(f"messages of type {message.type} are not decoded")


def _turn(pose: Any, field: str) -> Any:
    """The quaternion in a field of a message; where it is not set the pose is a translation, not one with zeros for a rotation."""
    return getattr(pose, field) if pose.HasField(field) else NOT_TURNED


def _posed(cloud: RecordedCloud, decoded: Any) -> RecordedCloud:
    """Foxglove clouds may stand anywhere in their frame; the points brought to it."""
    if not decoded.HasField("pose"):
        return cloud
    frame_from_cloud = pose_matrix(decoded.pose.position, _turn(decoded.pose, "orientation"))
    if (frame_from_cloud == np.eye(4)).all():
        return cloud
    points = cloud.points.copy()
    points[:, :3] = transform(frame_from_cloud, points[:, :3])
    return replace(cloud, points=points)


def _compressed_image(decoded: Any, message: RawMessage) -> RecordedPicture:
    data = decoded.data

    def pixels(width_px: int, height_px: int) -> NDArray[np.uint8]:
        try:
            return decode_picture(data, width_px, height_px)
        except PictureError as error:
            raise MessageError(str(error)) from None

    return RecordedPicture(decoded.frame_id, _stamp_us(decoded.timestamp, message), pixels)


def _raw_image(decoded: Any, message: RawMessage) -> RecordedPicture:
    data = np.frombuffer(decoded.data, np.uint8)
    encoding, width, height, step = decoded.encoding, decoded.width, decoded.height, decoded.step

    def pixels(width_px: int, height_px: int) -> NDArray[np.uint8]:
        return raw_pixels(data, encoding, width, height, step, (width_px, height_px))

    return RecordedPicture(decoded.frame_id, _stamp_us(decoded.timestamp, message), pixels)


def _frame_transform(decoded: Any, message: RawMessage) -> RecordedTransform:
    pose = pose_matrix(decoded.translation, _turn(decoded, "rotation"))
    return RecordedTransform(
        decoded.parent_frame_id, decoded.child_frame_id, _stamp_us(decoded.timestamp, message), pose
    )
