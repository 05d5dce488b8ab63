"""The ego as a kinematic single track with actuators. Knows nothing about roads, traffic or sensors.

Model: Rajamani, Vehicle Dynamics and Control, section 2.2, with the rear axle as reference point.
"""

from __future__ import annotations

import math

from numba import njit

from sim.numba_setup import KERNEL

LENGTH_M = 4.6
WIDTH_M = 1.86
HEIGHT_M = 1.48
WHEELBASE_M = 2.8
REAR_AXLE_M = 1.35  # rear axle to the centre of the box
MAX_STEER_RAD = 0.6
STEER_RATE_RADPS = 0.9
STEER_LAG_S = 0.1
THROTTLE_LAG_S = 0.15
MAX_ACCELERATION_MPS2 = 3.0
POWER_PER_MASS_WPKG = 36.0  # so that acceleration falls as 1 / speed from 12 m/s on
MAX_BRAKE_MPS2 = 8.0
ROLLING_MPS2 = 0.12
DRAG_PER_M = 0.0004
MAX_LATERAL_MPS2 = 8.0  # beyond it the tyres would slide: curvature is cut there


@njit(**KERNEL)
def wanted_acceleration(throttle: float, speed_mps: float) -> float:
    """Acceleration in m/s2 that throttle in [-1, 1] asks for at a speed in m/s, resistances left out."""
    if throttle >= 0.0:
        return throttle * min(MAX_ACCELERATION_MPS2, POWER_PER_MASS_WPKG / max(speed_mps, 1.0))
    return throttle * MAX_BRAKE_MPS2


@njit(**KERNEL)
def advance_ego(
    x_m: float,
    y_m: float,
    yaw_rad: float,
    speed_mps: float,
    drive_mps2: float,
    steer_rad: float,
    steer: float,
    throttle: float,
    dt_s: float,
) -> tuple[float, float, float, float, float, float, float]:
    """One physics substep of dt_s seconds.

    x_m, y_m: rear axle, world. drive_mps2: what engine and brake give now. steer_rad: angle of the front wheels.
    steer, throttle: the action, in [-1, 1].

    Returns: x, y, yaw, speed, drive, steer_rad after it, and the yaw rate in rad/s during it. Speed never falls below
    zero. Along the substep curvature and acceleration are constant, so the path is an exact arc.
    """
    wanted = min(1.0, max(-1.0, steer)) * MAX_STEER_RAD
    turn = (wanted - steer_rad) * (1.0 - math.exp(-dt_s / STEER_LAG_S))
    turn = min(STEER_RATE_RADPS * dt_s, max(-STEER_RATE_RADPS * dt_s, turn))
    steer_rad = steer_rad + turn

    target = wanted_acceleration(min(1.0, max(-1.0, throttle)), speed_mps)
    drive_mps2 = drive_mps2 + (target - drive_mps2) * (1.0 - math.exp(-dt_s / THROTTLE_LAG_S))
    resistance = ROLLING_MPS2 + DRAG_PER_M * speed_mps * speed_mps
    if speed_mps <= 0.0 and drive_mps2 <= resistance:
        new_speed = 0.0
    else:
        new_speed = max(0.0, speed_mps + (drive_mps2 - resistance) * dt_s)
    distance = 0.5 * (speed_mps + new_speed) * dt_s

    curvature = math.tan(steer_rad) / WHEELBASE_M
    most = MAX_LATERAL_MPS2 / max(speed_mps * speed_mps, 1.0)
    curvature = min(most, max(-most, curvature))
    turned = distance * curvature
    half = 0.5 * turned
    chord = distance * (math.sin(half) / half if abs(half) > 1e-6 else 1.0)
    x_m = x_m + chord * math.cos(yaw_rad + half)
    y_m = y_m + chord * math.sin(yaw_rad + half)
    yaw_rad = yaw_rad + turned
    return x_m, y_m, yaw_rad, new_speed, drive_mps2, steer_rad, turned / dt_s
