"""Terms of the reward, worked out by hand, and what must hold whatever happens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.reward import Reward, RewardConfig
from sim.world import TICK_S

QUIET: dict[str, float] = {
    "speed": 8.0, "acceleration": 0.5, "yaw_rate": 0.0, "limit": 13.9, "gap": 50.0, "lateral": 0.1, "progress": 11.0,
    "wrong_way": 0.0,
}  # fmt: skip


def tick(reward: Reward, bad: bool = False, **changes: float) -> Any:
    """Terms of one tick of one environment whose route is 200 m long."""
    v = {**QUIET, **changes}
    state = SimpleNamespace(
        speed_mps=np.array([[v["speed"]]]),
        acceleration_mps2=np.array([[v["acceleration"]]]),
        yaw_rate_radps=np.array([[v["yaw_rate"]]]),
    )
    events = SimpleNamespace(
        progress_m=np.array([v["progress"]]),
        lateral_m=np.array([v["lateral"]]),
        route_length_m=np.array([200.0]),
        wrong_way=np.array([v["wrong_way"]]),
    )
    situation = SimpleNamespace(speed_limit_mps=np.array([v["limit"]]), leader_gap_m=np.array([v["gap"]]))
    return reward.after_tick(state, events, situation, np.array([bad]))  # type: ignore[arg-type]


@pytest.fixture
def reward() -> Reward:
    fresh = Reward(RewardConfig(), 1)
    fresh.reset(np.array([True]), SimpleNamespace(progress_m=np.array([10.0])))  # type: ignore[arg-type]
    return fresh


def test_progress_counts_in_percent_of_the_route(reward: Reward) -> None:
    assert tick(reward).total() == pytest.approx([0.5])
    assert tick(reward, progress=13.0).total() == pytest.approx([1.0])


def test_progress_can_count_the_same_on_every_route() -> None:
    reward = Reward(RewardConfig(route_m=50.0), 1)
    reward.reset(np.array([True]), SimpleNamespace(progress_m=np.array([10.0])))  # type: ignore[arg-type]
    assert tick(reward).total() == pytest.approx([2.0])


def test_way_back_and_forth_again_earns_nothing(reward: Reward) -> None:
    tick(reward, progress=20.0)
    assert tick(reward, progress=15.0).total() == 0.0
    assert tick(reward, progress=20.0).total() == 0.0
    assert tick(reward, progress=21.0).total() == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"speed": 13.9 + 2.23 / 2}, 0.5),
        ({"speed": 13.9 + 2.23}, 0.0),
        ({"speed": 13.9}, 1.0),
        ({"gap": 3.9}, 0.5),
        ({"gap": 4.1}, 1.0),
        ({"gap": 0.2, "speed": 0.9}, 1.0),
        ({"acceleration": -4.1}, 0.5),
        ({"acceleration": 4.1}, 0.5),
        ({"acceleration": 3.9}, 1.0),
        ({"yaw_rate": -0.62}, 0.5),
        ({"yaw_rate": 0.61}, 1.0),
        ({"acceleration": 4.1, "gap": 1.0}, 0.25),
        ({"wrong_way": 1.0}, 0.5),
    ],
)
def test_factors(reward: Reward, change: dict[str, float], factor: float) -> None:
    assert tick(reward, **change).total() == pytest.approx([0.5 * factor])


def test_leaving_the_lanes_centre_halves_only_after_a_while(reward: Reward) -> None:
    ticks = round(RewardConfig().lane_offset_s / TICK_S)
    factors = [tick(reward, lateral=-1.2, progress=11.0 + k).lane_factor[0] for k in range(ticks + 3)]
    assert factors[: ticks - 1] == [1.0] * (ticks - 1)
    assert factors[-1] == 0.5
    assert tick(reward, lateral=0.3).lane_factor[0] == 1.0
    assert tick(reward, lateral=1.2).lane_factor[0] == 1.0, "the clock starts anew"


def test_a_bad_end_costs_its_penalty(reward: Reward) -> None:
    assert tick(reward, bad=True).total() == pytest.approx([0.5 - 1.0])
    named = tick(reward, bad=True, progress=11.0).of(0)
    assert named["penalty"] == 1.0
    assert named["progress_percent"] == 0.0


def test_only_fresh_episodes_forget() -> None:
    reward = Reward(RewardConfig(), 2)
    events = SimpleNamespace(progress_m=np.array([30.0, 40.0]))
    reward.reset(np.array([True, True]), events)  # type: ignore[arg-type]
    events.progress_m[:] = 0.0
    reward.reset(np.array([False, True]), events)  # type: ignore[arg-type]
    both = {name: np.array([[value], [value]]) for name, value in (("speed", 5.0), ("acceleration", 0.0), ("yaw", 0.0))}
    state = SimpleNamespace(speed_mps=both["speed"], acceleration_mps2=both["acceleration"], yaw_rate_radps=both["yaw"])
    now = SimpleNamespace(
        progress_m=np.array([32.0, 2.0]), lateral_m=np.zeros(2), route_length_m=np.full(2, 100.0), wrong_way=np.zeros(2)
    )
    situation = SimpleNamespace(speed_limit_mps=np.full(2, 9.0), leader_gap_m=np.full(2, 99.0))
    terms = reward.after_tick(state, now, situation, np.zeros(2, np.bool_))  # type: ignore[arg-type]
    assert terms.total() == pytest.approx([2.0, 2.0])


@settings(max_examples=100, deadline=None)
@given(
    speed=st.floats(0, 40), acceleration=st.floats(-12, 12), yaw_rate=st.floats(-1, 1), limit=st.floats(3, 40),
    gap=st.floats(0, 300), lateral=st.floats(-4, 4), progress=st.floats(0, 200), bad=st.booleans(),
)  # fmt: skip
def test_reward_stays_within_its_bounds(bad: bool, **values: float) -> None:
    reward = Reward(RewardConfig(), 1)
    reward.reset(np.array([True]), SimpleNamespace(progress_m=np.array([0.0])))  # type: ignore[arg-type]
    total = tick(reward, bad, **values).total()[0]
    rounding = 1e-9  # percent of a route are a product and a quotient, half a metre is one product
    assert -1.0 <= total <= 0.5 * values["progress"] + rounding
    assert bad or total >= 0.0
