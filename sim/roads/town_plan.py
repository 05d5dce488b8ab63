"""The plan of a town: places, streets between them, roundabouts; and how netconvert wants to read it.

Knows geometry and netconvert's plain nodes and edges; knows nothing about kinds of towns.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from sim.roads.polyline import arc_lengths, resampled

F64 = NDArray[np.float64]
Place = tuple[int, int]

LANE_WIDTH_M = 3.5
SIDEWALK_WIDTH_M = 2.5
CORNER_RADIUS_M = 8.0
BEND_RADIUS_M = 24.0
POINT_SPACING_M = 3.0
RING_RADIUS_M = 17.0
RING_LANE_M = 4.5
RING_LIMIT_MPS = 30 / 3.6
RING_RANK = 9
RING_CORNER_M = 6.0
NOT_ON_FAST_ROADS = "pedestrian bicycle tram rail rail_urban rail_electric rail_fast ship"
RING_FIRST_PLACE = 1000  # places on rings are numbered from here on, past those of any plan


@dataclass
class Street:
    """A street between two places: its centre line (N, 2), lanes a direction, limit, rank in right of way, one way or both.

    fast: for motor vehicles only, without sidewalks. right_of_line: a one-way street whose left edge is the line.
    outer_limit_mps: of its outermost lane, where that is another. keeps_out: nobody changes to its outermost lane.
    """

    start: Place
    end: Place
    line: F64
    lanes: int
    limit_mps: float
    rank: int
    one_way: bool = False
    lane_width_m: float = LANE_WIDTH_M
    fast: bool = False
    right_of_line: bool = False
    outer_limit_mps: float = 0.0
    keeps_out: bool = False


@dataclass
class Way:
    """From a lane of a street to a lane of one that begins where that ends; lanes are counted from the outermost, 0."""

    origin: Street
    origin_lane: int
    target: Street
    target_lane: int


@dataclass
class Town:
    """place: (2,) metres of each place. control: netconvert's type of junction. rings: places of each roundabout, in order.
    corner_m: radius of a junction's corners where it is not the usual one. outline: corners (K, 2) of junctions that are drawn by
    hand. ways: which lane leads to which, for streets that do not leave that to netconvert."""

    place: dict[Place, F64]
    control: dict[Place, str] = field(default_factory=dict)
    streets: list[Street] = field(default_factory=list)
    rings: list[list[Place]] = field(default_factory=list)
    corner_m: dict[Place, float] = field(default_factory=dict)
    outline: dict[Place, F64] = field(default_factory=dict)
    ways: list[Way] = field(default_factory=list)

    def around(self, node: Place) -> list[Street]:
        """The streets that begin or end in a place."""
        return [street for street in self.streets if node in (street.start, street.end)]


def thinned(
    rng: random.Random,
    links: list[tuple[Place, Place]],
    keep: Callable[[tuple[Place, Place]], bool],
) -> list[tuple[Place, Place]]:
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


def _two_edge_connected(links: list[tuple[Place, Place]]) -> bool:
    return all(_connected([other for other in links if other != link], link) for link in links)


def _connected(links: list[tuple[Place, Place]], ends: tuple[Place, ...]) -> bool:
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


def curved(a: F64, b: F64, turn_a: float, turn_b: float, axis_rad: float, bulge_m: float) -> F64:
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


def join_bends(town: Town) -> None:
    """Two streets that meet alone in a place become one with a rounded bend; the place is then no junction."""
    for node in list(town.place):
        around = town.around(node)
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
        line = rounded(into, out)
        limit_mps = min(street.limit_mps for street in around)
        joined = Street(start, end, line, main.lanes, limit_mps, min(street.rank for street in around))
        town.streets = [street for street in town.streets if street is not first and street is not second] + [joined]
        del town.place[node]


def rounded(into: F64, out: F64) -> F64:
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


def turned_one_way(town: Town, street: Street, reverse: bool) -> None:
    """The street made one-way, unless some place could then no longer be reached from every other without turning back."""
    before = (street.start, street.end, street.line)
    street.one_way = True
    if reverse:
        street.start, street.end, street.line = street.end, street.start, street.line[::-1]
    if not _all_reachable(town):
        street.one_way = False
        street.start, street.end, street.line = before


def _all_reachable(town: Town) -> bool:
    """Whether every directed street leads to every other; those that end in a dead end count for neither."""
    ways = [(s.start, s.end) for s in town.streets] + [(s.end, s.start) for s in town.streets if not s.one_way]
    dead = {node for node in town.place if len(town.around(node)) < 2}
    ways = [way for way in ways if not dead & set(way)]
    for turned in (False, True):
        if turned:
            ways = [(b, a) for a, b in ways]
        leaving: dict[Place, list[Place]] = {}
        for a, b in ways:
            leaving.setdefault(a, []).append(b)
        seen, todo = {ways[0]}, [ways[0]]
        while todo:
            a, b = todo.pop()
            for onward in leaving.get(b, []):
                if onward != a and (b, onward) not in seen:
                    seen.add((b, onward))
                    todo.append((b, onward))
        if len(seen) < len(set(ways)):
            return False
    return True


def sharpest_angle(town: Town, node: Place) -> float:
    """The smallest angle in radians between two streets where they leave a place; pi where there are fewer than two."""
    leaving = []
    for street in town.around(node):
        line = street.line if street.start == node else street.line[::-1]
        ahead = line[min(4, len(line) - 1)] - line[0]
        leaving.append(math.atan2(ahead[1], ahead[0]))
    leaving.sort()
    gaps = [b - a for a, b in zip(leaving, [*leaving[1:], leaving[0] + 2 * math.pi], strict=True)] if leaving else []
    return min(gaps) if len(leaving) > 1 else math.pi


def add_roundabout(town: Town, node: Place) -> None:
    """A place replaced by a one-way ring, counter-clockwise, on which each of its streets has a place of its own."""
    center = town.place.pop(node)
    arms: list[tuple[float, Place]] = []
    town.control.pop(node, None)
    for street in town.around(node):
        leaves = street.start == node
        line = street.line if leaves else street.line[::-1]
        outside = np.hypot(*(line - center).T) > RING_RADIUS_M
        first = int(np.argmax(outside))
        a, b = line[first - 1], line[first]
        ra, rb = np.hypot(*(a - center)), np.hypot(*(b - center))
        joint = a + (b - a) * (RING_RADIUS_M - ra) / (rb - ra)
        place = (RING_FIRST_PLACE + len(town.rings), len(arms))
        line = np.concatenate([joint[None], line[first:]])
        street.line = line if leaves else line[::-1]
        if leaves:
            street.start = place
        else:
            street.end = place
        town.place[place], town.control[place], town.corner_m[place] = joint, "priority", RING_CORNER_M
        arms.append((math.atan2(joint[1] - center[1], joint[0] - center[0]), place))
    arms.sort()
    for (angle, place), (next_angle, next_place) in zip(arms, [*arms[1:], arms[0]], strict=True):
        turn = np.linspace(angle, next_angle if next_angle > angle else next_angle + 2 * math.pi, 17)
        line = center + RING_RADIUS_M * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        line[0], line[-1] = town.place[place], town.place[next_place]
        town.streets.append(Street(place, next_place, line, 1, RING_LIMIT_MPS, RING_RANK, True, RING_LANE_M))
    town.rings.append([place for _, place in arms])


def _name(node: Place) -> str:
    if node[0] >= 26:
        return f"R{node[0] - RING_FIRST_PLACE}.{node[1]}"
    return f"{chr(ord('A') + node[0])}{node[1] + 1}"


def nodes_xml(town: Town) -> bytes:
    """The places in netconvert's format."""
    rows = []
    for node, (x, y) in town.place.items():
        radius = town.corner_m.get(node, CORNER_RADIUS_M)
        outline = f' shape="{_points(town.outline[node])}"' if node in town.outline else ""
        rows.append(
            f'<node id={quoteattr(_name(node))} x="{x:.3f}" y="{y:.3f}" type="{town.control[node]}" radius="{radius}"{outline}/>'
        )
    return "\n".join(["<nodes>", *rows, "</nodes>"]).encode()


def _points(line: F64) -> str:
    return " ".join(f"{x:.3f},{y:.3f}" for x, y in line)


def edges_xml(town: Town) -> bytes:
    """The streets in netconvert's format, an edge for each direction, and which of them are roundabouts."""
    rows = []
    ring_edges: dict[Place, str] = {}
    for number, street in enumerate(town.streets):
        line, _ = resampled(street.line, POINT_SPACING_M)
        a, b = _name(street.start), _name(street.end)
        for start, end, points in ((a, b, line), (b, a, line[::-1])):
            if street.one_way and points is not line:
                continue
            if street.rank == RING_RANK:
                ring_edges[street.start] = f"{start}{end}.{number}"
            beside = f'disallow="{NOT_ON_FAST_ROADS}"' if street.fast else f'sidewalkWidth="{SIDEWALK_WIDTH_M}"'
            spread = ' spreadType="center"' if street.one_way and not street.right_of_line else ""
            row = (
                f'<edge id="{start}{end}.{number}" from="{start}" to="{end}" numLanes="{street.lanes}"'
                f' speed="{street.limit_mps:.3f}" priority="{street.rank}" width="{street.lane_width_m}"'
                f' {beside} shape="{_points(points)}"{spread}'
            )
            lanes = _special_lanes(street)
            rows.append(f"{row}>{lanes}</edge>" if lanes else f"{row}/>")
    for ring in town.rings:
        places, edges = " ".join(map(_name, ring)), " ".join(ring_edges[place] for place in ring)
        rows.append(f'<roundabout nodes="{places}" edges="{edges}"/>')
    return "\n".join(["<edges>", *rows, "</edges>"]).encode()


def _special_lanes(street: Street) -> str:
    """What is not the same for all lanes of a street."""
    slower = f'<lane index="0" speed="{street.outer_limit_mps:.3f}"/>' if street.outer_limit_mps else ""
    kept_out = '<lane index="1" changeRight="authority"/>' if street.keeps_out else ""
    return slower + kept_out


def ways_xml(town: Town) -> bytes:
    """Which lane leads to which, in netconvert's format."""
    numbers = {id(street): number for number, street in enumerate(town.streets)}
    rows = []
    for way in town.ways:
        joint = {way.origin.start, way.origin.end} & {way.target.start, way.target.end}
        node = joint.pop()
        came_from = way.origin.start if way.origin.end == node else way.origin.end
        goes_to = way.target.end if way.target.start == node else way.target.start
        origin = f"{_name(came_from)}{_name(node)}.{numbers[id(way.origin)]}"
        target = f"{_name(node)}{_name(goes_to)}.{numbers[id(way.target)]}"
        rows.append(
            f'<connection from="{origin}" to="{target}" fromLane="{way.origin_lane}" toLane="{way.target_lane}"/>'
        )
    return "\n".join(["<connections>", *rows, "</connections>"]).encode()
