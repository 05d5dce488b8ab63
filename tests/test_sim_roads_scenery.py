"""What stands beside the roads, and where signal heads hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.sensors import SemanticClass
from sim.roads.driving_map import DrivingMap, load_map, map_from_network
from sim.roads.ground import lane_line
from sim.roads.importer import import_map
from sim.roads.netconvert import netconvert
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.roadside import FIRST_INSTANCE
from sim.roads.scenery import build_scenery
from sim.roads.signal_heads import signalled_lanes
from sim.roads.towns import generate_town
from sim.solids import Boxes

OVERHEAD_M = 4.5


@pytest.fixture(
    scope="module", params=["grid-small:8", "highway:8", "opendrive/Town01.xodr", "opendrive/Town10HD.xodr"]
)
def driving_map(request: pytest.FixtureRequest) -> DrivingMap:
    name: str = request.param
    if ":" in name:
        return map_from_network(name, generate_town(name.partition(":")[0], 8), seed=3)
    folder: Path = request.getfixturevalue("shared_data")
    return map_from_network(name, import_map(folder / name)[0], seed=3)


def _distance_to_box(boxes: Boxes, points: np.ndarray) -> np.ndarray:
    """(N, M) horizontal distance in metres from each of M points to each of N boxes, 0 inside."""
    away = points[None] - boxes.center[:, None, :2]
    cos, sin = np.cos(boxes.yaw_rad)[:, None], np.sin(boxes.yaw_rad)[:, None]
    along = np.abs(cos * away[..., 0] + sin * away[..., 1]) - boxes.half_size[:, None, 0]
    aside = np.abs(-sin * away[..., 0] + cos * away[..., 1]) - boxes.half_size[:, None, 1]
    return np.hypot(np.maximum(along, 0), np.maximum(aside, 0))


def _only(boxes: Boxes, keep: np.ndarray) -> Boxes:
    fields = ("center", "half_size", "yaw_rad", "material", "semantic", "instance", "color", "shape")
    return Boxes(**{field: getattr(boxes, field)[keep] for field in fields})


def _bottom(boxes: Boxes) -> np.ndarray:
    return boxes.center[:, 2] - boxes.half_size[:, 2]


def _overhead(boxes: Boxes) -> np.ndarray:
    return _bottom(boxes) >= OVERHEAD_M


def test_nothing_stands_on_a_lane_or_a_path_through_a_junction(driving_map: DrivingMap) -> None:
    network = driving_map.network
    low = _only(driving_map.scenery, ~_overhead(driving_map.scenery))
    for lane in np.flatnonzero(network.lane_kind == LaneKind.DRIVING):
        line = lane_line(network, lane)
        near = np.hypot(*(low.center[:, :2] - line.mean(axis=0)).T) < network.lane_length_m[lane] + 30
        gap = _distance_to_box(_only(low, near), line).min(initial=np.inf)
        free = 0.5 * network.lane_width_m[lane] - (0.0 if network.lane_junction[lane] < 0 else 0.4)
        assert gap >= free - 0.05, network.lane_name[lane]


def test_what_reaches_over_the_road_leaves_room_for_a_truck(driving_map: DrivingMap) -> None:
    """Nothing below 4.5 m is over drivable ground, seen from above."""
    _assert_free_road(driving_map)


def test_a_road_without_sidewalks_is_free_too(shared_data: Path) -> None:
    _assert_free_road(map_from_network("road", import_map(shared_data / "opendrive" / "jolengatan.xodr")[0], seed=1))


def _assert_free_road(driving_map: DrivingMap) -> None:
    ground, boxes = driving_map.ground, driving_map.scenery
    for k in np.flatnonzero(~_overhead(boxes)):
        axes = np.array([[np.cos(boxes.yaw_rad[k]), np.sin(boxes.yaw_rad[k])]])
        axes = np.concatenate([axes, axes[:, ::-1] * [-1, 1]]) * boxes.half_size[k, :2, None]
        spots = boxes.center[k, :2] + np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]) @ axes
        column, row = np.floor((spots - ground.origin) / ground.cell_m).astype(int).T
        inside = (row >= 0) & (row < len(ground.drivable)) & (column >= 0) & (column < ground.drivable.shape[1])
        assert not ground.drivable[row[inside], column[inside]].any(), SemanticClass(int(boxes.semantic[k])).name


def test_everything_stands_on_the_ground_or_on_its_own_object(driving_map: DrivingMap) -> None:
    boxes = driving_map.scenery
    assert (_bottom(boxes) > -1e-9).all()
    assert boxes.instance.min() == FIRST_INSTANCE
    for instance in np.unique(boxes.instance):
        assert _bottom(boxes)[boxes.instance == instance].min() < 0.3


def test_a_town_has_what_a_street_has(driving_map: DrivingMap) -> None:
    kinds = set(driving_map.scenery.semantic.tolist())
    wanted = {SemanticClass.BUILDING, SemanticClass.VEGETATION, SemanticClass.POLE, SemanticClass.VEHICLE}
    assert wanted <= kinds
    buildings = driving_map.scenery.semantic == SemanticClass.BUILDING
    assert len(np.unique(driving_map.scenery.instance[buildings])) > 15


def test_the_seed_decides_and_nothing_else(driving_map: DrivingMap) -> None:
    network, ground = driving_map.network, driving_map.ground
    first, again, other = (build_scenery(network, ground, seed) for seed in (7, 7, 8))
    for field in ("center", "half_size", "yaw_rad", "material", "semantic", "instance", "color", "shape"):
        assert np.array_equal(getattr(first, field), getattr(again, field))
    assert first.center.shape != other.center.shape or not np.array_equal(first.center, other.center)


def _stop_lines(network: RoadNetwork) -> list[tuple[int, np.ndarray, float]]:
    lanes = np.flatnonzero(signalled_lanes(network))
    ends = network.point_start[lanes + 1] - 1
    return [
        (int(lane), np.array([network.point_x[end], network.point_y[end]]), float(network.point_yaw[end]))
        for lane, end in zip(lanes, ends, strict=True)
    ]


def _everybody_sees_a_head_of_his_own_signal(driving_map: DrivingMap) -> None:
    """Ahead within 40 degrees of the driving direction, facing him, for each program that governs his lane."""
    network, heads = driving_map.network, driving_map.signal_heads
    assert len(heads.link) > 0
    assert (heads.link >= 0).all()
    assert heads.link.max() < network.num_signal_links
    for lane, end, yaw in _stop_lines(network):
        follow = network.successor[network.successor_start[lane] : network.successor_start[lane + 1]]
        links = set(network.lane_signal_link[follow].tolist()) - {-1}
        eye = end - 2.0 * np.array([np.cos(yaw), np.sin(yaw)])
        away = np.stack([heads.x_m, heads.y_m], axis=1) - eye
        along, aside = away @ [np.cos(yaw), np.sin(yaw)], away @ [-np.sin(yaw), np.cos(yaw)]
        facing = np.cos(heads.yaw_rad - yaw) < -0.9
        seen = np.isin(heads.link, list(links)) & facing & (along > 4) & (along < 60)
        seen &= np.abs(np.arctan2(aside, along)) < np.radians(40)
        assert seen.any(), network.lane_name[lane]


def test_a_driver_at_the_stop_line_sees_a_head_of_his_own_signal(driving_map: DrivingMap) -> None:
    _everybody_sees_a_head_of_his_own_signal(driving_map)


def test_lanes_beside_one_without_a_signal_have_their_heads() -> None:
    """The right one of two lanes turns right without a signal; the other goes straight on, by the signal."""
    nodes = """<nodes><node id="w" x="-100" y="0"/><node id="c" x="0" y="0" type="traffic_light"/><node id="e" x="100" y="0"/>
        <node id="n" x="0" y="100"/><node id="s" x="0" y="-100"/></nodes>"""
    edges = """<edges><edge id="wc" from="w" to="c" numLanes="2"/><edge id="ce" from="c" to="e"/><edge id="nc" from="n" to="c"/>
        <edge id="cs" from="c" to="s"/></edges>"""
    ways = """<connections><connection from="wc" to="ce" fromLane="1" toLane="0"/>
        <connection from="wc" to="cs" fromLane="0" toLane="0" uncontrolled="1"/></connections>"""
    inputs = {"node-files": nodes.encode(), "edge-files": edges.encode(), "connection-files": ways.encode()}
    crossing = map_from_network("crossing", netconvert(inputs, ["--no-turnarounds"]).net_xml)
    names = [crossing.network.lane_name[lane] for lane, _, _ in _stop_lines(crossing.network)]
    assert sorted(names) == ["nc_0", "wc_1"]
    _everybody_sees_a_head_of_his_own_signal(crossing)


def test_low_heads_hang_beside_the_road_and_others_above_traffic(driving_map: DrivingMap) -> None:
    ground, heads = driving_map.ground, driving_map.signal_heads
    low = heads.z_m < OVERHEAD_M + 0.3
    spots = np.stack([heads.x_m, heads.y_m], axis=1)[low]
    column, row = np.floor((spots - ground.origin) / ground.cell_m).astype(int).T
    assert not ground.drivable[row, column].any()
    assert set(np.round(heads.z_m, 3)) <= {3.0, 5.2}


def test_heads_hang_on_poles(driving_map: DrivingMap) -> None:
    """A pole or its arm comes within a metre of nearly every head; a wire carries the few in the middle of squares."""
    heads, boxes = driving_map.signal_heads, driving_map.scenery
    poles = _only(boxes, boxes.semantic == SemanticClass.POLE)
    gaps = _distance_to_box(poles, np.stack([heads.x_m, heads.y_m], axis=1)).min(axis=0)
    assert np.mean(gaps < 1.0) > 0.95


def test_every_stop_line_without_a_signal_has_a_sign_to_be_seen():
    for name in ("grid-small:10000", "town:3"):
        drawn = load_map(name)
        network, scenery = drawn.network, drawn.scenery
        signs = scenery.center[scenery.semantic == SemanticClass.TRAFFIC_SIGN]
        stops = 0
        for lane in np.flatnonzero((network.lane_junction < 0) & (network.lane_kind == LaneKind.DRIVING)):
            onward = network.successor[network.successor_start[lane] : network.successor_start[lane + 1]]
            if network.lane_right[lane] >= 0 or not (network.lane_control[onward] == LaneControl.STOP).any():
                continue
            last = network.point_start[lane + 1] - 1
            dx, dy = signs[:, 0] - network.point_x[last], signs[:, 1] - network.point_y[last]
            cos, sin = np.cos(network.point_yaw[last]), np.sin(network.point_yaw[last])
            ahead, right = dx * cos + dy * sin, dx * sin - dy * cos
            assert ((ahead < 0.5) & (ahead > -14.0) & (right > 1.0) & (right < 10.0)).any()
            stops += 1
        assert stops >= 2
