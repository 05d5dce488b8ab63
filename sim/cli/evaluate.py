"""`automedon evaluate`, `evaluate-perception` and `report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from planning.sense import Sense
from sim.cli.common import Json, progress_bar, say


def evaluate(
    suite: Annotated[str | None, typer.Argument(help="Name of a suite in configs/suites, or a .toml file.")] = None,
    policy: Annotated[
        str, typer.Option(help="shipped, expert, idle, constant, or the path of a checkpoint.")
    ] = "expert",
    rig: Annotated[
        str, typer.Option(help="The car's sensors, as for drive; only networks look through them.")
    ] = "small",
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Worker processes; the results do not depend on it.")
    ] = 1,
    ray: Annotated[
        str | None, typer.Option(help="Drive on a Ray cluster instead: auto, local, or its address (extra `ray`).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/evaluate-<suite>-<policy>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Drive only this episode (id or number), again; repeatable.")
    ] = None,
    worst: Annotated[
        int, typer.Option(min=0, max=1000, help="Of how many of the worst episodes a log and a video are kept.")
    ] = 10,
    maps_dir: Annotated[
        Path | None, typer.Option(help="Folder of the map files and recordings that a suite names.")
    ] = None,
    without: Annotated[
        list[Sense] | None, typer.Option(help="Sensors that a network drives without; repeatable.")
    ] = None,
    list_suites: Annotated[
        bool, typer.Option("--list-suites", help="Print the suites of configs/suites, and end.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Drive a suite of episodes and score them by the protocols of CARLA, nuPlan and NAVSIM.

    Example: automedon evaluate smoke --policy expert --workers 2
    """
    console = say(as_json)
    from sim.config import ConfigError
    from sim.evaluate import evaluate as run
    from sim.evaluation.suite import load_suite
    from sim.evaluation.tables import show_evaluation, show_suites

    if list_suites:
        suites = show_suites(console)
        if as_json:
            print(json.dumps({"suites": suites}))
        return
    if suite is None:
        raise ConfigError("evaluate needs a SUITE, for example smoke; --list-suites shows all")
    total = len(only) if only else len(load_suite(suite)[0].episodes)
    with progress_bar(console, f"evaluating {policy}", total) as advance:
        report = run(
            suite,
            policy,
            rig=rig,
            workers=workers,
            ray=ray,
            out=out,
            resume=resume,
            only=only or (),
            worst=worst,
            maps_dir=maps_dir,
            without=without or (),
            on_progress=advance,
        )
    show_evaluation(console, report)
    if as_json:
        print(json.dumps(report.summary))


def evaluate_perception(
    run: Annotated[Path, typer.Argument(help="Run folder of a training of perception.")],
    frames: Annotated[int, typer.Option(min=0, max=10_000, help="Frames of validation towns; 0 for none.")] = 512,
    sweeps: Annotated[
        Path | None, typer.Option(help="Folder with real sweeps and their boxes: pandaset, argoverse2.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score what a network perceives: bird's-eye IoU and detection AP on validation towns and real sweeps.

    Example: automedon evaluate-perception runs/train-perception --frames 512
    """
    from sim.evaluate_perception import evaluate_perception as run_evaluation

    console = say(as_json)
    with console.status("rendering and looking"):
        report = run_evaluation(run, frames, sweeps)
    table = Table(title=f"Perception: {run}")
    table.add_column("", no_wrap=True)
    for seen in report:
        table.add_column(seen.replace("-", " "), justify="right")
    for name in dict.fromkeys(key for scores in report.values() for key in scores):
        form = ",.0f" if name.endswith(("_frames", "_boxes")) else ".3f"
        table.add_row(name, *(format(scores[name], form) if name in scores else "" for scores in report.values()))
    console.print(table)
    if as_json:
        finite = {seen: {k: v for k, v in scores.items() if v == v} for seen, scores in report.items()}
        print(json.dumps(finite))


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `automedon evaluate`.")],
    other: Annotated[Path | None, typer.Argument(help="A second run of the same suite, to compare.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; by default report.html in the run's folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's scores, infractions and worst episodes as one HTML page.

    Example: automedon report runs/validation
    """
    from sim.evaluation.report import write_report

    report = write_report(run, other, out if out is not None else run / "report.html")
    say(as_json).print(f"wrote {report['page']}", highlight=False)
    if as_json:
        print(json.dumps(report))
