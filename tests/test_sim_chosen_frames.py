"""Chosen frames: moments with a reason to slow down are kept more often, labels belong to what was seen, shards repeat."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from perception.features import SensorTokens
from perception.labels import Affordance
from perception.points import BevGrid
from planning.imitation import expert_distribution, mode_of
from planning.kept_frames import KeptFrames
from sim.chosen_frames import KINDS, TOWNS, ChosenFrames, ChosenFramesConfig, share_kept
from sim.roads.driving_map import MapError
from sim.roads.towns import check_training_map
from sim.sensors.rig import rig
from sim.world import WorldConfig

CONFIG: dict[str, Any] = {
    "towns": ("grid-small", "grid-small:3"), "envs": 8, "moments": 12, "warm_up_ticks": 40, "weather": "clear",
    "scenario_share": 0.0, "jitter_deg": 0.0, "jitter_m": 0.0, "other_share": 0.2,
    "world": WorldConfig(agents=8, route_min_m=60.0, route_max_m=120.0),
}  # fmt: skip


class Onlooker:
    """Encoders that hand on the ego vector and the first camera's mean, and a student that turns hard to the right."""

    def __init__(self) -> None:
        self.seen = self.asked = 0

    def look(self, observation: Mapping[str, NDArray[Any]]) -> SensorTokens:
        self.seen += len(observation["ego"])
        picture = observation["camera_wide"].reshape(len(observation["ego"]), -1).mean(1)
        values = {
            "ego": torch.from_numpy(observation["ego"][:, None]),
            "picture": torch.from_numpy(picture[:, None, None]),
        }
        return SensorTokens(values, {"picture": torch.ones(len(picture), dtype=torch.bool)})

    def act(self, tokens: SensorTokens) -> NDArray[np.float32]:
        n = len(tokens.values["ego"])
        self.asked += n
        return np.tile(np.array([-1.0, 1.0], np.float32), (n, 1))


def source(onlooker: Onlooker, **values: Any) -> ChosenFrames:
    config = ChosenFramesConfig(**{**CONFIG, **values})
    return ChosenFrames(
        config, rig("smoke"), BevGrid.of_cells(48), 0, "train", onlooker.look, onlooker.act,
        lambda a, p: expert_distribution(a, 40.0),
    )  # fmt: skip


def joined(parts: list[KeptFrames]) -> dict[str, torch.Tensor]:
    labels = {name: torch.cat([getattr(p, name) for p in parts]) for name in ("expert", "light", "lane", "affordances")}
    return labels | {name: torch.cat([p.tokens.values[name] for p in parts]) for name in parts[0].tokens.values}


def test_all_training_towns_may_be_trained_on_and_differ() -> None:
    assert len(set(TOWNS)) == len(TOWNS) > 400
    assert {town.partition(":")[0] for town in TOWNS} == set(KINDS)
    for town in TOWNS:
        check_training_map(town)


def test_what_is_a_reason_to_slow_down_is_kept_more_often() -> None:
    a, n = Affordance, 8
    affordances, speed = np.zeros((n, len(Affordance)), np.float32), np.full(n, 8.0)
    go = np.zeros((n, 2), np.float32)
    go[:, 1] = 0.5
    affordances[1, a.STOP_SIGN] = affordances[2, a.STOP_SIGN] = affordances[2, a.WALKER] = 0.5
    affordances[3, a.STOP_SIGN] = 0.1  # far away
    go[4, 1] = -0.6
    speed[5:] = 0.0
    go[6:, 1] = -0.6
    affordances[7, a.SIGNAL] = 0.9
    passing = np.where(np.arange(8) == 3, -1.5, 0.1)
    share = share_kept(expert_distribution(go, 40.0), affordances, speed, np.zeros(8), 0.05)
    aside = share_kept(expert_distribution(go, 40.0), affordances, speed, passing, 0.05)
    assert aside[3] > 5 * share[3]
    assert (np.delete(aside, 3) == np.delete(share, 3)).all()
    empty, sign, both, far, brakes, starts, stands, waits = share
    assert empty == far == 0.05
    assert both > sign > empty
    assert brakes > empty
    assert starts > brakes  # nobody learns to drive off from cars that stand
    assert stands < brakes
    assert empty < waits < sign


def test_everything_is_kept_where_all_is_and_labels_belong_to_what_is_seen() -> None:
    onlooker = Onlooker()
    frames = joined(list(source(onlooker, other_share=1.0, noise_share=0.0).kept(0, 0.0)))
    assert onlooker.seen == 8 * 12 >= len(frames["ego"]) > 60  # a car that stands is kept at times
    assert onlooker.asked == 0
    speed, throttle = frames["ego"][:, 0, 0].numpy(), mode_of(frames["expert"].numpy())[:, 1]
    assert (throttle[speed < 0.1] > -1).all()
    assert frames["affordances"][:, Affordance.SPEED_LIMIT].min() > 0
    assert frames["picture"].min() > 1
    # One moment follows the other: the expert's throttle now tells how the speed changes.
    steps = list(source(Onlooker(), other_share=1.0, noise_share=0.0, moments=6, warm_up_ticks=60).kept(1, 0.0))
    pairs = [(a, b) for a, b in pairwise(steps) if len(a) == len(b) == 8]
    gained = np.concatenate([(b.tokens.values["ego"] - a.tokens.values["ego"])[:, 0, 0].numpy() for a, b in pairs])
    asked = np.concatenate([mode_of(a.expert.numpy())[:, 1] for a, _ in pairs])
    known = np.abs(gained) < 2  # no new episode in between
    assert known.sum() >= 16
    assert np.corrcoef(gained[known], asked[known])[0, 1] > 0.5


def test_few_moments_are_looked_at_and_a_shard_repeats() -> None:
    onlooker = Onlooker()
    few = joined(list(source(onlooker).kept(0, 0.0)))
    assert 5 < len(few["ego"]) == onlooker.seen < 70
    again = joined(list(source(Onlooker()).kept(0, 0.0)))
    assert all(torch.equal(few[name].nan_to_num(9), again[name].nan_to_num(9)) for name in few)
    other = joined(list(source(Onlooker()).kept(2, 0.0)))  # the same town, another drive
    assert len(other["ego"]) != len(few["ego"]) or not torch.equal(other["ego"], few["ego"])


def test_a_student_is_asked_at_every_moment_and_does_what_it_says() -> None:
    onlooker = Onlooker()
    driven = joined(list(source(onlooker, other_share=1.0, student_keeps=1.0, moments=8).kept(0, 1.0)))
    assert onlooker.asked == onlooker.seen == 8 * 8
    # It turns to the right while the expert, who sees where that leads, would steer back.
    assert driven["ego"][8:, 0, 2].median() < -0.1
    assert mode_of(driven["expert"].numpy())[16:, 0].mean() > 0.2


def test_towns_of_other_splits_are_refused() -> None:
    with pytest.raises(MapError, match="grid-small:10000"):
        source(Onlooker(), towns=("grid-small:10000",))
