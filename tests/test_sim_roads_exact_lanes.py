"""Lanes that change their width: where the file has them, joined without a jump, on ground without a hole, in either mirror."""

from __future__ import annotations

import re
from pathlib import Path

import defusedxml.ElementTree as tree
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_sim_roads_opendrive_roads import lane_xml

from sim.roads.driving_map import load_map, map_from_network
from sim.roads.exact_lanes import bending_roads
from sim.roads.ground import draw_ground
from sim.roads.importer import import_map
from sim.roads.left_hand import mirror_opendrive, mirrored_network
from sim.roads.map_xml import MapError
from sim.roads.network import LaneKind, RoadNetwork
from sim.roads.sumo_reader import read_network

GROWS = (60.0, 100.0)  # where a lane grows from nothing to 3 m, and the middle of the road gives way by 1 m
WIDTH_M, GROWN_M, SHIFT_M = 3.5, 3.0, 1.0
SHAPES = (
    '<geometry s="0" x="0" y="0" hdg="0" length="160"><line/></geometry>',
    '<geometry s="0" x="0" y="0" hdg="0.5" length="50"><line/></geometry>'
    '<geometry s="50" x="43.8791280945" y="23.9712769302" hdg="0.5" length="110"><arc curvature="0.01"/></geometry>',
)


def _cubic(start: float, end: float, rise: float) -> tuple[float, float, float, float, float]:
    """Station and coefficients of the polynomial that rises from 0, level at both ends."""
    length = end - start
    return start, 0.0, 0.0, 3 * rise / length**2, -2 * rise / length**3


def _file(plan: str = SHAPES[0], rule: str = "RHT", kind: str = "driving") -> str:
    """A road of 160 m with a lane to either side of its middle, and a second one on the right, of that kind, that grows."""
    taper = [(0.0, 0.0, 0.0, 0.0, 0.0), _cubic(*GROWS, GROWN_M), (GROWS[1], GROWN_M, 0.0, 0.0, 0.0)]
    shift = [_cubic(*GROWS, SHIFT_M), (GROWS[1], SHIFT_M, 0.0, 0.0, 0.0)]
    offsets = "".join(f'<laneOffset s="{s}" a="{a}" b="{b}" c="{c}" d="{d}"/>' for s, a, b, c, d in shift)
    left, right = (
        lane_xml(1, (0, WIDTH_M, 0, 0, 0)),
        lane_xml(-1, (0, WIDTH_M, 0, 0, 0)) + lane_xml(-2, *taper, kind=kind),
    )
    return (
        f'<OpenDRIVE><header revMajor="1" revMinor="4"/><road id="1" junction="-1" length="160" rule="{rule}"><link/>'
        '<type s="0" type="town"><speed max="50" unit="km/h"/></type>'
        f'<planView>{plan}</planView><lanes>{offsets}<laneSection s="0"><left>{left}</left>'
        f'<center><lane id="0" type="none"/></center><right>{right}</right></laneSection></lanes></road></OpenDRIVE>'
    )


@pytest.fixture(scope="module", params=SHAPES)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RoadNetwork:
    path = tmp_path_factory.mktemp("map") / "grows.xodr"
    path.write_text(_file(request.param))
    return read_network(import_map(path)[0])


@pytest.fixture(scope="module", params=["driving", "exit"])
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RoadNetwork:
    """The road along the x axis."""
    path = tmp_path_factory.mktemp("map") / "straight.xodr"
    path.write_text(_file(kind=request.param))
    net_xml, _ = import_map(path)
    shift = [float(v) for v in tree.fromstring(net_xml).find("location").get("netOffset").split(",")]
    network = read_network(net_xml)
    assert shift == [0.0, 0.0], "netconvert moved a map that needs no moving"
    return network


def _rising(x: np.ndarray, rise: float) -> np.ndarray:
    t = np.clip((x - GROWS[0]) / (GROWS[1] - GROWS[0]), 0.0, 1.0)
    return rise * t**2 * (3 - 2 * t)


def test_lanes_and_widths_are_the_file_s_polynomials(straight: RoadNetwork) -> None:
    kinds = np.repeat(straight.lane_kind, np.diff(straight.point_start))
    outside = np.repeat(straight.lane_junction < 0, np.diff(straight.point_start))
    x, y, width = straight.point_x, straight.point_y, straight.point_width_m
    middle, grown = _rising(x, SHIFT_M), _rising(x, GROWN_M)
    centers = np.stack([middle + 0.5 * WIDTH_M, middle - 0.5 * WIDTH_M, middle - WIDTH_M - 0.5 * grown])
    widths = np.stack([np.full(len(x), WIDTH_M), np.full(len(x), WIDTH_M), grown])
    lane = np.argmin(np.abs(centers - y) + np.abs(widths - width), axis=0)
    places = np.arange(len(x))
    checked = outside & np.isin(kinds, (LaneKind.DRIVING, LaneKind.NARROW))
    np.testing.assert_allclose(y[checked], centers[lane, places][checked], atol=0.005)
    np.testing.assert_allclose(width[checked], widths[lane, places][checked], atol=0.01)
    assert set(lane[checked]) == {0, 1, 2}
    narrow = kinds == LaneKind.NARROW
    assert narrow.any()
    assert (width[narrow] < 1.85).all()
    assert (width[checked & ~narrow] > 1.75).all()


def test_lanes_meet_their_successors_without_gap_or_kink(network: RoadNetwork) -> None:
    joined = 0
    for lane in range(network.num_lanes):
        for after in network.successor[network.successor_start[lane] : network.successor_start[lane + 1]]:
            end, start = network.point_start[lane + 1] - 1, network.point_start[after]
            gap = np.hypot(network.point_x[end] - network.point_x[start], network.point_y[end] - network.point_y[start])
            assert gap < 0.01
            assert np.cos(network.point_yaw[end] - network.point_yaw[start]) > np.cos(np.radians(3.0))
            joined += 1
    assert joined >= 4


def test_neighbours_share_their_border(network: RoadNetwork) -> None:
    assert (network.lane_left >= 0).sum() == 1
    lane = int(np.argmax(network.lane_left >= 0))
    ends = []
    for k, side in ((lane, 0.5), (network.lane_left[lane], -0.5)):
        part = slice(network.point_start[k], network.point_start[k + 1])
        yaw = network.point_yaw[part]
        left = np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)
        line = np.stack([network.point_x[part], network.point_y[part]], axis=1)
        ends.append(line + side * network.point_width_m[part, None] * left)
    for corner in ends[0][2:-2]:
        assert np.hypot(*(ends[1] - corner).T).min() < 0.55  # border points stand up to a metre apart
    away = [float(np.hypot(*(ends[1] - corner).T).min()) for corner in ends[0]]
    assert np.median(away) < 0.3


def test_the_road_is_paved_without_a_hole(straight: RoadNetwork) -> None:
    """From the left lane's left border to the outermost right one, all along the road, joints included."""
    ground = draw_ground(straight)
    x = np.arange(1.0, 159.0, 0.2)
    low = _rising(x, SHIFT_M) - WIDTH_M - _rising(x, GROWN_M) + 0.3
    high = _rising(x, SHIFT_M) + WIDTH_M - 0.3
    for share in np.linspace(0.0, 1.0, 50):
        y = low + share * (high - low)
        column, row = np.floor((np.stack([x, y], axis=1) - ground.origin) / ground.cell_m).astype(int).T
        assert ground.drivable[row, column].all()
    beyond = np.stack([np.concatenate([x, x]), np.concatenate([low - 0.8, high + 0.8])], axis=1)
    column, row = np.floor((beyond - ground.origin) / ground.cell_m).astype(int).T
    assert not ground.drivable[row, column].any()


@pytest.mark.parametrize("rule", ["RHT", "LHT"])
def test_lanes_lie_where_the_file_has_them_when_its_offset_jumps(tmp_path: Path, rule: str) -> None:
    """At 80 m the lanes begin 3.5 m further to the left of the reference line, and one is added there: no lane moves."""
    side, name = (1, "right") if rule == "RHT" else (-1, "left")
    sections = "".join(
        f'<laneSection s="{s}"><center><lane id="0" type="none"/></center><{name}>'
        + "".join(lane_xml(-side * (k + 1), (0, WIDTH_M, 0, 0, 0)) for k in range(lanes))
        + f"</{name}></laneSection>"
        for s, lanes in ((0, 2), (80, 3))
    )
    text = _file(rule=rule)
    offset = f'<laneOffset s="80" a="{side * WIDTH_M}" b="0" c="0" d="0"/>'
    head, tail = text[: text.index("<laneOffset")], text[text.index("</lanes>") :]
    path = tmp_path / "steps.xodr"
    path.write_text(head + offset + sections + tail)
    net_xml, report = import_map(path)
    network = read_network(net_xml)
    shift = [float(v) for v in tree.fromstring(net_xml).find("location").get("netOffset").split(",")]
    found = []
    for lane in np.flatnonzero((network.lane_kind == LaneKind.DRIVING) & (network.lane_junction < 0)):
        part = slice(network.point_start[lane], network.point_start[lane + 1])
        x, y = network.point_x[part] - shift[0], (network.point_y[part] - shift[1]) * side
        np.testing.assert_allclose(y, y[0], atol=1e-3)
        found.append((bool(x.mean() > 80.0), round(float(y[0]), 2)))
    assert sorted(found) == [(False, -5.25), (False, -1.75), (True, -5.25), (True, -1.75), (True, 1.75)]
    assert report.left_hand == (rule == "LHT")


def test_in_the_mirror_everything_is_the_same(tmp_path: Path) -> None:
    """Left-hand traffic on the mirror image of the file is the mirror image of right-hand traffic."""
    plain, image = tmp_path / "plain.xodr", tmp_path / "image.xodr"
    plain.write_text(_file(SHAPES[1]))
    root = tree.fromstring(_file(SHAPES[1]))
    mirror_opendrive(root)
    for road in root.iter("road"):
        road.set("rule", "LHT")
    image.write_bytes(tree.tostring(root))
    ours, theirs = mirrored_network(read_network(import_map(plain)[0])), read_network(import_map(image)[0])
    assert theirs.left_hand
    for name in ("point_x", "point_y", "point_width_m", "lane_kind", "successor", "lane_left", "lane_right"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=2e-3, err_msg=name)


def test_roads_of_constant_width_are_left_to_netconvert(shared_data: Path) -> None:
    bending = {
        name: set(bending_roads(tree.parse(shared_data / "opendrive" / f"{name}.xodr").getroot())[0])
        for name in ("Town01", "Town02", "Town10HD", "e6mini", "multi_intersections", "two_plus_one")
    }
    assert bending.pop("multi_intersections") == {"202", "209"}
    assert bending.pop("two_plus_one") == {"1"}
    assert not any(bending.values())


def test_more_work_than_a_map_needs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "endless.xodr"
    path.write_text(_file())
    monkeypatch.setattr("sim.roads.exact_lanes.MOST_WORK", 1000)
    monkeypatch.setattr("sim.roads.importer.read_cached", lambda name: None)
    with pytest.raises(MapError, match=r"endless\.xodr: too many lanes change their width; cut out") as caught:
        import_map(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_absurd_widths_and_offsets_are_imported_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    text = _file(data.draw(st.sampled_from(SHAPES)))
    number = st.sampled_from(["0", "-5", "1e30", "1e308", "-1e308", "nan", "inf", "x", "99999"])
    for key in data.draw(st.sets(st.sampled_from(["a", "c", "d", "s", "sOffset", "curvature", "length"]), min_size=1)):
        head, mark, rest = text.rpartition(f' {key}="')
        if mark:
            text = f"{head}{mark}{data.draw(number)}{rest[rest.index(chr(34)) :]}"
    path = tmp_path / "absurd.xodr"
    path.write_text(text)
    try:
        net_xml, _ = import_map(path)
    except MapError as error:
        said = str(error)
    else:
        said = ""
        assert np.isfinite(read_network(net_xml).point_width_m).all()
    assert "\n" not in said


@pytest.mark.parametrize("widths", ["", "3.0 wide", "3.0 nan", "3.0 -1.0", "3.0 1e9"])
def test_a_network_with_absurd_widths_is_refused_in_one_line(widths: str) -> None:
    net_xml = load_map("grid-small").net_xml.decode()
    param = f'<param key="widths" value="{widths}"/>'
    broken, count = re.subn(r'(<lane id="[^:][^>]*)/>', rf"\1>{param}</lane>", net_xml, count=1)
    assert count == 1
    with pytest.raises(MapError, match=r"widths must be numbers in \[0, 30.0\]"):
        map_from_network("broken", broken.encode())
