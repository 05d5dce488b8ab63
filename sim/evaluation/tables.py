"""What the command line shows of an evaluation.

Knows summaries; knows nothing about how they came about.
"""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.evaluate import EvaluationReport
from sim.evaluation.results import SCORES
from sim.evaluation.suite import list_suites

MOST_LISTED = 20
HEADINGS = {
    "success_rate": "success",
    "driving_score_1_0": "DS 1.0",
    "driving_score_2_0": "DS 2.0",
    "driving_score_2_1": "DS 2.1",
    "cls_nr": "CLS-NR",
    "pdms_driven_4s": "PDMS 4 s",
    "epdms_driven_4s": "EPDMS 4 s",
}


def show_suites(console: Console) -> list[dict[str, Any]]:
    """The suites of configs/suites as a table; returns its rows."""
    rows = [
        {"name": suite.name, "episodes": len(suite.episodes), "split": suite.split, "description": suite.description}
        for suite in list_suites()
    ]
    table = Table(title="Suites: automedon evaluate NAME")
    for heading in ("name", "episodes", "split", "description"):
        table.add_column(heading, justify="right" if heading == "episodes" else "left", no_wrap=heading == "name")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    return rows


def show_evaluation(console: Console, report: EvaluationReport) -> None:
    """Scores with intervals, by family and by condition, and the episodes that went worst with what repeats them."""
    summary = report.summary
    table = Table(title=f"{summary['suite']}: {summary['policy']} ({summary['episodes']} episodes)")
    for heading in ("", "mean", "95 % interval"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for name, heading in HEADINGS.items():
        score = summary[name]
        table.add_row(
            heading, _score(name, score["value"]), f"{_score(name, score['low'])} to {_score(name, score['high'])}"
        )
    console.print(table)
    for title, key in (("By family", "families"), ("By light and weather", "conditions")):
        console.print(_table_of(title, summary[key]))
    rates = summary["rates"]
    found = ", ".join(f"{kind} {count}" for kind, count in rates["infractions"].items()) or "none"
    console.print(f"{rates['driven_km']:.2f} km in {rates['hours']:.2f} h; infractions: {found}", highlight=False)
    _show_worst(console, report)
    for name, problem in summary["errors"].items():
        line = Text.assemble(("missing", "red"), f" {name}: {problem}\n  {report.commands[name]}")
        console.print(line, soft_wrap=True)
    if summary["missing"]:
        console.print(Text(f"{summary['missing']} episodes are missing and count as 0", "red"))
    if summary["warning"]:
        console.print(Text(summary["warning"], "yellow"), soft_wrap=True)
    console.print(f"wrote {summary['out']}", highlight=False)


def _table_of(title: str, groups: dict[str, Any]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)  # 80 columns are enough
    table.add_column("", no_wrap=True)
    table.add_column("episodes", justify="right")
    for heading in HEADINGS.values():
        table.add_column(heading.replace(" 4 s", "\n4 s"), justify="right")
    for name, group in groups.items():
        table.add_row(name, str(group["episodes"]), *(_score(key, group[key]["value"]) for key in SCORES))
    return table


def _show_worst(console: Console, report: EvaluationReport) -> None:
    """The episodes without success, worst driving score first, each with the command that repeats it."""
    failed = [r for r in report.reports if not r["scores"]["success"]]
    failed.sort(key=lambda r: (r["scores"]["driving_score_1_0"], r["index"]))
    for episode in failed[:MOST_LISTED]:
        kinds = ", ".join(f"{kind} x{count}" for kind, count in episode["rates"]["counts"].items()) or "not completed"
        score = episode["scores"]["driving_score_1_0"]
        console.print(f"{episode['id']}: DS 1.0 {score:.1f}; {kinds}", highlight=False)
        console.print(f"  {episode['command']}", highlight=False, soft_wrap=True)
    if len(failed) > MOST_LISTED:
        console.print(
            f"and {len(failed) - MOST_LISTED} more without success; all are in {report.folder}", highlight=False
        )


def _score(name: str, value: float) -> str:
    return f"{value:.1f}" if name.startswith("driving_score") else f"{value:.3f}"
