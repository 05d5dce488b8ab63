"""Laws that every road network obeys, whatever map it comes from, and agreement with SUMO's own reader."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import sumolib
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planning.policy import SignalState
from sim.roads.driving_map import load_map
from sim.roads.importer import import_map
from sim.roads.map_xml import MapError
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.sumo_reader import read_network
from sim.roads.towns import generate_town

MAPS = (
    "opendrive/Town01.xodr", "opendrive/Town02.xodr", "opendrive/Town10HD.xodr",
    "opendrive/fabriksgatan_traffic_lights.xodr", "opendrive/multi_intersections.xodr",
    "opendrive/two_plus_one.xodr", "osm/garching_intersection.osm",
)  # fmt: skip
TOWNS = ("grid-small:3", "grid-large:4")


@pytest.fixture(scope="module", params=[*TOWNS, *MAPS])
def net_xml(request: pytest.FixtureRequest) -> bytes:
    name: str = request.param
    if name in TOWNS:
        kind, _, seed = name.partition(":")
        return generate_town(kind, int(seed))
    folder: Path = request.getfixturevalue("shared_data")
    return import_map(folder / name)[0]


@pytest.fixture(scope="module")
def network(net_xml: bytes) -> RoadNetwork:
    return read_network(net_xml)


def _points(network: RoadNetwork, lane: int) -> np.ndarray:
    part = slice(network.point_start[lane], network.point_start[lane + 1])
    return np.stack([network.point_x[part], network.point_y[part]], axis=1)


def _pairs(start: np.ndarray, values: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(np.repeat(np.arange(len(start) - 1), np.diff(start)).tolist(), values.tolist(), strict=True))


def _turned(a: float, b: float) -> float:
    return abs((b - a + np.pi) % (2 * np.pi) - np.pi)


def test_lane_centres_are_where_sumolib_has_them(net_xml: bytes, network: RoadNetwork, tmp_path: Path) -> None:
    path = tmp_path / "net.xml"
    path.write_bytes(net_xml)
    theirs = sumolib.net.readNet(str(path))
    outside = np.flatnonzero(network.lane_junction < 0)
    for k in outside:
        lane = theirs.getLane(network.lane_name[k])
        shape = [point[:2] for point in lane.getShape()]
        gaps = [sumolib.geomhelper.distancePointToPolygon(tuple(p), shape) for p in _points(network, k).tolist()]
        assert max(gaps) < 0.02
        assert network.lane_width_m[k] == lane.getWidth()
        assert network.lane_limit_mps[k] == lane.getSpeed()
        assert network.lane_length_m[k] == pytest.approx(sumolib.geomhelper.polyLength(shape), rel=1e-6, abs=0.02)
    drivable = [lane.getID() for edge in theirs.getEdges() for lane in edge.getLanes() if lane.allows("passenger")]
    assert {network.lane_name[k] for k in outside if network.lane_kind[k] == LaneKind.DRIVING} == set(drivable)


def test_right_of_way_is_sumolibs(net_xml: bytes, network: RoadNetwork, tmp_path: Path) -> None:
    path = tmp_path / "net.xml"
    path.write_bytes(net_xml)
    theirs = sumolib.net.readNet(str(path), withInternal=True)
    by_via = {
        connection.getViaLaneID(): connection
        for edge in theirs.getEdges(withInternal=False)
        for connections in edge.getOutgoing().values()
        for connection in connections
    }
    compared = 0
    for (lane, other), yields in zip(
        _pairs(network.conflict_start, network.conflict_lane), network.conflict_yields, strict=True
    ):
        ours, foe = by_via[network.lane_name[lane]], by_via[network.lane_name[other]]
        node = ours.getFrom().getToNode()
        a, b = node.getLinkIndex(ours), node.getLinkIndex(foe)
        gives, takes = node.forbids(foe, ours), node.forbids(ours, foe)
        if a >= 0 and b >= 0 and gives != takes:
            assert yields == gives
            compared += 1
    assert compared > 0 or len(network.conflict_lane) == 0


def test_lanes_meet_their_successors_without_gap_or_kink(network: RoadNetwork) -> None:
    for lane, after in _pairs(network.successor_start, network.successor):
        end, start = network.point_start[lane + 1] - 1, network.point_start[after]
        gap = np.hypot(network.point_x[end] - network.point_x[start], network.point_y[end] - network.point_y[start])
        assert gap < 0.6
        assert _turned(network.point_yaw[end], network.point_yaw[start]) < np.radians(20)


def test_every_turn_can_be_driven_by_a_car(network: RoadNetwork) -> None:
    for lane in np.flatnonzero((network.lane_junction >= 0) & (network.lane_kind == LaneKind.DRIVING)):
        yaw = network.point_yaw[network.point_start[lane] : network.point_start[lane + 1]]
        if network.lane_turn[lane] != 0 and len(yaw) > 2:
            radius = network.lane_step_m[lane] / max(1e-6, np.abs(np.diff(yaw)).max())
            assert radius > 4.0, network.lane_name[lane]


def test_points_are_evenly_spaced_and_headings_follow_them(network: RoadNetwork) -> None:
    for lane in range(network.num_lanes):
        points = _points(network, lane)
        steps = np.hypot(*np.diff(points, axis=0).T)
        assert (steps <= network.lane_step_m[lane] + 1e-9).all()
        assert network.lane_length_m[lane] == pytest.approx(network.lane_step_m[lane] * (len(points) - 1))
        yaw = network.point_yaw[network.point_start[lane] : network.point_start[lane + 1]]
        ahead = np.arctan2(*np.diff(points, axis=0).T[::-1])
        assert _turned(yaw[0], ahead[0]) < 1e-9
        assert np.abs(np.diff(yaw)).max() < np.pi


def test_successors_and_predecessors_mirror_each_other(network: RoadNetwork) -> None:
    forward = set(_pairs(network.successor_start, network.successor))
    backward = {(b, a) for a, b in _pairs(network.predecessor_start, network.predecessor)}
    assert forward == backward
    inner = np.flatnonzero((network.lane_junction >= 0) & (network.lane_kind == LaneKind.DRIVING))
    for lane in inner:
        assert network.successor_start[lane + 1] - network.successor_start[lane] == 1
        assert network.predecessor_start[lane + 1] - network.predecessor_start[lane] == 1
    beside = np.flatnonzero(network.lane_kind != LaneKind.DRIVING)
    assert (np.diff(network.successor_start)[beside] == 0).all()


def test_neighbours_lie_on_their_side_and_point_back(network: RoadNetwork) -> None:
    for lane in np.flatnonzero(network.lane_left >= 0):
        left = network.lane_left[lane]
        middle = network.point_start[lane] + (network.point_start[lane + 1] - network.point_start[lane]) // 2
        yaw = network.point_yaw[middle]
        away = _points(network, left) - [network.point_x[middle], network.point_y[middle]]
        nearest = away[np.argmin(np.hypot(*away.T))]
        sideways = -np.sin(yaw) * nearest[0] + np.cos(yaw) * nearest[1]
        assert 0.4 < sideways / network.lane_width_m[lane] < 1.6
        if network.lane_right[left] >= 0:
            assert network.lane_right[left] == lane


def test_conflicts_are_mutual_and_exactly_one_gives_way(network: RoadNetwork) -> None:
    rows = _pairs(network.conflict_start, network.conflict_lane)
    yields = dict(zip(rows, network.conflict_yields.tolist(), strict=True))
    for (lane, other), gives in yields.items():
        assert gives + yields[other, lane] == 1
        assert network.lane_junction[lane] == network.lane_junction[other] >= 0
        assert (
            network.predecessor[network.predecessor_start[lane]]
            != (network.predecessor[network.predecessor_start[other]])
        )
    stretches = (network.conflict_exit_m - network.conflict_enter_m) > 0
    assert stretches.all()
    assert (network.conflict_enter_m >= 0).all()
    limit = network.lane_length_m[[lane for lane, _ in rows]] if rows else np.empty(0)
    assert (network.conflict_exit_m <= limit + 1e-9).all()


def test_paths_without_a_conflict_keep_their_distance(network: RoadNetwork) -> None:
    """Brute force over points: outside the stretches given, two paths of a junction are at least 2 m apart."""
    entries = {
        pair: (enter, leave)
        for pair, enter, leave in zip(
            _pairs(network.conflict_start, network.conflict_lane),
            network.conflict_enter_m,
            network.conflict_exit_m,
            strict=True,
        )
    }
    inner = np.flatnonzero((network.lane_junction >= 0) & (network.lane_kind == LaneKind.DRIVING))
    for lane in inner:
        origin = network.predecessor[network.predecessor_start[lane]]
        points = _points(network, lane)
        s = np.arange(len(points)) * network.lane_step_m[lane]
        for other in inner[network.lane_junction[inner] == network.lane_junction[lane]]:
            if other == lane or network.predecessor[network.predecessor_start[other]] == origin:
                continue
            enter, leave = entries.get((lane, other), (np.inf, -np.inf))
            free = points[(s < enter) | (s > leave)]
            if len(free):
                gaps = np.hypot(*(free[:, None] - _points(network, other)[None]).transpose(2, 0, 1))
                assert gaps.min() > 2.0


def test_signal_links_and_programs_fit_together(network: RoadNetwork) -> None:
    links = network.lane_signal_link
    assert ((links >= 0) == (network.lane_control == LaneControl.SIGNAL)).all()
    assert links.max(initial=-1) < network.num_signal_links
    outside = network.lane_junction < 0
    assert (network.lane_control[outside] == LaneControl.NONE).all()
    for k in range(len(network.signal_start) - 1):
        phases = slice(network.phase_start[k], network.phase_start[k + 1])
        width = network.signal_start[k + 1] - network.signal_start[k]
        states = network.phase_state[phases, :width]
        assert (network.phase_duration_s[phases] > 0).all()
        for column in range(width):
            cars = (links == network.signal_start[k] + column) & (network.lane_kind == LaneKind.DRIVING)
            if cars.any():
                sequence, following = states[:, column], np.roll(states[:, column], -1)
                assert (sequence == SignalState.GREEN).any()
                assert (sequence == SignalState.RED).any()
                assert not ((sequence == SignalState.GREEN) & (following == SignalState.RED)).any()


def test_crossing_streams_are_never_both_let_go_without_a_rule(network: RoadNetwork) -> None:
    """Two paths that cross: not both an unconditional green, and where both are green, the one that yields says so."""
    for (lane, other), yields in zip(
        _pairs(network.conflict_start, network.conflict_lane), network.conflict_yields, strict=True
    ):
        a, b = network.lane_signal_link[lane], network.lane_signal_link[other]
        if a < 0 or b < 0:
            continue
        signal = np.searchsorted(network.signal_start, a, side="right") - 1
        if signal != np.searchsorted(network.signal_start, b, side="right") - 1:
            continue
        phases = slice(network.phase_start[signal], network.phase_start[signal + 1])
        first = network.signal_start[signal]
        both = (network.phase_state[phases, a - first] == SignalState.GREEN) & (
            network.phase_state[phases, b - first] == SignalState.GREEN
        )
        if yields and both.any():
            assert network.phase_minor[phases, a - first][both].all()


def test_the_grid_finds_every_lane_near_a_place(network: RoadNetwork) -> None:
    rng = np.random.default_rng(5)
    columns, rows = network.grid_shape
    driving = np.repeat(network.lane_kind, np.diff(network.point_start)) == LaneKind.DRIVING
    owner = np.repeat(np.arange(network.num_lanes), np.diff(network.point_start))
    for x, y in rng.uniform(network.bounds[:2], network.bounds[2:], (300, 2)):
        gap = np.hypot(network.point_x - x, network.point_y - y)
        near = driving & (gap <= network.lane_width_m[owner] / 2 + network.grid_cell_m)
        column, row = np.floor((np.array([x, y]) - network.grid_origin) / network.grid_cell_m).astype(int)
        cell = column + row * columns
        assert 0 <= cell < columns * rows
        listed = network.grid_lane[network.grid_start[cell] : network.grid_start[cell + 1]]
        assert set(owner[near]) <= set(listed.tolist())


def test_a_generated_town_has_no_dead_end() -> None:
    for seed in range(4):
        network = read_network(generate_town("grid-small", seed))
        driving = network.lane_kind == LaneKind.DRIVING
        assert (np.diff(network.successor_start)[driving] > 0).all()
        assert (np.diff(network.predecessor_start)[driving] > 0).all()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not well-formed"),
        (b"\x00\xffjunk", "not well-formed"),
        (b"<net><edge>", "not well-formed"),
        (b"<OpenDRIVE/>", "not a SUMO network"),
        (b"<net></net>", "no lane for passenger cars"),
        (b'<net><edge id="a"><lane id="a_0" index="0" speed="9" length="5"/></edge></net>', "not a complete"),
        (
            b'<net><edge id="a"><lane id="a_0" index="0" speed="x" length="5" shape="0,0 9,0"/></edge></net>',
            "a value that is none",
        ),
        (b'<net><edge id="a"><lane id="a_0" index="0" speed="nan" shape="0,0 9,0"/></edge></net>', "speed must lie"),
        (b'<net><edge id="a"><lane id="a_0" index="0" speed="9" shape="0,0 9e6,0"/></edge></net>', "smaller region"),
        (b'<!DOCTYPE n [<!ENTITY a "b">]><net>&a;</net>', "entities, which are refused"),
    ],
)
def test_a_broken_network_is_refused_in_one_line(content: bytes, complaint: str) -> None:
    with pytest.raises(MapError, match=complaint) as caught:
        read_network(content)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small_town() -> bytes:
    return generate_town("grid-small", 0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_network_is_read_or_refused_but_never_crashes(small_town: bytes, data: st.DataObject) -> None:
    """Digits and names exchanged, pieces cut out: what comes back is a network with finite values, or MapError."""
    at = data.draw(st.integers(0, len(small_town) - 1))
    length = data.draw(st.sampled_from([1, 1, 1, 3, 20]))
    middle = data.draw(st.sampled_from([b"", b"0", b"-", b"9", b"nan", b"e9", b"_", b"A", b'"', b" "]))
    damaged = small_town[:at] + middle + small_town[at + length :]
    try:
        network = read_network(damaged)
    except MapError:
        return
    for values in (network.point_x, network.point_y, network.point_yaw, network.lane_length_m, network.lane_limit_mps):
        assert np.isfinite(values).all()


@pytest.mark.parametrize("text", ['<!DOCTYPE a [<!ENTITY x "y">]><net>&x;</net>', "<net>", "<net/>"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.net.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MapError, match=re.escape(f"{path}: ")):
        load_map(str(path))
