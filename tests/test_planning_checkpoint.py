"""Checkpoints: what was saved comes back, and nothing else is ever loaded: damaged, hostile or foreign files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.preprocess import ObservationSpec
from perception.sensors import CameraCalibration
from planning import checkpoint
from planning.checkpoint import (
    CheckpointError,
    export_checkpoint,
    load_checkpoint,
    load_training_state,
    read_tensors,
    save_checkpoint,
    save_training_state,
    write_tensors,
)
from planning.network import ActorCritic, build_network, network_config
from planning.network_policy import NetworkPolicy, ObservationError
from planning.sense import Sense

CAMERA = CameraCalibration(
    32, 16, np.array([[16.0, 0, 15.5], [0, 16.0, 7.5], [0, 0, 1]]),
    np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]]),
)  # fmt: skip
SENSORS = ObservationSpec(cameras={"camera_wide": CAMERA}, max_points=32, privileged_size=4)
PRIVILEGED = ObservationSpec(cameras={}, max_points=0, ego_size=0, route_points=0, privileged_size=4)


def sensor_network() -> ActorCritic:
    torch.manual_seed(0)
    widths = {"camera_width": 8, "points_width": 8, "token_width": 16, "hidden": 32, "queries": 2}
    return build_network(network_config("smoke", **widths), SENSORS)


def small_network() -> ActorCritic:
    torch.manual_seed(0)
    network = build_network(network_config("smoke", kind="privileged", hidden=8), PRIVILEGED)
    network.update_statistics({"privileged": torch.randn(50, 4) * 3 + 1})
    return network


def observation(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        key: (rng.integers(0, 256, (n, *shape)) if dtype == "uint8" else rng.uniform(1, 5, (n, *shape))).astype(dtype)
        for key, (shape, dtype) in SENSORS.shapes().items()
    }


@pytest.mark.parametrize("where", ["local", "memory://checkpoints/a.safetensors"])
def test_what_was_saved_comes_back_with_everything_around_it(tmp_path: Path, where: str) -> None:
    path = str(tmp_path / "deep" / "a.safetensors") if where == "local" else where
    network = sensor_network()
    save_checkpoint(path, network, {"ppo": {"seed": 3}}, {"return": 1.5, "nothing": float("nan")})
    loaded = load_checkpoint(path)
    assert loaded.network.config == network.config
    assert loaded.network.spec.to_json() == SENSORS.to_json()
    assert loaded.run_config == {"ppo": {"seed": 3}}
    assert loaded.metrics == {"return": 1.5}
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    if where == "local":
        assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.safetensors"]  # no temporary file left


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_floats_of_fewer_bits_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = edited(tmp_path, lambda h, t: t.update({"policy.0.weight": t["policy.0.weight"].to(dtype)}))
    read = load_checkpoint(path).network.state_dict()["policy.0.weight"]
    assert torch.equal(read, small_network().state_dict()["policy.0.weight"].to(dtype).float())


def test_a_moment_that_is_no_float_is_refused(tmp_path: Path) -> None:
    network, path = small_network(), tmp_path / "resume.safetensors"
    optimizer = torch.optim.Adam(network.parameters())
    network.act({"privileged": torch.ones(2, 4)}).mode().sum().backward()
    optimizer.step()
    save_training_state(path, network, optimizer, {})
    header, tensors = read_tensors(path)
    tensors["optimizer/exp_avg/policy.0.bias"] = tensors["optimizer/exp_avg/policy.0.bias"].long()
    write_tensors(path, tensors, header)
    with pytest.raises(
        CheckpointError, match=r"optimiser state of policy\.0\.bias is incomplete or has another shape or type"
    ):
        load_training_state(path, network, optimizer)


def test_the_same_policy_comes_back_and_half_precision_is_close(tmp_path: Path) -> None:
    network = sensor_network()
    save_checkpoint(
        tmp_path / "a.safetensors",
        network,
        {"start_from": str(tmp_path / "runs" / "stage-1"), "env": {"maps": [str(tmp_path / "a.net.xml")]}, "seed": 3},
        {"score": 2.0},
    )
    size = export_checkpoint(tmp_path / "a.safetensors", tmp_path / "half.safetensors")
    exported = load_checkpoint(tmp_path / "half.safetensors")
    kept = {"start_from": "runs/stage-1", "env": {"maps": [f"{tmp_path.name}/a.net.xml"]}, "seed": 3}
    assert exported.run_config == kept  # nobody's home is handed on
    assert exported.metrics == {"score": 2.0}
    before = NetworkPolicy(network).act(observation(3), None)
    same = NetworkPolicy.load(tmp_path / "a.safetensors")
    assert same.name == "a"
    assert before.shape == (3, 2)
    assert before.dtype == np.float32
    np.testing.assert_array_equal(same.act(observation(3), None), before)
    half = NetworkPolicy.load(tmp_path / "half.safetensors").act(observation(3), None)
    np.testing.assert_allclose(half, before, atol=0.01)
    sizes = [(tmp_path / name).stat().st_size for name in ("half.safetensors", "a.safetensors")]
    assert sizes[0] == size < 0.6 * sizes[1]


def test_numbers_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    network = small_network()
    with torch.no_grad():
        next(network.parameters()).fill_(1e6)
    save_checkpoint(tmp_path / "a.safetensors", network, {}, {})
    with pytest.raises(CheckpointError, match="a number that is too large for 16 bits"):
        export_checkpoint(tmp_path / "a.safetensors", tmp_path / "half.safetensors")
    assert not (tmp_path / "half.safetensors").exists()


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", small_network(), {}, {})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(torch.rand(3), expected)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small_network(), {}, {"return": 1.0})

    def crash(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", crash)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: cannot be written: no space left on device; make room"):
        save_checkpoint(path, small_network(), {}, {"return": 2.0})
    assert load_checkpoint(path).metrics == {"return": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def edited(tmp_path: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """A checkpoint whose header and tensors were edited, written anew so that it is a valid safetensors file."""
    path = tmp_path / "edited.safetensors"
    save_checkpoint(path, small_network(), {}, {})
    header, tensors = read_tensors(path)
    edit(header, tensors)
    write_tensors(path, tensors, header)
    return path


EDITS: list[tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], Any], str]] = [
    (lambda h, t: h.update(format_version=99), "format_version is 99, but this program reads 1"),
    (lambda h, t: h["network"].update(hidden=16), r"tensor policy\.0\.weight has shape \(8, 4\), but the header"),
    (lambda h, t: h["network"].update(hidden=10**9), r"network\.hidden in the header: .*less than or equal to 2048"),
    (lambda h, t: h["network"].update(kind="oracle"), r"network\.kind in the header"),
    (lambda h, t: h["network"].update(kind="sensor"), "the header describes no network: a sensor network needs"),
    (lambda h, t: h["network"].update(colour=1), r"network\.colour in the header: Extra inputs"),
    (lambda h, t: h.update(network=None), "network in the header"),
    (lambda h, t: h["observation"].update(privileged_size=5), r"tensor statistics\.mean has shape \(4,\)"),
    (lambda h, t: h["observation"].update(privileged_size=10**12), "privileged_size must lie in"),
    (lambda h, t: h["observation"].update(cameras=3), "observation in the header"),
    (lambda h, t: h.update(observation=[]), "observation in the header"),
    (lambda h, t: h.update(metrics={"return": "high"}), "metrics or run_config in the header is malformed"),
    (lambda h, t: h.update(metrics={"return": 10**400}), "metrics or run_config in the header is malformed"),
    (lambda h, t: t.pop("value.0.bias"), r"tensor value\.0\.bias is missing"),
    (lambda h, t: t.update(extra=torch.zeros(2)), "tensor extra is not part of the network"),
    (lambda h, t: t.update({"value.0.bias": torch.full((8,), torch.nan)}), r"tensor value\.0\.bias holds NaN"),
    *(
        (
            lambda h, t, d=d: t.update({"value.0.bias": t["value.0.bias"].to(d)}),
            rf"tensor value\.0\.bias is of {name}; those read",
        )
        for name in ("float64", "float8_e4m3fn", "float8_e5m2", "complex64", "bool", "uint16", "uint32")
        for d in (getattr(torch, name),)
    ),
    (
        lambda h, t: t.update({"value.0.bias": torch.zeros(8, dtype=torch.int64)}),
        "is of int64, but the header implies float32",
    ),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_a_header_or_tensor_that_does_not_fit_is_named_in_one_line(
    tmp_path: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None], message: str
) -> None:
    path = edited(tmp_path, edit)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_header_that_breaks_a_constructor_is_named_in_one_line(tmp_path: Path) -> None:
    """Torch keeps the names of its containers' methods for itself, so no network has a camera of that."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, sensor_network(), {}, {})
    header, tensors = read_tensors(path)
    cameras = header["observation"]["cameras"]
    cameras["keys"] = cameras.pop("camera_wide")
    write_tensors(path, tensors, header)
    with pytest.raises(CheckpointError, match=r"the header describes no network: .*keys"):
        load_checkpoint(path)


def test_missing_too_large_foreign_and_unreachable_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small_network(), {}, {})
    with pytest.raises(CheckpointError, match="bytes, but at most 100 are read"):
        load_checkpoint(path, max_bytes=100)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="not a file"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint("nowhere://a/b.safetensors")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "pickle.pt")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "pickle.pt")
    deep = b"[" * 200_000
    (tmp_path / "deep").write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(CheckpointError, match="no checkpoint of this program"):
        load_checkpoint(tmp_path / "deep")
    (tmp_path / "large").write_bytes((1 << 21).to_bytes(8, "little") + b" " * (1 << 21))
    with pytest.raises(CheckpointError, match="a header of 2097152 bytes"):
        load_checkpoint(tmp_path / "large")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_one_clear_error_or_the_same_network(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.safetensors"
    if not path.exists():
        save_checkpoint(path, small_network(), {}, {})
    good = path.read_bytes()
    header_length = 8 + int.from_bytes(good[:8], "little")
    match data.draw(st.sampled_from(["cut", "flip", "random", "insert"])):
        case "cut":
            bad = good[: data.draw(st.integers(0, len(good) - 1))]
        case "flip":
            at = data.draw(st.integers(0, header_length - 1))
            bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
        case "insert":
            at = data.draw(st.integers(0, header_length))
            bad = good[:at] + data.draw(st.binary(min_size=1, max_size=20)) + good[at:]
        case _:
            bad = data.draw(st.binary(max_size=300))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(bad)
    error = None
    try:
        load_checkpoint(damaged)
    except CheckpointError as raised:  # anything else fails the test; a flip in a commit hash, say, does no harm
        error = raised
    if len(bad) < len(good):
        assert error is not None
    assert "\n" not in str(error)


def test_the_file_is_plain_safetensors_with_a_json_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small_network(), {}, {})
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["automedon"])
        assert set(file.keys()) == set(small_network().state_dict())
    assert header["format_version"] == 1
    assert header["network"]["hidden"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.pop("points"), "needs points, but the observation has camera_wide"),
        (lambda o: o.update(camera_wide=o["camera_wide"][:, :8]), r"takes camera_wide as uint8 \(16, 32, 3\) per car"),
        (lambda o: o.update(ego=o["ego"].astype(np.float64)), "takes ego as float32"),
    ],
)
def test_an_observation_of_another_rig_is_refused(change: Callable[[dict[str, np.ndarray]], Any], message: str) -> None:
    given_observation = observation(2)
    change(given_observation)
    with pytest.raises(ObservationError, match=message):
        NetworkPolicy(sensor_network(), "p").act(given_observation, None)


def test_the_policy_does_not_look_at_the_privileged_observation() -> None:
    policy, given_observation = NetworkPolicy(sensor_network()), observation(2)
    before = policy.act(given_observation, None)
    given_observation.pop("privileged")
    np.testing.assert_array_equal(policy.act(given_observation, None), before)


@pytest.mark.parametrize(
    ("without", "keys"),
    [
        ((Sense.LIDAR,), ("points", "point_count")),
        ((Sense.CAMERAS,), ("camera_wide",)),
        ((Sense.CAMERAS, Sense.LIDAR), ("camera_wide", "points", "point_count")),
    ],
)
def test_a_policy_without_a_sensor_drives_as_if_it_had_failed(
    without: tuple[Sense, ...], keys: tuple[str, ...]
) -> None:
    given_observation = observation(2)
    failed = {**given_observation, **{key: np.zeros_like(given_observation[key]) for key in keys}}
    driven = NetworkPolicy(sensor_network(), without=without).act(given_observation, None)
    np.testing.assert_array_equal(driven, NetworkPolicy(sensor_network()).act(failed, None))
    assert np.abs(driven - NetworkPolicy(sensor_network()).act(given_observation, None)).max() > 0


def test_a_policy_cannot_drive_without_what_it_does_not_have() -> None:
    with pytest.raises(ObservationError, match='policy "p" has no lidar'):
        NetworkPolicy(small_network(), "p", (Sense.LIDAR,))


def test_a_training_state_is_told_from_a_network(tmp_path: Path) -> None:
    network = small_network()
    save_training_state(tmp_path / "resume.safetensors", network, torch.optim.Adam(network.parameters()), {"step": 1})
    with pytest.raises(CheckpointError, match=r"state of a training.*best\.safetensors"):
        export_checkpoint(tmp_path / "resume.safetensors", tmp_path / "out.safetensors")
