"""What the size of pictures is worth: a network with cameras alone learns to tell signals, with smaller, usual and larger ones.

    python benchmarks/image_size.py --out benchmarks/results/DATE-image-size.json [--frames 32000] [--seeds 1] [--only SIZE ...]

The network and the drives of `configs/perception.toml`, the cameras of three rigs, no LiDAR; tasks are those that pictures alone
answer, and in half of the frames learned from a signal is ahead. Scored on frames of validation towns. A size and seed that are
in the file already are left out, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from compared import Unkept, measured

from perception.labels import UNKNOWN, LabelledFrames, joined, picked
from perception.prediction_pictures import paint_predictions
from perception.train_perception import train_perception
from planning.network import DrivingNetwork
from planning.perceiver import Perceiver
from planning.policy import SignalState
from sim.evaluation.perception_scores import perception_scores
from sim.labelled_frames import DrivenFrames
from sim.sensors.rig import rig
from sim.threads import limit_torch
from sim.train_perception import TrainPerceptionConfig, spec_of, validation_frames

RECIPE = Path(__file__).parents[1] / "configs" / "perception.toml"
SCORES = ("light_accuracy", "picture_iou", "picture_depth_error", "lane_offset_error_m", "lane_heading_error_rad")
TASKS = {
    **dict.fromkeys(("bev", "heat", "offset", "height", "size", "heading", "velocity", "affordances"), 0.0),
    "picture_signal": 5.0,
    "light": 1.0,
}
SIZES = {"96 x 48, 64 x 32": "smoke", "192 x 96, 128 x 64": "small", "384 x 192, 256 x 128": "full"}


class NearSignals:
    """Frames of a source, drawn so that in half of each batch a signal is ahead (perception.train_perception.FrameSource)."""

    def __init__(self, source: DrivenFrames) -> None:
        self.batch_size = source.batch_size
        self._source = source
        self._with: list[LabelledFrames] = []
        self._without: list[LabelledFrames] = []

    def begin(self, chapter: int) -> None:
        self._source.begin(chapter)
        self._with, self._without = [], []

    def next(self) -> LabelledFrames:
        half = self.batch_size // 2
        while len(self._with) < half or len(self._without) < self.batch_size - half:
            frames = self._source.next()
            for i, light in enumerate(frames.light.tolist()):
                kept = self._without if light in (SignalState.NONE, UNKNOWN) else self._with
                if len(kept) < self.batch_size:
                    kept.append(picked([frames], np.array([i])))
        batch = joined(self._with[:half] + self._without[: self.batch_size - half])
        self._with, self._without = self._with[half:], self._without[self.batch_size - half :]
        return batch


def measure(size: str, frames: int, validation: int, seed: int) -> dict[str, float]:
    """Train with pictures of that size; scores, frames a second of rendering and learning, seconds."""
    recipe = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    recipe["perception"] |= {"total_frames": frames, "weights": TASKS}
    config = TrainPerceptionConfig.model_validate({**recipe, "seed": seed})
    torch.manual_seed(seed)
    own = rig("small").model_copy(update={"cameras": rig(SIZES[size]).cameras, "lidar": None})
    model = Perceiver(DrivingNetwork(config.network, spec_of(own)), config.heads)
    model.freeze_policy()
    source = NearSignals(DrivenFrames(config.frames, own, model.grid, seed, "train"))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train_perception(
            model, source, config.perception, seed, Path(folder), Unkept(dict),
            lambda f, p: paint_predictions(f, p, model.grid),
        )  # fmt: skip
    seconds = time.perf_counter() - started
    scores = perception_scores(model, validation_frames(own, model, validation))
    return {"seconds": seconds, "frames_per_s": frames / seconds, **{name: scores[name] for name in SCORES}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SIZES), default=list(SIZES), metavar="SIZE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=32_000)
    parser.add_argument("--validation", type=int, default=2048, help="frames of validation towns")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    limit_torch(2)
    runs = {
        f"{size}, {arguments.frames} frames, seed {seed}": partial(
            measure, size, arguments.frames, arguments.validation, seed
        )
        for seed in range(arguments.seeds)
        for size in arguments.only
    }
    measured(arguments.out, runs)


if __name__ == "__main__":
    main()
