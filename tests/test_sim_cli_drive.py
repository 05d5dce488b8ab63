"""`drive` takes paths as they are, and says in one line where it cannot write."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.cli.app import main

QUICK = ["drive", "--policy", "idle", "--set", "env.observation=privileged", "--set", "env.max_steps=2"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_map_may_be_called_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no map, so that nothing drives; beyond 16 bits, JSON's escapes are none of TOML's."""
    path = tmp_path / "town \U0001f600 \u00e9.xodr"
    path.write_text("no map", encoding="utf-8")
    line = refused(capsys, "drive", "--map", path)
    assert path.name in line
    assert f'"{path}' not in line
    assert "no map named" not in line


@pytest.mark.parametrize(("option", "name"), [("--record", "runs"), ("--video", "runs/drive.mp4")])
def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    (tmp_path / "file").touch()
    line = refused(capsys, *QUICK, option, tmp_path / "file" / name)
    assert str(tmp_path / "file") in line
    assert "choose another folder" in line
