"""Opening a log in Rerun: what is started, and what is said where that cannot work."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from sim import rerun_view
from sim.cli import logs
from sim.rerun_view import ViewerError, open_in_rerun, rerun_program


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a log.mcap"
    path.write_bytes(b"")
    return path


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":7")


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> Path:
    """A program in the viewer's place, which writes down its arguments and exits."""
    program, said = tmp_path / "rerun", tmp_path / "arguments"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{said}"\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setattr(rerun_view, "rerun_program", lambda: str(program))
    return said


def test_viewer_is_in_the_environment() -> None:
    assert Path(rerun_program()).is_file()


def test_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(ViewerError, match=r"no log at .*nothing\.mcap"):
        open_in_rerun(tmp_path / "nothing.mcap")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "drive.bag").write_bytes(b"")
    with pytest.raises(ViewerError, match=r"not an \.mcap file") as error:
        open_in_rerun(tmp_path / "drive.bag")
    names = {command.name or command.callback.__name__ for command in logs.app.registered_commands if command.callback}
    assert set(re.findall(r"automedon logs (\w+)", str(error.value))) <= names, "commands that there are"


def test_without_display_the_web_viewer_is_offered_to_this_machine_only(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ViewerError) as error:
        open_in_rerun(log)
    assert "--web-viewer --bind 127.0.0.1" in str(error.value)
    assert f"'{log}'" in str(error.value), "a path with a space is quoted for the shell"
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("display")
def test_viewer_gets_the_log_and_listens_on_this_machine_only(
    log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = stand_in(monkeypatch, tmp_path, 0)
    assert open_in_rerun(log) > 0
    arguments = said.read_text().splitlines()
    assert arguments[-1] == str(log)
    assert arguments[arguments.index("--bind") + 1] == "127.0.0.1"


@pytest.mark.usefixtures("display")
def test_viewer_that_stops_at_once_is_reported(log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, 3)
    with pytest.raises(ViewerError, match="stopped with code 3"):
        open_in_rerun(log)
