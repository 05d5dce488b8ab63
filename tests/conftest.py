"""Fixtures that every test may use: where the real recordings and maps are, a town, and a moment in it."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from synthetic_recordings import write_waymo

from sim.drive_batch import EnvConfig
from sim.roads.driving_map import DrivingMap, load_map
from sim.world import World, WorldState

REAL_RECORDINGS = (
    "waymo_motion/tfrecord-00000-of-01000_325.json",
    "waymo_motion/tfrecord-00002-of-01000_407.json",
    "argoverse2/adcf7d18-0510-35b0-a2fa-b4cea13a6d76",
)

# How long an example takes is the machine's business, not the code's: by default hypothesis fails after 0.2 s.
# The same examples each time, so that a change is judged by what it changes; --hypothesis-profile=explore looks for new ones.
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings, maps and scenarios; skips where it is absent."""
    named = os.environ.get("AUTOMEDON_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set AUTOMEDON_TEST_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="session")
def town() -> DrivingMap:
    """The small grid town; not to be changed."""
    return load_map("grid-small")


@pytest.fixture(scope="session")
def state(town: DrivingMap) -> WorldState:
    """Two environments in the town after three seconds of driving off; not to be changed."""
    world = World(town, EnvConfig.of().world, 2)
    world.reset(np.ones(2, np.bool_), np.array([3, 4], np.uint64), np.zeros(2, np.int64))
    for _ in range(30):
        world.step(np.full((2, 2), [0.0, 0.3], np.float32))
    return world.state


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> DrivingMap:
    """An invented recording of Waymo's form."""
    return load_map(str(write_waymo(tmp_path_factory.mktemp("waymo") / "invented.json")))


@pytest.fixture(scope="module", params=REAL_RECORDINGS)
def real(request: pytest.FixtureRequest, shared_data: Path) -> DrivingMap:
    """A real recording; skips without it."""
    path = shared_data / request.param
    if not path.exists():
        pytest.skip(f"no {path}")
    return load_map(str(path))
