"""`automedon evaluate`: the same numbers whoever computes them, nothing lost or repeated, every episode repeatable."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import multiprocessing
import shlex
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from planning.checkpoint import save_checkpoint
from planning.network import build_network, network_config
from planning.sense import Sense
from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.evaluate import EvaluationReport, chunks, evaluate
from sim.evaluation.episode_run import EpisodeRunner, Job
from sim.evaluation.intervals import estimate
from sim.evaluation.results import SCORES, read_report, summarise
from sim.evaluation.suite import load_suite
from sim.evaluation.tables import show_evaluation
from sim.evaluation.worst_episodes import keep_worst
from sim.logs.log import git_commit
from sim.logs.reader import open_log
from sim.scenarios.catalogue import NAMES
from sim.train import observation_spec

ROOT = Path(__file__).resolve().parent.parent
SUITE = """
name = "short"
description = "Four short routes."
split = "any"
episodes = [
    { map = "grid-small", seed = 10_000 },
    { map = "grid-small", seed = 10_001, weather = "dusk" },
    { map = "grid-small", seed = 10_002, weather = "fog-noon" },
    { map = "grid-small", seed = 10_003, weather = "rain-noon" },
]

[settings]
agents = 10
route_min_m = 50.0
route_max_m = 70.0
timeout_s = 25.0
"""


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("suite") / "short.toml"
    path.write_text(SUITE)
    return str(path)


def without_timing(report: EvaluationReport) -> list[dict[str, Any]]:
    return [{key: value for key, value in episode.items() if key != "timing"} for episode in report.reports]


def figures(report: EvaluationReport) -> dict[str, Any]:
    return {key: value for key, value in report.summary.items() if key not in ("out", "timing")}


@pytest.fixture(scope="module")
def idle_run(suite_file: str, tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    return evaluate(suite_file, "idle", out=tmp_path_factory.mktemp("run") / "idle")


def test_summary_has_what_others_rely_on(idle_run: EvaluationReport) -> None:
    summary = idle_run.summary
    assert (summary["episodes"], summary["missing"]) == (4, 0)
    assert {*SCORES} <= summary.keys()
    for name in SCORES:
        score = summary[name]
        assert set(score) == {"value", "low", "high"}
        assert score["low"] <= score["value"] <= score["high"]
    assert set(summary["families"]) == {"free"}
    assert set(summary["conditions"]) == {"day", "dusk", "fog", "rain"}
    assert summary["driving_score_1_0"]["value"] == summary["cls_nr"]["value"] == 0.0
    assert (
        min(summary["timing"]["mean_ms"], summary["timing"]["p99_ms"]) > 0.0
    )  # one slow decision of many lifts the mean alone
    assert summary["warning"] is None
    assert json.loads((idle_run.folder / "summary.json").read_text()) == summary


def test_no_figure_is_cut_off_in_a_terminal_of_80_columns(idle_run: EvaluationReport) -> None:
    best = {name: {"value": 100.0 if name.startswith("driving_score") else 1.0} for name in SCORES}
    longest = max(NAMES, key=len)
    summary = {**idle_run.summary, "families": {longest: {"episodes": 1000, **best}}}
    console = Console(width=80, record=True, file=StringIO())
    show_evaluation(console, dataclasses.replace(idle_run, summary=summary, reports=[], commands={}))
    (row,) = (line.split() for line in console.export_text().splitlines() if line.startswith(longest))
    assert row == [longest, "1000", "1.000", "100.0", "100.0", "100.0", "1.000", "1.000", "1.000"]


def test_parquet_has_a_row_for_each_episode(idle_run: EvaluationReport) -> None:
    table = pyarrow.parquet.read_table(idle_run.folder / "episodes.parquet")
    assert table.column("id").to_pylist() == [report["id"] for report in idle_run.reports]
    assert table.column("count_timeout").to_pylist() == [1, 1, 1, 1]
    assert table.column("pdms_driven_4s").to_pylist() == [r["scores"]["pdms_driven_4s"] for r in idle_run.reports]


def test_two_workers_and_a_second_run_give_the_same(
    idle_run: EvaluationReport, suite_file: str, tmp_path: Path
) -> None:
    other = evaluate(suite_file, "idle", workers=2, out=tmp_path / "two")
    assert without_timing(other) == without_timing(idle_run)
    assert figures(other) == figures(idle_run)
    again = evaluate(suite_file, "idle", out=tmp_path / "again")
    assert without_timing(again) == without_timing(idle_run)


def test_an_interrupted_run_goes_on_where_it_stopped(
    idle_run: EvaluationReport, suite_file: str, tmp_path: Path
) -> None:
    class Interrupt(BaseException):
        pass

    done = 0

    def stop_after_two(steps: int, episodes: int) -> None:
        nonlocal done
        done += episodes
        if done == 2:
            raise Interrupt

    with pytest.raises(Interrupt):
        evaluate(suite_file, "idle", out=tmp_path / "run", on_progress=stop_after_two)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run" / "episodes").iterdir()}
    assert len(kept) == 2
    driven: list[int] = []
    report = evaluate(suite_file, "idle", out=tmp_path / "run", resume=True, on_progress=lambda _, n: driven.append(n))
    assert driven == [2, 1, 1]  # what was there, then one by one
    assert all((tmp_path / "run" / "episodes" / name).read_bytes() == data for name, data in kept.items())
    assert without_timing(report) == without_timing(idle_run)
    assert figures(report) == figures(idle_run)


def test_a_damaged_report_is_driven_again(idle_run: EvaluationReport, suite_file: str, tmp_path: Path) -> None:
    suite, _ = load_suite(suite_file)
    evaluate(suite_file, "idle", out=tmp_path / "run")
    job = Job(suite, suite_file, "idle", "small", str(tmp_path / "run"))
    whole = job.episode_file(1).read_bytes()
    job.episode_file(1).write_bytes(whole[: len(whole) // 2])
    assert read_report(job.episode_file(1)) is None
    report = evaluate(suite_file, "idle", out=tmp_path / "run", resume=True)
    assert without_timing(report) == without_timing(idle_run)


def test_a_worker_that_dies_has_its_episodes_driven_again(
    idle_run: EvaluationReport, suite_file: str, tmp_path: Path
) -> None:
    killed = []

    def kill_once(steps: int, episodes: int) -> None:
        if episodes and not killed:
            victim = multiprocessing.active_children()[0]
            killed.append(victim.pid)
            victim.kill()

    report = evaluate(suite_file, "idle", workers=2, out=tmp_path / "run", on_progress=kill_once)
    assert killed
    assert report.summary["errors"] == {}
    assert without_timing(report) == without_timing(idle_run)


def test_the_printed_command_repeats_an_episode(idle_run: EvaluationReport, tmp_path: Path) -> None:
    name = idle_run.reports[2]["id"]
    words = shlex.split(idle_run.commands[name])
    assert words[0] == "automedon"
    command = [sys.executable, "-m", "sim", *words[1:], "--out", str(tmp_path / "again"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=ROOT)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["episodes"] == 1
    assert summary["pdms_driven_4s"]["value"] == idle_run.reports[2]["scores"]["pdms_driven_4s"]
    again = read_report(tmp_path / "again" / "episodes" / f"{name}.json")
    assert again is not None
    again.pop("timing")
    assert again == without_timing(idle_run)[2]


def test_one_episode_again_takes_nothing_of_what_was_there(
    idle_run: EvaluationReport, suite_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the reference that another version drove nor, where it fails now, its old report."""
    run = tmp_path / "run"
    shutil.copytree(idle_run.folder, run)
    name = idle_run.reports[0]["id"]
    reference = run / "references" / f"{name}.json.gz"
    whole = reference.read_bytes()
    shutil.copy(run / "references" / f"{idle_run.reports[1]['id']}.json.gz", reference)
    begun = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**begun, "git_commit": "0123abc"}))
    again = evaluate(suite_file, "idle", out=run, only=["0"])
    assert reference.read_bytes() == whole
    assert without_timing(again) == without_timing(idle_run)[:1]
    assert again.summary["warning"] == (
        f"{run} was begun at commit 0123abc, and this is {git_commit()}: it may hold results of both"
    )

    def fail(runner: EpisodeRunner, index: int) -> dict[str, bytes]:
        raise RuntimeError("no more")

    monkeypatch.setattr(EpisodeRunner, "files_of", fail)
    failed = evaluate(suite_file, "idle", out=run, only=["0"])
    assert failed.summary["errors"] == {name: "RuntimeError: no more"}
    assert failed.summary["missing"] == 1
    assert failed.summary["pdms_driven_4s"]["value"] == 0.0
    console = Console(width=80, record=True, file=StringIO())
    show_evaluation(console, failed)
    assert "begun at commit 0123abc" in console.export_text()


def test_the_route_follower_is_its_own_reference(suite_file: str, tmp_path: Path) -> None:
    report = evaluate(suite_file, "expert", out=tmp_path / "run")
    assert not (tmp_path / "run" / "references").exists()
    assert all(episode["scores"]["nuplan"]["ep"] == 1.0 for episode in report.reports)
    assert all(episode["scores"]["completion"] == 1.0 for episode in report.reports)
    assert report.summary["driving_score_1_0"]["value"] > 50.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "expert"}, "holds another run"),
        ({"policy": "idle", "rig": "smoke"}, "holds another run"),
        ({"policy": "idle"}, "--resume"),
        ({"policy": "idle", "only": ["17"]}, "no episode '17'"),
        ({"policy": "idel"}, "Did you mean 'idle'"),
        (
            {"policy": "idle", "without": (Sense.LIDAR,)},
            "idle looks through no sensors, so it cannot drive without lidar",
        ),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    idle_run: EvaluationReport, suite_file: str, options: dict[str, Any], words: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in idle_run.folder.rglob("*")}
    with pytest.raises(ConfigError, match=words):
        evaluate(suite_file, out=idle_run.folder, **options)
    assert {path: path.stat().st_mtime_ns for path in idle_run.folder.rglob("*")} == before


def test_a_missing_map_file_is_told_before_anything_runs_and_found_in_its_folder(tmp_path: Path) -> None:
    suite = tmp_path / "away.toml"
    suite.write_text(SUITE.replace('"short"', '"away"').replace('"grid-small"', '"Away.xodr"'))
    (tmp_path / "maps").mkdir()
    options: dict[str, Any] = {"out": tmp_path / "run", "maps_dir": tmp_path / "maps"}
    with pytest.raises(ConfigError, match=r"no map file 'Away\.xodr' in .*maps"):
        evaluate(str(suite), "idle", **options)
    with pytest.raises(ConfigError, match="is no folder"):
        evaluate(str(suite), "idle", out=tmp_path / "run", maps_dir=tmp_path / "mops")
    assert not (tmp_path / "run").exists()
    (tmp_path / "maps" / "Away.xodr").write_text("<OpenDRIVE/>")
    with pytest.raises(ValueError, match="Away"):  # found, and no map
        evaluate(str(suite), "idle", **options)
    job = Job(load_suite(str(suite))[0], str(suite), "idle", "small", "out", str(tmp_path / "maps"))
    assert f"--maps-dir {tmp_path / 'maps'}" in job.command(0)


def test_resuming_nothing_is_told(suite_file: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume"):
        evaluate(suite_file, "idle", out=tmp_path / "none", resume=True)


def test_missing_episodes_count_as_zero(idle_run: EvaluationReport) -> None:
    reports = idle_run.reports[:3]
    summary = summarise(reports, ["free"] * 4, ["day", "dusk", "fog", "rain"])
    whole = sum(r["scores"]["pdms_driven_4s"] for r in reports)
    assert summary["missing"] == 1
    assert summary["pdms_driven_4s"]["value"] == pytest.approx(whole / 4)
    assert summary["conditions"]["rain"]["missing"] == 1
    assert summary["conditions"]["rain"]["pdms_driven_4s"]["value"] == 0.0


def test_bundles_hold_every_episode_once(suite_file: str) -> None:
    suite, _ = load_suite(str(ROOT / "configs" / "suites" / "validation.toml"))
    for workers in (2, 7, 300):
        found = list(chunks(suite, range(len(suite.episodes)), workers))
        assert sorted(k for chunk in found for k in chunk) == list(range(len(suite.episodes)))
        assert all(len({suite.episodes[k].map for k in chunk}) == 1 for chunk in found)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.randoms())
def test_estimates_hold_the_mean_and_do_not_know_the_order(values: list[float], random: Any) -> None:
    one, other = estimate(values), estimate(random.sample(values, len(values)))
    assert one == other
    assert one.low <= one.value <= one.high
    assert one.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= one.low
    assert one.high <= max(values) + 1e-9


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = estimate(random.random(60).tolist())
        hits += found.low <= 0.5 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_nobody_loads_ray_who_does_not_ask_for_it(suite_file: str, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom sim.evaluate import evaluate\n"
        f"evaluate({suite_file!r}, 'idle', only=['0'], out=Path({str(tmp_path / 'run')!r}))\nprint('ray' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_ray_gives_the_same_or_says_that_it_is_absent(
    idle_run: EvaluationReport, suite_file: str, tmp_path: Path
) -> None:
    """In a process of its own, because Ray leaves threads and warnings behind."""
    command = [sys.executable, "-m", "sim", "evaluate", suite_file, "--policy", "idle", "--ray", "local",
               "--worst", "0", "--out", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)
    if importlib.util.find_spec("ray") is None:
        assert done.returncode == 2
        assert "automedon[ray]" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    for report in idle_run.reports:
        mine = read_report(tmp_path / "run" / "episodes" / f"{report['id']}.json")
        assert mine is not None
        assert {**mine, "timing": None} == {**report, "timing": None}


@pytest.mark.slow
def test_a_network_is_scored_the_same_by_one_worker_and_by_two(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint = tmp_path / "untrained.safetensors"
    batch = DriveBatch(EnvConfig.of(rig="smoke"), 1)
    save_checkpoint(checkpoint, build_network(network_config("smoke"), observation_spec(batch)), {}, {})
    (tmp_path / "short.toml").write_text(SUITE.replace("timeout_s = 25.0", "timeout_s = 2.0"))
    suite = str(tmp_path / "short.toml")
    one = evaluate(suite, str(checkpoint), rig="smoke", only=["1", "2"], out=tmp_path / "one")
    two = evaluate(suite, str(checkpoint), rig="smoke", only=["1", "2"], workers=2, out=tmp_path / "two")
    assert one.summary["missing"] == 0
    assert without_timing(one) == without_timing(two)
    deaf = evaluate(suite, str(checkpoint), rig="smoke", only=["1"], out=tmp_path / "deaf", without=(Sense.LIDAR,))
    assert deaf.summary["without"] == ["lidar"]
    assert deaf.reports[0]["command"].endswith(f"--without lidar --only {deaf.reports[0]['id']}")
    with pytest.raises(ConfigError, match="holds another run"):
        evaluate(suite, str(checkpoint), rig="smoke", only=["2"], out=tmp_path / "deaf")

    def filmed(folder: str, reports: list[dict[str, Any]], *without: Sense) -> list[Any]:
        job = Job(load_suite(suite)[0], suite, str(checkpoint), "smoke", str(tmp_path / folder), without=without)
        (name,) = keep_worst(job, reports, 1)
        with open_log(tmp_path / folder / "worst" / name / "episode.mcap") as log:
            return [step.action for step in log.steps() if step.action is not None]

    with_all = filmed("one", [report for report in one.reports if report["id"] == deaf.reports[0]["id"]])
    assert len(with_all) == 20  # 2 s
    assert filmed("deaf", deaf.reports, Sense.LIDAR) != with_all  # what is filmed is what was scored
    with pytest.raises(ValueError, match="rig it was trained with"):
        evaluate(suite, str(checkpoint), rig="small", only=["1"], out=tmp_path / "other")
