"""Opens a log in the Rerun viewer.

Knows the `rerun` program of the rerun-sdk wheel; knows nothing about what a log holds.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

LOOPBACK = "127.0.0.1"
STARTUP_S = 2.0


class ViewerError(ValueError):
    """The log cannot be shown here; the message says what to do instead."""


def open_in_rerun(log_path: Path) -> int:
    """Open a log in Rerun's own window and leave the window open; returns the viewer's process id.

    The viewer's server listens on this machine only (Rerun's own default is every interface).

    Args:
        log_path: an .mcap file as the recorder writes it.

    Raises:
        ViewerError: there is no such file, it is not an .mcap, the viewer is not installed, this machine has no
            display, or the viewer stops at once.
    """
    if not log_path.is_file():
        raise ViewerError(f"no log at {log_path}: give an .mcap file, as `automedon drive --record DIR` writes it")
    if log_path.suffix != ".mcap":
        raise ViewerError(
            f"{log_path.name} is not an .mcap file, and no other is shown: `automedon logs info` says what it holds, "
            "`automedon replay --video` films it"
        )
    rerun = rerun_program()
    if not has_display():
        raise ViewerError(
            f"this machine has no display; serve the log to a browser instead: {web_viewer_command(rerun, log_path)}"
        )
    viewer = subprocess.Popen(
        [rerun, "--bind", LOOPBACK, "--port", "auto", str(log_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline and viewer.poll() != 0:
        if viewer.returncode is not None:
            raise ViewerError(
                f"the Rerun viewer stopped with code {viewer.returncode} (no usable graphics?); "
                f"serve the log to a browser instead: {web_viewer_command(rerun, log_path)}"
            )
        time.sleep(0.05)
    return viewer.pid


def has_display() -> bool:
    """Whether a window can be opened here: always on macOS and Windows, with X11 or Wayland elsewhere."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def rerun_program() -> str:
    """Path of the `rerun` program, first beside the running interpreter.

    Raises:
        ViewerError: it is not installed.
    """
    program = shutil.which("rerun", path=str(Path(sys.executable).parent)) or shutil.which("rerun")
    if program is None:
        raise ViewerError("the Rerun viewer is missing: `pip install rerun-sdk` brings it")
    return program


def web_viewer_command(rerun: str, log_path: Path) -> str:
    """Shell command that serves the log to a browser on this machine, and to nobody else."""
    return shlex.join([rerun, "--web-viewer", "--bind", LOOPBACK, str(log_path)])
