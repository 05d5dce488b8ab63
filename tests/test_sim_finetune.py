"""PPO on frozen features: they are the network's own, what is frozen stays, the policy waits for the value, runs resume equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import kill_at_step
from rich.console import Console
from torch import Tensor

import planning.ppo as loop
from planning.checkpoint import load_checkpoint, save_checkpoint
from planning.demonstrations import Demonstrations, DemonstrationsConfig, open_shards
from planning.kept_frames import FrameStore, KeptFramesError
from planning.network import LATENT, ActorCritic, DrivingNetwork, network_config
from planning.perceiver import NETWORK as NETWORK_FILE
from sim.config import ConfigError, load_config
from sim.feature_env import FeatureVectorEnv
from sim.sensors.rig import rig
from sim.train import TrainConfig, observation_spec, train, training_env
from sim.train_fuse import FRAMES, TrainFuseConfig, fuse_stage
from sim.train_perception import spec_of

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
QUIET = Console(quiet=True)
# Two checkpoints of two updates; the value learns alone in the first one.
SHORT = (
    "num_envs=2", "ppo.total_steps=64", "ppo.rollout_steps=8", "ppo.minibatch_size=16", "ppo.chunk_size=16", "threads=1",
    "ppo.checkpoint_every=2", "ppo.value_only_updates=1", "evaluation_episodes=1", "env.max_steps=12", "env.rig=smoke",
)  # fmt: skip


NETWORK = network_config("smoke", fusion="route", outlook=True)  # as in the configuration


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as stage 3 leaves it: its critic sees nothing privileged."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("distilled") / "best.safetensors"
    save_checkpoint(path, DrivingNetwork(NETWORK, spec_of(rig("smoke"))), {}, {})
    return path


def config(distilled: Path, *overrides: str) -> TrainConfig:
    return load_config(TrainConfig, CONFIGS / "smoke-finetune.toml", [*SHORT, f"start_from={distilled}", *overrides])


def weights(path: Path) -> dict[str, Tensor]:
    return dict(load_checkpoint(path).network.state_dict())


def test_features_are_what_the_network_makes_of_the_observation(distilled: Path) -> None:
    env = training_env(config(distilled, "env.max_steps=5"))
    network = DrivingNetwork(NETWORK, observation_spec(env.parts[0].batch))
    features = FeatureVectorEnv(env, network)
    plain = training_env(config(distilled, "env.max_steps=5"))
    seen, expected = features.reset(seed=3)[0], plain.reset(seed=3)[0]
    action, ended = np.tile(np.array([0.1, 0.8], np.float32), (2, 1)), 0
    for _ in range(7):
        with torch.inference_mode():
            latent = network.latent({key: torch.from_numpy(value) for key, value in expected.items()})
        np.testing.assert_allclose(seen[LATENT], latent, atol=1e-5)
        np.testing.assert_array_equal(seen["privileged"], expected["privileged"])
        assert features.single_observation_space.contains({key: value[0] for key, value in seen.items()})
        seen, reward, _, truncated, info = features.step(action)
        expected, reward_there, _, truncated_there, info_there = plain.step(action)
        np.testing.assert_array_equal(reward, reward_there)
        np.testing.assert_array_equal(truncated, truncated_there)
        for e in np.flatnonzero(truncated):
            last = {key: torch.from_numpy(value[None]) for key, value in info_there["final_obs"][e].items()}
            with torch.inference_mode():
                np.testing.assert_allclose(info["final_obs"][e][LATENT], network.latent(last)[0], atol=1e-5)
        ended += int(truncated.sum())
    assert ended == 2
    features.close()


def test_what_is_frozen_stays_and_the_policy_learns_after_the_value(distilled: Path, tmp_path: Path) -> None:
    report = train(config(distilled, "ppo.value_only_updates=2"), tmp_path / "value", False, QUIET)
    assert report["first_ratio_error"] < 1e-4
    before = weights(distilled)
    after = weights(tmp_path / "value" / "latest.safetensors")
    features = [name for name in before if not name.startswith(("policy.", "value.", "statistics."))]
    assert len(features) > 50
    assert all(torch.equal(before[name], after[name]) for name in features)
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("policy."))
    train(config(distilled, "ppo.value_only_updates=4"), tmp_path / "only", False, QUIET)
    only = weights(tmp_path / "only" / "latest.safetensors")
    assert all(torch.equal(before[name], only[name]) for name in before if name.startswith("policy."))
    fresh = DrivingNetwork(NETWORK, load_checkpoint(tmp_path / "only" / "latest.safetensors").network.spec)
    assert set(only) == set(fresh.state_dict())
    assert float(only["statistics.count"]) == 64


def test_a_strong_leash_holds_the_policy(distilled: Path, tmp_path: Path) -> None:
    """On the same rollouts at first: with a huge weight mean actions stay, without any they move."""
    moved = {}
    for weight in (0.0, 1e5):
        out = tmp_path / str(weight)
        values = (
            "ppo.learning_rate=0.01",
            "ppo.target_kl=0.0",
            "ppo.teacher_until=1.0",
            f"ppo.teacher_weight={weight}",
        )
        train(config(distilled, "ppo.value_only_updates=0", *values), out, False, QUIET)
        network, start = load_checkpoint(out / "latest.safetensors").network, load_checkpoint(distilled).network
        assert isinstance(network, DrivingNetwork)
        latent = torch.randn((64, network.latent_size), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            moved[weight] = float(
                (network.act({LATENT: latent}).mean() - start.act({LATENT: latent}).mean()).abs().mean()
            )
    assert moved[1e5] < 0.5 * moved[0.0]


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(distilled: Path, tmp_path: Path) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    train(config(distilled), unbroken, False, QUIET)
    kill_at_step(loop, 4, lambda: train(config(distilled), killed, False, QUIET))
    train(config(distilled), killed, True, QUIET)
    expected, got = (weights(folder / "latest.safetensors") for folder in (unbroken, killed))
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of stage 3b: its network and the frames that it learned from."""
    folder = tmp_path_factory.mktemp("fused")
    short = (
        "training.rounds=1", "training.steps=2", "training.batch_size=8", "frames.envs=6", "frames.moments=6", "first_shards=1",
        "frames.warm_up_ticks=5", "validation_shards=0", "evaluation_episodes=0", "threads=1",
    )  # fmt: skip
    fuse_stage(load_config(TrainFuseConfig, CONFIGS / "smoke-fuse.toml", short), folder, False, QUIET)
    return folder


def shown_by(fused: Path, count: int = 40, driver: str = "expert") -> tuple[DrivingNetwork, Demonstrations]:
    network = load_checkpoint(fused / NETWORK_FILE).network
    assert isinstance(network, DrivingNetwork)
    values = {
        "frames": str(fused / FRAMES),
        "count": count,
        "silent_camera": 0.0,
        "silent_lidar": 0.0,
        "driver": driver,
    }
    config = DemonstrationsConfig.model_validate(values)
    return network, Demonstrations.of(open_shards(config), config, network, 0)


def test_demonstrations_are_kept_frames_as_the_network_sees_them(fused: Path) -> None:
    network, shown = shown_by(fused, 600)  # more than one chunk, so some twice
    store = FrameStore()
    store.add(fused / FRAMES / "shard-0000")
    frames = store.frames(np.arange(len(store)))
    with torch.inference_mode():
        driven, _ = network.act_on(frames.tokens)
        latent = network.latent_of(frames.tokens)
    assert len(shown.latent) == len(shown.driver) == 600
    nearest = torch.cdist(shown.latent, latent).argmin(1)
    assert len(set(nearest.tolist())) > len(store) // 2
    torch.testing.assert_close(shown.latent, latent[nearest], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shown.driver, frames.expert[nearest])
    with torch.inference_mode():
        torch.testing.assert_close(network.act({LATENT: latent}).mean(), driven.mean(), rtol=1e-4, atol=1e-4)


def test_what_was_demonstrated_is_imitated_beside_the_reward(fused: Path, tmp_path: Path) -> None:
    start, shown = shown_by(fused)

    def far(network: ActorCritic) -> float:
        return shown.loss(network, 400, torch.Generator().manual_seed(1)).item()

    apart = {}
    for weight in (0.0, 10.0):
        values = (
            "ppo.learning_rate=0.01", "ppo.target_kl=0.0", "ppo.teacher_weight=0.0", "ppo.value_only_updates=0",
            f"ppo.demonstration_weight={weight}", "ppo.demonstration_batch=32", f"demonstrations.frames={fused / FRAMES}",
            "demonstrations.count=40",
        )  # fmt: skip
        out = tmp_path / str(weight)
        train(config(fused / NETWORK_FILE, *values), out, False, QUIET)
        network = load_checkpoint(out / "latest.safetensors").network
        apart[weight] = far(network)
    assert apart[10.0] < 0.8 * far(start)
    assert apart[10.0] < 0.8 * apart[0.0]


def test_the_policy_of_the_start_holds_and_does_not_teach(fused: Path, tmp_path: Path) -> None:
    start, shown = shown_by(fused, driver="start")
    assert shown.loss(start, 400, torch.Generator().manual_seed(1)).item() == pytest.approx(0.0, abs=1e-5)
    apart = {}
    for weight in (0.0, 100.0):
        values = (
            "ppo.learning_rate=0.003", "ppo.target_kl=0.0", "ppo.teacher_weight=0.0", "ppo.value_only_updates=0",
            f"ppo.demonstration_weight={weight}", "ppo.demonstration_batch=32", f"demonstrations.frames={fused / FRAMES}",
            "demonstrations.count=40", "demonstrations.driver=start",
        )  # fmt: skip
        out = tmp_path / str(weight)
        train(config(fused / NETWORK_FILE, *values), out, False, QUIET)
        network = load_checkpoint(out / "latest.safetensors").network
        apart[weight] = shown.loss(network, 400, torch.Generator().manual_seed(1)).item()
    assert apart[100.0] < 0.3 * apart[0.0]


@pytest.mark.parametrize("driver", ["expert", "start"])
def test_a_run_with_demonstrations_resumes_equal(fused: Path, tmp_path: Path, driver: str) -> None:
    values = (
        f"demonstrations.frames={fused / FRAMES}", "ppo.demonstration_weight=1.0", "demonstrations.count=40",
        f"demonstrations.driver={driver}",
    )  # fmt: skip
    given = config(fused / NETWORK_FILE, *values)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    train(given, unbroken, False, QUIET)
    kill_at_step(loop, 4, lambda: train(given, killed, False, QUIET))
    train(given, killed, True, QUIET)
    expected, got = (weights(folder / "latest.safetensors") for folder in (unbroken, killed))
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_demonstrations_that_do_not_fit_are_refused(fused: Path, tmp_path: Path) -> None:
    start, frames = fused / NETWORK_FILE, f"demonstrations.frames={fused / FRAMES}"
    for overrides, message in (
        ((f"demonstrations.frames={tmp_path}", "ppo.demonstration_weight=1.0"), "no shards of kept frames"),
        ((frames, "frozen=false", "teacher=rules"), "need frozen = true"),
        (("ppo.demonstration_weight=1.0",), "this run has no demonstrations"),
        (
            (frames, "network.fusion=late", "ppo.demonstration_weight=1.0"),
            "fusion 'late' does not have; give network.fusion",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            train(config(start, *overrides), tmp_path / "run", False, QUIET)
    given = DemonstrationsConfig(frames=str(fused / FRAMES), count=4)
    torch.manual_seed(5)
    with pytest.raises(KeptFramesError, match="frames as other encoders see them than those of this network"):
        Demonstrations.of(open_shards(given), given, DrivingNetwork(NETWORK, spec_of(rig("smoke"))), 0)
    other = DrivingNetwork(network_config("smoke", fusion="attention", outlook=True), spec_of(rig("smoke")))
    trained = load_checkpoint(fused / NETWORK_FILE).network
    for name in ("camera", "points"):
        getattr(other, name).load_state_dict(getattr(trained, name).state_dict())
    with pytest.raises(KeptFramesError, match="another shape"):
        Demonstrations.of(open_shards(given), given, other, 0)


def test_what_does_not_go_together_is_said(distilled: Path, tmp_path: Path) -> None:
    for overrides, message in (
        (("start_from=",), "no such file|not a file"),
        (("network.hidden=64",), "another shape or observation"),
        (("frozen=false", "ppo.value_only_updates=0"), "teacher = 'start' needs frozen = true"),
    ):
        with pytest.raises(ValueError, match=message):
            train(config(distilled, *overrides), tmp_path, False, QUIET)
    values = load_config(TrainConfig, CONFIGS / "smoke-finetune.toml", SHORT)
    with pytest.raises(ConfigError, match="need start_from"):
        train(values, tmp_path, False, QUIET)
