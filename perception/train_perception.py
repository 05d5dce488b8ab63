"""Training on labelled frames: many tasks at once. The frames of a chapter are rendered first and learned from in any order.

Frames that follow each other are nearly alike: learned from in that order, what a network knows of one chapter it forgets in the
next (docs/lab-notebook.md, 2026-11-26).

Knows heads, losses and augmentation; knows nothing about encoders, files of networks, where frames come from or what else is
learned from them than perception.

An unbroken run and one that was killed and resumed end with the same weights: everything random is drawn anew from (seed, step),
and the source begins a new chapter, drawn from its own seed and the chapter's number, each time the state has been written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from perception.augment import AugmentConfig, augment, mirror_partners
from perception.heads import Predictions
from perception.labels import LabelledFrames, picked
from perception.losses import task_losses
from perception.points import BevGrid
from perception.preprocess import ObservationSpec


class PerceptionError(ValueError):
    """A run that cannot be started or continued; the message is one line for people."""


class TaskWeights(BaseModel):
    """Weight of each task's loss in the sum; 0 turns a task off."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    bev: float = Field(2.0, ge=0)
    heat: float = Field(1.0, ge=0)
    offset: float = Field(0.5, ge=0)
    height: float = Field(0.2, ge=0)
    size: float = Field(0.5, ge=0)
    heading: float = Field(0.5, ge=0)
    velocity: float = Field(0.1, ge=0)
    picture_semantic: float = Field(1.0, ge=0)
    picture_signal: float = Field(5.0, ge=0)  # with 1 it is not learned at all: docs/lab-notebook.md, 2026-11-26
    picture_depth: float = Field(1.0, ge=0)
    light: float = Field(0.5, ge=0)
    lane: float = Field(0.5, ge=0)
    affordances: float = Field(1.0, ge=0)


class PerceptionConfig(BaseModel):
    """Hyperparameters of the training."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    total_frames: int = Field(80_000, ge=1, description="frames learned from, each counted as often as it is")
    repeats: int = Field(1, ge=1, le=100, description="how often each frame is learned from, augmented anew each time")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="after the warm-up; falls to 0 along half a cosine")
    weight_decay: float = Field(0.01, ge=0, le=1, description="of AdamW")
    warmup_steps: int = Field(100, ge=0, description="steps in which the learning rate rises from 0")
    max_gradient_norm: float = Field(10.0, gt=0, description="gradients are shortened to this norm")
    checkpoint_every: int = Field(
        100,
        ge=1,
        description="steps in a chapter: its frames are held in memory; then state is written, other towns come",
    )
    evaluate_every: int = Field(5, ge=1, description="chapters between evaluations")
    weights: TaskWeights = TaskWeights.model_validate({})
    augment: AugmentConfig = AugmentConfig.model_validate({})


class PerceivingModule(nn.Module):
    """A network with its training-only heads, observation to `Predictions`: what it looks at, and the grid of its maps."""

    spec: ObservationSpec
    grid: BevGrid


class FrameSource(Protocol):
    """Where labelled frames come from."""

    batch_size: int

    def begin(self, chapter: int) -> None:
        """Start anew, as the number of the chapter says."""

    def next(self) -> LabelledFrames:
        """The next batch_size frames, which the caller may change."""


class Keeper(Protocol):
    """What happens to a run between chapters."""

    def restore(self, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, float] | None]:
        """Bring network and optimiser to the last state that was written; returns its step, 0 where there is none, and its curves
        if its evaluation is due."""

    def save(self, optimizer: torch.optim.Optimizer, step: int, curves: Mapping[str, float], due: bool = False) -> None:
        """Write network and state. due: it has yet to be evaluated."""

    def evaluate(self) -> dict[str, float]:
        """Figures on frames that are not trained on."""


Paint = Callable[[LabelledFrames, Predictions], NDArray[np.uint8]]
Objective = Callable[[LabelledFrames], tuple[dict[str, Tensor], Tensor, Predictions]]
"""What is learned from frames: scalars by name (shown as curves), their weighted sum (descended), and what the heads say."""


@dataclass(frozen=True)
class PerceptionResult:
    """first_losses, last_losses: means of each task over the first and the last tenth of this process's steps (at least one).

    frames_per_s: rendering and learning together, without evaluations; render_share: of that time.
    """

    frames: int
    steps: int
    seconds: float
    frames_per_s: float
    render_share: float
    first_losses: dict[str, float]
    last_losses: dict[str, float]
    evaluation: dict[str, float]


def train_perception(
    model: PerceivingModule,
    source: FrameSource,
    config: PerceptionConfig,
    seed: int,
    out_dir: Path,
    keeper: Keeper,
    paint: Paint,
    quiet: bool = False,
    objective: Objective | None = None,
) -> PerceptionResult:
    """Train the model in place.

    Args:
        seed: of augmentation. out_dir: gets `tensorboard/`. keeper: writes, restores, evaluates. paint: a picture (H, W, 3) of
        frames and what is predicted for them. quiet: no progress bar. objective: what is learned, the tasks of perception if None.

    Raises:
        PerceptionError: frames cannot be mirrored, or the loss is no longer finite.
    """
    try:
        partners = mirror_partners(model.spec.cameras) if config.augment.flip else {}
    except ValueError as error:
        raise PerceptionError(str(error)) from None
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    total = max(1, config.total_frames // source.batch_size)
    learned = perception_objective(model, config.weights) if objective is None else objective
    start, due = keeper.restore(optimizer)
    history: list[dict[str, float]] = []
    clock = _Clock()
    evaluation: dict[str, float] = {}
    model.train()
    with SummaryWriter(str(out_dir / "tensorboard"), purge_step=start) as writer, progress_bar(quiet) as bar:
        task = bar.add_task("training", total=total, completed=start, info="")
        if due is not None:
            evaluation = evaluated(model, optimizer, keeper, start, due, writer)
        for step in range(start, total):
            clock.start()
            if step == start or step % config.checkpoint_every == 0:
                chapter = step // config.checkpoint_every
                steps = min(config.checkpoint_every, total - step)
                drawn = rendered_chapter(
                    source, chapter, steps, config.repeats, np.random.default_rng([seed, chapter, 1])
                )
            frames = next(drawn)
            augment(frames, config.augment, partners, np.random.default_rng([seed, step]))
            clock.rendered()
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, total, config.warmup_steps)
            losses, predictions = _learn(model, optimizer, frames, config, learned)
            clock.learned(len(frames))
            history.append(losses)
            for name, value in losses.items():
                writer.add_scalar(f"loss/{name}", value, step)
            done = step + 1
            bar.update(task, completed=done, info=f"{clock.rate:,.1f} frames/s   loss {losses['total']:.3f}")
            if done < total and done % config.checkpoint_every:
                continue
            writer.add_scalar("speed/frames_per_s", clock.rate, step)
            writer.add_image("predictions", paint(frames, predictions), step, dataformats="HWC")
            recent = means(history[-config.checkpoint_every :])
            curves = {**recent, "frames": float(done * source.batch_size)}
            if done == total or done // config.checkpoint_every % config.evaluate_every == 0:
                evaluation = evaluated(model, optimizer, keeper, done, curves, writer)
            else:
                keeper.save(optimizer, done, curves)
            if not (quiet or bar.console.is_terminal):
                words = "  ".join(f"{name} {value:.3f}" for name, value in recent.items())
                bar.console.print(
                    f"step {done} of {total}  {clock.rate:.1f} frames/s  {words}", highlight=False, soft_wrap=True
                )
    model.eval()
    tenth = max(1, len(history) // 10)
    return PerceptionResult(
        frames=total * source.batch_size,
        steps=total,
        seconds=clock.total,
        frames_per_s=clock.rate,
        render_share=clock.render_share,
        first_losses=means(history[:tenth]),
        last_losses=means(history[-tenth:]),
        evaluation=evaluation,
    )


def evaluated(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    keeper: Keeper,
    step: int,
    curves: Mapping[str, float],
    writer: SummaryWriter,
) -> dict[str, float]:
    """Evaluate what so many steps have made of the model, and save it with its curves and what the evaluation found.

    It is saved before, too, as one whose evaluation is due: whoever stops the run meanwhile loses nothing.
    """
    keeper.save(optimizer, step, curves, due=True)
    model.eval()
    evaluation = keeper.evaluate()
    model.train()
    for name, value in evaluation.items():
        writer.add_scalar(f"evaluation/{name}", value, step - 1)
    keeper.save(optimizer, step, {**curves, **evaluation})
    return evaluation


def rendered_chapter(
    source: FrameSource, chapter: int, steps: int, repeats: int, rng: np.random.Generator
) -> Iterator[LabelledFrames]:
    """Batches of a chapter in random order, as many as `steps`; all are rendered before the first is given."""
    source.begin(chapter)
    parts = [source.next() for _ in range(math.ceil(steps / repeats))]
    order = np.concatenate([rng.permutation(len(parts) * source.batch_size) for _ in range(repeats)])
    for step in range(steps):
        yield picked(parts, order[step * source.batch_size :][: source.batch_size])


def tensors_of(frames: LabelledFrames, spec: ObservationSpec) -> dict[str, Tensor]:
    """What a network sees of the frames, sharing memory."""
    return {key: torch.from_numpy(frames.observation[key]) for key in spec.shapes() if key != "privileged"}


def schedule(step: int, total: int, warmup: int) -> float:
    """Share of the learning rate: up along a line, then down along half a cosine."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def perception_objective(model: PerceivingModule, weights: TaskWeights) -> Objective:
    """All tasks that the frames have labels for."""

    def objective(frames: LabelledFrames) -> tuple[dict[str, Tensor], Tensor, Predictions]:
        predictions: Predictions = model(tensors_of(frames, model.spec))
        losses = task_losses(predictions, frames, model.grid)
        return losses, weighted_sum(losses, weights), predictions

    return objective


def weighted_sum(losses: Mapping[str, Tensor], weights: TaskWeights) -> Tensor:
    """The sum that is descended."""
    return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()


def _learn(
    model: PerceivingModule,
    optimizer: torch.optim.Optimizer,
    frames: LabelledFrames,
    config: PerceptionConfig,
    objective: Objective,
) -> tuple[dict[str, float], Predictions]:
    losses, total, predictions = objective(frames)
    return descend(model, optimizer, losses, total, config.max_gradient_norm), predictions


def descend(
    model: nn.Module, optimizer: torch.optim.Optimizer, losses: Mapping[str, Tensor], total: Tensor, most: float
) -> dict[str, float]:
    """One step down `total`, gradients no longer than `most`; the losses as numbers, `total` and `gradient_norm` with them.

    Raises PerceptionError, the model as it was, where the loss or its gradient is not finite."""
    if not bool(torch.isfinite(total)):
        raise PerceptionError("the loss is no longer finite; lower the learning_rate")
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), most)
    if not bool(torch.isfinite(norm)):
        raise PerceptionError("the gradient is no longer finite; lower the learning_rate")
    optimizer.step()
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    return {**values, "total": float(total.detach()), "gradient_norm": float(norm)}


class _Clock:
    """How long rendering and learning took."""

    def __init__(self) -> None:
        self.render_s = self.learn_s = 0.0
        self.frames = 0
        self._since = time.perf_counter()

    def start(self) -> None:
        self._since = time.perf_counter()

    def rendered(self) -> None:
        now = time.perf_counter()
        self.render_s, self._since = self.render_s + now - self._since, now

    def learned(self, frames: int) -> None:
        self.learn_s += time.perf_counter() - self._since
        self.frames += frames

    @property
    def total(self) -> float:
        return self.render_s + self.learn_s

    @property
    def rate(self) -> float:
        return self.frames / max(self.total, 1e-9)

    @property
    def render_share(self) -> float:
        return self.render_s / max(self.total, 1e-9)


def means(history: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each curve over the steps that have it."""
    names = dict.fromkeys(name for losses in history for name in losses)
    return {name: float(np.mean([losses[name] for losses in history if name in losses])) for name in names}


def progress_bar(quiet: bool) -> Progress:
    """Of a training, on standard error; `info` is a field for figures."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[info]}"),
        TimeRemainingColumn(), console=Console(stderr=True), disable=quiet,
    )  # fmt: skip
