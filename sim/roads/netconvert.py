"""Runs SUMO's netconvert in a temporary folder. Knows the program and its messages; knows nothing about maps.

https://sumo.dlr.de/docs/netconvert.html
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sumo

TIMEOUT_S = 60
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
        try:
            done = subprocess.run(  # no shell; the program comes with the eclipse-sumo package
                command, cwd=folder, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise NetconvertError(f"netconvert took more than {TIMEOUT_S} s") from error
        lines = done.stderr.decode(errors="replace").splitlines()
        result = Path(folder) / "network.net.xml"
        if done.returncode != 0 or not result.is_file():
            errors = [line.removeprefix("Error: ").strip() for line in lines if line.startswith("Error")]
            raise NetconvertError(" ".join(errors) or f"netconvert failed with exit code {done.returncode}")
        warnings = [line.removeprefix("Warning: ") for line in lines if line.startswith("Warning")]
        return Conversion(
            net_xml=HEADER.sub(b"", result.read_bytes(), count=1),
            warnings=tuple(line for line in warnings if not DULL_WARNING.search(line)),
        )
