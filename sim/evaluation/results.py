"""What a run of a suite comes to: means with intervals, tables by family and condition, one row an episode.

Knows the reports of episodes; knows nothing about how they were driven. An episode without a report counts as 0 and as missing.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.evaluation.carla_score import CARLA_KINDS
from sim.evaluation.intervals import estimate
from sim.evaluation.rates import COLLISIONS, mean_time_between, per_100_km

# Name in the summary to the name in an episode's scores.
SCORES = {
    "success_rate": "success",
    "driving_score_1_0": "driving_score_1_0",
    "driving_score_2_0": "driving_score_2_0",
    "driving_score_2_1": "driving_score_2_1",
    "cls_nr": "cls_nr",
    "pdms_driven_4s": "pdms_driven_4s",
    "epdms_driven_4s": "epdms_driven_4s",
}
Report = dict[str, Any]


def worst_first(reports: Sequence[Report]) -> list[Report]:
    """Those without success first, then by driving score, then by PDMS."""

    def rank(report: Report) -> tuple[float, float, float, int]:
        scores = report["scores"]
        return (
            float(scores["success"]), float(scores["driving_score_1_0"]), float(scores["pdms_driven_4s"]), int(report["index"])
        )  # fmt: skip

    return sorted(reports, key=rank)


def summarise(reports: Sequence[Report], families: Sequence[str], conditions: Sequence[str]) -> dict[str, Any]:
    """The figures of a run.

    reports: of the episodes that were driven. families, conditions: of all episodes that should have been, in the same
    order of nothing in particular: what is not reported is missing.
    """
    total = len(families)
    summary: dict[str, Any] = {"episodes": total, "missing": total - len(reports), **_scores(reports, total)}
    summary["families"] = _by("family", reports, families)
    summary["conditions"] = _by("condition", reports, conditions)
    driven = sum(float(r["rates"]["driven_m"]) for r in reports)
    duration = sum(float(r["rates"]["duration_s"]) for r in reports)
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report["rates"]["counts"])
    collisions = sum(counts[kind] for kind in COLLISIONS)
    infractions = sum(counts[kind] for kind in CARLA_KINDS)
    summary["rates"] = {
        "driven_km": driven / 1000.0,
        "hours": duration / 3600.0,
        "infractions": dict(sorted(counts.items())),
        "infractions_per_km": {k: n / (driven / 1000.0) for k, n in sorted(counts.items())} if driven > 0 else {},
        "collisions_per_100_km": _finite(per_100_km(collisions, driven)),
        "mean_time_between_infractions_s": _finite(mean_time_between(infractions, duration)),
        **{
            name: _mean([float(r["rates"][name]) for r in reports])
            for name in (
                "mean_speed_mps", "metadrive_success", "waymo_overlap", "waymo_off_road", "waymo_wrong_way",
                "comfort_share", "energy_kj_per_kg_km",
            )
        },
        "completion": _mean([float(r["scores"]["completion"]) for r in reports]),
    }  # fmt: skip
    summary["timing"] = {  # of the machine; all else would be the same on another one
        name: _mean([float(r["timing"]["policy"][name]) for r in reports]) for name in ("mean_ms", "p99_ms")
    }
    summary["parts"] = {
        "nuplan": {name: _mean([float(r["scores"]["nuplan"][name]) for r in reports])
                   for name in ("nc", "dac", "mp", "ddc", "ep", "ttc", "sl", "c")},
        "pdm": {name: _mean([float(w[name]) for r in reports for w in r["scores"]["windows"]])
                for name in ("nc", "dac", "ddc", "tlc", "ep", "extended_ep", "ttc", "c", "lk", "hc")},
    }  # fmt: skip
    return summary


def _scores(reports: Sequence[Report], total: int) -> dict[str, Any]:
    missing = [0.0] * (total - len(reports))
    return {
        name: estimate([*(float(r["scores"][key]) for r in reports), *missing]).as_json()
        for name, key in SCORES.items()
    }


def _by(key: str, reports: Sequence[Report], wanted: Sequence[str]) -> dict[str, Any]:
    """The same for each family or condition."""
    found: defaultdict[str, list[Report]] = defaultdict(list)
    for report in reports:
        found[report[key]].append(report)
    return {
        name: {"episodes": count, "missing": count - len(found[name]), **_scores(found[name], count)}
        for name, count in sorted(Counter(wanted).items())
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read_reports(folder: Path, names: Sequence[str]) -> list[Report]:
    """Reports of those episodes that have one, in the order of their names; a damaged file is as good as none."""
    reports = []
    for name in names:
        report = read_report(folder / "episodes" / f"{name}.json")
        if report is not None:
            reports.append(report)
    return reports


def read_report(path: Path) -> Report | None:
    """One episode's report, None where the file is not there or not whole."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and {"id", "scores", "rates", "infractions"} <= report.keys() else None


def write_parquet(path: Path, reports: Sequence[Report]) -> None:
    """One row an episode: what it was, its scores, rates and sub-scores, and the number of each infraction."""
    import pyarrow
    import pyarrow.parquet

    rows = []
    for report in reports:
        scores, rates = report["scores"], report["rates"]
        row = {name: report[name] for name in ("id", "suite", "index", "family", "condition", "map", "scenario", "seed",
                                               "weather", "policy", "rig", "route_length_m", "command")}  # fmt: skip
        row |= {name: scores[key] for name, key in SCORES.items() if name != "success_rate"}
        row |= {"success": scores["success"], "completion": scores["completion"]}
        row |= {f"nuplan_{name}": value for name, value in scores["nuplan"].items()}
        row |= {name: value for name, value in rates.items() if name != "counts"}
        row |= {f"count_{kind}": int(rates["counts"].get(kind, 0)) for kind in (*CARLA_KINDS, "off_road", "wrong_way",
                                                                                 "off_route", "blocked", "timeout")}  # fmt: skip
        row |= {f"policy_{name}": value for name, value in report["timing"]["policy"].items()}
        rows.append(row)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
