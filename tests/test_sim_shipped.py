"""The network that comes with the package: small, in half precision, without anybody's paths, and the default driver."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from planning.checkpoint import HEADER_KEY, load_checkpoint
from planning.network_policy import NetworkPolicy
from planning.shipped import SHIPPED, SHIPPED_FILE, SHIPPED_RIG
from sim.config import ConfigError
from sim.drive import DriveConfig, drive, load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.sensors.rig import rig
from sim.threads import MOST_THREADS, limit_torch
from sim.train_perception import spec_of


def test_it_is_small_and_holds_half_precision() -> None:
    assert SHIPPED_FILE.stat().st_size <= 12_000_000
    with safe_open(SHIPPED_FILE, "pt") as file:  # type: ignore[no-untyped-call]
        large = {name for name in file.keys() if file.get_slice(name).get_shape()}  # noqa: SIM118 (not a dict)
        kinds = {file.get_slice(name).get_dtype() for name in large}
        header = json.loads(file.metadata()[HEADER_KEY])
    assert kinds <= {"F16", "I64"}
    assert not [value for value in strings_in(header) if value.startswith(("/", "~")) or ":\\" in value]


def strings_in(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for part in value.values() for text in strings_in(part)]
        case list():
            return [text for part in value for text in strings_in(part)]
    return []


def test_it_sees_what_its_rig_senses_and_nothing_privileged() -> None:
    checkpoint = load_checkpoint(SHIPPED_FILE)
    assert checkpoint.network.spec.same_sensors(spec_of(rig(SHIPPED_RIG)))  # type: ignore[arg-type]
    assert checkpoint.network.config.kind == "sensor"
    assert checkpoint.run_config["stage"] in ("distill", "fuse", "policy")
    policy = load_policy(SHIPPED)
    assert isinstance(policy, NetworkPolicy)
    assert policy.name == SHIPPED


def test_what_only_its_critic_sees_does_not_move_it() -> None:
    batch = DriveBatch(EnvConfig.of(observation="both"), 1)
    batch.reset(np.ones(1, np.bool_), np.zeros(1, np.uint64), np.zeros(1, np.int64))
    policy, other = load_policy(SHIPPED), np.random.default_rng(0).normal(size=batch.observation["privileged"].shape)
    driven = policy.act(batch.observation, None)
    batch.observation["privileged"][:] = other
    np.testing.assert_array_equal(policy.act(batch.observation, None), driven)
    sensors = {key: values for key, values in batch.observation.items() if key != "privileged"}
    np.testing.assert_array_equal(policy.act(sensors, None), driven)


@pytest.mark.parametrize(
    ("values", "driver"),
    [
        ({}, SHIPPED),
        ({"env": EnvConfig.of(rig="full")}, "expert"),
        ({"env": EnvConfig.of(observation="privileged")}, "expert"),
        ({"env": EnvConfig.of(rig="full"), "policy": "idle"}, "idle"),
        ({"policy": "expert"}, "expert"),
    ],
)
def test_it_drives_where_nobody_else_is_named_and_its_sensors_are_there(values: dict[str, object], driver: str) -> None:
    assert DriveConfig.model_validate(values).driver == driver


def test_a_name_that_is_nearly_its_own_is_suggested() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'shipped'"):
        load_policy("shiped")


def test_it_drives_along_its_route() -> None:
    """By day, with hardly anybody about, for a quarter of a minute: it gets on, and stays on the road."""
    env = EnvConfig.of(max_steps=150, world={"agents": 1, "route_min_m": 200.0})
    (episode,) = drive(DriveConfig(seed=10_003, env=env)).episodes
    assert not episode.infractions.keys() & {"collision_static", "off_road", "off_route", "wrong_way", "stuck"}
    assert np.isfinite(episode.total_reward)
    assert episode.mean_speed_mps > 2.0
    assert episode.route_completion > 0.05


@pytest.mark.skipif(MOST_THREADS < 2, reason="one core: there is one thread anyway")
@pytest.mark.parametrize("envs", [1, 2])
def test_it_computes_with_a_thread_for_each_environment(envs: int) -> None:
    before = torch.get_num_threads()
    try:
        limit_torch(3 - envs)
        drive(DriveConfig(episodes=2, envs=envs, env=EnvConfig.of(max_steps=1)))
        assert torch.get_num_threads() == envs
    finally:
        limit_torch(before)
