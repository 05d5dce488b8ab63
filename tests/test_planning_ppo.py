"""PPO: the same seed gives the same weights, a resumed run ends as an unbroken one, and it learns a known task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from perception.preprocess import ObservationSpec
from perception.sensors import CameraCalibration
from planning.advantages import generalised_advantages
from planning.checkpoint import CheckpointError, load_checkpoint
from planning.network import ActorCritic, build_network, network_config
from planning.ppo import LATEST, PPOConfig, TrainResult, _learn, train
from planning.ppo_state import STATE, PPOError
from planning.rollout import EpisodeRecord, Rollout

CAMERA = CameraCalibration(
    32, 16, np.array([[16.0, 0, 15.5], [0, 16.0, 7.5], [0, 0, 1]]),
    np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]]),
)  # fmt: skip
SENSORS = ObservationSpec(cameras={"camera_wide": CAMERA}, max_points=32, privileged_size=4)
PRIVILEGED = ObservationSpec(cameras={}, max_points=0, ego_size=0, route_points=0, privileged_size=4)


class PointMass(VectorEnv[Any, Any, Any]):
    """A point in the plane that should move to a target: the action is its velocity, the reward minus the distance.

    Reaching the target terminates with +1, 24 steps truncate. The observation is position and target, flat or as a
    picture with two bright dots, points and a route. The final observation comes natively batched.
    """

    def __init__(self, num_envs: int, sensors: bool = False, reaches: float = 0.15) -> None:
        self.num_envs, self.sensors, self.reaches = num_envs, sensors, reaches
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        privileged = Box(-2, 2, (4,), np.float32)
        self.single_observation_space = privileged
        if sensors:
            entries = {
                key: Box(0, 255, shape, np.uint8) if dtype == "uint8" else Box(-500, 500, shape, np.dtype(dtype).type)
                for key, (shape, dtype) in SENSORS.shapes().items()
            }
            self.single_observation_space = Dict(entries)
        self.single_action_space = Box(-1, 1, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.state = np.zeros((num_envs, 4), np.float32)
        self.ticks = np.zeros(num_envs, np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._start(np.ones(self.num_envs, np.bool_))
        return self._observe(), {}

    def _start(self, which: NDArray[np.bool_]) -> None:
        self.state[which] = self.np_random.uniform(-1, 1, (int(which.sum()), 4))
        self.ticks[which] = 0

    def step(self, actions: NDArray[np.float32]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert np.abs(actions).max() <= 1.0
        self.state[:, :2] = np.clip(self.state[:, :2] + 0.2 * actions, -2, 2)
        self.ticks += 1
        distance = np.hypot(*(self.state[:, :2] - self.state[:, 2:]).T)
        terminated, truncated = distance < self.reaches, self.ticks >= 24
        reward = -0.1 * distance + terminated
        finished, info = terminated | truncated, {}
        if finished.any():
            success = {"is_success": terminated.copy(), "_is_success": finished}
            info = {"final_obs": self._observe(), "_final_obs": finished, "final_info": success}
            self._start(finished)
        return self._observe(), reward, terminated, truncated, info

    def _observe(self) -> Any:
        if not self.sensors:
            return self.state.copy()
        shapes = SENSORS.shapes()
        observation = {key: np.zeros((self.num_envs, *shape), dtype) for key, (shape, dtype) in shapes.items()}
        for channel, place in enumerate((self.state[:, :2], self.state[:, 2:])):
            pixel = ((place + 2) / 4 * [15.9, 31.9]).astype(int)
            observation["camera_wide"][np.arange(self.num_envs), pixel[:, 0], pixel[:, 1], channel] = 255
        observation["points"][:, :2] = 5 * self.state[:, :2]
        observation["point_count"][:] = 1
        observation["route"][:, :2] = self.state[:, 2:]
        observation["privileged"][:] = self.state
        return observation


class PointMassEnv(gymnasium.Env[Any, Any]):
    """One `PointMass` as a plain environment, for Gymnasium's own vectorisation."""

    def __init__(self) -> None:
        self.vector = PointMass(1)
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.vector.reset(seed=seed)[0][0], {}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.vector.step(action[None])
        last = info["final_obs"][0] if info else observation[0]
        return last, float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}


def network(sensors: bool, seed: int = 0, precision: str = "auto") -> ActorCritic:
    torch.manual_seed(seed)
    if not sensors:
        return build_network(network_config("smoke", kind="privileged", hidden=32), PRIVILEGED)
    widths = {"camera_width": 8, "points_width": 8, "token_width": 16, "hidden": 32, "queries": 2}
    return build_network(network_config("smoke", precision=precision, **widths), SENSORS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small spend more time waiting for a second thread than computing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SHORT = {"rollout_steps": 8, "minibatch_size": 32, "chunk_size": 16, "epochs": 2, "checkpoint_every": 2}


def run(out: Path, sensors: bool, updates: int = 4, resume: bool = False, **values: Any) -> TrainResult:
    config = PPOConfig(**{**SHORT, "total_steps": updates * 64, **values})
    return train(PointMass(8, sensors), network(sensors), config, out, resume=resume, quiet=True)


def weights(checkpoint: Path) -> bytes:
    return b"".join(t.numpy().tobytes() for t in load_checkpoint(checkpoint).network.state_dict().values())


@pytest.mark.parametrize("sensors", [False, True])
def test_two_runs_of_one_seed_give_equal_weights_and_another_seed_others(tmp_path: Path, sensors: bool) -> None:
    first, second, other = (run(tmp_path / n, sensors, seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert weights(first.checkpoint) == weights(second.checkpoint)
    assert weights(first.checkpoint) != weights(other.checkpoint)
    assert first.env_steps == 256
    assert first.updates == 4


@pytest.mark.parametrize("sensors", [False, True])
def test_a_run_that_is_killed_and_resumed_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path, sensors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(tmp_path / "unbroken", sensors)
    learn, calls = "planning.ppo._learn", 0
    from planning import ppo

    original = ppo._learn

    def dies_in_the_fourth_update(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(learn, dies_in_the_fourth_update)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", sensors)
    monkeypatch.undo()
    resumed = run(tmp_path / "broken", sensors, resume=True)
    assert resumed.updates == unbroken.updates == 4
    assert weights(resumed.checkpoint) == weights(unbroken.checkpoint)
    assert resumed.episodes == unbroken.episodes
    assert (tmp_path / "broken" / STATE).read_bytes() == (tmp_path / "unbroken" / STATE).read_bytes()


@pytest.mark.parametrize(("sensors", "precision"), [(False, "float32"), (True, "float32"), (True, "bfloat16")])
def test_the_network_that_learns_is_the_one_that_acted(tmp_path: Path, sensors: bool, precision: str) -> None:
    config = PPOConfig(**{**SHORT, "total_steps": 8 * 64, "learning_rate": 0.003, "target_kl": 0.0})
    result = train(PointMass(8, sensors), network(sensors, precision=precision), config, tmp_path, quiet=True)
    assert result.first_ratio_error < 1e-4


def test_it_learns_to_go_to_a_target(tmp_path: Path) -> None:
    config = PPOConfig(
        total_steps=60_000, rollout_steps=32, minibatch_size=512, epochs=6, learning_rate=0.003, checkpoint_every=20
    )
    seen: list[float] = []

    def evaluate(policy: ActorCritic) -> dict[str, float]:
        env = PointMass(64)
        observation, _ = env.reset(seed=7)
        total = np.zeros(64)
        alive = np.ones(64, np.bool_)
        for _ in range(24):
            with torch.inference_mode():
                action = policy.act({"privileged": torch.from_numpy(observation)}).mode().numpy()
            observation, reward, terminated, truncated, _ = env.step(action)
            total += reward * alive
            alive &= ~(terminated | truncated)
        seen.append(float(total.mean()))
        return {"return": seen[-1]}

    result = train(PointMass(64), network(False), config, tmp_path, evaluate=evaluate, quiet=True)
    assert result.first_return < -1.0  # an untrained policy wanders about
    assert result.last_return > 0.4  # straight to the target earns about 0.6
    assert seen[-1] > 0.5
    assert result.best_return == max(seen)
    assert result.best_checkpoint is not None
    assert load_checkpoint(result.best_checkpoint).metrics["evaluation/return"] == max(seen)


def test_a_teacher_is_followed_as_long_as_it_is_asked(tmp_path: Path) -> None:
    """It drives off the same way whatever the target is."""
    way = torch.tensor([0.7, -0.5])
    asked = 0

    def teacher() -> NDArray[np.float32]:
        nonlocal asked
        asked += 1
        return np.tile(way.numpy(), (8, 1))

    values = {
        **SHORT,
        "epochs": 8,
        "learning_rate": 0.01,
        "target_kl": 0.0,
        "checkpoint_every": 40,
        "total_steps": 40 * 64,
    }
    observation = {"privileged": torch.rand((256, 4), generator=torch.Generator().manual_seed(0)) * 2 - 1}
    away = {}
    for name, weight, until, times in (("led", 10.0, 1.0, 40), ("soon alone", 10.0, 0.25, 10), ("alone", 0.0, 1.0, 0)):
        asked, policy = 0, network(False)
        config = PPOConfig(**{**values, "teacher_weight": weight, "teacher_until": until})
        train(PointMass(8), policy, config, tmp_path / name, teacher=teacher, quiet=True)
        assert asked == times * SHORT["rollout_steps"]
        away[name] = float((policy.act(observation).mean().detach() - way).abs().mean())
    assert away["led"] < 0.15
    assert away["alone"] > 2 * away["led"]


def test_a_sharper_policy_is_the_one_that_acts_and_the_one_that_learns(tmp_path: Path) -> None:
    """Its ratio is 1 on the first minibatch, what it does lies nearer to its modes, and it learns."""
    spread = {}
    for sharpness in (1.0, 50.0):
        torch.manual_seed(3)
        policy, rollout = network(False), Rollout(PointMass(8), 64)
        rollout.reset(0)
        rollout.collect(policy, torch.Generator().manual_seed(0), 1.0, EpisodeRecord(), sharpness=sharpness)
        with torch.inference_mode():
            modes = policy.act(rollout.tensors()).mode().numpy()
        spread[sharpness] = float(np.abs(rollout.actions.reshape(-1, 2) - modes).mean())
    assert spread[50.0] < 0.5 * spread[1.0]
    result = run(tmp_path, False, sharpness=4.0)
    assert result.first_ratio_error < 1e-4


def test_a_teacher_that_drives_by_the_same_policy_does_not_pull_a_sharpened_one(tmp_path: Path) -> None:
    policy, env, sharpness = network(False), PointMass(8), 4.0
    with torch.no_grad():
        policy.policy[-1].bias.copy_(
            torch.tensor([2.0, 0.0, -1.0, 1.0])
        )  # means off the middle, which sharpening moves

    def teacher() -> NDArray[np.float32]:
        with torch.inference_mode():
            return policy.act({"privileged": torch.from_numpy(env.state)}).mean().numpy()

    rollout, generator = Rollout(env, 8), torch.Generator().manual_seed(0)
    rollout.reset(0)
    rollout.collect(policy, generator, 1.0, EpisodeRecord(), teacher, sharpness)
    config = PPOConfig(**{**SHORT, "epochs": 1, "learning_rate": 1e-9, "sharpness": sharpness})
    curves = _learn(policy, torch.optim.Adam(policy.parameters(), lr=1e-9), rollout, config, 1.0, generator, leash=1.0)
    assert curves["ppo/teacher_distance"] < 1e-8


def test_further_passes_over_a_rollout_teach_the_value_alone(tmp_path: Path) -> None:
    """In the first update, which begins with the same rollout: the policy ends the same, the value nearer to its targets."""
    values = {
        **SHORT, "rollout_steps": 64, "minibatch_size": 128, "chunk_size": 128, "total_steps": 512, "target_kl": 0.0,
        "learning_rate": 3e-3,
    }  # fmt: skip
    ends, explained = {}, {}
    for passes in (0, 60):
        torch.manual_seed(0)
        result = train(
            PointMass(8),
            network(False),
            PPOConfig(**{**values, "value_epochs": passes}),
            tmp_path / str(passes),
            quiet=True,
        )
        trained = load_checkpoint(result.checkpoint).network
        ends[passes] = trained.state_dict()
        rollout = Rollout(PointMass(8), 64)
        rollout.reset(5)
        rollout.collect(trained, torch.Generator().manual_seed(0), 1.0, EpisodeRecord())
        targets = generalised_advantages(
            rollout.rewards, rollout.values, rollout.next_values, rollout.terminated, rollout.truncated, 0.99, 0.95
        )[1]
        explained[passes] = float(np.square(targets - rollout.values).mean())
    changed = {name for name in ends[0] if not torch.equal(ends[0][name], ends[60][name])}
    assert changed
    assert all(name.startswith("value.") for name in changed)
    assert explained[60] < 0.95 * explained[0]


def test_a_weight_for_a_teacher_needs_one(tmp_path: Path) -> None:
    with pytest.raises(PPOError, match="no teacher"):
        run(tmp_path, False, teacher_weight=1.0)


def test_the_score_decides_which_network_is_the_best(tmp_path: Path) -> None:
    scores = iter([3.0, 9.0, 4.0, 4.0])

    def evaluate(policy: ActorCritic) -> dict[str, float]:
        score = next(scores)
        return {"return": -score, "score": score}

    config = PPOConfig(**{**SHORT, "total_steps": 4 * 2 * 64})
    result = train(PointMass(8), network(False), config, tmp_path, evaluate=evaluate, quiet=True)
    assert result.best_return == 9.0
    assert result.best_checkpoint is not None
    assert load_checkpoint(result.best_checkpoint).metrics["evaluation/score"] == 9.0


def test_gymnasiums_own_vector_environments_give_the_same_training(tmp_path: Path) -> None:
    env = SyncVectorEnv([PointMassEnv] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
    config = PPOConfig(**{**SHORT, "rollout_steps": 32, "total_steps": 256})
    result = train(env, network(False), config, tmp_path, quiet=True)
    assert result.episodes >= 4  # so that final observations of truncated episodes were looked at
    assert np.isfinite(result.last_return)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"minibatch_size": 48}, "minibatch_size must divide"), ({"chunk_size": 24}, "chunk_size must divide")],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(PPOError, match=message):
        run(tmp_path, False, **values)


def test_a_folder_with_a_run_is_not_overwritten_and_not_resumed_with_other_settings(tmp_path: Path) -> None:
    run(tmp_path, False, updates=2)
    with pytest.raises(PPOError, match="already holds a training run"):
        run(tmp_path, False)
    with pytest.raises(PPOError, match=r"gamma was 0\.99 in that run and is 0\.9 now"):
        run(tmp_path, False, resume=True, gamma=0.9)
    assert run(tmp_path, False, updates=4, resume=True).updates == 4
    with pytest.raises(CheckpointError, match=r"network\.hidden is 32 in the file and 64 here"):
        train(
            PointMass(8),
            build_network(network_config("smoke", kind="privileged", hidden=64), PRIVILEGED),
            PPOConfig(**SHORT),
            tmp_path,
            resume=True,
            quiet=True,
        )
    assert (tmp_path / LATEST).exists()


@pytest.mark.parametrize(("updates", "said"), [(2, "no episode is over yet"), (4, "return -")])
def test_progress_says_where_no_episode_is_over(
    updates: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PPOConfig(**{**SHORT, "total_steps": 64 * updates, "checkpoint_every": updates})
    train(PointMass(8, reaches=0.0), network(False), config, tmp_path)  # episodes of 24 steps, 8 in an update
    (line,) = (line for line in capsys.readouterr().err.splitlines() if f" of {64 * updates} steps " in line)
    assert said in line


def test_an_observation_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PPOError, match="network needs camera_wide as uint8"):
        train(PointMass(8), network(True), PPOConfig(**SHORT), tmp_path, quiet=True)


def test_a_log_file_gets_a_line_at_each_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = PPOConfig(**{**SHORT, "total_steps": 4 * 64})
    train(PointMass(8, False), network(False), config, tmp_path)
    written = capsys.readouterr().err
    assert "128 of 256 steps" in written
    assert "256 of 256 steps" in written
    assert "steps/s" in written
