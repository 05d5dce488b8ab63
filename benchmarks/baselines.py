"""The results table of the README: every baseline, and networks named here, on one suite, with 95 % intervals.

    python benchmarks/baselines.py --out runs/baselines [--suite validation] [--workers 2] [NAME=CHECKPOINT ...]

Drives what has no report in the folder yet, so an interrupted run goes on where it stopped, and writes the table between the
marks in README.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sim.evaluate import evaluate
from sim.evaluation.episode_run import write_atomically

BASELINES = {"idle": "idle", "constant": "constant", "route follower": "expert"}
COLUMNS = {
    "success_rate": "success", "driving_score_1_0": "CARLA 1.0", "driving_score_2_0": "CARLA 2.0",
    "driving_score_2_1": "CARLA 2.1", "cls_nr": "nuPlan", "pdms_driven_4s": "PDMS, 4 s", "epdms_driven_4s": "EPDMS, 4 s",
}  # fmt: skip
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def cell(score: dict[str, float], key: str) -> str:
    """A value with its interval."""
    digits = 1 if key.startswith("driving_score") else 3
    low, high = (f"{score[end]:.{digits}f}" for end in ("low", "high"))
    return f"{score['value']:.{digits}f} ({low} to {high})"


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """Markdown, a row a policy."""
    lines = [
        "| policy | " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for name, summary in summaries.items():
        missing = f", {summary['missing']} missing" if summary["missing"] else ""
        lines.append(f"| {name}{missing} | " + " | ".join(cell(summary[key], key) for key in COLUMNS) + " |")
    return "\n".join(lines)


def put_into(readme: Path, text: str) -> None:
    """Replace what stands between the marks.

    Raises:
        ValueError: the marks are not there.
    """
    old = readme.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise ValueError(f"{readme} has no {BEGIN} and {END}: put both where the table belongs")
    head, rest = old.split(BEGIN, 1)
    readme.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def lend_references(lender: Path, borrower: Path) -> None:
    """Copy the route follower's runs of episodes, which are the same whoever is compared with them; saves driving them again."""
    for path in sorted((lender / "references").glob("*.json.gz")):
        target = borrower / "references" / path.name
        if not target.exists():
            write_atomically(target, path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NAME=CHECKPOINT", help="further rows")
    parser.add_argument("--suite", default="validation")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--readme", type=Path, default=Path(__file__).resolve().parent.parent / "README.md")
    arguments = parser.parse_args()
    policies = BASELINES | dict(network.split("=", 1) for network in arguments.networks)
    summaries: dict[str, dict[str, Any]] = {}
    for name, policy in policies.items():
        folder = arguments.out / name.replace(" ", "-")
        for other in summaries:
            lend_references(arguments.out / other.replace(" ", "-"), folder)
        run = evaluate(
            arguments.suite, policy, workers=arguments.workers, out=folder, resume=(folder / "run.json").is_file(), worst=0,
            on_progress=lambda _, episodes, name=name: print(f"{name}: {episodes} more", flush=True),
        )  # fmt: skip
        summaries[name] = run.summary
    put_into(arguments.readme, table(summaries))
    print(table(summaries))


if __name__ == "__main__":
    main()
