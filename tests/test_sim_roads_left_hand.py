"""Left-hand traffic: a mirror image of a mirror image is the thing itself, and drivers keep left."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import defusedxml.ElementTree as tree
import numpy as np
import pytest

from planning.route_follower import RouteFollower
from sim.cli.app import main
from sim.roads.driving_map import load_map, map_from_network
from sim.roads.ground import GroundClass
from sim.roads.importer import import_map
from sim.roads.left_hand import mirror_net_xml, mirror_opendrive, mirrored_ground, mirrored_network
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.scenery import stop_signs
from sim.roads.sumo_reader import read_network
from sim.roads.towns import generate_town
from sim.world import World, WorldConfig


def _same(a: RoadNetwork, b: RoadNetwork) -> None:
    for field in dataclasses.fields(a):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        if isinstance(ours, np.ndarray):
            np.testing.assert_allclose(ours, theirs, atol=1e-9, err_msg=field.name)
        elif field.name.endswith(("polygons", "crosswalks")):
            assert all(np.allclose(p, q) for p, q in zip(ours, theirs, strict=True))
        else:
            assert ours == theirs, field.name


def test_mirrored_twice_is_the_network_itself() -> None:
    network = read_network(generate_town("grid-small", 3))
    there = mirrored_network(network)
    assert there.left_hand
    _same(mirrored_network(there), network)


def test_a_mirrored_file_reads_as_the_mirrored_network() -> None:
    """Names, lengths, right of way, signals and neighbours included."""
    net_xml = generate_town("grid-small", 4)
    ours, read = mirrored_network(read_network(net_xml)), read_network(mirror_net_xml(net_xml))
    assert read.left_hand
    for name in (
        "point_x", "point_y", "lane_length_m", "lane_left", "lane_right", "lane_turn", "successor",
        "lane_control", "conflict_lane", "conflict_yields", "phase_state",
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(ours, name), getattr(read, name), atol=1e-6, err_msg=name)
    assert ours.lane_name == read.lane_name


def test_an_opendrive_file_mirrored_twice_gives_the_same_network(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "opendrive" / "fabriksgatan_traffic_lights.xodr"
    root = tree.parse(path).getroot()
    mirror_opendrive(root)
    copy = tmp_path / "mirror.xodr"
    copy.write_bytes(tree.tostring(root))
    ours, twice = read_network(import_map(path)[0]), read_network(import_map(copy, left_hand=True)[0])
    assert twice.left_hand
    assert sorted(ours.lane_length_m.round(2)) == sorted(twice.lane_length_m.round(2))
    low = np.array([ours.point_x.min() - twice.point_x.min(), ours.point_y.min() + twice.point_y.max()])
    apart = np.hypot(
        ours.point_x[:, None] - (twice.point_x + low[0]), ours.point_y[:, None] - (low[1] - twice.point_y)
    ).min(axis=1)
    assert np.percentile(apart, 95) < 0.05


def test_everybody_keeps_left_and_the_expert_arrives(tmp_path: Path) -> None:
    """The opposite lane is on the driver's right; signals, ground and scenery stand where left-hand traffic has them."""
    net_xml = mirror_net_xml(generate_town("grid-small", 3))
    town = map_from_network("left", net_xml)
    network = town.network
    right_of_lane = left_of_lane = 0
    for lane in np.flatnonzero((network.lane_kind == LaneKind.DRIVING) & (network.lane_junction < 0)):
        middle = (network.point_start[lane] + network.point_start[lane + 1]) // 2
        yaw = network.point_yaw[middle]
        normal = np.array([-np.sin(yaw), np.cos(yaw)])
        place = np.array([network.point_x[middle], network.point_y[middle]])
        for side in (1, -1):
            spot = place + side * 0.5 * network.lane_width_m[lane] * normal
            column, row = np.floor((spot - town.ground.origin) / town.ground.cell_m).astype(int)
            yellow = GroundClass.LINE_YELLOW in town.ground.classes[row - 2 : row + 3, column - 2 : column + 3]
            left_of_lane += yellow and side > 0
            right_of_lane += yellow and side < 0
    assert right_of_lane > 20
    assert left_of_lane == 0
    world, driver = World(town, WorldConfig(route_min_m=100.0, route_max_m=200.0), 4), RouteFollower()
    arrived = np.zeros(4, bool)
    for _ in range(900):
        world.step(driver.act({}, world.situation()))
        events = world.events
        for flag in (events.collision, events.red_light, events.off_road, events.off_route, events.wrong_way):
            assert (flag[~arrived] == 0).all()
        arrived |= events.arrived == 1
        if arrived.all():
            break
    assert arrived.all()


@pytest.mark.parametrize("left_hand", [True, False])
def test_the_side_may_be_chosen_against_the_file(shared_data: Path, left_hand: bool) -> None:
    for name in ("e6mini.xodr", "e6mini-lht.xodr"):
        net_xml, report = import_map(shared_data / "opendrive" / name, left_hand=left_hand)
        assert report.left_hand == left_hand == read_network(net_xml).left_hand
    assert load_map(str(shared_data / "opendrive" / "e6mini-lht.xodr")).network.left_hand


def test_the_command_line_generates_and_imports_for_the_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    town, again = tmp_path / "town.net.xml", tmp_path / "again.net.xml"
    with pytest.raises(SystemExit) as ended:
        main(["maps", "generate", "grid-small", "--seed", "3", "--left-hand", "--out", str(town), "--json"])
    assert ended.value.code == 0
    assert read_network(town).left_hand
    with pytest.raises(SystemExit):
        main(["maps", "import", str(town), "--out", str(again), "--json"])
    said = capsys.readouterr().out.splitlines()
    assert json.loads(said[0])["split"] == "train"
    assert json.loads(said[-1])["left_hand"] is True
    with pytest.raises(SystemExit):
        main(["maps", "list", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["seeds"]["test"] == [20_000, 20_999]


def test_markings_are_painted_where_they_are_seen_in_the_mirror() -> None:
    """Cameras draw lines from the paint, everything else knows them by their class."""
    ground = load_map("grid-small").ground
    there = mirrored_ground(ground)
    for name in ("classes", "drivable", "paint"):
        ours, theirs = getattr(ground, name), getattr(there, name)
        assert ours.any(), name
        np.testing.assert_array_equal(theirs, np.flipud(ours), err_msg=name)
    low, high = ground.origin, ground.origin + np.array(ground.classes.shape[::-1]) * ground.cell_m
    np.testing.assert_allclose(there.origin, [low[0], -high[1]])
    again = mirrored_ground(there)
    np.testing.assert_array_equal(again.paint, ground.paint)
    np.testing.assert_allclose(again.origin, ground.origin)


@pytest.mark.parametrize("left_hand", [True, False])
def test_stop_signs_turn_their_backs_along_the_lane_that_they_are_for(left_hand: bool) -> None:
    net_xml = load_map("town").net_xml
    town = map_from_network("town", mirror_net_xml(net_xml) if left_hand else net_xml)
    network, signs = town.network, stop_signs(town.scenery)
    inner = np.flatnonzero((network.lane_control == LaneControl.STOP) & (network.lane_kind == LaneKind.DRIVING))
    ends = network.point_start[network.predecessor[network.predecessor_start[inner]] + 1] - 1
    away = np.hypot(
        town.scenery.center[signs, 0, None] - network.point_x[ends],
        town.scenery.center[signs, 1, None] - network.point_y[ends],
    )
    lane_yaw = network.point_yaw[ends[away.argmin(axis=1)]]
    assert len(signs) >= 4
    assert (np.cos(town.scenery.yaw_rad[signs] - 0.5 * np.pi - lane_yaw) > 0.9).all()
