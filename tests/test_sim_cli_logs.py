"""`logs info` and `replay` print what files say as they say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mcap.writer import Writer
from synthetic_steps import header, synthetic_steps
from test_sim_logs_ros import SECOND_NS, cloud, points_of, tf, write_bag

from perception.geometry import se2_as_se3
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


def test_the_base_frame_of_a_recording_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the message advises where there is no base_link."""
    sweep = cloud(SECOND_NS, "lidar", points_of([(1, 2, 3, 1)]))
    frames = tf(1, ("chassis", "lidar", se2_as_se3(1.0, 0.0, 0.0, 2.0)))
    path = write_bag(tmp_path / "bag", [("/tf_static", 1, frames), ("/points", SECOND_NS, sweep)])
    monkeypatch.setattr("sim.replay_command._open_loop", lambda log, *_: {"frames": len(list(log.steps()))})
    with pytest.raises(SystemExit) as end:
        main(["replay", str(path), "--policy", "any"])
    assert end.value.code == 2
    assert "(--base-frame)" in capsys.readouterr().err
    printed = said(capsys, "replay", path, "--policy", "any", "--base-frame", "chassis", "--json")
    assert json.loads(printed)["frames"] == 1
