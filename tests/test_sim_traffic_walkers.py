"""People on foot: the ways they have, where they wait, and that vehicles stop for them."""

from dataclasses import replace

import numpy as np
import pytest

from planning.route_follower import RouteFollower
from sim.roads.driving_map import GroundClass, load_map
from sim.roads.network import LaneKind
from sim.traffic.walk_graph import CROSSWALK, JAYWALK, LINK, build_walk_graph
from sim.traffic.walkers import WAITING
from sim.world import ActorKind, CollisionKind, World, WorldConfig

GREEN = 3


@pytest.fixture(scope="module")
def walk(town):
    return build_walk_graph(town.network, town.ground)


def line_of(walk, k):
    way = walk.ways[k]
    return walk.xy[way["point"] : way["point"] + way["points"]]


def class_at(town, points):
    cell = np.floor((points - town.ground.origin) / town.ground.cell_m).astype(int)
    return town.ground.classes[cell[:, 1], cell[:, 0]], town.ground.drivable[cell[:, 1], cell[:, 0]]


def test_every_crosswalk_is_reached_from_a_sidewalk_and_leads_to_one(town, walk):
    assert (walk.ways["kind"] == CROSSWALK).sum() == (town.network.lane_kind == LaneKind.CROSSING).sum()
    for k in np.flatnonzero(walk.ways["kind"] == CROSSWALK):
        way = walk.ways[k]
        for low, high in (("first", "first_end"), ("last", "last_end")):
            following = walk.onward[way[low] : way[high]] // 2
            assert len(following) > 0
            assert (walk.ways["kind"][following] == LINK).any()
        ends = line_of(walk, k)[[0, -1]]
        assert (class_at(town, ends)[1] == 0).all()  # one waits beside the road, not on it


def test_ways_meet_where_they_say(walk):
    for k, way in enumerate(walk.ways):
        if way["kind"] == JAYWALK:
            land = line_of(walk, way["land"])
            at = land[round(way["land_s"] / walk.ways[way["land"]]["step"])]
            assert np.hypot(*(line_of(walk, k)[-1] - at)) < 1.0
            continue
        for end, low, high in ((0, "first", "first_end"), (-1, "last", "last_end")):
            for entry in walk.onward[way[low] : way[high]]:
                other = line_of(walk, entry // 2)
                assert np.hypot(*(other[0 if entry % 2 == 0 else -1] - line_of(walk, k)[end])) < 0.06


def test_only_crossings_lead_over_the_road(town, walk):
    for k, way in enumerate(walk.ways):
        kinds, drivable = class_at(town, line_of(walk, k))
        if way["kind"] in (CROSSWALK, JAYWALK):
            assert drivable.any()
            assert way["crossed_end"] > way["crossed"]
        elif way["kind"] == LINK:
            assert not drivable[1:-1].any()
        else:
            assert np.isin(kinds, (GroundClass.SIDEWALK, GroundClass.KERB)).mean() > 0.9


def test_a_crossing_lies_between_its_two_ends_on_both(town, walk):
    network = town.network
    for crossing in walk.crossings:
        way, lane = walk.ways[crossing["way"]], crossing["lane"]
        assert 0.0 <= crossing["low"] <= crossing["high"] <= way["length"] + 0.5
        assert 0.0 <= crossing["enter"] < crossing["exit"] <= network.lane_length_m[lane] + 1.0
        start = network.point_start[lane]
        s = 0.5 * (crossing["enter"] + crossing["exit"])
        point = start + min(round(s / network.lane_step_m[lane]), network.point_start[lane + 1] - start - 1)
        place = np.array([network.point_x[point], network.point_y[point]])
        assert np.hypot(*(line_of(walk, crossing["way"]) - place).T).min() < 3.2


def drive(town, ticks, **config):
    """Records of walkers and agents tick by tick."""
    count = 10
    world, driver = World(town, WorldConfig(**config), count), RouteFollower()
    world.reset(np.ones(count, bool), np.arange(900, 900 + count, dtype=np.uint64), np.zeros(count, np.int64))
    rows = []
    for _ in range(ticks):
        world.step(driver.act({}, world.situation()))
        hits = world.events.collision == CollisionKind.PEDESTRIAN
        rows.append((world._hidden.walkers.copy(), world._hidden.cars.copy(), world.state.signal.copy(), hits))
    return rows


def _places(walk, walkers):
    """Where walkers are on their ways, on their side of them."""
    way = walk.ways[walkers["way"]]
    at = walkers["s"] / way["step"]
    i = np.clip(np.floor(at).astype(int), 0, way["points"] - 2)
    a = walk.xy[way["point"] + i]
    step = walk.xy[way["point"] + i + 1] - a
    yaw = np.arctan2(walkers["ahead"] * step[..., 1], walkers["ahead"] * step[..., 0])
    aside = np.where(way["kind"] == LINK, 0.0, walkers["aside"])
    return a + step * (at - i)[..., None] + aside[..., None] * np.stack([np.sin(yaw), -np.cos(yaw)], -1)


def test_walkers_walk_wait_for_green_and_cross_while_vehicles_stop(town, walk):
    rows = drive(town, 600, agents=40, walker_share=0.5, spawn_radius_m=150.0)
    walkers = np.array([row[0] for row in rows])
    first = 40 - walkers.shape[2]
    cars = np.array([row[1] for row in rows])[:, :, first:]
    shown = np.array([row[2] for row in rows])
    assert walkers.shape[2] == 20
    assert not np.array([row[3] for row in rows]).any()
    there = (cars["active"][1:] == 1) & (cars["active"][:-1] == 1)
    assert (cars["kind"][cars["active"] == 1] == ActorKind.PEDESTRIAN).all()
    kind = walk.ways["kind"][walkers["way"]]
    jump = np.hypot(np.diff(cars["x"], axis=0), np.diff(cars["y"], axis=0))
    assert (there & (walkers["way"][1:] != walkers["way"][:-1])).sum() > 100
    appeared = jump > 5.0  # who is left behind starts anew elsewhere
    assert jump[there & ~appeared].max() < (1.7 * 1.15 + 0.6) * 0.1 + 1e-3  # nobody leaps, whatever turn they take
    place = np.stack([cars["x"], cars["y"]], -1)
    on_way = _places(walk, walkers)
    off = np.hypot(*np.moveaxis(place - on_way, -1, 0))
    assert np.median(off[cars["active"] == 1]) < 1e-3
    assert np.quantile(off[cars["active"] == 1], 0.97) < 0.6
    assert 0.09 < np.median(jump[there & (walkers["state"][1:] != WAITING)]) < 0.2

    stepped = there & (kind[1:] == CROSSWALK) & (kind[:-1] != CROSSWALK)
    assert stepped.sum() > 20
    link = walk.ways["link"][walkers["way"][1:]]
    light = np.take_along_axis(shown[1:], np.maximum(link, 0).reshape(*link.shape[:2], -1), axis=2)
    assert (light[stepped & (link >= 0)] == GREEN).all()
    assert (stepped & (link < 0)).sum() > 5
    assert (there & (kind[1:] == JAYWALK) & (kind[:-1] != JAYWALK)).sum() > 0
    waited = walkers["wait"][walkers["state"] == WAITING]
    assert np.median(waited) < 200


def test_without_sidewalks_nobody_walks():
    bare = load_map("grid-small")
    network = bare.network
    kinds = np.where(network.lane_kind == LaneKind.SIDEWALK, LaneKind.CYCLE, network.lane_kind).astype(np.int8)
    world = World(replace(bare, network=replace(network, lane_kind=kinds)), WorldConfig(walker_share=0.5), 2)
    assert world._hidden.walkers.shape[1] == 0
    assert (world.state.kind[world.state.active == 1] != ActorKind.PEDESTRIAN).all()


def test_nobody_walks_where_the_share_is_zero(town):
    world = World(town, WorldConfig(walker_share=0.0), 2)
    assert world._hidden.walkers.shape[1] == 0
    assert world.state.active.mean() > 0.8
    assert (world.state.kind[world.state.active == 1] != ActorKind.PEDESTRIAN).all()
