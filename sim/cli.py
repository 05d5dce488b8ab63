"""The command line, and the only composition root: every other module is handed what it needs.

Imports nothing heavy before a command runs, so that `--help` is instant.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

# typer brings its own copy of click since 0.2x; its base classes are reached through what it exports.
UsageError = typer.BadParameter.__mro__[1]
ClickException = typer.BadParameter.__mro__[2]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sim.drive import DriveReport

app = typer.Typer(
    name="automedon",
    help="Autonomous driving in simulation on a plain CPU: drive, train, replay.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
maps_app = typer.Typer(help="Generate, import and look at maps.", no_args_is_help=True)
logs_app = typer.Typer(help="Look into sensor logs.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
app.add_typer(maps_app, name="maps")
app.add_typer(logs_app, name="logs")
app.add_typer(bench_app, name="bench")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
PolicyOption = Annotated[str | None, typer.Option(help="expert, idle, constant, or the path of a checkpoint.")]


def say(as_json: bool) -> Console:
    """Where words for people go: stdout, or stderr when stdout belongs to JSON."""
    return Console(stderr=as_json)


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over episodes with rate and time left; gives `advance(steps, episodes)`."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total, rate="")
        steps = 0

        def advance(more_steps: int, more: int) -> None:
            nonlocal steps
            steps += more_steps
            elapsed = progress.tasks[0].elapsed or 0.0
            progress.update(task, advance=more, rate=f"{steps / elapsed:,.0f} steps/s" if elapsed > 0 else "")

        yield advance


@app.command()
def drive(
    config: Annotated[Path | None, typer.Argument(help="TOML file with values of DriveConfig.")] = None,
    policy: PolicyOption = None,
    map_name: Annotated[
        str | None, typer.Option("--map", help="Town name, .xodr, .osm or .net.xml file, or a recording.")
    ] = None,
    rig: Annotated[
        str | None, typer.Option(help="smoke, small, full, surround, kitti, nuscenes or pandaset: the car's sensors.")
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
    from sim.drive import DriveConfig, reproducing_command
    from sim.drive import drive as run

    if scenario is not None:
        from sim.scenarios.catalogue import family_of

        family_of(scenario)  # a wrong name is said in one line
    options = {
        "policy": policy, "seed": seed, "episodes": episodes, "envs": envs, "env.map": map_name, "env.rig": rig,
        "env.weather": weather, "env.scenario": scenario,
    }  # fmt: skip
    overrides = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    resolved = load_config(DriveConfig, config, [*(override or []), *overrides])
    _require_mp4(video)
    if view and record is None:
        record = Path("runs")
    console = say(as_json)
    with progress_bar(console, "driving", resolved.episodes) as advance:
        report = run(resolved, record, video, advance)
    _show_drive(console, report)
    for result in report.episodes:
        if not result.success:
            command = reproducing_command(resolved, result.seed, config, override or [])
            console.print(f"  reproduce: {command}", highlight=False, soft_wrap=True)
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


def _show_drive(console: Console, report: DriveReport) -> None:
    first = report.episodes[0]
    staged = "" if first.scenario is None else f"{first.scenario}, "
    table = Table(title=f"Closed-loop episodes: {staged}{Path(first.map).name}")
    for heading in ("seed", "success", "route", "done", "infractions", "steps", "speed"):
        table.add_column(
            heading, justify="left" if heading == "infractions" else "right", no_wrap=heading != "infractions"
        )
    for result in report.episodes:
        infractions = ", ".join(f"{kind} x{count}" for kind, count in result.infractions.items()) or "none"
        table.add_row(
            str(result.seed), "[green]yes" if result.success else "[red]no",
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


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="TOML file, for example configs/smoke.toml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/train-<config>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train what the file's `stage` says: policy (PPO), perception, distill (imitation), or all, one after the other.

    Example: automedon train configs/smoke.toml seed=1
    """
    from sim.stages import run_stage

    folder = out if out is not None else Path("runs") / f"train-{config.stem}"
    console = say(as_json)
    report = run_stage(config, overrides or [], folder, resume=resume, console=console)
    table = Table(title=f"Training: {config}")
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right")
    for key, value in report.items():
        table.add_row(key, f"{value:,.3f}" if isinstance(value, float) else str(value))
    console.print(table)
    if as_json:
        print(json.dumps(report))


@app.command()
def evaluate(
    suite: Annotated[str | None, typer.Argument(help="Name of a suite in configs/suites, or a .toml file.")] = None,
    policy: Annotated[str, typer.Option(help="expert, idle, constant, or the path of a checkpoint.")] = "expert",
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
            on_progress=advance,
        )
    show_evaluation(console, report)
    if as_json:
        print(json.dumps(report.summary))


@app.command("evaluate-perception")
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


@app.command()
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


@app.command()
def replay(
    logs: Annotated[list[Path], typer.Argument(help="Our .mcap logs, ROS 1 bags, ROS 2 bags (folder or file).")],
    policy: PolicyOption = None,
    resimulate: Annotated[
        bool, typer.Option("--resimulate", help="Drive the simulator again and compare every sensor byte.")
    ] = False,
    video: Annotated[Path | None, typer.Option(help="MP4 file with camera, LiDAR and actions.")] = None,
    as_json: Json = False,
) -> None:
    """Replay recorded sensor logs through the stack.

    Example: automedon replay runs/grid-small-expert-0.mcap --resimulate
    """
    from sim.config import ConfigError
    from sim.replay_command import replay_logs

    if not resimulate and policy is None:
        raise ConfigError("replay needs --policy CHECKPOINT (or --resimulate, for a log of ours)")
    _require_mp4(video)
    if video is not None and len(logs) > 1:
        raise ConfigError(f"--video writes one file, but {len(logs)} logs were given; replay them one at a time")
    console = say(as_json)
    reports = replay_logs(logs, policy, resimulate, video, console)
    if as_json:
        print(json.dumps(reports[0] if len(reports) == 1 else {"logs": reports}))
    if any(report.get("resimulation", {}).get("equal") is False for report in reports):
        raise typer.Exit(1)


@bench_app.command("sensors")
def bench_sensors(
    scaling: Annotated[bool, typer.Option(help="Also by number of solids, distance and rig; minutes.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the scaling into this PNG file.")] = None,
    as_json: Json = False,
) -> None:
    """Camera and LiDAR against Open3D/Embree on the same rays and the same scene, one thread."""
    from sim.bench_sensors import bench_sensors as run
    from sim.bench_sensors import plot_scaling, require_plot, sensor_scaling

    if plot is not None:
        require_plot(plot)  # before minutes are spent
    console = say(as_json)
    with console.status("measuring, about a minute"):
        report = run()
        if scaling or plot is not None:
            report["scaling"] = sensor_scaling()
    if plot is not None:
        plot_scaling(report["scaling"], plot)
    _show_values(console, "Sensors, one thread", report)
    if as_json:
        print(json.dumps(report))


@bench_app.command("world")
def bench_world(as_json: Json = False) -> None:
    """Steps of the environment: with sensors against CarRacing, privileged, by batch size; memory; first drive."""
    from sim.bench_world import bench_world as run

    console = say(as_json)
    with console.status("measuring, some minutes"):
        report = run()
    _show_values(console, "World", report)
    if as_json:
        print(json.dumps(report))


@bench_app.command("train")
def bench_train(
    threads: Annotated[int, typer.Option(min=1, max=256, help="Of kernels and torch.")] = 2, as_json: Json = False
) -> None:
    """Steps of training a second, against Stable-Baselines3's PPO on the same environments; one decision."""
    from sim.config import ConfigError

    try:
        from sim.bench_train import bench_train as run
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"`bench train` needs {error.name}, which is not installed: install the extra `bench`"
        ) from None

    console = say(as_json)
    with console.status("measuring, some minutes"):
        report = run(threads=threads)
    _show_values(console, "Training", report)
    if as_json:
        print(json.dumps(report))


@maps_app.command("list")
def maps_list(as_json: Json = False) -> None:
    """The towns that can be driven by name."""
    from sim.roads.towns import SPLITS, TOWN_WORDS

    console = say(as_json)
    table = Table(title="Towns; NAME:SEED is another one of the kind, such as town:17")
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("what it has")
    for name, words in TOWN_WORDS.items():
        table.add_row(name, words)
    console.print(table)
    seeds = {split: [numbers.start, numbers.stop - 1] for split, numbers in SPLITS.items()}
    shares = ", ".join(f"{first} to {last} {split}" for split, (first, last) in seeds.items())
    console.print(f"seeds: {shares}; training refuses all but its own", highlight=False)
    if as_json:
        print(json.dumps({"towns": list(TOWN_WORDS), "seeds": seeds}))


@maps_app.command("generate")
def maps_generate(
    kind: Annotated[str, typer.Argument(help="Kind of town, see `automedon maps list`.")],
    seed: Annotated[int, typer.Option(help="Seed of the town.")] = 0,
    out: Annotated[Path | None, typer.Option(help="SUMO network to write (.net.xml).")] = None,
    left_hand: Annotated[bool, typer.Option("--left-hand", help="Everybody drives on the left.")] = False,
    as_json: Json = False,
) -> None:
    """Generate a town and write it as a SUMO network."""
    from sim.roads.left_hand import mirror_net_xml
    from sim.roads.towns import generate_town, seed_split

    target = out if out is not None else Path("runs") / f"{kind}-{seed}.net.xml"
    net_xml = generate_town(kind, seed)
    _write_map(
        mirror_net_xml(net_xml) if left_hand else net_xml, target, {"split": seed_split(seed) or "none"}, as_json
    )


@maps_app.command("import")
def maps_import(
    source: Annotated[Path, typer.Argument(help="A .xodr, .osm or .net.xml file.")],
    out: Annotated[Path | None, typer.Option(help="SUMO network to write (.net.xml).")] = None,
    left_hand: Annotated[
        bool | None,
        typer.Option("--left-hand/--right-hand", help="On which side one drives; by default what the file says."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Import OpenDRIVE or OpenStreetMap and report what was kept."""
    from sim.roads.importer import import_map

    net_xml, report = import_map(source, left_hand=left_hand)
    target = out if out is not None else Path("runs") / f"{source.name.split('.')[0]}.net.xml"
    _write_map(net_xml, target, report.as_json(), as_json)


def _write_map(net_xml: bytes, target: Path, report: dict[str, Any], as_json: bool) -> None:
    from sim.config import ConfigError

    if not target.name.endswith(".net.xml"):
        raise ConfigError(f"--out writes a SUMO network, got {target.name!r}; give a name that ends with .net.xml")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(net_xml)
    console = say(as_json)
    if report:
        _show_values(console, "Map", report)
    console.print(f"wrote {target}; look at it with: automedon maps show {target}", highlight=False)
    if as_json:
        print(json.dumps({**report, "path": str(target)}))


@maps_app.command("show")
def maps_show(
    name: Annotated[str, typer.Argument(help="Town name, or a .xodr, .osm or .net.xml file.")],
    out: Annotated[Path | None, typer.Option(help="PNG to write.")] = None,
    as_json: Json = False,
) -> None:
    """Draw a map to a picture and say what is in it."""
    from sim.roads.driving_map import load_map
    from sim.roads.picture import draw_map

    driving_map = load_map(name)
    target = out if out is not None else Path("runs") / f"{Path(name).name.split('.')[0].replace(':', '-')}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_map(driving_map, target)
    network = driving_map.network
    report = {
        "map": driving_map.name,
        "lanes": network.num_lanes,
        "lane_km": round(float(network.lane_length_m.sum()) / 1000, 3),
        "signals": len(network.signal_start) - 1,
        "static_solids": len(driving_map.scenery),
        "picture": str(target),
    }
    _show_values(say(as_json), "Map", report)
    if as_json:
        print(json.dumps(report))


@logs_app.command("info")
def logs_info(
    log: Annotated[Path, typer.Argument(help="A log: .mcap, .bag, .db3 or a rosbag2 folder.")], as_json: Json = False
) -> None:
    """What a log holds: topics, counts, duration, header, problems."""
    from sim.logs.reader import log_info

    report = log_info(log)
    _show_values(say(as_json), str(log), report)
    if as_json:
        print(json.dumps(report))


@app.command()
def view(log: Annotated[Path, typer.Argument(help="An .mcap log.")]) -> None:
    """Open a log in the Rerun viewer."""
    from sim.rerun_view import open_in_rerun

    open_in_rerun(log)


def _show_values(console: Console, title: str, values: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False)
    table.add_column("", style="bold")
    table.add_column("", overflow="fold")
    for key, value in values.items():
        if isinstance(value, float):
            text = f"{value:,.3f}"
        elif isinstance(value, dict | list):
            text = json.dumps(value, indent=1) if value else "none"
        else:
            text = str(value)
        table.add_row(key, text)
    console.print(table)


def _is_users_mistake(error: Exception) -> bool:
    """Whether somebody who typed the command can put it right: a `ValueError` of a kind of our own, or a wrong option.

    Anything else is a bug and keeps its traceback.
    """
    package = type(error).__module__.partition(".")[0]
    ours = isinstance(error, ValueError) and package in ("perception", "fusion", "planning", "sim")
    return ours or isinstance(error, ClickException)


def _one_line(error: Exception) -> str:
    text = error.format_message() if isinstance(error, ClickException) else str(error)  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    hint = f" See: {context.command_path} --help" if isinstance(error, UsageError) and context is not None else ""
    return " ".join(text.split()) + hint


def _require_mp4(video: Path | None) -> None:
    from sim.config import ConfigError

    if video is not None and video.suffix != ".mp4":
        raise ConfigError(f"--video writes MP4, got {video.name!r}; give a name that ends with .mp4")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit code 2 and one line on stderr for a mistake of the user's, 1 for a failed check."""
    try:
        code = app(arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        print("automedon: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not _is_users_mistake(error):
            raise
        print(f"automedon: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
