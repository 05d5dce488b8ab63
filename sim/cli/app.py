"""The command line, and the only composition root: every other module is handed what it needs.

Imports nothing heavy before a command runs, so that `--help` is instant.
"""

from __future__ import annotations

import sys

import typer

from sim.cli import bench, drive, evaluate, logs, maps, train

# typer brings its own copy of click since 0.2x; its base classes are reached through what it exports.
UsageError = typer.BadParameter.__mro__[1]
ClickException = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="automedon",
    help="Autonomous driving in simulation on a plain CPU: drive, train, replay.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(maps.app, name="maps")
app.add_typer(logs.app, name="logs")
app.add_typer(bench.app, name="bench")
app.command()(drive.drive)
app.command()(train.train)
app.command()(train.export)
app.command()(evaluate.evaluate)
app.command("evaluate-perception")(evaluate.evaluate_perception)
app.command()(evaluate.report)
app.command()(logs.replay)
app.command()(logs.view)


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
