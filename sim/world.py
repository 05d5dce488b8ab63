"""The batched world: E environments with A agents each, agent 0 being the ego.

State is arrays; kernels update them in place. Knows roads and traffic; knows nothing about sensors, rewards or torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Annotated, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.geometry import se2_as_se3
from perception.sensors import ROUTE_POINTS
from planning.policy import Situation
from sim.dynamics import VehicleModel, VehiclePreset, as_record, vehicle_of
from sim.events import build_surroundings
from sim.lane_graph import build_lane_graph
from sim.parked import Parked, parked_things
from sim.playback.playback_arrays import PlaybackMode, no_playback, playback_arrays
from sim.rerouting import WAY_BACK_M, plan_routes_anew, plan_shortest_routes
from sim.roads.driving_map import DrivingMap
from sim.roads.network import LaneControl
from sim.route_planning import allocate_planner
from sim.routes import BEYOND_GOAL_M, POINT_STEP_M
from sim.routes import EGO as EGO_RECORD
from sim.scenarios.placement import Placement, write_scene, write_scripts
from sim.situation import MOST_EGO_SPANS
from sim.standing import standing_of
from sim.step import Standing
from sim.threads import MOST_THREADS, over_environments
from sim.traffic.playback import FOLLOWER
from sim.traffic.scripts import SCENE, SCRIPT
from sim.traffic.signals import build_signal_programs
from sim.traffic.spans import SPAN, SPANS
from sim.traffic.vehicles import CAR, CLAIM, CLAIMS, PATH
from sim.traffic.walk_graph import build_walk_graph
from sim.traffic.walkers import WALKER
from sim.world_arrays import Events, Hidden, Rules, State, View
from sim.world_kernels import run_world

TICK_S = 0.1
TICK_US = 100_000
EGO = 0
SCENARIO_ROUTE_M = 600.0  # no scenario's route is longer


class ActorKind(IntEnum):
    CAR = 0
    VAN = 1
    TRUCK = 2
    BUS = 3
    MOTORCYCLE = 4
    BICYCLE = 5
    PEDESTRIAN = 6
    BARRIER = 7
    CONE = 8


class CollisionKind(IntEnum):
    NONE = 0
    VEHICLE = 1
    PEDESTRIAN = 2
    STATIC = 3


@dataclass(frozen=True)
class WorldState:
    """Arrays of E environments and A agents, allocated once and updated in place by the world's kernels.

    seed: (E,) uint64. episode, tick: (E,) int64.
    active: (E, A) uint8. kind: (E, A) int8 `ActorKind`.
    x_m, y_m, yaw_rad: (E, A) float64: centre of the bounding box on the ground, and heading.
    rear_axle_m: (E, A) float64: distance from the rear axle forward to that centre (so the ego frame's origin is the
        centre minus rear_axle_m along the heading).
    length_m, width_m, height_m: (E, A) float64. speed_mps, acceleration_mps2, yaw_rate_radps, steer_rad: (E, A) float64.
    brake_light: (E, A) uint8. indicator: (E, A) int8, 1 left, -1 right. paint: (E, A, 3) uint8 RGB.
    last_action: (E, 2) float32, as applied to the ego.
    signal: (E, G) int8 `planning.policy.SignalState` of every signal link.
    """

    seed: NDArray[np.uint64]
    episode: NDArray[np.int64]
    tick: NDArray[np.int64]
    active: NDArray[np.uint8]
    kind: NDArray[np.int8]
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    rear_axle_m: NDArray[np.float64]
    length_m: NDArray[np.float64]
    width_m: NDArray[np.float64]
    height_m: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    acceleration_mps2: NDArray[np.float64]
    yaw_rate_radps: NDArray[np.float64]
    steer_rad: NDArray[np.float64]
    brake_light: NDArray[np.uint8]
    indicator: NDArray[np.int8]
    paint: NDArray[np.uint8]
    last_action: NDArray[np.float32]
    signal: NDArray[np.int8]


@dataclass(frozen=True)
class WorldEvents:
    """What the last tick brought to each ego, (E,) each; arrays updated in place.

    collision: int8 `CollisionKind`. red_light, off_road, off_route, wrong_way, stuck, arrived: uint8 flags.
        red_light: a bumper has passed a signal's line at red, the rear one only where the front one did so before red.
        off_road: a corner of the ego has left the drivable ground. stuck: below 0.1 m/s for stuck_after_s without a
        reason in front (red light, leader). off_route: over 30 m from the route.
    progress_m: float64, furthest arc length reached along the route. route_length_m: float64.
    lateral_m: float64, signed distance of the ego's centre from the route's lane centre, left positive.
    replans: int32, how often the route was planned anew, because the ego had left it. From then on progress_m is route_length_m
        less what is left to drive to the goal, but at most what was driven along routes; it never falls. route_length_m stays.
    """

    collision: NDArray[np.int8]
    red_light: NDArray[np.uint8]
    off_road: NDArray[np.uint8]
    off_route: NDArray[np.uint8]
    wrong_way: NDArray[np.uint8]
    stuck: NDArray[np.uint8]
    arrived: NDArray[np.uint8]
    progress_m: NDArray[np.float64]
    route_length_m: NDArray[np.float64]
    lateral_m: NDArray[np.float64]
    replans: NDArray[np.int32]


class WorldConfig(BaseModel):
    """How an episode of the world is made; the same in every environment of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    agents: Annotated[int, Field(ge=1, le=256, description="agents in an environment, the ego included")] = 24
    traffic_density: Annotated[float, Field(ge=0, le=1, description="share of the agents that drive at any time")] = 1.0
    route_min_m: Annotated[float, Field(ge=20, le=10_000, description="shortest route, in metres")] = 300.0
    route_max_m: Annotated[float, Field(ge=30, le=10_000, description="longest route, in metres")] = 600.0
    route: Annotated[
        Literal["random", "shortest"],
        Field(
            description="random: turns drawn one by one; shortest: the shortest way to where those lead, maybe below route_min_m"
        ),
    ] = "random"
    replan: Annotated[
        bool,
        Field(description="who leaves the route is led to its goal anew, from any lane from which it can be reached"),
    ] = True
    speed_factor_spread: Annotated[
        float, Field(ge=0, le=0.5, description="how far drivers' wanted speeds lie from the limit, as a share")
    ] = 0.15
    spawn_radius_m: Annotated[
        float, Field(ge=60, le=500, description="vehicles are put in within it, around the ego")
    ] = 120.0
    respawn_distance_m: Annotated[
        float, Field(ge=20, le=400, description="nearer to the ego no vehicle appears once the episode runs")
    ] = 80.0
    walker_share: Annotated[
        float, Field(ge=0, le=0.8, description="share of the agents that are people on foot, where there are sidewalks")
    ] = 0.25
    rule_breaker_share: Annotated[
        float,
        Field(ge=0, le=1, description="share of drivers who run late reds, speed, tailgate or give no signal"),
    ] = 0.08
    stuck_after_s: Annotated[
        float, Field(gt=0, le=600, description="standing that long without a reason in front counts as stuck")
    ] = 30.0
    stop_below_mps: Annotated[
        float,
        Field(
            gt=0,
            le=0.1,
            description="an ego slower than that has stopped at a stop sign; training may ask for more than scores do (0.1)",
        ),
    ] = 0.1

    playback: Annotated[
        PlaybackMode,
        Field(
            description="on a recording: reactive, actors follow their tracks until the ego is in their way; log, whatever happens"
        ),
    ] = "reactive"
    vehicle: Annotated[VehiclePreset, Field(description="the ego: compact, sedan, van or truck")] = "sedan"
    vehicle_model: Annotated[
        VehicleModel, Field(description="kinematic, or dynamic: single track with tyres that slip and saturate")
    ] = "kinematic"

    @model_validator(mode="after")
    def _check(self) -> WorldConfig:
        if self.route_max_m < self.route_min_m + 10.0:
            raise ValueError(
                f"route_max_m must exceed route_min_m by 10 m or more, got {self.route_min_m} and {self.route_max_m}"
            )
        if self.respawn_distance_m >= self.spawn_radius_m:
            raise ValueError(
                f"respawn_distance_m must be below spawn_radius_m, got {self.respawn_distance_m} and {self.spawn_radius_m}"
            )
        return self


@dataclass(frozen=True)
class WorldSnapshot:
    """A copy of everything that changes in a world, for `World.restore`; arrays by name, owned by the snapshot."""

    arrays: dict[str, NDArray[Any]]


# What kernels know of a map's roads, as long as somebody holds the map: building it takes seconds on a large town.
_FIXED: WeakKeyDictionary[DrivingMap, tuple[Any, Any, Any, Any]] = WeakKeyDictionary()


def _of_map(driving_map: DrivingMap) -> tuple[Any, Any, Any, Any]:
    """Lane graph, walk graph, signal programs and surroundings; nobody writes into them."""
    if driving_map not in _FIXED:
        network = driving_map.network
        _FIXED[driving_map] = (
            build_lane_graph(network),
            build_walk_graph(network, driving_map.ground),
            build_signal_programs(network),
            build_surroundings(driving_map.ground, driving_map.scenery),
        )
    return _FIXED[driving_map]


def num_walkers(driving_map: DrivingMap, config: WorldConfig) -> int:
    """How many agents of an environment are people on foot: none where there are no sidewalks, nor on a recording."""
    if driving_map.recording is not None or not len(_of_map(driving_map)[1].cell_way):
        return 0
    return round(config.walker_share * (config.agents - 1))


class World:
    """E environments on one map, stepped together. Agent 0 of each is the ego, the last are people on foot.

    An episode is a pure function of map, config, seed and episode number, whatever the batch size, slot or number of
    threads. All memory is taken here. `state`, `events`, `route_in_ego` and what `situation()` returns are views that every
    `reset` and `step` updates in place. What vehicles other than the ego do is kept in hidden arrays, of which `state` is
    a copy: writing to `state` moves the ego only. ran_stop_sign (E,) bool: whether the last tick took the ego past a stop
    sign at which it did not stand within 5 m before the line. On a recorded scene the agents are those of the recording, and
    last_tick is the tick at which it ends; else it is None.
    """

    def __init__(
        self,
        driving_map: DrivingMap,
        config: WorldConfig,
        num_envs: int,
        place: Callable[[int, int], Placement] | None = None,
    ) -> None:
        """place(seed, episode): how a scenario's episode begins. Without it, and before the first `reset`, routes are drawn and
        all is normal traffic.

        Raises ValueError where num_envs is below 1 or the map has no lane to drive on.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.map, self.config, self.num_envs = driving_map, config, num_envs
        self.placements: list[Placement | None] = [None] * num_envs
        network, scene = driving_map.network, driving_map.recording
        self._playback = no_playback() if scene is None else playback_arrays(scene, network, config.playback)
        self._fixed = _of_map(driving_map)
        walkers = num_walkers(driving_map, config)
        self.last_tick = None if scene is None else scene.num_ticks - 1
        self._rules = Rules(
            config.traffic_density, config.route_min_m, config.route_max_m, config.speed_factor_spread,
            config.spawn_radius_m, config.respawn_distance_m, config.stuck_after_s, config.stop_below_mps,
            config.rule_breaker_share, walkers,
            as_record(vehicle_of(config.vehicle, config.vehicle_model)),
        )  # fmt: skip
        agents = config.agents if scene is None else 1 + scene.others.num_actors
        links = network.num_signal_links
        shape = (num_envs, agents)
        self._state = State(
            np.zeros(num_envs, np.uint64), np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64),
            np.zeros(shape, np.uint8), np.zeros(shape, np.int8), *(np.zeros(shape) for _ in range(11)),
            np.zeros(shape, np.uint8), np.zeros(shape, np.int8), np.zeros((*shape, 3), np.uint8),
            np.zeros((num_envs, 2), np.float32), np.zeros((num_envs, links), np.int8),
        )  # fmt: skip
        self._events = Events(
            np.zeros(num_envs, np.int8), *(np.zeros(num_envs, np.uint8) for _ in range(6)),
            *(np.zeros(num_envs) for _ in range(3)), np.zeros(num_envs, np.int32),
        )  # fmt: skip
        self._view = View(
            np.zeros(num_envs), np.zeros(num_envs), np.zeros((num_envs, ROUTE_POINTS, 2), np.float32),
            *(np.zeros(num_envs) for _ in range(4)), np.zeros(num_envs, np.int8), np.zeros(num_envs),
            np.zeros((num_envs, ROUTE_POINTS, 2), np.float32), np.zeros(num_envs, np.int8), np.zeros(num_envs),
        )  # fmt: skip
        longest_m = config.route_max_m if place is None else max(config.route_max_m, SCENARIO_ROUTE_M)
        longest_m += WAY_BACK_M if config.replan else 0.0
        route_lanes = 64 + int(longest_m / 5.0)
        self._planner = allocate_planner(MOST_THREADS, network.num_lanes, route_lanes)
        route_points = max(int((longest_m + BEYOND_GOAL_M) / POINT_STEP_M) + 2, len(self._playback.line))
        self._hidden = Hidden(
            np.zeros(shape, CAR), np.full((*shape, PATH), -1, np.int32), np.zeros(num_envs, EGO_RECORD),
            np.zeros((num_envs, route_lanes), np.int32), np.zeros((num_envs, route_lanes)),
            np.zeros((num_envs, route_points, 3)), np.zeros((num_envs, agents * CLAIMS), CLAIM),
            np.zeros(num_envs, np.int64), np.zeros((num_envs, agents * (2 * SPANS + 1) + MOST_EGO_SPANS), SPAN),
            np.zeros(num_envs, np.int64), np.zeros((num_envs, links), np.int8), np.zeros((num_envs, walkers), WALKER),
            np.zeros(shape, SCRIPT), np.full((*shape, PATH), -1, np.int32), np.zeros(num_envs, SCENE),
            np.zeros((num_envs, len(self._playback.first)), FOLLOWER),
        )  # fmt: skip
        self.state = WorldState(*self._state)
        self.events = WorldEvents(*self._events)
        self.ran_stop_sign = np.zeros(num_envs, np.bool_)
        self._stop_sign = self._fixed[0].lanes["control"] == LaneControl.STOP
        self._situation = Situation(*self._view)
        self._everybody, self._no_actions = np.arange(num_envs), np.zeros((num_envs, 2), np.float32)
        self._place: Callable[[int, int], Placement] | None = None
        self.reset(np.ones(num_envs, np.bool_), np.zeros(num_envs, np.uint64), np.arange(num_envs, dtype=np.int64))
        self._place = place  # not before: nobody asked for those episodes, for which a scenario may find no place

    def reset(self, mask: NDArray[np.bool_], seed: NDArray[np.uint64], episode: NDArray[np.int64]) -> None:
        """Begin episodes (E,) in the environments of mask (E,); the others are left as they are."""
        expected = (self.num_envs,)
        for name, array in (("mask", mask), ("seed", seed), ("episode", episode)):
            if array.shape != expected:
                raise ValueError(f"{name} must have shape {expected}, got {array.shape}")
        if self._place is not None:
            for e in np.flatnonzero(mask):
                placement = self.placements[e] = self._place(int(seed[e]), int(episode[e]))
                write_scene(placement, self._hidden.scenes[e], self._hidden.route_lane[e])
                write_scripts(placement, self._hidden.scripts[e], self._hidden.script_paths[e])
        begins, seed, episode = np.flatnonzero(mask), np.array(seed, np.uint64), np.array(episode, np.int64)
        if self.config.route == "shortest" and self.map.recording is None:
            over_environments(
                plan_shortest_routes, begins, self._fixed[0], self._rules, self._planner, self._hidden, seed, episode
            )
        self._run(begins, True, seed, episode, self._no_actions)
        self.ran_stop_sign[mask] = False

    def step(self, actions: NDArray[np.float32]) -> None:
        """One tick (TICK_S) of every environment. actions: (E, 2) float32, steer and throttle in [-1, 1]."""
        if actions.shape != (self.num_envs, 2):
            raise ValueError(f"actions must have shape {(self.num_envs, 2)}, got {actions.shape}")
        if not np.isfinite(actions).all():
            raise ValueError("actions must be finite")
        clipped = np.clip(np.array(actions, np.float32, order="C"), -1.0, 1.0)
        if self.config.replan and (lost := np.flatnonzero(self._hidden.egos["lost"])).size:
            over_environments(plan_routes_anew, lost, self._fixed[0], self._planner, self._hidden)
        before = self._hidden.egos["at"].copy()
        self._run(self._everybody, False, self.state.seed, self.state.episode, clipped)
        at, stopped_for = self._hidden.egos["at"], self._hidden.cars["stop"][:, EGO]
        self.ran_stop_sign[:] = False
        for entered in range(1, int((at - before).max()) + 1):  # lanes can be shorter than the way of a tick
            lane = self._hidden.route_lane[self._everybody, np.minimum(before + entered, at)]
            self.ran_stop_sign |= (before + entered <= at) & self._stop_sign[lane] & (stopped_for != lane)

    def _run(
        self,
        which: NDArray[np.intp],
        starting: bool,
        seed: NDArray[np.uint64],
        episode: NDArray[np.int64],
        actions: NDArray[np.float32],
    ) -> None:
        over_environments(
            run_world, which, *self._fixed, self._rules, self._playback, self._state, self._hidden, self._events, self._view,
            starting, seed, episode, actions,
        )  # fmt: skip

    def over_environments(self, kernel: Callable[..., Any], which: NDArray[np.intp], *args: Any) -> None:
        """Call a kernel as `threads.over_environments` does: with the lane graph, where people walk, state and hidden arrays before
        args. It may not write to them."""
        graph, walk, _, _ = self._fixed
        over_environments(kernel, which, graph, walk, self._state, self._hidden, *args)

    def situation(self) -> Situation:
        """The driver's view of every ego after the last tick; the arrays are the world's own."""
        return self._situation

    @property
    def route_in_ego(self) -> NDArray[np.float32]:
        """(E, ROUTE_POINTS, 2) float32, metres in the ego frame: the next points of the route, ROUTE_SPACING_M apart."""
        return self._view.route_in_ego

    @property
    def route_heading_rad(self) -> NDArray[np.float64]:
        """(E,) float64: heading of each ego against its route, left positive."""
        return np.ascontiguousarray(self._hidden.egos["heading"])

    def world_from_ego(self, env: int) -> NDArray[np.float64]:
        """(4, 4) float64 pose of the ego frame (origin on the ground under the rear axle) of one environment."""
        yaw, axle = float(self.state.yaw_rad[env, EGO]), float(self.state.rear_axle_m[env, EGO])
        x = float(self.state.x_m[env, EGO]) - axle * np.cos(yaw)
        y = float(self.state.y_m[env, EGO]) - axle * np.sin(yaw)
        return se2_as_se3(x, y, yaw)

    def route_line(self, env: int) -> NDArray[np.float64]:
        """(N, 3) float64 x, y, yaw of the centre line of the route of one environment, world frame, a point a metre."""
        ego = self._hidden.egos[env]
        return self._hidden.line[env, : int(ego["length"]) + 1].copy()

    def junctions_on_route(self, env: int) -> int:
        """How many junctions the route of one environment leads through before its goal."""
        ego = self._hidden.egos[env]
        lanes = self._hidden.route_lane[env, : int(ego["lanes"])]
        before = self._hidden.route_from[env, : len(lanes)] < float(ego["length"])
        return int(np.count_nonzero(self.map.network.lane_junction[lanes[before]] >= 0))

    def standing(self, env: int) -> Standing:
        """Where the ego of one environment stands among lanes, ground and others; computed when asked."""
        graph, _, _, around = self._fixed
        hidden = self._hidden
        return standing_of(
            graph, around, hidden.cars[env], hidden.egos[env], hidden.route_lane[env], hidden.route_from[env],
            float(self.state.rear_axle_m[env, EGO]), self._parked,
        )  # fmt: skip

    @cached_property
    def _parked(self) -> Parked:
        return parked_things(self.map.scenery)

    def stages(self) -> NDArray[np.int8]:
        """(E, A) int8 how far each agent's script is: 0 waits for its trigger, 1 acts, 2 has acted; 0 without a script."""
        return np.ascontiguousarray(self._hidden.scripts["stage"])

    def _changing(self) -> dict[str, NDArray[Any]]:
        groups = (self._state, self._hidden, self._events, self._view)
        arrays = {f"{type(g).__name__}.{name}": array for g in groups for name, array in g._asdict().items()}
        return {**arrays, "World.ran_stop_sign": self.ran_stop_sign}

    def snapshot(self, env: int | None = None) -> WorldSnapshot:
        """A copy of everything that changes, of all environments or of one."""
        here = _rows(env)
        return WorldSnapshot({name: array[here].copy() for name, array in self._changing().items()})

    def restore(self, snapshot: WorldSnapshot, env: int | None = None) -> None:
        """Go back to a snapshot of this world or of one with the same map, config and number of environments.

        env: only this one goes back, to a snapshot of one environment. Raises ValueError: the snapshot does not fit.
        """
        here, mine = _rows(env), self._changing()
        for name, array in snapshot.arrays.items():
            if name not in mine or mine[name][here].shape != array.shape:
                raise ValueError(f"the snapshot is of another world: {name} has shape {array.shape}")
        for name, array in snapshot.arrays.items():
            mine[name][here] = array


def _rows(env: int | None) -> slice:
    return slice(None) if env is None else slice(env, env + 1)
