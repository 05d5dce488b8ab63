"""Labelled frames, rendered while they are needed: the expert drives, with noise, through several towns at once.

Composes worlds, sensors, labels and the expert; knows nothing about networks.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from perception.labels import LabelledFrames, joined
from perception.points import BevGrid
from planning.route_follower import RouteFollower
from sim.config import ConfigError
from sim.perception_labels import PerceptionLabeller
from sim.roads.driving_map import load_map
from sim.roads.towns import SPLITS, check_training_map, seed_split
from sim.scenarios.catalogue import ScenarioName
from sim.scenarios.mixture import Mixture
from sim.sensors.light import WeatherName
from sim.sensors.rig import RigConfig
from sim.sensors.suite import SensorSuite
from sim.world import CollisionKind, World, WorldConfig

TRAINING_TOWNS = (
    "grid-small:1", "town:1", "radial:1", "grid-large:1", "town:2", "grid-small:2", "radial:2", "town:3", "grid-large:2", "town:4",
    "radial:3", "grid-small:3", "town:5", "grid-large:3", "radial:4", "town:6",
)  # fmt: skip
VALIDATION_TOWNS = ("grid-small:10000", "town:10000", "radial:10000", "grid-large:10000")


class DrivesConfig(BaseModel):
    """Where and how is driven."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    towns: tuple[str, ...] = Field(default=TRAINING_TOWNS, min_length=1, description="each chapter takes the next ones")
    envs: int = Field(default=32, ge=1, le=1024, description="environments, all towns together: frames of a step")
    weather: WeatherName = Field(default="random", description="as for drive")
    warm_up_ticks: int = Field(
        default=150, ge=0, le=2000, description="most ticks that are driven before a chapter's first frame"
    )
    episode_ticks: int = Field(default=600, ge=1, description="ticks after which another episode begins")
    scenario_share: float = Field(
        default=0.0, ge=0, le=1, description="of the episodes that are scenarios, of every family a map has room for"
    )
    hard_scenarios: tuple[ScenarioName, ...] = Field(
        default=(), description="families that come more often than others, as a driver fails in them"
    )
    hard_times: int = Field(default=3, ge=1, le=100, description="so many times as often")
    noise_share: float = Field(default=0.5, ge=0, le=1, description="share of the environments whose driver errs")
    steer_noise: float = Field(default=0.12, ge=0, le=1, description="standard deviation of what is added to steering")
    throttle_noise: float = Field(default=0.25, ge=0, le=1, description="and to the throttle")
    jitter_deg: float = Field(default=1.0, ge=0, le=20, description="most that a camera is turned, each town its own")
    jitter_m: float = Field(default=0.05, ge=0, le=1, description="most that a camera is moved")
    world: WorldConfig = WorldConfig()


class FramesConfig(DrivesConfig):
    """Which frames are rendered."""

    towns_at_once: int = Field(default=4, ge=1, le=64, description="divides envs; at most as many as towns")
    ticks_between: int = Field(default=5, ge=1, le=1000, description="ticks of 0.1 s between two frames")


class DrivenFrames:
    """A source of labelled frames (perception.train_perception.FrameSource).

    A chapter is a pure function of config, seed and its number: it takes the next town in place of the oldest, and begins new
    episodes everywhere.
    """

    def __init__(
        self, config: FramesConfig, rig: RigConfig, grid: BevGrid, seed: int, split: Literal["train", "validation"]
    ) -> None:
        """Raises ConfigError for numbers that do not fit each other, MapError for a town kept for another split."""
        if config.envs % config.towns_at_once or config.towns_at_once > len(config.towns):
            raise ConfigError(
                f"frames.towns_at_once must divide frames.envs = {config.envs} and be at most the number of frames.towns, "
                f"{len(config.towns)}; got {config.towns_at_once}"
            )
        for name in config.towns:
            check_split(name, split)
        self.config, self.rig, self.grid, self.seed, self.split = config, rig, grid, seed, split
        self.batch_size = config.envs
        self._towns: dict[int, Town] = {}  # by number in the list of towns
        self._driven: list[Town] = []

    def begin(self, chapter: int) -> None:
        """Take the towns of that chapter and start new episodes in them."""
        config = self.config
        wanted = [(chapter + k) % len(config.towns) for k in range(config.towns_at_once)]
        self._towns = {index: town for index, town in self._towns.items() if index in wanted}
        for index in wanted:
            if index not in self._towns:
                self._towns[index] = self._build(index)
        self._driven = [self._towns[index] for index in wanted]
        for place, town in enumerate(self._driven):
            town.begin(np.random.default_rng([self.seed, chapter, place]))

    def shard(self, chapter: int, place: int, batches: int) -> list[LabelledFrames]:
        """The part of a chapter's first batches that comes from its town number `place`, without the others."""
        index = (chapter + place) % len(self.config.towns)
        if index not in self._towns:
            self._towns = {index: self._build(index)}
        town = self._towns[index]
        town.begin(np.random.default_rng([self.seed, chapter, place]))
        frames = []
        for _ in range(batches):
            town.drive(self.config.ticks_between)
            frames.append(joined([town.render()]))
        return frames

    def next(self) -> LabelledFrames:
        """Drive on, and render all environments once."""
        assert self._driven, "begin a chapter first"
        for town in self._driven:
            town.drive(self.config.ticks_between)
        return joined([town.render() for town in self._driven])

    def _build(self, index: int) -> Town:
        config = self.config
        share = config.envs // config.towns_at_once
        rng = np.random.default_rng([self.seed, 1 << 20, index])
        rig = jittered(self.rig, config.jitter_deg, config.jitter_m, rng)
        return self.town(config.towns[index], rig, share, SPLITS[self.split])

    def town(self, name: str, rig: RigConfig, num_envs: int, seeds: range) -> Town:
        """The environments on one map."""
        return Town(self.config, name, rig, self.grid, num_envs, seeds)


class Town:
    """The environments on one map, driven by the rule-based expert."""

    def __init__(
        self, config: DrivesConfig, name: str, rig: RigConfig, grid: BevGrid, num_envs: int, seeds: range
    ) -> None:
        self.config, self.seeds = config, seeds
        driving_map = load_map(name)
        mixture = Mixture(driving_map, config.world, config.scenario_share, config.hard_scenarios, config.hard_times)
        self.world = World(driving_map, config.world, num_envs, mixture.place if config.scenario_share else None)
        agents = self.world.state.x_m.shape[1]
        self.suite = SensorSuite(rig, driving_map, num_envs, agents, labels=True, weather=config.weather)
        self.labeller = PerceptionLabeller(self.world, self.suite, grid)
        self.expert = RouteFollower()

    def begin(self, rng: np.random.Generator) -> None:
        n = self.world.num_envs
        self.rng = rng
        self.seed = rng.integers(self.seeds.start, self.seeds.stop, n).astype(np.uint64)
        self.episode = np.zeros(n, np.int64)
        self.noise = np.zeros((n, 2))
        self.erring = rng.random(n) < self.config.noise_share
        everywhere = np.ones(n, np.bool_)
        self.world.reset(everywhere, self.seed, self.episode)
        # Environments differ in how far into its episode each is.
        patience = rng.integers(0, self.config.warm_up_ticks + 1, n)
        for tick in range(self.config.warm_up_ticks):
            self._step(self.expert_actions())
            late = patience == tick
            if late.any():
                self._restart(late)

    def drive(self, ticks: int) -> None:
        """Drive on; whoever is finished, or in trouble, starts another episode."""
        for _ in range(ticks):
            self._step(self.expert_actions())

    def expert_actions(self) -> NDArray[np.float32]:
        """What the expert does now (N, 2)."""
        return self.expert.act({}, self.world.situation())

    def _step(self, actions: NDArray[np.float32]) -> None:
        """One tick with these actions, and the errors of those who err."""
        config, world = self.config, self.world
        spread = np.array([config.steer_noise, config.throttle_noise])
        # Ornstein-Uhlenbeck: errors last about a second, so that they lead somewhere.
        self.noise = 0.9 * self.noise + 0.436 * spread * self.rng.standard_normal(self.noise.shape)
        noisy = actions + np.where(self.erring[:, None], self.noise, 0.0)
        world.step(np.clip(noisy, -1.0, 1.0).astype(np.float32))
        events = world.events
        over = (events.collision != CollisionKind.NONE) | (world.state.tick >= config.episode_ticks)
        over |= (events.off_road | events.off_route | events.stuck | events.arrived) != 0
        if over.any():
            self._restart(over)

    def _restart(self, which: np.ndarray) -> None:
        self.episode[which] += 1
        self.noise[which] = 0.0
        self.world.reset(which, self.seed, self.episode)

    def render(self) -> LabelledFrames:
        self.suite.observe(self.world.state)
        return self.labeller.frames()


def jittered(rig: RigConfig, most_deg: float, most_m: float, rng: np.random.Generator) -> RigConfig:
    """The rig with every camera turned and moved a little, as no two cars are built alike."""
    cameras = []
    for camera in rig.cameras:
        turn, move = rng.uniform(-most_deg, most_deg, 3), rng.uniform(-most_m, most_m, 3)
        mount = camera.mount
        moved = mount.model_copy(
            update={
                "x_m": mount.x_m + move[0], "y_m": mount.y_m + move[1], "z_m": mount.z_m + move[2],
                "yaw_deg": mount.yaw_deg + turn[0], "pitch_deg": mount.pitch_deg + turn[1], "roll_deg": mount.roll_deg + turn[2],
            }
        )  # fmt: skip
        cameras.append(camera.model_copy(update={"mount": moved}))
    return rig.model_copy(update={"cameras": tuple(cameras)})


def check_split(name: str, split: Literal["train", "validation"]) -> None:
    """Raises MapError or ConfigError where a town is not one of that split's."""
    if split == "train":
        check_training_map(name)
        return
    number = name.partition(":")[2]
    if not number.isdecimal() or seed_split(int(number)) != split:
        raise ConfigError(f"{name!r} is no validation town; give one such as {VALIDATION_TOWNS[0]!r}")
