"""The rule-based driver: pure pursuit on the route, IDM to the leader, stops for lights and right of way.

Knows `Situation` and the ego observation; knows nothing about the simulator. Pure pursuit: Coulter, CMU-RI-TR-92-01 (1992).
IDM: Treiber, Hennecke and Helbing, Phys. Rev. E 62 (2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.sensors import ROUTE_POINTS, ROUTE_SPACING_M
from planning.policy import Observation, SignalState, Situation

Float = NDArray[np.float64]


@dataclass(frozen=True)
class RouteFollower:
    """A careful driver of N cars at once. The car's figures must be those of the car that it drives.

    wheelbase_m, max_steer_rad: of the car; max_acceleration_mps2, power_wpkg, max_brake_mps2: what full throttle (falling
    with speed as power / speed) and full brake give; rolling_mps2, drag_per_m: what slows it by itself.
    limit_share: wanted share of the speed limit. lateral_mps2: in curves. comfort_brake_mps2: towards curves and leaders.
    line_gap_m: between front bumper and line when stopped. oncoming_s, oncoming_brake_mps2: who comes towards the car in its
    own lane, and would meet it within that time, is braked for so hard at once.
    """

    wheelbase_m: float = 2.8
    max_steer_rad: float = 0.6
    max_acceleration_mps2: float = 3.0
    power_wpkg: float = 36.0
    max_brake_mps2: float = 8.0
    rolling_mps2: float = 0.12
    drag_per_m: float = 0.0004
    limit_share: float = 0.95
    lateral_mps2: float = 2.0
    acceleration_mps2: float = 1.8
    comfort_brake_mps2: float = 2.0
    hard_brake_mps2: float = 6.5
    oncoming_s: float = 4.5
    oncoming_brake_mps2: float = 4.0
    headway_s: float = 1.4
    standstill_gap_m: float = 2.5
    line_gap_m: float = 1.0

    @property
    def name(self) -> str:
        return "expert"

    def reset(self, started: NDArray[np.bool_]) -> None:
        """Nothing is remembered from tick to tick."""

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        """Actions (N, 2) float32.

        Raises:
            ValueError: there is no privileged view.
        """
        if situation is None:
            raise ValueError(
                "the expert needs the privileged situation, which recorded logs do not hold; use a checkpoint"
            )
        speed = situation.speed_mps
        acceleration = self._acceleration(situation, speed)
        actions = np.empty((len(speed), 2), np.float32)
        actions[:, 0] = self._steer(_path(situation), speed)
        actions[:, 1] = self._throttle(acceleration, speed)
        return actions

    def _steer(self, route: Float, speed: Float) -> Float:
        """Pure pursuit: the arc through the point of the route that is one lookahead distance away."""
        lookahead = np.clip(2.8 + 0.45 * speed, 3.6, 14.0)
        path = np.concatenate([np.zeros((len(route), 1, 2)), route], axis=1)
        away = np.hypot(path[..., 0], path[..., 1])
        rows = np.arange(len(route))
        beyond = away >= lookahead[:, None]
        index = np.where(beyond.any(axis=1), np.argmax(beyond, axis=1), path.shape[1] - 1)
        low, high = path[rows, np.maximum(index - 1, 0)], path[rows, index]
        near, far = away[rows, np.maximum(index - 1, 0)], away[rows, index]
        share = np.clip((lookahead - near) / np.maximum(far - near, 1e-6), 0.0, 1.0)
        goal = low + (high - low) * share[:, None]
        squared = np.maximum(goal[:, 0] ** 2 + goal[:, 1] ** 2, 1.0)
        angle = np.arctan(2.0 * self.wheelbase_m * goal[:, 1] / squared)
        return np.asarray(np.clip(angle / self.max_steer_rad, -1.0, 1.0))

    def _wanted_speed(self, situation: Situation) -> Float:
        """Limit and curves ahead, each reached in comfort; (N,) m/s."""
        points = _path(situation)
        path = np.concatenate([np.zeros((len(points), 1, 2)), points], axis=1)
        steps = np.diff(path, axis=1)
        length = np.hypot(steps[..., 0], steps[..., 1])
        yaw = np.arctan2(steps[..., 1], steps[..., 0])
        turn = np.abs((np.diff(yaw, axis=1) + np.pi) % (2 * np.pi) - np.pi)
        real = (length[:, 1:] > 0.5) & (length[:, :-1] > 0.5)
        curvature = np.where(real, turn / ROUTE_SPACING_M, 0.0)
        smooth = curvature.copy()  # a curve is no sharper than it is over two pieces
        smooth[:, 1:] = 0.5 * (curvature[:, 1:] + curvature[:, :-1])
        cap = np.sqrt(self.lateral_mps2 / np.maximum(smooth, 1e-3))
        distance = ROUTE_SPACING_M * np.arange(1, ROUTE_POINTS) - ROUTE_SPACING_M
        reached = np.sqrt(cap**2 + 2.0 * 1.3 * np.maximum(distance, 0.0))
        return np.asarray(np.minimum(self.limit_share * situation.speed_limit_mps, reached.min(axis=1)))

    def _acceleration(self, situation: Situation, speed: Float) -> Float:
        """Wanted acceleration (N,), m/s2."""
        wanted = np.maximum(self._wanted_speed(situation), 0.5)
        most, brake = self.acceleration_mps2, self.comfort_brake_mps2
        faster = most * (1.0 - (speed / wanted) ** 4)
        slower = -brake * np.minimum(1.5 * (speed / wanted - 1.0) * 4.0, 2.0)
        result = np.where(speed <= wanted, faster, slower)
        result = np.minimum(result, self._follow(speed, situation.leader_gap_m, situation.leader_speed_mps, wanted))

        closing = speed - situation.leader_speed_mps
        meets = (situation.leader_speed_mps < -1.0) & (situation.leader_gap_m < self.oncoming_s * closing)
        result = np.where(meets, np.minimum(result, -self.oncoming_brake_mps2), result)

        line = situation.stop_line_distance_m
        can_stop = speed**2 <= 2.0 * 3.0 * np.maximum(line - 0.5, 0.05)
        must_stop = (situation.signal == SignalState.RED) | ((situation.signal == SignalState.YELLOW) & can_stop)
        result = np.where(must_stop, np.minimum(result, self._stop(speed, line)), result)
        giving_way = np.isfinite(situation.yield_distance_m)
        stopping = self._stop(speed, np.where(giving_way, situation.yield_distance_m, 1e3))
        return np.asarray(np.where(giving_way, np.minimum(result, stopping), result))

    def _follow(self, speed: Float, gap: Float, leader_speed: Float, wanted: Float) -> Float:
        """IDM's term for the leader; where there is none, a large number."""
        near = np.where(np.isfinite(gap), gap, 1e6)
        closing = speed * (speed - leader_speed) / (2.0 * np.sqrt(self.acceleration_mps2 * self.comfort_brake_mps2))
        desired = self.standstill_gap_m + np.maximum(0.0, speed * self.headway_s + closing)
        free = np.maximum(1.0 - (speed / wanted) ** 4, 0.0)
        return np.asarray(self.acceleration_mps2 * (free - (desired / np.maximum(near, 0.1)) ** 2))

    def _stop(self, speed: Float, distance: Float) -> Float:
        """Come to rest line_gap_m before a line: brake late enough to be smooth, evenly, and hold."""
        room = distance - self.line_gap_m
        needed = speed**2 / (2.0 * np.maximum(room, 0.15))
        approach = np.sqrt(2.0 * 1.2 * np.maximum(room, 0.0))
        gentle = np.clip(1.2 * (approach - speed), -self.comfort_brake_mps2, self.acceleration_mps2)
        braking = np.clip((needed - 0.6) / 0.4, 0.0, 1.0)  # share, from rolling up to the line to braking for it
        evenly = (1.0 - braking) * gentle - braking * 1.03 * needed
        return np.asarray(np.where(room <= 0.1, -np.maximum(needed, 2.0), np.minimum(gentle, evenly)))

    def _throttle(self, acceleration: Float, speed: Float) -> Float:
        """The pedal that gives an acceleration, resistances made up for."""
        acceleration = np.maximum(acceleration, -self.hard_brake_mps2)
        push = acceleration + np.where(speed > 0.05, self.rolling_mps2 + self.drag_per_m * speed**2, self.rolling_mps2)
        most = np.minimum(self.max_acceleration_mps2, self.power_wpkg / np.maximum(speed, 1.0))
        return np.asarray(np.clip(np.where(push >= 0.0, push / most, push / self.max_brake_mps2), -1.0, 1.0))


def _path(situation: Situation) -> Float:
    """(N, ROUTE_POINTS, 2) metres in ego: the path to drive, which is the route where nobody planned another."""
    path = situation.route_in_ego if situation.path_in_ego is None else situation.path_in_ego
    return path.astype(np.float64)
