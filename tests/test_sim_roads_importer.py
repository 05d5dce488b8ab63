"""Foreign map files: what is kept of good ones, and one clear line for bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.roads.driving_map import load_map
from sim.roads.highway_scenery import highway_lanes
from sim.roads.importer import import_map
from sim.roads.left_hand import mirror_net_xml
from sim.roads.map_xml import MapError
from sim.roads.network import FAST_ROAD_MPS, LaneKind, RoadNetwork
from sim.roads.sumo_reader import read_network

GOOD = (
    "opendrive/Town01.xodr", "opendrive/Town02.xodr", "opendrive/Town10HD.xodr", "opendrive/curves_elevation.xodr",
    "opendrive/e6mini.xodr", "opendrive/e6mini-lht.xodr", "opendrive/fabriksgatan_traffic_lights.xodr",
    "opendrive/jolengatan.xodr", "opendrive/multi_intersections.xodr", "opendrive/two_plus_one.xodr",
    "osm/garching_intersection.osm",
)  # fmt: skip


def _driving(network: RoadNetwork) -> np.ndarray:
    return (network.lane_kind == LaneKind.DRIVING) & (network.lane_junction < 0)


@pytest.mark.parametrize("name", GOOD)
def test_the_report_agrees_with_the_network(shared_data: Path, name: str) -> None:
    net_xml, report = import_map(shared_data / name)
    network = read_network(net_xml)
    assert report.lanes == _driving(network).sum() > 0
    assert report.lane_km == pytest.approx(network.lane_length_m[_driving(network)].sum() / 1000, abs=1e-3)
    assert report.signals == len(network.signal_start) - 1
    ends = {network.lane_name[k] for k in np.flatnonzero(_driving(network)) if not _followers(network, k)}
    assert set(report.dead_ends) == ends
    assert import_map(shared_data / name)[0] == net_xml, "the same file must give the same bytes"


def _followers(network: RoadNetwork, lane: int) -> list[int]:
    return network.successor[network.successor_start[lane] : network.successor_start[lane + 1]].tolist()


def test_town01_keeps_its_size_signals_and_sidewalks(shared_data: Path) -> None:
    _, report = import_map(shared_data / "opendrive" / "Town01.xodr")
    assert report.signals == 12  # its T junctions, all of them signalised in CARLA
    assert report.dead_ends == ()
    assert report.sidewalks == report.lanes
    assert report.crossings > 0
    assert 4.5 < report.lane_km < 5.5


def test_a_road_that_people_walk_along_is_no_highway(shared_data: Path) -> None:
    """Town10HD allows 50 mph in the middle of the city."""
    town = read_network(import_map(shared_data / "opendrive" / "Town10HD.xodr")[0])
    assert (town.lane_limit_mps[_driving(town)] > FAST_ROAD_MPS).sum() > 10
    assert highway_lanes(town) == set()
    assert not town.lane_fast.any()


@pytest.mark.parametrize("name", ["Town01", "Town02", "multi_intersections"])
def test_straight_pieces_of_the_source_lie_between_the_lanes(shared_data: Path, name: str) -> None:
    """Where OpenDRIVE's plan view says that a road's reference line is, two lanes of opposite directions meet."""
    import defusedxml.ElementTree as tree

    path = shared_data / "opendrive" / f"{name}.xodr"
    net_xml, _ = import_map(path)
    network = read_network(net_xml)
    location = tree.fromstring(net_xml).find("location")
    shift = np.array([float(v) for v in location.get("netOffset").split(",")])
    outside = np.repeat(_driving(network), np.diff(network.point_start))
    points = np.stack([network.point_x[outside], network.point_y[outside]], axis=1)
    half = 0.5 * np.repeat(network.lane_width_m, np.diff(network.point_start))[outside]
    checked = 0
    for road in tree.parse(path).getroot().iter("road"):
        shifted = any(float(part.get(key)) for part in road.iter("laneOffset") for key in "abcd")
        for piece in road.iter("geometry"):
            length = float(piece.get("length"))
            if road.get("junction") != "-1" or length < 8.0 or piece.find("line") is None or shifted:
                continue
            yaw = float(piece.get("hdg"))
            middle = np.array([float(piece.get("x")), float(piece.get("y"))]) + shift
            middle += 0.5 * length * np.array([np.cos(yaw), np.sin(yaw)])
            gap = np.hypot(*(points - middle).T)
            nearest = np.argmin(gap)
            assert abs(gap[nearest] - half[nearest]) < 0.6
            checked += 1
    assert checked > 0


def test_ill_formed_xml_names_the_place(shared_data: Path) -> None:
    with pytest.raises(MapError, match=r"ill_formed.xodr: not well-formed XML: .*line \d+, column \d+") as caught:
        import_map(shared_data / "opendrive" / "ill_formed.xodr")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("empty.xodr", b"", "an empty file"),
        ("junk.osm", bytes(range(256)), "not well-formed XML"),
        ("cut.xodr", b"<OpenDRIVE><road", "not well-formed XML"),
        ("wrong.xodr", b"<osm/>", "begins with <osm>"),
        ("wrong.osm", b"<OpenDRIVE/>", "begins with <OpenDRIVE>"),
        ("roadless.xodr", b"<OpenDRIVE><header/></OpenDRIVE>", "holds no road"),
        ("wayless.osm", b'<osm version="0.6"/>', "holds no way"),
        ("map.pdf", b"%PDF", "a map file ends with"),
        ("bomb.osm", b'<!DOCTYPE a [<!ENTITY b "c">]><osm>&b;</osm>', "entities, which are refused"),
        ("lines.net.xml", b"<net/>", "no lane for passenger cars"),
        (
            "river.osm",
            b'<osm version="0.6"><node id="1" lat="48" lon="11"/><node id="2" lat="48.001" lon="11"/><way id="3">'
            b'<nd ref="1"/><nd ref="2"/><tag k="waterway" v="river"/></way></osm>',
            "river.osm: ",
        ),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MapError, match=complaint) as caught:
        import_map(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def _streets(*sides: str, also: str = "") -> str:
    """An OpenStreetMap file with a street of 110 m for each side; the side is what its tag driving_side says, "" for no tag."""
    nodes, ways = "", ""
    for k, side in enumerate(sides):
        first, last, north = 2 * k + 1, 2 * k + 2, 48 + 0.001 * k
        nodes += f'<node id="{first}" lat="{north}" lon="11"/><node id="{last}" lat="{north}" lon="11.0015"/>'
        tags = '<tag k="highway" v="residential"/>' + (f'<tag k="driving_side" v="{side}"/>' if side else "")
        ways += f'<way id="{k + 1}"><nd ref="{first}"/><nd ref="{last}"/>{tags}</way>'
    return f'<osm version="0.6">{nodes}{ways}{also}</osm>'


@pytest.mark.parametrize(
    ("sides", "left_hand", "mixed"),
    [
        (("left", "", ""), True, False),
        (("right", "", ""), False, False),
        (("", "", ""), False, False),
        (("left", "right", "right"), False, True),
        (("left", "left", "right"), True, True),
    ],
)
def test_streets_say_on_which_side_one_drives(
    tmp_path: Path, sides: tuple[str, ...], left_hand: bool, mixed: bool
) -> None:
    """The greater part of them, and of nothing that is no street."""
    path = tmp_path / "streets.osm"
    path.write_text(
        _streets(*sides, also='<way id="9"><nd ref="1"/><nd ref="2"/><tag k="driving_side" v="left"/></way>')
    )
    _, report = import_map(path)
    assert report.left_hand == left_hand
    assert any("give --left-hand or --right-hand" in note for note in report.notes) == mixed
    for asked in (True, False):
        _, report = import_map(path, left_hand=asked)
        assert report.left_hand == asked
        assert not any("driving_side" in note for note in report.notes)


def test_a_network_for_the_other_side_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "town.net.xml"
    path.write_bytes(load_map("grid-small").net_xml)
    assert import_map(path, left_hand=False)[0] == path.read_bytes()
    with pytest.raises(
        MapError, match=r"town\.net\.xml: made for driving on the right, .*; leave out --left-hand"
    ) as caught:
        import_map(path, left_hand=True)
    assert "\n" not in str(caught.value)
    path.write_bytes(mirror_net_xml(path.read_bytes()))
    assert import_map(path, left_hand=True)[1].left_hand
    with pytest.raises(MapError, match=r"made for driving on the left, .*; leave out --right-hand"):
        import_map(path, left_hand=False)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(MapError, match=r"nowhere\.xodr: no such file"):
        import_map("nowhere.xodr")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_imported_or_refused(shared_data: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = (shared_data / "opendrive" / "fabriksgatan_traffic_lights.xodr").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    middle = data.draw(st.sampled_from([b"", b"0", b"-9", b"nan", b"1e30", b"x"]))
    path = tmp_path / "damaged.xodr"
    path.write_bytes(whole[:at] + middle + whole[at + data.draw(st.sampled_from([1, 4])) :])
    try:
        net_xml, report = import_map(path)
    except MapError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert report.lanes == _driving(read_network(net_xml)).sum()
    assert "\n" not in refusal
