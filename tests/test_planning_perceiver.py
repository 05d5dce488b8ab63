"""A network with its training-only heads: every task reaches the encoders it should, whatever the fusion, and not the policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from perception.heads import HeadsConfig
from perception.labels import BevClass, PictureClass
from perception.preprocess import ObservationSpec
from perception.sensors import CameraCalibration
from planning.checkpoint import CheckpointError, read_tensors, write_tensors
from planning.network import DrivingNetwork, network_config
from planning.perceiver import HEADS, NETWORK, Perceiver, load_perceiver, save_perceiver

CAMERA = CameraCalibration(
    48, 32, np.array([[24.0, 0, 23.5], [0, 24.0, 15.5], [0, 0, 1]]),
    np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]]),
)  # fmt: skip
SPEC = ObservationSpec({"camera": CAMERA}, max_points=200)


def perceiver(fusion: str, spec: ObservationSpec = SPEC, seed: int = 0) -> Perceiver:
    torch.manual_seed(seed)
    config = network_config("smoke", precision="float32", fusion=fusion)
    return Perceiver(DrivingNetwork(config, spec), HeadsConfig())


def observation(spec: ObservationSpec = SPEC) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    values = {
        key: (rng.integers(1, 256, (2, *shape)) if dtype == "uint8" else rng.uniform(-9, 9, (2, *shape))).astype(dtype)
        for key, (shape, dtype) in spec.shapes().items()
    }
    if spec.max_points:
        values["point_count"][:] = 200
    return {key: torch.from_numpy(v) for key, v in values.items()}


@pytest.mark.parametrize("fusion", ["attention", "route", "lift", "late"])
def test_tasks_reach_the_encoders_through_every_fusion(fusion: str) -> None:
    model = perceiver(fusion)
    model.freeze_policy()
    predictions = model(observation())
    assert predictions.bev.shape == (2, len(BevClass), 48, 48)
    assert predictions.semantic["camera"].shape == (2, len(PictureClass), 8, 12)
    network = model.network
    for task in (predictions.bev, predictions.centers, predictions.light, predictions.lane):
        wanted = [network.camera.conv1.weight, network.points.point.weight]
        gradients = torch.autograd.grad(task.square().sum(), wanted, retain_graph=True)
        assert all(g.abs().max() > 0 for g in gradients)
    (predictions.bev.sum() + predictions.light.sum()).backward()
    assert all(p.grad is None for part in (network.policy, network.value) for p in part.parameters())


@pytest.mark.parametrize("fusion", ["attention", "route", "lift", "late"])
@pytest.mark.parametrize("missing", ["camera", "lidar"])
def test_a_car_without_one_kind_of_sensor_is_perceived_too(fusion: str, missing: str) -> None:
    spec = ObservationSpec({}, 200) if missing == "camera" else ObservationSpec({"camera": CAMERA}, 0)
    predictions = perceiver(fusion, spec)(observation(spec))
    assert predictions.bev.shape == (2, len(BevClass), 48, 48)
    assert torch.isfinite(predictions.centers).all()
    assert len(predictions.semantic) == (missing == "lidar")


def test_files_of_one_step_come_back_and_others_are_refused(tmp_path: Path) -> None:
    model, other = perceiver("lift"), perceiver("lift", seed=1)
    save_perceiver(tmp_path / "a", model, {"rig": "smoke"}, {"frames": 5.0})
    save_perceiver(tmp_path / "b", other, {}, {"frames": 5.0})
    back, run_config = load_perceiver(tmp_path / "a")
    assert run_config == {"rig": "smoke"}
    with torch.inference_mode():
        assert torch.equal(back(observation()).centers, model(observation()).centers)
    header, tensors = read_tensors(tmp_path / "a" / HEADS)
    name = next(iter(tensors))
    write_tensors(tmp_path / "a" / HEADS, {**tensors, name: tensors[name].long()}, header)
    with pytest.raises(CheckpointError, match=f"tensor {name} is of int64, but the header implies float32"):
        load_perceiver(tmp_path / "a")
    (tmp_path / "a" / HEADS).write_bytes((tmp_path / "b" / HEADS).read_bytes())
    with pytest.raises(CheckpointError, match="was trained with another network"):
        load_perceiver(tmp_path / "a")
    (tmp_path / "a" / HEADS).unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_perceiver(tmp_path / "a")
    assert (tmp_path / "a" / NETWORK).exists()
