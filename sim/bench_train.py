"""Measures training: steps of PPO a second on the privileged observation, against Stable-Baselines3, and on sensors; frames of
perception a second; one decision of the sensor network.

Contestants train in turn, round after round in one process, on the same kind of environments with networks of the same size, the
same batches and as many threads; ratios are medians of the rounds' own ratios.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from planning.network import DrivingNetwork, build_network, network_config
from planning.network_policy import NetworkPolicy
from planning.ppo import PPOConfig, train
from sim.drive_batch import DriveBatch, EnvConfig
from sim.env import DriveVectorEnv
from sim.feature_env import FeatureVectorEnv
from sim.logs.log import cpu_model, git_commit
from sim.mixed_env import MixedVectorEnv
from sim.threads import limit_torch
from sim.train import observation_spec
from sim.train_perception import TrainPerceptionConfig, train_stage

AGENTS = 21  # 20 beside the ego
ENVS, ROLLOUT_STEPS, MINIBATCH, EPOCHS, HIDDEN = 256, 64, 4096, 3, 256
DECISIONS = 60
SENSOR_ENVS, SENSOR_MINIBATCH = 32, 1024
FRAMES = 640  # of perception


def bench_train(rounds: int = 7, *, updates: int = 2, threads: int = 2) -> dict[str, Any]:
    """Steps a second of our PPO and of Stable-Baselines3's, all in: environments, inference and learning; and their ratio.

    rounds, updates: each contestant makes that many updates in each round. threads: of kernels and torch, at most as many as there
    are. inference_ms: one frame of rig `small` through the sensor network of size `small`, one thread, untrained weights.
    sensor_ppo_steps_per_s: PPO on frozen features of that network, all in, as configs/finetune.toml does it.
    perception_frames_per_s: frames rendered, labelled and learned from, as configs/perception.toml does it.
    """
    kernels, products = numba.get_num_threads(), torch.get_num_threads()
    threads = min(threads, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    limit_torch(threads)
    try:
        ours, theirs = _Ours(updates), _Theirs(updates)
        ours(), theirs()  # compiles, and allocates
        seconds = np.array([(ours(), theirs()) for _ in range(rounds)])
        sensor, frames = _sensor_steps_per_s(updates), _frames_per_s()
        limit_torch(1)
        inference = _inference_ms()
    finally:
        numba.set_num_threads(kernels)
        limit_torch(products)
    steps = updates * ENVS * ROLLOUT_STEPS
    ratio = seconds[:, 1] / seconds[:, 0]
    return {
        "privileged_ppo_steps_per_s": float(np.median(steps / seconds[:, 0])),
        "sb3_steps_per_s": float(np.median(steps / seconds[:, 1])),
        "ppo_ratio": float(np.median(ratio)),
        "ppo_ratio_quartiles": [float(q) for q in np.percentile(ratio, [25, 75])],
        "sensor_ppo_steps_per_s": sensor,
        "perception_frames_per_s": frames,
        "inference_ms": inference,
        "rounds": rounds,
        "updates_per_round": updates,
        "agents": AGENTS,
        "environments": ENVS,
        "threads": threads,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "numba", "stable-baselines3")},
        "commit": git_commit(),
    }


def _environments() -> DriveVectorEnv:
    return DriveVectorEnv(ENVS, copy=False, observation="privileged", world={"agents": AGENTS})


class _Ours:
    """Our PPO; a call trains for some updates and returns the seconds that they took, checkpoint and curves included."""

    def __init__(self, updates: int) -> None:
        self._env = _environments()
        torch.manual_seed(0)
        config = network_config("small", kind="privileged", hidden=HIDDEN)
        self._network = build_network(config, observation_spec(self._env.batch))
        self._config = PPOConfig.model_validate({
            "total_steps": updates * ENVS * ROLLOUT_STEPS, "rollout_steps": ROLLOUT_STEPS, "minibatch_size": MINIBATCH,
            "chunk_size": MINIBATCH, "epochs": EPOCHS, "target_kl": 0.0,
        })  # fmt: skip

    def __call__(self) -> float:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            train(self._env, self._network, self._config, Path(folder), quiet=True)
            return time.perf_counter() - begun


class _Theirs:
    """Stable-Baselines3's PPO with Gaussian actions, otherwise the same."""

    def __init__(self, updates: int) -> None:
        self._steps = updates * ENVS * ROLLOUT_STEPS
        self._model = PPO(
            "MlpPolicy", ForStableBaselines(_environments()), n_steps=ROLLOUT_STEPS, batch_size=MINIBATCH, n_epochs=EPOCHS,
            policy_kwargs={"net_arch": {"pi": [HIDDEN, HIDDEN], "vf": [HIDDEN, HIDDEN]}, "activation_fn": nn.Tanh},
            seed=0, device="cpu",
        )  # fmt: skip

    def __call__(self) -> float:
        begun = time.perf_counter()
        self._model.learn(self._steps)
        return time.perf_counter() - begun


class ForStableBaselines(VecEnv):  # type: ignore[misc]  # it comes without types
    """Our batched environments, with a flat observation, as Stable-Baselines3 wants them: infos one by one."""

    def __init__(self, env: DriveVectorEnv) -> None:
        self._env = env  # first, since the class above asks it for its render mode
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions: NDArray[np.float32] = np.zeros((env.num_envs, 2), np.float32)

    def reset(self) -> NDArray[np.float32]:
        """First observations (N, D) float32; a copy, because Stable-Baselines3 keeps them."""
        observation, _ = self._env.reset(seed=self._seeds[0])
        self._reset_seeds()
        return np.array(observation)

    def step_async(self, actions: NDArray[np.float32]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        observation, reward, terminated, truncated, info = self._env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for e in np.flatnonzero(terminated | truncated):
            infos[e]["terminal_observation"] = info["final_obs"][e]
            infos[e]["TimeLimit.truncated"] = bool(truncated[e])
        return np.array(observation), reward.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        self._env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self._env, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("environments of one batch have no attributes of their own")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("environments of one batch have no methods of their own")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def _sensor_steps_per_s(updates: int) -> float:
    """Steps a second of PPO on frozen features: cameras, LiDAR, encoders, fusion, learning."""
    env = MixedVectorEnv([DriveBatch(EnvConfig.of(observation="both", world={"agents": AGENTS}), SENSOR_ENVS)])
    network = build_network(network_config("small"), observation_spec(env.parts[0].batch))
    assert isinstance(network, DrivingNetwork)
    network.freeze_features()
    config = PPOConfig.model_validate({
        "total_steps": updates * SENSOR_ENVS * ROLLOUT_STEPS, "rollout_steps": ROLLOUT_STEPS, "minibatch_size": SENSOR_MINIBATCH,
        "chunk_size": SENSOR_MINIBATCH, "epochs": EPOCHS, "target_kl": 0.0,
    })  # fmt: skip
    features = FeatureVectorEnv(env, network)
    rates = []
    for _ in range(2):  # the first one compiles, and allocates
        with tempfile.TemporaryDirectory() as folder:
            rates.append(train(features, network, config, Path(folder), quiet=True).steps_per_s)
    return rates[-1]


def _frames_per_s() -> float:
    """Frames a second of perception's training on one town."""
    values = {
        "evaluation_frames": 0, "frames": {"towns": ("grid-small",), "towns_at_once": 1},
        "perception": {"total_frames": FRAMES, "checkpoint_every": FRAMES},
    }  # fmt: skip
    config = TrainPerceptionConfig.model_validate({**values, "threads": torch.get_num_threads()})
    with tempfile.TemporaryDirectory() as folder:
        return float(train_stage(config, Path(folder), False, Console(quiet=True))["frames_per_s"])


def _inference_ms() -> float:
    """Median milliseconds of one decision of the sensor network, size `small`, for one frame of rig `small`."""
    batch = DriveBatch(EnvConfig.of(rig="small"), 1)
    batch.reset(np.ones(1, np.bool_), np.zeros(1, np.uint64), np.zeros(1, np.int64))
    policy = NetworkPolicy(build_network(network_config("small"), observation_spec(batch)))
    seconds = []
    for _ in range(DECISIONS):
        begun = time.perf_counter()
        policy.act(batch.observation, None)
        seconds.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(seconds[DECISIONS // 4 :]))
