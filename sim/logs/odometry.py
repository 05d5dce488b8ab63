"""How the car of a recording moved: its state, the path it took, and the action that this amounts to.

Knows poses over time; knows nothing about messages or sensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.geometry import inverse, transform, wrap_angle, yaw_of
from perception.sensors import ROUTE_POINTS, ROUTE_SPACING_M, EgoState
from planning.action import Action
from sim.dynamics import SEDAN, wanted_acceleration

ACTION_US = 100_000
JITTER_M = 0.25
SLOWEST_MPS = 0.5  # below it yaw rate over speed says nothing about the front wheels


@dataclass(frozen=True)
class Odometry:
    """N samples in order of time.

    timestamp_us: (N,) int64, increasing. world_from_ego: (N, 4, 4) float64. speed_mps, yaw_rate_radps: (N,) float64.
    """

    timestamp_us: NDArray[np.int64]
    world_from_ego: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    yaw_rate_radps: NDArray[np.float64]

    def newest(self, timestamp_us: int) -> int | None:
        """Index of the newest sample at or before that time, None where there is none."""
        index = int(np.searchsorted(self.timestamp_us, timestamp_us, side="right")) - 1
        return index if index >= 0 else None

    def is_silent(self, timestamp_us: int, max_age_us: int) -> bool:
        """Whether the newest sample is older than max_age_us: what happened since is not recorded."""
        index = self.newest(timestamp_us)
        return index is not None and timestamp_us - int(self.timestamp_us[index]) > max_age_us

    def ego_state(self, timestamp_us: int, max_age_us: int) -> EgoState | None:
        """State of the newest sample, if it is no older than max_age_us; acceleration is that since the sample before.

        The last action is the estimated one of the 0.1 s before.
        """
        index = self.newest(timestamp_us)
        if index is None or self.is_silent(timestamp_us, max_age_us):
            return None
        acceleration = 0.0
        if index > 0:
            elapsed_s = float(self.timestamp_us[index] - self.timestamp_us[index - 1]) / 1e6
            acceleration = float(self.speed_mps[index] - self.speed_mps[index - 1]) / elapsed_s
        last = self.estimated_action(int(self.timestamp_us[index]) - ACTION_US)
        return EgoState(
            timestamp_us=int(self.timestamp_us[index]),
            speed_mps=float(self.speed_mps[index]),
            acceleration_mps2=acceleration,
            yaw_rate_radps=float(self.yaw_rate_radps[index]),
            last_steer=last.steer if last else 0.0,
            last_throttle=last.throttle if last else 0.0,
            world_from_ego=self.world_from_ego[index],
        )

    def estimated_action(self, timestamp_us: int) -> Action | None:
        """The action that explains the motion during the 0.1 s that follow; None where they are not recorded.

        An estimate: it inverts the ego model of the simulator (sim/dynamics.py, wheelbase and limits of a middle-sized
        car) without the lag of its actuators. throttle = (dv/dt + resistance) / what the engine or the brake can give;
        steer = atan(wheelbase * yaw rate / speed) / largest steering angle. Speed and yaw rate are interpolated.
        """
        first, last = int(self.timestamp_us[0]), int(self.timestamp_us[-1])
        if timestamp_us < first - ACTION_US // 2 or timestamp_us + ACTION_US > last + ACTION_US // 2:
            return None
        speed, yaw_rate = (
            [float(np.interp(timestamp_us + at, self.timestamp_us, values)) for at in (0, ACTION_US // 2, ACTION_US)]
            for values in (self.speed_mps, self.yaw_rate_radps)
        )
        acceleration = (speed[2] - speed[0]) / (ACTION_US / 1e6)
        standing = max(abs(v) for v in speed) < 0.05
        wanted = acceleration + (0.0 if standing else SEDAN.rolling + SEDAN.drag * speed[1] ** 2)
        if wanted >= 0:
            throttle = wanted / wanted_acceleration(SEDAN, 1.0, max(0.0, speed[1]))
        else:
            throttle = wanted / SEDAN.max_brake
        steer = 0.0
        if abs(speed[1]) >= SLOWEST_MPS:
            steer = math.atan(SEDAN.wheelbase * yaw_rate[1] / speed[1]) / SEDAN.max_steer
        return Action(steer=min(1.0, max(-1.0, steer)), throttle=min(1.0, max(-1.0, throttle)))

    def path_ahead(self, timestamp_us: int) -> NDArray[np.float32] | None:
        """The path that the car took afterwards as a route: (ROUTE_POINTS, 2) float32, metres, in ego at that time.

        Points are ROUTE_SPACING_M apart along the path, from that distance ahead on; where the recording ends, its last
        one is repeated. Samples closer than JITTER_M to the one before are left out, or a standing car's would add up
        to a path. None before the first sample.
        """
        index = self.newest(timestamp_us)
        if index is None:
            return None
        positions = transform(inverse(self.world_from_ego[index]), self.world_from_ego[index:, :3, 3])[:, :2]
        positions = positions[_apart(positions)]
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(positions, axis=0), axis=1))])
        wanted = ROUTE_SPACING_M * np.arange(1, ROUTE_POINTS + 1)
        columns = [np.interp(wanted, along, positions[:, axis]) for axis in (0, 1)]
        return np.stack(columns, axis=1).astype(np.float32)


def _apart(positions: NDArray[np.float64]) -> list[int]:
    """Indices of positions (N, 2), the first always, each at least JITTER_M from the one kept before it."""
    kept = [0]
    for index in range(1, len(positions)):
        if math.dist(positions[index], positions[kept[-1]]) >= JITTER_M:
            kept.append(index)
        if len(kept) > ROUTE_POINTS * ROUTE_SPACING_M / JITTER_M:
            break
    return kept


def odometry_from_samples(
    timestamp_us: Sequence[int],
    world_from_ego: Sequence[NDArray[np.float64]],
    speed_mps: Sequence[float | None],
    yaw_rate_radps: Sequence[float | None],
) -> Odometry | None:
    """Samples in any order as `Odometry`; of equal times the first is kept. None without samples.

    Where speed or yaw rate is missing, not finite, or zero throughout although the car moves, poses give it.
    """
    if not timestamp_us:
        return None
    times, order = np.unique(np.asarray(timestamp_us, np.int64), return_index=True)
    poses = np.asarray(world_from_ego, np.float64)[order]
    speed = np.array([math.nan if v is None else v for v in speed_mps])[order]
    yaw_rate = np.array([math.nan if v is None else v for v in yaw_rate_radps])[order]
    if len(times) > 1:
        elapsed_s = np.diff(times) / 1e6
        forward = np.einsum("ij,ij->i", np.diff(poses[:, :3, 3], axis=0), poses[:-1, :3, 0]) / elapsed_s
        turning = wrap_angle(np.diff([yaw_of(pose) for pose in poses])) / elapsed_s
        moves = float(np.abs(forward).max()) > 0.5
        if not np.isfinite(speed).all() or (moves and not speed.any()):
            speed = np.append(forward, forward[-1])
        if not np.isfinite(yaw_rate).all() or (moves and not yaw_rate.any()):
            yaw_rate = np.append(turning, turning[-1])
    return Odometry(times, poses, np.nan_to_num(speed), np.nan_to_num(yaw_rate))
