"""Runs SUMO's netconvert in a temporary folder. Knows the program and its messages; knows nothing about maps.

https://sumo.dlr.de/docs/netconvert.html
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import sumo

TIMEOUT_S = 60
MAX_CPU_S = 7
MAX_MEMORY_BYTES = 900_000_000
MAX_RESULT_BYTES = 64_000_000
MAX_MESSAGE_BYTES = 1_000_000
# The header names the day and the temporary folder, which would make equal networks differ.
HEADER = re.compile(rb"<!--.*?-->\s*", re.DOTALL)
DULL_WARNING = re.compile(r"SUMO_HOME|proj\.db|proj_create|geoidgrids|datum shift")


class NetconvertError(RuntimeError):
    """netconvert refused its input or took too long; the message is what it said, on one line."""


@dataclass(frozen=True)
class Conversion:
    """net_xml: the network without its header comment. warnings: what netconvert warned of, one line each."""

    net_xml: bytes
    warnings: tuple[str, ...]


def netconvert(inputs: Mapping[str, bytes], options: Sequence[str]) -> Conversion:
    """A SUMO network made by netconvert.

    inputs: option without its dashes, such as "opendrive-files", to the content of that file.
    options: further options. The same input and options give the same bytes.

    Raises NetconvertError.
    """
    home = Path(sumo.SUMO_HOME)
    program = home / "bin" / ("netconvert.exe" if os.name == "nt" else "netconvert")
    with tempfile.TemporaryDirectory(prefix="automedon-") as folder:
        command = [str(program)]
        for option, content in inputs.items():
            path = Path(folder) / f"{option}.xml"
            path.write_bytes(content)
            command += [f"--{option}", str(path)]
        command += [*options, "--xml-validation", "never", "--output-file", "network.net.xml"]
        environment = {**os.environ, "SUMO_HOME": str(home), "LC_ALL": "C"}
        messages = Path(folder) / "messages.txt"
        with messages.open("wb") as stream:
            code = _run_bounded(command, folder, environment, stream)
        with messages.open("rb") as stream:
            lines = stream.read(MAX_MESSAGE_BYTES).decode(errors="replace").splitlines()
        result = Path(folder) / "network.net.xml"
        if code != 0 or not result.is_file():
            errors = [line.removeprefix("Error: ").strip() for line in lines if line.startswith("Error")]
            raise NetconvertError(" ".join(errors)[:500] or _ending(code))
        if result.stat().st_size > MAX_RESULT_BYTES:
            raise NetconvertError(
                f"netconvert wrote more than {MAX_RESULT_BYTES // 1_000_000} MB; cut out a smaller region"
            )
        warnings = [line.removeprefix("Warning: ") for line in lines if line.startswith("Warning")]
        return Conversion(
            net_xml=HEADER.sub(b"", result.read_bytes(), count=1),
            warnings=tuple(line for line in warnings if not DULL_WARNING.search(line)),
        )


def _run_bounded(command: list[str], folder: str, environment: dict[str, str], messages: IO[bytes]) -> int:
    """The exit code of the program, which runs without a shell and, on Linux, within limits of time and memory."""
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=messages
    ) as process:
        if sys.platform == "linux":
            import resource

            for limit, value in (
                (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
                (resource.RLIMIT_CPU, MAX_CPU_S),
                (resource.RLIMIT_FSIZE, MAX_RESULT_BYTES),
            ):
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    resource.prlimit(process.pid, limit, (value, value))
        try:
            return process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise NetconvertError(f"netconvert took more than {TIMEOUT_S} s; cut out a smaller region") from error


def _ending(code: int) -> str:
    if code == -signal.SIGKILL or code == -getattr(signal, "SIGXCPU", 0):
        return f"netconvert took more than {MAX_CPU_S} s of computing; cut out a smaller region"
    return f"netconvert failed with exit code {code}; cut out a smaller region or check the file in its editor"
