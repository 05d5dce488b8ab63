"""Compiled kernels are kept for exactly the sources that they were compiled from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sim
from sim.numba_setup import kernel_digest


@pytest.mark.parametrize(
    "name", ["simd.py", "simd_memory.py", "world_kernels.py", "traffic/moves.py", "sensors/cast.py"]
)
def test_a_change_in_what_kernels_are_made_of_is_another_cache(tmp_path: Path, name: str) -> None:
    package = Path(
        shutil.copytree(Path(sim.__file__).parent, tmp_path / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    )
    before = kernel_digest(package)
    changed = package / name
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert kernel_digest(package) != before


def test_a_change_elsewhere_is_none(tmp_path: Path) -> None:
    package = Path(
        shutil.copytree(Path(sim.__file__).parent, tmp_path / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    )
    before = kernel_digest(package)
    (package / "reward.py").write_bytes((package / "reward.py").read_bytes() + b"\n")
    assert kernel_digest(package) == before
