"""The raster of the ground: what must be road, where lines lie, and the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.roads import cache as cache_module
from sim.roads import ground as ground_module
from sim.roads.driving_map import map_from_network
from sim.roads.ground import GroundClass, GroundRaster, draw_ground, lane_line, load_ground
from sim.roads.importer import import_map
from sim.roads.map_xml import MapError
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.polyline import offset
from sim.roads.sumo_reader import read_network
from sim.roads.towns import generate_town


@pytest.fixture(
    scope="module", params=["grid-small:5", "highway:2", "opendrive/Town10HD.xodr", "opendrive/Town01.xodr"]
)
def place(request: pytest.FixtureRequest) -> tuple[RoadNetwork, GroundRaster]:
    name: str = request.param
    if ":" in name:
        kind, _, seed = name.partition(":")
        network = read_network(generate_town(kind, int(seed)))
    else:
        folder: Path = request.getfixturevalue("shared_data")
        network = read_network(import_map(folder / name)[0])
    return network, draw_ground(network)


def _cells(ground: GroundRaster, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    column, row = np.floor((points - ground.origin) / ground.cell_m).astype(int).T
    return row, column


def _driving(network: RoadNetwork) -> list[int]:
    return np.flatnonzero(network.lane_kind == LaneKind.DRIVING).tolist()


def test_a_car_that_keeps_its_lane_never_leaves_the_drivable_ground(place: tuple[RoadNetwork, GroundRaster]) -> None:
    """All of a corridor 2.2 m wide along every lane and every path through a junction."""
    network, ground = place
    for lane in _driving(network):
        line = lane_line(network, lane)
        for side in np.linspace(-1.1, 1.1, 9):
            assert ground.drivable[_cells(ground, offset(line, side))].all(), network.lane_name[lane]


def test_the_corners_of_a_turning_car_stay_on_drivable_ground(place: tuple[RoadNetwork, GroundRaster]) -> None:
    """A car of 4.6 m x 1.85 m whose rear axle follows the path: all four corners, 0.8 m behind and 3.8 m before it."""
    network, ground = place
    for lane in _driving(network):
        if network.lane_junction[lane] < 0:
            continue
        follow = network.successor[network.successor_start[lane]]
        line = np.concatenate([lane_line(network, lane), lane_line(network, follow)[1:5]])
        yaw = np.concatenate(
            [
                network.point_yaw[network.point_start[lane] : network.point_start[lane + 1]],
                network.point_yaw[network.point_start[follow] :][1:5],
            ]
        )[: len(line)]
        ahead, left = np.stack([np.cos(yaw), np.sin(yaw)], 1), np.stack([-np.sin(yaw), np.cos(yaw)], 1)
        for along, side in ((3.8, 0.92), (3.8, -0.92), (-0.8, 0.92), (-0.8, -0.92)):
            corners = line + along * ahead + side * left
            assert ground.drivable[_cells(ground, corners[1:-4])].all(), network.lane_name[lane]


def test_drivable_ground_is_road_or_painted_road(place: tuple[RoadNetwork, GroundRaster]) -> None:
    _, ground = place
    on_road = [GroundClass.ROAD, GroundClass.LINE_WHITE, GroundClass.LINE_YELLOW]
    on_road += [GroundClass.STOP_LINE, GroundClass.CROSSWALK]
    assert np.array_equal(ground.drivable == 1, np.isin(ground.classes, on_road))
    assert ground.classes.dtype == ground.drivable.dtype == np.uint8
    assert not ground.drivable[[0, -1]].any()
    assert not ground.drivable[:, [0, -1]].any()


def test_lines_lie_between_lanes_and_not_under_wheels(place: tuple[RoadNetwork, GroundRaster]) -> None:
    """Lane centres are free of lines; the border between two lanes of one direction is dashed white."""
    network, ground = place
    for lane in _driving(network):
        if network.lane_junction[lane] >= 0 or network.lane_length_m[lane] < 30:
            continue
        line = lane_line(network, lane)
        centre = ground.classes[_cells(ground, line[2:-2])]
        assert (centre == GroundClass.ROAD).all()
        if network.lane_left[lane] >= 0:
            border = ground.classes[_cells(ground, offset(line, 0.5 * network.lane_width_m[lane]))][3:-3]
            share = np.mean(border == GroundClass.LINE_WHITE)
            assert 0.2 < share < 0.7
            assert set(np.unique(border)) <= {GroundClass.ROAD, GroundClass.LINE_WHITE}


def test_lines_between_directions_are_yellow(place: tuple[RoadNetwork, GroundRaster]) -> None:
    network, ground = place
    found = 0
    lines = {lane: lane_line(network, lane) for lane in _driving(network) if network.lane_junction[lane] < 0}
    for lane, line in lines.items():
        if len(line) < 20 or network.lane_left[lane] >= 0:
            continue
        middle = len(line) // 2
        border = offset(line, 0.5 * network.lane_width_m[lane])[middle]
        for other, oncoming in lines.items():
            far = offset(oncoming, 0.5 * network.lane_width_m[other])
            nearest = np.argmin(np.hypot(*(far - border).T))
            opposite = np.cos(
                network.point_yaw[network.point_start[other] + nearest]
                - network.point_yaw[network.point_start[lane] + middle]
            )
            if opposite < -0.9 and np.hypot(*(far[nearest] - border)) < 0.3:
                assert ground.classes[_cells(ground, border[None])][0] == GroundClass.LINE_YELLOW
                found += 1
    assert found > 4


def test_stop_lines_stand_where_somebody_has_to_stop(place: tuple[RoadNetwork, GroundRaster]) -> None:
    network, ground = place
    for lane in _driving(network):
        if network.lane_junction[lane] >= 0 or network.lane_length_m[lane] < 5:
            continue
        follow = network.successor[network.successor_start[lane] : network.successor_start[lane + 1]]
        controls = set(network.lane_control[follow].tolist())
        line = lane_line(network, lane)
        yaw = network.point_yaw[network.point_start[lane + 1] - 1]
        spot = line[-1] - 0.35 * np.array([np.cos(yaw), np.sin(yaw)])
        here = ground.classes[_cells(ground, spot[None])][0]
        if controls & {LaneControl.SIGNAL, LaneControl.STOP}:
            assert here == GroundClass.STOP_LINE
        elif controls <= {LaneControl.PRIORITY}:
            assert here != GroundClass.STOP_LINE


def test_crosswalks_are_striped(place: tuple[RoadNetwork, GroundRaster]) -> None:
    network, ground = place
    crossings = np.flatnonzero(network.lane_kind == LaneKind.CROSSING)
    assert len(crossings) == len(network.crosswalks)
    for lane in crossings:
        line = lane_line(network, lane)
        if network.lane_length_m[lane] < 5:
            continue
        s = np.linspace(0.2, 0.8, 400)[:, None]
        along = ground.classes[_cells(ground, line[0] + s * (line[-1] - line[0]))]
        assert 0.25 < np.mean(along == GroundClass.CROSSWALK) < 0.75


def test_no_sidewalk_without_kerb_beside_the_road(place: tuple[RoadNetwork, GroundRaster]) -> None:
    _, ground = place
    road, walk = ground.drivable == 1, ground.classes == GroundClass.SIDEWALK
    assert not (road[:, 1:] & walk[:, :-1]).any()
    assert not (road[:, :-1] & walk[:, 1:]).any()
    assert not (road[1:] & walk[:-1]).any()


def test_the_cache_gives_back_what_was_drawn_and_survives_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "cache_folder", lambda: tmp_path)
    network = read_network(generate_town("grid-small", 6))
    drawn = load_ground(network, "a" * 64)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(ground_module, "draw_ground", None)  # drawing again would fail
        cached = load_ground(network, "a" * 64)
    for damage in (b"", file.read_bytes()[:1000], b"junk" * 100):
        file.write_bytes(damage)
        again = load_ground(network, "a" * 64)
        assert np.array_equal(again.classes, drawn.classes)
    assert np.array_equal(cached.classes, drawn.classes)
    assert np.array_equal(cached.drivable, drawn.drivable)
    assert np.array_equal(cached.origin, drawn.origin)
    assert cached.cell_m == drawn.cell_m


def test_a_large_map_gets_larger_cells_and_stays_small() -> None:
    network = read_network(generate_town("grid-small", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground_module, "MAX_BYTES", 12_000_000)
        ground = draw_ground(network)
    assert ground.cell_m > 0.1
    assert ground.classes.nbytes + ground.drivable.nbytes <= 12_000_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground_module, "MAX_BYTES", 100_000)
        with pytest.raises(MapError, match=r"at most 0\.0 square km are drawn; cut out"):
            draw_ground(network)


def test_a_map_of_more_ground_than_is_drawn_is_named_in_one_line() -> None:
    lanes = ((0, "0,0 9000,0"), (1, "9000,0 9000,9000"))
    edges = "".join(
        f'<edge id="e{k}"><lane id="e{k}_0" index="0" speed="9" length="1" shape="{shape}"/></edge>'
        for k, shape in lanes
    )
    with pytest.raises(
        MapError, match=r"^wide: 9\.0 km x 9\.0 km of ground, and at most 37\.5 square km are drawn; cut out"
    ):
        map_from_network("wide", f"<net>{edges}</net>".encode())
