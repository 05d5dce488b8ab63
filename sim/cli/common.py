"""What all commands share: options, where words go, the progress bar, tables of values."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
PolicyOption = Annotated[str | None, typer.Option(help="shipped, expert, idle, constant, or the path of a checkpoint.")]


def say(as_json: bool) -> Console:
    """Where words for people go: stdout, or stderr when stdout belongs to JSON.

    Text is printed as it is, for it may come from a file: "[bold]" and ":car:" are no markup. Colours are `rich.text.Text`.
    """
    return Console(stderr=as_json, markup=False, emoji=False)


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
        TextColumn("{task.description}", "bold", markup=False), BarColumn(), MofNCompleteColumn(),
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


def show_values(console: Console, title: str, values: dict[str, Any]) -> None:
    """A table of names and values."""
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


def require_mp4(video: Path | None) -> None:
    """Raises ConfigError where the name of a video does not end with .mp4."""
    from sim.config import ConfigError

    if video is not None and video.suffix != ".mp4":
        raise ConfigError(f"--video writes MP4, got {video.name!r}; give a name that ends with .mp4")
