"""`logs info` and `replay` print what files say as they say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcap.writer import Writer
from synthetic_steps import header, synthetic_steps

from sim.cli.app import main
from sim.logs.writer import LogWriter
from sim.replay import Resimulation


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    """What a command prints, without the line breaks of its tables."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == code
    return capsys.readouterr().out


@pytest.mark.parametrize("topic", ["/a[/b]", "/left[bold]right", "/a:car:b"])
def test_topics_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str], topic: str) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        channel = writer.register_channel(topic, "json", writer.register_schema("[red]", "jsonschema", b"{}"))
        writer.add_message(channel, 1, b"{}", 1)
        writer.finish()
    printed = said(capsys, "logs", "info", path)
    assert topic in printed
    assert "[red]" in printed


def test_names_of_files_are_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut-off log in the folder `a[`: its path has a part that reads like the end of a tag."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    path = Path("a[") / "b].mcap"
    path.parent.mkdir()
    writer = LogWriter(path, header())
    for step in synthetic_steps(3):
        writer.on_step(step)
    writer.close()
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr("sim.replay_command._resimulate", lambda *_: Resimulation(True, 3, None))
    assert "a[/b].mcap is cut off" in said(capsys, "replay", path, "--resimulate")
