"""Where sensors are mounted, and what GNSS and IMU are like: the parts of a rig that need no solids, lenses or beams.

Knows geometry; knows nothing about the world.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.geometry import rotation_from_euler, se3

_STRICT = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


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

    @classmethod
    def of(cls, ego_from_mount: NDArray[np.float64]) -> Self:
        """The mount that has this pose, (4, 4) float64, rigid."""
        r = ego_from_mount[:3, :3]
        x, y, z = (float(v) for v in ego_from_mount[:3, 3])
        pitch = math.atan2(-r[2, 0], math.hypot(r[2, 1], r[2, 2]))
        yaw, roll = math.atan2(r[1, 0], r[0, 0]), math.atan2(r[2, 1], r[2, 2])
        if abs(r[2, 0]) > 1 - 1e-12:  # straight down or up: only the sum or the difference of yaw and roll matters
            yaw, roll = math.atan2(-r[0, 1], r[1, 1]), 0.0
        yaw_deg, pitch_deg, roll_deg = (math.degrees(angle) for angle in (yaw, pitch, roll))
        return cls(x_m=x, y_m=y, z_m=z, yaw_deg=yaw_deg, pitch_deg=pitch_deg, roll_deg=roll_deg)


class GeoOrigin(BaseModel):
    """Where on Earth (WGS 84) the world's origin lies; its x axis points east there, its y axis north."""

    model_config = _STRICT
    latitude_deg: float = Field(default=48.137, ge=-89, le=89)
    longitude_deg: float = Field(default=11.575, ge=-180, le=180)
    altitude_m: float = Field(default=520.0, ge=-500, le=9000, description="of the ground above the ellipsoid")


class GnssConfig(BaseModel):
    """A GNSS receiver; the defaults are those of a good single-frequency one under open sky."""

    model_config = _STRICT
    origin: GeoOrigin = GeoOrigin()
    mount: Mount = Field(default=Mount(x_m=0.5, z_m=1.6), description="of the antenna")
    rate_hz: int = Field(default=10, ge=1, le=10, description="divides 10, the world's ticks per second")
    horizontal_noise_m: float = Field(default=0.08, ge=0, le=100, description="white, standard deviation per axis")
    vertical_noise_m: float = Field(default=0.15, ge=0, le=100)
    horizontal_bias_m: float = Field(default=0.8, ge=0, le=100, description="at the start of an episode, per axis")
    vertical_bias_m: float = Field(default=1.6, ge=0, le=100)
    bias_walk_m: float = Field(
        default=0.03, ge=0, le=10, description="random walk of the bias, metres per square root of s"
    )
    velocity_noise_mps: float = Field(default=0.05, ge=0, le=10)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 10 % self.rate_hz:
            raise ValueError(f"rate_hz must divide 10, the world's ticks per second, got {self.rate_hz}")
        return self

    @property
    def every(self) -> int:
        """Ticks from one fix to the next."""
        return max(1, round(10 / self.rate_hz))


class ImuConfig(BaseModel):
    """An inertial sensor; the defaults are those of an automotive MEMS one."""

    model_config = _STRICT
    mount: Mount = Mount(x_m=0.3, z_m=0.5)
    rate_hz: int = Field(default=100, ge=10, le=1000, description="a multiple of 10")
    acceleration_noise: float = Field(default=1.5e-3, ge=0, le=1, description="density, m/s2 per square root of Hz")
    gyro_noise: float = Field(default=1e-4, ge=0, le=1, description="density, rad/s per square root of Hz")
    acceleration_bias_mps2: float = Field(default=0.05, ge=0, le=5, description="at the start of an episode, per axis")
    gyro_bias_radps: float = Field(default=2e-3, ge=0, le=1)
    acceleration_bias_walk: float = Field(default=1e-3, ge=0, le=1, description="m/s2 per square root of s")
    gyro_bias_walk: float = Field(default=3e-5, ge=0, le=1, description="rad/s per square root of s")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rate_hz % 10:
            raise ValueError(f"rate_hz must be a multiple of 10, the world's ticks per second, got {self.rate_hz}")
        return self
