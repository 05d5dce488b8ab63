"""Proximal policy optimisation (Schulman et al. 2017) against any Gymnasium `VectorEnv`.

Knows networks, checkpoints and Gymnasium; knows nothing about the simulator.

An unbroken run and one that was killed and resumed end with the same weights, although no environment can be saved:
random numbers are drawn anew from (seed, update) at every update, and every `checkpoint_every` updates, right after the
state was written, the environments are reset with a seed drawn from (seed, update), in both runs alike. An episode cut
off there counts as truncated: its future is worth the value of its last state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, VectorEnv
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from planning.action import ACTION_SIZE
from planning.advantages import generalised_advantages
from planning.checkpoint import save_checkpoint
from planning.network import LATENT, ActorCritic, DrivingNetwork
from planning.ppo_state import STATE, PPOError, RunState, check_folder, restore_state, save_state
from planning.rollout import Rollout, Teacher, mean

LATEST, BEST = "latest.safetensors", "best.safetensors"


Demonstrated = Callable[[ActorCritic, int, torch.Generator], Tensor]
"""Mean divergence of a network's policy from what was demonstrated, on so many frames drawn anew."""


class PPOConfig(BaseModel):
    """Hyperparameters; names as in the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    total_steps: int = Field(1_000_000, ge=1, description="environment steps, all environments together")
    rollout_steps: int = Field(64, ge=1, le=65536, description="steps of every environment between updates")
    minibatch_size: int = Field(2048, ge=2, description="samples per gradient step; divides environments x rollout")
    chunk_size: int = Field(256, ge=1, description="samples per forward pass; bounds memory, divides minibatch_size")
    epochs: int = Field(3, ge=1, le=100, description="passes over each rollout")
    learning_rate: float = Field(2.5e-4, gt=0, le=1, description="at the start; falls linearly to 0")
    gamma: float = Field(0.99, ge=0, le=1, description="discount")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="trace decay of the advantage")
    clip: float = Field(0.2, gt=0, lt=1, description="how far the ratio of probabilities may leave 1")
    entropy_start: float = Field(0.01, ge=0, description="weight of the entropy bonus at the start")
    entropy_end: float = Field(0.001, ge=0, description="and at the end")
    sharpness: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="times the concentration with which the policy acts by chance; it drives by its modes later, which stay",
    )
    value_weight: float = Field(0.5, ge=0, description="weight of the value loss")
    max_gradient_norm: float = Field(0.5, gt=0, description="gradients are shortened to this norm")
    target_kl: float = Field(0.015, ge=0, description="an update stops beyond this divergence; 0 turns that off")
    teacher_weight: float = Field(
        0.0,
        ge=0,
        description="at the start, of the squared distance of mean actions from the teacher's; 0 asks no teacher",
    )
    teacher_until: float = Field(
        0.7, gt=0, le=10, description="share of the run after which that weight has fallen to 0; beyond 1 it never does"
    )
    value_epochs: int = Field(
        0,
        ge=0,
        le=100,
        description="further passes over each rollout in which the value alone learns; a sensor network has to be frozen",
    )
    value_only_updates: int = Field(
        0,
        ge=0,
        description="updates at the start in which only the value learns, for a policy that comes trained; likewise",
    )
    demonstration_weight: float = Field(
        0.0, ge=0, description="of the divergence from what was demonstrated, nats; 0 needs no demonstrations"
    )
    demonstration_batch: int = Field(512, ge=1, le=65_536, description="demonstrated frames beside each minibatch")
    reward_scale: float = Field(1.0, gt=0, description="factor on rewards; bring returns to about 1 to 10")
    checkpoint_every: int = Field(10, ge=1, description="updates between checkpoints (and resets of environments)")
    evaluate_every: int = Field(1, ge=1, description="checkpoints between evaluations")
    seed: int = Field(0, ge=0, lt=2**31, description="of everything that is random here")


@dataclass(frozen=True)
class TrainResult:
    """What a run came to. Returns are unscaled means over at most 100 finished episodes, NaN where there were none.

    first_return, last_return: over the first and the last of them.
    best_return: highest evaluation score, or return where the evaluation gives no score; None without an evaluation.
    steps_per_s: of this process, without evaluations. first_ratio_error: largest |ratio - 1| on the first minibatch of
        any update; what separates the network that acts from the one that learns.
    """

    env_steps: int
    updates: int
    episodes: int
    seconds: float
    steps_per_s: float
    first_return: float
    last_return: float
    best_return: float | None
    first_ratio_error: float
    checkpoint: Path
    best_checkpoint: Path | None


class Evaluate(Protocol):
    """Drives evaluation episodes and returns metrics, `return` among them. It may use the training environments.

    `score` decides which network is the best one, or `return` where there is no score.
    """

    def __call__(self, network: ActorCritic) -> Mapping[str, float]: ...


def train(
    env: VectorEnv,
    network: ActorCritic,
    config: PPOConfig,
    out_dir: Path,
    *,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    teacher: Teacher | None = None,
    demonstrated: Demonstrated | None = None,
    run_config: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Train the network in place.

    Args:
        env: autoreset SAME_STEP, actions Box [-1, 1] of (2,); a Box observation is the key `privileged`.
        network: freshly built (seed torch's global generator before building it).
        out_dir: gets `latest.safetensors`, `best.safetensors` (by evaluation), `resume.safetensors`, `tensorboard/`.
        resume: go on from `resume.safetensors` if there is one, else start.
        evaluate: called at checkpoints.
        teacher: another driver of the same environments, to stay near at first; asked while `teacher_weight` is above 0.
        demonstrated: what the policy goes on imitating, with `demonstration_weight`.
        run_config: resolved configuration of the run, stored in the checkpoints; compared where one is resumed.
        quiet: no progress bar (and no line at each checkpoint, which is what a file gets instead).

    Raises:
        PPOError: the environment does not fit, the folder holds a run already or one of another configuration, or the loss is no
            longer finite.
        CheckpointError: the run to resume from is damaged or had another network.
    """
    _require_fit(env, network, config)
    if config.teacher_weight > 0 and teacher is None:
        raise PPOError("ppo.teacher_weight is above 0, but this run has no teacher; set it to 0")
    if config.demonstration_weight > 0 and demonstrated is None:
        raise PPOError("ppo.demonstration_weight is above 0, but this run has no demonstrations; set it to 0")
    n, batch = env.num_envs, env.num_envs * config.rollout_steps
    num_updates = max(1, config.total_steps // batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
    settings = {"ppo": config.model_dump(), "num_envs": n, "run_config": dict(run_config or {})}
    check_folder(out_dir, network.config, settings, resume)
    done, best_return, record = restore_state(out_dir / STATE, network, optimizer)
    start, started, evaluation_s, ratio_error = done, time.perf_counter(), 0.0, 0.0
    buffer = Rollout(env, config.rollout_steps)
    network.train()
    purge_step = done * batch + 1 if done else None  # the last update's point lies at done * batch, and stays
    with SummaryWriter(str(out_dir / "tensorboard"), purge_step=purge_step) as writer, _progress_bar(quiet) as bar:
        task = bar.add_task("training", total=num_updates * batch, completed=done * batch, info="")
        for update in range(start, num_updates):
            generator = torch.Generator().manual_seed(_seed(config.seed, update, 0))
            remaining = 1.0 - update / num_updates
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * remaining
            if update == start or update % config.checkpoint_every == 0:
                buffer.reset(_seed(config.seed, update, 1))
            leash = config.teacher_weight * max(0.0, 1.0 - (1.0 - remaining) / config.teacher_until)
            buffer.collect(
                network, generator, config.reward_scale, record, teacher if leash > 0 else None, config.sharpness
            )
            acting = update >= config.value_only_updates
            shown = demonstrated if config.demonstration_weight > 0 else None
            curves = _learn(network, optimizer, buffer, config, remaining, generator, leash, acting, shown)
            network.update_statistics(buffer.tensors())

            done = update + 1
            ratio_error = max(ratio_error, curves["ppo/first_ratio_error"])
            rate = (done - start) * batch / (time.perf_counter() - started - evaluation_s)
            curves |= {**record.curves(), "speed/steps_per_s": rate}
            _write(writer, curves, done * batch)
            returns = f"return {mean(record.last_returns):.2f}" if record.episodes else "no episode is over yet"
            info = f"{rate:,.0f} steps/s   {returns}"
            bar.update(task, completed=done * batch, info=info)
            if done < num_updates and done % config.checkpoint_every:
                continue

            metrics = {**curves, "env_steps": float(done * batch)}
            if evaluate is not None and (
                done == num_updates or done % (config.checkpoint_every * config.evaluate_every) == 0
            ):
                before = time.perf_counter()
                evaluated = _evaluate(evaluate, network)
                evaluation_s += time.perf_counter() - before
                _write(writer, evaluated, done * batch)
                metrics |= evaluated
                criterion = evaluated.get("evaluation/score", evaluated["evaluation/return"])
                if best_return is None or criterion > best_return:
                    best_return = criterion
                    save_checkpoint(out_dir / BEST, network, run_config or {}, metrics)
            save_checkpoint(out_dir / LATEST, network, run_config or {}, metrics)
            save_state(out_dir / STATE, network, optimizer, RunState(done, best_return, record), settings)
            if not (quiet or bar.console.is_terminal):  # a log file gets lines instead of a bar
                bar.console.print(
                    f"{done * batch:,} of {num_updates * batch:,} steps   {info}", highlight=False, soft_wrap=True
                )
    network.eval()
    seconds = time.perf_counter() - started
    return TrainResult(
        env_steps=done * batch,
        updates=done,
        episodes=record.episodes,
        seconds=seconds,
        steps_per_s=(done - start) * batch / max(seconds - evaluation_s, 1e-9),
        first_return=mean(record.first_returns),
        last_return=mean(record.last_returns),
        best_return=best_return,
        first_ratio_error=ratio_error,
        checkpoint=out_dir / LATEST,
        best_checkpoint=out_dir / BEST if best_return is not None else None,
    )


def _learn(
    network: ActorCritic,
    optimizer: torch.optim.Optimizer,
    buffer: Rollout,
    config: PPOConfig,
    remaining: float,
    generator: torch.Generator,
    leash: float = 0.0,
    acting: bool = True,
    demonstrated: Demonstrated | None = None,
) -> dict[str, float]:
    """Several epochs of clipped policy gradients over one rollout; returns the curves of this update.

    leash: weight of the squared distance from the teacher's actions. acting: whether the policy learns, not only the value.
    demonstrated: what it goes on imitating meanwhile.

    A minibatch goes through the network in chunks whose gradients add up, so its size costs no memory.
    """
    advantages, targets = generalised_advantages(
        buffer.rewards, buffer.values, buffer.next_values, buffer.terminated, buffer.truncated,
        config.gamma, config.gae_lambda,
    )  # fmt: skip
    observations = buffer.tensors()
    actions = torch.from_numpy(buffer.actions.reshape(-1, ACTION_SIZE))
    taught = torch.from_numpy(buffer.teacher_actions.reshape(-1, ACTION_SIZE))
    old_log_probs, all_advantages, all_targets = (
        torch.from_numpy(a.reshape(-1)) for a in (buffer.log_probs, advantages, targets)
    )
    entropy_weight = config.entropy_end + (config.entropy_start - config.entropy_end) * remaining
    size, chunk = config.minibatch_size, min(config.chunk_size, config.minibatch_size)
    # policy loss, value loss, entropy, divergence, share of clipped ratios, distance from the teacher, divergence from what was
    # demonstrated, gradient norm
    sums = torch.zeros(8)
    minibatches, ratio_error, stopped = 0, 0.0, False
    for _ in range(config.epochs):
        for minibatch in torch.randperm(len(actions), generator=generator).view(-1, size):
            normalised = all_advantages[minibatch]
            normalised = (normalised - normalised.mean()) / (normalised.std() + 1e-8)
            optimizer.zero_grad(set_to_none=True)
            terms = torch.zeros(8)
            for chosen, advantage in zip(minibatch.view(-1, chunk), normalised.view(-1, chunk), strict=True):
                plain, value = network({key: o[chosen] for key, o in observations.items()})
                distribution = plain.sharpened(config.sharpness)
                log_ratio = distribution.log_prob(actions[chosen]) - old_log_probs[chosen]
                ratio = log_ratio.exp()
                clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
                policy_loss = -torch.min(advantage * ratio, advantage * clipped).sum() / size
                value_loss = 0.5 * (value - all_targets[chosen]).square().sum() / size
                entropy = distribution.entropy().sum() / size
                loss = config.value_weight * value_loss
                distance = torch.zeros(())
                if acting:
                    loss = loss + policy_loss - entropy_weight * entropy
                    if leash > 0:
                        # A teacher that is a policy says its mean as it is: sharpened, an equal one would be away from it.
                        distance = (plain.mean() - taught[chosen]).square().sum() / size
                        loss = loss + leash * distance
                loss.backward()
                with torch.no_grad():
                    divergence = (ratio - 1.0 - log_ratio).sum() / size  # Schulman, "Approximating KL divergence", k3
                    outside = ((ratio - 1.0).abs() > config.clip).sum() / size
                    terms[:6] += torch.stack([policy_loss, value_loss, entropy, divergence, outside, distance])
                    if minibatches == 0:
                        ratio_error = max(ratio_error, float((ratio - 1.0).abs().max()))
            if acting and demonstrated is not None:
                apart = demonstrated(network, config.demonstration_batch, generator)
                torch.autograd.backward(config.demonstration_weight * apart)
                terms[6] = apart.detach()
            if not torch.isfinite(terms).all():
                raise PPOError("the loss is no longer finite; lower ppo.learning_rate or check the rewards")
            stopped = config.target_kl > 0 and float(terms[3]) > config.target_kl
            if stopped:
                break
            terms[7] = nn.utils.clip_grad_norm_(network.parameters(), config.max_gradient_norm)
            optimizer.step()
            sums += terms
            minibatches += 1
        if stopped:
            break
    _learn_value(network, optimizer, observations, all_targets, config, generator)
    names = (
        "policy_loss", "value_loss", "entropy", "divergence", "clipped", "teacher_distance", "demonstrated", "gradient_norm",
    )  # fmt: skip
    curves = {f"ppo/{name}": float(s) for name, s in zip(names, sums / max(minibatches, 1), strict=True)}
    unexplained = np.var(targets - buffer.values) / max(float(np.var(targets)), 1e-12)
    return curves | {
        "ppo/explained_variance": float(1.0 - unexplained),
        "ppo/learning_rate": config.learning_rate * remaining,
        "ppo/minibatches": float(minibatches),
        "ppo/first_ratio_error": ratio_error,
    }


def _learn_value(
    network: ActorCritic,
    optimizer: torch.optim.Optimizer,
    observations: Mapping[str, Tensor],
    targets: Tensor,
    config: PPOConfig,
    generator: torch.Generator,
) -> None:
    """`value_epochs` passes over a rollout in which the value alone learns: the optimiser leaves alone what has no gradient."""
    size, chunk = config.minibatch_size, min(config.chunk_size, config.minibatch_size)
    for _ in range(config.value_epochs):
        for minibatch in torch.randperm(len(targets), generator=generator).view(-1, size):
            optimizer.zero_grad(set_to_none=True)
            for chosen in minibatch.view(-1, chunk):
                value = network({key: o[chosen] for key, o in observations.items()})[1]
                (0.5 * config.value_weight / size * (value - targets[chosen]).square().sum()).backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.max_gradient_norm)
            optimizer.step()


def _evaluate(evaluate: Evaluate, network: ActorCritic) -> dict[str, float]:
    network.eval()
    evaluated = {f"evaluation/{name}": float(value) for name, value in evaluate(network).items()}
    network.train()
    assert "evaluation/return" in evaluated, "an evaluation must give `return`"
    return evaluated


def _require_fit(env: VectorEnv, network: ActorCritic, config: PPOConfig) -> None:
    """Raise PPOError unless environment, network and batch sizes fit each other."""
    if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
        raise PPOError(f"the environments need autoreset SAME_STEP, got {env.metadata.get('autoreset_mode')}")
    actions = env.single_action_space
    if not (isinstance(actions, Box) and actions.shape == (ACTION_SIZE,) and (actions.low == -1).all()
            and (actions.high == 1).all()):  # fmt: skip
        raise PPOError(f"actions must be a Box from -1 to 1 of shape ({ACTION_SIZE},), got {actions}")
    space = env.single_observation_space
    offered = dict(space.spaces) if isinstance(space, Dict) else {"privileged": space}
    shapes = network.spec.shapes()
    if LATENT in offered and isinstance(network, DrivingNetwork):
        shapes = network.cached_shapes()
    for key, (shape, dtype) in shapes.items():
        if key not in offered or offered[key].shape != shape or offered[key].dtype != dtype:
            has = f"{offered[key].dtype} {offered[key].shape}" if key in offered else f"only {', '.join(offered)}"
            raise PPOError(f"the network needs {key} as {dtype} {shape}, but the environments give {has}")
    batch = env.num_envs * config.rollout_steps
    if batch % config.minibatch_size:
        raise PPOError(
            f"ppo.minibatch_size must divide environments x rollout_steps = {env.num_envs} x {config.rollout_steps} = "
            f"{batch}, got {config.minibatch_size}"
        )
    chunk = min(config.chunk_size, config.minibatch_size)
    if config.minibatch_size % chunk:
        raise PPOError(f"ppo.chunk_size must divide minibatch_size {config.minibatch_size}, got {chunk}")


def _seed(seed: int, update: int, purpose: int) -> int:
    """A seed for one purpose of one update, from 2^30 on: small seeds stay free for evaluation."""
    return 1 << 30 | int(np.random.SeedSequence([seed, update, purpose]).generate_state(1)[0]) >> 2


def _write(writer: SummaryWriter, curves: Mapping[str, float], step: int) -> None:
    for name, value in curves.items():
        writer.add_scalar(name, value, step)


def _progress_bar(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[info]}"),
        TimeRemainingColumn(), console=Console(stderr=True), disable=quiet,
    )  # fmt: skip
