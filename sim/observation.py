"""Observations of the environment: their spaces, and the vectors that are not sensor pictures.

Knows the world's state; knows nothing about rewards, episodes or torch.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from perception.sensors import ROUTE_POINTS, EgoField
from planning.policy import Situation
from sim.roads.driving_map import DrivingMap
from sim.sensors.rig import RigConfig
from sim.visibility import BoxGrid, scratch_for, visible_actors
from sim.world import EGO, WorldEvents, WorldState

POINT_RANGE_M = 250.0
ROUTE_RANGE_M = 200.0
EGO_LOW = np.array([-20.0, -100.0, -10.0, -1.0, -1.0], np.float32)
EGO_HIGH = np.array([100.0, 100.0, 10.0, 1.0, 1.0], np.float32)

VISIBLE_ACTORS = 10
VISIBLE_RANGE_M = 60.0
SIGNAL_RANGE_M = 60.0
PRIVILEGED_BOUND = 10.0


class PrivilegedScalar(IntEnum):
    """The first columns of the privileged observation; divisors bring each to about [-1, 1].

    After them come the route (ROUTE_POINTS x 2, metres / 50, ego frame) and the actors (VISIBLE_ACTORS x `ActorField`).
    """

    SPEED = 0  # m/s / 20
    ACCELERATION = 1  # m/s2 / 5
    YAW_RATE = 2  # rad/s
    STEER = 3  # rad / 0.6
    LAST_STEER = 4
    LAST_THROTTLE = 5
    SPEED_LIMIT = 6  # m/s / 20
    LATERAL_OFFSET = 7  # m / 2, left of the lane's centre is positive
    GOAL_DISTANCE = 8  # m / 100, at most 5
    STOP_LINE_DISTANCE = 9  # m / SIGNAL_RANGE_M, 1 where no signal is near
    SIGNAL_RED = 10
    SIGNAL_YELLOW = 11
    SIGNAL_GREEN = 12


class ActorField(IntEnum):
    """Columns of one visible actor, ego frame; all zero where there is none."""

    PRESENT = 0
    X = 1  # m / 50
    Y = 2  # m / 50
    COS_YAW = 3
    SIN_YAW = 4
    SPEED = 5  # m/s / 20
    LENGTH = 6  # m / 10
    WIDTH = 7  # m / 3


PRIVILEGED_SIZE = len(PrivilegedScalar) + 2 * ROUTE_POINTS + VISIBLE_ACTORS * len(ActorField)


def privileged_space() -> spaces.Box:
    """Box of the privileged observation, (PRIVILEGED_SIZE,) float32."""
    return spaces.Box(-PRIVILEGED_BOUND, PRIVILEGED_BOUND, (PRIVILEGED_SIZE,), np.float32)


def sensor_space(rig: RigConfig, privileged: bool) -> spaces.Dict:
    """Dict space of one environment. Clouds and routes are flat vectors, row after row: see docs/decisions/0003.

    `camera_<name>` uint8 (H, W, 3); `points` float32 (P * 4,), x y z intensity in ego, zero-padded; `point_count` int32
    (1,); `ego` float32 (5,) as in `EgoField`; `route` float32 (ROUTE_POINTS * 2,) in ego; `privileged` on request.
    """
    entries: dict[str, spaces.Space] = {
        camera.name: spaces.Box(0, 255, (camera.height_px, camera.width_px, 3), np.uint8) for camera in rig.cameras
    }
    max_points = rig.max_points
    low = np.tile(np.array([-POINT_RANGE_M] * 3 + [0.0], np.float32), max_points)
    high = np.tile(np.array([POINT_RANGE_M] * 3 + [1.0], np.float32), max_points)
    entries["points"] = spaces.Box(low, high, dtype=np.float32)
    entries["point_count"] = spaces.Box(0, max_points, (1,), np.int32)
    entries["ego"] = spaces.Box(EGO_LOW, EGO_HIGH, dtype=np.float32)
    entries["route"] = spaces.Box(-ROUTE_RANGE_M, ROUTE_RANGE_M, (ROUTE_POINTS * 2,), np.float32)
    if privileged:
        entries["privileged"] = privileged_space()
    return spaces.Dict(entries)


def ego_vector(state: WorldState, out: NDArray[np.float32]) -> None:
    """Fill the `ego` observation (E, 5) float32."""
    out[:, EgoField.SPEED_MPS] = state.speed_mps[:, EGO]
    out[:, EgoField.ACCELERATION_MPS2] = state.acceleration_mps2[:, EGO]
    out[:, EgoField.YAW_RATE_RADPS] = state.yaw_rate_radps[:, EGO]
    out[:, EgoField.LAST_STEER : EgoField.LAST_THROTTLE + 1] = state.last_action
    np.clip(out, EGO_LOW, EGO_HIGH, out=out)


class PrivilegedObserver:
    """Writes the privileged observation of E environments. An actor that the sensors could not see is not in it."""

    def __init__(self, driving_map: DrivingMap, num_envs: int, num_agents: int) -> None:
        self._grid = BoxGrid(driving_map.scenery)
        self._scratch = scratch_for(num_envs, num_agents)
        self._nearest = np.full((num_envs, VISIBLE_ACTORS), -1, np.int32)
        self._count = np.zeros(num_envs, np.int32)

    def observe(self, state: WorldState, events: WorldEvents, situation: Situation, out: NDArray[np.float32]) -> None:
        """Fill out (E, PRIVILEGED_SIZE) float32."""
        grid = self._grid
        visible_actors(
            state.active, state.x_m, state.y_m, state.yaw_rad, state.length_m, state.width_m, state.height_m,
            state.rear_axle_m, grid.boxes, grid.start, grid.origin, grid.cell_m, grid.columns, grid.rows,
            grid.reach_m, VISIBLE_RANGE_M, self._scratch, self._nearest, self._count,
        )  # fmt: skip
        p = PrivilegedScalar
        out[:, p.SPEED] = state.speed_mps[:, EGO] / 20.0
        out[:, p.ACCELERATION] = state.acceleration_mps2[:, EGO] / 5.0
        out[:, p.YAW_RATE] = state.yaw_rate_radps[:, EGO]
        out[:, p.STEER] = state.steer_rad[:, EGO] / 0.6
        out[:, p.LAST_STEER : p.LAST_THROTTLE + 1] = state.last_action
        out[:, p.SPEED_LIMIT] = situation.speed_limit_mps / 20.0
        out[:, p.LATERAL_OFFSET] = events.lateral_m / 2.0
        out[:, p.GOAL_DISTANCE] = np.minimum(situation.goal_distance_m / 100.0, 5.0)
        near = situation.stop_line_distance_m < SIGNAL_RANGE_M
        out[:, p.STOP_LINE_DISTANCE] = np.where(near, situation.stop_line_distance_m / SIGNAL_RANGE_M, 1.0)
        for column, value in ((p.SIGNAL_RED, 1), (p.SIGNAL_YELLOW, 2), (p.SIGNAL_GREEN, 3)):
            out[:, column] = near & (situation.signal == value)
        route_end = len(PrivilegedScalar) + 2 * ROUTE_POINTS
        num_envs = len(out)
        out[:, len(PrivilegedScalar) : route_end] = situation.route_in_ego.reshape(num_envs, -1) / 50.0
        self._write_actors(state, out[:, route_end:].reshape(num_envs, VISIBLE_ACTORS, len(ActorField)))
        np.clip(out, -PRIVILEGED_BOUND, PRIVILEGED_BOUND, out=out)

    def _write_actors(self, state: WorldState, out: NDArray[np.float32]) -> None:
        rows = np.arange(len(out))[:, None]
        chosen = np.maximum(self._nearest, 0)
        present = self._nearest >= 0
        yaw = state.yaw_rad[:, EGO, None]
        cos_yaw, sin_yaw = np.cos(yaw), np.sin(yaw)
        origin_x = state.x_m[:, EGO, None] - state.rear_axle_m[:, EGO, None] * cos_yaw
        origin_y = state.y_m[:, EGO, None] - state.rear_axle_m[:, EGO, None] * sin_yaw
        dx, dy = state.x_m[rows, chosen] - origin_x, state.y_m[rows, chosen] - origin_y
        heading = state.yaw_rad[rows, chosen] - yaw
        f = ActorField
        out[..., f.PRESENT] = 1.0
        out[..., f.X] = (cos_yaw * dx + sin_yaw * dy) / 50.0
        out[..., f.Y] = (cos_yaw * dy - sin_yaw * dx) / 50.0
        out[..., f.COS_YAW] = np.cos(heading)
        out[..., f.SIN_YAW] = np.sin(heading)
        out[..., f.SPEED] = state.speed_mps[rows, chosen] / 20.0
        out[..., f.LENGTH] = state.length_m[rows, chosen] / 10.0
        out[..., f.WIDTH] = state.width_m[rows, chosen] / 3.0
        out *= present[..., None]
