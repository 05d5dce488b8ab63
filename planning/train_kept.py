"""Training of all that lies behind the encoders, on frames kept as these see them: in rounds, each with more frames (DAgger).

A frame through the encoders costs several times what fusion, outlook and policy cost. The encoders stay as they are here, so each
frame goes through them once and is learned from many times, in any order, together with all frames before.

Knows networks, kept frames and losses; knows nothing about who drives. An unbroken run and one that was killed and resumed end
with the same weights: everything random is drawn anew from (seed, step), and a round's frames are there before its first step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fusion.attention import POINTS
from perception.heads import outlook_parts
from perception.labels import Affordance
from perception.losses import outlook_losses
from perception.train_perception import Keeper, TaskWeights, descend, evaluated, means, progress_bar, schedule
from planning.imitation import THROTTLE, ImitationConfig, imitation_loss, mode_of
from planning.kept_frames import FrameStore, KeptFrames
from planning.network import DrivingNetwork

NEAR = 0.4  # closeness from which on something counts as near: 15 m
AT_LINE = 0.8  # and as the last metres: 2.5 m
BLOCKED_NEAR = 0.25  # and as an obstacle to get past: 30 m
SWINGS = 0.2  # and as passing something: the path lies 0.4 m beside the route


class DrawWeights(BaseModel):
    """How many times as often as others frames are drawn that are rare, but that a drive fails by. The largest counts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    stop_line: float = Field(
        8.0,
        ge=1,
        le=1000,
        description="last metres before a stop sign at which the car has yet to stand: at 0.2 m/s they look like all those in "
        "which it sets off",
    )
    walker: float = Field(4.0, ge=1, le=1000, description="somebody on foot is in the way")
    detour: float = Field(4.0, ge=1, le=1000, description="something stands in the way, or is passed")


class KeptTrainingConfig(BaseModel):
    """Hyperparameters of the training."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    rounds: int = Field(8, ge=1, le=1000, description="each begins with more frames and ends with the state written")
    steps: int = Field(400, ge=1, description="of each round")
    batch_size: int = Field(256, ge=1, le=65_536, description="frames of a step, of all that are kept")
    learning_rate: float = Field(6e-4, gt=0, le=1, description="after the warm-up; falls to 0 along half a cosine")
    weight_decay: float = Field(0.02, ge=0, le=1, description="of AdamW")
    warmup_steps: int = Field(100, ge=0, description="steps in which the learning rate rises from 0")
    max_gradient_norm: float = Field(5.0, gt=0, description="gradients are shortened to this norm")
    silent_camera: float = Field(0.05, ge=0, le=1, description="share of frames without any picture")
    silent_lidar: float = Field(0.05, ge=0, le=1, description="share of frames without a sweep")
    draws: DrawWeights = DrawWeights.model_validate({})
    evaluate_every: int = Field(2, ge=1, description="rounds between evaluations")
    weights: TaskWeights = TaskWeights.model_validate({})


@dataclass(frozen=True)
class KeptTrainingResult:
    """frames: kept. first_losses, last_losses: means over the first and the last tenth of this process's steps (at least one)."""

    frames: int
    steps: int
    collect_seconds: float
    learn_seconds: float
    first_losses: dict[str, float]
    last_losses: dict[str, float]
    evaluation: dict[str, float]


Collect = Callable[[int], Sequence[Path]]
"""Number of a round to the shards that it adds, made with the network as it is unless they are there."""


def train_on_kept(
    network: DrivingNetwork,
    collect: Collect,
    config: KeptTrainingConfig,
    imitation: ImitationConfig,
    seed: int,
    out_dir: Path,
    keeper: Keeper,
    quiet: bool = False,
) -> KeptTrainingResult:
    """Train in place all parameters of the network that have gradients.

    Args:
        seed: of what is drawn. out_dir: gets `tensorboard/`. keeper: writes, restores, evaluates. quiet: no progress bar.

    Raises:
        PerceptionError: the loss is no longer finite. KeptFramesError: a shard is damaged.
    """
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    total, silent = config.rounds * config.steps, (config.silent_camera, config.silent_lidar)
    start, due = keeper.restore(optimizer)
    store = FrameStore()
    for number in range(start // config.steps):
        _add(store, collect(number))
    history: list[dict[str, float]] = []
    evaluation: dict[str, float] = {}
    collect_s = learn_s = 0.0
    with SummaryWriter(str(out_dir / "tensorboard"), purge_step=start) as writer, progress_bar(quiet) as bar:
        task = bar.add_task("training", total=total, completed=start, info="")
        if due is not None:
            evaluation = evaluated(network, optimizer, keeper, start, due, writer)
        for number in range(start // config.steps, config.rounds):
            began = time.perf_counter()
            network.eval()
            _add(store, collect(number))
            network.train()
            draws = np.cumsum(draw_weights(store.affordances(), config.draws))
            learned_from = time.perf_counter()
            for step in range(number * config.steps, (number + 1) * config.steps):
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * schedule(step, total, config.warmup_steps)
                rng = np.random.default_rng([seed, step])
                drawn = store.frames(draw(rng, draws, config.batch_size))
                store.expect(draw(np.random.default_rng([seed, step + 1]), draws, config.batch_size))
                batch = with_silence(drawn, network.spec.cameras, silent, rng)
                losses = _learn(network, optimizer, batch, config, imitation)
                history.append(losses)
                for name, value in losses.items():
                    writer.add_scalar(f"loss/{name}", value, step)
                bar.update(task, completed=step + 1, info=f"{len(store):,} frames   loss {losses['total']:.3f}")
            ended = time.perf_counter()
            collect_s, learn_s = collect_s + learned_from - began, learn_s + ended - learned_from
            done = (number + 1) * config.steps
            recent = {**means(history[-config.steps :]), "frames": float(len(store))}
            fresh: dict[str, float] = {}
            if done == total or (number + 1) % config.evaluate_every == 0:
                evaluation = fresh = evaluated(network, optimizer, keeper, done, recent, writer)
            else:
                keeper.save(optimizer, done, recent)
            if not (quiet or bar.console.is_terminal):
                words = "  ".join(f"{name} {value:.3f}" for name, value in {**recent, **fresh}.items())
                spent = f"collected {learned_from - began:.0f} s  learned {ended - learned_from:.0f} s"
                bar.console.print(
                    f"round {number + 1} of {config.rounds}  {spent}  {words}", highlight=False, soft_wrap=True
                )
    network.eval()
    tenth = max(1, len(history) // 10)
    return KeptTrainingResult(
        len(store), total, collect_s, learn_s, means(history[:tenth]), means(history[-tenth:]), evaluation
    )


def kept_scores(network: DrivingNetwork, store: FrameStore, batch: int = 512) -> dict[str, float]:
    """How a network drives and what it sees on kept frames: `throttle_error`, `steer_error` (means of the distance between its and
    the expert's modes), `throttle_correlation`, and `missed_*`, the share of frames with something near (15 m) whose closeness it
    says to be less than half of what it is."""
    drives, wanted, said, true = [], [], [], []
    with torch.inference_mode():
        for first in range(0, len(store), batch):
            frames = store.frames(np.arange(first, min(first + batch, len(store))))
            driven, outlook = network.act_on(frames.tokens)
            drives.append(driven.mode().numpy())
            wanted.append(mode_of(frames.expert.numpy()))
            if outlook is not None:
                said.append(outlook_parts(outlook)[2].numpy())
                true.append(frames.affordances.numpy())
    mine, expert = np.concatenate(drives), np.concatenate(wanted)
    error = np.abs(mine - expert).mean(0)
    scores = {"steer_error": float(error[0]), "throttle_error": float(error[THROTTLE])}
    with np.errstate(invalid="ignore"):
        scores["throttle_correlation"] = float(np.corrcoef(mine[:, THROTTLE], expert[:, THROTTLE])[0, 1])
    if said:
        closeness, told = np.concatenate(true), np.concatenate(said)
        for a in (Affordance.LEADER, Affordance.YIELD, Affordance.WALKER, Affordance.STOP_SIGN, Affordance.SIGNAL):
            near = closeness[:, a] > NEAR
            if near.any():
                missed = told[near, a] < 0.5 * closeness[near, a]
                scores[f"missed_{a.name.lower()}"] = float(missed.mean())
    return {name: value for name, value in scores.items() if np.isfinite(value)}


def _add(store: FrameStore, shards: Sequence[Path]) -> None:
    for shard in shards:
        store.add(shard)


def draw_weights(affordances: NDArray[np.float32], config: DrawWeights) -> NDArray[np.float64]:
    """(N,) how often a frame is drawn, from affordances (N, len(Affordance)): 1, and more where it is rare and matters."""
    a = Affordance
    weights = np.where(affordances[:, a.STOP_SIGN] > AT_LINE, config.stop_line, 1.0)
    weights = np.maximum(weights, np.where(affordances[:, a.WALKER] > NEAR, config.walker, 1.0))
    aside = (affordances[:, a.BLOCKED] > BLOCKED_NEAR) | (np.abs(affordances[:, a.SWING]) > SWINGS)
    return np.maximum(weights, np.where(aside, config.detour, 1.0))


def draw(rng: np.random.Generator, draws: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Numbers of `count` frames, each as often as its weight says, with repetition; draws (N,): running sum of the weights."""
    drawn = np.searchsorted(draws, rng.random(count) * draws[-1], side="right")
    return np.asarray(np.minimum(drawn, len(draws) - 1), np.intp)


def with_silence(
    frames: KeptFrames, cameras: Iterable[str], silent: tuple[float, float], rng: np.random.Generator
) -> KeptFrames:
    """Frames some of which have no picture, and some no sweep, never both; silent: the share of either."""
    chances = torch.from_numpy(rng.random((len(frames), 2)))
    pictures = chances[:, 0] >= silent[0]
    sweep = ~pictures | (chances[:, 1] >= silent[1])
    heard = {**dict.fromkeys(cameras, pictures), POINTS: sweep}
    present = {name: here & heard[name] if name in heard else here for name, here in frames.tokens.present.items()}
    return replace(frames, tokens=replace(frames.tokens, present=present))


def _learn(
    network: DrivingNetwork,
    optimizer: torch.optim.Optimizer,
    frames: KeptFrames,
    config: KeptTrainingConfig,
    imitation: ImitationConfig,
) -> dict[str, float]:
    driven, outlook = network.act_on(frames.tokens)
    policy, errors = imitation_loss(driven, frames.expert, imitation)
    losses: Mapping[str, Tensor] = {}
    total = imitation.weight * policy
    if outlook is not None:
        losses = outlook_losses(outlook_parts(outlook), frames.light, frames.lane, frames.affordances)
        total = total + sum(getattr(config.weights, name) * loss for name, loss in losses.items())
    return descend(network, optimizer, {**losses, "policy": policy, **errors}, total, config.max_gradient_norm)
