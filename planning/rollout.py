"""Rollouts of a batch of environments in preallocated buffers, and a record of their episodes.

Knows networks and Gymnasium; knows nothing about losses, optimisers or the simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Dict
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from planning.action import ACTION_SIZE
from planning.network import ActorCritic

RECENT_EPISODES = 100
Arrays = dict[str, NDArray[Any]]
Teacher = Callable[[], NDArray[np.float32]]
"""What another driver would do now in the environments that are stepped: (N, 2) float32 in [-1, 1]."""


class EpisodeRecord:
    """How the episodes of a run went: the first ones, the latest ones, and how many."""

    def __init__(self) -> None:
        self.episodes = 0
        self.first_returns: list[float] = []
        self.last_returns: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.last_lengths: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.final_info: dict[str, deque[float]] = {}

    def finished(self, episode_return: float, length: int) -> None:
        self.episodes += 1
        if len(self.first_returns) < RECENT_EPISODES:
            self.first_returns.append(episode_return)
        self.last_returns.append(episode_return)
        self.last_lengths.append(float(length))

    def see_final_info(self, final_info: Mapping[str, Any]) -> None:
        """Keep the numbers per episode in a batched `final_info` (success, completion, ...), where they are finite."""
        for name, values in final_info.items():
            mask = final_info.get(f"_{name}")
            if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biuf" and mask is not None:
                numbers = [float(v) for v in values[mask] if np.isfinite(v)]
                if numbers:
                    self.final_info.setdefault(name, deque(maxlen=RECENT_EPISODES)).extend(numbers)

    def curves(self) -> dict[str, float]:
        """Means over the last finished episodes; nothing before the first one has finished."""
        if not self.last_returns:
            return {}
        curves = {"episode/return": mean(self.last_returns), "episode/length": mean(self.last_lengths)}
        return curves | {f"episode/{name}": mean(values) for name, values in self.final_info.items()}

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "episodes": self.episodes,
            "first_returns": self.first_returns,
            "last_returns": list(self.last_returns),
            "last_lengths": list(self.last_lengths),
            "final_info": {name: list(seen) for name, seen in self.final_info.items()},
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> EpisodeRecord:
        """The inverse of `to_json`."""
        record = EpisodeRecord()
        record.episodes = int(values["episodes"])
        record.first_returns = [float(v) for v in values["first_returns"]]
        record.last_returns.extend(float(v) for v in values["last_returns"])
        record.last_lengths.extend(float(v) for v in values["last_lengths"])
        for name, seen in values["final_info"].items():
            record.final_info[name] = deque((float(v) for v in seen), maxlen=RECENT_EPISODES)
        return record


class Rollout:
    """T steps of N environments, in buffers that are allocated once; pictures stay uint8.

    observations: (T, N, ...) by key. actions: (T, N, 2) float32.
    log_probs, rewards (scaled), values: (T, N) float32.
    next_values: (T, N) float32, of the state that the step led to: `final_obs` where the episode was truncated.
    terminated, truncated: (T, N) bool, never both. teacher_actions: (T, N, 2) float32, 0 without a teacher.
    """

    def __init__(self, env: VectorEnv, steps: int) -> None:
        self.env = env
        n = env.num_envs
        space = env.single_observation_space
        spaces = dict(space.spaces) if isinstance(space, Dict) else {"privileged": space}
        self.observations: Arrays = {k: np.zeros((steps, n, *(s.shape or ())), s.dtype) for k, s in spaces.items()}
        self.actions = np.zeros((steps, n, ACTION_SIZE), np.float32)
        self.teacher_actions = np.zeros_like(self.actions)
        self.log_probs, self.rewards, self.values, self.next_values = (
            np.zeros((steps, n), np.float32) for _ in range(4)
        )
        self.terminated, self.truncated = np.zeros((steps, n), np.bool_), np.zeros((steps, n), np.bool_)
        self.observation: Arrays = {}
        self.episode_return, self.episode_length = np.zeros(n), np.zeros(n, np.int64)

    def tensors(self) -> dict[str, Tensor]:
        """The observations (T * N, ...), sharing memory."""
        return {k: torch.from_numpy(v.reshape(-1, *v.shape[2:])) for k, v in self.observations.items()}

    def reset(self, seed: int) -> None:
        """Start new episodes in all environments; those under way are dropped from the record."""
        observation, _ = self.env.reset(seed=seed)
        self.observation = _as_dict(observation)
        self.episode_return[:], self.episode_length[:] = 0.0, 0

    @torch.inference_mode()
    def collect(
        self,
        network: ActorCritic,
        generator: torch.Generator,
        reward_scale: float,
        record: EpisodeRecord,
        teacher: Teacher | None = None,
        sharpness: float = 1.0,
    ) -> None:
        """Act for T steps and note what happened, and what the teacher would have done; goes on where the last call ended."""
        for t in range(len(self.actions)):
            if teacher is not None:
                self.teacher_actions[t] = teacher()
            for key, buffer in self.observations.items():
                buffer[t] = self.observation[key]
            here = {key: torch.from_numpy(buffer[t]) for key, buffer in self.observations.items()}
            distribution, value = network(here)
            distribution = distribution.sharpened(sharpness)
            action = distribution.sample(generator)
            self.actions[t], self.values[t] = action.numpy(), value.numpy()
            self.log_probs[t] = distribution.log_prob(action).numpy()

            observation, reward, terminated, truncated, info = self.env.step(self.actions[t].copy())
            self.observation = _as_dict(observation)
            self.rewards[t], self.terminated[t], self.truncated[t] = (
                reward * reward_scale,
                terminated,
                truncated & ~terminated,
            )
            if t > 0:
                self.next_values[t - 1] = np.where(self.truncated[t - 1], self.next_values[t - 1], self.values[t])
            cut = np.flatnonzero(self.truncated[t])
            if len(cut):
                self.next_values[t, cut] = network(_final_observation(info, list(self.observations), cut))[1].numpy()
            self._count_episodes(reward, terminated | truncated, info, record)
        last = {key: torch.from_numpy(np.ascontiguousarray(self.observation[key])) for key in self.observations}
        self.next_values[-1] = np.where(self.truncated[-1], self.next_values[-1], network(last)[1].numpy())

    def _count_episodes(
        self, reward: NDArray[Any], finished: NDArray[np.bool_], info: Mapping[str, Any], record: EpisodeRecord
    ) -> None:
        self.episode_return += reward
        self.episode_length += 1
        for e in np.flatnonzero(finished):
            record.finished(float(self.episode_return[e]), int(self.episode_length[e]))
        if finished.any() and isinstance(info.get("final_info"), Mapping):
            record.see_final_info(info["final_info"])
        self.episode_return[finished], self.episode_length[finished] = 0.0, 0


def mean(values: Sequence[float] | deque[float]) -> float:
    """Mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def _as_dict(observation: Any) -> Arrays:
    return dict(observation) if isinstance(observation, Mapping) else {"privileged": observation}


def _final_observation(info: Mapping[str, Any], keys: Sequence[str], chosen: NDArray[np.intp]) -> dict[str, Tensor]:
    """The last observations of the episodes that ended in the chosen environments.

    Gymnasium's own vector environments give an object array of observations, a natively batched one may give a
    dictionary of arrays (N, ...).
    """
    final = info["final_obs"]
    if isinstance(final, Mapping):
        arrays = {key: np.asarray(final[key])[chosen] for key in keys}
    else:
        singles = [_as_dict(final[e]) for e in chosen]
        arrays = {key: np.stack([single[key] for single in singles]) for key in keys}
    return {key: torch.from_numpy(array) for key, array in arrays.items()}
