"""Kernels that another process compiled are those that this one then finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import pytest

from sim.sensors import warm_up
from sim.sensors.rig import RigConfig, rig
from sim.sensors.warm_up import compile_sensors, kernels_are_cached, sensors_compiled_meanwhile


def test_what_it_compiles_is_what_an_environment_uses() -> None:
    """A second signature of the kernels would mean that the environment compiles them all again."""
    code = """
from sim.drive_batch import DriveBatch, EnvConfig
from sim.sensors import suite
from sim.sensors.rig import RigConfig, rig
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


def _remember(monkeypatch: pytest.MonkeyPatch, code: str | None = None) -> list[subprocess.Popen[str]]:
    """The processes that are begun from now on; where there is code, they run that."""
    monkeypatch.setattr(warm_up, "kernels_are_cached", lambda: False)
    monkeypatch.setattr(warm_up.os, "cpu_count", lambda: 2)
    begun: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def begin(command: list[str], **options: object) -> subprocess.Popen[str]:
        begun.append(popen(command if code is None else [sys.executable, "-c", code], **options))  # type: ignore[call-overload]
        return begun[-1]

    monkeypatch.setattr(warm_up.subprocess, "Popen", begin)
    return begun


def test_an_error_of_the_body_ends_the_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # so that it has much to do
    begun = _remember(monkeypatch)
    with pytest.raises(KeyboardInterrupt), sensors_compiled_meanwhile(rig("small")):
        raise KeyboardInterrupt
    assert begun[0].returncode not in (None, 0)


def test_one_that_takes_too_long_is_ended_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "MOST_S", 0.01)
    begun = _remember(monkeypatch, "import signal; signal.pause()")
    done = False
    with sensors_compiled_meanwhile(rig("small")):
        done = True
    assert done
    assert begun[0].returncode not in (None, 0)


@pytest.mark.parametrize(
    "length", [10, 1_000_000]
)  # of what it is to read: less and more than a pipe and its buffers hold
def test_one_that_dies_without_reading_costs_nothing(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    begun = _remember(monkeypatch, "")
    monkeypatch.setattr(RigConfig, "model_dump_json", lambda self: begun[0].wait() or "x" * length)
    done = False
    with sensors_compiled_meanwhile(rig("small")):
        done = True
    assert done
    assert begun[0].returncode == 0
