"""The driving environment, as a Gymnasium `Env` and as a natively batched `VectorEnv`.

Importing it registers `automedon/Drive-v0`. Composes world, sensors, observation and reward; knows nothing about
policies, logs or torch.
"""

from __future__ import annotations

from typing import Any, Literal, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig

ENV_ID = "automedon/Drive-v0"


class DriveVectorEnv(VectorEnv[Any, NDArray[np.float32], NDArray[Any]]):
    """N environments in one process, stepped by kernels; a finished one starts its next episode in the same step.

    Environment e of `reset(seed=s)` plays the episodes (s + e, 0), (s + e, 1), ... and these are the same bytes
    whatever N is. Autoreset is SAME_STEP: `infos["final_obs"]` and `infos["final_info"]` are those of the finished
    episode.
    """

    def __init__(
        self,
        num_envs: int = 1,
        render_mode: Literal["rgb_array"] | None = None,
        copy: bool = True,
        batch: DriveBatch | None = None,
        **config: Any,
    ) -> None:
        """batch: the environments themselves, in place of num_envs and the fields of `EnvConfig` in config."""
        self.metadata = {
            "autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"], "render_fps": 10,
        }  # fmt: skip
        self.render_mode = render_mode
        self.copy = copy
        self.batch = DriveBatch(EnvConfig.of(**config), num_envs) if batch is None else batch
        self.num_envs = num_envs = self.batch.num_envs
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seed = np.zeros(num_envs, np.uint64)
        self._episode = np.full(num_envs, -1, np.int64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes. A seed starts at its episode 0; without one, each environment goes on to its next episode.

        options: `{"reset_mask": (N,) bool}` resets only those.
        """
        started = np.ones(self.num_envs, np.bool_)
        if options is not None and "reset_mask" in options:
            started = np.asarray(options["reset_mask"])
            if started.shape != (self.num_envs,) or started.dtype != np.bool_ or not started.any():
                raise ValueError(f"reset_mask must be bool ({self.num_envs},) with at least one True, got {started!r}")
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
            seeds: list[int | None] = [int(seed) + e for e in range(self.num_envs)]
        else:
            seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed must be one integer or {self.num_envs} of them, got {len(seeds)}")
        fresh = started & (self._episode < 0)
        self._seed[fresh] = self.np_random.integers(0, 2**62, int(fresh.sum()), dtype=np.uint64)
        self._episode[started] += 1
        for e in np.flatnonzero(started):
            chosen = seeds[e]
            if chosen is not None:
                self._seed[e], self._episode[e] = chosen, 0
        self._start(started)
        return self.observation(), self._navigation_info()

    def _navigation_info(self) -> dict[str, Any]:
        everywhere = np.ones(self.num_envs, np.bool_)
        values = self.batch.navigation_arrays()
        return {**values, **{f"_{name}": everywhere for name in values}}

    def _start(self, started: NDArray[np.bool_]) -> None:
        self.batch.reset(started, self._seed, self._episode)

    def _go_on(self, finished: NDArray[np.bool_]) -> None:
        """Begin what comes after the episodes that are finished."""
        self._episode[finished] += 1
        self._start(finished)

    def _cut_off(self) -> NDArray[np.bool_]:
        """(N,) which episodes end here for another reason than the batch's own."""
        return np.zeros(self.num_envs, np.bool_)

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One tick of all environments. Infos are batched arrays; see `DriveEnv.step` for the keys."""
        batch = self.batch
        batch.step(actions)
        reward, terminated = batch.reward.copy(), batch.terminated.copy()
        truncated = batch.truncated | (self._cut_off() & ~terminated)
        finished = terminated | truncated
        assert batch.terms is not None
        terms = {name: getattr(batch.terms, name) for name in batch.terms.__dataclass_fields__}
        everywhere = np.ones(self.num_envs, np.bool_)
        info: dict[str, Any] = {
            "route_completion": batch.route_completion(), "_route_completion": everywhere,
            "reward_terms": {**terms, **{f"_{name}": everywhere for name in terms}}, "_reward_terms": everywhere,
        }  # fmt: skip
        if finished.any():
            info |= self._final_info(finished)
            self._go_on(finished)
        info |= self._navigation_info()  # of the episodes that the observation belongs to
        return self.observation(), reward, terminated, truncated, info

    def _final_info(self, finished: NDArray[np.bool_]) -> dict[str, Any]:
        final_obs = np.full(self.num_envs, None, dtype=object)
        infractions = np.full(self.num_envs, None, dtype=object)
        success = np.zeros(self.num_envs, np.bool_)
        for e in np.flatnonzero(finished):
            final_obs[e] = self._single_observation(int(e))
            infractions[e] = self.batch.infractions(int(e))
            success[e] = self.batch.is_success(int(e))
        final_info = {
            "route_completion": self.batch.route_completion(), "_route_completion": finished,
            "is_success": success, "_is_success": finished, "infractions": infractions, "_infractions": finished,
            "replans": self.batch.world.events.replans.copy(), "_replans": finished,
        }  # fmt: skip
        return {
            "final_obs": final_obs, "_final_obs": finished, "final_info": final_info, "_final_info": finished,
        }  # fmt: skip

    def _single_observation(self, e: int) -> Any:
        observation = self.batch.observation
        if isinstance(self.single_observation_space, spaces.Box):
            return observation["privileged"][e].copy()
        return {key: values[e].copy() for key, values in observation.items()}

    def observation(self) -> Any:
        """What all environments observe now; with `copy=False` the buffers themselves."""
        observation = self.batch.observation
        if isinstance(self.single_observation_space, spaces.Box):
            return observation["privileged"].copy() if self.copy else observation["privileged"]
        return {key: values.copy() if self.copy else values for key, values in observation.items()}

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One (720, 1280, 3) uint8 picture for each environment, or None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(render_step(self.batch, e) for e in range(self.num_envs))


class DriveEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """One environment. Options are the fields of `EnvConfig`; `sim.observation.sensor_space` describes the space."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own contract)

    def __init__(self, render_mode: Literal["rgb_array"] | None = None, **config: Any) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"no render_mode {render_mode!r}; allowed: None, 'rgb_array'")
        self.render_mode = render_mode
        self.batch = DriveBatch(EnvConfig.of(**config), 1)
        self.observation_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        self._seed = np.zeros(1, np.uint64)
        self._episode = np.full(1, -1, np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode: number 0 of the seed, or the next one of the same seed where none is given."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed[0], self._episode[0] = seed, 0
        else:
            if self._episode[0] < 0:
                self._seed[0] = self.np_random.integers(0, 2**62)
            self._episode[0] += 1
        self.batch.reset(np.ones(1, np.bool_), self._seed, self._episode)
        return self._observation(), {"route_completion": 0.0, **self.batch.navigation(0)}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One tick of 0.1 s.

        info: `route_completion` 0 to 1, `reward_terms`, `infractions` (kind to sentence), `command` (the next
        `planning.policy.NavigationCommand`) and `command_distance_m` to it, `replans` (how often the route was planned anew),
        and at the end `is_success`: no infraction in the whole episode.
        """
        batch = self.batch
        batch.step(np.asarray(action, np.float32)[None])
        assert batch.terms is not None
        terminated, truncated = bool(batch.terminated[0]), bool(batch.truncated[0])
        infractions = batch.infractions(0)
        info: dict[str, Any] = {
            "route_completion": float(batch.route_completion()[0]),
            "reward_terms": batch.terms.of(0),
            "infractions": infractions,
            **batch.navigation(0),
        }
        if terminated or truncated:
            info["is_success"] = batch.is_success(0)
        return self._observation(), float(batch.reward[0]), terminated, truncated, info

    def _observation(self) -> Any:
        observation = self.batch.observation
        if isinstance(self.observation_space, spaces.Box):
            return observation["privileged"][0].copy()
        return {key: values[0].copy() for key, values in observation.items()}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """A (720, 1280, 3) uint8 picture of camera, LiDAR and state, or None without a render mode."""
        return render_step(self.batch, 0) if self.render_mode == "rgb_array" else None


def render_step(batch: DriveBatch, e: int) -> NDArray[np.uint8]:
    """The picture that the video shows, of environment e at this tick."""
    from sim.view import ViewContext, compose  # only who looks pays for the drawing code

    context = ViewContext(batch.map.name, seed=int(batch.world.state.seed[e]), driving_map=batch.map)
    return compose(batch.snapshot(e, None), context)


gymnasium.register(id=ENV_ID, entry_point="sim.env:DriveEnv", vector_entry_point="sim.env:DriveVectorEnv")
