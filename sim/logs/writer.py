"""Records an episode as MCAP with Foxglove schemas, so that Foxglove and Rerun open it as it is.

Knows steps; knows nothing about how they came about. The format is docs/log-format.md, its reader own_log.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import foxglove
import numpy as np
from foxglove import channels, messages
from foxglove.mcap import MCAPCompression, MCAPWriteOptions
from numpy.typing import NDArray

from perception.geometry import quaternion_from_rotation
from perception.sensors import CameraCalibration, CameraFrame, EgoState, GnssFix, LidarSweep, SensorFrame
from sim.logs.log import LogError, LogHeader
from sim.step import Actors, Standing, Step

CHUNK_BYTES = 1 << 20
JPEG_QUALITY = 90
ROAD_NETWORK_NAME = "road_network.net.xml"
SCENE_NAME = "recorded_scene.json.gz"
ACTORS_ENTITY = "actors"
MAP_COLOR = messages.Color(r=0.6, g=0.6, b=0.6, a=1.0)
ACTOR_COLOR = messages.Color(r=0.2, g=0.5, b=0.9, a=0.7)

_FIELD_TYPES = messages.PackedElementFieldNumericType
POINT_FIELDS = [
    messages.PackedElementField(name=name, offset=4 * index, type=_FIELD_TYPES.Float32)
    for index, name in enumerate(("x", "y", "z", "intensity"))
]
TIMED_POINT_FIELDS = [
    *POINT_FIELDS,
    messages.PackedElementField(name="time_offset_us", offset=16, type=_FIELD_TYPES.Int32),
]


class LogWriter:
    """A `StepObserver` that writes each step at once; after a kill everything up to the last whole chunk reads back.

    Args:
        path: file to write; must not exist.
        header: of the episode; its `image_format` decides how pictures are stored.
        net_xml: bytes of the map's SUMO network, attached so that the log is self-contained.
        scene: packed bytes of the recorded scene that was played (`sim.playback.scene_bytes`), attached in its place.
        map_lines: polylines (K, 2) in metres, world frame, drawn once.

    Raises:
        LogError: the file exists or cannot be created.
    """

    def __init__(
        self,
        path: Path,
        header: LogHeader,
        *,
        net_xml: bytes | None = None,
        scene: bytes | None = None,
        map_lines: Sequence[NDArray[np.floating]] = (),
    ) -> None:
        self.path = path
        self._image_format = header.image_format
        self._context = foxglove.Context()
        self._channels: dict[str, Any] = {}
        self._rig: dict[str, Any] = {"revision": 0, "cameras": {}, "lidars": {}}
        self._rig_key: list[tuple[str, object]] = []
        self._map_lines: Sequence[NDArray[np.floating]] = map_lines
        options = MCAPWriteOptions(
            compression=MCAPCompression.Zstd,
            compression_level=1,
            compression_threads=0,
            chunk_size=CHUNK_BYTES,
            profile="automedon",
        )
        try:
            self._writer = foxglove.open_mcap(path, context=self._context, writer_options=options)
        except FileExistsError:
            raise LogError(f"{path} exists already: choose another name or remove it") from None
        except OSError as error:
            raise LogError(f"{path} cannot be written: {error}") from None
        self._closed = False
        self._writer.write_metadata("automedon", header.as_metadata())
        if net_xml is not None:
            self._writer.attach(
                log_time=0, create_time=0, name=ROAD_NETWORK_NAME, media_type="application/xml", data=net_xml
            )
        if scene is not None:
            self._writer.attach(log_time=0, create_time=0, name=SCENE_NAME, media_type="application/gzip", data=scene)

    def on_step(self, step: Step) -> None:
        """Write one step.

        Raises:
            ValueError: a number in it is not finite, or the writer is closed.
        """
        if self._closed:
            raise ValueError(f"{self.path} is closed")
        time_ns = step.timestamp_us * 1000
        frame = step.frame
        if self._map_lines:
            self._log(channels.SceneUpdateChannel, "/map", _map_scene(self._map_lines, time_ns), time_ns)
            self._map_lines = ()
        self._write_rig(frame, time_ns)
        digests = {}
        for name, camera in frame.cameras.items():
            if camera is not None:
                self._log(channels.CompressedImageChannel, f"/camera/{name}/image", self._image(name, camera), time_ns)
                if self._image_format == "jpeg":
                    digests[name] = hashlib.sha256(camera.image.tobytes()).hexdigest()
        for name, sweep in frame.lidars.items():
            if sweep is not None:
                self._log(channels.PointCloudChannel, f"/lidar/{name}/points", _point_cloud(name, sweep), time_ns)
        if frame.gnss is not None:
            self._log(channels.LocationFixChannel, "/gnss/fix", _location_fix(frame.gnss), time_ns)
        self._log(channels.FrameTransformsChannel, "/tf", _transforms(frame, time_ns), time_ns)
        if step.actors is not None:
            self._log(channels.SceneUpdateChannel, "/actors", _actor_scene(step.actors, time_ns), time_ns)
        parts = _json_parts(step)
        for topic, part in parts.items():
            self._log_json(topic, part, time_ns)
        complete: dict[str, Any] = {
            "tick": step.tick,
            "timestamp_us": step.timestamp_us,
            "frame_timestamp_us": frame.timestamp_us,
            "rig": self._rig["revision"],
            "cameras": {name: c and c.timestamp_us for name, c in frame.cameras.items()},
            "lidars": {name: s and s.timestamp_us for name, s in frame.lidars.items()},
            "topics": [*parts, *(["/actors"] if step.actors is not None else [])],
            "progress_m": None if step.progress_m is None else float(step.progress_m),
            "route_length_m": None if step.route_length_m is None else float(step.route_length_m),
        }
        if digests:
            complete["image_sha256"] = digests
        self._log_json("/frame", complete, time_ns)

    def close(self) -> None:
        """End the file; harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            for channel in self._channels.values():
                channel.close()
                # The SDK keeps JSON channels in a table of the process for ever; thousands of episodes would pile up.
                foxglove.channel._channels_by_id.pop(channel.id(), None)

    def _log(self, kind: Any, topic: str, message: Any, time_ns: int) -> None:
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = kind(topic, context=self._context)
        channel.log(message, log_time=time_ns)

    def _log_json(self, topic: str, message: Mapping[str, Any], time_ns: int) -> None:
        channel = self._channels.get(topic)
        if channel is None:
            schema = {"type": "object", "title": f"automedon{topic.replace('/', '.')}"}
            channel = self._channels[topic] = foxglove.Channel(topic, schema=schema, context=self._context)
        try:
            text = json.dumps(message, allow_nan=False, separators=(",", ":"))
        except ValueError as error:
            raise ValueError(f"{topic} at {time_ns} ns cannot be logged: {error}") from None
        channel.log(text.encode(), log_time=time_ns)

    def _write_rig(self, frame: SensorFrame, time_ns: int) -> None:
        """Write calibrations and mounting poses when they differ from those written last."""
        key: list[tuple[str, object]] = []
        key += [(name, camera and camera.calibration) for name, camera in frame.cameras.items()]
        key += [(name, sweep and sweep.ego_from_lidar) for name, sweep in frame.lidars.items()]
        known = len(key) == len(self._rig_key)
        if known and all(a[0] == b[0] and a[1] is b[1] for a, b in zip(key, self._rig_key, strict=True)):
            return
        self._rig_key = key
        rig = {**self._rig, "cameras": {**self._rig["cameras"]}, "lidars": {**self._rig["lidars"]}}
        for name, camera in frame.cameras.items():
            if camera is not None:
                rig["cameras"][name] = _calibration_as_json(camera.calibration)
        for name, sweep in frame.lidars.items():
            if sweep is not None:
                rig["lidars"][name] = {"ego_from_lidar": sweep.ego_from_lidar.ravel().tolist()}
        if rig == self._rig and rig["revision"] > 0:
            return
        rig["revision"] += 1
        self._rig = rig
        self._log_json("/rig", rig, time_ns)
        for name, camera in frame.cameras.items():
            if camera is not None:
                message = _calibration(name, camera)
                self._log(channels.CameraCalibrationChannel, f"/camera/{name}/calibration", message, time_ns)

    def _image(self, name: str, camera: CameraFrame) -> messages.CompressedImage:
        bgr = cv2.cvtColor(camera.image, cv2.COLOR_RGB2BGR)
        if self._image_format == "png":
            _, data = cv2.imencode(".png", bgr)
        else:
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return messages.CompressedImage(
            timestamp=_stamp(camera.timestamp_us * 1000),
            frame_id=f"camera/{name}",
            data=data.tobytes(),
            format=self._image_format,
        )


def _stamp(time_ns: int) -> messages.Timestamp:
    """For viewers: times before zero, which the schema does not have, become zero (`/frame` holds the exact ones)."""
    time_ns = max(0, time_ns)
    return messages.Timestamp(sec=time_ns // 1_000_000_000, nsec=time_ns % 1_000_000_000)


def _json_parts(step: Step) -> dict[str, dict[str, Any]]:
    """Our own messages of one step; what is unknown is left out."""
    frame = step.frame
    parts: dict[str, dict[str, Any]] = {}
    if frame.ego is not None:
        parts["/ego/state"] = _ego_as_json(frame.ego)
    if frame.route_in_ego is not None:
        parts["/route"] = {"points_in_ego": frame.route_in_ego.tolist()}
    if frame.gnss is not None:
        parts["/gnss"] = _gnss_as_json(frame.gnss)
    if frame.imu is not None:
        parts["/imu"] = {
            "timestamp_us": frame.imu.timestamp_us.tolist(),
            "acceleration_mps2": frame.imu.acceleration_mps2.tolist(),
            "angular_rate_radps": frame.imu.angular_rate_radps.tolist(),
        }
    if step.action is not None:
        parts["/action"] = {"steer": float(step.action.steer), "throttle": float(step.action.throttle)}
    terms = {name: float(value) for name, value in step.reward_terms.items()}
    parts["/reward"] = {"reward": float(step.reward), "terms": terms}
    if step.events:
        parts["/events"] = {"events": dict(step.events)}
    if step.signals is not None:
        parts["/signals"] = {"states": step.signals.tolist()}
    if step.standing is not None:
        parts["/standing"] = _standing_as_json(step.standing)
    return parts


def _standing_as_json(standing: Standing) -> dict[str, Any]:
    """All but what is unknown since the log that it was read from is of an older version."""
    values = asdict(standing) | {"parked": None if standing.parked is None else [list(v) for v in standing.parked]}
    if standing.signal is None:
        del values["signal"], values["signal_distance_m"]
    if standing.parked is None:
        del values["parked"]
    return values


def _ego_as_json(ego: EgoState) -> dict[str, Any]:
    return {
        "timestamp_us": ego.timestamp_us,
        "speed_mps": float(ego.speed_mps),
        "acceleration_mps2": float(ego.acceleration_mps2),
        "yaw_rate_radps": float(ego.yaw_rate_radps),
        "last_steer": float(ego.last_steer),
        "last_throttle": float(ego.last_throttle),
        "world_from_ego": None if ego.world_from_ego is None else ego.world_from_ego.ravel().tolist(),
    }


def _gnss_as_json(fix: GnssFix) -> dict[str, Any]:
    return {
        "timestamp_us": fix.timestamp_us,
        "latitude_deg": fix.latitude_deg,
        "longitude_deg": fix.longitude_deg,
        "altitude_m": fix.altitude_m,
        "velocity_mps": fix.velocity_mps.tolist(),
        "horizontal_m": fix.horizontal_m,
        "vertical_m": fix.vertical_m,
    }


def _location_fix(fix: GnssFix) -> messages.LocationFix:
    across, up = fix.horizontal_m**2, fix.vertical_m**2
    return messages.LocationFix(
        timestamp=_stamp(fix.timestamp_us * 1000),
        frame_id="gnss",
        latitude=fix.latitude_deg,
        longitude=fix.longitude_deg,
        altitude=fix.altitude_m,
        position_covariance=[across, 0.0, 0.0, 0.0, across, 0.0, 0.0, 0.0, up],
        position_covariance_type=messages.LocationFixPositionCovarianceType.DiagonalKnown,
    )


def _calibration_as_json(calibration: CameraCalibration) -> dict[str, Any]:
    return {
        "width_px": calibration.width_px,
        "height_px": calibration.height_px,
        "intrinsics": calibration.intrinsics.ravel().tolist(),
        "distortion_model": calibration.distortion_model,
        "distortion": calibration.distortion.tolist(),
        "ego_from_camera": calibration.ego_from_camera.ravel().tolist(),
    }


def _calibration(name: str, camera: CameraFrame) -> messages.CameraCalibration:
    calibration = camera.calibration
    k = calibration.intrinsics
    match calibration.distortion_model:
        case "none":
            model = ""
        case "brown_conrady":
            model = "plumb_bob" if len(calibration.distortion) <= 5 else "rational_polynomial"
        case "kannala_brandt":
            model = "kannala_brandt"
    return messages.CameraCalibration(
        timestamp=_stamp(camera.timestamp_us * 1000),
        frame_id=f"camera/{name}",
        width=calibration.width_px,
        height=calibration.height_px,
        distortion_model=model,
        D=calibration.distortion.tolist(),
        K=k.ravel().tolist(),
        R=np.eye(3).ravel().tolist(),
        P=np.hstack([k, np.zeros((3, 1))]).ravel().tolist(),
    )


def _point_cloud(name: str, sweep: LidarSweep) -> messages.PointCloud:
    if sweep.time_offset_us is None:
        fields, stride, data = POINT_FIELDS, 16, sweep.points.tobytes()
    else:
        packed = np.empty(len(sweep.points), [("xyzi", "<f4", 4), ("time", "<i4")])
        packed["xyzi"], packed["time"] = sweep.points, sweep.time_offset_us
        fields, stride, data = TIMED_POINT_FIELDS, 20, packed.tobytes()
    return messages.PointCloud(
        timestamp=_stamp(sweep.timestamp_us * 1000),
        frame_id=f"lidar/{name}",
        pose=messages.Pose(position=messages.Vector3(), orientation=messages.Quaternion(w=1.0)),
        point_stride=stride,
        fields=fields,
        data=data,
    )


def _frame_transform(
    time_ns: int, parent: str, child: str, parent_from_child: NDArray[np.float64]
) -> messages.FrameTransform:
    x, y, z, w = quaternion_from_rotation(parent_from_child[:3, :3]).tolist()
    tx, ty, tz = parent_from_child[:3, 3].tolist()
    return messages.FrameTransform(
        timestamp=_stamp(time_ns),
        parent_frame_id=parent,
        child_frame_id=child,
        translation=messages.Vector3(x=tx, y=ty, z=tz),
        rotation=messages.Quaternion(x=x, y=y, z=z, w=w),
    )


def _transforms(frame: SensorFrame, time_ns: int) -> messages.FrameTransforms:
    transforms = []
    if frame.ego is not None and frame.ego.world_from_ego is not None:
        transforms.append(_frame_transform(time_ns, "world", "ego", frame.ego.world_from_ego))
    for name, camera in frame.cameras.items():
        if camera is not None:
            transforms.append(_frame_transform(time_ns, "ego", f"camera/{name}", camera.calibration.ego_from_camera))
    for name, sweep in frame.lidars.items():
        if sweep is not None:
            transforms.append(_frame_transform(time_ns, "ego", f"lidar/{name}", sweep.ego_from_lidar))
    return messages.FrameTransforms(transforms=transforms)


def _actor_scene(actors: Actors, time_ns: int) -> messages.SceneUpdate:
    """All actors as the cubes of one entity; what a cube does not hold exactly stands in its metadata as JSON lists."""
    half_yaw = actors.yaw_rad / 2
    rows = zip(
        actors.center.tolist(),
        actors.size.tolist(),
        np.sin(half_yaw).tolist(),
        np.cos(half_yaw).tolist(),
        strict=True,
    )
    cubes = [
        messages.CubePrimitive(
            pose=messages.Pose(
                position=messages.Vector3(x=center[0], y=center[1], z=center[2]),
                orientation=messages.Quaternion(z=sin, w=cos),
            ),
            size=messages.Vector3(x=size[0], y=size[1], z=size[2]),
            color=ACTOR_COLOR,
        )
        for center, size, sin, cos in rows
    ]
    exact = {name: getattr(actors, name).tolist() for name in ("instance", "kind", "yaw_rad", "speed_mps")}
    pairs = [messages.KeyValuePair(key=key, value=json.dumps(value)) for key, value in exact.items()]
    entity = messages.SceneEntity(
        timestamp=_stamp(time_ns), frame_id="world", id=ACTORS_ENTITY, cubes=cubes, metadata=pairs
    )
    return messages.SceneUpdate(entities=[entity])


def _map_scene(lines: Sequence[NDArray[np.floating]], time_ns: int) -> messages.SceneUpdate:
    primitives = [
        messages.LinePrimitive(
            points=[messages.Point3(x=float(x), y=float(y), z=0.0) for x, y in line],
            thickness=0.1,
            color=MAP_COLOR,
            pose=messages.Pose(position=messages.Vector3(), orientation=messages.Quaternion(w=1.0)),
        )
        for line in lines
    ]
    entity = messages.SceneEntity(timestamp=_stamp(time_ns), frame_id="world", id="map", lines=primitives)
    return messages.SceneUpdate(entities=[entity])
