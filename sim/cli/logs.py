"""`automedon logs`, `replay` and `view`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.common import Json, require_mp4, say, show_values

app = typer.Typer(help="Look into sensor logs.", no_args_is_help=True)


def replay(
    logs: Annotated[
        list[Path], typer.Argument(help="Our .mcap logs, ROS 1 and ROS 2 bags, drives of KITTI or Argoverse 2.")
    ],
    policy: Annotated[str | None, typer.Option(help="shipped, or the path of a checkpoint.")] = None,
    resimulate: Annotated[
        bool, typer.Option("--resimulate", help="Drive the simulator again and compare every sensor byte.")
    ] = False,
    video: Annotated[Path | None, typer.Option(help="MP4 file with camera, LiDAR and actions.")] = None,
    base_frame: Annotated[
        str, typer.Option(help="Of a foreign recording: frame of its /tf that lies on the ground under the rear axle.")
    ] = "base_link",
    as_json: Json = False,
) -> None:
    """Replay recorded sensor logs through the stack.

    Example: automedon replay runs/grid-small-expert-0.mcap --resimulate
    """
    from sim.config import ConfigError
    from sim.logs.recording import ReadOptions
    from sim.replay_command import replay_logs

    if not resimulate and policy is None:
        raise ConfigError("replay needs --policy CHECKPOINT (or --resimulate, for a log of ours)")
    require_mp4(video)
    if video is not None and len(logs) > 1:
        raise ConfigError(f"--video writes one file, but {len(logs)} logs were given; replay them one at a time")
    console = say(as_json)
    reports = replay_logs(logs, policy, resimulate, video, console, ReadOptions(base_frame=base_frame))
    if as_json:
        print(json.dumps(reports[0] if len(reports) == 1 else {"logs": reports}))
    if any(report.get("resimulation", {}).get("equal") is False for report in reports):
        raise typer.Exit(1)


@app.command("info")
def logs_info(
    log: Annotated[
        Path, typer.Argument(help="A log: .mcap, .bag, .db3, a rosbag2 folder, a drive of KITTI or Argoverse 2.")
    ],
    as_json: Json = False,
) -> None:
    """What a log holds: topics, counts, duration, header, problems."""
    from sim.logs.reader import log_info

    report = log_info(log)
    show_values(say(as_json), str(log), report)
    if as_json:
        print(json.dumps(report))


def view(log: Annotated[Path, typer.Argument(help="An .mcap log.")]) -> None:
    """Open a log in the Rerun viewer."""
    from sim.rerun_view import open_in_rerun

    open_in_rerun(log)
