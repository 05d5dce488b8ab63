"""Sensor rigs: which cameras and LiDAR a car carries, and where.

Knows geometry and calibrations; knows nothing about solids, kernels or the world.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.geometry import rotation_from_euler, se3
from perception.sensors import CameraCalibration

RigName = Literal["smoke", "small", "full"]

_EGO_AXES_FROM_CAMERA_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_STRICT = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class RigError(ValueError):
    """A rig that does not exist or cannot be built."""


class Mount(BaseModel):
    """Pose of a sensor in ego: metres, degrees; yaw turns left, positive pitch looks down (ISO 8855)."""

    model_config = _STRICT
    x_m: float = Field(default=1.2, ge=-20, le=20, description="forward of the rear axle")
    y_m: float = Field(default=0.0, ge=-20, le=20, description="to the left")
    z_m: float = Field(default=1.8, gt=0, le=20, description="above the ground")
    yaw_deg: float = Field(default=0.0, ge=-360, le=360)
    pitch_deg: float = Field(default=0.0, ge=-90, le=90)
    roll_deg: float = Field(default=0.0, ge=-180, le=180)

    def ego_from_mount(self) -> NDArray[np.float64]:
        """(4, 4) float64: the mount's own axes are x forward, y left, z up."""
        angles = (math.radians(a) for a in (self.yaw_deg, self.pitch_deg, self.roll_deg))
        return se3(rotation_from_euler(*angles), [self.x_m, self.y_m, self.z_m])


class CameraConfig(BaseModel):
    """A pinhole camera; the optical axis meets the middle of the picture."""

    model_config = _STRICT
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    width_px: int = Field(ge=8, le=4096)
    height_px: int = Field(ge=8, le=4096)
    horizontal_fov_deg: float = Field(gt=1, lt=170)
    mount: Mount = Mount()
    range_m: float = Field(default=150.0, gt=1, le=1000, description="solids further away are left out")

    def calibration(self) -> CameraCalibration:
        """Square pixels, no distortion; the centre of the top left pixel is (0, 0)."""
        focal_px = 0.5 * self.width_px / math.tan(math.radians(self.horizontal_fov_deg) / 2)
        intrinsics = np.array(
            [
                [focal_px, 0.0, (self.width_px - 1) / 2],
                [0.0, focal_px, (self.height_px - 1) / 2],
                [0.0, 0.0, 1.0],
            ]
        )
        ego_from_camera = self.mount.ego_from_mount() @ se3(_EGO_AXES_FROM_CAMERA_AXES, [0.0, 0.0, 0.0])
        return CameraCalibration(self.width_px, self.height_px, intrinsics, ego_from_camera)


class LidarConfig(BaseModel):
    """A spinning LiDAR: every beam fires once in every column, columns counter-clockwise from azimuth_start_deg."""

    model_config = _STRICT
    name: str = Field(default="lidar", pattern=r"^[a-z][a-z0-9_]*$")
    elevations_deg: tuple[float, ...] = Field(min_length=1, max_length=256, description="of each beam, falling")
    columns: int = Field(ge=8, le=8192)
    azimuth_start_deg: float = Field(
        default=-180.0, ge=-360, le=360, description="of the first column's left-hand edge"
    )
    azimuth_range_deg: float = Field(default=360.0, gt=0, le=360)
    min_range_m: float = Field(default=1.0, ge=0)
    max_range_m: float = Field(default=80.0, gt=1, le=500)
    range_noise_m: float = Field(default=0.01, ge=0, le=1, description="standard deviation")
    mount: Mount = Mount()

    @model_validator(mode="after")
    def _check(self) -> Self:
        falling = all(a > b for a, b in zip(self.elevations_deg, self.elevations_deg[1:], strict=False))
        if not falling or not all(-85 <= e <= 85 for e in self.elevations_deg):
            raise ValueError("elevations_deg must fall strictly from beam to beam, between 85 and -85 degrees")
        if self.min_range_m >= self.max_range_m:
            raise ValueError("min_range_m must be smaller than max_range_m")
        return self

    @property
    def beams(self) -> int:
        return len(self.elevations_deg)

    def azimuths_rad(self) -> NDArray[np.float64]:
        """(columns,) float64: azimuth of every column's middle in the sensor's frame, counter-clockwise."""
        step = self.azimuth_range_deg / self.columns
        return np.asarray(np.radians(self.azimuth_start_deg + (np.arange(self.columns) + 0.5) * step))


class RigConfig(BaseModel):
    """The sensors of one car."""

    model_config = _STRICT
    cameras: tuple[CameraConfig, ...] = Field(max_length=16)
    lidar: LidarConfig | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [camera.name for camera in self.cameras] + ([self.lidar.name] if self.lidar else [])
        if len(set(names)) != len(names):
            raise ValueError(f"the sensors of a rig need different names, got {names}")
        return self

    @property
    def max_points(self) -> int:
        """Most points that one sweep can have: beams x columns."""
        return self.lidar.beams * self.lidar.columns if self.lidar else 0


def _evenly(top_deg: float, bottom_deg: float, beams: int) -> tuple[float, ...]:
    return tuple(round(float(e), 4) for e in np.linspace(top_deg, bottom_deg, beams))


def rig(name: str) -> RigConfig:
    """The rig of that name.

    `small`: wide and tele front cameras and a LiDAR with the 32 beams of a Velodyne HDL-32E (+10.67 to -30.67 degrees,
    its user's manual 63-9113). `smoke` is a smaller copy for quick runs, `full` a sharper one.

    Raises:
        RigError: there is no such rig.
    """
    match name:
        case "smoke":
            wide, tele, beams, columns = (96, 48), (64, 32), 16, 256
        case "small":
            wide, tele, beams, columns = (192, 96), (128, 64), 32, 512
        case "full":
            wide, tele, beams, columns = (384, 192), (256, 128), 32, 1024
        case _:
            raise RigError(f'no rig named "{name}". Known: smoke, small, full')
    return RigConfig(
        cameras=(
            CameraConfig(name="camera_wide", width_px=wide[0], height_px=wide[1], horizontal_fov_deg=100.0),
            CameraConfig(name="camera_tele", width_px=tele[0], height_px=tele[1], horizontal_fov_deg=35.0),
        ),
        lidar=LidarConfig(elevations_deg=_evenly(10.67, -30.67, beams), columns=columns),
    )
