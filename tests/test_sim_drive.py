"""`automedon drive`: the command printed for a failed episode is that episode's, whatever the run was configured with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sim.drive
from sim.cli.app import app
from sim.drive import DriveConfig, DriveReport
from sim.episode import EpisodeResult


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
