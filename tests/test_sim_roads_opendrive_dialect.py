"""What netconvert cannot read in OpenDRIVE files: limits of roads, borders, kinds of lanes, loops, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import defusedxml.ElementTree as tree
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sim_roads_opendrive_roads import lane_xml

from sim.roads.importer import ImportReport, import_map
from sim.roads.left_hand import mirror_opendrive
from sim.roads.map_xml import MapError
from sim.roads.network import LaneKind, RoadNetwork
from sim.roads.opendrive_dialect import rewrite_for_netconvert
from sim.roads.opendrive_roads import DRIVING_KINDS, lanes_across, read_road
from sim.roads.sumo_reader import read_network

MPH = 0.44704
LINE = '<geometry s="0" x="0" y="0" hdg="0" length="160"><line/></geometry>'
RING = "".join(
    f'<geometry s="{k * 25 * np.pi}" x="{50 * x}" y="{50 * y}" hdg="{k * np.pi / 2}" length="{25 * np.pi}"><arc curvature="0.02"/>'
    "</geometry>"
    for k, (x, y) in enumerate([(0, -1), (1, 0), (0, 1), (-1, 0)])
)
TAPER = [(0, 0, 0, 0, 0), (60, 0, 0, 3 * 3 / 1600, -2 * 3 / 64000), (100, 3, 0, 0, 0)]


def section_xml(s: float, left: str, right: str) -> str:
    center = '<center><lane id="0" type="none"/></center>'
    return f'<laneSection s="{s}"><left>{left}</left>{center}<right>{right}</right></laneSection>'


def file_xml(
    sections: str, types: str = "", plan: str = LINE, length: float = 160.0, rule: str = "RHT", before: str = ""
) -> str:
    """A document with one road. before: lane offsets."""
    return (
        f'<OpenDRIVE><header revMajor="1" revMinor="4"/><road id="1" junction="-1" length="{length}" rule="{rule}">{types}'
        f"<planView>{plan}</planView><lanes>{before}{sections}</lanes></road></OpenDRIVE>"
    )


def imported(folder: Path, text: str, **options: bool) -> tuple[RoadNetwork, ImportReport]:
    path = folder / "road.xodr"
    path.write_text(text)
    net_xml, report = import_map(path, **options)
    return read_network(net_xml), report


def between(network: RoadNetwork) -> np.ndarray:
    """Lanes for cars outside junctions."""
    return np.flatnonzero((network.lane_kind == LaneKind.DRIVING) & (network.lane_junction < 0))


def middle_of(network: RoadNetwork, lane: int) -> tuple[float, float]:
    part = slice(network.point_start[lane], network.point_start[lane + 1])
    return float(network.point_x[part].mean()), float(network.point_y[part].mean())


def type_xml(s: float, limit: str) -> str:
    return f'<type s="{s}" type="town"><speed {limit}/></type>'


TWO_LANES = section_xml(0, lane_xml(1), lane_xml(-1))


@pytest.mark.parametrize(
    ("limit", "mps"),
    [
        ('max="25" unit="mph"', 25 * MPH),
        ('max="120" unit="km/h"', 120 / 3.6),
        ('max="30" unit="m/s"', 30.0),
        ('max="30"', 30.0),
        ('max="no limit"', 36.0),
        ('max="undefined"', 13.89),
        ('max="nan"', 13.89),
        ('max="50" unit="knots"', 13.89),
    ],
)
def test_lanes_have_the_limit_of_their_road(tmp_path: Path, limit: str, mps: float) -> None:
    network, _ = imported(tmp_path, file_xml(TWO_LANES, type_xml(0, limit)))
    np.testing.assert_allclose(network.lane_limit_mps[between(network)], mps, atol=1e-3)


@pytest.mark.parametrize("rule", ["RHT", "LHT"])
@pytest.mark.parametrize("widths", [[], TAPER], ids=["constant", "tapering"])
def test_a_limit_holds_from_where_it_is_said(tmp_path: Path, rule: str, widths: list[tuple[float, ...]]) -> None:
    """From 40 m on, inside the first lane section, and from 120 m on, inside the second one, where the file takes it back."""
    later = [(0, 0, 0, 3 * 3 / 1600, -2 * 3 / 64000), *((s - 60, *rest) for s, *rest in widths[2:])] if widths else []
    sections = section_xml(0, lane_xml(1), lane_xml(-1) + lane_xml(-2, *widths[:1])) + section_xml(
        60, lane_xml(1), lane_xml(-1) + lane_xml(-2, *later)
    )
    types = type_xml(0, 'max="30"') + type_xml(40, 'max="36" unit="km/h"') + '<type s="120" type="rural"/>'
    network, report = imported(tmp_path, file_xml(sections, types, rule=rule))
    assert report.left_hand == (rule == "LHT")
    wrong = []
    for lane in between(network):
        x, _ = middle_of(network, lane)
        expected = 30.0 if x < 40.0 else 10.0 if x < 120.0 else 13.89
        if abs(network.lane_limit_mps[lane] - expected) > 1e-3:
            wrong.append((network.lane_name[lane], x, network.lane_limit_mps[lane]))
    assert len(between(network)) >= 10
    assert wrong == []


def test_limits_of_lanes_go_before_those_of_the_road(tmp_path: Path) -> None:
    """Lane -1 has one from 80 m on, lane 1 one that means none."""
    left = lane_xml(1).replace("</lane>", '<speed sOffset="0" max="0"/></lane>')
    right = lane_xml(-1).replace("</lane>", '<speed sOffset="80" max="50" unit="mph"/></lane>')
    network, _ = imported(tmp_path, file_xml(section_xml(0, left, right), type_xml(0, 'max="25" unit="mph"')))
    found = {}
    for lane in between(network):
        x, y = middle_of(network, lane)
        found[x > 80.0, y > 0.0] = round(float(network.lane_limit_mps[lane] / MPH))
    assert found == {(False, True): 25, (True, True): 25, (False, False): 25, (True, False): 50}


def test_limits_hold_for_no_shorter_parts_than_cars_notice(tmp_path: Path) -> None:
    types = type_xml(0.5, 'max="20"') + type_xml(60, 'max="20"') + type_xml(159, 'max="30"')
    network, _ = imported(tmp_path, file_xml(TWO_LANES, types))
    assert network.lane_limit_mps[between(network)].tolist() == [20.0, 20.0]


def test_more_limits_and_borders_than_are_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.roads.opendrive_dialect.MAX_ELEMENTS", 10)
    types = "".join(type_xml(s, f'max="{10 + s}"') for s in range(0, 60, 10))
    with pytest.raises(MapError, match=r"much\.xodr: more than 10 limits of lanes; cut out a smaller region"):
        rewrite_for_netconvert(tree.fromstring(file_xml(TWO_LANES, types)), "much.xodr")
    monkeypatch.setattr("sim.roads.opendrive_dialect.MOST_BORDERS", 1)
    borders = section_xml(0, border_xml(1, (0, 4, 0, 0, 0)), border_xml(-1, (0, -4, 0, 0, 0)))
    with pytest.raises(MapError, match=r"much\.xodr: more than 1 borders of lanes; cut out a smaller region"):
        rewrite_for_netconvert(tree.fromstring(file_xml(borders)), "much.xodr")


@pytest.mark.parametrize("name", ["Town01", "Town02", "Town10HD"])
def test_carla_s_towns_have_their_limits(shared_data: Path, name: str) -> None:
    """Kilometres of lanes of each limit, junctions aside; netconvert takes a few metres at each end for junctions."""
    path = shared_data / "opendrive" / f"{name}.xodr"
    network = read_network(import_map(path)[0])
    ours: dict[int, float] = {}
    for lane in between(network):
        mph = round(float(network.lane_limit_mps[lane]) / MPH)
        ours[mph] = ours.get(mph, 0.0) + float(network.lane_length_m[lane])
    theirs: dict[int, float] = {}
    for road in tree.parse(path).getroot().iter("road"):
        if road.get("junction") == "-1":
            mph = int(road.find("type/speed").get("max"))
            lanes = sum(lane.get("type") == "driving" for lane in road.find("lanes/laneSection").iter("lane"))
            theirs[mph] = theirs.get(mph, 0.0) + lanes * float(road.get("length"))
    assert ours.keys() == theirs.keys()
    for mph, length in theirs.items():
        assert ours[mph] == pytest.approx(length, rel=0.1)


@pytest.mark.parametrize(
    "kind",
    [
        *sorted(DRIVING_KINDS), "connectingRamp", "slipLane", "stop", "parking", "shoulder", "border", "median", "none",
        "restricted", "biking", "walking", "sidewalk", "bus", "taxi", "HOV", "shared", "curb", "tram", "rail", "roadWorks",
        "special1",
    ],
)  # fmt: skip
def test_cars_get_the_lanes_that_are_for_them_and_the_report_names_the_others(tmp_path: Path, kind: str) -> None:
    """Beside a lane for cars on either side, and with another one beyond it, which stays where it is."""
    right = lane_xml(-1) + lane_xml(-2, (0, 2.5, 0, 0, 0), kind=kind) + lane_xml(-3)
    network, report = imported(tmp_path, file_xml(section_xml(0, lane_xml(1), right)))
    for_cars = kind in DRIVING_KINDS | {"connectingRamp", "slipLane"}
    across = sorted(round(middle_of(network, lane)[1], 2) for lane in between(network))
    assert across == sorted([1.75, -1.75, -7.75] + [-4.75] * for_cars)
    known = for_cars or kind in ("none", "walking", "sidewalk")
    assert report.dropped == ({} if known else {f"lane {kind}": 1})
    assert (report.sidewalks > 0) == (kind in ("walking", "sidewalk"))


def test_lanes_that_run_the_other_way_are_told_of(tmp_path: Path) -> None:
    turned = lane_xml(-2).replace("type=", 'direction="reversed" type=')
    _, report = imported(tmp_path, file_xml(section_xml(0, lane_xml(1), lane_xml(-1) + turned)))
    assert "lanes whose `direction` is not the standard one, driven as their side of the road says: 1" in report.notes
    _, report = imported(tmp_path, file_xml(TWO_LANES))
    assert report.notes == ()


def border_xml(number: int, *borders: tuple[float, float, float, float, float]) -> str:
    return lane_xml(number, *borders).replace("<width", "<border")


@given(
    borders=st.lists(
        st.lists(
            st.tuples(st.integers(1, 150), *[st.floats(-4, 4)] * 4),
            min_size=1,
            max_size=3,
            unique_by=lambda row: row[0],
        ),
        min_size=1,
        max_size=3,
    ),
    side=st.sampled_from([1, -1]),
)
def test_widths_add_up_to_the_borders(borders: list[list[tuple[float, ...]]], side: int) -> None:
    """Wherever all borders hold and none is inside of the one before it, and in the mirror as well."""
    scale = [1.0, 1e-2, 1e-4, 1e-6]
    tables = [
        sorted((float(s) if k else 0.0, 4.0 * (n + 1) + a, *(v * f for v, f in zip(rest, scale[1:], strict=True)))
               for k, (s, a, *rest) in enumerate(table))
        for n, table in enumerate(borders)
    ]  # fmt: skip
    lanes = "".join(
        border_xml(side * (n + 1), *((s, *(side * v for v in row)) for s, *row in table))
        for n, table in enumerate(tables)
    )
    left, right = (lanes, "") if side > 0 else ("", lanes)
    root, image = (tree.fromstring(file_xml(section_xml(0, left, right))) for _ in range(2))
    mirror_opendrive(image)
    stations = np.arange(0.5, 160.0, 7.0)
    edges = []
    for table in tables:
        starts = np.array([row[0] for row in table])
        rows = np.array(table)[np.searchsorted(starts, stations, side="right") - 1]
        t = stations - rows[:, 0]
        edges.append(rows[:, 1] + t * (rows[:, 2] + t * (rows[:, 3] + t * rows[:, 4])))
    good = (np.diff(np.array([np.zeros(len(stations)), *edges]), axis=0) >= 0.0).all(axis=0)
    for document, on in ((root, side), (image, -side)):
        assert rewrite_for_netconvert(document, "borders") == []
        road = read_road(next(document.iter("road")))
        centers, widths = lanes_across(road, road.sections[0], on, stations)
        for n, edge in enumerate(edges):
            outer = on * centers[on * (n + 1)] + 0.5 * widths[on * (n + 1)]
            np.testing.assert_allclose(outer[good], edge[good], atol=1e-6)


@pytest.mark.parametrize("rule", ["RHT", "LHT"])
def test_lanes_between_borders_lie_where_those_between_widths_do(tmp_path: Path, rule: str) -> None:
    """A lane of 3.5 m, and beyond it one that grows from 60 m on."""
    beyond = [(s, 3.5 + a, b, c, d) for s, a, b, c, d in TAPER]
    right = border_xml(-1, (0, -3.5, 0, 0, 0)) + border_xml(-2, *((s, *(-v for v in row)) for s, *row in beyond))
    left = border_xml(1, (0, 4.5, 0, 0, 0))
    by_borders, report = imported(tmp_path, file_xml(section_xml(0, left, right), rule=rule))
    sections = section_xml(0, lane_xml(1, (0, 4.5, 0, 0, 0)), lane_xml(-1) + lane_xml(-2, *TAPER))
    by_widths, _ = imported(tmp_path, file_xml(sections, rule=rule))
    for name in ("point_x", "point_y", "point_width_m"):
        np.testing.assert_allclose(getattr(by_borders, name), getattr(by_widths, name), atol=1e-3)
    assert report.notes[-1].endswith("put where the source has them: 1")
    assert 4.5 in by_borders.lane_width_m


def test_a_road_that_cannot_be_evaluated_is_told_of(tmp_path: Path) -> None:
    """Lane -2 has a border and lane -1 none."""
    right = lane_xml(-1) + border_xml(-2, (0, -7, 0, 0, 0))
    _, report = imported(tmp_path, file_xml(section_xml(0, lane_xml(1), right)))
    assert "roads kept as netconvert has them, which may be wrong: 1 (lane -2 without widths)" in report.notes


@pytest.mark.parametrize("rule", ["RHT", "LHT"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_road_that_ends_where_it_begins_is_driven_round_both_ways(tmp_path: Path, rule: str, linked: bool) -> None:
    text = file_xml(TWO_LANES, plan=RING, length=100 * np.pi, rule=rule)
    if linked:
        ends = (("predecessor", "end"), ("successor", "start"))
        inside = "".join(f'<{tag} elementType="road" elementId="1" contactPoint="{end}"/>' for tag, end in ends)
        text = text.replace("<planView>", f"<link>{inside}</link><planView>", 1)
    network, report = imported(tmp_path, text)
    assert report.dead_ends == ()
    assert report.lane_km == pytest.approx(0.2 * np.pi, rel=0.01)
    assert len(between(network)) == 4
    for lane in between(network):
        onward = [lane]
        for _ in range(4):  # two streets and the joints behind them
            onward.append(network.successor[network.successor_start[onward[-1]]])
        assert onward[-1] == lane
        assert onward[2] != lane


def test_a_road_that_crosses_its_beginning_is_no_loop(tmp_path: Path) -> None:
    """Three quarters of the ring, then straight back to the start, across it."""
    back = f'<geometry s="{75 * np.pi}" x="-50" y="0" hdg="{-np.pi / 4}" length="{50 * 2**0.5}"><line/></geometry>'
    plan = RING[: RING.index(f'<geometry s="{75 * np.pi}"')] + back
    document = tree.fromstring(file_xml(TWO_LANES, plan=plan, length=75 * np.pi + 50 * 2**0.5))
    rewrite_for_netconvert(document, "crossing")
    assert document.find("road/link/successor") is None


@pytest.mark.parametrize(
    "uri", ["http://www.opendrive.org", "http://code.asam.net/simulation/standard/opendrive_schema"]
)
def test_a_namespace_changes_nothing(tmp_path: Path, uri: str) -> None:
    """As the default one and under a prefix; what has another namespace stays apart."""
    foreign = '<laneSection xmlns="http://vendor.example" s="0"/><lanes>'
    plain = file_xml(section_xml(0, lane_xml(1), lane_xml(-1) + lane_xml(-2, *TAPER)), type_xml(0, 'max="20"'))
    plain = plain.replace("<lanes>", foreign, 1)
    default = plain.replace("<OpenDRIVE>", f'<OpenDRIVE xmlns="{uri}">')
    named = plain.replace("</", "</od:").replace("<", "<od:").replace("<od:/od:", "</od:")
    named = named.replace("<od:OpenDRIVE>", f'<od:OpenDRIVE xmlns:od="{uri}">').replace(
        "od:laneSection xmlns", "laneSection xmlns"
    )
    results = []
    for text in (plain, default, named):
        path = tmp_path / "named.xodr"
        path.write_text(text)
        results.append(import_map(path))
    assert results[0][0] == results[1][0] == results[2][0]
    assert results[0][1].lanes == 5
    assert results[0][1] == results[1][1] == results[2][1]
