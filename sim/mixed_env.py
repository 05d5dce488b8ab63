"""Environments on several maps behind one `VectorEnv`.

Composes batches of environments, one for each map; knows nothing about policies, logs or torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.env import DriveVectorEnv, check_options, checked_seed
from sim.retrying_env import RetryConfig, RetryingVectorEnv
from sim.roads.driving_map import load_map
from sim.scenarios.catalogue import ScenarioName
from sim.scenarios.mixture import Mixture


def mixed_batch(
    config: EnvConfig, num_envs: int, town: str, share: float, more_of: Sequence[ScenarioName] = (), times: int = 1
) -> DriveBatch:
    """Environments on one map in which that share of the episodes are scenarios, of all families it has room for.

    more_of: families that come so many `times` as often as others.
    """
    driving_map = load_map(town, seed=config.scenery_seed)
    mixture = Mixture(driving_map, config.world, share, more_of, times)
    return DriveBatch(config.model_copy(update={"map": town, "scenario": None}), num_envs, driving_map, mixture.place)


class MixedVectorEnv(VectorEnv[Any, NDArray[np.float32], NDArray[Any]]):
    """One batch of environments after another: those of the first are the first ones, and so on.

    Slot by slot it is what `DriveVectorEnv` is over each batch alone, with seed + (slots before it). A step calls each batch once.
    """

    def __init__(self, batches: Sequence[DriveBatch], retries: RetryConfig | None = None) -> None:
        """retries: whoever fails goes back and tries again, see `RetryingVectorEnv`.

        Raises ConfigError: there is none, or they do not have the same spaces.
        """
        if not batches:
            raise ConfigError("at least one batch of environments is needed, got none")
        self.parts = [
            DriveVectorEnv(batch=batch, copy=False)
            if retries is None
            else RetryingVectorEnv(batch, retries, copy=False)
            for batch in batches
        ]
        first = self.parts[0]
        for part in self.parts[1:]:
            if part.single_observation_space != first.single_observation_space:
                raise ConfigError(
                    "environments behind one vector need the same observation; choose one rig for all maps"
                )
        self.metadata = first.metadata
        self.num_envs = sum(part.num_envs for part in self.parts)
        self.single_observation_space = first.single_observation_space
        self.single_action_space = first.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._sizes = [part.num_envs for part in self.parts]
        ends = np.cumsum(self._sizes)
        self._slices = [slice(int(end) - part.num_envs, int(end)) for part, end in zip(self.parts, ends, strict=True)]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As `DriveVectorEnv.reset`; seeds, and `reset_mask` among the options, are those of all environments.

        Raises:
            ValueError: likewise.
        """
        check_options(options, ("reset_mask",))
        seeds: list[int | None] | None = None
        if isinstance(seed, int | np.integer):
            seeds = [checked_seed(checked_seed(seed) + e) for e in range(self.num_envs)]
        elif seed is not None:
            seeds = [None if one is None else checked_seed(one) for one in seed]
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"seed must be one integer or {self.num_envs} of them, got {len(seeds)}")
        mask = np.asarray(options["reset_mask"]) if options is not None and "reset_mask" in options else None
        if mask is not None and (mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any()):
            raise ValueError(f"reset_mask must be bool ({self.num_envs},) with at least one True, got {mask!r}")
        for part, here in zip(self.parts, self._slices, strict=True):
            if mask is None or mask[here].any():
                part_options = None if mask is None else {"reset_mask": mask[here]}
                part.reset(seed=None if seeds is None else seeds[here], options=part_options)
        infos = [part.navigation_info() for part in self.parts]
        return _joined([part.observation() for part in self.parts]), _joined_infos(infos, self._sizes)

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One tick of all environments; see `DriveVectorEnv.step`."""
        actions = np.asarray(actions)
        if len(actions) != self.num_envs:
            raise ValueError(f"actions must have shape {self.action_space.shape}, got {actions.shape}")
        outcomes = [part.step(actions[here]) for part, here in zip(self.parts, self._slices, strict=True)]
        observations, rewards, terminated, truncated, infos = zip(*outcomes, strict=True)
        return (
            _joined(observations), np.concatenate(rewards), np.concatenate(terminated), np.concatenate(truncated),
            _joined_infos(infos, self._sizes),
        )  # fmt: skip

    def close_extras(self, **kwargs: Any) -> None:
        """Close every part."""
        for part in self.parts:
            part.close(**kwargs)


def _joined(observations: Sequence[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.concatenate([each[key] for each in observations]) for key in observations[0]}
    return np.concatenate(observations)


def _joined_infos(infos: Sequence[dict[str, Any]], sizes: Sequence[int]) -> dict[str, Any]:
    """Batched infos one after another; where a part lacks a key, its rows are None, NaN, 0 or False."""
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for info in infos for key in info):
        some = next(info[key] for info in infos if key in info)
        if isinstance(some, dict):
            joined[key] = _joined_infos([info.get(key, {}) for info in infos], sizes)
        else:
            rows = [
                info[key]
                if key in info
                else np.full((size, *some.shape[1:]), None if some.dtype == object else 0, some.dtype)
                for info, size in zip(infos, sizes, strict=True)
            ]
            joined[key] = np.concatenate(rows)
    return joined
