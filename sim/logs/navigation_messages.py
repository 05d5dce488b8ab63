"""What GNSS and IMU say, checked; from messages of ROS too. Knows their fields; knows nothing about containers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.sensors import GnssFix
from sim.logs.recorded import FASTEST, MessageError, RecordedFix, RecordedImu

NO_FIX = -1  # sensor_msgs/NavSatStatus
UNKNOWN = -1.0  # first covariance of an IMU's quantity that it does not measure
HARDEST_MPS2 = 1e4


def recorded_fix(
    timestamp_us: int,
    latitude_deg: float,
    longitude_deg: float,
    altitude_m: float,
    covariance: NDArray[np.float64] | None,
) -> RecordedFix:
    """covariance: (9,) of east, north, up in m2, None where it is not known. Raises MessageError where it is no place on earth."""
    if not (abs(latitude_deg) <= 90.0 and abs(longitude_deg) <= 360.0 and abs(altitude_m) < 1e6):
        raise MessageError("GNSS fix that is no place on earth")
    variances = (math.nan, math.nan) if covariance is None else (0.5 * (covariance[0] + covariance[4]), covariance[8])
    horizontal_m, vertical_m = (math.sqrt(v) if v >= 0.0 else math.nan for v in map(float, variances))
    velocity = np.full(3, np.nan)
    return RecordedFix(
        GnssFix(timestamp_us, latitude_deg, longitude_deg, altitude_m, velocity, horizontal_m, vertical_m)
    )


def nav_sat_fix(decoded: Any, timestamp_us: int) -> RecordedFix:
    """Of a sensor_msgs/NavSatFix. Raises MessageError where the receiver had none."""
    if int(decoded.status.status) == NO_FIX:
        raise MessageError("GNSS without a fix")
    known = int(decoded.position_covariance_type) != 0
    covariance = np.asarray(decoded.position_covariance, np.float64) if known else None
    place = float(decoded.latitude), float(decoded.longitude), float(decoded.altitude)
    return recorded_fix(timestamp_us, *place, covariance)


def imu_sample(decoded: Any, frame_id: str, timestamp_us: int) -> RecordedImu:
    """Of a sensor_msgs/Imu. Raises MessageError where it does not measure both, or measures nonsense."""
    for name in ("linear_acceleration", "angular_velocity"):
        if float(getattr(decoded, f"{name}_covariance")[0]) == UNKNOWN:
            raise MessageError(f"IMU without {name.replace('_', ' ')}")
    force, rate = decoded.linear_acceleration, decoded.angular_velocity
    return recorded_imu(frame_id, timestamp_us, [force.x, force.y, force.z], [rate.x, rate.y, rate.z])


def recorded_imu(frame_id: str, timestamp_us: int, force: list[float], rate: list[float]) -> RecordedImu:
    """Raises MessageError where a number is not finite, or more than any car knows."""
    acceleration, turning = np.array(force, np.float64), np.array(rate, np.float64)
    if not ((np.abs(acceleration) <= HARDEST_MPS2).all() and (np.abs(turning) <= FASTEST).all()):
        raise MessageError("IMU sample of what no car knows")
    return RecordedImu(frame_id, timestamp_us, acceleration, turning)
