"""Moves lanes of a converted OpenDRIVE file to where the file has them, on roads where netconvert cannot.

netconvert gives a lane one width and follows a lane offset only at the ends of straight pieces, so on roads where either
changes its lanes are up to half a lane off. Knows OpenDRIVE roads and SUMO networks as XML; knows nothing about conversion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from sim.roads.opendrive_roads import (
    DRIVING_KINDS,
    OpenDriveRoad,
    lanes_across,
    lanes_bend,
    read_road,
    reference_line,
)
from sim.roads.polyline import arc_lengths
from sim.roads.sumo_elements import DEFAULT_WIDTH_M, WIDTHS_KEY

F64 = NDArray[np.float64]
_End = tuple[str, str, bool]  # of a road: its node, the road, and whether stations are largest there

# netconvert's option that says which lane of the file each of its lanes is.
NAMES_OPTION = "--output.original-names"
STEP_M = 1.0
STRIDE = 32
FARTHEST_M = 20.0  # a lane that netconvert has further from the file's is not the same, and stays
UNEVEN_M = 0.01
JOINT_M = 3.0  # between parts of one road
OVERLAP_M = 0.5
# Points of reference lines looked through, and 25 for each that is made: some seconds, and as much as 1,000 km of lanes need.
MOST_WORK = 50_000_000
WORK_OF_A_POINT = 25


class TooManyLanes(ValueError):
    """Moving the lanes would take too long; the message says what to do."""


def bending_roads(root: Element) -> tuple[dict[str, OpenDriveRoad], Counter[str]]:
    """The roads for cars outside junctions, by id, whose lanes netconvert would misplace, and how many cannot be evaluated, by
    reason."""
    found: dict[str, OpenDriveRoad] = {}
    unknown: Counter[str] = Counter()
    for element in root.iter("road"):
        if element.get("junction") != "-1" or DRIVING_KINDS.isdisjoint(
            lane.get("type") for lane in element.iter("lane")
        ):
            continue
        try:
            road = read_road(element)
        except ValueError as error:
            unknown[str(error)] += 1
            continue
        if lanes_bend(road):
            found[road.name] = road
    return found, unknown


def with_exact_lanes(net_xml: bytes, roads: dict[str, OpenDriveRoad]) -> bytes:
    """The network of netconvert with lanes of these roads, and what joins them, where the roads have them.

    Raises TooManyLanes.
    """
    root = fromstring(net_xml)
    network = _Network(root)
    nodes = _nodes(network)
    open_ends = {node for node, sides in nodes.items() if len(sides) == 1}
    joints = {node: list(sides.values()) for node, sides in nodes.items() if len(sides) == 2}
    with np.errstate(all="ignore"):  # numbers beyond all measure give no places, and such lanes stay
        moved = _move_lanes(network, _aligned(_stretches(network, roads), open_ends))
    for connection in root.iter("connection"):
        _move_path(network, connection, moved, joints)
    for node, sides in joints.items():
        if any(lane in moved for side in sides for lane, _ in side):
            _redraw_joint(network, node, sides, moved)
    return bytes(tostring(root))


class _Network:
    """The XML of a network, by id."""

    def __init__(self, root: Element) -> None:
        shift = next(root.iter("location")).attrib["netOffset"].split(",")
        self.shift = np.array([float(shift[0]), float(shift[1])])
        self.edges = {edge.attrib["id"]: edge for edge in root.iter("edge")}
        self.lanes = {lane.attrib["id"]: lane for lane in root.iter("lane")}
        self.street_lanes = {
            name: sorted(edge.iter("lane"), key=lambda lane: int(lane.attrib["index"]))
            for name, edge in self.edges.items()
            if edge.get("function", "normal") == "normal"
        }
        # Lane to road and lane of the file; a sidewalk that netconvert added says the same as the lane inside of it.
        self.origins: dict[str, tuple[str, int]] = {}
        for lanes in self.street_lanes.values():
            found = {origin: lane.attrib["id"] for lane in lanes if (origin := _origin(lane)) is not None}
            self.origins.update({name: origin for origin, name in found.items()})
        self.junctions = {junction.attrib["id"]: junction for junction in root.iter("junction")}
        self.onward = {
            (c.attrib["from"], c.attrib["fromLane"]): c for c in root.iter("connection") if c.attrib["from"][:1] == ":"
        }
        self.walking_areas: dict[str, list[Element]] = {}
        for name, edge in self.edges.items():
            if edge.get("function") == "walkingarea":
                self.walking_areas.setdefault(name[1:].rpartition("_")[0], []).extend(edge.iter("lane"))


def _points(element: Element) -> F64:
    rows = [[float(value) for value in point.split(",")[:2]] for point in element.attrib["shape"].split()]
    return np.array(rows, np.float64).reshape(-1, 2)


def _set_points(element: Element, points: F64) -> None:
    element.set("shape", " ".join(f"{x:.3f},{y:.3f}" for x, y in points))


def _origin(lane: Element) -> tuple[str, int] | None:
    """Road and lane of the file that a lane comes from; None for what netconvert added, such as sidewalks."""
    for param in lane.iter("param"):
        if param.get("key") == "origId":
            road, _, number = param.get("value", "").rpartition("_")
            if number.lstrip("-").isdecimal():
                return road, int(number)
    return None


@dataclass(frozen=True)
class _Stretch:
    """An edge of the network that is part of a road, and where along it, metres, in the direction of driving.

    side: 1 for lanes to the left of the reference line, which run against it, and -1 for those to the right.
    """

    edge: str
    road: OpenDriveRoad
    side: int
    nodes: tuple[str, str]
    stations: tuple[float, float]

    def ends(self) -> tuple[_End, _End]:
        """From where to where it leads."""
        return (self.nodes[0], self.road.name, self.side > 0), (self.nodes[1], self.road.name, self.side < 0)


def _stretches(network: _Network, roads: dict[str, OpenDriveRoad]) -> list[_Stretch]:
    """The edges of these roads."""
    found: list[_Stretch] = []
    sampled: dict[str, tuple[F64, F64]] = {}
    work = 0
    for name, lanes in network.street_lanes.items():
        named = [lane for lane in lanes if lane.attrib["id"] in network.origins]
        origins = [network.origins[lane.attrib["id"]] for lane in named]
        of_road, sides = {road for road, _ in origins}, {1 if number > 0 else -1 for _, number in origins}
        road = roads.get(next(iter(of_road))) if len(of_road) == len(sides) == 1 else None
        if road is None:
            continue
        if road.name not in sampled:
            stations = np.linspace(0.0, road.length_m, int(np.ceil(road.length_m / STEP_M)) + 1)
            work += WORK_OF_A_POINT * len(stations)
            sampled[road.name] = stations, reference_line(road, stations)[0] + network.shift
        stations, line = sampled[road.name]
        middles = np.mean([_points(lane)[[0, -1]] for lane in named], axis=0)
        first, last = (_station(stations, line, place) for place in middles)
        side, edge = next(iter(sides)), network.edges[name]
        if np.isfinite(last - first) and (last - first) * side < 0.0:
            found.append(_Stretch(name, road, side, (edge.attrib["from"], edge.attrib["to"]), (first, last)))
            work += len(stations) + WORK_OF_A_POINT * int(abs(last - first) / STEP_M + 2) * len(lanes)
        if work > MOST_WORK:
            raise TooManyLanes("too many lanes change their width; cut out a smaller region")
    return found


def _aligned(stretches: list[_Stretch], open_ends: set[str]) -> list[_Stretch]:
    """Both directions of a road end at the same station, that of the road's own end where nothing follows, and where the road
    goes on, a joint is no longer than it has to be."""
    stations: dict[_End, list[float]] = {}
    for stretch in stretches:
        for end, station in zip(stretch.ends(), stretch.stations, strict=True):
            stations.setdefault(end, []).append(station)
    at = {end: float(np.mean(values)) for end, values in stations.items()}
    roads = {stretch.road.name: stretch.road for stretch in stretches}
    for node, name, high in list(at):
        if node in open_ends:
            at[node, name, high] = roads[name].length_m if high else 0.0
        before, after = (node, name, True), (node, name, False)
        if not high or after not in at or at[before] >= at[after]:
            continue
        middle = 0.5 * (at[before] + at[after])
        middle = next((part.s_m for part in roads[name].sections if at[before] < part.s_m < at[after]), middle)
        at[before] = max(at[before], middle - 0.5 * JOINT_M)
        at[after] = min(at[after], middle + 0.5 * JOINT_M)
    return [replace(one, stations=(at[one.ends()[0]], at[one.ends()[1]])) for one in stretches]


def _move_lanes(network: _Network, stretches: list[_Stretch]) -> dict[str, F64]:
    """Gives every lane of these stretches its centre line and widths; the line (N, 2) that it had before, by lane."""
    moved: dict[str, F64] = {}
    for stretch in stretches:
        new = _exact_lanes(network, stretch)
        for lane, (points, widths) in new.items():
            element = network.lanes[lane]
            moved[lane] = _points(element)
            _set_points(element, points)
            element.set("length", f"{arc_lengths(points)[-1]:.3f}")
            element.set("width", f"{max(float(np.mean(widths)), 0.1):.3f}")
            if np.ptp(widths) > UNEVEN_M:
                SubElement(element, "param", key=WIDTHS_KEY, value=" ".join(f"{width:.3f}" for width in widths))
    return moved


def _station(stations: F64, line: F64, place: F64) -> float:
    """The station on the reference line (N, 2), in steps of STEP_M, that is nearest to a place (2,).

    Looked for around those of every 32nd point that are not much further away than the nearest of them.
    """
    coarse = np.hypot(*(line[::STRIDE] - place).T)
    near = np.flatnonzero(coarse <= coarse.min() + STRIDE * STEP_M) * STRIDE
    segments = np.unique(np.clip(near[:, None] + np.arange(-STRIDE, STRIDE), 0, len(line) - 2))
    if len(segments) == 0:
        return np.nan
    start, along = line[segments], line[segments + 1] - line[segments]
    t = ((place - start) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12)
    t = np.clip(t, 0.0, 1.0)
    gap = np.hypot(*(start + t[:, None] * along - place).T)
    nearest = int(np.argmin(gap))
    k = segments[nearest]
    return float(stations[k] + t[nearest] * (stations[k + 1] - stations[k]))


def _exact_lanes(network: _Network, stretch: _Stretch) -> dict[str, tuple[F64, F64]]:
    """Centre line (N, 2) and widths (N,) of each lane; nothing where these are not the lanes that netconvert has.

    Lanes of unknown origin are outside of the others, the outermost first.
    """
    road, side, (first, last) = stretch.road, stretch.side, stretch.stations
    section = next((s for s in reversed(road.sections) if s.s_m <= 0.5 * (first + last)), road.sections[0])
    stations = np.linspace(first, last, int(np.ceil(abs(last - first) / STEP_M)) + 1)
    centers, widths = lanes_across(road, section, side, stations)
    lanes = network.street_lanes[stretch.edge]
    numbers = [network.origins[lane.attrib["id"]][1] for lane in lanes if lane.attrib["id"] in network.origins]
    if not set(numbers) <= centers.keys():
        return {}
    line, yaw = reference_line(road, stations)
    left = np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)
    outermost = max(numbers, key=abs)
    border = centers[outermost] + 0.5 * side * widths[outermost]
    new: dict[str, tuple[F64, F64]] = {}
    for lane in reversed(lanes):
        if lane.attrib["id"] in network.origins:
            number = network.origins[lane.attrib["id"]][1]
            center, width = centers[number], widths[number]
        else:
            width = np.full(len(stations), float(lane.get("width", DEFAULT_WIDTH_M)))
            center, border = border + 0.5 * side * width, border + side * width
        points = line + center[:, None] * left + network.shift
        if not np.isfinite(points).all() or np.hypot(*(points - _points(lane)[0]).T).min() > FARTHEST_M:
            return {}
        new[lane.attrib["id"]] = points, width
    return new


def _nodes(network: _Network) -> dict[str, dict[tuple[str, bool], list[tuple[str, int]]]]:
    """Nodes, and at each the ends of roads (road, whether stations are largest there) with their lanes: id, and which of its
    points is there (0 or -1)."""
    nodes: dict[str, dict[tuple[str, bool], list[tuple[str, int]]]] = {}
    for name, lanes in network.street_lanes.items():
        edge = network.edges[name]
        road, number = next(
            (network.origins[k] for lane in lanes if (k := lane.attrib["id"]) in network.origins), (name, 0)
        )
        for node, at in ((edge.attrib["from"], 0), (edge.attrib["to"], -1)):
            high = (number < 0) == (at == -1)
            nodes.setdefault(node, {}).setdefault((road, high), []).extend((lane.attrib["id"], at) for lane in lanes)
    return nodes


def _move_path(network: _Network, connection: Element, moved: dict[str, F64], joints: Iterable[str]) -> None:
    """A path from or to a moved lane: straight across a joint, else moved at either end as much as the lane was."""
    before = f"{connection.attrib['from']}_{connection.get('fromLane')}"
    after = f"{connection.attrib['to']}_{connection.get('toLane')}"
    if connection.get("via") is None or connection.attrib["from"] not in network.street_lanes:
        return
    if not {before, after} & moved.keys():
        return
    start, end = _points(network.lanes[before])[-1], _points(network.lanes[after])[0]
    if network.edges[connection.attrib["from"]].attrib["to"] in joints:
        _set_points(network.lanes[connection.attrib["via"]], np.stack([start, end]))
        return
    parts: list[Element] = []
    name: str | None = connection.attrib["via"]
    while name is not None and network.lanes[name] not in parts:
        parts.append(network.lanes[name])
        edge, _, index = name.rpartition("_")
        step = network.onward.get((edge, index))
        name = None if step is None else step.get("via")
    shapes = [_points(part) for part in parts]
    path = np.concatenate(shapes)
    lengths = arc_lengths(path)
    share = (lengths / max(lengths[-1], 1e-6))[:, None]
    path = path + (1.0 - share) * (start - moved[before][-1] if before in moved else 0.0)
    path = path + share * (end - moved[after][0] if after in moved else 0.0)
    for part, piece in zip(parts, np.split(path, np.cumsum([len(shape) for shape in shapes])[:-1]), strict=True):
        _set_points(part, piece)


def _redraw_joint(
    network: _Network,
    node: str,
    sides: list[list[tuple[str, int]]],
    moved: dict[str, F64],
) -> None:
    """The surface of a joint, between the outer corners of the lanes that meet, and of sidewalks through it."""
    corners: list[F64] = []
    areas = network.walking_areas.get(node, [])
    walks: dict[int, list[F64]] = {}
    for lanes in sides:
        road: list[F64] = []
        for name, at in lanes:
            lane = network.lanes[name]
            ends = _corners(lane, at)
            if name in network.origins:
                road.append(ends)
            elif areas:
                old = moved[name][at] if name in moved else _points(lane)[at]
                gaps = [np.hypot(*(_points(area) - old).T).min() for area in areas]
                walks.setdefault(int(np.argmin(gaps)), []).append(ends)
        if road:
            corners.append(_extremes(np.concatenate(road)))
    if len(corners) == 2:
        _set_points(network.junctions[node], _quadrangle(*corners))
    for which, ends_of_walks in walks.items():
        if len(ends_of_walks) == 2:
            _set_points(areas[which], _quadrangle(*ends_of_walks))


def _corners(lane: Element, at: int) -> F64:
    """(2, 2) the corners of a lane near its start (0) or its end (-1), so far inside that no gap is left beside the joint."""
    points = _points(lane)
    inward = points[1] - points[0] if at == 0 else points[-2] - points[-1]
    inward = inward / max(float(np.hypot(*inward)), 1e-9)
    aside = np.array([-inward[1], inward[0]])
    widths = next((p.attrib["value"].split() for p in lane.iter("param") if p.get("key") == WIDTHS_KEY), None)
    width = float(widths[at] if widths else lane.get("width", DEFAULT_WIDTH_M))
    corners: F64 = points[at] + OVERLAP_M * inward + 0.5 * width * np.stack([aside, -aside])
    return corners


def _extremes(corners: F64) -> F64:
    """The two of the corners (N, 2), which stand across a road, that are furthest apart."""
    one = corners[np.argmax(np.hypot(*(corners - corners[0]).T))]
    return np.stack([one, corners[np.argmax(np.hypot(*(corners - one).T))]])


def _quadrangle(one: F64, other: F64) -> F64:
    """The corners (4, 2) of the area between two edges (2, 2) of it, in order around it."""
    straight = np.hypot(*(one - other).T).sum()
    return np.concatenate([one, other[::-1] if straight <= np.hypot(*(one - other[::-1]).T).sum() else other])
