"""Reads the logs that writer.py writes, back to the very same steps.

Knows our format (docs/log-format.md); knows nothing about other people's recordings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mcap_protobuf.decoder import DecoderFactory
from numpy.typing import NDArray

from perception.sensors import CameraCalibration, CameraFrame, EgoState, GnssFix, ImuSamples, LidarSweep, SensorFrame
from planning.action import Action
from sim.logs.log import Log, LogHeader, LogSummary, TopicInfo
from sim.logs.mcap_file import McapFile, McapMessage
from sim.logs.pictures import decode_picture
from sim.step import Actors, ParkedVehicle, Standing, Step

METADATA_NAME = "automedon"
NET_XML_NAME = "road_network.net.xml"
SCENE_NAME = "recorded_scene.json.gz"


def open_own_log(path: Path, file: McapFile, summary: LogSummary) -> Log:
    """A log of ours as a `Log`.

    Raises:
        LogError: its metadata is damaged or of an unknown version.
    """
    header = LogHeader.from_metadata(path, file.metadata[METADATA_NAME])
    topics = {
        channel.topic: TopicInfo(file.schema_name(channel), file.counts[channel.id])
        for channel in sorted(file.channels.values(), key=lambda channel: channel.topic)
    }
    return Log(
        path,
        "Automedon log" if file.complete else "Automedon log, cut off",
        topics,
        file.span_us,
        lambda log: _steps(file, log),
        header=header,
        road_network=file.attachments.get(NET_XML_NAME),
        recorded_scene=file.attachments.get(SCENE_NAME),
        summary=summary,
        close=file.close,
    )


def _steps(file: McapFile, log: Log) -> Iterator[Step]:
    """Gathers the messages of one log time until `/frame` says that their step is whole."""
    decoders = DecoderFactory()
    rig: dict[str, Any] = {"revision": 0, "cameras": {}, "lidars": {}}  # of an episode without sensors
    parts: dict[str, McapMessage] = {}
    gathered_ns: int | None = None
    for message in file.messages():
        if message.time_ns != gathered_ns:
            if parts:
                log.summary.skip(_at(log, gathered_ns or 0), "step left out (its /frame message is missing)")
            parts, gathered_ns = {}, message.time_ns
        match message.channel.topic:
            case "/rig":
                try:
                    rig = _parsed_rig(_json(message))
                except Exception as error:  # as below
                    log.summary.skip("/rig", f"does not decode ({type(error).__name__}: {error})")
            case "/frame":
                try:
                    yield _step(_json(message), parts, rig, decoders, log)
                except KeyError as error:
                    log.summary.skip(_at(log, message.time_ns), f"step left out ({error.args[0]} is missing)")
                except Exception as error:  # whatever a damaged message does to the parsers of JSON and protobuf
                    reason = f"step left out ({type(error).__name__}: {error})"
                    log.summary.skip(_at(log, message.time_ns), reason)
                parts = {}
            case topic:
                parts[topic] = message
    if parts:
        log.summary.warn(f"{log.path}: the last step is not whole and was left out")


def _at(log: Log, time_ns: int) -> str:
    return f"{log.path} at {time_ns / 1e9:.3f} s"


def _step(
    complete: Mapping[str, Any],
    parts: Mapping[str, McapMessage],
    rig: Mapping[str, Any],
    decoders: DecoderFactory,
    log: Log,
) -> Step:
    """The step that `/frame` announces; raises KeyError or ValueError where one of its parts is missing or damaged."""
    tick = int(complete["tick"])
    if complete["rig"] != rig["revision"]:
        raise KeyError(f"/rig of revision {complete['rig']}")
    cameras: dict[str, CameraFrame | None] = {}
    for name, timestamp_us in complete["cameras"].items():
        cameras[name] = None
        if timestamp_us is not None:
            calibration = rig["cameras"][name]
            picture = _protobuf(parts[f"/camera/{name}/image"], decoders)
            image = decode_picture(picture.data, calibration.width_px, calibration.height_px)
            cameras[name] = CameraFrame(image, calibration, int(timestamp_us))
    lidars: dict[str, LidarSweep | None] = {}
    for name, timestamp_us in complete["lidars"].items():
        lidars[name] = None
        if timestamp_us is not None:
            cloud = _protobuf(parts[f"/lidar/{name}/points"], decoders)
            lidars[name] = _sweep(cloud, rig["lidars"][name], int(timestamp_us))
    body = {topic: _json(parts[topic]) for topic in complete["topics"] if topic != "/actors"}
    for name, digest in complete.get("image_sha256", {}).items():
        log.image_sha256[tick, str(name)] = str(digest)
    frame = SensorFrame(
        timestamp_us=int(complete["frame_timestamp_us"]),
        cameras=cameras,
        lidars=lidars,
        ego=_ego(body["/ego/state"]) if "/ego/state" in body else None,
        route_in_ego=np.array(body["/route"]["points_in_ego"], np.float32) if "/route" in body else None,
        gnss=_gnss(body["/gnss"]) if "/gnss" in body else None,
        imu=_imu(body["/imu"]) if "/imu" in body else None,
    )
    action = body.get("/action")
    return Step(
        tick=tick,
        timestamp_us=int(complete["timestamp_us"]),
        frame=frame,
        action=None if action is None else Action(float(action["steer"]), float(action["throttle"])),
        reward=float(body["/reward"]["reward"]),
        reward_terms={str(name): float(value) for name, value in body["/reward"]["terms"].items()},
        events={str(name): str(text) for name, text in body.get("/events", {"events": {}})["events"].items()},
        actors=_actors(_protobuf(parts["/actors"], decoders)) if "/actors" in complete["topics"] else None,
        signals=np.array(body["/signals"]["states"], np.int8) if "/signals" in body else None,
        progress_m=_number(complete["progress_m"]),
        route_length_m=_number(complete["route_length_m"]),
        standing=_standing(body["/standing"]) if "/standing" in body else None,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _json(message: McapMessage) -> dict[str, Any]:
    value = json.loads(message.data)
    if not isinstance(value, dict):
        raise ValueError(f"{message.channel.topic} holds no JSON object")
    return value


def _protobuf(message: McapMessage, decoders: DecoderFactory) -> Any:
    decode = decoders.decoder_for(message.channel.message_encoding, message.schema)
    if decode is None:
        raise ValueError(f"{message.channel.topic} is not protobuf")
    return decode(message.data)


def _matrix(values: list[float]) -> NDArray[np.float64]:
    return np.array(values, np.float64).reshape(4, 4)


def _parsed_rig(rig: Mapping[str, Any]) -> dict[str, Any]:
    cameras = {
        name: CameraCalibration(
            width_px=int(fields["width_px"]),
            height_px=int(fields["height_px"]),
            intrinsics=np.array(fields["intrinsics"], np.float64).reshape(3, 3),
            ego_from_camera=_matrix(fields["ego_from_camera"]),
            distortion_model=fields["distortion_model"],
            distortion=np.array(fields["distortion"], np.float64),
        )
        for name, fields in rig["cameras"].items()
    }
    return {
        "revision": int(rig["revision"]),
        "cameras": cameras,
        "lidars": {name: _matrix(fields["ego_from_lidar"]) for name, fields in rig["lidars"].items()},
    }


def _ego(fields: Mapping[str, Any]) -> EgoState:
    pose = fields["world_from_ego"]
    return EgoState(
        timestamp_us=int(fields["timestamp_us"]),
        speed_mps=float(fields["speed_mps"]),
        acceleration_mps2=float(fields["acceleration_mps2"]),
        yaw_rate_radps=float(fields["yaw_rate_radps"]),
        last_steer=float(fields["last_steer"]),
        last_throttle=float(fields["last_throttle"]),
        world_from_ego=None if pose is None else _matrix(pose),
    )


def _gnss(fields: Mapping[str, Any]) -> GnssFix:
    return GnssFix(
        timestamp_us=int(fields["timestamp_us"]),
        latitude_deg=float(fields["latitude_deg"]),
        longitude_deg=float(fields["longitude_deg"]),
        altitude_m=float(fields["altitude_m"]),
        velocity_mps=np.array(fields["velocity_mps"], np.float64).reshape(3),
        horizontal_m=float(fields["horizontal_m"]),
        vertical_m=float(fields["vertical_m"]),
    )


def _imu(fields: Mapping[str, Any]) -> ImuSamples:
    timestamp_us = np.array(fields["timestamp_us"], np.int64).reshape(-1)
    force, rate = (np.array(fields[name], np.float64) for name in ("acceleration_mps2", "angular_rate_radps"))
    return ImuSamples(timestamp_us, force.reshape(len(timestamp_us), 3), rate.reshape(len(timestamp_us), 3))


def _standing(fields: Mapping[str, Any]) -> Standing:
    return Standing(
        length_m=float(fields["length_m"]),
        width_m=float(fields["width_m"]),
        center_ahead_m=float(fields["center_ahead_m"]),
        lane_offset_m=_number(fields["lane_offset_m"]),
        speed_limit_mps=float(fields["speed_limit_mps"]),
        off_drivable_m=float(fields["off_drivable_m"]),
        in_junction=bool(fields["in_junction"]),
        in_several_lanes=bool(fields["in_several_lanes"]),
        off_lanes=bool(fields["off_lanes"]),
        against_flow=bool(fields["against_flow"]),
        stop_sign=int(fields["stop_sign"]),
        stop_sign_distance_m=_number(fields["stop_sign_distance_m"]),
        signal=int(fields["signal"]) if "signal" in fields else None,
        signal_distance_m=_number(fields.get("signal_distance_m")),
        touched=tuple(int(other) for other in fields["touched"]),
        parked=tuple(_parked(*values) for values in fields["parked"]) if "parked" in fields else None,
    )


def _parked(other: Any, *box: Any) -> ParkedVehicle:
    x_m, y_m, yaw_rad, length_m, width_m = map(float, box)
    return ParkedVehicle(int(other), x_m, y_m, yaw_rad, length_m, width_m)


def _sweep(cloud: Any, ego_from_lidar: NDArray[np.float64], timestamp_us: int) -> LidarSweep:
    match cloud.point_stride:
        case 16:
            points = np.frombuffer(cloud.data, "<f4").reshape(-1, 4).copy()
            return LidarSweep(points, ego_from_lidar, timestamp_us)
        case 20:
            packed = np.frombuffer(cloud.data, [("xyzi", "<f4", 4), ("time", "<i4")])
            return LidarSweep(packed["xyzi"].copy(), ego_from_lidar, timestamp_us, packed["time"].copy())
        case _:
            raise ValueError(f"points are {cloud.point_stride} bytes apart, not 16 or 20")


def _actors(scene: Any) -> Actors:
    (entity,) = scene.entities
    exact = {pair.key: json.loads(pair.value) for pair in entity.metadata}
    positions = [(c.pose.position.x, c.pose.position.y, c.pose.position.z) for c in entity.cubes]
    sizes = [(c.size.x, c.size.y, c.size.z) for c in entity.cubes]
    actors = Actors(
        instance=np.array(exact["instance"], np.int32),
        kind=np.array(exact["kind"], np.int8),
        center=np.array(positions, np.float64).reshape(-1, 3),
        size=np.array(sizes, np.float64).reshape(-1, 3),
        yaw_rad=np.array(exact["yaw_rad"], np.float64),
        speed_mps=np.array(exact["speed_mps"], np.float64),
    )
    if {len(getattr(actors, name)) for name in ("instance", "kind", "yaw_rad", "speed_mps")} != {len(positions)}:
        raise ValueError("/actors holds lists of different lengths")
    return actors
