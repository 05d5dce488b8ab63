"""Distillation, small: the network comes nearer to the expert, resumed runs end equal, files fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import Killed, kill_at_step, killed
from rich.console import Console

import perception.train_perception as loop
from perception.train_perception import PerceptionError, tensors_of
from planning.checkpoint import load_checkpoint, read_tensors, write_tensors
from planning.imitation import imitation_loss
from planning.network import DrivingNetwork
from planning.perceiver import HEADS, NETWORK, Perceiver, load_perceiver
from sim.config import ConfigError, load_config
from sim.imitation_frames import ImitationFrames
from sim.sensors.rig import rig
from sim.stages import run_stage
from sim.train_distill import Drives, TrainDistillConfig, distill_stage, expert_of
from sim.train_perception import BEST, STATE

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
QUIET = Console(quiet=True)
# Two chapters of two steps; the student drives in the second one.
SHORT = (
    "perception.total_frames=16", "perception.checkpoint_every=2", "frames.envs=4", "frames.warm_up_ticks=5",
    "frames.expert_chapters=1", "frames.student_share=1.0", "evaluation_episodes=0", "threads=1",
)  # fmt: skip


def config(*overrides: str) -> TrainDistillConfig:
    return load_config(TrainDistillConfig, CONFIGS / "smoke-distill.toml", overrides)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    distill_stage(config(*SHORT), folder, False, QUIET)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {**read_tensors(folder / STATE)[1], **read_tensors(folder / HEADS)[1]}


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(unbroken: Path, tmp_path: Path) -> None:
    kill_at_step(loop, 4, lambda: distill_stage(config(*SHORT), tmp_path, False, QUIET))
    with pytest.raises(ConfigError, match="already holds a training run; add --resume"):
        distill_stage(config(*SHORT), tmp_path, False, QUIET)
    distill_stage(config(*SHORT), tmp_path, True, QUIET)
    expected, got = tensors(unbroken), tensors(tmp_path)
    assert set(expected) == set(got)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_run_killed_in_its_last_evaluation_is_evaluated_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = config(*SHORT, "evaluation_episodes=1", "evaluation_max_steps=5")
    report = distill_stage(judged, tmp_path / "unbroken", False, QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(Drives, "__call__", killed)
        with pytest.raises(Killed):
            distill_stage(judged, tmp_path / "killed", False, QUIET)
    assert not (tmp_path / "killed" / BEST).exists()
    resumed = distill_stage(judged, tmp_path / "killed", True, QUIET)
    assert resumed["score"] == report["score"]
    assert Path(resumed["best_checkpoint"]) == tmp_path / "killed" / BEST
    for name in (BEST, NETWORK):
        expected, got = (load_checkpoint(tmp_path / run / name).metrics for run in ("unbroken", "killed"))
        assert got == expected
    assert (
        read_tensors(tmp_path / "killed" / STATE)[0]["state"] == read_tensors(tmp_path / "unbroken" / STATE)[0]["state"]
    )


@pytest.mark.parametrize(("name", "value"), [("step", "many"), ("best", [1]), ("due", 3), ("due", {"score": "high"})])
def test_a_malformed_state_is_one_line(unbroken: Path, tmp_path: Path, name: str, value: object) -> None:
    header, tensors = read_tensors(unbroken / STATE)
    header["state"][name] = value
    write_tensors(tmp_path / STATE, tensors, header)
    with pytest.raises(PerceptionError, match="the training state is malformed") as caught:
        distill_stage(config(*SHORT), tmp_path, True, QUIET)
    assert "\n" not in str(caught.value)


def test_a_run_begins_with_the_weights_it_is_told(unbroken: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing it ends with them, too."""
    still = ("perception.learning_rate=1e-12", "perception.weight_decay=0.0", f"start_from={unbroken}")
    distill_stage(config(*SHORT, *still), tmp_path, False, QUIET)
    expected, got = tensors(unbroken), tensors(tmp_path)
    for name in got:
        if name.startswith("network/"):
            torch.testing.assert_close(got[name], expected[name], atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="another shape, observation or heads"):
        distill_stage(config(*SHORT, *still, "heads.hidden=64"), tmp_path / "other", False, QUIET)


def test_who_cannot_be_imitated_is_said(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no privileged network"):
        distill_stage(config(*SHORT, f"expert={unbroken / NETWORK}"), tmp_path, False, QUIET)
    with pytest.raises(ConfigError, match="kind 'sensor'"):
        distill_stage(config(*SHORT, "network.kind=privileged"), tmp_path, False, QUIET)


def test_a_smaller_network_imitates_a_larger_one_and_both_are_judged(unbroken: Path, tmp_path: Path) -> None:
    smaller = ("network.camera_width=8", "network.points_width=8", "network.token_width=32", "network.hidden=32")
    judged = ("evaluation_episodes=1", "evaluation_max_steps=20", f"teacher={unbroken / NETWORK}")
    report = distill_stage(config(*SHORT, *smaller, *judged), tmp_path, False, QUIET)
    assert report["parameters"] < 0.4 * report["parameters_of_teacher"]
    for name in ("success_rate", "route_completion", "return"):
        assert f"teacher_{name}" in report
        assert name in report
    with pytest.raises(ConfigError, match="give one of the same rig"):
        distill_stage(config(*SHORT, *judged, "size=small"), tmp_path / "other", False, QUIET)


def test_the_smoke_configuration_comes_nearer_to_the_expert(tmp_path: Path) -> None:
    report = run_stage(CONFIGS / "smoke-distill.toml", ["threads=1"], tmp_path, False, QUIET)
    assert report["frames"] == 960
    assert report["last_loss_bev"] < report["first_loss_bev"]
    assert 0 <= report["route_completion"] <= 1
    best = load_checkpoint(tmp_path / BEST)
    assert isinstance(best.network, DrivingNetwork)
    assert best.metrics["score"] == pytest.approx(report["score"])
    assert best.run_config["stage"] == "distill"
    trained, _ = load_perceiver(tmp_path)
    torch.manual_seed(0)
    fresh = Perceiver(DrivingNetwork(trained.config, trained.spec), trained.heads_config)
    before, after = (far_from_the_expert(model) for model in (fresh, trained))
    assert after < 0.85 * before


def far_from_the_expert(model: Perceiver) -> float:
    """Mean divergence on roads of another seed on which only the expert has driven."""
    c = config()
    source = ImitationFrames(c.frames, rig("smoke"), model.grid, 1, "train", lambda o: o["ego"][:, :2], expert_of(c))
    divergence = []
    for chapter in range(2):
        source.begin(chapter)
        for _ in range(5):
            source._driven[0].drive(20)
            frames = source.next()
            with torch.inference_mode():
                driven = model.network.act(tensors_of(frames, model.spec))
            assert frames.expert is not None
            divergence.append(float(imitation_loss(driven, torch.from_numpy(frames.expert), c.imitation)[0]))
    return float(np.mean(divergence))
