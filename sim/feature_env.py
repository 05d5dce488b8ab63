"""Environments whose observation is what a frozen network's encoders and fusion make of the sensors, worked out once.

Composes environments and a network; knows nothing about training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from perception.precision import bfloat16_is_faster
from planning.network import LATENT, DrivingNetwork
from sim.mixed_env import MixedVectorEnv
from sim.threads import over_torch_threads

CHUNK = 32  # most frames that go through the network together


class FeatureVectorEnv(VectorEnv[Any, NDArray[np.float32], NDArray[Any]]):
    """Other environments with `latent` (N, F) float32 in place of what sensors, ego and route say.

    `privileged` stays where the network's critic looks at it. `latents` are those of the latest observation.
    """

    def __init__(self, env: MixedVectorEnv, network: DrivingNetwork) -> None:
        self.env, self.network = env, network
        bfloat16_is_faster()  # decided before two threads ask at once
        self.metadata = env.metadata
        self.num_envs = env.num_envs
        shapes = network.cached_shapes()
        self._kept_keys = [key for key in shapes if key != LATENT]
        self.single_observation_space = spaces.Dict(
            {name: spaces.Box(-np.inf, np.inf, shape, np.dtype(dtype).type) for name, (shape, dtype) in shapes.items()}
        )
        self.single_action_space, self.action_space = env.single_action_space, env.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.latents = np.zeros((self.num_envs, network.latent_size), np.float32)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's own."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._seen(observation), info

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """As the environment's own; the observations in `final_obs` are features, too."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        ended = np.flatnonzero(terminated | truncated)
        if len(ended) and "final_obs" in info:
            keys = observation.keys()
            last = {key: np.stack([info["final_obs"][e][key] for e in ended]) for key in keys}
            kept = {LATENT: self._features(last), **self._kept(last)}
            final = np.full(self.num_envs, None, dtype=object)
            for row, e in enumerate(ended):
                final[e] = {key: values[row] for key, values in kept.items()}
            info = {**info, "final_obs": final}
        return self._seen(observation), reward, terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment."""
        self.env.close(**kwargs)

    def _seen(self, observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.latents = self._features(observation)
        return {LATENT: self.latents, **self._kept(observation)}

    def _kept(self, observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {key: observation[key] for key in self._kept_keys}

    def _features(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        keys = [key for key in self.network.spec.shapes() if key != "privileged"]
        seen = {key: torch.from_numpy(observation[key]) for key in keys}

        def latent(part: slice) -> torch.Tensor:
            chunks = [slice(first, min(first + CHUNK, part.stop)) for first in range(part.start, part.stop, CHUNK)]
            return torch.cat(
                [self.network.latent({key: values[chunk] for key, values in seen.items()}) for chunk in chunks]
            )

        return torch.cat(over_torch_threads(latent, len(observation[keys[0]]))).numpy()
