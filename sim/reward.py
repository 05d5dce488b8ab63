"""Reward of one tick: progress along the route, times soft factors, minus a small penalty at a bad end.

The shape is that of CaRL (CoRL 2025): progress in percent of the route, multiplied by factors in [0, 1] for over
speed, closeness in time, leaving the lane's centre and discomfort; infractions end the episode. Arrays over
environments; knows the world's state and events, nothing about observations or learning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from planning.policy import Situation
from sim.world import EGO, TICK_S, WorldEvents, WorldState

F64 = NDArray[np.float64]


class RewardConfig(BaseModel):
    """Limits of the soft factors and the penalty of a bad end."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    end_penalty: float = Field(
        default=1.0,
        ge=0,
        description="subtracted at a collision, red light, stop sign, off road, off route, standstill",
    )
    route_m: float | None = Field(
        default=None, gt=0, description="progress counts in percent of so many metres; by default of the route's own"
    )
    overspeed_range_mps: float = Field(default=2.23, gt=0, description="over the limit by this much, the factor is 0")
    headway_s: float = Field(default=0.5, ge=0, description="closer in time to the leader than this halves the reward")
    lane_offset_m: float = Field(
        default=1.0, gt=0, description="further from the lane's centre than this counts as off centre"
    )
    lane_offset_s: float = Field(
        default=1.0,
        ge=0,
        description="off centre for longer than this halves the reward, driving against the traffic at once",
    )
    max_acceleration_mps2: float = Field(default=4.0, gt=0, description="more than this, either way, halves the reward")
    max_lateral_acceleration_mps2: float = Field(default=4.89, gt=0, description="nuPlan's comfort bound")


@dataclass(frozen=True)
class RewardTerms:
    """(E,) float64 each. progress_percent: gained by this tick; the factors multiply it; penalty is subtracted."""

    progress_percent: F64
    speed_factor: F64
    headway_factor: F64
    lane_factor: F64
    comfort_factor: F64
    penalty: F64

    def total(self) -> F64:
        """Reward (E,) float64."""
        factors = self.speed_factor * self.headway_factor * self.lane_factor * self.comfort_factor
        return np.asarray(self.progress_percent * factors - self.penalty)

    def of(self, e: int) -> dict[str, float]:
        """The named terms of environment e."""
        return {name: float(getattr(self, name)[e]) for name in self.__dataclass_fields__}


class Reward:
    """Remembers, for E environments, the progress so far and for how long the ego has been off the lane's centre."""

    def __init__(self, config: RewardConfig, num_envs: int) -> None:
        self.config = config
        self._progress_m = np.zeros(num_envs)
        self._off_center_s = np.zeros(num_envs)

    def reset(self, started: NDArray[np.bool_], events: WorldEvents) -> None:
        """Start anew where `started` (E,) is true; `events` are those of the fresh episodes."""
        self._progress_m[started] = events.progress_m[started]
        self._off_center_s[started] = 0.0

    def saved(self, env: int) -> tuple[float, float]:
        """What is remembered of one environment, for `restore`."""
        return float(self._progress_m[env]), float(self._off_center_s[env])

    def restore(self, env: int, saved: tuple[float, float]) -> None:
        """Remember of one environment what was saved."""
        self._progress_m[env], self._off_center_s[env] = saved

    def after_tick(
        self, state: WorldState, events: WorldEvents, situation: Situation, ended_badly: NDArray[np.bool_]
    ) -> RewardTerms:
        """Terms of the tick that has just run."""
        c = self.config
        speed = state.speed_mps[:, EGO]
        gained_m = np.maximum(events.progress_m - self._progress_m, 0.0)
        np.maximum(self._progress_m, events.progress_m, out=self._progress_m)
        off_center = np.abs(events.lateral_m) > c.lane_offset_m
        self._off_center_s[:] = np.where(off_center, self._off_center_s + TICK_S, 0.0)
        overspeed = np.maximum(speed - situation.speed_limit_mps, 0.0)
        close = (speed > 1.0) & (situation.leader_gap_m < c.headway_s * speed)
        lateral_acceleration = np.abs(speed * state.yaw_rate_radps[:, EGO])
        rough = (np.abs(state.acceleration_mps2[:, EGO]) > c.max_acceleration_mps2) | (
            lateral_acceleration > c.max_lateral_acceleration_mps2
        )
        route_m = np.maximum(events.route_length_m, 1.0) if c.route_m is None else c.route_m
        return RewardTerms(
            progress_percent=100.0 * gained_m / route_m,
            speed_factor=np.clip(1.0 - overspeed / c.overspeed_range_mps, 0.0, 1.0),
            headway_factor=np.where(close, 0.5, 1.0),
            lane_factor=np.where((self._off_center_s > c.lane_offset_s) | (events.wrong_way != 0), 0.5, 1.0),
            comfort_factor=np.where(rough, 0.5, 1.0),
            penalty=np.where(ended_badly, c.end_penalty, 0.0),
        )
