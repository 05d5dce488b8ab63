"""The HTML report: one file without network, that a browser runs without a complaint; mistakes in one line."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sim.config import ConfigError
from sim.evaluate import evaluate
from sim.evaluation.episode_scores import as_plain, score_episode
from sim.evaluation.report import write_report
from sim.evaluation.results import SCORES, read_report, worst_first
from sim.evaluation.track_observer import track_of
from sim.logs.reader import open_log

SUITE = """
name = "{name}"
description = "Two short routes."
split = "any"
episodes = [
    {{ map = "grid-small", seed = {seed} }},
    {{ map = "grid-small", seed = 10_001, weather = "dusk" }},
]

[settings]
agents = 6
route_min_m = 50.0
route_max_m = 70.0
timeout_s = 12.0
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with runs `idle` and `expert` of one suite, and `away` of another."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("two", 10_000), ("elsewhere", 10_005)):
        (folder / f"{name}.toml").write_text(SUITE.format(name=name, seed=seed))
    evaluate(str(folder / "two.toml"), "idle", out=folder / "idle")
    evaluate(str(folder / "two.toml"), "expert", out=folder / "expert", worst=1)
    evaluate(str(folder / "elsewhere.toml"), "idle", out=folder / "away")
    return folder


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r"^const DATA = (.*);$", page, re.MULTILINE)
    assert match is not None
    found = json.loads(match[1])
    assert isinstance(found, dict)
    return found


class References(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_a_page_holds_everything_and_fetches_nothing(runs: Path, tmp_path: Path) -> None:
    figures = write_report(runs / "idle", None, tmp_path / "new" / "report.html")
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert figures["bytes"] == len(page.encode())
    references = References()
    references.feed(page)
    assert references.found == []
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket", page)
    data = data_of(page)
    summary = json.loads((runs / "idle" / "summary.json").read_text())
    assert data["runs"][0]["summary"] == summary
    assert data["compared"] is None
    assert set(data["scenes"]) == {episode["id"] for episode in data["runs"][0]["episodes"]}
    assert set(data["maps"]) == {"grid-small"}
    for scene in data["scenes"].values():
        assert len(scene["ego"]) == len(scene["others"]) == 61  # 12 s
        assert {str(row[0]) for rows in scene["others"] for row in rows} <= scene["sizes"].keys()
        assert len(scene["lanes"]) > 0


def test_scenarios_are_drawn_on_the_maps_that_they_bring(tmp_path: Path) -> None:
    suite = SUITE.format(name="staged", seed=0).replace("timeout_s = 12.0", "timeout_s = 1.0")
    staged = '[{ scenario = "following", seed = 10_000 }, { scenario = "merge", seed = 10_000 }]'
    (tmp_path / "staged.toml").write_text(
        re.sub(r"episodes = \[.*?\n\]", f"episodes = {staged}", suite, flags=re.DOTALL)
    )
    report = evaluate(str(tmp_path / "staged.toml"), "idle", out=tmp_path / "run")
    assert [episode["map"] for episode in report.reports] == ["grid-small", "town"]
    write_report(tmp_path / "run", None, tmp_path / "report.html")
    data = data_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {name: len(drawn["paths"]) for name, drawn in data["maps"].items()} == {"grid-small": 1, "town": 1}


def test_two_runs_are_compared_episode_by_episode(runs: Path, tmp_path: Path) -> None:
    write_report(runs / "idle", runs / "expert", tmp_path / "report.html")
    data = data_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert data["compared"]["pairs"] == 2
    for name in SCORES:
        means = [run["summary"][name]["value"] for run in data["runs"]]
        assert data["compared"]["difference"][name]["value"] == pytest.approx(means[1] - means[0])


def test_what_a_report_says_cannot_end_the_script(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "idle", run)
    summary = json.loads((run / "summary.json").read_text())
    summary["policy"] = "</script><img src=x onerror=alert(1)>"
    (run / "summary.json").write_text(json.dumps(summary))
    write_report(run, None, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert data_of(page)["runs"][0]["summary"]["policy"] == summary["policy"]


def test_the_worst_episodes_leave_a_log_a_video_and_pictures_of_a_camera(runs: Path, tmp_path: Path) -> None:
    """What was driven again with sensors is what was scored without."""
    reports = [read_report(path) for path in sorted((runs / "expert" / "episodes").glob("*.json"))]
    worst, other = worst_first([report for report in reports if report])
    kept = runs / "expert" / "worst"
    assert [path.name for path in kept.iterdir()] == [worst["id"]]
    with open_log(kept / worst["id"] / "episode.mcap") as log:
        steps = list(log.steps())
    assert len(steps) == worst["timing"]["ticks"]
    track = track_of(steps)
    assert json.loads(json.dumps(as_plain(score_episode(track, track)))) == worst["scores"]
    assert (kept / worst["id"] / "episode.mp4").stat().st_size > 10_000
    write_report(runs / "expert", None, tmp_path / "report.html")
    cameras = data_of((tmp_path / "report.html").read_text(encoding="utf-8"))["cameras"]
    assert list(cameras) == [worst["id"]]
    pictures = cameras[worst["id"]]["pictures"]
    assert 60 <= len(pictures) <= 120
    first = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0]), np.uint8), cv2.IMREAD_COLOR)
    theirs = next(iter(steps[0].frame.cameras.values()))
    assert theirs is not None
    assert np.abs(first[..., ::-1].astype(int) - theirs.image).mean() < 6.0
    assert other["id"] not in cameras


def test_a_run_without_pictures_still_has_a_page(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "idle", run)
    scenes = sorted((run / "scenes").iterdir())
    scenes[0].unlink()
    scenes[1].write_bytes(b"damaged")
    assert write_report(run, None, tmp_path / "report.html")["scenes"] == 0


def test_mistakes_are_told(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="different suites"):
        write_report(runs / "idle", runs / "away", tmp_path / "report.html")
    with pytest.raises(ConfigError, match=r"no finished run \(run.json is missing\)"):
        write_report(tmp_path, None, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def drawn(target: Path, tmp_path: Path) -> str:
    """The page as a browser leaves it once its script has run, after which `data-wrong` says what it complained about."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    listening = '<script>window.onerror = message => { document.documentElement.dataset.wrong = message; };</script><script>\n"use'
    target.write_text(target.read_text(encoding="utf-8").replace('<script>\n"use', listening), encoding="utf-8")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=2000", "--dump-dom", target.as_uri()]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("other", [None, "expert"])
def test_a_browser_draws_it_without_a_complaint(runs: Path, tmp_path: Path, other: str | None) -> None:
    write_report(runs / "idle", None if other is None else runs / other, tmp_path / "report.html")
    page = drawn(tmp_path / "report.html", tmp_path)
    assert "data-wrong" not in page
    assert ("two: idle and expert" if other else "two: idle") in page
    assert page.count('class="card tile"') == len(SCORES)
    assert page.count("0000-free-grid-small-10000") >= 3
    assert '<section id="training" hidden' in page


@pytest.mark.parametrize("others", [None, "with", "without"])
def test_training_curves_are_drawn_where_there_are_some(runs: Path, tmp_path: Path, others: str | None) -> None:
    curves = {
        "return": {"training": [[10.0, -5.0], [20.0, 3.5]], "evaluation": [[10.0, 1.0], [20.0, 2.0]]},
        "score": {"training": [], "evaluation": [[20.0, 55.0]]},
    }
    for name in ("one", "other"):
        shutil.copytree(runs / "idle", tmp_path / name)
    kept = ["one", "other"] if others == "with" else ["one"]
    for name in kept:
        (tmp_path / name / "training.json").write_text(json.dumps({"checkpoint_step": 10.0, "curves": curves}))
    write_report(tmp_path / "one", None if others is None else tmp_path / "other", tmp_path / "report.html")
    page = drawn(tmp_path / "report.html", tmp_path)
    assert "data-wrong" not in page
    assert '<section id="training">' in page
    assert re.findall(r'aria-label="(\w+) over steps of training"', page) == ["Return", "Score"]
    # For each run a dashed line in both panels, two lines in the first, one in the second, and a dot for each evaluation.
    section = page[page.index('<section id="training">') : page.index("Worst episodes")]
    assert section.count("stroke-dasharray") == 2 * len(kept)
    assert section.count("<path") == section.count("<circle") == 3 * len(kept)
    assert "NaN" not in section
