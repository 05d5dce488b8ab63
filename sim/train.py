"""The verb `train`: PPO on the driving environment, with evaluation and checkpoints.

Composes environment, network and training loop.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.console import Console

from perception.preprocess import ObservationSpec
from planning.network import ActorCritic, NetworkConfig, build_network, network_config
from planning.network_policy import NetworkPolicy
from planning.ppo import PPOConfig
from planning.ppo import train as train_ppo
from sim.config import ConfigError
from sim.env import DriveBatch, DriveVectorEnv, EnvConfig
from sim.episode import run_episodes
from sim.observation import PRIVILEGED_SIZE
from sim.roads.towns import check_training_map, seed_split

EVALUATION_SEED = 10_000  # the first validation seed; training seeds lie below


class TrainConfig(BaseModel):
    """What `automedon train` runs. `size` chooses the rig and the widths of the network together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["smoke", "small", "full"] = Field(
        default="small", description="sets env.rig and network.size together"
    )
    seed: int = Field(
        default=0, ge=0, lt=10_000, description="a training seed: 0 to 9999; validation and test are refused"
    )
    num_envs: int = Field(default=64, ge=1, le=4096)
    evaluation_episodes: int = Field(
        default=16, ge=1, le=1000, description="validation seeds driven at each evaluation"
    )
    threads: int = Field(default=2, ge=1, le=256, description="of torch")
    env: EnvConfig = EnvConfig()
    network: NetworkConfig = network_config("small")
    ppo: PPOConfig = PPOConfig.model_validate({})

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
    """
    if seed_split(config.seed) != "train":
        raise ConfigError(f"seed {config.seed} is not a training seed; allowed are 0 to 9999")
    check_training_map(config.env.map)
    if (config.network.kind == "privileged") != (config.env.observation == "privileged"):
        raise ConfigError(
            f"network.kind {config.network.kind!r} does not fit env.observation {config.env.observation!r}: a privileged "
            "network goes with observation 'privileged', a sensor network with 'sensors' or 'both'"
        )
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    started = time.perf_counter()
    env = DriveVectorEnv(config.num_envs, copy=False, **config.env.model_dump())
    network = build_network(config.network, observation_spec(env.batch))
    judge = _Judge(config, env)
    console.print(f"{sum(p.numel() for p in network.parameters()):,} parameters; {config.num_envs} environments")
    before = judge(network)
    console.print(f"untrained: mean return {before['return']:.2f}, route completion {before['route_completion']:.3f}")
    ppo = config.ppo.model_copy(update={"seed": config.seed})
    run_config = config.model_dump(mode="json")
    result = train_ppo(env, network, ppo, out_dir, resume=resume, evaluate=judge, run_config=run_config)
    after = judge(network)
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


class _Judge:
    """Drives the validation seeds without chance; uses the training environments' memory, not their episodes."""

    def __init__(self, config: TrainConfig, env: DriveVectorEnv) -> None:
        self._seeds = [EVALUATION_SEED + k for k in range(config.evaluation_episodes)]
        self._batch = DriveBatch(config.env, min(config.num_envs, config.evaluation_episodes), env.batch.map)

    def __call__(self, network: ActorCritic) -> dict[str, float]:
        results, _ = run_episodes(self._batch, NetworkPolicy(network), self._seeds)
        return {
            "return": float(np.mean([r.total_reward for r in results])),
            "route_completion": float(np.mean([r.route_completion for r in results])),
            "success_rate": float(np.mean([r.success for r in results])),
        }
