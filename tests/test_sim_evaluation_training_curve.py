"""Training curves: what was logged comes back, thinned without a shift, and whatever is missing or damaged is no error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.tensorboard import SummaryWriter

from planning.checkpoint import save_checkpoint
from planning.network import build_network, network_config
from sim.drive_batch import DriveBatch, EnvConfig
from sim.evaluation.training_curve import FILE, keep_training_curves, read_training_curves, thinned, training_curves
from sim.train import observation_spec

RETURNS = [-3.5, 0.25, 8.0, 12.75]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an invented training run."""
    folder = tmp_path_factory.mktemp("trained")
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for k, value in enumerate(RETURNS):
            writer.add_scalar("episode/return", value, 100 * (k + 1))
        writer.add_scalar("evaluation/success_rate", 0.5, 200)
        writer.add_scalar("evaluation/success_rate", float("nan"), 300)
        writer.add_scalar("evaluation/success_rate", 0.75, 400)
        writer.add_scalar("loss/total", 2.5, 100)
        writer.add_scalar("ppo/entropy", 1.0, 100)
    torch.manual_seed(0)
    spec = observation_spec(DriveBatch(EnvConfig.of(observation="privileged"), 1))
    network = build_network(network_config("smoke").model_copy(update={"kind": "privileged"}), spec)
    save_checkpoint(folder / "best.safetensors", network, {}, {"env_steps": 200.0})
    return folder


def test_what_was_logged_comes_back(trained: Path, tmp_path: Path) -> None:
    policy = str(trained / "best.safetensors")
    wanted = {
        "checkpoint_step": 200.0,
        "curves": {
            "return": {"training": [[100.0 * (k + 1), v] for k, v in enumerate(RETURNS)], "evaluation": []},
            "success": {"training": [], "evaluation": [[200.0, 0.5], [400.0, 0.75]]},
            "loss": {"training": [[100.0, 2.5]], "evaluation": []},
        },
    }
    assert training_curves(policy) == wanted
    keep_training_curves(tmp_path, policy)
    assert read_training_curves(tmp_path) == wanted


def test_without_a_checkpoint_or_its_logs_there_is_no_curve(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "lone.safetensors").touch()
    for policy in (
        "expert",
        str(trained / "other.safetensors"),
        str(tmp_path / "lone.safetensors"),
        "s3://a/b.safetensors",
    ):
        assert training_curves(policy) is None
        keep_training_curves(tmp_path, policy)
    assert not (tmp_path / FILE).exists()
    assert read_training_curves(tmp_path) is None


def test_a_checkpoint_that_does_not_say_its_step_has_curves_all_the_same(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorboard").symlink_to(trained / "tensorboard")
    (tmp_path / "odd.safetensors").write_bytes(b"no checkpoint")
    found = training_curves(str(tmp_path / "odd.safetensors"))
    assert found is not None
    assert found["checkpoint_step"] is None
    assert set(found["curves"]) == {"return", "success", "loss"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"curves": 3}'])
def test_a_damaged_file_counts_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_training_curves(tmp_path) is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_logs_give_what_can_be_read_of_them(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Cut off or altered anywhere: an earlier part of the curves, or none."""
    (events,) = (trained / "tensorboard").iterdir()
    whole = events.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=40))
    (tmp_path / "tensorboard").mkdir(exist_ok=True)
    (tmp_path / "tensorboard" / events.name).write_bytes(whole[:cut] + junk)
    (tmp_path / "odd.safetensors").touch()
    found = training_curves(str(tmp_path / "odd.safetensors"))
    if found is None:
        return
    json.dumps(found, allow_nan=False)
    values = [v for _, v in found["curves"].get("return", {"training": []})["training"]]
    assert values == RETURNS[: len(values)]


@given(st.lists(st.tuples(st.integers(0, 10**7), st.floats(-1e3, 1e3)), max_size=300), st.integers(1, 40))
def test_thinning_keeps_order_range_and_the_mean(points: list[tuple[int, float]], most: int) -> None:
    thin = thinned(points, most)
    assert len(thin) <= most
    assert thin == sorted(thin, key=lambda p: p[0])
    if len(points) <= most:
        assert thin == [list(map(float, p)) for p in sorted(points)]
    if points:
        values = [v for _, v in points]
        assert all(min(values) - 1e-9 <= v <= max(values) + 1e-9 for _, v in thin)
        each = -(-len(points) // most)
        weights = [min(each, len(points) - each * k) for k in range(len(thin))]
        assert sum(w * v for w, (_, v) in zip(weights, thin, strict=True)) == pytest.approx(sum(values), abs=1e-6)
