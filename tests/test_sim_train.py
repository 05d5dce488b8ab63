"""Training on several maps: what is refused, what a run begins with, and that the small expert gets better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import sim.train
from perception.preprocess import ObservationSpec
from planning.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, save_training_state
from planning.network import ActorCritic, build_network
from planning.ppo_state import STATE, PPOError
from planning.route_follower import RouteFollower
from sim.config import ConfigError, load_config
from sim.judge import Judge
from sim.roads.driving_map import DrivingMap, load_map
from sim.roads.map_xml import MapError
from sim.train import BEFORE, TrainConfig, judge_batches, observation_spec, train, training_env

CONFIG = "configs/smoke-expert.toml"
QUIET = Console(quiet=True)


def config(*overrides: str) -> TrainConfig:
    return load_config(TrainConfig, CONFIG, ["threads=1", *overrides])


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ('maps=["grid-small", "town:10003"]', MapError, "town:10003"),
        ("num_envs=31", ConfigError, "multiple of the 2 maps, got 31"),
        ('env.observation="both"', ConfigError, "privileged"),
        ('start_from="nowhere.safetensors"', ValueError, "nowhere"),
        ("ppo.seed=5", ConfigError, r"ppo\.seed is 5, but PPO takes the run's seed, 0; give seed=5 instead"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, override: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(config(override, "num_envs=2" if "num_envs" not in override else "seed=0"), tmp_path, False, QUIET)


def test_a_run_that_cannot_go_on_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config("num_envs=2")
    spec = ObservationSpec({}, 0, ego_size=0, route_points=0, privileged_size=4)
    network = build_network(before.network, spec)
    state = {"ppo": before.ppo.model_dump(), "num_envs": before.num_envs, "run_config": before.model_dump(mode="json")}
    save_training_state(tmp_path / STATE, network, torch.optim.Adam(network.parameters()), state)
    monkeypatch.setattr(sim.train, "training_env", None)
    for override, error, message in (
        ("ppo.gamma=0.5", PPOError, r"gamma was 0\.\d+ in that run and is 0\.5 now"),
        ("seed=1", PPOError, "seed was 0 in that run and is 1 now"),
        ("network.hidden=48", CheckpointError, r"network\.hidden is \d+ in the file and 48 here"),
        ('maps=["radial"]', PPOError, r"maps was \['grid-small', 'radial'\] in that run and is \['radial'\] now"),
        ("env.reward.end_penalty=300.0", PPOError, r"env\.reward\.end_penalty was 1\.0 in that run and is 300\.0 now"),
        ("env.world.agents=3", PPOError, r"env\.world\.agents was 12 in that run and is 3 now"),
        ("evaluation_episodes=3", PPOError, r"evaluation_episodes was 16 in that run and is 3 now"),
        ('start_from="a.safetensors"', PPOError, r"start_from was None in that run and is a\.safetensors now"),
    ):
        with pytest.raises(error, match=message):
            train(config("num_envs=2", override), tmp_path, True, QUIET)
    with pytest.raises(PPOError, match="already holds a training run"):
        train(before, tmp_path, False, QUIET)


@pytest.mark.parametrize("override", ["ppo.value_epochs=1", "ppo.value_only_updates=2"])
def test_passes_of_the_value_alone_are_refused_where_they_would_move_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.setattr(sim.train, "training_env", None)  # nothing is built before
    with pytest.raises(
        ConfigError, match=r"would move the features that policy and value share; set both to 0, or frozen"
    ):
        train(load_config(TrainConfig, "configs/smoke.toml", [override]), tmp_path, False, QUIET)


def test_a_run_is_judged_where_its_configuration_says(town: DrivingMap) -> None:
    """On `evaluation_maps`, else on `env.map`, whatever it is trained on."""
    for overrides, maps in (
        (('maps=["radial"]', "evaluation_maps=[]", 'env.map="grid-small:3"'), ["grid-small:3"]),
        (("maps=[]", "evaluation_maps=[]"), [town.name]),
        (('evaluation_maps=["radial:10000", "grid-small:10000"]',), ["radial:10000", "grid-small:10000"]),
    ):
        given = config("num_envs=2", "evaluation_episodes=1", *overrides)
        trained_on = load_map(given.maps[0]) if given.maps else town
        assert [batch.map.name for batch in judge_batches(given, trained_on)] == maps


def test_a_run_begins_with_the_weights_that_it_is_given(tmp_path: Path) -> None:
    short = config(
        "num_envs=2", "ppo.total_steps=128", "ppo.minibatch_size=64", "ppo.chunk_size=64", "evaluation_episodes=1"
    )
    spec = observation_spec(training_env(short).parts[0].batch)
    torch.manual_seed(9)
    given = build_network(short.network, spec)
    save_checkpoint(tmp_path / "given.safetensors", given, {}, {})
    slow = short.model_copy(
        update={
            "start_from": str(tmp_path / "given.safetensors"),
            "ppo": short.ppo.model_copy(update={"learning_rate": 1e-9}),
        }
    )
    train(slow, tmp_path / "run", False, QUIET)
    trained = load_checkpoint(tmp_path / "run" / "latest.safetensors").network
    for name, value in given.named_parameters():
        assert torch.allclose(value, trained.get_parameter(name), atol=1e-6), name
    wide = config("num_envs=2", "network.hidden=64").model_copy(update={"start_from": slow.start_from})
    with pytest.raises(ConfigError, match="another shape"):
        train(wide, tmp_path / "wide", False, QUIET)


def test_no_judgement_is_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    def judge(self: Judge, network: ActorCritic) -> dict[str, float]:
        judged.append(len(judged))
        return {"return": float(len(judged)), "route_completion": 0.5, "success_rate": 0.25, "score": 25.5}

    monkeypatch.setattr(Judge, "__call__", judge)
    short = ["num_envs=2", "ppo.minibatch_size=64", "ppo.chunk_size=64", "ppo.total_steps"]
    batch = 2 * config().ppo.rollout_steps
    first = train(config(*short[:-1], f"{short[-1]}={batch}"), tmp_path, False, QUIET)
    assert (first["return_before"], first["return_after"], len(judged)) == (1.0, 2.0, 2)  # as it begins, as it ends
    longer = config(*short[:-1], f"{short[-1]}={2 * batch}")
    resumed = train(longer, tmp_path, True, QUIET)
    assert (resumed["return_before"], resumed["return_after"], len(judged)) == (1.0, 3.0, 3)
    over = train(longer, tmp_path, True, QUIET)
    assert (over["return_before"], over["return_after"], len(judged)) == (1.0, 4.0, 4)
    for damaged in ("", "{}", '{"return": NaN, "route_completion": 0, "success_rate": 0}', "[1]"):
        (tmp_path / BEFORE).write_text(damaged, encoding="utf-8")
        assert train(longer, tmp_path, True, QUIET)["return_before"] == len(judged) - 1


def test_a_driver_told_what_is_observed_gets_through_as_one_who_knows_all() -> None:
    env = training_env(config("num_envs=16"))
    env.reset(seed=3)
    driver, ends, successes = RouteFollower(), 0, 0
    for _ in range(200):
        actions = np.concatenate([driver.act({}, part.batch.seen_situation()) for part in env.parts])
        *_, info = env.step(actions)
        if "final_info" in info:
            finished = info["_final_info"]
            ends += int(finished.sum())
            successes += int(info["final_info"]["is_success"][finished].sum())
    assert ends >= 8
    assert successes >= 0.8 * ends


@pytest.mark.slow
def test_the_small_expert_gets_better(tmp_path: Path) -> None:
    report = train(config(), tmp_path, False, QUIET)
    assert report["return_after"] > report["return_before"] + 10.0
    assert report["route_completion_after"] > report["route_completion_before"] + 0.2
    assert report["first_ratio_error"] < 1e-4
