"""Re-simulation of logs that are damaged, or that ask for what they may not."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from planning.action import Action
from sim.drive_batch import DriveBatch, EnvConfig
from sim.logs.log import LogError, LogHeader
from sim.logs.writer import LogWriter
from sim.replay_command import replay_logs
from sim.roads.driving_map import DrivingMap

CONFIG = EnvConfig.of(observation="privileged")


def log_of(path: Path, town: DrivingMap, kept: set[int], config: str = CONFIG.model_dump_json()) -> Path:
    """An episode of 8 ticks, of which the log holds some."""
    batch = DriveBatch(CONFIG, 1, town)
    batch.reset(np.ones(1, np.bool_), np.array([5], np.uint64), np.zeros(1, np.int64))
    writer = LogWriter(path, LogHeader(config, 5, 0, "p", "grid-small"), net_xml=town.net_xml)
    for tick in range(8):
        action = None if tick == 7 else Action(0.1 * (tick % 3), 0.5)
        if tick in kept:
            writer.on_step(batch.snapshot(0, action))
        if action is not None:
            batch.step(action.as_vector()[None])
    writer.close()
    return path


@pytest.mark.parametrize(
    ("kept", "expected", "words"),
    [
        (set(range(8)), (True, 8, None), "equal: 8 steps"),
        ({0, 1, 2, 5, 6, 7}, (False, 3, 5), "the log lost the steps before tick 5; the 3 steps before the gap are the same"),
        ({1, 2}, (False, 0, 1), "the log lost the steps before tick 1; the 0 steps"),
        (set(), (False, 0, None), "nothing compared: the log holds no step that can be read"),
    ],
)  # fmt: skip
def test_resimulation_of_what_is_left_of_a_log(
    town: DrivingMap, tmp_path: Path, kept: set[int], expected: tuple[bool, int, int | None], words: str
) -> None:
    """Lost steps are neither equal nor the simulator's fault. The path has a part that reads like the end of a tag."""
    (tmp_path / "a[").mkdir()
    path = log_of(tmp_path / "a[" / "b].mcap", town, kept)
    console = Console(width=200, record=True, file=StringIO(), markup=False)
    (report,) = replay_logs([path], None, True, None, console)
    found = report["resimulation"]
    assert (found["equal"], found["steps"], found["after_gap"]) == expected
    assert found["first_difference"] is None
    assert words in console.export_text()


def test_no_file_that_a_log_names_is_opened(town: DrivingMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A readable mesh and one that is none: the same single line, and nobody touches either."""
    triangle = tmp_path / "triangle.off"
    triangle.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    monkeypatch.setattr("sim.replay_command.DriveBatch", lambda *_: pytest.fail("an environment was built"))
    for number, named in enumerate((triangle, Path("/etc/hostname"))):
        config = EnvConfig.of(rig="smoke", meshes=({"path": named},)).model_dump_json()
        path = log_of(tmp_path / f"{number}.mcap", town, {0}, config)
        with pytest.raises(LogError, match="names mesh files") as caught:
            replay_logs([path], None, True, None, Console(quiet=True))
        assert str(named) in str(caught.value)
        assert "\n" not in str(caught.value)
