"""Whoever fails goes back to before the mistake, bit by bit, and tries again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.config import ConfigError, load_config
from sim.drive_batch import DriveBatch, EnvConfig
from sim.mixed_env import MixedVectorEnv, mixed_batch
from sim.retrying_env import RetryConfig, RetryingVectorEnv
from sim.roads.driving_map import load_map
from sim.train import TrainConfig, training_env

STRAIGHT_ON, BRAKE = np.array([0.0, 1.0], np.float32), np.array([0.0, -1.0], np.float32)
RETRIES = RetryConfig(times=3, back_s=2.0, past_s=1.0)
TOWN = load_map("grid-small")


def batch(num_envs: int, rig: str | None = None, **values: Any) -> DriveBatch:
    sees = {"observation": "both", "rig": rig, "weather": "random"} if rig else {"observation": "privileged"}
    config = EnvConfig.of(map="grid-small", world={"agents": 12}, **{"max_steps": 400, **sees, **values})
    return DriveBatch(config, num_envs, TOWN)


def seen(batch: DriveBatch, e: int) -> bytes:
    parts = [*batch.observation.values(), batch.world.state.x_m, batch.world.events.progress_m, batch.reward]
    return b"".join(np.ascontiguousarray(values[e]).tobytes() for values in parts)


def wave(tick: int, envs: int) -> np.ndarray:
    phase = tick / 5.0 + np.arange(envs)
    return np.column_stack([0.2 * np.sin(phase), 0.3 + 0.5 * np.cos(phase)]).astype(np.float32)


@pytest.mark.parametrize("rig", ["smoke", None])
def test_an_environment_taken_back_drives_on_as_before_bit_by_bit(rig: str | None) -> None:
    driven, num_envs = batch(3, rig), 3
    driven.reset(np.ones(3, np.bool_), np.arange(5, 8, dtype=np.uint64), np.zeros(3, np.int64))
    for tick in range(30):
        driven.step(wave(tick, num_envs))
    saved, then = driven.save(1), seen(driven, 1)
    assert saved.tick == 30
    first = []
    for tick in range(30, 60):
        driven.step(wave(tick, num_envs))
        first.append([seen(driven, e) for e in range(3)])
    driven.reset(np.array([False, True, False]), np.full(3, 99, np.uint64), np.zeros(3, np.int64))
    others = [seen(driven, e) for e in (0, 2)]
    driven.go_back({1: saved})
    assert [seen(driven, e) for e in (0, 2)] == others
    reward = driven.reward[1].tobytes()  # of no tick yet
    assert seen(driven, 1)[: -len(reward)] == then[: -len(reward)]
    for k, tick in enumerate(range(30, 60)):
        driven.step(wave(tick, num_envs))
        assert seen(driven, 1) == first[k][1], tick
    assert first[0][1] != first[-1][1]
    with pytest.raises(ValueError, match="another world"):
        driven.world.restore(saved.world)


def drive(env: Any, actions: Any, steps: int) -> list[dict[str, Any]]:
    """What ended, in order: environment, tick, whether truncated, infractions, seed and episode that follow, and the state then."""
    ended = []
    for _ in range(steps):
        tick = env.batch.world.state.tick.copy()
        _, _, terminated, truncated, info = env.step(actions(env))
        for e in np.flatnonzero(terminated | truncated):
            final, state = info["final_info"], env.batch.world.state
            ended.append({
                "env": int(e), "tick": int(tick[e]) + 1, "truncated": bool(truncated[e]), "wrong": dict(final["infractions"][e]),
                "retry": bool(final["is_retry"][e]), "counted": [bool(final[f"_{n}"][e]) for n in ("is_success", "retry_success")],
                "retry_success": bool(final["retry_success"][e]),
                "next": (int(state.seed[e]), int(state.episode[e]), int(state.tick[e])), "state": seen(env.batch, int(e)),
            })  # fmt: skip
    return ended


def always(action: np.ndarray) -> Any:
    return lambda env: np.tile(action, (env.num_envs, 1))


def test_a_mistake_is_tried_again_from_one_and_the_same_state_and_then_another_episode_comes() -> None:
    env = RetryingVectorEnv(batch(4), RETRIES)
    env.reset(seed=20)
    ended = drive(env, always(STRAIGHT_ON), 700)
    for e in range(4):
        mine = [end for end in ended if end["env"] == e]
        failed = next(k for k, end in enumerate(mine) if not end["retry"])
        mistake, attempts = mine[failed], mine[failed + 1 : failed + 4]
        assert mistake["wrong"]
        assert not mistake["truncated"]
        assert [a["retry"] for a in attempts] == [True] * 3
        assert [a["tick"] for a in attempts] == [mistake["tick"]] * 3  # the same actions, so the same mistake
        begun = [mistake["state"], *(a["state"] for a in attempts[:2])]
        assert begun[0] == begun[1] == begun[2]
        seed, episode, tick = mistake["next"]
        assert (seed, episode) == (20 + e, 0)
        assert tick == 0 or 20 <= mistake["tick"] - tick < 40
        assert attempts[-1]["next"] == (20 + e, 1, 0)
        assert mistake["counted"] == [True, False]
        assert all(a["counted"] == [False, True] and not a["retry_success"] for a in attempts)


def test_an_attempt_that_passes_is_cut_off_and_the_last_one_goes_on() -> None:
    env = RetryingVectorEnv(batch(2), RETRIES)
    env.reset(seed=20)
    failed = np.zeros(2, np.bool_)

    def careful(env: RetryingVectorEnv) -> np.ndarray:
        failed[:] |= [d.start is not None for d in env._drives]
        return np.where(failed[:, None], BRAKE, STRAIGHT_ON)

    ended = drive(env, careful, 320)
    for e in range(2):
        mine = [end for end in ended if end["env"] == e]
        mistake, attempts = mine[0], mine[1:]
        assert mistake["wrong"]
        assert len(attempts) >= 2
        for attempt in attempts[:2]:
            assert attempt["truncated"]
            assert not attempt["wrong"]
            assert attempt["retry_success"]
            assert attempt["tick"] == mistake["tick"] + 10
        assert len(attempts) == 2  # the third drives on: it stands, and nothing ends it within these steps
        assert env.batch.world.state.tick[e] > mistake["tick"] + 10
        assert env.batch.world.state.seed[e] == 20 + e


def test_without_a_mistake_it_is_the_plain_environment() -> None:
    plain, config = MixedVectorEnv([batch(3, max_steps=30)]), RETRIES
    retrying = MixedVectorEnv([batch(3, max_steps=30)], config)
    assert plain.reset(seed=3)[0].tobytes() == retrying.reset(seed=3)[0].tobytes()
    ends = 0
    for _ in range(70):
        actions = np.tile(BRAKE, (3, 1))
        one, other = plain.step(actions), retrying.step(actions)
        assert one[0].tobytes() == other[0].tobytes()
        ends += int(one[3].sum())
        np.testing.assert_array_equal(one[3], other[3])
        assert not one[2].any()
    assert ends == 6


def test_each_environment_is_the_same_whatever_stands_beside_it() -> None:
    many = RetryingVectorEnv(mixed_batch(batch(1).config, 3, "grid-small", 0.5), RETRIES)
    many.reset(seed=20)
    together = [end for end in drive(many, always(STRAIGHT_ON), 300) if end["env"] == 1]
    alone = RetryingVectorEnv(mixed_batch(batch(1).config, 1, "grid-small", 0.5), RETRIES)
    alone.reset(seed=21)
    single = drive(alone, always(STRAIGHT_ON), 300)
    assert len(single) > 3
    assert [{**end, "env": 1} for end in single] == together


def test_a_training_configuration_asks_for_them() -> None:
    values = {"num_envs": 2, "env": {"observation": "privileged"}, "retries": {"times": 5}}
    (part,) = training_env(TrainConfig.model_validate(values)).parts
    assert isinstance(part, RetryingVectorEnv)
    assert part.config.times == 5
    (part,) = training_env(TrainConfig.model_validate({**values, "retries": None})).parts
    assert not isinstance(part, RetryingVectorEnv)


def test_a_wrong_key_in_their_table_is_answered_by_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key 'retries\.time'; did you mean 'times'\? Known: back_s, past_s, times"
    ):
        load_config(TrainConfig, None, ["retries.time=3"])


def test_a_reset_forgets_the_attempts_that_are_under_way() -> None:
    env = RetryingVectorEnv(batch(2), RETRIES)
    env.reset(seed=20)
    while all(drive.start is None for drive in env._drives):
        env.step(always(STRAIGHT_ON)(env))
    assert env.reset(seed=21)[0].tobytes() == RetryingVectorEnv(batch(2), RETRIES).reset(seed=21)[0].tobytes()
    fresh = RetryingVectorEnv(batch(2), RETRIES)
    fresh.reset(seed=21)
    ended = drive(env, always(STRAIGHT_ON), 250)
    assert len(ended) > 4
    assert ended == drive(fresh, always(STRAIGHT_ON), 250)
