"""Frames from many towns and drives, chosen for what they show, as frozen encoders see them.

Composes worlds, sensors, labels, expert, student and encoders. An expert drives without sensors some hundred times as fast as
encoders look, and most of what it meets is an empty road. So it drives far, and what is looked at are the moments with a reason to
slow down. The student (DAgger: Ross, Gordon and Bagnell, AISTATS 2011) needs its sensors all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from perception.features import SensorTokens
from perception.labels import Affordance
from perception.points import BevGrid
from planning.imitation import BRAKES_BELOW, THROTTLE, mode_of
from planning.kept_frames import KeptFrames
from sim.imitation_frames import Expert, SharedTown, affordances_of
from sim.labelled_frames import DrivesConfig, check_split, jittered
from sim.roads.towns import SPLITS
from sim.sensors.rig import RigConfig
from sim.sight import Road
from sim.world import EGO

KINDS = ("town", "grid-small", "radial", "town", "grid-large")  # stop signs are more frequent in the first
TOWNS = tuple(f"{kind}:{100 * part + number}" for number in range(1, 100) for part, kind in enumerate(KINDS))
TICKS = 2  # between two moments, 0.1 s each; the student decides as often
STANDS_MPS = 0.1  # a standstill, as at stop signs: at 0.2 the expert still brakes

Look = Callable[[Mapping[str, NDArray[np.generic]]], SensorTokens]
"""Batched observation to what the encoders make of it."""
Act = Callable[[SensorTokens], NDArray[np.float32]]
"""Those to the actions of the student (N, 2) float32 in [-1, 1]."""

# What share of the moments with a reason to slow down that is so near is kept; several reasons add up.
REASONS = {
    Affordance.STOP_SIGN: (0.25, 0.35),  # closeness of 0.25: 30 m
    Affordance.WALKER: (0.25, 0.6),
    Affordance.BLOCKED: (0.25, 0.3),
    Affordance.SIGNAL: (0.25, 0.12),
    Affordance.YIELD: (0.25, 0.12),
    Affordance.LEADER: (0.4, 0.12),
}
BRAKING_SHARE, STARTS_SHARE, ASIDE_SHARE = 0.2, 0.4, 0.4
ASIDE_M = 0.4  # beside the route on the path: passing something, which no affordance tells any more once it turns back


class ChosenFramesConfig(DrivesConfig):
    """Where, how far and by whom is driven, and how much of that is kept."""

    towns: tuple[str, ...] = Field(default=TOWNS, min_length=1, description="each shard is driven in the next one")
    envs: int = Field(default=48, ge=1, le=1024, description="cars that drive at once")
    moments: int = Field(default=240, ge=1, le=100_000, description="of a shard, 0.2 s apart")
    scenario_share: float = Field(
        default=0.5, ge=0, le=1, description="of the episodes that are scenarios, of every family a map has room for"
    )
    student_share: float = Field(
        default=0.6, ge=0, le=1, description="of the cars that the student drives, once there is one"
    )
    other_share: float = Field(
        default=0.05, gt=0, le=1, description="of the moments without a reason to slow down that are kept"
    )
    student_keeps: float = Field(
        default=2.0,
        gt=0,
        le=100,
        description="of a student's moments so many times as much is kept: they are seen anyway",
    )


class ChosenFrames:
    """Shards of kept frames. A shard is a pure function of config, seed, its number and the student."""

    def __init__(
        self,
        config: ChosenFramesConfig,
        rig: RigConfig,
        grid: BevGrid,
        seed: int,
        split: Literal["train", "validation"],
        look: Look,
        act: Act,
        expert: Expert,
    ) -> None:
        """Raises MapError or ConfigError for a town kept for another split."""
        for name in config.towns:
            check_split(name, split)
        self.config, self.rig, self.grid, self.seed, self.split = config, rig, grid, seed, split
        self.look, self.act, self.expert = look, act, expert

    def kept(self, number: int, student_share: float) -> Iterator[KeptFrames]:
        """Drive shard `number`, the student in its share of the cars: what is kept of each moment, if anything."""
        config, rng = self.config, np.random.default_rng([self.seed, number])
        rig = jittered(self.rig, config.jitter_deg, config.jitter_m, rng)
        name = config.towns[number % len(config.towns)]
        town = SharedTown(config, name, rig, self.grid, config.envs, SPLITS[self.split], self.expert)
        town.student_share = student_share
        town.begin(rng)
        for _ in range(config.moments):
            frames = self._moment(town, rng)
            if frames is not None:
                yield frames
            town.hold(TICKS)

    def _moment(self, town: SharedTown, rng: np.random.Generator) -> KeptFrames | None:
        """Look, let the student decide, and keep what is chosen."""
        sight = town.observer.sight
        expert, affordances = town.wanted(), affordances_of(town.world.situation(), sight)
        speed_mps, swing_m = town.world.state.speed_mps[:, EGO], sight.road[:, Road.SWING]
        share = share_kept(expert, affordances, speed_mps, swing_m, self.config.other_share)
        share[town.followed] *= self.config.student_keeps
        chosen = rng.random(len(share)) < share
        seen = chosen | town.followed
        if not seen.any():
            return None
        town.suite.observe(town.world.state, seen)
        tokens = self.look({key: values[seen] for key, values in town.labeller.observation().items()})
        if town.followed.any():
            town.decided[town.followed] = self.act(_of(tokens, town.followed[seen]))
        if not chosen.any():
            return None
        light, lane = town.labeller.light(), town.labeller.lane()
        labels = [torch.from_numpy(array[chosen]) for array in (expert, light, lane, affordances)]
        return KeptFrames(_of(tokens, chosen[seen]), *labels)


def share_kept(
    expert: NDArray[np.float32],
    affordances: NDArray[np.float32],
    speed_mps: NDArray[np.floating],
    swing_m: NDArray[np.floating],
    other: float,
) -> NDArray[np.float64]:
    """(N,) chance that a moment is kept: `other`, and more for each reason to slow down, where a car that stands may go and beside
    what is passed; a quarter while it stands and stays so, as one red light looks like itself for half a minute."""
    share = np.full(len(affordances), other)
    for column, (near, more) in REASONS.items():
        share += more * (affordances[:, column] > near)
    throttle = mode_of(expert)[:, THROTTLE]
    stands = speed_mps < STANDS_MPS
    share += BRAKING_SHARE * (throttle < BRAKES_BELOW) + STARTS_SHARE * (stands & (throttle > 0))
    share += ASIDE_SHARE * (np.abs(swing_m) > ASIDE_M)
    share[stands & (throttle < 0)] *= 0.25
    return share


def _of(tokens: SensorTokens, which: NDArray[np.bool_]) -> SensorTokens:
    mine = torch.from_numpy(which)
    return SensorTokens(
        {name: values[mine] for name, values in tokens.values.items()},
        {name: here[mine] for name, here in tokens.present.items()},
    )
