"""A recording that is not ours, as the same stream of steps that the simulator gives.

Knows what recorded messages mean; knows nothing about containers or message schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from perception.sensors import CameraCalibration, CameraFrame, LidarSweep, SensorFrame
from sim.logs.frames import MAX_AGE_US, Frame, Reading, synchronised
from sim.logs.log import Log, LogError, LogSummary
from sim.logs.motion import motion_of
from sim.logs.mounting import FrameTree
from sim.logs.navigation import NavigationReadings
from sim.logs.odometry import Odometry
from sim.logs.recorded import (
    MessageError,
    MessageSource,
    Recorded,
    RecordedCalibration,
    RecordedCloud,
    RecordedFix,
    RecordedImu,
    RecordedOdometry,
    RecordedPicture,
    RecordedTransform,
    RecordedTransforms,
    Role,
)
from sim.step import Step

Sample = TypeVar("Sample")

GENERIC_WORDS = frozenset(
    {"camera", "cameras", "image", "images", "image_raw", "image_color", "image_mono", "image_rect", "image_rect_color"}
    | {"compressed", "compressed_image", "raw", "color", "data", "sensor", "sensors", "sensing"}
    | {"lidar", "lidars", "points", "point_cloud", "point_cloud2", "pointcloud"}
)


@dataclass(frozen=True)
class ReadOptions:
    """How recordings that are not ours are read.

    base_frame: frame of /tf that is taken for ego. trigger: name of the sensor whose readings make the frames; by
        default the LiDAR with the most sweeps, else the camera with the most pictures.
    max_age_us: a sensor silent for longer is None. topics: sensor topics to use; by default all that decode.
    """

    base_frame: str = "base_link"
    trigger: str | None = None
    max_age_us: int = MAX_AGE_US
    topics: tuple[str, ...] | None = None


@dataclass
class _Context:
    """What a first pass over the small messages finds, and what the first readings tell.

    found: calibrations by their topic. calibrations, mounted, lidar_pose, intensity_scale: by sensor.
    """

    tree: FrameTree
    odometry: Odometry | None = None
    navigation: NavigationReadings | None = None
    found: dict[str, RecordedCalibration] = field(default_factory=dict)
    calibrations: dict[str, RecordedCalibration] = field(default_factory=dict)
    mounted: dict[str, CameraCalibration | None] = field(default_factory=dict)
    lidar_pose: dict[str, NDArray[np.float64] | None] = field(default_factory=dict)
    intensity_scale: dict[str, float] = field(default_factory=dict)


def open_recording(
    path: Path,
    source: MessageSource,
    summary: LogSummary,
    options: ReadOptions,
    close: Callable[[], None] | None = None,
) -> Log:
    """An open container as a `Log`.

    close: closes the source and what it needs; by default its own `close`.

    Raises:
        LogError: the options name a topic or a trigger that the recording does not have.
    """
    sensors = _choose_sensors(path, source, summary, options)
    if options.trigger is not None and options.trigger not in sensors:
        known = ", ".join(sensors) or "none"
        raise LogError(f"{path} has no sensor named {options.trigger!r} to make frames by; it has: {known}")
    if not sensors:
        summary.warn(_nothing_to_read(path, source))
    return Log(
        path,
        source.kind,
        source.topics,
        source.span_us,
        lambda log: _steps(log, source, sensors, options),
        summary=summary,
        close=close or source.close,
    )


def _nothing_to_read(path: Path, source: MessageSource) -> str:
    if not source.topics:
        return f"{path} holds no messages"
    foreign = ", ".join(f"{topic} ({info.type})" for topic, info in source.topics.items() if not source.role(topic))
    wanted = "PointCloud2, Image, CompressedImage, and foxglove's PointCloud, RawImage, CompressedImage"
    return f"{path} holds no camera or LiDAR that can be decoded ({wanted}); not decoded: {foreign or 'none'}"


def _choose_sensors(
    path: Path, source: MessageSource, summary: LogSummary, options: ReadOptions
) -> dict[str, tuple[str, Role]]:
    """Name of each sensor to its topic and role; of topics with one name the one with the most messages."""
    for topic in options.topics or ():
        if topic not in source.topics or source.role(topic) not in ("camera", "lidar"):
            known = ", ".join(t for t in source.topics if source.role(t) in ("camera", "lidar")) or "none"
            raise LogError(f"{path} has no camera or LiDAR topic {topic!r}; it has: {known}")
    sensors: dict[str, tuple[str, Role]] = {}
    for topic, info in sorted(source.topics.items(), key=lambda item: (-item[1].messages, item[0])):
        role = source.role(topic)
        if role not in ("camera", "lidar") or info.messages == 0:
            continue
        if options.topics is not None and topic not in options.topics:
            continue
        name = sensor_name(topic, role)
        if name in sensors and sensors[name][1] != role:
            name = f"{name}_{role}"
        if name in sensors:
            summary.warn(f"{topic}: left out, taken for the same {sensors[name][1]} as {sensors[name][0]}")
        else:
            sensors[name] = topic, role
    return sensors


def sensor_name(topic: str, role: Role) -> str:
    """Name of a sensor from its topic: what is left without words such as "camera" and "image", else its role."""
    words = [word for word in topic.split("/") if word and word not in GENERIC_WORDS]
    return "_".join(words) or role


def _steps(
    log: Log, source: MessageSource, sensors: Mapping[str, tuple[str, Role]], options: ReadOptions
) -> Iterator[Step]:
    if not sensors:
        raise LogError(_nothing_to_read(log.path, source))
    context = _look_through(source, log.summary, options)
    context.calibrations = _calibrations(sensors, context.found, log.summary)
    readable = {n: topic for n, (topic, role) in sensors.items() if role == "lidar" or n in context.calibrations}
    if not readable:
        raise LogError(f"{log.path} holds pictures only, and no CameraInfo: nothing says what its cameras see")
    trigger = options.trigger
    if trigger is None:
        trigger = next((name for name in readable if sensors[name][1] == "lidar"), next(iter(readable)))
    elif trigger not in readable:
        raise LogError(f"{log.path}: {trigger!r} cannot make the frames, as it has no CameraInfo")
    readings = _readings(source, {topic: name for name, topic in readable.items()}, log.summary)
    frames = synchronised(readings, list(readable), trigger, log.summary, max_age_us=options.max_age_us)
    last_us: int | None = None
    for tick, frame in enumerate(frames):
        yield _step(tick, frame, last_us, sensors, context, log, options)
        last_us = frame.timestamp_us


def _look_through(source: MessageSource, summary: LogSummary, options: ReadOptions) -> _Context:
    """A first pass over what is small and needed from the start, or looked up by time: all but pictures and sweeps."""
    context = _Context(FrameTree(options.base_frame, summary))
    samples: dict[str, list[RecordedOdometry]] = {}
    fixes: dict[str, list[RecordedFix]] = {}
    imu: dict[str, list[RecordedImu]] = {}
    above: dict[str, list[RecordedTransform]] = {options.base_frame: []}
    topics = [t for t in source.topics if source.role(t) not in ("camera", "lidar", None)]
    for message in source.messages(topics):
        try:
            recorded = source.decode(message)
        except MessageError as error:
            summary.skip(message.topic, str(error))
            continue
        match recorded:
            case RecordedCalibration():
                context.found.setdefault(message.topic, recorded)
            case RecordedTransforms(transforms, dropped):
                context.tree.add(transforms)
                if dropped:
                    summary.skip(message.topic, "transform that is no pose", dropped)
                for t in transforms:
                    if t.child in above:
                        above[t.child].append(t)
                        above.setdefault(t.parent, [])
            case RecordedOdometry():
                samples.setdefault(message.topic, []).append(recorded)
            case RecordedFix():
                fixes.setdefault(message.topic, []).append(recorded)
            case RecordedImu():
                imu.setdefault(message.topic, []).append(recorded)
    context.odometry = motion_of(_of_one_topic(samples, "motion", summary), above, context.tree, summary)
    if fixes or imu:
        places = [recorded.fix for recorded in _of_one_topic(fixes, "GNSS", summary)]
        felt = _of_one_topic(imu, "IMU", summary)
        context.navigation = NavigationReadings(places, felt, context.tree, summary)
    return context


def _of_one_topic(samples: Mapping[str, list[Sample]], what: str, summary: LogSummary) -> list[Sample]:
    """The samples of the topic that has most; those of others are of another origin or place, and would make the car jump."""
    if not samples:
        return []
    chosen = max(samples, key=lambda topic: len(samples[topic]))
    for topic in sorted(set(samples) - {chosen}):
        summary.warn(f"{topic}: left out, as {what} is taken from {chosen}, which has the most messages")
    return samples[chosen]


def _calibrations(
    sensors: Mapping[str, tuple[str, Role]], found: Mapping[str, RecordedCalibration], summary: LogSummary
) -> dict[str, RecordedCalibration]:
    """Calibration of each camera by its name: the one in the nearest folder around its topic, or the only one there is
    if there is but one camera."""
    cameras = {name: topic for name, (topic, role) in sensors.items() if role == "camera"}
    chosen: dict[str, RecordedCalibration] = {}
    for name, topic in cameras.items():
        around = [other for other in found if len(_folder(other)) > 1 and topic.startswith(_folder(other))]
        if around:
            chosen[name] = found[max(around, key=lambda other: len(_folder(other)))]
        elif len(cameras) == len(found) == 1:
            (chosen[name],) = found.values()
        else:
            summary.warn(f"{topic}: left out, as no CameraInfo beside it says what the camera sees")
        if name in chosen and is_rectified(topic):
            rectified = chosen.pop(name).of_rectified()
            if rectified is None:
                summary.warn(f"{topic}: left out, as the CameraInfo beside it has no P, which rectified pictures need")
            else:
                chosen[name] = rectified
    return chosen


def is_rectified(topic: str) -> bool:
    """Whether the pictures of a topic are rectified, by ROS's names such as image_rect and image_rect_color."""
    return any(word.startswith("image_rect") for word in topic.split("/"))


def _folder(topic: str) -> str:
    """What stands before the last word of a topic, with the slash."""
    return topic[: topic.rfind("/") + 1]


def _readings(
    source: MessageSource, name_of_topic: Mapping[str, str], summary: LogSummary
) -> Iterator[Reading[Recorded]]:
    for message in source.messages(list(name_of_topic)):
        try:
            recorded = source.decode(message)
        except MessageError as error:
            summary.skip(message.topic, str(error))
            continue
        if isinstance(recorded, RecordedPicture | RecordedCloud):
            yield Reading(name_of_topic[message.topic], recorded.timestamp_us, recorded)


def _step(
    tick: int,
    frame: Frame[Recorded],
    last_us: int | None,
    sensors: Mapping[str, tuple[str, Role]],
    context: _Context,
    log: Log,
    options: ReadOptions,
) -> Step:
    cameras: dict[str, CameraFrame | None] = {}
    lidars: dict[str, LidarSweep | None] = {}
    for name, reading in frame.readings.items():
        topic, role = sensors[name]
        recorded = None if reading is None else reading.value
        try:
            if role == "camera":
                cameras[name] = None
                if isinstance(recorded, RecordedPicture):
                    cameras[name] = _camera_frame(name, topic, recorded, context)
            else:
                lidars[name] = None
                if isinstance(recorded, RecordedCloud):
                    lidars[name] = _lidar_sweep(name, topic, recorded, context, log.summary)
        except LogError:
            raise
        except ValueError as error:  # a picture that does not decode, a pose that is none
            log.summary.skip(topic, str(error))
    odometry = context.odometry
    if odometry is not None and odometry.is_silent(frame.timestamp_us, options.max_age_us):
        odometry = None
    fix, imu = None, None
    if context.navigation is not None:
        since_us = frame.timestamp_us - options.max_age_us if last_us is None else last_us
        fix, imu = context.navigation.between(since_us, frame.timestamp_us)
    sensor_frame = SensorFrame(
        timestamp_us=frame.timestamp_us,
        cameras=cameras,
        lidars=lidars,
        ego=None if odometry is None else odometry.ego_state(frame.timestamp_us, options.max_age_us),
        route_in_ego=None if odometry is None else odometry.path_ahead(frame.timestamp_us),
        gnss=fix,
        imu=imu,
    )
    action = None if odometry is None else odometry.estimated_action(frame.timestamp_us)
    return Step(tick=tick, timestamp_us=frame.timestamp_us, frame=sensor_frame, action=action)


def _camera_frame(name: str, topic: str, picture: RecordedPicture, context: _Context) -> CameraFrame | None:
    if name not in context.mounted:
        calibration = context.calibrations[name]
        pose = context.tree.ego_from_camera(topic, picture.frame_id or calibration.frame_id)
        context.mounted[name] = None if pose is None else calibration.mounted(pose)
    mounted = context.mounted[name]
    if mounted is None:
        return None
    return CameraFrame(picture.pixels(mounted.width_px, mounted.height_px), mounted, picture.timestamp_us)


def _lidar_sweep(
    name: str, topic: str, cloud: RecordedCloud, context: _Context, summary: LogSummary
) -> LidarSweep | None:
    if name not in context.lidar_pose:
        context.lidar_pose[name] = context.tree.ego_from_lidar(topic, cloud.frame_id)
    pose = context.lidar_pose[name]
    if pose is None:
        return None
    if cloud.dropped:
        summary.skip(topic, "point that is not finite", cloud.dropped)
    if name not in context.intensity_scale:
        context.intensity_scale[name] = _intensity_scale(cloud.points[:, 3])
    points = cloud.points.copy()
    points[:, 3] = np.clip(points[:, 3] / context.intensity_scale[name], 0.0, 1.0)
    return LidarSweep(points, pose, cloud.timestamp_us, cloud.time_offset_us)


def _intensity_scale(intensity: NDArray[np.float32]) -> float:
    """What brings the first sweep's intensities to [0, 1]: drivers give 0 to 1, 8 bits or 16 bits."""
    largest = float(intensity.max(initial=0.0))
    return 1.0 if largest <= 1.0 else 255.0 if largest <= 255.0 else 65535.0
