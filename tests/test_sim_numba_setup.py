"""Compiled kernels are kept for exactly the sources that they were compiled from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sim
from sim.numba_setup import kernel_digest

KERNEL_FILES = ["simd.py", "simd_memory.py", "world_kernels.py", "traffic/moves.py", "sensors/cast.py"]


@pytest.mark.parametrize(("name", "matters"), [*((name, True) for name in KERNEL_FILES), ("reward.py", False)])
def test_kernels_are_compiled_anew_where_their_sources_change(tmp_path: Path, name: str, matters: bool) -> None:
    package, source = tmp_path / "sim", Path(sim.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = kernel_digest(package)
    assert before == kernel_digest(source)
    changed = package / name
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert (kernel_digest(package) != before) == matters
