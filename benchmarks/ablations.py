"""What each choice behind the encoders is worth: fusion, outlook and policy learn anew on the frames of a run, one thing changed.

    python benchmarks/ablations.py RUN --out benchmarks/results/DATE-ablations.json [--steps 800] [--seeds 1] [--only VARIANT ...]

RUN is a folder of stage 3b with `latest.safetensors`, `frames` and `validation`. Each variant begins anew, learns for equally many
steps on the same draws, and is held against the expert on validation towns: how far it is from him on his own drives, which says
less than how it drives. A variant and seed that are in the file already are left out, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compared import Unkept, measured

from perception.features import SensorTokens
from planning.checkpoint import load_checkpoint
from planning.imitation import ImitationConfig
from planning.kept_frames import FrameStore
from planning.network import SLOW_MPS, DrivingNetwork, NetworkConfig
from planning.train_kept import KeptTrainingConfig, kept_scores, train_on_kept
from sim.threads import limit_torch

LEARNS = ("fusion.", "outlook.", "policy.")
SCORES = (
    "throttle_error", "throttle_correlation", "steer_error", "missed_leader", "missed_stop_sign", "missed_walker", "missed_signal",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """What is changed: keys of `[network]`, of `[training]`, or what the network sees of a frame."""

    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    sees: Callable[[SensorTokens], SensorTokens] = lambda tokens: tokens


def without(*parts: str) -> Callable[[SensorTokens], SensorTokens]:
    """Frames in which the sensors with these words in their names are silent."""

    def edit(tokens: SensorTokens) -> SensorTokens:
        silent = [name for name in tokens.present if any(part in name for part in parts)]
        return replace(tokens, present={**tokens.present, **{n: torch.zeros_like(tokens.present[n]) for n in silent}})

    return edit


def plain_route(tokens: SensorTokens) -> SensorTokens:
    """A route without what maps and pictures hold along it, as fusion by attention has it."""
    return replace(tokens, values={**tokens.values, "route": tokens.values["route"][..., :2]})


def one_speed(tokens: SensorTokens) -> SensorTokens:
    """The speed on one scale only."""
    ego = tokens.values["ego"].clone()
    ego[..., -len(SLOW_MPS) :] = 0.0
    return replace(tokens, values={**tokens.values, "ego": ego})


NO_TASKS = {"weights": {"light": 0.0, "lane": 0.0, "affordances": 0.0}}
VARIANTS = {
    "as it is": Variant(),
    "fusion attention": Variant(network={"fusion": "attention", "surroundings": False}, sees=plain_route),
    "no surroundings": Variant(network={"surroundings": False}),
    "no outlook": Variant(network={"outlook": False}),
    "outlook untaught": Variant(training=NO_TASKS),
    "even draws": Variant(training={"draws": {"stop_line": 1.0, "walker": 1.0, "detour": 1.0}}),
    "one speed scale": Variant(sees=one_speed),
    "one layer": Variant(network={"layers": 1}),
    "half the width": Variant(network={"token_width": 64, "hidden": 128}),
    "no cameras": Variant(sees=without("camera")),
    "no LiDAR": Variant(sees=without("points")),
    "sensors never fail": Variant(training={"silent_camera": 0.0, "silent_lidar": 0.0}),
}


def measure(variant: Variant, run: Path, steps: int, seed: int) -> dict[str, float]:
    """Train one variant; its scores on validation frames, parameters that learned, and seconds."""
    path = run / "latest.safetensors"
    given = load_checkpoint(path).network if path.exists() else None
    shards = sorted((run / "frames").glob("shard-*"))
    if not isinstance(given, DrivingNetwork) or not shards:
        raise SystemExit(
            f"{run} is no run of stage 3b: latest.safetensors of a sensor network and frames/shard-* are needed"
        )
    torch.manual_seed(seed)
    config = NetworkConfig.model_validate({**given.config.model_dump(), **variant.network})
    network = DrivingNetwork(config, given.spec)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(LEARNS))
    original = network._look_on
    network._look_on = lambda tokens: original(variant.sees(tokens))  # type: ignore[method-assign]
    validation = FrameStore()
    for shard in sorted((run / "validation").glob("shard-*")):
        validation.add(shard)
    training = KeptTrainingConfig.model_validate({"rounds": 1, "steps": steps, "evaluate_every": 1, **variant.training})
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        keeper = Unkept(lambda: kept_scores(network, validation))
        imitation = ImitationConfig.model_validate({"brake_weight": 0.3})
        result = train_on_kept(network, lambda _: shards, training, imitation, seed, Path(folder), keeper)
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {**result.evaluation, "parameters": float(learned), "seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS)
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    limit_torch(2)
    runs = {
        f"{name}, {arguments.steps} steps, seed {seed}": partial(
            measure, VARIANTS[name], arguments.run, arguments.steps, seed
        )
        for seed in range(arguments.seeds)
        for name in arguments.only
    }
    results = measured(arguments.out, runs)
    print("| " + " | ".join(["variant", *SCORES]) + " |\n|" + "---|" * (len(SCORES) + 1))
    for key, scores in results.items():
        print("| " + " | ".join([key, *(f"{scores[n]:.3f}" if n in scores else "" for n in SCORES)]) + " |")


if __name__ == "__main__":
    main()
