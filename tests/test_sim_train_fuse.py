"""Learning from kept frames, small: encoders stay, the rest comes nearer to the expert, resumed runs end equal."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import Killed, kill_at_step, killed
from rich.console import Console

import planning.train_kept as loop
from perception.train_perception import PerceptionError
from planning.checkpoint import load_checkpoint, read_tensors
from planning.kept_frames import KeptFramesError
from planning.network import DrivingNetwork
from planning.perceiver import NETWORK, load_perceiver
from sim.config import ConfigError, load_config
from sim.stages import measured_rate, run_stage
from sim.train_distill import Drives
from sim.train_fuse import FRAMES, TrainFuseConfig, fuse_stage
from sim.train_perception import BEST, STATE

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
QUIET = Console(quiet=True)
# Two rounds of two steps; the student drives before the second one.
SHORT = (
    "training.rounds=2", "training.steps=2", "training.batch_size=8", "frames.envs=6", "frames.moments=6", "frames.warm_up_ticks=5",
    "frames.student_share=1.0", "first_shards=1", "validation_shards=0", "evaluation_episodes=0", "threads=1",
)  # fmt: skip


def config(*overrides: str) -> TrainFuseConfig:
    return load_config(TrainFuseConfig, CONFIGS / "smoke-fuse.toml", overrides)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    fuse_stage(config(*SHORT), folder, False, QUIET)
    return folder


@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(unbroken: Path, tmp_path: Path, killed_at: int) -> None:
    kill_at_step(loop, killed_at, lambda: fuse_stage(config(*SHORT), tmp_path, False, QUIET))
    if killed_at == 4:
        with pytest.raises(ConfigError, match="already holds a training run; add --resume"):
            fuse_stage(config(*SHORT), tmp_path, False, QUIET)
        with pytest.raises(PerceptionError, match="seed was 0 in that run and is 1 now"):
            fuse_stage(config(*SHORT, "seed=1"), tmp_path, True, QUIET)
    fuse_stage(config(*SHORT, *(["workers=2"] if killed_at == 4 else [])), tmp_path, True, QUIET)
    expected, got = read_tensors(unbroken / STATE)[1], read_tensors(tmp_path / STATE)[1]
    assert set(expected) == set(got)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_run_killed_in_its_last_evaluation_is_evaluated_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = config(*SHORT, "evaluation_episodes=1", "evaluation_max_steps=5")
    with monkeypatch.context() as patch:
        patch.setattr(Drives, "__call__", killed)
        with pytest.raises(Killed):
            fuse_stage(judged, tmp_path, False, QUIET)
    assert not (tmp_path / BEST).exists()
    resumed = fuse_stage(judged, tmp_path, True, QUIET)
    best, latest = (load_checkpoint(tmp_path / name).metrics for name in (BEST, NETWORK))
    assert best == latest
    assert best["score"] == resumed["score"]
    assert best["frames"] == resumed["frames"]


def test_several_processes_drive_the_same_shards(unbroken: Path, tmp_path: Path) -> None:
    fuse_stage(config(*SHORT, "workers=2", "shards=2"), tmp_path, False, QUIET)
    names = sorted(path.name for path in (tmp_path / FRAMES).iterdir())
    assert names == ["shard-0000", "shard-0001", "shard-0002"]
    for name in names[:2]:
        files = sorted(path.name for path in (unbroken / FRAMES / name).iterdir())
        assert files == sorted(path.name for path in (tmp_path / FRAMES / name).iterdir())
        for file in files:
            expected, got = ((folder / FRAMES / name / file).read_bytes() for folder in (unbroken, tmp_path))
            assert got == expected, file


def test_frames_that_other_encoders_have_seen_are_not_learned_from(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken / FRAMES, tmp_path / FRAMES)
    with pytest.raises(KeptFramesError, match="shard-0000: frames as other encoders see them"):
        fuse_stage(config(*SHORT, "seed=1"), tmp_path, False, QUIET)
    (tmp_path / FRAMES / "shard-0000" / "encoders.sha256").unlink()
    with pytest.raises(KeptFramesError, match="shard-0001: frames as other encoders see them"):
        fuse_stage(config(*SHORT, "seed=1"), tmp_path, False, QUIET)


def test_encoders_and_heads_stay_and_all_behind_them_learns(unbroken: Path, tmp_path: Path) -> None:
    fuse_stage(config(*SHORT, f"start_from={unbroken}"), tmp_path, False, QUIET)
    before, after = load_perceiver(unbroken)[0].state_dict(), load_perceiver(tmp_path)[0].state_dict()
    for name, tensor in after.items():
        learns = name.startswith(("network.fusion.", "network.outlook.", "network.policy."))
        assert torch.equal(before[name], tensor) != learns or name.endswith("bias"), name


@pytest.mark.parametrize("given", [".", NETWORK])
def test_a_network_that_drives_already_does_so_from_the_first_shard(unbroken: Path, tmp_path: Path, given: str) -> None:
    """Whether a folder or a checkpoint is given: all of it is taken over, and it meets other frames than the expert does."""
    still = ("training.learning_rate=1e-12", "training.weight_decay=0.0", f"start_from={unbroken / given}")
    fuse_stage(config(*SHORT, *still), tmp_path, False, QUIET)
    before, after = load_checkpoint(unbroken / NETWORK).network, load_checkpoint(tmp_path / NETWORK).network
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], tensor, atol=1e-9, rtol=0.0)
    driven, by_expert = (np.load(run / FRAMES / "shard-0000" / "expert.npy") for run in (tmp_path, unbroken))
    assert driven.shape != by_expert.shape or not np.array_equal(driven, by_expert)


def test_encoders_of_a_run_with_another_fusion_are_taken(unbroken: Path, tmp_path: Path) -> None:
    fuse_stage(config(*SHORT, f"start_from={unbroken}", "network.fusion=attention"), tmp_path / "a", False, QUIET)
    before, after = load_checkpoint(unbroken / NETWORK).network, load_checkpoint(tmp_path / "a" / NETWORK).network
    assert isinstance(before, DrivingNetwork)
    assert isinstance(after, DrivingNetwork)
    for part in ("camera", "points"):
        expected, got = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert all(torch.equal(expected[name], got[name]) for name in expected)
    with pytest.raises(ConfigError, match="has other encoders; give widths"):
        fuse_stage(config(*SHORT, f"start_from={unbroken}", "network.camera_width=24"), tmp_path / "b", False, QUIET)


def test_a_network_learns_to_use_surroundings_that_it_did_not_look_up(unbroken: Path, tmp_path: Path) -> None:
    fuse_stage(config(*SHORT, f"start_from={unbroken / NETWORK}", "network.surroundings=true"), tmp_path, False, QUIET)
    after = load_checkpoint(tmp_path / NETWORK).network
    assert isinstance(after, DrivingNetwork)
    assert after.config.surroundings
    assert after.fusion.embed["around"].weight.abs().max() > 0  # type: ignore[union-attr, index, operator]
    assert "tokens-around.npy" in {path.name for path in (tmp_path / FRAMES / "shard-0000").iterdir()}


def test_what_cannot_be_is_said_before_anything_is_driven(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'attention' or 'route', got 'lift'"):
        fuse_stage(config(*SHORT, "network.fusion=lift"), tmp_path, False, QUIET)
    with pytest.raises(ConfigError, match="kind 'sensor'"):
        fuse_stage(config(*SHORT, "network.kind=privileged"), tmp_path, False, QUIET)
    assert not (tmp_path / FRAMES).exists()


def test_what_it_will_take_is_measured() -> None:
    steps, unit, rate = measured_rate(config(*SHORT))
    assert (steps, unit) == (4, "steps")
    assert 0 < rate < 1000


def test_the_smoke_configuration_comes_nearer_to_the_expert(tmp_path: Path) -> None:
    report = run_stage(CONFIGS / "smoke-fuse.toml", ["threads=1"], tmp_path, False, QUIET)
    assert report["frames"] > 500
    for name in ("affordances", "light"):  # not the policy: what the student meets is harder than what the expert does
        assert report[f"last_loss_{name}"] < report[f"first_loss_{name}"], name
    assert report["validation_throttle_correlation"] > 0.5
    best = load_checkpoint(tmp_path / BEST)
    assert isinstance(best.network, DrivingNetwork)
    assert best.metrics["score"] == pytest.approx(report["score"])
    assert best.run_config["stage"] == "fuse"
