"""Files that can be made again, in the user's cache folder. Knows names and bytes; knows nothing about what is in them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

MAX_BYTES = 1_000_000_000


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "automedon"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "automedon"


def read_cached(name: str) -> bytes | None:
    """The bytes kept under that name, or None."""
    try:
        return (cache_folder() / name).read_bytes()
    except OSError:
        return None


def write_cached(name: str, data: bytes) -> None:
    """Keeps bytes under that name; the oldest files go where all would take more than 1 GB. A read-only home keeps nothing."""
    path = cache_folder() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            file.write(data)
        os.replace(file.name, path)
        _prune(path.parent)
    except OSError:
        pass


def _prune(folder: Path) -> None:
    kept = sorted(
        ((s.st_mtime, s.st_size, p) for p in folder.iterdir() if (s := p.stat()) and p.is_file()), reverse=True
    )
    total = 0
    for _, size, path in kept:
        total += size
        if total > MAX_BYTES:
            path.unlink(missing_ok=True)
