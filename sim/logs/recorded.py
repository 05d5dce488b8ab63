"""What other people's recordings say, in our terms: the meeting point of their formats and our frames.

Knows the contract of perception; knows nothing about containers or message schemas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.sensors import CameraCalibration, DistortionModel, GnssFix
from sim.logs.log import TopicInfo

FURTHEST_M = 1e9
FASTEST = 1e4  # m/s, and rad/s

Role = Literal["camera", "lidar", "calibration", "transforms", "odometry", "gnss", "imu"]


class MessageError(ValueError):
    """A message that does not decode; it is skipped and counted."""


@dataclass(frozen=True)
class RecordedPicture:
    """pixels: decodes the picture, given width and height in pixels, to (H, W, 3) uint8 RGB; raises MessageError."""

    frame_id: str
    timestamp_us: int
    pixels: Callable[[int, int], NDArray[np.uint8]]


@dataclass(frozen=True)
class RecordedCloud:
    """points: (N, 4) float32, x y z in metres in frame_id, intensity as recorded, all finite.

    timestamp_us: end of the sweep. time_offset_us: as in `LidarSweep`. dropped: points that were not finite.
    """

    frame_id: str
    timestamp_us: int
    points: NDArray[np.float32]
    time_offset_us: NDArray[np.int32] | None
    dropped: int


@dataclass(frozen=True)
class RecordedCalibration:
    """A `CameraCalibration` without its mounting pose, for pictures as the camera takes them.

    rectified: (3, 3) float64, intrinsics of pictures that were rectified, which have no distortion left; None if not given.
    """

    frame_id: str
    width_px: int
    height_px: int
    intrinsics: NDArray[np.float64]
    distortion_model: DistortionModel
    distortion: NDArray[np.float64]
    rectified: NDArray[np.float64] | None = None

    def of_rectified(self) -> RecordedCalibration | None:
        """The calibration of rectified pictures, None if it is not given."""
        if self.rectified is None:
            return None
        return replace(self, intrinsics=self.rectified, distortion_model="none", distortion=np.zeros(0))

    def mounted(self, ego_from_camera: NDArray[np.float64]) -> CameraCalibration:
        return CameraCalibration(
            width_px=self.width_px,
            height_px=self.height_px,
            intrinsics=self.intrinsics,
            ego_from_camera=ego_from_camera,
            distortion_model=self.distortion_model,
            distortion=self.distortion,
        )


@dataclass(frozen=True)
class RecordedTransform:
    """parent_from_child: (4, 4) float64."""

    parent: str
    child: str
    timestamp_us: int
    parent_from_child: NDArray[np.float64]


@dataclass(frozen=True)
class RecordedTransforms:
    """dropped: how many of the message were no poses."""

    transforms: tuple[RecordedTransform, ...]
    dropped: int = 0


@dataclass(frozen=True)
class RecordedOdometry:
    """world_from_body: (4, 4) float64. speed_mps: along the body's x axis. yaw_rate_radps: None where not given.

    Raises:
        MessageError: a finite speed or yaw rate is above FASTEST.
    """

    body_frame: str
    timestamp_us: int
    world_from_body: NDArray[np.float64]
    speed_mps: float | None
    yaw_rate_radps: float | None

    def __post_init__(self) -> None:
        for value in (self.speed_mps, self.yaw_rate_radps):
            if value is not None and FASTEST < abs(value) < math.inf:
                raise MessageError(f"no car moves or turns at {value:g}")


@dataclass(frozen=True)
class RecordedFix:
    """Where GNSS says that its antenna is."""

    fix: GnssFix


@dataclass(frozen=True)
class RecordedImu:
    """One sample: acceleration_mps2, angular_rate_radps (3,) float64 as in `ImuSamples`, in the axes of frame_id."""

    frame_id: str
    timestamp_us: int
    acceleration_mps2: NDArray[np.float64]
    angular_rate_radps: NDArray[np.float64]


Recorded = (
    RecordedPicture
    | RecordedCloud
    | RecordedCalibration
    | RecordedTransforms
    | RecordedOdometry
    | RecordedFix
    | RecordedImu
)


@dataclass(frozen=True)
class RawMessage:
    """time_us: when it was logged. data: as its schema encodes it."""

    topic: str
    type: str
    time_us: int
    data: bytes


class MessageSource(Protocol):
    """An open container of recorded messages."""

    @property
    def kind(self) -> str: ...

    @property
    def topics(self) -> Mapping[str, TopicInfo]: ...

    @property
    def span_us(self) -> tuple[int, int]: ...

    def role(self, topic: str) -> Role | None:
        """What a topic is for, by its type; None where we have no use for it or cannot decode it."""

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Messages of those topics in order of log time, up to where the container is damaged beyond that."""

    def decode(self, message: RawMessage) -> Recorded:
        """Raises MessageError where the message is damaged or of a kind we do not know."""

    def close(self) -> None: ...
