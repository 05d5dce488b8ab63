"""`automedon bench`: sensors, world and training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.common import Json, say, show_values

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)


@app.command("sensors")
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
    show_values(console, "Sensors, one thread", report)
    if as_json:
        print(json.dumps(report))


@app.command("world")
def bench_world(as_json: Json = False) -> None:
    """Steps of the environment: with sensors against CarRacing, privileged, by batch size; memory; first drive."""
    from sim.bench_world import bench_world as run

    console = say(as_json)
    with console.status("measuring, some minutes"):
        report = run()
    show_values(console, "World", report)
    if as_json:
        print(json.dumps(report))


@app.command("train")
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
    show_values(console, "Training", report)
    if as_json:
        print(json.dumps(report))
