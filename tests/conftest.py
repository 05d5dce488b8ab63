"""Fixtures that every test may use: where the real recordings and maps are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings, maps and scenarios; skips where it is absent."""
    named = os.environ.get("AUTOMEDON_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set AUTOMEDON_TEST_DATA to a folder that holds them")
    return folder
