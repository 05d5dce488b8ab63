"""Sensor rigs: which cameras and LiDAR a car carries, and where.

Knows geometry and calibrations; knows nothing about solids, kernels or the world.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from perception.geometry import inverse, se3
from perception.sensors import CameraCalibration, DistortionModel
from sim.sensors import recorded_rigs
from sim.sensors.camera_effects import EffectsConfig
from sim.sensors.lens import check_lens
from sim.sensors.lidar_models import LidarModelError, lidar_model
from sim.sensors.mount import GnssConfig, ImuConfig, Mount
from sim.sensors.recorded_rigs import RecordedRig

RigName = Literal["smoke", "small", "full", "surround", "kitti", "nuscenes", "pandaset"]

# Keys of the observation beside those of cameras, which are their names.
_OTHER_KEYS = ("points", "point_count", "ego", "route", "privileged")
_BODY_FROM_CAMERA = se3([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 0])
_STRICT = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class RigError(ValueError):
    """A rig that does not exist or cannot be built."""


class CameraConfig(BaseModel):
    """A camera: a field of view, or the intrinsics and the distortion that a calibration found."""

    model_config = _STRICT
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    width_px: int = Field(ge=16, le=4096)
    height_px: int = Field(ge=8, le=4096)
    horizontal_fov_deg: float | None = Field(
        default=None, gt=1, lt=170, description="of a camera without distortion and with square pixels; or else fx_px"
    )
    fx_px: float | None = Field(default=None, gt=0, le=1e5, description="focal length in pixels along a row")
    fy_px: float | None = Field(default=None, gt=0, le=1e5, description="along a column; as fx_px if left out")
    cx_px: float | None = Field(
        default=None, ge=-1e4, le=1e4, description="where the axis meets the picture; its middle"
    )
    cy_px: float | None = Field(default=None, ge=-1e4, le=1e4)
    distortion_model: DistortionModel = "none"
    distortion: tuple[float, ...] = Field(
        default=(), max_length=8, strict=False, description="coefficients, OpenCV's order"
    )
    mount: Mount = Mount()
    effects: EffectsConfig = Field(default=EffectsConfig(), description="motion blur, rolling shutter, noise, JPEG")

    @model_validator(mode="before")
    @classmethod
    def _without_range(cls, values: Any) -> Any:
        """Logs and checkpoints may hold the default of a range that nobody ever looked at; any other is refused."""
        if isinstance(values, dict) and values.get("range_m") == 150.0:
            return {name: value for name, value in values.items() if name != "range_m"}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name in _OTHER_KEYS:
            raise ValueError(
                f"no camera can be called {self.name}, as another part of the observation is; choose another name"
            )
        if (self.horizontal_fov_deg is None) == (self.fx_px is None):
            raise ValueError(f"camera {self.name} needs either horizontal_fov_deg or fx_px")
        if self.fx_px is None and (self.fy_px is not None or self.distortion_model != "none"):
            raise ValueError(
                f"camera {self.name}: horizontal_fov_deg is for square pixels without distortion; give fx_px instead"
            )
        check_lens(self.calibration())
        return self

    @classmethod
    def of(cls, name: str, calibration: CameraCalibration, **fields: Any) -> Self:
        """The camera that has this calibration; fields: any others of the class.

        Raises:
            RigError: the calibration is of no camera that can be simulated.
        """
        k = calibration.intrinsics
        try:
            check_lens(calibration)
            return cls(
                name=name, width_px=calibration.width_px, height_px=calibration.height_px, fx_px=float(k[0, 0]),
                fy_px=float(k[1, 1]), cx_px=float(k[0, 2]), cy_px=float(k[1, 2]),
                distortion_model=calibration.distortion_model, distortion=tuple(map(float, calibration.distortion)),
                mount=Mount.of(calibration.ego_from_camera @ inverse(_BODY_FROM_CAMERA)), **fields,
            )  # fmt: skip
        except ValueError as error:
            raise RigError(f"camera {name}: {_first_line(error)}") from None

    def calibration(self) -> CameraCalibration:
        """Its calibration; the centre of the top left pixel is (0, 0)."""
        if self.fx_px is not None:
            fx = self.fx_px
        else:
            assert self.horizontal_fov_deg is not None
            fx = 0.5 * self.width_px / math.tan(math.radians(self.horizontal_fov_deg) / 2)
        fy = fx if self.fy_px is None else self.fy_px
        cx = (self.width_px - 1) / 2 if self.cx_px is None else self.cx_px
        cy = (self.height_px - 1) / 2 if self.cy_px is None else self.cy_px
        return CameraCalibration(
            width_px=self.width_px,
            height_px=self.height_px,
            intrinsics=np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]),
            ego_from_camera=self.mount.ego_from_mount() @ _BODY_FROM_CAMERA,
            distortion_model=self.distortion_model,
            distortion=np.array(self.distortion, np.float64),
        )


class LidarConfig(BaseModel):
    """A spinning LiDAR: every beam fires once in every column.

    Columns are counted counter-clockwise from azimuth_start_deg, whichever way the sensor turns. Where the beams fan out in
    azimuth, a column holds what each beam saw nearest to the column's azimuth, so rows of one sweep line up.
    """

    model_config = _STRICT
    name: str = Field(default="lidar", pattern=r"^[a-z][a-z0-9_]*$")
    elevations_deg: tuple[float, ...] = Field(
        min_length=1, max_length=256, strict=False, description="of each beam, falling"
    )
    azimuth_offsets_deg: tuple[float, ...] = Field(
        default=(), strict=False, description="of each beam from the rotor, counter-clockwise; empty for none"
    )
    columns: int = Field(ge=16, le=8192)
    rate_hz: int = Field(default=10, ge=1, le=100, description="turns per second; a sweep ends with the tick")
    clockwise: bool = Field(default=True, description="how the rotor turns, seen from above")
    azimuth_start_deg: float = Field(
        default=-180.0, ge=-360, le=360, description="of the first column's right-hand edge"
    )
    azimuth_range_deg: float = Field(default=360.0, gt=0, le=360)
    min_range_m: float = Field(default=1.0, ge=0)
    max_range_m: float = Field(default=80.0, gt=1, le=500)
    sensitivity_m: float = Field(
        default=60.0, ge=1, le=2000, description="range at which 10 % reflectivity is seen in half of the shots"
    )
    range_noise_m: float = Field(default=0.01, ge=0, le=1, description="standard deviation")
    white: float = Field(default=100 / 255, gt=0, le=1, description="intensity of a white matt surface")
    rooted: bool = Field(
        default=False, description="whether intensity grows with the root of the light that comes back"
    )
    motion: bool = Field(default=False, description="whether the car moves while a sweep is taken; costs time")
    mount: Mount = Mount()

    @model_validator(mode="after")
    def _check(self) -> Self:
        falling = all(a > b for a, b in zip(self.elevations_deg, self.elevations_deg[1:], strict=False))
        if not falling or not all(-85 <= e <= 85 for e in self.elevations_deg):
            raise ValueError("elevations_deg must fall strictly from beam to beam, between 85 and -85 degrees")
        if len(self.azimuth_offsets_deg) not in (0, self.beams) or not all(
            -30 <= a <= 30 for a in self.azimuth_offsets_deg
        ):
            raise ValueError(
                f"azimuth_offsets_deg must be empty or one for each of {self.beams} beams, between -30 and 30 degrees"
            )
        if self.min_range_m >= self.max_range_m:
            raise ValueError("min_range_m must be smaller than max_range_m")
        return self

    @classmethod
    def of_model(cls, model: str, *, rate_hz: int = 10, columns: int | None = None, **fields: Any) -> Self:
        """A LiDAR that one can buy, by its name in `lidar_models.LIDAR_NAMES`.

        Args:
            rate_hz: turns per second, one of the model's.
            columns: firings in one turn; all of the model's if None, fewer for speed.
            fields: any other field of `LidarConfig`, such as name, mount or max_range_m, instead of the model's.

        Raises:
            LidarModelError: no such model, or it does not turn or fire so.
        """
        sheet = lidar_model(model)
        most = sheet.columns(rate_hz)
        if columns is not None and columns > most:
            raise LidarModelError(
                f"{model} fires {most} times in a turn at {rate_hz} Hz, not {columns}: ask for fewer columns or a lower rate"
            )
        of_sheet = {
            "elevations_deg": sheet.elevations_deg,
            "azimuth_offsets_deg": sheet.azimuth_offsets_deg,
            "columns": most if columns is None else columns,
            "rate_hz": rate_hz,
            "clockwise": sheet.clockwise,
            "min_range_m": sheet.min_range_m,
            "max_range_m": sheet.max_range_m,
            "sensitivity_m": sheet.sensitivity_m,
            "range_noise_m": sheet.range_noise_m,
            "white": sheet.white,
            "rooted": sheet.rooted,
        }
        return cls(**{**of_sheet, **fields})

    @property
    def beams(self) -> int:
        return len(self.elevations_deg)

    @property
    def azimuth_step_deg(self) -> float:
        return self.azimuth_range_deg / self.columns

    def azimuths_rad(self) -> NDArray[np.float64]:
        """(columns,) float64: azimuth of every column's middle in the sensor's frame, counter-clockwise."""
        return np.asarray(np.radians(self.azimuth_start_deg + (np.arange(self.columns) + 0.5) * self.azimuth_step_deg))

    def _offsets_deg(self) -> NDArray[np.float64]:
        return np.array(self.azimuth_offsets_deg) if self.azimuth_offsets_deg else np.zeros(self.beams)

    def column_shifts(self) -> NDArray[np.int64]:
        """(beams,) int64: a beam's column c was measured when the rotor stood at column c - shift."""
        return np.asarray(np.rint(self._offsets_deg() / self.azimuth_step_deg), np.int64)

    def ray_azimuths_rad(self) -> NDArray[np.float64]:
        """(beams, columns) float64: azimuth of every ray; no further than half a step from that of its column."""
        rest = self._offsets_deg() - self.column_shifts() * self.azimuth_step_deg
        return np.asarray(self.azimuths_rad()[None, :] + np.radians(rest)[:, None])

    @property
    def _sweep_s(self) -> float:
        return self.azimuth_range_deg / 360.0 / self.rate_hz

    def column_times_s(self) -> NDArray[np.float64]:
        """(columns,) float64: when the rotor stands at the middle of each column, seconds from the end of the sweep, negative."""
        column = np.arange(self.columns)
        fired = self.columns - 1 - column if self.clockwise else column
        return np.asarray(((fired + 0.5) / self.columns - 1.0) * self._sweep_s)

    def time_offsets_us(self) -> NDArray[np.int32]:
        """(beams, columns) int32: when every ray was measured, microseconds from the end of the sweep, not positive.

        The rotor takes 1 / rate_hz for 360 degrees; all beams of a column fire at once (within 60 microseconds in fact).
        """
        rotor = np.arange(self.columns)[None, :] - self.column_shifts()[:, None]
        rotor = rotor % self.columns if self.azimuth_range_deg >= 360.0 else np.clip(rotor, 0, self.columns - 1)
        end_us = 1e6 * (self.column_times_s() + 0.5 * self._sweep_s / self.columns)
        return np.asarray(np.rint(end_us[rotor]), np.int32)


class RigConfig(BaseModel):
    """The sensors of one car."""

    model_config = _STRICT
    cameras: tuple[CameraConfig, ...] = Field(max_length=16, strict=False)
    lidar: LidarConfig | None = None
    gnss: GnssConfig | None = None
    imu: ImuConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [camera.name for camera in self.cameras] + ([self.lidar.name] if self.lidar else [])
        if len(set(names)) != len(names):
            raise ValueError(f"the sensors of a rig need different names, got {names}")
        if not names:
            raise ValueError("a rig needs at least one sensor: cameras or lidar")
        return self

    @property
    def max_points(self) -> int:
        """Most points that one sweep can have: beams x columns."""
        return self.lidar.beams * self.lidar.columns if self.lidar else 0


def _first_line(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return (
        f"{where}: {problem['msg']}, got {problem['input']!r}"
        if where
        else problem["msg"].removeprefix("Value error, ")
    )


def _evenly(top_deg: float, bottom_deg: float, beams: int) -> tuple[float, ...]:
    return tuple(round(float(e), 4) for e in np.linspace(top_deg, bottom_deg, beams))


def rig(name: str) -> RigConfig:
    """The rig of that name.

    `small`: wide and tele front cameras and a LiDAR with the 32 beams of a Velodyne HDL-32E (+10.67 to -30.67 degrees,
    its user's manual 63-9113). `smoke` is a smaller copy for quick runs, `full` a sharper one. `surround`: six cameras that see
    all around, each overlapping its neighbours by 10 degrees, and an HDL-64E with half its columns. `kitti`, `nuscenes` and
    `pandaset` are the cars of those datasets, in full resolution.

    Raises:
        RigError: there is no such rig.
    """
    match name:
        case "smoke":
            return _front_rig((96, 48), (64, 32), 16, 256)
        case "small":
            return _front_rig((192, 96), (128, 64), 32, 512)
        case "full":
            return _front_rig((384, 192), (256, 128), 32, 1024)
        case "surround":
            return _surround_rig()
        case "kitti":
            return _rig_of(recorded_rigs.kitti())
        case "nuscenes":
            return _rig_of(recorded_rigs.nuscenes())
        case "pandaset":
            return _rig_of(recorded_rigs.pandaset())
        case _:
            raise RigError(f'no rig named "{name}". Known: {", ".join(get_args(RigName))}')


def _front_rig(wide: tuple[int, int], tele: tuple[int, int], beams: int, columns: int) -> RigConfig:
    return RigConfig(
        cameras=(
            CameraConfig(name="camera_wide", width_px=wide[0], height_px=wide[1], horizontal_fov_deg=100.0),
            CameraConfig(name="camera_tele", width_px=tele[0], height_px=tele[1], horizontal_fov_deg=35.0),
        ),
        lidar=LidarConfig(elevations_deg=_evenly(10.67, -30.67, beams), columns=columns),
        gnss=GnssConfig(),
        imu=ImuConfig(),
    )


def _surround_rig() -> RigConfig:
    places = {
        "front": (1.5, 0.0, 0.0), "front_left": (1.3, 0.5, 60.0), "front_right": (1.3, -0.5, -60.0),
        "back_left": (0.9, 0.5, 120.0), "back_right": (0.9, -0.5, -120.0), "back": (-0.6, 0.0, 180.0),
    }  # fmt: skip
    cameras = tuple(
        CameraConfig(
            name=f"camera_{name}", width_px=320, height_px=192, horizontal_fov_deg=70.0,
            mount=Mount(x_m=x, y_m=y, z_m=1.6, yaw_deg=yaw),
        )
        for name, (x, y, yaw) in places.items()
    )  # fmt: skip
    lidar = LidarConfig.of_model("HDL-64E", columns=1024, mount=Mount(x_m=0.9, z_m=1.9))
    return RigConfig(cameras=cameras, lidar=lidar, gnss=GnssConfig(), imu=ImuConfig())


def _rig_of(recorded: RecordedRig) -> RigConfig:
    cameras = tuple(CameraConfig.of(name, calibration) for name, calibration in recorded.cameras.items())
    mount = Mount.of(recorded.ego_from_lidar)
    lidar = LidarConfig.of_model(recorded.lidar_model, rate_hz=recorded.lidar_rate_hz, mount=mount)
    return RigConfig(cameras=cameras, lidar=lidar, gnss=GnssConfig(), imu=ImuConfig())
