"""Kernels that another process compiled are those that this one then finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import pytest

from sim.sensors import warm_up
from sim.sensors.rig import rig
from sim.sensors.warm_up import compile_sensors, kernels_are_cached, sensors_compiled_meanwhile


def test_what_it_compiles_is_what_an_environment_uses() -> None:
    """A second signature of the kernels would mean that the environment compiles them all again."""
    code = """
from sim.drive_batch import DriveBatch, EnvConfig
from sim.sensors import suite
from sim.sensors.rig import rig
from sim.sensors.warm_up import compile_sensors
import numpy as np
compile_sensors(rig("small"))
kernels = (suite._gather_all, suite._render_all, suite._sweep_all)
before = [len(kernel.signatures) for kernel in kernels]
batch = DriveBatch(EnvConfig.of(), 2)
batch.reset(np.ones(2, bool), np.zeros(2, np.uint64), np.zeros(2, np.int64))
assert before == [len(kernel.signatures) for kernel in kernels] == [1, 1, 1], before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=550)


def test_kernels_are_looked_for_where_numba_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_sensors(rig("small"))
    assert kernels_are_cached()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert not kernels_are_cached()


def test_an_error_of_the_body_ends_the_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "kernels_are_cached", lambda: False)
    monkeypatch.setattr(warm_up.os, "cpu_count", lambda: 2)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # so that it has much to do
    begun: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def remember(*args: object, **options: object) -> subprocess.Popen[str]:
        begun.append(popen(*args, **options))  # type: ignore[call-overload]
        return begun[-1]

    monkeypatch.setattr(warm_up.subprocess, "Popen", remember)
    with pytest.raises(KeyboardInterrupt), sensors_compiled_meanwhile(rig("small")):
        raise KeyboardInterrupt
    assert begun[0].returncode not in (None, 0)
