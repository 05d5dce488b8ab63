"""The command line as a user meets it: episodes, logs, replays, and one clear line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from planning.checkpoint import save_checkpoint
from planning.network import build_network, network_config
from sim.cli import maps
from sim.cli.app import main
from sim.drive_batch import DriveBatch, EnvConfig
from sim.train import observation_spec

SHORT = ["--set", "env.rig=smoke", "--set", "env.max_steps=25"]


def automedon(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own; the exit code must be `code`."""
    command = [sys.executable, "-m", "sim", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def last_json(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    value = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of the smoke size for the rig `smoke`."""
    torch.manual_seed(0)
    batch = DriveBatch(EnvConfig.of(rig="smoke"), 1)
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"
    save_checkpoint(path, build_network(network_config("smoke"), observation_spec(batch)), {}, {})
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A log and a video of a short episode, and what `drive --json` said of it."""
    folder = tmp_path_factory.mktemp("runs")
    done = automedon("drive", *SHORT, "--seed", "4", "--record", folder, "--video", folder / "drive.mp4", "--json")
    return folder, last_json(done)


def test_drive_reports_what_others_rely_on(recorded: tuple[Path, dict[str, object]]) -> None:
    folder, report = recorded
    assert report["steps_per_s"] > 0  # type: ignore[operator]
    (episode,) = report["episodes"]  # type: ignore[misc]
    assert set(episode) >= {"map", "seed", "success", "route_completion", "infractions", "steps", "log", "video"}
    assert (episode["map"], episode["seed"], episode["steps"]) == ("grid-small", 4, 25)
    assert 0 < episode["route_completion"] < 1
    assert episode["infractions"] == {"timeout": 1}
    assert not episode["success"]
    assert Path(episode["log"]).parent == folder
    assert Path(episode["log"]).stat().st_size > 10_000
    assert Path(episode["video"]).read_bytes()[4:8] == b"ftyp"


def test_resimulation_finds_every_byte_equal(recorded: tuple[Path, dict[str, object]]) -> None:
    log = recorded[1]["episodes"][0]["log"]  # type: ignore[index]
    resimulation = last_json(automedon("replay", log, "--resimulate", "--json"))["resimulation"]
    assert resimulation == {"equal": True, "steps": 26, "first_difference": None, "after_gap": None}


def test_resimulation_names_the_first_difference_after_one_changed_byte(
    recorded: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    log = Path(recorded[1]["episodes"][0]["log"])  # type: ignore[index]
    data = log.read_bytes()
    seed = b"\x04\x00\x00\x00seed\x01\x00\x00\x004"
    assert data.count(seed) == 1
    changed = tmp_path / "changed.mcap"
    changed.write_bytes(data.replace(seed, seed[:-1] + b"5"))
    resimulation = last_json(automedon("replay", changed, "--resimulate", "--json", code=1))["resimulation"]
    assert resimulation["equal"] is False  # type: ignore[index]
    assert resimulation["first_difference"]["tick"] == 0  # type: ignore[index]
    assert resimulation["first_difference"]["topic"]  # type: ignore[index]
    assert resimulation["first_difference"]["field"]  # type: ignore[index]


def test_a_checkpoint_drives_and_replays_our_own_log(
    checkpoint: Path, recorded: tuple[Path, dict[str, object]]
) -> None:
    driven = last_json(automedon("drive", *SHORT, "--policy", checkpoint, "--json"))
    assert driven["episodes"][0]["steps"] == 25  # type: ignore[index]
    log = recorded[1]["episodes"][0]["log"]  # type: ignore[index]
    replayed = last_json(automedon("replay", log, "--policy", checkpoint, "--json"))
    assert replayed["frames"] == 26


def test_who_drove_a_log_does_the_same_again_when_it_is_replayed(checkpoint: Path, tmp_path: Path) -> None:
    """Down to the last bit: the log keeps what was seen, and torch sums in the same order."""
    driven = last_json(automedon("drive", *SHORT, "--policy", checkpoint, "--record", tmp_path, "--json"))
    log = driven["episodes"][0]["log"]  # type: ignore[index]
    replayed = last_json(automedon("replay", log, "--policy", checkpoint, "--json"))
    assert replayed["compared_frames"] == 25
    assert set(replayed["action_error"].values()) == {0.0}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "frames"), [("ros2_mcap", 12), ("ros2_db3", 3), ("ros1.bag", 3)])
def test_real_frames_go_through_the_whole_stack(
    checkpoint: Path, shared_data: Path, tmp_path: Path, name: str, frames: int
) -> None:
    video = tmp_path / "out.mp4"
    log = shared_data / "pandaset" / name
    report = last_json(automedon("replay", log, "--policy", checkpoint, "--video", video, "--json"))
    assert report["frames"] == frames
    ages = report["sensor_age_ms"]
    assert any(45 <= age["mean"] <= 55 for age in ages.values()), ages  # type: ignore[attr-defined]
    actions = np.array(report["actions"])
    assert actions.shape == (frames, 2)
    assert np.isfinite(actions).all()
    assert np.abs(actions).max() <= 1
    assert video.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["drive", "--map", "grid-smal"], ["grid-smal", "grid-small"]),
        (["drive", "--map", "nowhere.xodr"], ["nowhere.xodr"]),
        (["drive", "--policy", "expart"], ["expart", "expert"]),
        (["drive", "--policy", "absent.safetensors"], ["absent.safetensors"]),
        (["drive", "--set", "env.max_step=3"], ["max_step", "max_steps"]),
        (["drive", "--set", "env.max_steps=none"], ["max_steps", "none"]),
        (["drive", "absent.toml"], ["absent.toml"]),
        (["drive", "--episodes", "0"], ["episodes"]),
        (["drive", "--video", "film.avi"], ["film.avi", ".mp4"]),
        (["drive", "--rig", "smal"], ["automedon: env.rig: input should be", "'small'", "got 'smal'"]),
        (["maps", "import", "docs"], ["docs: a folder"]),
        (["drive", "--weather", "sunny"], ["weather", "clear-noon"]),
        (["bench", "sensors", "--plot", "nowhere/x.png"], ["nowhere/x.png", "folder"]),
        (["drove"], ["drove", "drive"]),
        (["train", "absent.toml"], ["absent.toml"]),
        (["train", "configs/smoke.toml", "seed=20000"], ["seed"]),
        (["train", "configs/smoke.toml", "ppo.clipp=0.1"], ["clipp"]),
        (["replay", "absent.mcap", "--policy", "expert"], ["absent.mcap"]),
        (["replay", "README.md", "--resimulate"], ["README.md"]),
        (["replay", "absent.mcap"], ["--policy"]),
        (["maps", "generate", "village"], ["village", "grid-small"]),
        (["maps", "import", "README.md"], ["README.md", ".xodr"]),
        (["maps", "show", "README.md"], ["README.md"]),
        (["logs", "info", "absent.bag"], ["absent.bag"]),
        (["view", "absent.mcap"], ["absent.mcap"]),
        (["maps", "show", "grid-small", "--out", "town.txt"], ["town.txt", ".png"]),
        (["maps"], ["no command", "maps --help"]),
        (["drive", "--seed", "abc"], ["'--seed'", "got 'abc'. See:"]),
        (["evaluate", "smoke", "--without", "radar"], ["'radar' is not one of 'cameras', 'lidar'. See:"]),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_given(arguments: list[str], words: list[str]) -> None:
    done = automedon(*arguments, code=2)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("automedon: ")
    for word in words:
        assert word in lines[0]


def test_a_malformed_map_is_one_line(shared_data: Path) -> None:
    done = automedon("drive", "--map", shared_data / "opendrive" / "ill_formed.xodr", code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "ill_formed.xodr" in done.stderr


@pytest.mark.parametrize("keep", [0, 7, 500, 5000])
def test_damaged_files_are_one_line(checkpoint: Path, tmp_path: Path, keep: int) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(checkpoint.read_bytes()[:keep])
    done = automedon("drive", "--policy", damaged, code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "damaged.safetensors" in done.stderr
    log = tmp_path / "damaged.mcap"
    log.write_bytes(b"\x89MCAP0\r\n"[:keep])
    assert len(automedon("replay", log, "--resimulate", code=2).stderr.strip().splitlines()) == 1


def test_a_checkpoint_of_another_size_says_which_field_differs(checkpoint: Path) -> None:
    done = automedon("drive", "--set", "env.rig=small", "--policy", checkpoint, code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "camera" in done.stderr
    assert "rig" in done.stderr


@pytest.mark.parametrize("policy", ["idle", "constant", "expert"])
def test_replay_offers_no_policy_that_it_refuses(policy: str, recorded: tuple[Path, dict[str, object]]) -> None:
    log = recorded[1]["episodes"][0]["log"]  # type: ignore[index]
    assert f"{policy!r} looks through no sensors" in automedon("replay", log, "--policy", policy, code=2).stderr
    assert f" {policy}," not in automedon("replay", "--help").stdout


def test_a_map_is_shown_with_the_numbers_of_its_import(tmp_path: Path) -> None:
    automedon("maps", "generate", "town", "--seed", "3", "--out", tmp_path / "a.net.xml")
    imported = last_json(automedon("maps", "import", tmp_path / "a.net.xml", "--out", tmp_path / "b.net.xml", "--json"))
    shown = last_json(automedon("maps", "show", tmp_path / "a.net.xml", "--out", tmp_path / "a.png", "--json"))
    counted = {"lanes", "junction_lanes", "lane_km", "sidewalks", "crossings", "signals"}
    assert {name: shown[name] for name in counted} == {name: imported[name] for name in counted}


@pytest.mark.parametrize(
    "arguments",
    [
        ["maps", "generate", "grid-small", "--out", "FILE/x.net.xml"],
        ["maps", "show", "grid-small", "--out=FILE/x.png"],
        ["evaluate", "smoke", "--out", "FILE/run"],
        ["export", "CHECKPOINT", "FILE/x.safetensors"],
        ["train", "configs/smoke.toml", "--out", "FILE/run"],
        ["train", "configs/perception.toml", "--out", "FILE"],
        ["train", "configs/all.toml", "--out", "FILE/run"],
    ],
)
def test_what_cannot_be_written_is_one_line(
    arguments: list[str], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    given = [a.replace("FILE", str(tmp_path / "file")).replace("CHECKPOINT", str(checkpoint)) for a in arguments]
    with pytest.raises(SystemExit) as left:
        main(given)
    assert left.value.code == 2
    printed = capsys.readouterr()
    (line,) = printed.err.strip().splitlines()
    assert line.startswith("automedon: ")
    assert f"{tmp_path / 'file'} is a file, not a folder" in line
    assert "parameters" not in printed.out + printed.err  # a training has built nothing


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/elsewhere/x"),
        FileNotFoundError(2, "No such file", "runs/x"),
        OSError(),
    ],
)
def test_a_file_nobody_named_keeps_its_traceback(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "say", lambda as_json: raised(error))
    with pytest.raises(type(error)):
        main(["maps", "list"])


def test_an_interrupt_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(maps, "say", lambda as_json: raised(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as left:
        main(["maps", "list"])
    assert left.value.code == 130
    assert capsys.readouterr().err == "automedon: interrupted\n"


def raised(error: BaseException) -> NoReturn:
    raise error


def test_json_of_a_training_leaves_out_what_there_is_no_number_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the returns of a run in which no episode has ended: JSON has no NaN."""
    monkeypatch.setattr("sim.stages.run_stage", lambda *_, **__: {"steps": 5, "last_return": float("nan")})
    with pytest.raises(SystemExit) as ended:
        main(["train", "configs/smoke.toml", "--json"])
    printed = capsys.readouterr()
    assert (ended.value.code, json.loads(printed.out)) == (0, {"steps": 5})
    assert "none" in next(line for line in printed.err.splitlines() if "last_return" in line)
