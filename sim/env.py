"""The driving environment, as a Gymnasium `Env` and as a natively batched `VectorEnv`.

Importing it registers `automedon/Drive-v0`. Composes world, sensors, observation and reward; knows nothing about
policies, logs or torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from planning.action import ACTION_SIZE
from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig

ENV_ID = "automedon/Drive-v0"


class DriveVectorEnv(VectorEnv[Any, NDArray[np.float32], NDArray[Any]]):
    """N environments in one process, stepped by kernels; a finished one starts its next episode in the same step.

    Environment e of `reset(seed=s)` plays the episodes (s + e, 0), (s + e, 1), ... and these are the same bytes
    whatever N is. `autoreset_mode` is Gymnasium's: with SAME_STEP, the default, `infos["final_obs"]` and `infos["final_info"]`
    are those of the finished episode; with NEXT_STEP, which Gymnasium's vector wrappers of observations ask for, the step after
    the last of an episode takes no notice of the action and begins the next; with DISABLED, `reset` does (`reset_mask`).
    """

    def __init__(
        self,
        num_envs: int = 1,
        render_mode: Literal["rgb_array"] | None = None,
        copy: bool = True,
        batch: DriveBatch | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        **config: Any,
    ) -> None:
        """batch: the environments themselves, in place of num_envs and the fields of `EnvConfig` in config."""
        _check_render_mode(render_mode)
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            allowed = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise ConfigError(f"no autoreset_mode {autoreset_mode!r}; allowed: {allowed}") from None
        self.metadata = {
            "autoreset_mode": self.autoreset_mode, "render_modes": ["rgb_array"], "render_fps": 10,
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
        self._finished = np.zeros(num_envs, np.bool_)  # in the last step, and not begun anew since

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes. A seed starts at its episode 0; without one, each environment goes on to its next episode.

        options: `{"reset_mask": (N,) bool}` resets only those.

        Raises:
            ValueError: another option, or seeds that are not integers from 0 to 2**64 - 1.
        """
        check_options(options, ("reset_mask",))
        started = np.ones(self.num_envs, np.bool_)
        if options is not None and "reset_mask" in options:
            started = np.asarray(options["reset_mask"])
            if started.shape != (self.num_envs,) or started.dtype != np.bool_ or not started.any():
                raise ValueError(f"reset_mask must be bool ({self.num_envs},) with at least one True, got {started!r}")
        if seed is None:
            seeds: list[int | None] = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            super().reset(seed=checked_seed(seed))
            seeds = [checked_seed(int(seed) + e) for e in range(self.num_envs)]
        else:
            seeds = [None if one is None else checked_seed(one) for one in seed]
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
        return self.observation(), self.navigation_info()

    def navigation_info(self) -> dict[str, Any]:
        """What `reset` says of all environments: see `DriveBatch.navigation_arrays`."""
        everywhere = np.ones(self.num_envs, np.bool_)
        values = self.batch.navigation_arrays()
        return {**values, **{f"_{name}": everywhere for name in values}}

    def _start(self, started: NDArray[np.bool_]) -> None:
        self.batch.reset(started, self._seed, self._episode)
        self._finished[started] = False

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
        """One tick of all environments. Infos are batched arrays; see `DriveEnv.step` for the keys.

        `final_info` holds, of the whole episode, `is_success`, `infractions` (empty where there was none), `checks` of a scenario,
        `route_completion` and `replans`; without SAME_STEP the same stands in the infos themselves.

        Raises:
            ResetNeeded: there was no `reset` yet.
        """
        if (self._episode < 0).any():
            raise ResetNeeded("call reset() before step()")
        batch = self.batch
        batch.step(actions)
        anew = self._finished & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        if anew.any():
            self._go_on(anew)
        reward, terminated = batch.reward.copy(), batch.terminated.copy()
        truncated = batch.truncated | (self._cut_off() & ~terminated)
        finished = terminated | truncated
        self._finished = finished.copy()
        assert batch.terms is not None
        terms = {name: np.where(anew, 0.0, getattr(batch.terms, name)) for name in batch.terms.__dataclass_fields__}
        everywhere = np.ones(self.num_envs, np.bool_)
        info: dict[str, Any] = {
            "route_completion": batch.route_completion(), "_route_completion": everywhere,
            "reward_terms": {**terms, **{f"_{name}": everywhere for name in terms}}, "_reward_terms": everywhere,
            **self._infractions_info(),
        }  # fmt: skip
        if finished.any() and self.autoreset_mode is AutoresetMode.SAME_STEP:
            info |= self._final_info(finished)
            self._go_on(finished)
        elif finished.any():
            info = _with_episodes(info, self._episode_info(finished), finished)
        info |= self.navigation_info()  # of the episodes that the observation belongs to
        return self.observation(), reward, terminated, truncated, info

    def _infractions_info(self) -> dict[str, Any]:
        """What went wrong in this tick, where anything did."""
        some = self.batch.in_trouble()
        infractions = np.full(self.num_envs, None, dtype=object)
        for e in np.flatnonzero(some):
            infractions[e] = self.batch.infractions(int(e))
        return {"infractions": infractions, "_infractions": some}

    def _episode_info(self, finished: NDArray[np.bool_]) -> dict[str, Any]:
        """Of the episodes that are finished."""
        infractions, checks = (np.full(self.num_envs, None, dtype=object) for _ in range(2))
        success = np.zeros(self.num_envs, np.bool_)
        for e in np.flatnonzero(finished):
            infractions[e] = self.batch.episode_infractions(int(e))
            checks[e], _ = self.batch.judge_scenario(int(e))
            success[e] = self.batch.is_success(int(e))
        return {
            "route_completion": self.batch.route_completion(), "_route_completion": finished,
            "is_success": success, "_is_success": finished, "infractions": infractions, "_infractions": finished,
            "checks": checks, "_checks": finished,
            "replans": self.batch.world.events.replans.copy(), "_replans": finished,
        }  # fmt: skip

    def _final_info(self, finished: NDArray[np.bool_]) -> dict[str, Any]:
        final_obs = np.full(self.num_envs, None, dtype=object)
        for e in np.flatnonzero(finished):
            final_obs[e] = self._single_observation(int(e))
        return {
            "final_obs": final_obs, "_final_obs": finished, "final_info": self._episode_info(finished), "_final_info": finished,
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
        _check_render_mode(render_mode)
        self.render_mode = render_mode
        self.batch = DriveBatch(EnvConfig.of(**config), 1)
        self.observation_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        self._seed = np.zeros(1, np.uint64)
        self._episode = np.full(1, -1, np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode: number 0 of the seed, or the next one of the same seed where none is given.

        Raises:
            ValueError: an option, of which there are none, or a seed that is no integer from 0 to 2**64 - 1.
        """
        check_options(options, ())
        super().reset(seed=None if seed is None else checked_seed(seed))
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
        and at the end, of the whole episode, `is_success` (no infraction, and each check of a scenario kept),
        `episode_infractions` and `checks` (name to whether it was kept).

        Raises:
            ResetNeeded: there was no `reset` yet. ValueError: the action has another shape or is not finite.
        """
        if self._episode[0] < 0:
            raise ResetNeeded("call reset() before step()")
        batch, action = self.batch, np.asarray(action, np.float32)
        if action.shape != (ACTION_SIZE,):
            raise ValueError(f"an action must have shape ({ACTION_SIZE},), got {action.shape}")
        batch.step(action[None])
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
            info["episode_infractions"] = batch.episode_infractions(0)
            info["checks"], _ = batch.judge_scenario(0)
        return self._observation(), float(batch.reward[0]), terminated, truncated, info

    def _observation(self) -> Any:
        observation = self.batch.observation
        if isinstance(self.observation_space, spaces.Box):
            return observation["privileged"][0].copy()
        return {key: values[0].copy() for key, values in observation.items()}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """A (720, 1280, 3) uint8 picture of camera, LiDAR and state, or None without a render mode."""
        return render_step(self.batch, 0) if self.render_mode == "rgb_array" else None


def _with_episodes(info: dict[str, Any], episodes: dict[str, Any], finished: NDArray[np.bool_]) -> dict[str, Any]:
    """Infos of a tick, and of whole episodes where they are finished (N,); where both have a key, the others keep theirs."""
    both = [name for name in episodes if name in info]
    shared = {
        name: finished | info[name] if name.startswith("_") else np.where(finished, episodes[name], info[name])
        for name in both
    }
    return {**info, **episodes, **shared}


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode not in (None, "rgb_array"):
        raise ConfigError(f"no render_mode {render_mode!r}; allowed: None, 'rgb_array'")


def check_options(options: Mapping[str, Any] | None, allowed: tuple[str, ...]) -> None:
    """Raises ValueError for options of `reset` that nobody would look at."""
    unknown = [name for name in options or {} if name not in allowed]
    if unknown:
        known = ", ".join(allowed) or "none; maps, weather and the like are given to gymnasium.make"
        raise ValueError(f"no option {unknown[0]!r} of reset; allowed: {known}")


def checked_seed(seed: Any) -> int:
    """Raises ValueError for what is no seed of an episode."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"a seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
    return int(seed)


def render_step(batch: DriveBatch, e: int) -> NDArray[np.uint8]:
    """The picture that the video shows, of environment e at this tick."""
    from sim.view import ViewContext, compose  # only who looks pays for the drawing code

    context = ViewContext(batch.map.name, seed=int(batch.world.state.seed[e]), driving_map=batch.map)
    return compose(batch.snapshot(e, None), context)


gymnasium.register(id=ENV_ID, entry_point="sim.env:DriveEnv", vector_entry_point="sim.env:DriveVectorEnv")
