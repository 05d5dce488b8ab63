"""How a network came to be: curves from the TensorBoard files beside its checkpoint, kept with a run for its report.

Knows files; knows nothing about training loops or pages. TensorBoard and torch are loaded only where there is something to read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE, FOLDER = "training.json", "tensorboard"
# Curve to the names of what was logged: while training, and on the validation seeds; empty where there is no such thing.
CURVES: dict[str, tuple[str, ...]] = {
    "return": ("episode/return", "evaluation/return"),
    "success": ("episode/is_success", "evaluation/success_rate"),
    "score": ("", "evaluation/score"),
    "loss": ("loss/total", ""),
}
MOST_POINTS = 250
MOST_BYTES = 1 << 29
Points = list[list[float]]


def training_curves(policy: str) -> dict[str, Any] | None:
    """Curves of the training run whose folder holds a checkpoint; None for a policy of another kind, or without files to read.

    Returns: `curves`, name to `training` and `evaluation`, each a list of [step, value], steps as they were logged;
    `checkpoint_step`, at which the checkpoint was saved, None where it does not say.
    """
    checkpoint = Path(policy)
    folder = checkpoint.parent / FOLDER
    if not checkpoint.is_file() or not folder.is_dir():
        return None
    if sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > MOST_BYTES:
        return None
    logged = _scalars(folder)
    curves = {}
    for name, (training, evaluation) in CURVES.items():
        found = {"training": thinned(logged.get(training, [])), "evaluation": thinned(logged.get(evaluation, []))}
        if any(found.values()):
            curves[name] = found
    return {"checkpoint_step": _step_of(checkpoint), "curves": curves} if curves else None


def keep_training_curves(run: Path, policy: str) -> None:
    """Leave the curves in a run's folder, so that its report has them wherever the folder goes; nothing where there are none."""
    found = training_curves(policy)
    if found is not None:
        (run / FILE).write_text(json.dumps(found, allow_nan=False) + "\n", encoding="utf-8")


def read_training_curves(run: Path) -> dict[str, Any] | None:
    """What `keep_training_curves` left; None where there is nothing, or it is damaged."""
    try:
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("curves"), dict) else None


def thinned(points: Sequence[Sequence[float]], most: int = MOST_POINTS) -> Points:
    """(step, value) in order of steps, at most so many: means over neighbours. What is not finite is left out."""
    kept = sorted([float(step), float(value)] for step, value in points if math.isfinite(value))
    each = math.ceil(len(kept) / most) if kept else 1
    parts = [kept[first : first + each] for first in range(0, len(kept), each)]
    return [[sum(column) / len(part) for column in zip(*part, strict=True)] for part in parts]


def _scalars(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Everything that was logged as a number, by name; empty where TensorBoard is absent or cannot read it."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        return {}
    # Zero keeps all; pictures and the rest are not wanted.
    sizes = {"scalars": 0, "images": 1, "audio": 1, "histograms": 1, "compressedHistograms": 1, "tensors": 1}
    events = EventAccumulator(str(folder), size_guidance=sizes)
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def _step_of(checkpoint: Path) -> float | None:
    from planning.checkpoint import CheckpointError, load_checkpoint

    try:
        return load_checkpoint(checkpoint).metrics.get("env_steps")
    except CheckpointError:
        return None
