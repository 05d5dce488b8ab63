"""Networks and training states as files: safetensors with a JSON header, never pickle.

Knows networks and files; knows nothing about training or the simulator. A file is read only up to a size limit, its
header is checked before any tensor, and every tensor is checked against the network that the header describes before
that network is built.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from perception.preprocess import ObservationSpec
from planning.network import ActorCritic, NetworkConfig, build_network

FORMAT_VERSION = 1
MAX_BYTES = 1 << 29
MAX_HEADER_BYTES = 1 << 20
HEADER_KEY = "automedon"
_NETWORK, _OPTIMIZER = "network/", "optimizer/"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)  # what a float32 of a network may be written as
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class CheckpointError(ValueError):
    """A file that is no usable checkpoint; the message is one line that names the file and what is wrong."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    run_config: the resolved configuration of the run. metrics: numbers at saving. git_commit: "unknown" outside git.
    """

    network: ActorCritic
    run_config: dict[str, Any]
    metrics: dict[str, float]
    git_commit: str


def save_checkpoint(
    path: str | Path, network: ActorCritic, run_config: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """Write the network, normalisation statistics included, to a local path or fsspec URL; all or nothing."""
    write_tensors(
        path, network.state_dict(), {**_describe(network), "run_config": dict(run_config), "metrics": finite(metrics)}
    )


def load_checkpoint(path: str | Path, max_bytes: int = MAX_BYTES) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: no file, too large, damaged, another format version, or tensors that do not fit the header.
    """
    header, tensors = read_tensors(path, max_bytes)
    config, spec = _network_of(path, header)
    if "state" in header:
        raise CheckpointError(f"{path}: the state of a training, to resume it; give the best.safetensors beside it")
    network = _load_network(path, config, spec, tensors)
    try:
        metrics = {str(name): float(value) for name, value in header.get("metrics", {}).items()}
        return Checkpoint(network, dict(header.get("run_config", {})), metrics, str(header.get("git_commit")))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: metrics or run_config in the header is malformed: {error}") from None


def export_checkpoint(source: str | Path, target: Path) -> int:
    """Write the network of a checkpoint with 16 bits a number, to hand it on; returns the size in bytes.

    Metrics, commit and configuration of its run stay with it; of absolute paths in that configuration, only the end.

    Raises:
        CheckpointError: `source` is no usable checkpoint, or a number is too large for 16 bits.
    """
    run_config = load_checkpoint(source).run_config
    header, tensors = read_tensors(source)
    half = {name: t.half() if t.is_floating_point() and t.ndim else t for name, t in tensors.items()}
    for name, tensor in half.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{source}: tensor {name} holds a number that is too large for 16 bits")
    write_tensors(target, half, {**header, "run_config": _without_folders(run_config)})
    return target.stat().st_size


def _without_folders(value: Any) -> Any:
    """The JSON value with the last two parts of each absolute path in it: the others are of no use elsewhere."""
    match value:
        case str() if Path(value).is_absolute():
            return "/".join(Path(value).parts[1:][-2:])
        case dict():
            return {key: _without_folders(part) for key, part in value.items()}
        case list():
            return [_without_folders(part) for part in value]
    return value


def save_training_state(
    path: str | Path, network: ActorCritic, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Write everything that a run needs to go on (network, optimiser moments, `state` as JSON) as one file."""
    tensors = {_NETWORK + name: tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for moment, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{moment}/{name}"] = tensor
    write_tensors(path, tensors, {**_describe(network), "state": dict(state)})


def read_training_state(path: str | Path, network: NetworkConfig, max_bytes: int = 3 * MAX_BYTES) -> dict[str, Any]:
    """The `state` in the file, before anything is built: what tells whether a run with that network can go on from it.

    Raises:
        CheckpointError: as `load_training_state`.
    """
    header, _ = read_tensors(path, max_bytes)
    _require_same(path, _difference("network", _network_of(path, header)[0].model_dump(), network.model_dump()))
    return _state_of(path, header)


def load_training_state(
    path: str | Path, network: ActorCritic, optimizer: torch.optim.Optimizer, max_bytes: int = 3 * MAX_BYTES
) -> dict[str, Any]:
    """Bring network and Adam optimiser to the state in the file and return its `state`.

    Raises:
        CheckpointError: as `load_checkpoint`, or the network in the file has another config or observation.
    """
    header, tensors = read_tensors(path, max_bytes)
    config, spec = _network_of(path, header)
    _require_same(path, _difference("network", config.model_dump(), network.config.model_dump()))
    _require_same(path, _difference("observation", json.loads(spec.to_json()), json.loads(network.spec.to_json())))
    check_tensors(path, network.state_dict(), _strip(tensors, _NETWORK))
    network.load_state_dict(_strip(tensors, _NETWORK))
    moments = _strip(tensors, _OPTIMIZER)
    for name, parameter in network.named_parameters():
        state = {}
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            tensor = moments.get(f"{moment}/{name}")
            expected = torch.Size([]) if moment == "step" else parameter.shape
            if tensor is not None and tensor.shape == expected and tensor.is_floating_point():
                # The fused optimiser walks through memory: a moment must lie as its parameter does (channels_last).
                state[moment] = tensor if moment == "step" else torch.empty_like(parameter.data).copy_(tensor)
        if len(state) not in (0, 3) or (state and not parameter.requires_grad):
            raise CheckpointError(f"{path}: the optimiser state of {name} is incomplete or has another shape or type")
        if state:
            optimizer.state[parameter] = state
    return _state_of(path, header)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header under a temporary name, then rename: a reader never sees half a file.

    Raises CheckpointError where the disk is full."""
    text = json.dumps({"format_version": FORMAT_VERSION, **header}, allow_nan=False)
    data = save_safetensors({n: t.detach().contiguous() for n, t in tensors.items()}, metadata={HEADER_KEY: text})
    if "://" in str(path):
        filesystem, name = fsspec.core.url_to_fs(str(path))
        filesystem.pipe_file(f"{name}.tmp", data)
        filesystem.mv(f"{name}.tmp", name)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        if error.filename is not None:  # a path that cannot be used, not a disk that is full
            raise
        raise CheckpointError(
            f"{path}: cannot be written: {_one_line(error)}; make room and go on with --resume"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: str | Path, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file, floats as float32.

    Raises:
        CheckpointError: no file, too large, damaged, or written in another format version.
    """
    data = _read(path, max_bytes)
    header = _header(path, data)
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format_version is {version!r}, but this program reads {FORMAT_VERSION}")
    try:
        tensors = load_safetensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged: {_one_line(error)}") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in (*_FLOATS, *_INTEGERS):
            known = ", ".join(_type(dtype) for dtype in (*_FLOATS, *_INTEGERS))
            raise CheckpointError(f"{path}: tensor {name} is of {_type(tensor.dtype)}; those read are {known}")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name} holds NaN or infinity")
    return header, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def git_commit() -> str:
    """The commit of the working tree that this file is tracked in, or "unknown"."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True, timeout=10)
        shown = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return shown.stdout.strip()


def _describe(network: ActorCritic) -> dict[str, Any]:
    return {
        "network": network.config.model_dump(mode="json"),
        "observation": json.loads(network.spec.to_json()),
        "git_commit": git_commit(),
    }


def _read(path: str | Path, max_bytes: int) -> bytes:
    try:
        filesystem, name = fsspec.core.url_to_fs(str(path))
        if not filesystem.exists(name):
            raise CheckpointError(f"{path}: no such file; give the path or URL of a .safetensors checkpoint")
        if not filesystem.isfile(name):
            raise CheckpointError(f"{path}: not a file; give the path or URL of a .safetensors checkpoint")
        size = filesystem.size(name)
        if size is None or size > max_bytes:
            raise CheckpointError(f"{path}: {size} bytes, but at most {max_bytes} are read")
        with filesystem.open(name, "rb") as file:
            return bytes(file.read(max_bytes + 1))
    except CheckpointError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{path}: cannot be read: {_one_line(error)}") from None


def _header(path: str | Path, data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise CheckpointError(f"{path}: not a safetensors file, or cut short")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: a header of {length} bytes, but at most {MAX_HEADER_BYTES} are read")
    try:
        table = json.loads(data[8 : 8 + length])
        header = json.loads(table["__metadata__"][HEADER_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: no checkpoint of this program (the header is missing or malformed)") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object")
    return header


def _network_of(path: str | Path, header: Mapping[str, Any]) -> tuple[NetworkConfig, ObservationSpec]:
    try:
        config = NetworkConfig.model_validate(header.get("network"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["network", *(str(part) for part in first["loc"])])
        raise CheckpointError(f"{path}: {where} in the header: {first['msg']}") from None
    try:
        return config, ObservationSpec.from_json(json.dumps(header.get("observation")))
    except ValueError as error:
        raise CheckpointError(f"{path}: observation in the header: {_one_line(error)}") from None


def _load_network(
    path: str | Path, config: NetworkConfig, spec: ObservationSpec, tensors: Mapping[str, Tensor]
) -> ActorCritic:
    try:
        with torch.device("meta"):
            check_tensors(path, build_network(config, spec, pretrained=False).state_dict(), tensors)
    except CheckpointError:
        raise
    except (
        Exception
    ) as error:  # a header can hold whatever makes a constructor fail, as a camera with the name of a method
        raise CheckpointError(f"{path}: the header describes no network: {_one_line(error)}") from None
    with torch.random.fork_rng():
        network = build_network(config, spec, pretrained=False)
    network.load_state_dict(dict(tensors))
    return network


def check_tensors(path: str | Path, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless the tensors of a file are those expected, by name, shape and type."""
    for name, like in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{path}: tensor {name} is missing")
        if tensors[name].shape != like.shape:
            given = tuple(tensors[name].shape)
            raise CheckpointError(
                f"{path}: tensor {name} has shape {given}, but the header implies {tuple(like.shape)}; it is damaged, or of "
                "another version of this program: train anew"
            )
        if tensors[name].dtype != like.dtype:
            given_type, wanted = _type(tensors[name].dtype), _type(like.dtype)
            raise CheckpointError(
                f"{path}: tensor {name} is of {given_type}, but the header implies {wanted}; it is damaged"
            )
    for name in tensors:
        if name not in expected:
            raise CheckpointError(f"{path}: tensor {name} is not part of the network that the header describes")


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _difference(name: str, there: Any, here: Any) -> str | None:
    """The first field, depth first, in which two JSON values differ, as a sentence; None if they are equal."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*there, *(k for k in here if k not in there)]:
            found = _difference(f"{name}.{key}", there.get(key), here.get(key))
            if found is not None:
                return found
        return None
    return None if there == here else f"{name} is {there} in the file and {here} here"


def changed(before: Mapping[str, Any], now: Mapping[str, Any], may_change: Collection[str] = ()) -> str | None:
    """The first entry, depth first, of which a run's configuration had another value than it has now, in words; None if none had.

    may_change: entries at the top that may differ. One that was not there before, as in states of older versions, may be anything.
    """
    for name, value in now.items():
        if name in may_change or name not in before or before[name] == value:
            continue
        if isinstance(value, Mapping) and isinstance(before[name], Mapping):
            deeper = changed(before[name], value)
            if deeper is not None:
                return f"{name}.{deeper}"
            continue
        return f"{name} was {before[name]} in that run and is {value} now"
    return None


def _require_same(path: str | Path, difference: str | None) -> None:
    if difference is not None:
        raise CheckpointError(f"{path}: {difference}; resume with the config of that run, or start in a new folder")


def _state_of(path: str | Path, header: Mapping[str, Any]) -> dict[str, Any]:
    state = header.get("state")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: the header has no training state; this is not a file to resume from")
    return state


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that JSON can hold."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
