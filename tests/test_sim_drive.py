"""`automedon drive`: the command printed for a failed episode, and which rig a network drives with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sim.drive
from planning.checkpoint import save_checkpoint
from planning.network import build_network, network_config
from sim.cli.app import app
from sim.config import ConfigError
from sim.drive import DriveConfig, DriveReport, with_rig_of_network
from sim.episode import EpisodeResult
from sim.sensors.rig import rig
from sim.train_perception import spec_of


@pytest.mark.parametrize(
    ("file", "options"),
    [
        (None, ["--episodes", "3", "--rig", "smoke", "--weather", "rain-noon"]),
        (None, ["--set", "episodes=3", "--set", 'env.rig="smoke"', "--set", "env.world.agents=3"]),
        (None, ["--set", "env.scenario=merge", "--episodes", "2", "--set", 'without=["lidar"]']),
        ('env.weather = "rain-noon"\nenv.rig = "smoke"', ["--weather", "clear", "--rig", "small", "--episodes", "2"]),
        ('episodes = 4\nenv.map = "town"', ["--scenario", "merge", "--seed", "5", "--policy", "idle"]),
        ('env.rig.cameras = [{ name = "front", width_px = 32, height_px = 16, horizontal_fov_deg = 60.0 }]', []),
    ],
)
def test_the_printed_command_drives_that_episode_alone(
    file: str | None, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last episode of a run fails; what is printed of it is read as the command line reads it."""
    seen: list[DriveConfig] = []

    def fail(config: DriveConfig, *_: Any) -> DriveReport:
        seen.append(config)
        return DriveReport([EpisodeResult(config.env.map, config.seed + config.episodes - 1)], 1.0, [None], [None])

    monkeypatch.setattr(sim.drive, "drive", fail)
    words = ["drive", *options]
    if file is not None:
        path = tmp_path / "my drive.toml"
        path.write_text(file)
        words.append(str(path))
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    (printed,) = re.findall(r"reproduce: automedon (.*)", first.output)
    again = CliRunner().invoke(app, shlex.split(printed))
    assert again.exit_code == 0, again.output
    run, alone = seen
    assert (alone.seed, alone.episodes, alone.driver) == (run.seed + run.episodes - 1, 1, run.driver)
    assert alone.env == run.env
    assert alone.without == run.without


def checkpoint_of(path: Path, run_config: dict[str, Any]) -> str:
    """An untrained network for the rig `smoke`."""
    save_checkpoint(path, build_network(network_config("smoke"), spec_of(rig("smoke"))), run_config, {})
    return str(path)


@pytest.mark.parametrize(
    "run", [{"env": {"rig": "smoke"}}, {"rig": "smoke"}, {"env": {"rig": rig("smoke").model_dump(mode="json")}}]
)
def test_a_checkpoint_drives_with_the_rig_it_was_trained_with(run: dict[str, Any], tmp_path: Path) -> None:
    policy = checkpoint_of(tmp_path / "best.safetensors", run)
    done = CliRunner().invoke(app, ["drive", "--policy", policy, "--set", "env.max_steps=2", "--json"])
    assert done.exit_code == 0, done.output + str(done.exception)
    assert '"steps": 2' in done.stdout


def test_a_rig_that_is_given_counts_more_than_the_one_of_the_checkpoint(tmp_path: Path) -> None:
    policy = checkpoint_of(tmp_path / "best.safetensors", {"env": {"rig": "smoke"}})
    assert (
        with_rig_of_network(DriveConfig.model_validate({"policy": policy, "env": {"rig": "small"}})).env.rig == "small"
    )
    unknown = checkpoint_of(tmp_path / "other.safetensors", {"rig": "hexagon"})
    with pytest.raises(ConfigError, match=r"hexagon.*give --rig"):
        with_rig_of_network(DriveConfig(policy=unknown))
    silent = checkpoint_of(tmp_path / "silent.safetensors", {})
    assert with_rig_of_network(DriveConfig(policy=silent)) == DriveConfig(policy=silent)
