"""Settings of numba, made once, before the first kernel. Import it where kernels are defined.

The `omp` threading layer: Open3D loads an old TBB, at which numba's default layer warns. Compiled code goes to a folder of
its own for each state of the sources: numba notices a change in the file of a kernel, but not in the files of the functions
that the kernel calls, and would run old code (or fail to read it where a class is gone).
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numba


def kernel_digest(package: Path) -> str:
    """16 hex digits over all files of a package that have to do with numba."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        source = path.read_bytes()
        if b"numba" in source:
            digest.update(source)
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


numba.config.THREADING_LAYER = "omp"
if not numba.config.CACHE_DIR:
    numba.config.CACHE_DIR = str(_cache_root() / "automedon" / "kernels" / kernel_digest(Path(__file__).parent))


# For kernels of the world: no reference counts (docs/decisions/0004), so they neither make nor return arrays.
KERNEL = {"cache": True, "_nrt": False}
# For functions that only kernels call: no wrappers for Python, which take long to compile for tuples of arrays.
INNER = {**KERNEL, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# For what `threads.over_environments` calls.
UNLOCKED = {**KERNEL, "nogil": True}
