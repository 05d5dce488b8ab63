"""The ego as a kinematic or a dynamic single track with actuators. Knows nothing about roads, traffic or sensors.

Kinematic: Rajamani, Vehicle Dynamics and Control, section 2.2, with the rear axle as reference point. Dynamic: section 2.3 with
the front force's share along the car, tyres that saturate (linear to 60 % of what friction allows, then a parabola to all of
it), and less side force while braking (the friction circle). It is integrated so that energy never appears from nowhere: the
turn of the body's frame exactly, then the tyres implicitly, which also holds from standstill upwards.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.numba_setup import KERNEL

VehicleModel = Literal["kinematic", "dynamic"]
VehiclePreset = Literal["compact", "sedan", "van", "truck"]

GRAVITY_MPS2 = 9.81
INNER_STEPS = 4  # of the dynamic model in a substep
LINEAR_SHARE = 0.6
LEAST_SPEED_MPS = 0.05  # below it slip angles are those at this speed


class Vehicle(NamedTuple):
    """One kind of car. Metres, radians, seconds, kilograms.

    length, width, height: of its box. rear_axle: from the rear axle forward to the centre of the box. max_steer, steer_rate,
    steer_lag: of the front wheels. throttle_lag: of engine and brake. max_acceleration, max_brake: m/s2. power: W/kg, so that
    acceleration falls as 1 / speed. rolling: m/s2, drag: 1/m, so that drag * speed**2 is m/s2. max_lateral: m/s2, where the
    kinematic model cuts curvature. dynamic: 1 for the dynamic model, 0 for the kinematic one.
    mass, inertia (kg m2), front (centre of gravity to front axle), gravity_height, friction, front_stiffness, rear_stiffness
    (side force for each radian of slip, as a share of friction times load): the dynamic model's own.
    """

    length: float = 4.6
    width: float = 1.86
    height: float = 1.48
    wheelbase: float = 2.8
    rear_axle: float = 1.35
    max_steer: float = 0.6
    steer_rate: float = 0.9
    steer_lag: float = 0.1
    throttle_lag: float = 0.15
    max_acceleration: float = 3.0
    power: float = 36.0
    max_brake: float = 8.0
    rolling: float = 0.12
    drag: float = 0.0004
    max_lateral: float = 8.0
    dynamic: float = 0.0
    mass: float = 1550.0
    inertia: float = 2700.0
    front: float = 1.3
    gravity_height: float = 0.55
    friction: float = 1.0
    front_stiffness: float = 20.0
    rear_stiffness: float = 22.0


SEDAN = Vehicle()
COMPACT = Vehicle(
    length=3.95, width=1.74, height=1.5, wheelbase=2.5, rear_axle=1.2, max_steer=0.62, max_acceleration=2.8, power=32.0,
    drag=0.0005, mass=1150.0, inertia=1600.0, front=1.1, gravity_height=0.54,
)  # fmt: skip
VAN = Vehicle(
    length=5.9, width=2.02, height=2.5, wheelbase=3.6, rear_axle=1.75, max_steer=0.62, steer_rate=0.8, throttle_lag=0.2,
    max_acceleration=2.4, power=26.0, max_brake=7.5, drag=0.0007, max_lateral=6.0, mass=2300.0, inertia=5600.0, front=1.7,
    gravity_height=0.8, friction=0.9, front_stiffness=16.0, rear_stiffness=17.5,
)  # fmt: skip
TRUCK = Vehicle(
    length=8.4, width=2.5, height=3.4, wheelbase=4.6, rear_axle=2.3, max_steer=0.75, steer_rate=0.6, steer_lag=0.15,
    throttle_lag=0.35, max_acceleration=1.5, power=11.0, max_brake=6.0, rolling=0.08, drag=0.0004, max_lateral=4.0,
    mass=9500.0, inertia=42_000.0, front=2.5, gravity_height=1.3, friction=0.75, front_stiffness=12.0, rear_stiffness=13.5,
)  # fmt: skip


VEHICLE = np.dtype([(name, "f8") for name in Vehicle._fields])


def as_record(vehicle: Vehicle) -> NDArray[np.void]:
    """(1,) `VEHICLE`: the same figures as kernels with parallel loops take them, which cannot take tuples inside tuples."""
    return np.array([tuple(vehicle)], VEHICLE)


def vehicle_of(preset: VehiclePreset, model: VehicleModel) -> Vehicle:
    """The car of that preset, driven by that model."""
    match preset:
        case "compact":
            vehicle = COMPACT
        case "sedan":
            vehicle = SEDAN
        case "van":
            vehicle = VAN
        case "truck":
            vehicle = TRUCK
    return vehicle._replace(dynamic=1.0 if model == "dynamic" else 0.0)


@njit(**KERNEL)
def wanted_acceleration(car: Vehicle, throttle: float, speed_mps: float) -> float:
    """Acceleration in m/s2 that throttle in [-1, 1] asks for at a speed in m/s, resistances left out."""
    if throttle >= 0.0:
        return throttle * min(car.max_acceleration, car.power / max(speed_mps, 1.0))
    return throttle * car.max_brake


@njit(**KERNEL)
def turned_wheels(car: Vehicle, steer_rad: float, steer: float, dt_s: float) -> float:
    """Angle of the front wheels after dt_s on their way to what steer in [-1, 1] asks for: first order, limited in rate."""
    wanted = min(1.0, max(-1.0, steer)) * car.max_steer
    turn = (wanted - steer_rad) * (1.0 - math.exp(-dt_s / car.steer_lag))
    return steer_rad + min(car.steer_rate * dt_s, max(-car.steer_rate * dt_s, turn))


@njit(**KERNEL)
def advance_ego(
    car: Vehicle,
    x_m: float,
    y_m: float,
    yaw_rad: float,
    speed_mps: float,
    drive_mps2: float,
    steer_rad: float,
    slide_mps: float,
    yaw_rate_radps: float,
    steer: float,
    throttle: float,
    dt_s: float,
) -> tuple[float, float, float, float, float, float, float, float]:
    """One physics substep of dt_s seconds.

    x_m, y_m: rear axle, world. speed_mps: of it, forward. drive_mps2: what engine and brake give now. steer_rad: angle of the
    front wheels. slide_mps: velocity of the centre of gravity to the left; yaw_rate_radps: both for the dynamic model only.
    steer, throttle: the action, in [-1, 1]. car: a `Vehicle` or a record of `VEHICLE`.

    Returns: x, y, yaw, speed, drive, steer_rad, slide and yaw rate after it; of the kinematic model the slide is 0 and the yaw
    rate is that during the substep. Speed never falls below zero.
    """
    steer_rad = turned_wheels(car, steer_rad, steer, dt_s)
    target = wanted_acceleration(car, min(1.0, max(-1.0, throttle)), speed_mps)
    drive_mps2 = drive_mps2 + (target - drive_mps2) * (1.0 - math.exp(-dt_s / car.throttle_lag))
    if car.dynamic > 0.5:
        for _ in range(INNER_STEPS):
            x_m, y_m, yaw_rad, speed_mps, slide_mps, yaw_rate_radps = _slide(
                car, x_m, y_m, yaw_rad, speed_mps, slide_mps, yaw_rate_radps, drive_mps2, steer_rad, dt_s / INNER_STEPS
            )
        return x_m, y_m, yaw_rad, speed_mps, drive_mps2, steer_rad, slide_mps, yaw_rate_radps

    resistance = car.rolling + car.drag * speed_mps * speed_mps
    if speed_mps <= 0.0 and drive_mps2 <= resistance:
        new_speed = 0.0
    else:
        new_speed = max(0.0, speed_mps + (drive_mps2 - resistance) * dt_s)
    distance = 0.5 * (speed_mps + new_speed) * dt_s
    # Along the substep curvature and acceleration are constant, so the path is an exact arc.
    curvature = math.tan(steer_rad) / car.wheelbase
    most = car.max_lateral / max(speed_mps * speed_mps, 1.0)
    curvature = min(most, max(-most, curvature))
    turned = distance * curvature
    half = 0.5 * turned
    chord = distance * (math.sin(half) / half if abs(half) > 1e-6 else 1.0)
    x_m = x_m + chord * math.cos(yaw_rad + half)
    y_m = y_m + chord * math.sin(yaw_rad + half)
    return x_m, y_m, yaw_rad + turned, new_speed, drive_mps2, steer_rad, 0.0, turned / dt_s


@njit(**KERNEL)
def _resistance_across(most_n: float, stiffness_n: float, across_mps: float, along_mps: float) -> float:
    """Side force of an axle for each m/s that it moves across its wheels, N s/m.

    The force is stiffness_n (N/rad) times the slip angle up to LINEAR_SHARE of most_n, then a parabola that ends at most_n.
    """
    slip = math.atan2(abs(across_mps), along_mps)
    u = stiffness_n * slip / max(most_n, 1e-9)
    share = u
    if u > LINEAR_SHARE:
        bend = min(u, 2.0 - LINEAR_SHARE) - LINEAR_SHARE
        share = LINEAR_SHARE + bend - bend * bend / (4.0 * (1.0 - LINEAR_SHARE))
    if abs(across_mps) < 1e-6:
        return stiffness_n / max(along_mps, LEAST_SPEED_MPS)
    slow = min(1.0, math.hypot(across_mps, along_mps) / LEAST_SPEED_MPS)
    return slow * share * most_n / abs(across_mps)


@njit(**KERNEL)
def _slide(
    car: Vehicle,
    x_m: float,
    y_m: float,
    yaw_rad: float,
    speed_mps: float,
    slide_mps: float,
    yaw_rate_radps: float,
    drive_mps2: float,
    steer_rad: float,
    dt_s: float,
) -> tuple[float, float, float, float, float, float]:
    """One inner step of the dynamic model: x, y, yaw, speed, slide and yaw rate after dt_s.

    Kinetic energy afterwards is at most what it was plus the work of the drive force: the turn of the frame keeps it, and
    M q' = M q + dt (F - k1 b1 b1' q' - k2 b2 b2' q') with k1, k2 >= 0 takes from it, whatever dt.
    """
    rear = car.wheelbase - car.front
    turn = yaw_rate_radps * dt_s
    forward = speed_mps * math.cos(turn) + slide_mps * math.sin(turn)
    aside = slide_mps * math.cos(turn) - speed_mps * math.sin(turn)

    most = car.friction * GRAVITY_MPS2
    push = min(most, max(-most, drive_mps2))
    hold = math.sqrt(max(1.0 - (push / most) * (push / most), 0.05))
    resistance = car.rolling + car.drag * forward * forward
    shift = (push - resistance if forward > 0.0 else 0.0) * car.gravity_height / GRAVITY_MPS2
    front_load = car.mass * GRAVITY_MPS2 * max(rear - shift, 0.0) / car.wheelbase
    rear_load = car.mass * GRAVITY_MPS2 * max(car.front + shift, 0.0) / car.wheelbase

    c, s = math.cos(steer_rad), math.sin(steer_rad)
    front_side = aside + car.front * yaw_rate_radps
    front_across, front_along = front_side * c - forward * s, abs(front_side * s + forward * c)
    rear_across, rear_along = aside - rear * yaw_rate_radps, abs(forward)
    front_most, rear_most = car.friction * front_load, car.friction * rear_load
    front_k = _resistance_across(front_most * hold, front_most * car.front_stiffness, front_across, front_along)
    rear_k = _resistance_across(rear_most * hold, rear_most * car.rear_stiffness, rear_across, rear_along)

    # (M + dt k1 b1 b1' + dt k2 b2 b2') q' = M q + dt F with q = (forward, aside, yaw rate), solved by Sherman and Morrison twice.
    force = push - resistance if forward > 0.0 else max(push - resistance, 0.0)
    q1 = forward + dt_s * force
    if force < 0.0:
        q1 = max(q1, 0.0)
    q2, q3 = aside, yaw_rate_radps
    m, j = car.mass, car.inertia
    b2, b3 = 1.0, -rear
    w2, w3 = b2 / m, b3 / j
    gain = dt_s * rear_k / (1.0 + dt_s * rear_k * (b2 * w2 + b3 * w3))
    across = gain * (b2 * q2 + b3 * q3)
    q2, q3 = q2 - w2 * across, q3 - w3 * across
    a1, a2, a3 = -s, c, car.front * c
    v1, v2, v3 = a1 / m, a2 / m, a3 / j
    mixed = gain * (w2 * a2 + w3 * a3)
    v2, v3 = v2 - w2 * mixed, v3 - w3 * mixed
    across = dt_s * front_k * (a1 * q1 + a2 * q2 + a3 * q3) / (1.0 + dt_s * front_k * (a1 * v1 + a2 * v2 + a3 * v3))
    q1, q2, q3 = max(q1 - v1 * across, 0.0), q2 - v2 * across, q3 - v3 * across

    mean_turn = 0.5 * (yaw_rate_radps + q3) * dt_s
    middle = yaw_rad + 0.5 * mean_turn
    ahead = 0.5 * (speed_mps + q1) * dt_s
    left = 0.5 * (slide_mps - rear * yaw_rate_radps + q2 - rear * q3) * dt_s
    x_m = x_m + ahead * math.cos(middle) - left * math.sin(middle)
    y_m = y_m + ahead * math.sin(middle) + left * math.cos(middle)
    return x_m, y_m, yaw_rad + mean_turn, q1, q2, q3
