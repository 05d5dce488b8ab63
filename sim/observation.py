"""Observations of the environment: their spaces, and the vectors that are not sensor pictures.

Knows the world's state; knows nothing about rewards, episodes or torch.
"""

from __future__ import annotations

import math
from dataclasses import replace
from enum import IntEnum

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from perception.sensors import ROUTE_POINTS, EgoField
from planning.policy import SignalState, Situation
from sim.roads.driving_map import DrivingMap
from sim.sensors.rig import LidarConfig, RigConfig
from sim.sight import SEEN_VEHICLES, SEEN_WALKERS, Observer, Road, Sight
from sim.world import EGO, ActorKind, World, WorldState

POINT_RANGE_M = 250.0  # of a coordinate of a point; more where the LiDAR reaches further
ROUTE_RANGE_M = 200.0
EGO_LOW = np.array([-20.0, -100.0, -10.0, -1.0, -1.0], np.float32)
EGO_HIGH = np.array([100.0, 100.0, 10.0, 1.0, 1.0], np.float32)

SIGNAL_RANGE_M = 60.0
FAR_M = 60.0  # what is farther counts as that far
PRIVILEGED_BOUND = 10.0
FULL_BRAKE_MPS2 = 8.0


class PrivilegedScalar(IntEnum):
    """The first columns of the privileged observation; divisors bring each to about [-1, 1].

    After them come the path (ROUTE_POINTS x 2, metres / 50, ego frame: the route, swung around what is in the way), the nearest
    vehicles in sight (SEEN_VEHICLES x `VehicleField`) and people on foot (SEEN_WALKERS x `WalkerField`). Distances are from the
    front bumper and / FAR_M, 1 where there is nothing.
    """

    SPEED = 0  # m/s / 20
    ACCELERATION = 1  # m/s2 / 5
    YAW_RATE = 2  # rad/s
    STEER = 3  # rad / 0.6
    LAST_STEER = 4
    LAST_THROTTLE = 5
    SPEED_LIMIT = 6  # m/s / 20
    CURVE_SPEED = 7  # m/s / 20, see `sim.sight.Road`
    LATERAL_OFFSET = 8  # m / 2, left of the lane's centre is positive
    HEADING = 9  # rad, against the route
    SWING = 10  # m / 4
    PURSUIT = 11  # 1/m * 5, curvature of the arc to the path ahead
    GOAL_DISTANCE = 12  # m / 100, at most 5
    WAITED = 13  # s / 30, at most 2
    STOP_LINE_DISTANCE = 14  # to the next line with a signal
    SIGNAL_RED = 15
    SIGNAL_YELLOW = 16
    SIGNAL_GREEN = 17
    LEADER_GAP = 18
    LEADER_SPEED = 19  # m/s / 20, relative to the ego
    LEADER_BRAKE = 20  # share of full brake that keeps the ego from touching the leader, at most 2
    YIELD_DISTANCE = 21
    WALKER_DISTANCE = 22
    DETOUR_DISTANCE = 23
    STOP_SIGN_DISTANCE = 24
    STOPPED_AT_SIGN = 25
    STOP_DISTANCE = 26  # the least of those above at which the ego has to stop now, and of a line at red
    STOP_BRAKE = 27  # share of full brake that stops it there, at most 2
    JUNCTION_DISTANCE = 28
    JUNCTION_TURN = 29  # -1 right, 1 left
    JUNCTION_MINOR = 30
    CROSSWALK_DISTANCE = 31
    LANE_LEFT = 32
    LANE_RIGHT = 33
    HALF_WIDTH = 34  # m / 2
    STOP_NEAR = 35  # m / 5, at most 2: STOP_DISTANCE once more, on the scale on which the last metres matter
    SPEED_LOW = 36  # m/s / 2, at most 2: SPEED once more, likewise


class VehicleField(IntEnum):
    """Columns of one vehicle, board or cone in sight, ego frame; all zero where there is none."""

    PRESENT = 0
    X = 1  # m / 50
    Y = 2  # m / 50
    COS_YAW = 3
    SIN_YAW = 4
    VX = 5  # m/s / 20, relative to the ego
    VY = 6  # m/s / 20
    LENGTH = 7  # m / 10
    WIDTH = 8  # m / 3
    BRAKES = 9
    INDICATOR = 10  # 1 left, -1 right
    KIND = 11  # -1 stands for good (board, cone), 0 motor vehicle, 1 bicycle


class WalkerField(IntEnum):
    """Columns of somebody on foot in sight, ego frame; all zero where there is nobody."""

    PRESENT = 0
    X = 1  # m / 50
    Y = 2  # m / 50
    VX = 3  # m/s / 5, of the walker alone
    VY = 4


_PATH = len(PrivilegedScalar)
_VEHICLES = _PATH + 2 * ROUTE_POINTS
_WALKERS = _VEHICLES + SEEN_VEHICLES * len(VehicleField)
PRIVILEGED_SIZE = _WALKERS + SEEN_WALKERS * len(WalkerField)


def privileged_space() -> spaces.Box:
    """Box of the privileged observation, (PRIVILEGED_SIZE,) float32."""
    return spaces.Box(-PRIVILEGED_BOUND, PRIVILEGED_BOUND, (PRIVILEGED_SIZE,), np.float32)


def sensor_space(rig: RigConfig, privileged: bool) -> spaces.Dict:
    """Dict space of one environment. Clouds and routes are flat vectors, row after row: see docs/decisions/0003.

    The name of each camera, uint8 (H, W, 3); `points` float32 (P * 4,), x y z intensity in ego, zero-padded; `point_count` int32
    (1,); `ego` float32 (5,) as in `EgoField`; `route` float32 (ROUTE_POINTS * 2,) in ego; `privileged` on request.
    """
    entries: dict[str, spaces.Space] = {
        camera.name: spaces.Box(0, 255, (camera.height_px, camera.width_px, 3), np.uint8) for camera in rig.cameras
    }
    max_points = rig.max_points
    reach = POINT_RANGE_M if rig.lidar is None else max(POINT_RANGE_M, _furthest_m(rig.lidar))
    low = np.tile(np.array([-reach] * 3 + [0.0], np.float32), max_points)
    high = np.tile(np.array([reach] * 3 + [1.0], np.float32), max_points)
    entries["points"] = spaces.Box(low, high, dtype=np.float32)
    entries["point_count"] = spaces.Box(0, max_points, (1,), np.int32)
    entries["ego"] = spaces.Box(EGO_LOW, EGO_HIGH, dtype=np.float32)
    entries["route"] = spaces.Box(-ROUTE_RANGE_M, ROUTE_RANGE_M, (ROUTE_POINTS * 2,), np.float32)
    if privileged:
        entries["privileged"] = privileged_space()
    return spaces.Dict(entries)


def _furthest_m(lidar: LidarConfig) -> float:
    """No point is so far from the ego's origin, noise of ten standard deviations included."""
    mount = lidar.mount
    return 1.0 + lidar.max_range_m + math.hypot(mount.x_m, mount.y_m, mount.z_m) + 10.0 * lidar.range_noise_m


def ego_vector(state: WorldState, out: NDArray[np.float32]) -> None:
    """Fill the `ego` observation (E, 5) float32."""
    out[:, EgoField.SPEED_MPS] = state.speed_mps[:, EGO]
    out[:, EgoField.ACCELERATION_MPS2] = state.acceleration_mps2[:, EGO]
    out[:, EgoField.YAW_RATE_RADPS] = state.yaw_rate_radps[:, EGO]
    out[:, EgoField.LAST_STEER : EgoField.LAST_THROTTLE + 1] = state.last_action
    np.clip(out, EGO_LOW, EGO_HIGH, out=out)


class PrivilegedObserver:
    """Writes the privileged observation of E environments. An actor that the sensors could not see is not in it."""

    def __init__(self, driving_map: DrivingMap, world: World) -> None:
        self._world = world
        self.observer = Observer(driving_map, world)

    def observe(self, situation: Situation, out: NDArray[np.float32], only: NDArray[np.bool_] | None = None) -> None:
        """Fill out (E, PRIVILEGED_SIZE) float32; where `only` (E,) is false, with what was seen in this tick before."""
        state, sight = self._world.state, self.observer.look(only)
        num_envs, p = len(out), PrivilegedScalar
        out[:, p.SPEED] = state.speed_mps[:, EGO] / 20.0
        out[:, p.ACCELERATION] = state.acceleration_mps2[:, EGO] / 5.0
        out[:, p.YAW_RATE] = state.yaw_rate_radps[:, EGO]
        out[:, p.STEER] = state.steer_rad[:, EGO] / 0.6
        out[:, p.LAST_STEER : p.LAST_THROTTLE + 1] = state.last_action
        out[:, p.LATERAL_OFFSET] = self._world.events.lateral_m / 2.0
        _write_road(state.speed_mps[:, EGO], situation, sight, out)
        out[:, _PATH:_VEHICLES] = sight.path_in_ego.reshape(num_envs, -1) / 50.0
        out[:, p.PURSUIT] = 5.0 * _pursuit(sight.path_in_ego, state.speed_mps[:, EGO])
        frame = _EgoFrame(state)
        vehicles = out[:, _VEHICLES:_WALKERS].reshape(num_envs, SEEN_VEHICLES, len(VehicleField))
        frame.write_vehicles(sight.vehicles, vehicles)
        frame.write_walkers(sight.walkers, out[:, _WALKERS:].reshape(num_envs, SEEN_WALKERS, len(WalkerField)))
        np.clip(out, -PRIVILEGED_BOUND, PRIVILEGED_BOUND, out=out)

    @property
    def sight(self) -> Sight:
        """What was observed last."""
        return self.observer.sight

    def seen(self, situation: Situation) -> Situation:
        """The situation for a rule-based driver who knows only what was observed last."""
        sight = self.observer.sight
        road = sight.road
        to_stop = road[:, [Road.YIELD_DISTANCE, Road.WALKER_DISTANCE, Road.DETOUR_DISTANCE]].min(axis=1)
        return replace(
            situation, leader_gap_m=road[:, Road.LEADER_GAP], leader_speed_mps=road[:, Road.LEADER_SPEED],
            yield_distance_m=to_stop, path_in_ego=sight.path_in_ego,
        )  # fmt: skip


def _write_road(speed: NDArray[np.float64], situation: Situation, sight: Sight, out: NDArray[np.float32]) -> None:
    """Fill the columns that are about signals, the road ahead and right of way."""
    p, road = PrivilegedScalar, sight.road
    out[:, p.SPEED_LIMIT] = situation.speed_limit_mps / 20.0
    out[:, p.CURVE_SPEED] = road[:, Road.CURVE_SPEED] / 20.0
    out[:, p.HEADING] = road[:, Road.HEADING]
    out[:, p.SWING] = road[:, Road.SWING] / 4.0
    out[:, p.GOAL_DISTANCE] = np.minimum(situation.goal_distance_m / 100.0, 5.0)
    out[:, p.WAITED] = np.minimum(road[:, Road.WAITED] / 30.0, 2.0)
    line = situation.stop_line_distance_m
    near = line < SIGNAL_RANGE_M
    for column, value in ((p.SIGNAL_RED, 1), (p.SIGNAL_YELLOW, 2), (p.SIGNAL_GREEN, 3)):
        out[:, column] = near & (situation.signal == value)
    to_stop = np.where(near & (situation.signal == SignalState.RED), line, np.inf)
    for column, distance in (
        (p.STOP_LINE_DISTANCE, line),
        (p.LEADER_GAP, road[:, Road.LEADER_GAP]),
        (p.YIELD_DISTANCE, road[:, Road.YIELD_DISTANCE]),
        (p.WALKER_DISTANCE, road[:, Road.WALKER_DISTANCE]),
        (p.DETOUR_DISTANCE, road[:, Road.DETOUR_DISTANCE]),
        (p.STOP_SIGN_DISTANCE, road[:, Road.STOP_SIGN_DISTANCE]),
        (p.JUNCTION_DISTANCE, road[:, Road.JUNCTION_DISTANCE]),
        (p.CROSSWALK_DISTANCE, road[:, Road.CROSSWALK_DISTANCE]),
    ):
        out[:, column] = np.minimum(distance / FAR_M, 1.0)
    for reason in (Road.YIELD_DISTANCE, Road.WALKER_DISTANCE, Road.DETOUR_DISTANCE):
        to_stop = np.minimum(to_stop, road[:, reason])
    out[:, p.STOP_DISTANCE] = np.minimum(to_stop / FAR_M, 1.0)
    out[:, p.STOP_BRAKE] = _brake_share(speed, to_stop)
    out[:, p.STOP_NEAR] = np.minimum(to_stop / 5.0, 2.0)
    out[:, p.SPEED_LOW] = np.minimum(speed / 2.0, 2.0)
    closing = np.maximum(speed - road[:, Road.LEADER_SPEED], 0.0)
    out[:, p.LEADER_SPEED] = np.where(out[:, p.LEADER_GAP] < 1.0, (road[:, Road.LEADER_SPEED] - speed) / 20.0, 0.0)
    out[:, p.LEADER_BRAKE] = _brake_share(closing, road[:, Road.LEADER_GAP])
    for scalar, field in (
        (p.STOPPED_AT_SIGN, Road.STOPPED_AT_SIGN), (p.JUNCTION_TURN, Road.JUNCTION_TURN),
        (p.JUNCTION_MINOR, Road.JUNCTION_MINOR), (p.LANE_LEFT, Road.LANE_LEFT), (p.LANE_RIGHT, Road.LANE_RIGHT),
    ):  # fmt: skip
        out[:, scalar] = road[:, field]
    out[:, p.HALF_WIDTH] = road[:, Road.HALF_WIDTH] / 2.0


def _brake_share(speed: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of full brake that takes away a speed over a distance, at most 2; half a metre is kept."""
    return np.minimum(speed**2 / (2.0 * FULL_BRAKE_MPS2 * np.maximum(distance - 0.5, 0.1)), 2.0)


def _pursuit(path: NDArray[np.float32], speed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Curvature (E,), 1/m, of the arc that meets the path (E, ROUTE_POINTS, 2) one lookahead distance ahead (pure pursuit)."""
    lookahead = np.clip(2.8 + 0.45 * speed, 3.6, 14.0)
    away = np.hypot(path[..., 0], path[..., 1])
    at = np.argmax(away >= lookahead[:, None], axis=1)
    goal = path[np.arange(len(path)), at]
    return np.asarray(2.0 * goal[:, 1] / np.maximum((goal**2).sum(axis=1), 1.0), np.float64)


class _EgoFrame:
    """Others as the ego sees them: x forward, y left, origin under its rear axle."""

    def __init__(self, state: WorldState) -> None:
        self._state = state
        self._yaw = state.yaw_rad[:, EGO, None]
        self._cos, self._sin = np.cos(self._yaw), np.sin(self._yaw)
        self._x = state.x_m[:, EGO, None] - state.rear_axle_m[:, EGO, None] * self._cos
        self._y = state.y_m[:, EGO, None] - state.rear_axle_m[:, EGO, None] * self._sin
        self._rows = np.arange(len(state.x_m))[:, None]

    def _place(self, chosen: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        dx = self._state.x_m[self._rows, chosen] - self._x
        dy = self._state.y_m[self._rows, chosen] - self._y
        return self._cos * dx + self._sin * dy, self._cos * dy - self._sin * dx

    def write_vehicles(self, agents: NDArray[np.int32], out: NDArray[np.float32]) -> None:
        """Fill out (E, SEEN_VEHICLES, len(VehicleField)); agents (E, SEEN_VEHICLES), -1 for none."""
        state, rows, f = self._state, self._rows, VehicleField
        chosen = np.maximum(agents, 0)
        heading = state.yaw_rad[rows, chosen] - self._yaw
        x, y = self._place(chosen)
        speed, kind = state.speed_mps[rows, chosen], state.kind[rows, chosen]
        out[..., f.PRESENT] = 1.0
        out[..., f.X], out[..., f.Y] = x / 50.0, y / 50.0
        out[..., f.COS_YAW], out[..., f.SIN_YAW] = np.cos(heading), np.sin(heading)
        out[..., f.VX] = (speed * out[..., f.COS_YAW] - state.speed_mps[:, EGO, None]) / 20.0
        out[..., f.VY] = speed * out[..., f.SIN_YAW] / 20.0
        out[..., f.LENGTH] = state.length_m[rows, chosen] / 10.0
        out[..., f.WIDTH] = state.width_m[rows, chosen] / 3.0
        out[..., f.BRAKES] = state.brake_light[rows, chosen]
        out[..., f.INDICATOR] = state.indicator[rows, chosen]
        out[..., f.KIND] = 1.0 * (kind == ActorKind.BICYCLE) - 1.0 * (kind >= ActorKind.BARRIER)
        out *= (agents >= 0)[..., None]

    def write_walkers(self, agents: NDArray[np.int32], out: NDArray[np.float32]) -> None:
        """Fill out (E, SEEN_WALKERS, len(WalkerField)); agents (E, SEEN_WALKERS), -1 for none."""
        state, rows, f = self._state, self._rows, WalkerField
        chosen = np.maximum(agents, 0)
        heading = state.yaw_rad[rows, chosen] - self._yaw
        x, y = self._place(chosen)
        speed = state.speed_mps[rows, chosen] / 5.0
        out[..., f.PRESENT] = 1.0
        out[..., f.X], out[..., f.Y] = x / 50.0, y / 50.0
        out[..., f.VX], out[..., f.VY] = speed * np.cos(heading), speed * np.sin(heading)
        out *= (agents >= 0)[..., None]
