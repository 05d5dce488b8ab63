"""Foxglove's messages, written by its own library, in our terms."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import foxglove
import numpy as np
import pytest
from foxglove import channels, messages

from sim.logs.mcap_source import NOT_TURNED, _foxglove
from sim.logs.reader import open_log
from sim.logs.recorded import MessageError, RawMessage
from sim.step import Step

SECOND_NS = 1_000_000_000
STAMP = messages.Timestamp(sec=1, nsec=0)


def read_back(path: Path, said: list[tuple[Any, str, Any]]) -> Step:
    """The first step of a recording of (class of channel, topic, message)."""
    context = foxglove.Context()
    writer = foxglove.open_mcap(path, context=context)
    for kind, topic, message in said:
        kind(topic, context=context).log(message, log_time=SECOND_NS)
    writer.close()
    with open_log(path) as log:
        return next(log.steps())


@pytest.mark.parametrize("turned", [False, True])
def test_a_cloud_stands_where_its_pose_says(tmp_path: Path, turned: bool) -> None:
    """A pose without an orientation is a translation."""
    half = np.sqrt(0.5)
    place = messages.Pose(
        position=messages.Vector3(x=5.0, y=0.0, z=0.0),
        orientation=messages.Quaternion(x=0.0, y=0.0, z=half, w=half) if turned else None,
    )
    layout = messages.PackedElementFieldNumericType.Float32
    fields = [messages.PackedElementField(name=name, offset=4 * k, type=layout) for k, name in enumerate("xyz")]
    cloud = messages.PointCloud(
        timestamp=STAMP, frame_id="base_link", pose=place, point_stride=12, fields=fields,
        data=np.array([1, 2, 3], np.float32).tobytes(),
    )  # fmt: skip
    step = read_back(tmp_path / "a.mcap", [(channels.PointCloudChannel, "/lidar/points", cloud)])
    (sweep,) = step.frame.lidars.values()
    assert sweep is not None
    np.testing.assert_allclose(sweep.points[0, :3], [3, 1, 3] if turned else [6, 2, 3], atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_a_transform_without_a_rotation_is_a_translation(tmp_path: Path, several: bool) -> None:
    mounting = messages.FrameTransform(
        timestamp=STAMP,
        parent_frame_id="base_link",
        child_frame_id="lidar",
        translation=messages.Vector3(x=1.0, y=0.0, z=2.0),
    )
    layout = messages.PackedElementFieldNumericType.Float32
    fields = [messages.PackedElementField(name=name, offset=4 * k, type=layout) for k, name in enumerate("xyz")]
    cloud = messages.PointCloud(timestamp=STAMP, frame_id="lidar", point_stride=12, fields=fields, data=bytes(12))
    said = (
        (channels.FrameTransformsChannel, "/tf", messages.FrameTransforms(transforms=[mounting]))
        if several
        else (channels.FrameTransformChannel, "/tf", mounting)
    )
    step = read_back(tmp_path / "a.mcap", [said, (channels.PointCloudChannel, "/lidar/points", cloud)])
    (sweep,) = step.frame.lidars.values()
    assert sweep is not None
    assert sweep.ego_from_lidar[:3, 3].tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize(("topic", "rectified"), [("/cam/image_rect", True), ("/direct/image", False)])
def test_rectified_pictures_take_p(tmp_path: Path, topic: str, rectified: bool) -> None:
    folder = topic.rpartition("/")[0]
    calibration = messages.CameraCalibration(
        timestamp=STAMP, frame_id="cam", width=64, height=32, distortion_model="plumb_bob", D=[0.1] * 5,
        K=[50.0, 0, 31.5, 0, 50.0, 15.5, 0, 0, 1], P=[40.0, 0, 30.0, 0, 0, 40.0, 15.0, 0, 0, 0, 1, 0],
    )  # fmt: skip
    data = cv2.imencode(".png", np.zeros((32, 64, 3), np.uint8))[1].tobytes()
    picture = messages.CompressedImage(timestamp=STAMP, frame_id="cam", format="png", data=data)
    step = read_back(
        tmp_path / "a.mcap",
        [
            (channels.CameraCalibrationChannel, f"{folder}/calibration", calibration),
            (channels.CompressedImageChannel, topic, picture),
        ],
    )
    (camera,) = step.frame.cameras.values()
    assert camera is not None
    assert camera.calibration.distortion_model == ("none" if rectified else "brown_conrady")
    assert camera.calibration.intrinsics[0, 0] == (40.0 if rectified else 50.0)


def test_a_stamp_beyond_the_schema_is_skipped() -> None:
    """Seconds have 64 bits there, and microseconds have here."""
    decoded = SimpleNamespace(
        timestamp=SimpleNamespace(seconds=2**60, nanos=0), body_frame_id="base_link",
        pose=SimpleNamespace(
            position=SimpleNamespace(x=0.0, y=0.0, z=0.0), orientation=NOT_TURNED, HasField=lambda _: True
        ),
        linear_velocity=SimpleNamespace(x=0.0), angular_velocity=SimpleNamespace(z=0.0),
    )  # fmt: skip
    with pytest.raises(MessageError, match="is no time"):
        _foxglove(decoded, RawMessage("/odom", "foxglove.Odometry", 0, b""))


@pytest.mark.parametrize("known", [False, True])
def test_fixes_are_read(tmp_path: Path, known: bool) -> None:
    kinds = messages.LocationFixPositionCovarianceType
    fix = messages.LocationFix(
        timestamp=messages.Timestamp(sec=0, nsec=990_000_000), frame_id="gnss", latitude=48.0, longitude=11.0, altitude=500.0,
        position_covariance=[1.0, 0, 0, 0, 1.0, 0, 0, 0, 4.0],
        position_covariance_type=kinds.DiagonalKnown if known else kinds.Unknown,
    )  # fmt: skip
    layout = messages.PackedElementFieldNumericType.Float32
    fields = [messages.PackedElementField(name=name, offset=4 * k, type=layout) for k, name in enumerate("xyz")]
    cloud = messages.PointCloud(timestamp=STAMP, frame_id="base_link", point_stride=12, fields=fields, data=bytes(12))
    said = [(channels.LocationFixChannel, "/fix", fix), (channels.PointCloudChannel, "/lidar/points", cloud)]
    found = read_back(tmp_path / "a.mcap", said).frame.gnss
    assert found is not None
    assert (found.timestamp_us, found.latitude_deg, found.longitude_deg, found.altitude_m) == (
        990_000,
        48.0,
        11.0,
        500.0,
    )
    np.testing.assert_equal((found.horizontal_m, found.vertical_m), (1.0, 2.0) if known else (np.nan, np.nan))
