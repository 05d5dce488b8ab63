"""Compiles the sensor kernels in a process of its own while this one compiles the world's.

Numba compiles one function at a time in a process, and a first start waits for hundreds of them. What the other process has
compiled is found in the cache. Knows rigs and the suite; knows nothing about environments.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np

from sim.roads.driving_map import load_map
from sim.sensors.rig import RigConfig
from sim.sensors.suite import SensorSuite
from sim.world import WorldState

MOST_S = 600.0


def kernels_are_cached() -> bool:
    """Whether somebody has compiled the sensor kernels as they are now."""
    return any(Path(numba.config.CACHE_DIR).rglob("suite._render_all-*.nbi"))


@contextmanager
def sensors_compiled_meanwhile(rig: RigConfig) -> Iterator[None]:
    """While the body runs, and at most MOST_S after it, another process compiles what the rig needs, unless it is there already.

    If it fails or takes longer, nothing is lost: this process compiles the kernels when it needs them.
    """
    if kernels_are_cached() or (os.cpu_count() or 1) < 2:
        yield
        return
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-m", "sim.sensors.warm_up"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, text=True, env=environment,
    ) as other:  # fmt: skip
        try:
            assert other.stdin is not None
            with suppress(BrokenPipeError), other.stdin:  # it may have died already
                other.stdin.write(rig.model_dump_json())
            yield
            with suppress(subprocess.TimeoutExpired):
                other.wait(MOST_S)
        finally:
            other.kill()


def compile_sensors(rig: RigConfig) -> None:
    """Look once, through all sensors of the rig, at a street where nobody is."""
    street = load_map("grid-small")
    shape, links = (1, 2), street.network.num_signal_links
    arrays: list[Any] = [
        np.zeros(1, np.uint64), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(shape, np.uint8),
        np.zeros(shape, np.int8), *(np.zeros(shape) for _ in range(11)), np.zeros(shape, np.uint8), np.zeros(shape, np.int8),
        np.zeros((*shape, 3), np.uint8), np.zeros((1, 2), np.float32), np.zeros((1, links), np.int8),
    ]  # fmt: skip
    state = WorldState(*arrays)
    SensorSuite(rig, street, 1, shape[1]).observe(state)


if __name__ == "__main__":
    compile_sensors(RigConfig.model_validate_json(sys.stdin.read()))
