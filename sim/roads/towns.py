"""Generates towns from a seed: streets, signals, sidewalks and crossings as a SUMO network.

Knows netconvert's plain nodes and edges; knows nothing about ground, scenery or traffic.
"""

from __future__ import annotations

import math
import random
import re
from typing import Literal

import numpy as np

from sim.roads.highway import highway_town
from sim.roads.map_xml import MapError
from sim.roads.netconvert import netconvert
from sim.roads.town_plan import (
    CORNER_RADIUS_M,
    Place,
    Street,
    Town,
    add_roundabout,
    curved,
    edges_xml,
    join_bends,
    nodes_xml,
    sharpest_angle,
    thinned,
    turned_one_way,
    ways_xml,
)

TOWN_KINDS = ("grid-small", "grid-large", "town", "radial", "highway")
TOWN_WORDS = {
    "grid-small": "4 x 4 blocks with bends, T-junctions, signals and priority; the default",
    "grid-large": "7 x 6 blocks of the same kind",
    "town": "crooked blocks, roundabouts, one-way streets, arterials of 3 lanes, diagonals, dead ends",
    "radial": "a roundabout, the streets that leave it, and two ring roads",
    "highway": "two carriageways of 2 or 3 lanes, up to 120 km/h, with ramps, between two signals; streets beside them",
}
SPLITS = {"train": range(10_000), "validation": range(10_000, 11_000), "test": range(20_000, 21_000)}

LOCAL_LIMIT_MPS = 30 / 3.6
MAIN_LIMIT_MPS = 50 / 3.6
SHARPEST_ANGLE_RAD = math.radians(50)  # between streets; beyond it a car cannot get round the corner
WIDE_ANGLE_RAD = math.radians(80)
WIDEST_CORNER_M = 20.0
LEAST_ANGLE_RAD = math.radians(50)
ROUNDABOUT_ANGLE_RAD = math.radians(62)
# Yellow: whoever is too close at 50 km/h to stop with 3 m/s2 passes the line within 2.4 s. All red: clears 30 m.
NETCONVERT_OPTIONS = (
    "--no-turnarounds", "--crossings.guess", "--walkingareas", "--junctions.corner-detail", "8",
    "--junctions.internal-link-detail", "12", "--tls.default-type", "static", "--tls.green.time", "18",
    "--tls.yellow.time", "4", "--tls.allred.time", "2", "--tls.crossing-min.time", "6",
    "--tls.crossing-clearance.time", "8", "--tls.left-green.time", "0", "--precision", "3",
    "--tls.ignore-internal-junction-jam", "--no-warnings",
    "--geometry.max-angle", "180", "--offset.disable-normalization", "--default.crossing-width", "3.5",
    "--default.disallow", "tram,rail,rail_urban,rail_electric,rail_fast,ship",
)  # fmt: skip


def seed_split(seed: int) -> Literal["train", "validation", "test"] | None:
    """The split that a town seed belongs to for good, or None where it belongs to none."""
    if seed in SPLITS["train"]:
        return "train"
    if seed in SPLITS["validation"]:
        return "validation"
    if seed in SPLITS["test"]:
        return "test"
    return None


def check_training_map(name: str) -> None:
    """MapError where a map by name is a town kept for validation or tests, so that nobody trains on it."""
    kind, _, number = name.partition(":")
    if kind in TOWN_KINDS and number.isdecimal() and seed_split(int(number)) != "train":
        split = seed_split(int(number)) or "no split"
        raise MapError(f"town {name!r} is kept for {split}; training takes {kind}:0 to {kind}:9999")


def generate_town(kind: str, seed: int) -> bytes:
    """The .net.xml of a town of that kind; the same bytes for the same kind and seed.

    Raises MapError for a kind not in TOWN_KINDS or a negative seed.
    """
    if seed < 0:
        raise MapError(f"a town seed is a whole number from 0 upwards, got {seed}")
    rng = random.Random(f"{kind}:{seed}")
    match kind:
        case "grid-small":
            town = _grid_town(rng, columns=4, rows=4)
        case "grid-large":
            town = _grid_town(rng, columns=7, rows=6)
        case "town":
            town = _mixed_town(rng, columns=6, rows=5)
        case "radial":
            town = _radial_town(rng)
        case "highway":
            town = highway_town(rng)
        case _:
            raise MapError(f"no town kind {kind!r}; known: {', '.join(TOWN_KINDS)}")
    inputs = {"node-files": nodes_xml(town), "edge-files": edges_xml(town)}
    if town.ways:
        inputs["connection-files"] = ways_xml(town)
    net_xml = netconvert(inputs, NETCONVERT_OPTIONS).net_xml
    return re.sub(rb'(<tlLogic [^>]*offset=")0(?:\.00)?"', lambda m: m[1] + b'%d"' % rng.randrange(52), net_xml)


def _grid_town(rng: random.Random, *, columns: int, rows: int) -> Town:
    """Blocks of 80 to 140 m, some streets missing, junctions a little turned so that streets between them bend."""
    x = np.cumsum([0.0] + [rng.uniform(85.0, 140.0) for _ in range(columns - 1)])
    y = np.cumsum([0.0] + [rng.uniform(85.0, 140.0) for _ in range(rows - 1)])
    nodes = [(i, j) for i in range(columns) for j in range(rows)]
    place = {(i, j): np.array([x[i] + rng.uniform(-9, 9), y[j] + rng.uniform(-9, 9)]) for i, j in nodes}
    turned = {node: math.radians(rng.uniform(-11, 11)) for node in nodes}
    main_columns = set(rng.sample(range(1, columns - 1), max(1, (columns - 1) // 3)))
    main_rows = set(rng.sample(range(1, rows - 1), max(1, (rows - 1) // 3)))
    links = [((i, j), (i + 1, j)) for i in range(columns - 1) for j in range(rows)]
    links += [((i, j), (i, j + 1)) for i in range(columns) for j in range(rows - 1)]
    links = thinned(rng, links, lambda link: _is_main(link, main_columns, main_rows))
    town = Town(place)
    for a, b in links:
        main = _is_main((a, b), main_columns, main_rows)
        bulge_m = (
            0.0 if main or rng.random() < 0.5 else rng.uniform(-0.09, 0.09) * float(np.hypot(*(place[b] - place[a])))
        )
        level = a[1] == b[1]
        line = curved(place[a], place[b], turned[a], turned[b], 0.0 if level else math.pi / 2, bulge_m)
        slow = not main and rng.random() < 0.6
        rank = 3 if main else 2 if level else 1
        limit_mps = LOCAL_LIMIT_MPS if slow else MAIN_LIMIT_MPS
        town.streets.append(Street(a, b, line, 2 if main else 1, limit_mps, rank))
    join_bends(town)
    for node in list(town.place):
        around = town.around(node)
        busy = sum(street.lanes == 2 for street in around)
        signals = len(around) >= 3 and (busy >= 3 or (busy == 2 and rng.random() < 0.5))
        stop = rng.random() < 0.35
        town.control[node] = "traffic_light" if signals else "priority_stop" if stop else "priority"
    return town


def _is_main(link: tuple[Place, Place], columns: set[int], rows: set[int]) -> bool:
    (i, j), (k, m) = link
    return (i == k and i in columns) or (j == m and j in rows)


def _mixed_town(rng: random.Random, *, columns: int, rows: int) -> Town:
    """Crooked blocks: skewed junctions, diagonals, roundabouts, one-way streets, dead ends, and arterials of up to 3 lanes."""
    x = np.cumsum([0.0] + [rng.uniform(95.0, 165.0) for _ in range(columns - 1)])
    y = np.cumsum([0.0] + [rng.uniform(95.0, 165.0) for _ in range(rows - 1)])
    nodes = [(i, j) for i in range(columns) for j in range(rows)]
    place = {(i, j): np.array([x[i] + rng.uniform(-22, 22), y[j] + rng.uniform(-22, 22)]) for i, j in nodes}
    turned = {node: math.radians(rng.uniform(-20, 20)) for node in nodes}
    artery = (rng.randrange(1, columns - 1), rng.randrange(1, rows - 1))
    links = [((i, j), (i + 1, j)) for i in range(columns - 1) for j in range(rows)]
    links += [((i, j), (i, j + 1)) for i in range(columns) for j in range(rows - 1)]
    links = thinned(rng, links, lambda link: _is_main(link, {artery[0]}, {artery[1]}))
    for _ in range(3):
        i, j = rng.randrange(columns - 1), rng.randrange(rows - 1)
        diagonal = ((i, j), (i + 1, j + 1))
        if artery[0] not in (i, i + 1) and artery[1] not in (j, j + 1) and diagonal not in links:
            links.append(diagonal)
    town = Town(place)
    for a, b in links:
        main, level = _is_main((a, b), {artery[0]}, {artery[1]}), a[1] == b[1]
        slanting = a[0] != b[0] and not level
        axis = math.atan2(*(place[b] - place[a])[::-1]) if slanting else 0.0 if level else math.pi / 2
        turns = (0.0, 0.0) if slanting else (turned[a], turned[b])
        reach = float(np.hypot(*(place[b] - place[a])))
        bulge_m = 0.0 if main or slanting or rng.random() < 0.4 else rng.uniform(-0.14, 0.14) * reach
        line = curved(place[a], place[b], *turns, axis, bulge_m)
        lanes = (3 if level else 2) if main else 1
        limit_mps = (60 / 3.6 if level else MAIN_LIMIT_MPS) if main else rng.choice((LOCAL_LIMIT_MPS, MAIN_LIMIT_MPS))
        rank = (4 if level else 3) if main else 2 if level else 1
        street = Street(a, b, line, lanes, limit_mps, rank)
        town.streets.append(street)
        if slanting and min(sharpest_angle(town, a), sharpest_angle(town, b)) < SHARPEST_ANGLE_RAD:
            town.streets.remove(street)
    join_bends(town)
    _finish(rng, town, roundabouts=3, one_way=5, dead_ends=4)
    return town


def _radial_town(rng: random.Random) -> Town:
    """A roundabout in the middle, five or six streets that leave it, and two ring roads, the outer one with two lanes."""
    spokes, start = rng.choice((5, 6)), rng.uniform(0, 2 * math.pi)
    angles = [start + 2 * math.pi * (k + rng.uniform(-0.12, 0.12)) / spokes for k in range(spokes)]
    radii = [rng.uniform(105, 130), rng.uniform(215, 250)]
    town = Town({(0, 0): np.zeros(2)})
    for ring, radius in enumerate(radii):
        for k, angle in enumerate(angles):
            town.place[(ring + 1, k)] = radius * np.array([math.cos(angle), math.sin(angle)])
    for k, angle in enumerate(angles):
        inner, outer, hub = (1, k), (2, k), (0, 0)
        bend = rng.uniform(-9.0, 9.0)
        line = curved(town.place[hub], town.place[inner], 0.0, 0.0, angle, 0.0)
        town.streets.append(Street(hub, inner, line, 1, MAIN_LIMIT_MPS, 3))
        line = curved(town.place[inner], town.place[outer], 0.0, 0.0, angle, bend)
        town.streets.append(Street(inner, outer, line, 1, MAIN_LIMIT_MPS, 3))
        for ring, radius in enumerate(radii):
            after = angles[(k + 1) % spokes]
            turn = np.linspace(angle, after if after > angle else after + 2 * math.pi, 49)[:, None]
            line = radius * np.concatenate([np.cos(turn), np.sin(turn)], axis=1)
            limit_mps = 60 / 3.6 if ring else LOCAL_LIMIT_MPS
            town.streets.append(
                Street((ring + 1, k), (ring + 1, (k + 1) % spokes), line, 1 + ring, limit_mps, 1 + 4 * ring)
            )
    _finish(rng, town, roundabouts=1, one_way=2, dead_ends=3, first_roundabout=(0, 0))
    return town


def _finish(
    rng: random.Random,
    town: Town,
    *,
    roundabouts: int,
    one_way: int,
    dead_ends: int,
    first_roundabout: Place | None = None,
) -> None:
    """Dead ends, one-way streets, the control of each junction, and roundabouts, as far as the plan allows them."""
    middle = np.mean(list(town.place.values()), axis=0)
    names = iter((24, k) for k in range(dead_ends))
    outer = sorted(town.place, key=lambda node: -float(np.hypot(*(town.place[node] - middle))))[: 3 * dead_ends]
    for node in rng.sample(outer, min(dead_ends, len(outer))):
        away = (town.place[node] - middle) / np.hypot(*(town.place[node] - middle))
        tip = town.place[node] + rng.uniform(55, 85) * away
        axis = math.atan2(away[1], away[0])
        line = curved(town.place[node], tip, 0.0, rng.uniform(-0.4, 0.4), axis, 0.0)
        street = Street(node, next(names), line, 1, LOCAL_LIMIT_MPS, 1)
        town.streets.append(street)
        if sharpest_angle(town, node) < LEAST_ANGLE_RAD:
            town.streets.remove(street)
        else:
            town.place[street.end], town.control[street.end] = tip, "dead_end"
    local = [s for s in town.streets if s.lanes == 1 and s.end in town.place and town.control.get(s.end) != "dead_end"]
    for street in rng.sample(local, min(one_way, len(local))):
        turned_one_way(town, street, rng.random() < 0.5)
    for node in list(town.place):
        around = town.around(node)
        if town.control.get(node) == "dead_end":
            continue
        busy = sum(street.lanes >= 2 for street in around)
        signals = len(around) >= 3 and (busy >= 3 or (busy == 2 and rng.random() < 0.5))
        kinds = ("priority", "priority", "priority", "priority_stop", "allway_stop" if busy == 0 else "priority_stop")
        town.control[node] = "traffic_light" if signals else rng.choice(kinds)
        angle = sharpest_angle(town, node)
        if angle < WIDE_ANGLE_RAD:  # the sharper the corner, the larger its radius, so that a car gets round it
            town.corner_m[node] = min(CORNER_RADIUS_M / math.tan(0.5 * angle), WIDEST_CORNER_M)
    fit = [node for node in town.place if _fits_roundabout(town, node)]
    chosen = [] if first_roundabout is None else [first_roundabout]
    for node in [*chosen, *rng.sample(fit, len(fit))][:roundabouts]:
        add_roundabout(town, node)


def _fits_roundabout(town: Town, node: Place) -> bool:
    around = town.around(node)
    wide = sharpest_angle(town, node) >= ROUNDABOUT_ANGLE_RAD
    return len(around) >= 3 and wide and all(street.lanes == 1 and not street.one_way for street in around)
