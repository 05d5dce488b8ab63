"""GNSS and IMU of the ego: truth from the world's state, with the errors that such sensors have.

Knows the state of the world, the Earth's shape and counter-based random numbers; knows nothing about maps, cameras or logs.
All errors belong to (seed, episode, tick), so they are the same whatever runs beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.geometry import rotation_from_euler
from perception.sensors import GnssFix, ImuSamples
from sim.counter_random import Purpose, hash_key, nth_uniform
from sim.sensors.mount import GeoOrigin, GnssConfig, ImuConfig
from sim.world import EGO, TICK_US, WorldState

Float = NDArray[np.float64]
GRAVITY_MPS2 = 9.80665
# WGS 84: equatorial radius and flattening.
_RADIUS_M, _FLATTENING = 6_378_137.0, 1 / 298.257223563
_ECCENTRICITY_2 = _FLATTENING * (2 - _FLATTENING)
_GNSS, _IMU = int(Purpose.GNSS), int(Purpose.IMU)


@dataclass(frozen=True)
class NavigationFrame:
    """What GNSS and IMU say at one tick. gnss: None between fixes, or without a receiver; imu: None without one."""

    gnss: GnssFix | None
    imu: ImuSamples | None


def ecef_from_geodetic(latitude_deg: float, longitude_deg: float, altitude_m: float) -> Float:
    """Earth-centred, Earth-fixed position (3,) float64 in metres of a WGS 84 position."""
    latitude, longitude = math.radians(latitude_deg), math.radians(longitude_deg)
    across = _RADIUS_M / math.sqrt(1 - _ECCENTRICITY_2 * math.sin(latitude) ** 2)
    level = (across + altitude_m) * math.cos(latitude)
    return np.array(
        [
            level * math.cos(longitude),
            level * math.sin(longitude),
            (across * (1 - _ECCENTRICITY_2) + altitude_m) * math.sin(latitude),
        ]
    )


def geodetic_from_ecef(position: Float) -> tuple[float, float, float]:
    """Latitude and longitude in degrees and altitude in metres (WGS 84) of a position (3,) near the Earth's surface.

    Fixed-point iteration on the latitude, which gains a factor of 150 or more each time.
    """
    x, y, z = (float(v) for v in position)
    level = math.hypot(x, y)
    latitude = math.atan2(z, level * (1 - _ECCENTRICITY_2))
    across = _RADIUS_M
    for _ in range(8):
        across = _RADIUS_M / math.sqrt(1 - _ECCENTRICITY_2 * math.sin(latitude) ** 2)
        latitude = math.atan2(z + _ECCENTRICITY_2 * across * math.sin(latitude), level)
    across = _RADIUS_M / math.sqrt(1 - _ECCENTRICITY_2 * math.sin(latitude) ** 2)
    # Of the two forms of the altitude this one is exact at the equator and at the poles.
    altitude = level * math.cos(latitude) + z * math.sin(latitude) - _RADIUS_M**2 / across
    return math.degrees(latitude), math.degrees(math.atan2(y, x)), altitude


def ecef_from_enu(origin: GeoOrigin) -> tuple[Float, Float]:
    """Rotation (3, 3) and translation (3,) that take east, north, up at an origin to Earth-centred, Earth-fixed axes."""
    latitude, longitude = math.radians(origin.latitude_deg), math.radians(origin.longitude_deg)
    sin_lat, cos_lat, sin_lon, cos_lon = (
        math.sin(latitude),
        math.cos(latitude),
        math.sin(longitude),
        math.cos(longitude),
    )
    rotation = np.array(
        [
            [-sin_lon, -sin_lat * cos_lon, cos_lat * cos_lon],
            [cos_lon, -sin_lat * sin_lon, cos_lat * sin_lon],
            [0.0, cos_lat, sin_lat],
        ]
    )
    return rotation, ecef_from_geodetic(origin.latitude_deg, origin.longitude_deg, origin.altitude_m)


@njit(cache=True)
def _normals(seed, episode, tick, purpose, first, out):
    """Fill out with standard normal numbers of one tick, from the first-th on (Box and Muller, 1958)."""
    key = hash_key(np.uint64(seed), episode, tick, 0, purpose)
    for k in range(out.shape[0]):
        n = 2 * (first + k)
        away = math.sqrt(-2.0 * math.log(1.0 - nth_uniform(key, n)))
        out[k] = away * math.cos(2 * math.pi * nth_uniform(key, n + 1))


@njit(cache=True)
def _walk(seed, episode, since, until, purpose, out):
    """Sum of the standard normal steps of the ticks since < tick <= until; tick 0 is the start. out: (6,)."""
    step = np.zeros(6)
    for tick in range(since + 1, until + 1):
        _normals(seed, episode, tick, purpose, 0, step)
        out += step


class Navigation:
    """GNSS and IMU of E environments. Call `observe` after every tick; it may skip some, and an episode may start at any time.

    Where the same episode is played again, or an environment goes back within one, `begin` has to be told.
    """

    def __init__(self, gnss: GnssConfig | None, imu: ImuConfig | None, num_envs: int) -> None:
        self.gnss, self.imu = gnss, imu
        self._frames: list[NavigationFrame | None] = [None] * num_envs  # of the last tick
        self._walks = {purpose: np.zeros((num_envs, 6)) for purpose in (_GNSS, _IMU)}
        self._seed = np.zeros(num_envs, np.uint64)
        self._episode = np.full(num_envs, -1, np.int64)
        self._tick = np.zeros(num_envs, np.int64)
        self._motion = np.zeros((num_envs, 3))  # of the last tick: forward and lateral acceleration, yaw rate
        self._ecef = None if gnss is None else ecef_from_enu(gnss.origin)

    def begin(self, started: NDArray[np.bool_]) -> None:
        """Forget what was sensed before in the environments `started` (E,)."""
        self._episode[started] = -1

    def observe(self, state: WorldState, e: int) -> NavigationFrame:
        """What environment e's sensors say at the tick of the state; asked again, they say the same."""
        seed, episode, tick = state.seed[e], int(state.episode[e]), int(state.tick[e])
        speed, yaw_rate = float(state.speed_mps[e, EGO]), float(state.yaw_rate_radps[e, EGO])
        motion = np.array([float(state.acceleration_mps2[e, EGO]), speed * yaw_rate, yaw_rate])
        last = self._frames[e]
        if last is not None and (seed, episode, tick) == (self._seed[e], self._episode[e], self._tick[e]):
            return last
        if seed != self._seed[e] or episode != self._episode[e] or tick < self._tick[e]:
            self._seed[e], self._episode[e], self._tick[e] = seed, episode, -1
            self._motion[e] = motion
            for walk in self._walks.values():
                walk[e] = 0.0
        for purpose, walk in self._walks.items():
            _walk(seed, episode, max(self._tick[e], 0), tick, purpose, walk[e])
        frame = NavigationFrame(
            None if self.gnss is None or tick % self.gnss.every else self._fix(self.gnss, state, e),
            None if self.imu is None else self._samples(self.imu, state, e, motion),
        )
        self._tick[e], self._motion[e] = tick, motion
        self._frames[e] = frame
        return frame

    def _draws(self, state: WorldState, e: int, purpose: int, tick: int, first: int, count: int) -> Float:
        out = np.zeros(count)
        _normals(state.seed[e], int(state.episode[e]), tick, purpose, first, out)
        return out

    def _fix(self, c: GnssConfig, state: WorldState, e: int) -> GnssFix:
        tick = int(state.tick[e])
        yaw, speed, yaw_rate = (float(a[e, EGO]) for a in (state.yaw_rad, state.speed_mps, state.yaw_rate_radps))
        turn = rotation_from_euler(yaw)
        axle = np.array([state.x_m[e, EGO], state.y_m[e, EGO], 0.0]) - turn[:, 0] * state.rear_axle_m[e, EGO]
        arm = np.array([c.mount.x_m, c.mount.y_m, c.mount.z_m])
        velocity = turn @ np.array([speed - yaw_rate * arm[1], yaw_rate * arm[0], 0.0])
        across = np.array([c.horizontal_bias_m, c.horizontal_bias_m, c.vertical_bias_m])
        bias = across * self._draws(state, e, _GNSS, 0, 6, 3)
        # An axis walks in proportion to its bias: the height by more than the plane.
        share = across / max(c.horizontal_bias_m, 1e-9) if c.horizontal_bias_m > 0 else np.ones(3)
        bias += c.bias_walk_m * math.sqrt(TICK_US / 1e6) * share * self._walks[_GNSS][e, :3]
        white = np.array([c.horizontal_noise_m, c.horizontal_noise_m, c.vertical_noise_m])
        draws = self._draws(state, e, _GNSS, tick, 9, 6)
        assert self._ecef is not None
        rotation, translation = self._ecef
        enu = axle + turn @ arm + bias + white * draws[:3]
        latitude, longitude, altitude = geodetic_from_ecef(rotation @ enu + translation)
        return GnssFix(
            timestamp_us=tick * TICK_US,
            latitude_deg=latitude,
            longitude_deg=longitude,
            altitude_m=altitude,
            velocity_mps=velocity + c.velocity_noise_mps * draws[3:],
            horizontal_m=math.hypot(c.horizontal_bias_m, c.horizontal_noise_m),
            vertical_m=math.hypot(c.vertical_bias_m, c.vertical_noise_m),
        )

    def _samples(self, c: ImuConfig, state: WorldState, e: int, motion: Float) -> ImuSamples:
        """Motion is taken to change evenly from the last tick that was observed to this one, in the plane."""
        tick, count = int(state.tick[e]), c.rate_hz // 10
        share = np.arange(1, count + 1) / count
        ticks = max(tick - int(self._tick[e]), 1)
        since = (ticks - 1 + share[:, None]) / ticks  # the same of the time since then
        forward, lateral, yaw_rate = (self._motion[e] + since * (motion - self._motion[e])).T
        yaw_acceleration = (motion[2] - self._motion[e, 2]) / (ticks * TICK_US / 1e6)
        x, y = c.mount.x_m, c.mount.y_m
        # At the end of a lever arm (Groves, 2013, section 2.4.2): turning adds to what the rear axle feels.
        force = np.column_stack(
            [
                forward - yaw_acceleration * y - yaw_rate**2 * x,
                lateral + yaw_acceleration * x - yaw_rate**2 * y,
                np.full(count, GRAVITY_MPS2),
            ]
        )
        rate = np.column_stack([np.zeros(count), np.zeros(count), yaw_rate])
        ego_from_imu = c.mount.ego_from_mount()[:3, :3]
        start = self._draws(state, e, _IMU, 0, 6, 6) * np.repeat([c.acceleration_bias_mps2, c.gyro_bias_radps], 3)
        walked = self._walks[_IMU][e] * np.repeat([c.acceleration_bias_walk, c.gyro_bias_walk], 3)
        bias = start + walked * math.sqrt(TICK_US / 1e6)
        density = np.repeat([c.acceleration_noise, c.gyro_noise], 3) * math.sqrt(c.rate_hz)
        noise = bias + density * self._draws(state, e, _IMU, tick, 12, 6 * count).reshape(count, 6)
        timestamps = tick * TICK_US - np.rint((1 - share) * TICK_US).astype(np.int64)
        return ImuSamples(timestamps, force @ ego_from_imu + noise[:, :3], rate @ ego_from_imu + noise[:, 3:])
