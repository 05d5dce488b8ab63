"""The command line, and the only composition root: every other module is handed what it needs.

Imports nothing heavy before a command runs, so that `--help` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from sim.cli import bench, drive, evaluate, logs, maps, train

# typer brings its own copy of click since 0.2x; its base classes are reached through what it exports.
UsageError = typer.BadParameter.__mro__[1]
ClickException = typer.BadParameter.__mro__[2]
INTERRUPTED = 130  # what typer makes of Ctrl-C

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
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(given, standalone_mode=False)
    except typer.Abort:  # in some versions of typer
        code = INTERRUPTED
    except OSError as error:
        if not _is_of_a_given_path(error, given):
            raise
        print(f"automedon: {_path_line(Path(error.filename), error)}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if not _is_users_mistake(error):
            raise
        print(f"automedon: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    if code == INTERRUPTED:
        print("automedon: interrupted", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _is_users_mistake(error: Exception) -> bool:
    """Whether somebody who typed the command can put it right: a `ValueError` of a kind of our own, or a wrong option.

    Anything else is a bug and keeps its traceback.
    """
    package = type(error).__module__.partition(".")[0]
    ours = isinstance(error, ValueError) and package in ("perception", "fusion", "planning", "sim")
    return ours or isinstance(error, ClickException)


def _is_of_a_given_path(error: OSError, arguments: Sequence[str]) -> bool:
    """Whether a file or folder cannot be used that was named, or is within or above one; `runs` is named where nothing else is.

    A file that is missing is none of these: readers say so themselves, so it is a bug.
    """
    if isinstance(error, FileNotFoundError) or not isinstance(error.filename, str | os.PathLike):
        return False
    blamed = Path(error.filename).absolute()
    words = [word.partition("=")[2] if word.startswith("--") else word for word in arguments]
    for word in ("runs", *filter(None, words)):
        named = Path(word).absolute()
        partial = blamed.parent == named.parent and f".{named.name}." in blamed.name  # written before it is renamed
        if partial or blamed == named or blamed in named.parents or named in blamed.parents:
            return True
    return False


def _path_line(path: Path, error: OSError) -> str:
    for part in (path, *path.parents):
        if part.is_file() and not isinstance(error, PermissionError):
            return f"cannot write {path}: {part} is a file, not a folder; choose another path"
    return f"cannot use {path}: {(error.strerror or type(error).__name__).lower()}; choose another path"


def _one_line(error: Exception) -> str:
    if not isinstance(error, ClickException):
        return " ".join(str(error).split())
    from pydantic import ValidationError

    # Without a command typer prints the help, and its message is empty.
    text = " ".join(error.format_message().split()) or "no command given"  # type: ignore[attr-defined]
    if isinstance(error.__cause__, ValidationError):
        given = repr(error.__cause__.errors()[0]["input"])
        text = text.replace("Value error, ", "").removesuffix(".")
        text += "" if given in text else f", got {given}"
    text += "" if text.endswith((".", "?", ")")) else "."
    context = getattr(error, "ctx", None)
    return text + (
        f" See: {context.command_path} --help" if isinstance(error, UsageError) and context is not None else ""
    )
