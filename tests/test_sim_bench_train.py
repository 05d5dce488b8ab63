"""The training benchmark runs and reports what others rely on; Stable-Baselines3 sees the same episodes as we do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sim import bench_train as bench
from sim.bench_train import ForStableBaselines, bench_train
from sim.env import DriveVectorEnv

CONFIG = {"observation": "privileged", "max_steps": 6, "world": {"agents": 4}}


def test_report_has_the_keys_that_others_rely_on(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "ENVS": 4, "ROLLOUT_STEPS": 8, "MINIBATCH": 16, "HIDDEN": 8, "DECISIONS": 4, "SENSOR_ENVS": 2, "SENSOR_MINIBATCH": 16,
        "FRAMES": 32,
    }  # fmt: skip
    for name, value in small.items():
        monkeypatch.setattr(bench, name, value)
    before = torch.get_num_threads()
    report = bench_train(rounds=2, updates=1, threads=1)
    assert torch.get_num_threads() == before
    for key in (
        "privileged_ppo_steps_per_s", "sb3_steps_per_s", "ppo_ratio", "inference_ms", "sensor_ppo_steps_per_s",
        "perception_frames_per_s",
    ):  # fmt: skip
        assert report[key] > 0, key
    assert report["threads"] == 1
    low, high = report["ppo_ratio_quartiles"]
    assert low <= report["ppo_ratio"] <= high


def test_stable_baselines_gets_observations_rewards_and_ends_of_the_environments() -> None:
    ours, theirs = DriveVectorEnv(3, **CONFIG), ForStableBaselines(DriveVectorEnv(3, copy=False, **CONFIG))
    theirs.seed(5)
    kept = [theirs.reset()]
    expected = [ours.reset(seed=5)[0]]
    action = np.tile(np.array([0.1, 0.8], np.float32), (3, 1))
    for _ in range(8):
        observation, reward, terminated, truncated, info = ours.step(action)
        observed, rewards, done, infos = theirs.step(action)
        kept.append(observed)
        expected.append(observation)
        assert (done == (terminated | truncated)).all()
        assert rewards == pytest.approx(reward.astype(np.float32))
        for e in np.flatnonzero(done):
            assert infos[e]["terminal_observation"].tobytes() == info["final_obs"][e].tobytes()
            assert infos[e]["TimeLimit.truncated"] == truncated[e]
    assert np.stack(kept).tobytes() == np.stack(expected).tobytes()
