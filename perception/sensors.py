"""The contract of the project: what a car senses at one instant.

The simulator produces `SensorFrame`s, recorded logs do, and a real car would. Knows numpy only. Frames: ego is
ISO 8855 (x forward, y left, z up, origin on the ground under the centre of the rear axle); camera is x right,
y down, z forward. Time is an integer number of microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perception.geometry import require_rigid

DistortionModel = Literal["none", "brown_conrady", "kannala_brandt"]
# How many numbers a model takes: OpenCV's vectors.
COEFFICIENTS: dict[DistortionModel, tuple[int, ...]] = {
    "none": (0,),
    "brown_conrady": (4, 5, 8, 12, 14),
    "kannala_brandt": (4,),
}
ROUTE_POINTS = 20
ROUTE_SPACING_M = 2.5


class EgoField(IntEnum):
    """Columns of the `ego` observation, float32 in SI units (actions in [-1, 1])."""

    SPEED_MPS = 0
    ACCELERATION_MPS2 = 1
    YAW_RATE_RADPS = 2
    LAST_STEER = 3
    LAST_THROTTLE = 4


class SemanticClass(IntEnum):
    """Semantic class of a pixel or a point, uint8."""

    SKY = 0
    TERRAIN = 1
    ROAD = 2
    LANE_MARKING = 3
    CROSSWALK = 4
    SIDEWALK = 5
    BUILDING = 6
    VEGETATION = 7
    POLE = 8
    TRAFFIC_LIGHT = 9
    TRAFFIC_SIGN = 10
    VEHICLE = 11
    TWO_WHEELER = 12
    PEDESTRIAN = 13
    BARRIER = 14


@dataclass(frozen=True)
class CameraCalibration:
    """Geometry of one camera.

    width_px, height_px: picture size.
    intrinsics: (3, 3) float64, pixels; the centre of the top left pixel is (0, 0) (OpenCV).
    distortion_model: `brown_conrady` takes k1 k2 p1 p2 [k3 ...] and `kannala_brandt` k1 k2 k3 k4 (OpenCV's order).
    distortion: (K,) float64; empty for `none`.
    ego_from_camera: (4, 4) float64.
    """

    width_px: int
    height_px: int
    intrinsics: NDArray[np.float64]
    ego_from_camera: NDArray[np.float64]
    distortion_model: DistortionModel = "none"
    distortion: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise ValueError(f"a camera needs at least one pixel, got {self.width_px}x{self.height_px}")
        if self.intrinsics.shape != (3, 3) or not np.isfinite(self.intrinsics).all():
            raise ValueError(f"intrinsics must be finite with shape (3, 3), got {self.intrinsics.tolist()}")
        if self.intrinsics[0, 0] <= 0 or self.intrinsics[1, 1] <= 0:
            raise ValueError("focal lengths must be positive")
        if self.distortion.ndim != 1 or not np.isfinite(self.distortion).all():
            raise ValueError(f"distortion must be a finite vector, got shape {self.distortion.shape}")
        require_coefficients(self.distortion_model, len(self.distortion))
        require_rigid("ego_from_camera", self.ego_from_camera)


def require_coefficients(model: DistortionModel, given: int) -> None:
    """Raise ValueError unless it is a model of a lens, and one that takes that many numbers."""
    if model not in COEFFICIENTS:
        raise ValueError(f"distortion_model must be {', '.join(COEFFICIENTS)}, got {model!r}")
    if given not in COEFFICIENTS[model]:
        allowed = " or ".join(map(str, COEFFICIENTS[model]))
        raise ValueError(f"{model} takes {allowed} coefficients (OpenCV's order), got {given}")


@dataclass(frozen=True)
class CameraFrame:
    """One picture of one camera.

    image: (H, W, 3) uint8, RGB.
    timestamp_us: middle of the exposure.
    """

    image: NDArray[np.uint8]
    calibration: CameraCalibration
    timestamp_us: int

    def __post_init__(self) -> None:
        expected = (self.calibration.height_px, self.calibration.width_px, 3)
        if self.image.shape != expected or self.image.dtype != np.uint8:
            raise ValueError(f"image must be uint8 with shape {expected}, got {self.image.dtype} {self.image.shape}")


@dataclass(frozen=True)
class LidarSweep:
    """One sweep of one LiDAR.

    points: (N, 4) float32; x y z in metres in the sensor's frame, intensity in [0, 1].
    time_offset_us: (N,) int32 or None; relative to timestamp_us, never positive.
    timestamp_us: end of the sweep.
    ego_from_lidar: (4, 4) float64.
    """

    points: NDArray[np.float32]
    ego_from_lidar: NDArray[np.float64]
    timestamp_us: int
    time_offset_us: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 4 or self.points.dtype != np.float32:
            raise ValueError(f"points must be float32 (N, 4), got {self.points.dtype} {self.points.shape}")
        if self.time_offset_us is not None and self.time_offset_us.shape != (len(self.points),):
            raise ValueError(f"time_offset_us must have shape ({len(self.points)},), got {self.time_offset_us.shape}")
        require_rigid("ego_from_lidar", self.ego_from_lidar)


@dataclass(frozen=True)
class EgoState:
    """Motion of the ego at one instant; last_steer and last_throttle are the action applied before it.

    world_from_ego: (4, 4) float64, or None where no localisation is known.
    """

    timestamp_us: int
    speed_mps: float
    acceleration_mps2: float = 0.0
    yaw_rate_radps: float = 0.0
    last_steer: float = 0.0
    last_throttle: float = 0.0
    world_from_ego: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.world_from_ego is not None:
            require_rigid("world_from_ego", self.world_from_ego)

    def as_vector(self) -> NDArray[np.float32]:
        """The `ego` observation, (5,) float32, columns as in `EgoField`."""
        return np.array(
            [self.speed_mps, self.acceleration_mps2, self.yaw_rate_radps, self.last_steer, self.last_throttle],
            np.float32,
        )


@dataclass(frozen=True)
class GnssFix:
    """One fix. latitude and longitude in degrees, altitude in metres above the ellipsoid, velocity (3,) east, north, up in
    m/s. horizontal_m, vertical_m: standard deviation per axis that the receiver believes in. Recordings need not say velocity and
    deviations: they are NaN then."""

    timestamp_us: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    velocity_mps: NDArray[np.float64]
    horizontal_m: float
    vertical_m: float


@dataclass(frozen=True)
class ImuSamples:
    """The N samples of one tick, oldest first, in the axes of the IMU (x forward, y left, z up).

    timestamp_us: (N,) int64. acceleration_mps2: (N, 3) float64 specific force: gravity shows as an acceleration upwards.
    angular_rate_radps: (N, 3) float64.
    """

    timestamp_us: NDArray[np.int64]
    acceleration_mps2: NDArray[np.float64]
    angular_rate_radps: NDArray[np.float64]


@dataclass(frozen=True)
class SensorFrame:
    """What all sensors say at one instant. A sensor that is silent is None, never a silent repeat.

    timestamp_us: the instant of the frame (end of the LiDAR sweep where there is one).
    cameras, lidars: by name.
    ego: None where the source has no odometry.
    route_in_ego: (ROUTE_POINTS, 2) float32, metres: the next points of the route, ROUTE_SPACING_M apart, the
        last one repeated beyond the goal; None where no route is known.
    gnss: the fix of this instant, None between fixes and without a receiver. imu: samples since the last frame, None without one.
    """

    timestamp_us: int
    cameras: Mapping[str, CameraFrame | None]
    lidars: Mapping[str, LidarSweep | None]
    ego: EgoState | None
    route_in_ego: NDArray[np.float32] | None
    gnss: GnssFix | None = None
    imu: ImuSamples | None = None

    def __post_init__(self) -> None:
        if self.route_in_ego is not None and self.route_in_ego.shape != (ROUTE_POINTS, 2):
            raise ValueError(f"route_in_ego must have shape ({ROUTE_POINTS}, 2), got {self.route_in_ego.shape}")

    def sensor_age_us(self) -> dict[str, int]:
        """Age of each sensor's message at the instant of the frame, in microseconds, silent sensors left out."""
        sensors: dict[str, CameraFrame | LidarSweep | None] = {**self.cameras, **self.lidars}
        return {name: self.timestamp_us - s.timestamp_us for name, s in sensors.items() if s is not None}
