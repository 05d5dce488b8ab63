"""Stage 3b of `train`: fusion, outlook and policy imitate the expert on frames kept as frozen encoders see them.

Composes frames, network, expert, training loop, files and validation drives.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from perception.features import SensorTokens
from perception.points import BevGrid
from perception.precision import bfloat16_is_faster
from planning.checkpoint import load_checkpoint, save_checkpoint
from planning.kept_frames import FrameStore, encoders_digest, require_encoders, write_shard
from planning.network import DrivingNetwork
from planning.perceiver import Perceiver, load_perceiver
from planning.train_kept import KeptTrainingConfig, kept_scores, train_on_kept
from sim.chosen_frames import ChosenFrames, ChosenFramesConfig
from sim.config import ConfigError
from sim.sensors.rig import rig as rig_by_name
from sim.threads import limit_torch
from sim.train_distill import MAY_CHANGE, Drives, ImitatingConfig, expert_of
from sim.train_perception import RunKeeper, begin_run, report_of
from sim.workers import serve_parent

FRAMES, VALIDATION = "frames", "validation"
Split = Literal["train", "validation"]


class TrainFuseConfig(ImitatingConfig):
    """What `automedon train` runs where `stage = "fuse"`."""

    stage: Literal["fuse"] = "fuse"
    first_shards: int = Field(
        default=60,
        ge=1,
        le=9999,
        description="of frames.moments each, driven before the first round, by the expert alone unless start_from drives already",
    )
    start_from: str | None = Field(
        default=None,
        description="folder of a run, or a checkpoint, whose encoders see; all of it where only surroundings differ, if anything",
    )
    shards: int = Field(default=6, ge=0, le=9999, description="driven before each later round, by expert and student")
    validation_shards: int = Field(
        default=4, ge=0, le=1000, description="driven on validation towns by the expert, for curves"
    )
    workers: int = Field(
        default=1, ge=1, le=64, description="processes that drive, with one thread each; 1: this one, with all threads"
    )
    frames: ChosenFramesConfig = ChosenFramesConfig()
    training: KeptTrainingConfig = KeptTrainingConfig.model_validate({})


def fuse_stage(config: TrainFuseConfig, out_dir: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Train, and drive validation seeds with the network.

    Returns: figures of the run: losses at the start and at the end, seconds, scores, success, files.

    Raises:
        ConfigError: the parts of the configuration do not fit each other, or the folder holds a run already.
        MapError: a town kept for validation or tests. PerceptionError, KeptFramesError, CheckpointError: as loop and files say.
    """
    if config.network.fusion not in ("attention", "route"):
        raise ConfigError(f"this stage needs network.fusion 'attention' or 'route', got {config.network.fusion!r}")
    model = begin_run(config, out_dir, resume, (*MAY_CHANGE, "workers"))
    network = model.network
    drives_already = config.start_from is not None and _take_over(model, config.start_from)
    _freeze(model)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.print(f"{learning:,} parameters learn; {config.training.batch_size} frames a step")
    validation = FrameStore()
    for shard in _shards(config, network, "validation", out_dir / VALIDATION, range(config.validation_shards), 0.0):
        validation.add(shard)
    drives = Drives(config)

    def collect(number: int) -> Sequence[Path]:
        first = 0 if number == 0 else config.first_shards + (number - 1) * config.shards
        count = config.first_shards if number == 0 else config.shards
        share = config.frames.student_share if number > 0 or drives_already else 0.0
        return _shards(config, network, "train", out_dir / FRAMES, range(first, first + count), share)

    def evaluate() -> dict[str, float]:
        seen = kept_scores(network, validation) if len(validation) else {}
        return {**{f"validation_{name}": value for name, value in seen.items()}, **drives(network)}

    keeper = RunKeeper(config.model_dump(mode="json"), model, out_dir, evaluate)
    result = train_on_kept(
        network, collect, config.training, config.imitation, config.seed, out_dir, keeper, quiet=console.quiet
    )
    return {**report_of(result, out_dir), "parameters": sum(p.numel() for p in network.parameters())}


def _shards(
    config: TrainFuseConfig,
    network: DrivingNetwork,
    split: Split,
    folder: Path,
    numbers: Sequence[int],
    student_share: float,
) -> list[Path]:
    """The folders of these shards; those that are not there are driven.

    Raises KeptFramesError where one is there that other encoders have seen."""
    shards = {number: folder / f"shard-{number:04d}" for number in numbers}
    missing = [number for number, shard in shards.items() if not shard.exists()]
    encoders = encoders_digest(network)
    for number in shards.keys() - missing:
        require_encoders(shards[number], encoders)
    if config.workers == 1 or not missing:
        for number in missing:
            _drive(config, network, split, shards[number], number, student_share)
        return list(shards.values())
    bfloat16_is_faster()  # once for all processes
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        student = Path(temporary) / "student.safetensors"
        save_checkpoint(student, network, {}, {})
        with ProcessPoolExecutor(min(config.workers, len(missing)), context, _begin_worker, (config, student)) as pool:
            try:
                jobs = [pool.submit(_work, split, shards[number], number, student_share) for number in missing]
                for job in jobs:
                    job.result()
            except BaseException:  # an interrupt, or a user's mistake: what runs comes to its end and is kept
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return list(shards.values())


_worker: tuple[TrainFuseConfig, DrivingNetwork] | None = None  # of this worker process


def _begin_worker(config: TrainFuseConfig, student: Path) -> None:
    global _worker
    serve_parent()
    limit_torch(1)
    numba.set_num_threads(1)
    network = load_checkpoint(student).network
    assert isinstance(network, DrivingNetwork)
    _worker = config, network.eval()


def _work(split: Split, shard: Path, number: int, student_share: float) -> None:
    assert _worker is not None
    _drive(*_worker, split, shard, number, student_share)


def _drive(
    config: TrainFuseConfig, network: DrivingNetwork, split: Split, shard: Path, number: int, student_share: float
) -> None:
    """Drive one shard and write it."""
    frames, grid = config.frames, BevGrid.of_cells(network.config.bev_cells)
    if split == "validation":
        frames = frames.model_copy(update={"towns": config.evaluation_towns})

    def look(observation: Mapping[str, NDArray[np.generic]]) -> SensorTokens:
        keys = (key for key in network.spec.shapes() if key != "privileged")
        with torch.inference_mode():
            return network.tokens({key: torch.from_numpy(observation[key]) for key in keys})

    def act(tokens: SensorTokens) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network.act_on(tokens)[0].mode().numpy()  # type: ignore[no-any-return]

    source = ChosenFrames(frames, rig_by_name(config.rig), grid, config.seed, split, look, act, expert_of(config))
    write_shard(shard, list(source.kept(number, student_share)), encoders_digest(network))


def _freeze(model: Perceiver) -> None:
    """Fusion, outlook and policy learn; encoders, heads and value stay."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("network.fusion.", "network.outlook.", "network.policy.")))


def _take_over(model: Perceiver, path: str) -> bool:
    """Take over the network of another run, or its encoders alone where the rest has another shape; returns whether it was all.

    Surroundings that only this one looks up are learned from nothing.

    path: folder of a run, or a checkpoint, which comes without heads.
    Raises ConfigError where its encoders have another shape, CheckpointError where there is no run.
    """
    mine: DrivingNetwork = model.network
    if Path(path).is_file():
        network = load_checkpoint(path).network
    else:
        other, _ = load_perceiver(Path(path))
        network = other.network
        if mine.same_shape(network) and model.heads_config == other.heads_config:
            model.load_state_dict(other.state_dict())
            return True
    if isinstance(network, DrivingNetwork) and (mine.same_shape(network) or mine.adds_surroundings_to(network)):
        mine.take_over(network)
        return True
    try:
        for name in (part for part in ("camera", "points") if hasattr(mine, part)):
            getattr(mine, name).load_state_dict(getattr(network, name).state_dict())
    except (AttributeError, RuntimeError):
        raise ConfigError(
            f"start_from: the network in {path} has other encoders; give widths, blocks and cells of [network] as there"
        ) from None
    return False
