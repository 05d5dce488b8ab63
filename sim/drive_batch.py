"""A batch of driving environments without automatic resets: world, sensors, observation, reward, and what it is made of.

Composes them; knows nothing about Gymnasium's interface, policies, logs or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from perception.sensors import EgoState, SensorFrame
from planning.action import ACTION_SIZE, Action
from planning.policy import NavigationCommand, Situation
from sim.config import ConfigError, validation_message
from sim.observation import ROUTE_RANGE_M, PrivilegedObserver, ego_vector, privileged_space, sensor_space
from sim.reward import Reward, RewardConfig, RewardTerms
from sim.roads.driving_map import DrivingMap, load_map
from sim.scenarios.catalogue import NAMES as SCENARIOS
from sim.scenarios.catalogue import Scenario, ScenarioName, family_of
from sim.scenarios.placement import Placement
from sim.scenarios.recorder import TraceRecorder
from sim.sensors.light import WeatherName
from sim.sensors.meshes import MeshConfig
from sim.sensors.navigation import Navigation
from sim.sensors.rig import RigConfig, RigName, rig
from sim.sensors.suite import SensorSuite
from sim.sensors.warm_up import sensors_compiled_meanwhile
from sim.step import Actors, Step
from sim.traffic.scripts import NEVER
from sim.world import EGO, TICK_S, TICK_US, CollisionKind, World, WorldConfig, WorldSnapshot

BLOCKED_AFTER_S = 180.0  # CARLA leaderboard
BLOCKED_BELOW_MPS = 0.1
ObservationBuffers = dict[str, NDArray[np.generic]]

INFRACTIONS = (
    "collision_vehicle", "collision_pedestrian", "collision_static", "red_light", "stop_sign", "off_road", "off_route",
    "wrong_way", "stuck", "blocked", "timeout",
)  # fmt: skip


class EnvConfig(BaseModel):
    """What an environment is made of; the keyword arguments of `gymnasium.make("automedon/Drive-v0", ...)`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    map: str = Field(
        default="grid-small", description="town name, path of a .xodr, .osm or .net.xml file, or a recording"
    )
    rig: Annotated[
        Annotated[RigName, Tag("name")] | Annotated[RigConfig, Tag("sensors")],
        Discriminator(lambda value: "name" if isinstance(value, str) else "sensors"),
    ] = Field(default="small", description="name of a rig, or its sensors one by one")
    observation: Literal["sensors", "privileged", "both"] = Field(
        default="sensors",
        description="`both` adds the key `privileged`; `privileged` alone is a flat Box and renders nothing",
    )
    meshes: tuple[MeshConfig, ...] = Field(
        default=(), max_length=16, description="your own meshes as part of the scene: seen, but neither hit nor avoided"
    )
    max_steps: int = Field(default=1800, ge=1, description="ticks of 0.1 s after which an episode is truncated")
    end_on_infraction: bool = Field(
        default=True,
        description="false: as on the CARLA leaderboard, only 30 m off the route or 180 s at a standstill end an episode early",
    )
    weather: WeatherName = Field(
        default="clear",
        description="clear: daylight, different in each episode; random: any weather at any hour; or a fixed one",
    )
    scenario: ScenarioName | None = Field(
        default=None,
        description="what is staged, see `automedon drive --list-scenarios`; it brings its own map unless one is given",
    )
    scenery_seed: int = Field(default=0, ge=0, description="what stands beside the road")
    world: WorldConfig = WorldConfig()
    reward: RewardConfig = RewardConfig()

    @model_validator(mode="before")
    @classmethod
    def _bring_map(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("scenario") in SCENARIOS and "map" not in values:
            return {**values, "map": family_of(values["scenario"]).maps[0]}
        return values

    @classmethod
    def of(cls, **values: Any) -> EnvConfig:
        """The config with these values.

        Raises:
            ConfigError: one line that names the field, what was given and what is allowed.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError(validation_message(error, cls)) from None


@dataclass(frozen=True)
class SavedEnvironment:
    """One environment at one tick, for `DriveBatch.go_back`: its world, and what is remembered beside it. Nothing is shared."""

    world: WorldSnapshot
    reward: tuple[float, float]
    sight: NDArray[np.void] | None
    still_ticks: int
    infractions: dict[str, str]
    placement: Placement | None

    @property
    def tick(self) -> int:
        return int(self.world.arrays["State.tick"][0])


class DriveBatch:
    """N environments side by side, without automatic resets: what both Gymnasium classes and the episode runner use.

    observation: buffers that every `reset` and `step` overwrite, by key of the observation space (or under
    `privileged` alone). reward (N,) float64, terminated and truncated (N,) bool, terms: of the last tick.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        driving_map: DrivingMap | None = None,
        place: Callable[[int, int], Placement] | None = None,
        blind: bool = False,
    ) -> None:
        """place(seed, episode): how episodes begin, in place of the config's scenario.

        blind: nobody looks at `privileged`, which keeps what it holds, because the policy goes by `situation` alone.
        """
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1, got {num_envs}")
        self.config = config
        self.num_envs = num_envs
        self.map = driving_map if driving_map is not None else load_map(config.map, seed=config.scenery_seed)
        self.scenario = None if config.scenario is None else Scenario(config.scenario, self.map, config.world)
        if self.scenario is not None:
            place = self.scenario.place
        self.rig = config.rig if isinstance(config.rig, RigConfig) else rig(config.rig)
        with sensors_compiled_meanwhile(self.rig) if config.observation != "privileged" else nullcontext():
            self.world = World(self.map, config.world, num_envs, place)
        self.reward_function = Reward(config.reward, num_envs)
        num_agents = self.world.state.x_m.shape[1]
        self.sensors = (
            None
            if config.observation == "privileged"
            else SensorSuite(self.rig, self.map, num_envs, num_agents, meshes=config.meshes, weather=config.weather)
        )
        self.navigation_sensors = Navigation(self.rig.gnss, self.rig.imu, num_envs)
        self._privileged = (
            None if blind or config.observation == "sensors" else PrivilegedObserver(self.map, self.world)
        )
        self.observation_space: spaces.Box | spaces.Dict = (
            privileged_space()
            if config.observation == "privileged"
            else sensor_space(self.rig, config.observation == "both")
        )
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self.observation = self._allocate()
        self.situation: Situation = self.world.situation()
        self.reward = np.zeros(num_envs)
        self.terminated = np.zeros(num_envs, np.bool_)
        self.truncated = np.zeros(num_envs, np.bool_)
        self.terms: RewardTerms | None = None
        last_tick = self.world.last_tick  # of a recording
        self.max_steps = config.max_steps if last_tick is None else min(config.max_steps, last_tick)
        self._still_ticks = np.zeros(num_envs, np.int64)
        self._in_trouble = np.zeros(num_envs, np.bool_)
        self._infractions: list[dict[str, str]] = [{} for _ in range(num_envs)]  # of the episode so far
        scenario = self.scenario
        self._recorder = None if scenario is None else TraceRecorder(self.world, scenario.family.actors)

    def _allocate(self) -> ObservationBuffers:
        space = self.observation_space
        if isinstance(space, spaces.Box):
            return {"privileged": np.zeros((self.num_envs, *space.shape), np.float32)}
        return {key: np.zeros((self.num_envs, *(entry.shape or ())), entry.dtype) for key, entry in space.items()}

    def reset(self, started: NDArray[np.bool_], seed: NDArray[np.uint64], episode: NDArray[np.int64]) -> None:
        """Start episode `episode[e]` of `seed[e]` in each environment where `started` (N,) is true, and observe."""
        self.world.reset(started, seed, episode)
        self.reward_function.reset(started, self.world.events)
        self.reward[started] = 0.0
        self.terminated[started] = False
        self.truncated[started] = False
        self._in_trouble[started] = False
        self._still_ticks[started] = 0
        for e in np.flatnonzero(started):
            self._infractions[e] = {}
        if self._recorder is not None:
            self._recorder.begin(started)
        self.navigation_sensors.begin(started)
        self._observe(started)

    def step(self, actions: NDArray[np.float32]) -> None:
        """One tick of all environments, in the order of docs/design.md. actions: (N, 2), clipped to [-1, 1].

        Raises:
            ValueError: the actions have another shape or are not finite.
        """
        actions = np.asarray(actions, np.float32)
        if actions.shape != (self.num_envs, ACTION_SIZE):
            raise ValueError(f"actions must have shape ({self.num_envs}, {ACTION_SIZE}), got {actions.shape}")
        if not np.isfinite(actions).all():
            raise ValueError("actions must be finite, got NaN or infinity")
        self.world.step(np.clip(actions, -1.0, 1.0))
        self._observe(None)
        if self._recorder is not None:
            self._recorder.record()
        events = self.world.events
        bad = (events.collision != CollisionKind.NONE) | np.any(
            [events.red_light, self.world.ran_stop_sign, events.off_road, events.off_route, events.stuck], axis=0
        )
        still = self.world.state.speed_mps[:, EGO] < BLOCKED_BELOW_MPS
        self._still_ticks[:] = np.where(still, self._still_ticks + 1, 0)
        over = bad if self.config.end_on_infraction else (events.off_route != 0) | self._blocked()
        self.terms = self.reward_function.after_tick(self.world.state, events, self.situation, bad)
        self.reward[:] = self.terms.total()
        self.terminated[:] = over | (events.arrived != 0)
        self.truncated[:] = ~self.terminated & (self.world.state.tick >= self.max_steps)
        self._in_trouble = bad | (events.wrong_way != 0) | self.truncated | (over & self.terminated)
        for e in np.flatnonzero(self._in_trouble):
            self._infractions[e] = {**self.infractions(int(e)), **self._infractions[e]}

    def save(self, e: int) -> SavedEnvironment:
        """Environment e as it is now."""
        sight = None if self._privileged is None else self._privileged.observer.saved(e)
        return SavedEnvironment(
            self.world.snapshot(e), self.reward_function.saved(e), sight, int(self._still_ticks[e]),
            self.episode_infractions(e), self.world.placements[e],
        )  # fmt: skip

    def go_back(self, to: Mapping[int, SavedEnvironment]) -> None:
        """Take environments back to what was saved of them, and observe."""
        for e, saved in to.items():
            self.world.restore(saved.world, e)
            self.world.placements[e] = saved.placement
            self.reward_function.restore(e, saved.reward)
            self._still_ticks[e], self._infractions[e] = saved.still_ticks, dict(saved.infractions)
            if self._privileged is not None and saved.sight is not None:
                self._privileged.observer.restore(e, saved.sight)
        back = np.isin(np.arange(self.num_envs), list(to))
        if self._recorder is not None:
            self._recorder.begin(back)
        self.navigation_sensors.begin(back)
        self.reward[back] = 0.0
        self.terminated[back] = self.truncated[back] = self._in_trouble[back] = False
        self._observe(back)

    def _blocked(self) -> NDArray[np.bool_]:
        return self._still_ticks * TICK_S >= BLOCKED_AFTER_S

    def _observe(self, only: NDArray[np.bool_] | None) -> None:
        world, out = self.world, self.observation
        self.situation = world.situation()
        if self._privileged is not None:
            privileged = out["privileged"]
            assert privileged.dtype == np.float32
            self._privileged.observe(self.situation, privileged, only)  # type: ignore[arg-type]
        if self.sensors is None:
            return
        self.sensors.observe(world.state, only)
        for camera in self.rig.cameras:
            np.copyto(out[camera.name], self.sensors.images[camera.name])
        np.copyto(out["points"], self.sensors.points.reshape(self.num_envs, -1))
        out["point_count"][:, 0] = self.sensors.point_count
        ego_vector(world.state, out["ego"])  # type: ignore[arg-type]
        route = self.situation.route_in_ego.reshape(self.num_envs, -1)
        np.clip(route, -ROUTE_RANGE_M, ROUTE_RANGE_M, out=out["route"])

    def seen_situation(self) -> Situation:
        """`situation`, but with only those of whom the privileged observation knows; there has to be one."""
        assert self._privileged is not None
        return self._privileged.seen(self.situation)

    def route_completion(self) -> NDArray[np.float64]:
        """(N,) float64 in [0, 1]: share of the route driven; 1 once arrived."""
        events = self.world.events
        share = events.progress_m / np.maximum(events.route_length_m, 1e-9)
        return np.where(events.arrived != 0, 1.0, np.clip(share, 0.0, 1.0))

    def navigation(self, e: int) -> dict[str, Any]:
        """The next manoeuvre of environment e, as `info` has it: `command`, `command_distance_m`, and `replans` so far."""
        command, distance_m = self._commands()
        return {
            "command": NavigationCommand(int(command[e])),
            "command_distance_m": float(distance_m[e]),
            "replans": int(self.world.events.replans[e]),
        }

    def navigation_arrays(self) -> dict[str, NDArray[Any]]:
        """The same of all environments, (N,) each and copies: int8 `NavigationCommand`, float64 m, int32."""
        command, distance_m = self._commands()
        return {
            "command": command.copy(),
            "command_distance_m": distance_m.copy(),
            "replans": self.world.events.replans.copy(),
        }

    def _commands(self) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        situation = self.situation
        assert situation.command is not None
        assert situation.command_distance_m is not None
        return situation.command, situation.command_distance_m

    def is_success(self, e: int) -> bool:
        """Whether there was no infraction in the whole episode of environment e, which ends here, and each check was kept."""
        return not self._infractions[e] and all(self.judge_scenario(e)[0].values())

    def judge_scenario(self, e: int) -> tuple[dict[str, bool], bool]:
        """Of the scenario that environment e has come to the end of: its checks, name to whether it was kept, and whether
        everything that waited for the ego has happened. Without a scenario there are none, and nothing has."""
        placement = self.world.placements[e]
        if self.scenario is None or self._recorder is None or placement is None:
            return {}, False
        trace = self._recorder.trace(e, frozenset(self._infractions[e]))
        waited = [k + 1 for k, actor in enumerate(placement.actors) if actor.trigger != NEVER]
        return self.scenario.judge(trace, placement), bool((trace.stage[:, waited].max(axis=0, initial=0) > 0).all())

    def in_trouble(self) -> NDArray[np.bool_]:
        """(N,) bool: where `infractions` has something to say of this tick."""
        return self._in_trouble.copy()

    def episode_infractions(self, e: int) -> dict[str, str]:
        """What has gone wrong in the episode of environment e so far: kind to a sentence about the first time."""
        return dict(self._infractions[e])

    def infractions(self, e: int) -> dict[str, str]:
        """What went wrong in environment e at the last tick: kind (one of INFRACTIONS) to a sentence."""
        events, state = self.world.events, self.world.state
        where = f"at ({state.x_m[e, EGO]:.1f}, {state.y_m[e, EGO]:.1f}) m after {state.tick[e] / 10:.1f} s"
        found: dict[str, str] = {}
        match events.collision[e]:
            case CollisionKind.VEHICLE:
                found["collision_vehicle"] = f"hit a vehicle {where}"
            case CollisionKind.PEDESTRIAN:
                found["collision_pedestrian"] = f"hit a pedestrian {where}"
            case CollisionKind.STATIC:
                found["collision_static"] = f"hit something that stands beside the road {where}"
        sentences = {
            "red_light": "crossed a stop line at red",
            "off_road": "left the road",
            "off_route": "lost the route",
            "wrong_way": "drove against the traffic",
            "stuck": "stood still without a reason",
        }
        for name, sentence in sentences.items():
            if getattr(events, name)[e]:
                found[name] = f"{sentence} {where}"
        if self.world.ran_stop_sign[e]:
            found["stop_sign"] = f"did not stop at a stop sign {where}"
        if not self.config.end_on_infraction and self._blocked()[e]:
            found["blocked"] = f"stood still for {BLOCKED_AFTER_S:.0f} s {where}"
        if self.truncated[e]:
            found["timeout"] = f"not arrived {where}"
        return found

    def frame(self, e: int) -> SensorFrame:
        """What environment e senses now, as a `SensorFrame` of its own (nothing shared with the buffers)."""
        state = self.world.state
        timestamp_us = int(state.tick[e]) * TICK_US
        cameras, lidars = ({}, {}) if self.sensors is None else self.sensors.frame(e, timestamp_us)
        ego = EgoState(
            timestamp_us=timestamp_us,
            speed_mps=float(state.speed_mps[e, EGO]),
            acceleration_mps2=float(state.acceleration_mps2[e, EGO]),
            yaw_rate_radps=float(state.yaw_rate_radps[e, EGO]),
            last_steer=float(state.last_action[e, 0]),
            last_throttle=float(state.last_action[e, 1]),
            world_from_ego=self.world.world_from_ego(e),
        )
        route = self.situation.route_in_ego[e].copy()
        if self.sensors is None:
            return SensorFrame(timestamp_us, cameras, lidars, ego, route)
        said = self.navigation_sensors.observe(state, e)
        return SensorFrame(timestamp_us, cameras, lidars, ego, route, said.gnss, said.imu)

    def snapshot(self, e: int, action: Action | None) -> Step:
        """The `Step` of environment e at this tick, with the action that was chosen on it."""
        state = self.world.state
        others = np.flatnonzero(state.active[e, 1:]) + 1
        center = np.column_stack([state.x_m[e, others], state.y_m[e, others], 0.5 * state.height_m[e, others]])
        size = np.column_stack([state.length_m[e, others], state.width_m[e, others], state.height_m[e, others]])
        actors = Actors(
            instance=others.astype(np.int32),
            kind=state.kind[e, others].copy(),
            center=center,
            size=size,
            yaw_rad=state.yaw_rad[e, others].copy(),
            speed_mps=state.speed_mps[e, others].copy(),
        )
        tick = int(state.tick[e])
        events, navigation = self.infractions(e), self.navigation(e)
        if self.world.events.arrived[e]:
            events["arrived"] = "reached the end of the route"
        return Step(
            tick=tick,
            timestamp_us=tick * TICK_US,
            frame=self.frame(e),
            action=action,
            reward=float(self.reward[e]),
            reward_terms=self.terms.of(e) if self.terms is not None and tick > 0 else {},
            events=events if tick > 0 else {},
            actors=actors,
            signals=state.signal[e].copy(),
            progress_m=float(self.world.events.progress_m[e]),
            route_length_m=float(self.world.events.route_length_m[e]),
            command=navigation["command"],
            command_distance_m=navigation["command_distance_m"],
            standing=self.world.standing(e),
        )
