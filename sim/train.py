"""The verb `train`: PPO on the driving environment, with evaluation and checkpoints.

Composes environment, network and training loop.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, model_validator
from rich.console import Console

from perception.preprocess import ObservationSpec
from planning.beta import BetaActions
from planning.checkpoint import load_checkpoint
from planning.demonstrations import Demonstrations, DemonstrationsConfig, open_shards
from planning.network import ActorCritic, DrivingNetwork, NetworkConfig, build_network, network_config
from planning.ppo import Demonstrated, PPOConfig
from planning.ppo import train as train_ppo
from planning.ppo_state import STATE, check_folder
from planning.rollout import Teacher
from sim.config import ConfigError, require_finite
from sim.drive import load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.dynamics import vehicle_of
from sim.feature_env import FeatureVectorEnv
from sim.judge import Judge
from sim.mixed_env import MixedVectorEnv, mixed_batch
from sim.observation import PRIVILEGED_SIZE
from sim.retrying_env import RetryConfig
from sim.roads.driving_map import DrivingMap
from sim.roads.towns import check_training_map, seed_split
from sim.scenarios.catalogue import ScenarioName
from sim.threads import limit_torch

BEFORE = "before.json"  # in the run's folder, how the network drove that it began with


class TrainConfig(BaseModel):
    """What `automedon train` runs. `size` chooses the rig and the widths of the network together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Literal["policy"] = "policy"
    size: Literal["smoke", "small", "full"] = Field(
        default="small", description="sets env.rig and network.size together"
    )
    seed: int = Field(
        default=0, ge=0, lt=10_000, description="a training seed: 0 to 9999; validation and test are refused"
    )
    num_envs: int = Field(default=64, ge=1, le=4096)
    maps: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        description="drive on all of these at once, equally many environments on each; none: env.map",
    )
    scenario_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="of the episodes on `maps` that are scenarios, of every family a map has room for",
    )
    hard_scenarios: tuple[ScenarioName, ...] = Field(
        default=(), description="families that come more often than others in training, as a driver fails in them"
    )
    hard_times: int = Field(default=3, ge=1, le=100, description="so many times as often")
    retries: RetryConfig | None = Field(
        default=None, description="a table: whoever fails in training goes back and tries again; none: never"
    )
    evaluation_episodes: int = Field(
        default=16, ge=1, le=1000, description="validation seeds driven at each evaluation, on each of its maps"
    )
    evaluation_maps: tuple[str, ...] = Field(
        default=(), max_length=64, description="where they are driven, with the same share of scenarios; none: env.map"
    )
    start_from: str | None = Field(
        default=None, description="checkpoint of a network of the same shape whose weights the run begins with"
    )
    frozen: bool = Field(
        default=False,
        description="encoders and fusion stay as `start_from` made them: policy and value learn, on features worked out once",
    )
    teacher: Literal["rules", "start"] = Field(
        default="rules",
        description="whom ppo.teacher_weight keeps near: the rule-based expert, or the policy of `start_from`",
    )
    demonstrations: DemonstrationsConfig | None = Field(
        default=None, description="kept frames on which ppo.demonstration_weight holds the policy near the expert"
    )
    threads: int = Field(default=2, ge=1, le=256, description="of torch")
    env: EnvConfig = EnvConfig()
    network: NetworkConfig = network_config("small")
    ppo: PPOConfig = PPOConfig.model_validate({})

    _check = model_validator(mode="after")(require_finite)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_size(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("size") in ("smoke", "small", "full"):
            size = values["size"]
            tables = {name: values.get(name) or {} for name in ("env", "network")}
            if all(isinstance(table, Mapping) for table in tables.values()):
                return {
                    **values,
                    "env": {"rig": size, **tables["env"]},
                    "network": {"size": size, **tables["network"]},
                }
        return values


def observation_spec(batch: DriveBatch) -> ObservationSpec:
    """What a network sees of these environments."""
    privileged = PRIVILEGED_SIZE if batch.config.observation != "sensors" else 0
    if batch.config.observation == "privileged":
        return ObservationSpec({}, 0, ego_size=0, route_points=0, privileged_size=privileged)
    cameras = {camera.name: camera.calibration() for camera in batch.rig.cameras}
    return ObservationSpec(cameras, batch.rig.max_points, privileged_size=privileged)


def train(config: TrainConfig, out_dir: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Train, and drive the validation seeds with the network before and after.

    Returns: figures of the run: returns, success and completion before and after, steps per second, files.

    Raises:
        ConfigError: the parts of the configuration do not fit each other. MapError: a town kept for validation or tests.
        KeptFramesError: demonstrations that are not there, are damaged, or do not fit the network.
    """
    _require_fit(config)
    ppo, run_config = config.ppo.model_copy(update={"seed": config.seed}), config.model_dump(mode="json")
    settings = {"ppo": ppo.model_dump(), "num_envs": config.num_envs, "run_config": run_config}
    check_folder(out_dir, config.network, settings, resume)
    out_dir.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told before anything is built
    shards = None
    if config.demonstrations is not None and config.ppo.demonstration_weight > 0:
        shards = open_shards(config.demonstrations)
    limit_torch(config.threads)
    torch.manual_seed(config.seed)
    started = time.perf_counter()
    mixed = training_env(config)
    batches = [part.batch for part in mixed.parts]
    network = build_network(config.network, observation_spec(batches[0]))
    if config.start_from is not None:
        _take_weights(network, config.start_from)
    env: VectorEnv = mixed
    demonstrated: Demonstrated | None = None
    if config.frozen:
        if not isinstance(network, DrivingNetwork):
            raise ConfigError("frozen = true needs network.kind 'sensor': a privileged network has no features")
        network.freeze_features()
        env = FeatureVectorEnv(mixed, network)
        if config.demonstrations is not None and shards is not None:
            demonstrated = Demonstrations.of(shards, config.demonstrations, network, config.seed).loss
    judge = Judge(judge_batches(config, batches[0].map), config.evaluation_episodes)
    console.print(f"{sum(p.numel() for p in network.parameters()):,} parameters; {config.num_envs} environments")
    before = _judged_before(judge, network, out_dir)
    console.print(f"before: mean return {before['return']:.2f}, route completion {before['route_completion']:.3f}")
    after: dict[str, float] = {}

    def evaluate(network: ActorCritic) -> dict[str, float]:
        after.update(judge(network))
        return dict(after)

    result = train_ppo(
        env, network, ppo, out_dir, resume=resume, evaluate=evaluate, teacher=_teacher(config, env, batches, network),
        demonstrated=demonstrated, run_config=run_config, quiet=console.quiet,
    )  # fmt: skip
    if not after:  # the run was over when it was resumed
        evaluate(network)
    env.close()
    report = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(result).items()}
    return {
        **report,
        "return_before": before["return"],
        "return_after": after["return"],
        "route_completion_before": before["route_completion"],
        "route_completion_after": after["route_completion"],
        "success_rate_before": before["success_rate"],
        "success_rate_after": after["success_rate"],
        "evaluation_episodes": config.evaluation_episodes,
        "total_seconds": time.perf_counter() - started,
        "out": str(out_dir),
    }


def _judged_before(judge: Judge, network: ActorCritic, out_dir: Path) -> dict[str, float]:
    """How the network drives that a run begins with; a run that goes on reads what was found when it began."""
    path = out_dir / BEFORE
    if (out_dir / STATE).exists() and path.is_file() and path.stat().st_size < 10_000:
        with suppress(ValueError):  # damaged: measured anew
            found = TypeAdapter(dict[str, FiniteFloat]).validate_json(path.read_bytes())
            if found.keys() >= {"return", "route_completion", "success_rate"}:
                return found
    before = judge(network)
    path.write_text(json.dumps(before), encoding="utf-8")
    return before


def _require_fit(config: TrainConfig) -> None:
    """Raises ConfigError where parts do not fit each other, MapError for a town kept for validation or tests."""
    network, ppo = config.network, config.ppo
    if seed_split(config.seed) != "train":
        raise ConfigError(f"seed {config.seed} is not a training seed; allowed are 0 to 9999")
    if "seed" in ppo.model_fields_set and ppo.seed != config.seed:
        raise ConfigError(
            f"ppo.seed is {ppo.seed}, but PPO takes the run's seed, {config.seed}; give seed={ppo.seed} instead"
        )
    for town in config.maps or (config.env.map,):
        check_training_map(town)
    if (network.kind == "privileged") != (config.env.observation == "privileged"):
        raise ConfigError(
            f"network.kind {network.kind!r} does not fit env.observation {config.env.observation!r}: a privileged "
            "network goes with observation 'privileged', a sensor network with 'sensors' or 'both'"
        )
    if config.start_from is None and (config.frozen or config.teacher == "start"):
        raise ConfigError("frozen = true and teacher = 'start' need start_from, the checkpoint of a trained network")
    if config.demonstrations is not None and not config.frozen:
        raise ConfigError("demonstrations are learned from as features; they need frozen = true")
    if (
        config.demonstrations is not None
        and ppo.demonstration_weight > 0
        and network.fusion not in ("attention", "route")
    ):
        raise ConfigError(
            f"demonstrations are kept as tokens, which fusion {network.fusion!r} does not have; give network.fusion 'attention' or "
            "'route', or ppo.demonstration_weight=0"
        )
    if network.kind == "sensor" and not config.frozen and (ppo.value_epochs or ppo.value_only_updates):
        raise ConfigError(
            f"ppo.value_epochs = {ppo.value_epochs} and ppo.value_only_updates = {ppo.value_only_updates} would move the features "
            "that policy and value share; set both to 0, or frozen = true"
        )


def _take_weights(network: ActorCritic, path: str) -> None:
    """Raises ConfigError where the checkpoint holds a network of another shape, CheckpointError where it is none."""
    other = load_checkpoint(path).network
    if isinstance(network, DrivingNetwork) and isinstance(other, DrivingNetwork):
        with suppress(ValueError):
            network.take_over(other)
            return
    elif network.same_shape(other):
        network.load_state_dict(other.state_dict())
        return
    raise ConfigError(
        f"start_from: the network in {path} has another shape or observation; give [network] as there, or leave it out"
    )


def _teacher(
    config: TrainConfig, env: VectorEnv, batches: Sequence[DriveBatch], network: ActorCritic
) -> Teacher | None:
    """Who drives the same environments beside the network that learns, None without a weight.

    Raises ConfigError where there cannot be such a one.
    """
    if config.ppo.teacher_weight == 0:
        return None
    if config.teacher == "start":
        if not isinstance(env, FeatureVectorEnv):
            raise ConfigError("teacher = 'start' needs frozen = true, so that both drive by the same features")
        return _policy_at_the_start(env, network)
    world = batches[0].config.world
    if batches[0].config.observation == "sensors":
        raise ConfigError("ppo.teacher_weight needs env.observation 'privileged' or 'both', got 'sensors'")
    driver = load_policy("expert", vehicle_of(world.vehicle, world.vehicle_model))
    return lambda: np.concatenate([driver.act({}, batch.seen_situation()) for batch in batches])


def _policy_at_the_start(env: FeatureVectorEnv, network: ActorCritic) -> Teacher:
    """The mean actions of the policy as it is now, whatever it learns later."""
    policy = copy.deepcopy(network.policy).requires_grad_(False)

    def act() -> NDArray[np.float32]:
        with torch.inference_mode():
            return BetaActions.from_logits(policy(torch.from_numpy(env.latents))).mean().numpy()  # type: ignore[no-any-return]

    return act


def training_env(config: TrainConfig) -> MixedVectorEnv:
    """The environments of a run: `num_envs` on `env.map`, or dealt out evenly over `maps`.

    Raises:
        ConfigError: they cannot be dealt out evenly.
    """
    if not config.maps:
        return MixedVectorEnv([DriveBatch(config.env, config.num_envs)], config.retries)
    if config.num_envs % len(config.maps):
        raise ConfigError(f"num_envs must be a multiple of the {len(config.maps)} maps, got {config.num_envs}")
    each = config.num_envs // len(config.maps)
    share, hard, times = config.scenario_share, config.hard_scenarios, config.hard_times
    return MixedVectorEnv(
        [mixed_batch(config.env, each, town, share, hard, times) for town in config.maps], config.retries
    )


def judge_batches(config: TrainConfig, driving_map: DrivingMap) -> list[DriveBatch]:
    """Where a run is judged. driving_map: the first one that is trained on, which is that of env.map unless `maps` are given."""
    count = config.evaluation_episodes
    if config.evaluation_maps:
        return [mixed_batch(config.env, count, town, config.scenario_share) for town in config.evaluation_maps]
    return [DriveBatch(config.env, min(config.num_envs, count), None if config.maps else driving_map)]
