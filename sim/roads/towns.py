"""Generates towns from a seed: streets, signals, sidewalks and crossings as a SUMO network.

Knows netconvert's plain nodes and edges; knows nothing about ground, scenery or traffic.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from sim.roads.netconvert import netconvert
from sim.roads.polyline import arc_lengths, resampled
from sim.roads.sumo_reader import MapError

F64 = NDArray[np.float64]

TOWN_KINDS = ("grid-small", "grid-large")
SPLITS = {"train": range(10_000), "validation": range(10_000, 11_000), "test": range(20_000, 21_000)}

LOCAL_LIMIT_MPS = 30 / 3.6
MAIN_LIMIT_MPS = 50 / 3.6
LANE_WIDTH_M = 3.5
SIDEWALK_WIDTH_M = 2.5
CORNER_RADIUS_M = 8.0
BEND_RADIUS_M = 24.0
POINT_SPACING_M = 3.0
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
        case _:
            raise MapError(f"no town kind {kind!r}; known: {', '.join(TOWN_KINDS)}")
    inputs = {"node-files": _nodes_xml(town), "edge-files": _edges_xml(town)}
    net_xml = netconvert(inputs, NETCONVERT_OPTIONS).net_xml
    return re.sub(rb'(<tlLogic [^>]*offset=")0(?:\.00)?"', lambda m: m[1] + b'%d"' % rng.randrange(52), net_xml)


@dataclass
class _Street:
    """A street between two junctions: its centre line (N, 2), lanes a direction, limit and rank in right of way."""

    start: tuple[int, int]
    end: tuple[int, int]
    line: F64
    lanes: int
    limit_mps: float
    rank: int


@dataclass
class _Town:
    place: dict[tuple[int, int], F64]
    control: dict[tuple[int, int], str] = field(default_factory=dict)
    streets: list[_Street] = field(default_factory=list)


def _grid_town(rng: random.Random, *, columns: int, rows: int) -> _Town:
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
    links = _thinned(rng, links, lambda link: _is_main(link, main_columns, main_rows))
    town = _Town(place)
    for a, b in links:
        main = _is_main((a, b), main_columns, main_rows)
        bulge_m = (
            0.0 if main or rng.random() < 0.5 else rng.uniform(-0.09, 0.09) * float(np.hypot(*(place[b] - place[a])))
        )
        level = a[1] == b[1]
        line = _curved(place[a], place[b], turned[a], turned[b], 0.0 if level else math.pi / 2, bulge_m)
        slow = not main and rng.random() < 0.6
        rank = 3 if main else 2 if level else 1
        limit_mps = LOCAL_LIMIT_MPS if slow else MAIN_LIMIT_MPS
        town.streets.append(_Street(a, b, line, 2 if main else 1, limit_mps, rank))
    _join_bends(town)
    for node in list(town.place):
        around = [street for street in town.streets if node in (street.start, street.end)]
        busy = sum(street.lanes == 2 for street in around)
        signals = len(around) >= 3 and (busy >= 3 or (busy == 2 and rng.random() < 0.5))
        stop = rng.random() < 0.35
        town.control[node] = "traffic_light" if signals else "priority_stop" if stop else "priority"
    return town


def _is_main(link: tuple[tuple[int, int], tuple[int, int]], columns: set[int], rows: set[int]) -> bool:
    (i, j), (k, m) = link
    return (i == k and i in columns) or (j == m and j in rows)


def _thinned(
    rng: random.Random,
    links: list[tuple[tuple[int, int], tuple[int, int]]],
    keep: Callable[[tuple[tuple[int, int], tuple[int, int]]], bool],
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """About one street in six taken out, so that every place is still reached in two ways and none is a dead end."""
    candidates = [link for link in links if not keep(link)]
    rng.shuffle(candidates)
    left = list(links)
    for link in candidates[: round(len(links) * 0.25)]:
        rest = [other for other in left if other != link]
        nodes = {node for other in rest for node in other}
        degrees = {node: sum(node in other for other in rest) for node in nodes}
        if min(degrees[link[0]], degrees[link[1]]) >= 3 and _two_edge_connected(rest):
            left = rest
    return left


def _two_edge_connected(links: list[tuple[tuple[int, int], tuple[int, int]]]) -> bool:
    return all(_connected([other for other in links if other != link], link) for link in links)


def _connected(links: list[tuple[tuple[int, int], tuple[int, int]]], ends: tuple[tuple[int, int], ...]) -> bool:
    seen, todo = {ends[0]}, [ends[0]]
    while todo:
        node = todo.pop()
        for a, b in links:
            if node in (a, b):
                other = b if a == node else a
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
    return all(end in seen for end in ends)


def _curved(a: F64, b: F64, turn_a: float, turn_b: float, axis_rad: float, bulge_m: float) -> F64:
    """A cubic Hermite curve from a to b that leaves and arrives along the turned axis, with a smooth bulge between."""
    t = np.linspace(0.0, 1.0, 65)[:, None]
    reach = np.hypot(*(b - a))
    tangent_a = reach * np.array([math.cos(axis_rad + turn_a), math.sin(axis_rad + turn_a)])
    tangent_b = reach * np.array([math.cos(axis_rad + turn_b), math.sin(axis_rad + turn_b)])
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * a
        + (t**3 - 2 * t**2 + t) * tangent_a
        + (-2 * t**3 + 3 * t**2) * b
        + (t**3 - t**2) * tangent_b
    )
    normal = np.array([-(b - a)[1], (b - a)[0]]) / reach
    return np.asarray(curve + bulge_m * np.sin(np.pi * t) ** 2 * normal)


def _join_bends(town: _Town) -> None:
    """Two streets that meet alone in a place become one with a rounded bend; the place is then no junction."""
    for node in list(town.place):
        around = [street for street in town.streets if node in (street.start, street.end)]
        if len(around) != 2:
            continue
        first, second = around
        into = first.line if first.end == node else first.line[::-1]
        out = second.line if second.start == node else second.line[::-1]
        start = first.start if first.end == node else first.end
        end = second.end if second.start == node else second.start
        if start == end:
            continue
        main = max(around, key=lambda street: street.lanes)
        line = _rounded(into, out)
        limit_mps = min(street.limit_mps for street in around)
        joined = _Street(start, end, line, main.lanes, limit_mps, min(street.rank for street in around))
        town.streets = [street for street in town.streets if street is not first and street is not second] + [joined]
        del town.place[node]


def _rounded(into: F64, out: F64) -> F64:
    """The two lines joined by a curve instead of a corner: each gives up its last metres to a Bezier curve."""
    gap = 1.6 * BEND_RADIUS_M
    into_length, out_length = arc_lengths(into), arc_lengths(out)
    before = into[into_length < into_length[-1] - gap]
    after = out[out_length > gap]
    t = np.linspace(0.0, 1.0, 25)[1:-1, None]
    p0, p3, corner = before[-1], after[0], into[-1]
    p1, p2 = p0 + 0.6 * (corner - p0), p3 + 0.6 * (corner - p3)
    bend = (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * p3
    return np.concatenate([before, bend, after])


def _name(node: tuple[int, int]) -> str:
    return f"{chr(ord('A') + node[0])}{node[1] + 1}"


def _nodes_xml(town: _Town) -> bytes:
    rows = [
        f'<node id={quoteattr(_name(node))} x="{x:.3f}" y="{y:.3f}" type="{town.control[node]}"'
        f' radius="{CORNER_RADIUS_M}"/>'
        for node, (x, y) in town.place.items()
    ]
    return "\n".join(["<nodes>", *rows, "</nodes>"]).encode()


def _edges_xml(town: _Town) -> bytes:
    rows = []
    for number, street in enumerate(town.streets):
        line, _ = resampled(street.line, POINT_SPACING_M)
        a, b = _name(street.start), _name(street.end)
        for start, end, points in ((a, b, line), (b, a, line[::-1])):
            shape = " ".join(f"{x:.3f},{y:.3f}" for x, y in points)
            rows.append(
                f'<edge id="{start}{end}.{number}" from="{start}" to="{end}" numLanes="{street.lanes}"'
                f' speed="{street.limit_mps:.3f}" priority="{street.rank}" width="{LANE_WIDTH_M}"'
                f' sidewalkWidth="{SIDEWALK_WIDTH_M}" shape="{shape}"/>'
            )
    return "\n".join(["<edges>", *rows, "</edges>"]).encode()
