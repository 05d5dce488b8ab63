"""Maps by name or path, their errors, and their picture."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from sim.roads import driving_map as module
from sim.roads.driving_map import MapError, load_map, map_from_network, town_names
from sim.roads.picture import draw_map
from sim.roads.towns import generate_town


def test_a_shipped_town_needs_no_netconvert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "generate_town", None)  # generating would fail
    for name in town_names():
        loaded = load_map(name)
        assert loaded.name == name
        assert loaded.digest == hashlib.sha256(loaded.net_xml).hexdigest()
        assert load_map(f"{name}:0") is not None


def test_shipped_files_are_reproducible_archives() -> None:
    for name in town_names():
        data = files("sim.roads").joinpath("data", f"{name}-0.net.xml.gz").read_bytes()
        assert data[4:8] == bytes(4), "the time in the header must be 0"
        assert load_map(name).net_xml == gzip.decompress(data)


def test_shipped_towns_are_what_the_generator_makes() -> None:
    """Names of lanes rather than bytes, because another release of netconvert may round differently."""
    for name in town_names():
        made = map_from_network(name, generate_town(name, 0))
        assert made.network.lane_name == load_map(name).network.lane_name


def test_a_map_stays_in_memory_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "town.net.xml"
    path.write_bytes(generate_town("grid-small", 1))
    first = load_map(str(path))
    assert load_map(str(path)) is first
    path.write_bytes(generate_town("grid-small", 2))
    assert load_map(str(path)).digest != first.digest


def test_a_number_after_the_colon_selects_the_town_and_the_seed_the_scenery() -> None:
    town, other, dressed = load_map("grid-small:12"), load_map("grid-small:13"), load_map("grid-small:12", seed=1)
    assert town.digest != other.digest
    assert town.digest == dressed.digest
    assert len(town.scenery) != len(dressed.scenery) or not np.array_equal(town.scenery.center, dressed.scenery.center)


def test_a_map_comes_back_from_the_bytes_that_a_log_holds() -> None:
    town = load_map("grid-small", seed=4)
    again = map_from_network("grid-small", town.net_xml, seed=4)
    assert np.array_equal(again.network.point_x, town.network.point_x)
    assert np.array_equal(again.scenery.center, town.scenery.center)
    assert np.array_equal(again.ground.classes, town.ground.classes)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "grid-smal",
            [
                "Known: grid-small, grid-large, town, radial, highway",
                ".xodr, .osm or .net.xml",
                "Did you mean 'grid-small'?",
            ],
        ),
        ("Town1", ["no map named 'Town1'", "a path to a"]),
        ("grid-small:x", ["after the colon stands a seed"]),
        ("grid-small:", ["after the colon stands a seed"]),
        ("grid-small:-3", ["after the colon stands a seed"]),
        ("nowhere/Town01.xodr", ["nowhere/Town01.xodr: no such file"]),
        ("", ["no map named ''"]),
    ],
)
def test_an_unknown_map_is_explained_in_one_line(name: str, parts: list[str]) -> None:
    with pytest.raises(MapError) as caught:
        load_map(name)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_a_file_nearby_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Town01.xodr").write_text("<OpenDRIVE/>")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MapError, match=r"Did you mean 'Town01\.xodr'\?"):
        load_map("Town1")


def test_the_picture_shows_roads_where_they_are(tmp_path: Path) -> None:
    town = load_map("grid-small")
    draw_map(town, tmp_path / "town.png")
    picture = cv2.imread(str(tmp_path / "town.png"))
    assert max(picture.shape) <= 2400
    rows, columns = town.ground.classes.shape
    assert picture.shape[0] / picture.shape[1] == pytest.approx(rows / columns, rel=0.01)
    scale = picture.shape[0] / rows
    grey = 0
    for lane in range(5):
        middle = (town.network.point_start[lane] + town.network.point_start[lane + 1]) // 2
        x = (town.network.point_x[middle] - town.ground.origin[0]) / town.ground.cell_m * scale
        y = picture.shape[0] - (town.network.point_y[middle] - town.ground.origin[1]) / town.ground.cell_m * scale
        color = picture[int(y), int(x)].astype(int)
        grey += color.max() - color.min() < 25
    assert grey >= 4
