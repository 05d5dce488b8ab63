"""Labelled frames with what the expert would do, on roads that the expert and its student drive in turn (DAgger).

Composes worlds, sensors, labels, expert and student; knows nothing about networks. DAgger: Ross, Gordon and Bagnell (AISTATS 2011);
here every frame is fresh, so that nothing has to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from perception.labels import Affordance, LabelledFrames, closeness
from perception.points import BevGrid
from planning.imitation import mode_of
from planning.policy import SignalState, Situation
from sim.labelled_frames import DrivenFrames, DrivesConfig, FramesConfig, Town
from sim.observation import PRIVILEGED_SIZE, PrivilegedObserver
from sim.sensors.rig import RigConfig
from sim.sight import Road, Sight

SWING_AHEAD = 4  # point of the path at which a swing is told

Student = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]
"""Batched observation to actions (N, 2) float32 in [-1, 1]."""
Expert = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""Actions (N, A) of the rule-based driver and `privileged` (N, P) to `LabelledFrames.expert` (N, A, 2), whose mode drives."""


Label = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]
"""Batched observation to `LabelledFrames.expert` (N, A, 2): a network that is imitated in place of the expert who drives."""


class ImitationFramesConfig(FramesConfig):
    """Which frames are rendered, and who drives."""

    scenario_share: float = Field(
        default=0.5, ge=0, le=1, description="of the episodes that are scenarios, of every family a map has room for"
    )
    student_share: float = Field(
        default=0.6, ge=0, le=1, description="of the environments that the student drives after the warm-up"
    )
    student_ticks: int = Field(
        default=1,
        ge=1,
        le=10,
        description="ticks for which the student keeps to what it decided: deciding takes most of the time",
    )
    expert_chapters: int = Field(
        default=3, ge=0, description="chapters at the start in which the expert drives everywhere (behaviour cloning)"
    )


class ImitationFrames(DrivenFrames):
    """A source of labelled frames (perception.train_perception.FrameSource) that say what the expert would do.

    The expert knows only what the sensors can see. A chapter is a pure function of config, seed, its number and of the students
    that drove in it.
    """

    config: ImitationFramesConfig

    def __init__(
        self,
        config: ImitationFramesConfig,
        rig: RigConfig,
        grid: BevGrid,
        seed: int,
        split: Literal["train", "validation"],
        student: Student,
        expert: Expert,
        label: Label | None = None,
    ) -> None:
        """label: who is imitated, if not the expert.

        Raises ConfigError for numbers that do not fit each other, MapError for a town kept for another split."""
        super().__init__(config, rig, grid, seed, split)
        self.student, self.imitated, self.label = student, expert, label
        self.student_share = 0.0

    def begin(self, chapter: int) -> None:
        """Take the towns of that chapter and start new episodes in them."""
        self.student_share = 0.0 if chapter < self.config.expert_chapters else self.config.student_share
        super().begin(chapter)

    def town(self, name: str, rig: RigConfig, num_envs: int, seeds: range) -> Town:
        """The environments on one map."""
        return _ImitationTown(self, name, rig, num_envs, seeds)


class SharedTown(Town):
    """The environments on one map, some of them driven by a student, all of them by an expert who is asked what it would do."""

    def __init__(
        self,
        config: DrivesConfig,
        name: str,
        rig: RigConfig,
        grid: BevGrid,
        num_envs: int,
        seeds: range,
        imitated: Expert,
    ) -> None:
        super().__init__(config, name, rig, grid, num_envs, seeds)
        self.imitated = imitated
        self.student_share = 0.0  # of the environments that begin next
        self.observer = PrivilegedObserver(self.world.map, self.world)
        self.privileged = np.zeros((num_envs, PRIVILEGED_SIZE), np.float32)
        self.followed = np.zeros(num_envs, np.bool_)
        self.decided = np.zeros((num_envs, 2), np.float32)  # what the student has decided last
        self._wanted: NDArray[np.float32] | None = None  # (N, A, 2) of this tick, once it was asked for

    def begin(self, rng: np.random.Generator) -> None:
        self._wanted = None  # of the chapter before; to be asked at tick 0 is also how an observer forgets its detours
        super().begin(rng)
        self.followed = rng.random(self.world.num_envs) < self.student_share
        self.erring &= ~self.followed  # the student errs by itself

    def expert_actions(self) -> NDArray[np.float32]:
        """What the expert does now (N, 2)."""
        return mode_of(self.wanted())

    def wanted(self) -> NDArray[np.float32]:
        """How the expert, who sees no more than the sensors, would act now: (N, A, 2)."""
        if self._wanted is None:
            situation = self.world.situation()
            self.observer.observe(situation, self.privileged)
            rules = self.expert.act({}, self.observer.seen(situation))
            self._wanted = self.imitated(rules, self.privileged)
        return self._wanted

    def hold(self, ticks: int) -> None:
        """Drive on while the student keeps to what it has decided."""
        for _ in range(ticks):
            self._step(np.where(self.followed[:, None], self.decided, self.expert_actions()))

    def _step(self, actions: NDArray[np.float32]) -> None:
        super()._step(actions)
        self._wanted = None


class _ImitationTown(SharedTown):
    """The student sees what it needs, and frames are rendered for all."""

    def __init__(self, source: ImitationFrames, name: str, rig: RigConfig, num_envs: int, seeds: range) -> None:
        super().__init__(source.config, name, rig, source.grid, num_envs, seeds, source.imitated)
        self.source = source
        self._rendered = False  # whether the sensors show this tick

    def begin(self, rng: np.random.Generator) -> None:
        self.student_share = self.source.student_share
        self._rendered = False
        super().begin(rng)

    def drive(self, ticks: int) -> None:
        """Drive on; whoever is finished, or in trouble, starts another episode."""
        for tick in range(ticks):
            if self.followed.any() and tick % self.source.config.student_ticks == 0:
                self._decide()
            self.hold(1)

    def _decide(self) -> None:
        """Ask the student, in the environments that it drives."""
        if not self._rendered:
            self.suite.observe(self.world.state, self.followed)
        observation = self.labeller.observation()
        mine = {key: values[self.followed] for key, values in observation.items()}
        self.decided[self.followed] = self.source.student(mine)

    def _step(self, actions: NDArray[np.float32]) -> None:
        super()._step(actions)
        self._rendered = False

    def render(self) -> LabelledFrames:
        wanted = self.wanted()
        frames = super().render()
        self._rendered = True
        label = self.source.label
        affordances = affordances_of(self.world.situation(), self.observer.sight)
        return replace(
            frames,
            expert=wanted.copy() if label is None else label(frames.observation),
            affordances=affordances,
        )


def affordances_of(situation: Situation, sight: Sight) -> NDArray[np.float32]:
    """(N, len(Affordance)) float32 of what sensors can see now."""
    a, road = Affordance, sight.road
    result = np.zeros((len(road), len(Affordance)), np.float32)
    stops = (situation.signal == SignalState.RED) | (situation.signal == SignalState.YELLOW)
    unheeded = road[:, Road.STOPPED_AT_SIGN] == 0
    for column, distance in (
        (a.LEADER, road[:, Road.LEADER_GAP]),
        (a.YIELD, road[:, Road.YIELD_DISTANCE]),
        (a.WALKER, road[:, Road.WALKER_DISTANCE]),
        (a.BLOCKED, road[:, Road.DETOUR_DISTANCE]),
        (a.STOP_SIGN, np.where(unheeded, road[:, Road.STOP_SIGN_DISTANCE], np.inf)),
        (a.SIGNAL, np.where(stops, situation.stop_line_distance_m, np.inf)),
    ):
        result[:, column] = closeness(distance)
    result[:, a.LEADER_SPEED] = np.where(
        np.isfinite(road[:, Road.LEADER_GAP]), road[:, Road.LEADER_SPEED] / 10.0, np.nan
    )
    route, path = situation.route_in_ego, sight.path_in_ego
    aside = path[:, SWING_AHEAD] - route[:, SWING_AHEAD]
    ahead = route[:, SWING_AHEAD] - route[:, SWING_AHEAD - 1]
    left = ahead[:, 0] * aside[:, 1] - ahead[:, 1] * aside[:, 0]
    result[:, a.SWING] = np.where(np.abs(left) > 1e-4, left / np.maximum(np.hypot(*ahead.T), 1e-6) / 2.0, 0.0)
    result[:, a.SPEED_LIMIT] = situation.speed_limit_mps / 20.0
    return result
