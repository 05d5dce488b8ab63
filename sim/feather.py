"""Columns of feather files that are not trusted. Knows Arrow; knows nothing about recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

MAX_ROWS = 2_000_000


def feather_columns(source: Path | bytes, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those columns of a file or of its bytes, each (N,) of its own dtype; 1 to MAX_ROWS rows.

    Raises:
        ValueError: no feather file, a column is missing, or there are more rows, or none; one line without the file's name.
    """
    import pyarrow  # takes a quarter of a second, which only who opens such a file should pay
    from pyarrow import dataset, feather

    def opened() -> Any:
        return pyarrow.BufferReader(source) if isinstance(source, bytes) else pyarrow.OSFile(str(source))

    try:
        # Heads alone say how many rows there are: a few bytes may hold gigabytes.
        rows = dataset.FeatherFileFormat().make_fragment(opened()).count_rows()
        if 0 < rows <= MAX_ROWS:
            table = feather.read_table(opened(), columns=list(names), memory_map=False)
            return {name: table[name].to_numpy() for name in names}
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise ValueError(
            f"no feather file with the columns that are looked for ({' '.join(str(error).split())[:200]})"
        ) from None
    raise ValueError(f"{rows} rows; 1 to {MAX_ROWS} are read")
