"""`automedon drive`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.cli.common import Json, PolicyOption, progress_bar, require_mp4, say

if TYPE_CHECKING:
    from sim.drive import DriveReport


def drive(
    config: Annotated[Path | None, typer.Argument(help="TOML file with values of DriveConfig.")] = None,
    policy: PolicyOption = None,
    map_name: Annotated[
        str | None, typer.Option("--map", help="Town name, .xodr, .osm or .net.xml file, or a recording.")
    ] = None,
    rig: Annotated[
        str | None,
        typer.Option(
            help="smoke, small, full, surround, kitti, nuscenes or pandaset: the car's sensors; by default those a checkpoint "
            "was trained with, else small."
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(help="What is staged, on a map of its own unless --map names one; see --list-scenarios."),
    ] = None,
    list_scenarios: Annotated[
        bool, typer.Option("--list-scenarios", help="Print all scenarios with their parameters, and end.")
    ] = False,
    weather: Annotated[
        str | None, typer.Option(help="clear, random, or one such as rain-noon, fog-sunset, wet-night.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first episode.")] = None,
    episodes: Annotated[int | None, typer.Option(help="How many episodes, one seed each.")] = None,
    envs: Annotated[int | None, typer.Option(help="How many environments side by side.")] = None,
    record: Annotated[Path | None, typer.Option(help="Folder for one .mcap log an episode.")] = None,
    video: Annotated[Path | None, typer.Option(help="MP4 file with camera, LiDAR and state.")] = None,
    view: Annotated[bool, typer.Option("--view", help="Open the log in Rerun afterwards.")] = False,
    override: Annotated[list[str] | None, typer.Option("--set", help="key.path=value, any number of times.")] = None,
    as_json: Json = False,
) -> None:
    """Run closed-loop episodes in simulation.

    Example: automedon drive --policy expert --map grid-small --seed 7 --record runs --video runs/drive.mp4
    """
    if list_scenarios:
        _list_scenarios(as_json)
        return
    from sim.config import load_config
    from sim.drive import DriveConfig, reproducing_command, with_rig_of_network
    from sim.drive import drive as run

    if scenario is not None:
        from sim.scenarios.catalogue import family_of

        family_of(scenario)  # a wrong name is said in one line
    options = {
        "policy": policy, "seed": seed, "episodes": episodes, "envs": envs, "env.map": map_name, "env.rig": rig,
        "env.weather": weather, "env.scenario": scenario,
    }  # fmt: skip
    overrides = [
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in options.items() if value is not None
    ]
    resolved = with_rig_of_network(load_config(DriveConfig, config, [*(override or []), *overrides]))
    require_mp4(video)
    if view and record is None:
        record = Path("runs")
    console = say(as_json)
    with progress_bar(console, "driving", resolved.episodes) as advance:
        report = run(resolved, record, video, advance)
    _show_drive(console, report, Path(resolved.driver).name)
    for result in report.episodes:
        if not result.success:
            command = reproducing_command(resolved, result.seed, config, override or [])
            console.print(f"  reproduce: {command}", highlight=False, soft_wrap=True, markup=False)
    if as_json:
        print(json.dumps(report.as_json()))
    if view and report.logs[0] is not None:
        from sim.rerun_view import open_in_rerun

        open_in_rerun(report.logs[0])


def _list_scenarios(as_json: bool) -> None:
    from sim.scenarios.catalogue import NAMES, describe

    console = say(as_json)
    table = Table(title="Scenarios: automedon drive --scenario NAME --seed N", show_lines=True)
    for heading in ("name", "title", "description", "parameters"):
        table.add_column(heading, style="bold" if heading == "name" else "", no_wrap=heading == "name")
    rows = [describe(name) for name in NAMES]
    for row in rows:
        words = [f"{p['name']} {p['allowed']}" for p in row["parameters"]]
        table.add_row(row["name"], row["title"], row["description"], "\n".join(words) or "none")
    console.print(table)
    if as_json:
        print(json.dumps({"scenarios": rows}))


def _show_drive(console: Console, report: DriveReport, driver: str) -> None:
    first = report.episodes[0]
    staged = "" if first.scenario is None else f"{first.scenario}, "
    table = Table(title=f"Closed-loop episodes: {staged}{Path(first.map).name}, {driver} drives")
    for heading in ("seed", "success", "route", "done", "infractions", "steps", "speed"):
        table.add_column(
            heading, justify="left" if heading == "infractions" else "right", no_wrap=heading != "infractions"
        )
    for result in report.episodes:
        infractions = ", ".join(f"{kind} x{count}" for kind, count in result.infractions.items()) or "none"
        table.add_row(
            str(result.seed), Text("yes", "green") if result.success else Text("no", "red"),
            f"{result.route_length_m:.0f} m", f"{100 * result.route_completion:.1f} %", infractions,
            str(result.steps), f"{3.6 * result.mean_speed_mps:.1f} km/h",
        )  # fmt: skip
    console.print(table)
    for result in report.episodes:
        for sentence in result.details:
            console.print(f"  seed {result.seed}: {sentence}", highlight=False)
    succeeded = sum(result.success for result in report.episodes)
    kept = "without an infraction" if first.scenario is None else "without an infraction, every check kept"
    console.print(f"{succeeded} of {len(report.episodes)} {kept}; {report.steps_per_s:,.0f} steps/s")
    for path in (*report.logs, *report.videos):
        if path is not None:
            console.print(f"wrote {path}", highlight=False)
