"""What the size of pictures is worth: perception learns anew with smaller, the usual and larger ones, beside the same LiDAR.

    python benchmarks/image_size.py --out benchmarks/results/DATE-image-size.json [--frames 12000] [--seeds 1] [--only SIZE ...]

Stage 1 as in `configs/perception.toml` with fewer frames, the rig `small` with the cameras of another; scored on frames of
validation towns. A size and seed that are in the file already are left out, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from perception.prediction_pictures import paint_predictions
from perception.train_perception import train_perception
from planning.network import DrivingNetwork
from planning.perceiver import Perceiver
from sim.evaluation.episode_run import write_atomically
from sim.evaluation.perception_scores import perception_scores
from sim.labelled_frames import DrivenFrames
from sim.logs.log import cpu_model, git_commit
from sim.sensors.rig import RigConfig, rig
from sim.threads import limit_torch
from sim.train_perception import TrainPerceptionConfig, spec_of, validation_frames

RECIPE = Path(__file__).parents[1] / "configs" / "perception.toml"
SIZES = {"96 x 48, 64 x 32": "smoke", "192 x 96, 128 x 64": "small", "384 x 192, 256 x 128": "full"}


class Unkept:
    """A run that is neither written nor scored on the way."""

    def restore(self, optimizer: torch.optim.Optimizer) -> int:
        return 0

    def save(self, optimizer: torch.optim.Optimizer, step: int, curves: Mapping[str, float]) -> None:
        pass

    def evaluate(self) -> dict[str, float]:
        return {}


def rig_of(size: str) -> RigConfig:
    """The rig `small` with pictures of that size."""
    return rig("small").model_copy(update={"cameras": rig(SIZES[size]).cameras})


def measure(size: str, frames: int, validation: int, seed: int) -> dict[str, float]:
    """Train with pictures of that size; scores by what is looked at, frames a second, seconds."""
    recipe = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    recipe["perception"]["total_frames"] = frames
    config = TrainPerceptionConfig.model_validate({**recipe, "seed": seed})
    torch.manual_seed(seed)
    own = rig_of(size)
    model = Perceiver(DrivingNetwork(config.network, spec_of(own)), config.heads)
    model.freeze_policy()
    source = DrivenFrames(config.frames, own, model.grid, seed, "train")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train_perception(
            model, source, config.perception, seed, Path(folder), Unkept(),
            lambda f, p: paint_predictions(f, p, model.grid),
        )  # fmt: skip
    seconds = time.perf_counter() - started
    scores = {"seconds": seconds, "frames_per_s": frames / seconds}
    rendered = validation_frames(own, model, validation)
    model.eval()
    for sensors in ("both", "camera"):
        scores |= {f"{sensors}/{name}": value for name, value in perception_scores(model, rendered, sensors).items()}
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SIZES), default=list(SIZES), metavar="SIZE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=12_000)
    parser.add_argument("--validation", type=int, default=512, help="frames of validation towns")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    limit_torch(2)
    report: dict[str, Any] = {}
    if arguments.out.exists():
        report = json.loads(arguments.out.read_text(encoding="utf-8"))
    results = report.setdefault("results", {})
    for seed in range(arguments.seeds):
        for size in arguments.only:
            key = f"{size}, {arguments.frames} frames, seed {seed}"
            if key in results:
                continue
            results[key] = measure(size, arguments.frames, arguments.validation, seed)
            report |= {"cpu": cpu_model(), "commit": git_commit()}
            write_atomically(arguments.out, (json.dumps(report, indent=1) + "\n").encode())
            print(key, results[key], flush=True)


if __name__ == "__main__":
    main()
