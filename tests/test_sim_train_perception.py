"""Training of perception, small: losses fall, equal seeds end equal, resumed runs too, files read back, scores are in range."""

from __future__ import annotations

import math
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import kill_at_step
from rich.console import Console

import perception.train_perception as loop
import sim.train_perception
from perception.labels import BoxField
from perception.train_perception import PerceptionError, schedule
from planning.checkpoint import CheckpointError, load_checkpoint, read_tensors
from planning.network import DrivingNetwork
from planning.perceiver import HEADS, NETWORK, load_perceiver
from sim.config import ConfigError, load_config
from sim.evaluate_perception import evaluate_perception, frame_of_sweep
from sim.evaluation.perception_scores import PerceptionScores
from sim.evaluation.real_sweeps import labelled_sweeps
from sim.stages import run_stage
from sim.train_perception import STATE, TrainPerceptionConfig, train_stage

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
QUIET = Console(quiet=True)
# Two chapters of two steps, without scores.
SHORT = (
    "perception.total_frames=16", "perception.checkpoint_every=2", "frames.envs=4", "frames.warm_up_ticks=5",
    "evaluation_frames=0", "threads=1",
)  # fmt: skip


def config(*overrides: str) -> TrainPerceptionConfig:
    return load_config(TrainPerceptionConfig, CONFIGS / "smoke-perception.toml", overrides)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train_stage(config(*SHORT), folder, False, QUIET)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {**read_tensors(folder / STATE)[1], **read_tensors(folder / HEADS)[1]}


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    kill_at_step(loop, 4, lambda: train_stage(config(*SHORT), killed, False, QUIET))
    with pytest.raises(ConfigError, match="already holds a training run; add --resume"):
        train_stage(config(*SHORT), killed, False, QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(sim.train_perception, "DrivingNetwork", None)  # nothing is built before
        with pytest.raises(PerceptionError, match="seed was 0 in that run and is 1 now"):
            train_stage(config(*SHORT, "seed=1"), killed, True, QUIET)
    train_stage(config(*SHORT), killed, True, QUIET)
    expected, got = tensors(unbroken), tensors(killed)
    assert set(expected) == set(got)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_another_seed_ends_with_other_weights_and_policies_stay_as_they_were(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_stage(config(*SHORT, "seed=1"), tmp_path, False, Console(file=StringIO()))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split("  ")[0] for line in said] == ["step 2 of 4", "step 4 of 4"]
    assert all("gradient_norm" in line for line in said), "a log file gets one whole line at each checkpoint"
    expected, got = tensors(unbroken), tensors(tmp_path)
    assert any(not torch.equal(expected[name], got[name]) for name in expected)
    state = read_tensors(unbroken / STATE)[1]
    assert not [name for name in state if name.startswith("optimizer/") and ".policy." in name]


def test_files_read_back_and_belong_together(unbroken: Path, tmp_path: Path) -> None:
    model, run_config = load_perceiver(unbroken)
    assert run_config["rig"] == "smoke"
    assert isinstance(load_checkpoint(unbroken / NETWORK).network, DrivingNetwork)
    for name, tensor in read_tensors(unbroken / HEADS)[1].items():
        assert torch.equal(model.heads.state_dict()[name], tensor)
    (tmp_path / NETWORK).write_bytes((unbroken / NETWORK).read_bytes())
    with pytest.raises(CheckpointError, match="no such file"):
        load_perceiver(tmp_path)
    (tmp_path / HEADS).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_perceiver(tmp_path)


def test_the_smoke_configuration_learns_every_task(tmp_path: Path) -> None:
    report = run_stage(CONFIGS / "smoke-perception.toml", ["threads=1"], tmp_path, False, QUIET)
    assert report["frames"] == 480
    assert report["last_loss_total"] < 0.75 * report["first_loss_total"]
    for task in ("bev", "heat", "size", "picture_semantic", "picture_depth"):
        assert report[f"last_loss_{task}"] < report[f"first_loss_{task}"], task
    assert 0.05 < report["bev_iou"] < 1
    assert 0 < report["picture_iou"] < 1
    assert list((tmp_path / "tensorboard").iterdir())
    scores = evaluate_perception(tmp_path, 16, None)
    assert set(scores) == {"both", "camera", "lidar"}
    assert scores["both"]["bev_iou"] > 0
    assert "picture_iou" not in scores["lidar"]


def test_a_stage_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage 'perceptoin'; there are: policy, perception, distill, fuse, all"):
        run_stage(CONFIGS / "smoke-perception.toml", ["stage=perceptoin"], tmp_path, False, QUIET)
    with pytest.raises(ConfigError, match="kind 'sensor'"):
        train_stage(config(*SHORT, "network.kind=privileged"), tmp_path, False, QUIET)


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [schedule(step, 100, 10) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == 1.0
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.0)


def test_real_sweeps_hold_points_in_their_boxes(
    shared_data: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes with at least two returns; of cars nearby nearly all, whichever dataset."""
    sweeps = list(labelled_sweeps(shared_data, 16384))
    assert {s.source for s in sweeps} == {"pandaset", "argoverse2"}
    f = BoxField
    for sweep in sweeps:
        assert sweep.points.shape[1] == 4
        assert 0 <= sweep.points[:, 3].min() <= sweep.points[:, 3].max() <= 1
        near = sweep.boxes[np.hypot(sweep.boxes[:, f.X], sweep.boxes[:, f.Y]) < 15]
        assert len(near) >= 3
        assert near[:, f.SEEN].mean() > 0.7
        road = sweep.points[(np.abs(sweep.points[:, 0] - 7) < 3) & (np.abs(sweep.points[:, 1]) < 1.5)]
        assert abs(np.percentile(road[:, 2], 10)) < 0.2  # whoever is ahead covers some of it
    model, _ = load_perceiver(unbroken)
    thinned = next(labelled_sweeps(shared_data, model.spec.max_points))
    assert len(thinned.points) == model.spec.max_points == 4096
    scores = PerceptionScores(model.grid)
    scores.see(model, frame_of_sweep(thinned, model.spec, 48, 48), "lidar")
    found = scores.boxes_only()
    assert found["vehicle_boxes"] > 3
    assert 0 <= found["vehicle_ap"] <= 1
    assert math.isfinite(found["vehicle_ap_r40"])
    monkeypatch.setattr("sim.evaluate_perception.labelled_sweeps", lambda folder, points: iter([thinned]))
    (scores_of_source,) = evaluate_perception(unbroken, 0, shared_data).values()
    assert set(found) - set(scores_of_source) == {
        "vehicle_velocity_error",
        "walker_velocity_error",
    }  # nobody knows them


def test_a_folder_without_sweeps_is_said(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no labelled sweeps in"):
        evaluate_perception(unbroken, 0, tmp_path)
