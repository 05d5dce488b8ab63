"""Stable-Baselines3's PPO trains on the environment as it is."""

from __future__ import annotations

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sim.env import DriveEnv

WORLD = {"agents": 4, "route_min_m": 50.0, "route_max_m": 80.0}


class Returns(BaseCallback):
    """Keeps the return of every finished episode."""

    def __init__(self) -> None:
        super().__init__()
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True


@pytest.mark.slow
def test_ppo_improves_on_the_privileged_observation() -> None:
    env = make_vec_env(lambda: DriveEnv(observation="privileged", max_steps=150, world=WORLD), n_envs=8, seed=0)
    model = PPO("MlpPolicy", env, n_steps=128, batch_size=256, n_epochs=5, learning_rate=1e-3, seed=0, device="cpu")
    returns = Returns()
    model.learn(24_576, callback=returns)
    first, last = np.mean(returns.returns[:30]), np.mean(returns.returns[-30:])
    assert last > first + 5.0, (first, last)
