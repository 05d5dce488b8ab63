"""A run of a suite, or two to compare, as one HTML page that needs nothing else.

Knows run folders and the page's template; knows nothing about how episodes are driven or scored.
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from sim.config import ConfigError
from sim.evaluation.intervals import estimate
from sim.evaluation.results import SCORES, Report, read_report, worst_first
from sim.evaluation.training_curve import read_training_curves
from sim.evaluation.worst_episodes import camera_pictures

WORST = 10
PATH_EVERY = 5
PLACEHOLDER = "/*DATA*/null"


def write_report(run: Path, other: Path | None, target: Path) -> dict[str, Any]:
    """Write the page of a run, or of two runs of the same suite, to target.

    Returns: figures for the command line.

    Raises:
        ConfigError: a folder holds no finished run, or the two runs are of different suites.
    """
    first = _load_run(run)
    data: dict[str, Any] = {"scores": list(SCORES), "runs": [first["shown"]], "compared": None}
    if other is not None:
        second = _load_run(other)
        if second["digest"] != first["digest"]:
            raise ConfigError(f"{run} and {other} are runs of different suites, so their figures cannot be compared")
        data["runs"].append(second["shown"])
        data["compared"] = _compared(first["reports"], second["reports"])
    data["training"] = [read_training_curves(folder) for folder in (run, other) if folder is not None]
    worst = worst_first(first["reports"])[:WORST]
    scenes = {r["id"]: scene for r in worst if (scene := _scene(run, r["id"])) is not None}
    data["worst"] = [r["id"] for r in worst]
    data["scenes"] = scenes
    data["cameras"] = {r["id"]: seen for r in worst if (seen := camera_pictures(run, r["id"])) is not None}
    data["maps"] = _maps(run, first["reports"])
    template = files("sim.evaluation").joinpath("data", "report.html").read_text(encoding="utf-8")
    # "<" may end the script that holds the data; JSON can say it in other words.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    assert template.count(PLACEHOLDER) == 1
    page = template.replace(PLACEHOLDER, text)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return {"page": str(target), "bytes": len(page.encode()), "episodes": len(first["reports"]), "scenes": len(scenes)}


def _load_run(folder: Path) -> dict[str, Any]:
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise ConfigError(
            f"{folder} holds no finished run ({missing} is missing): automedon evaluate SUITE --out {folder}"
        ) from None
    except ValueError:
        raise ConfigError(f"{folder} holds a damaged run: run.json or summary.json is not JSON") from None
    reports = [r for path in sorted((folder / "episodes").glob("*.json")) if (r := read_report(path)) is not None]
    shown = {"folder": str(folder), "run": run, "summary": summary, "episodes": [_row(r) for r in reports]}
    return {"digest": run.get("suite_digest"), "reports": reports, "shown": shown}


def _row(report: Report) -> dict[str, Any]:
    """What the page shows of an episode."""
    scores, rates = report["scores"], report["rates"]
    return {
        **{name: report[name] for name in ("id", "family", "condition", "map", "seed", "weather", "command")},
        **{name: float(scores[key]) for name, key in SCORES.items()},
        "completion": scores["completion"],
        "speed": rates["mean_speed_mps"],
        "length": report["route_length_m"],
        "infractions": [
            {"kind": i["kind"], "t": i["tick"] / 10, "x": i["x_m"], "y": i["y_m"], "text": i["sentence"]}
            for i in report["infractions"]
        ],
    }


def _compared(first: list[Report], second: list[Report]) -> dict[str, Any]:
    """Second minus first, episode by episode, for those that both have."""
    theirs = {r["id"]: r for r in second}
    pairs = [(r, theirs[r["id"]]) for r in first if r["id"] in theirs]
    if not pairs:
        return {"pairs": 0, "difference": {}}
    difference = {
        name: estimate([float(b["scores"][key]) - float(a["scores"][key]) for a, b in pairs]).as_json()
        for name, key in SCORES.items()
    }
    return {"pairs": len(pairs), "difference": difference}


def _scene(run: Path, name: str) -> dict[str, Any] | None:
    """The moving picture of an episode, None where there is none or it is damaged."""
    try:
        scene = json.loads(gzip.decompress((run / "scenes" / f"{name}.json.gz").read_bytes()))
    except (OSError, EOFError, ValueError):
        return None
    return scene if isinstance(scene, dict) else None


def _maps(run: Path, reports: list[Report]) -> dict[str, Any]:
    """By map on which something went wrong: lanes, driven paths. The roads are those that scenes have."""
    maps: dict[str, Any] = {}
    for name in sorted({str(r["map"]) for r in reports if r["infractions"]}):
        lanes: dict[str, Any] = {}
        paths = []
        for report in reports:
            scene = _scene(run, report["id"]) if str(report["map"]) == name else None
            if scene is not None:
                lanes |= {json.dumps(lane["p"][:4]): lane for lane in scene["lanes"]}
                paths.append([v for place in scene["ego"][::PATH_EVERY] for v in place[:2]])
        maps[name] = {"lanes": list(lanes.values()), "paths": paths}
    return maps
