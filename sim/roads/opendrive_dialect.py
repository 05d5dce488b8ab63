"""Rewrites in an OpenDRIVE document what netconvert would not read as it is meant, in words that it reads.

It knows speed limits of lanes only, widths and not borders, some kinds of lanes by other names, and no road that leads into
itself unless a link says so. Knows OpenDRIVE as XML and its roads; knows nothing about SUMO networks.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import NDArray

from sim.roads.map_xml import MAX_ELEMENTS, MapError
from sim.roads.opendrive_roads import DRIVING_KINDS, number_in, polynomials, read_road, reference_line

F64 = NDArray[np.float64]
Limits = list[tuple[float, float]]  # where each begins, metres from the lane section's start, and m/s

# netconvert makes lanes for cars of hard shoulders and parking lanes, and drops these ramps.
KINDS = {
    "stop": "shoulder", "parking": "shoulder", "connectingRamp": "onRamp", "slipLane": "driving", "walking": "sidewalk",
}  # fmt: skip
UNITS_MPS = {"m/s": 1.0, "km/h": 1.0 / 3.6, "mph": 0.44704}
NO_LIMIT_MPS = 36.0  # 130 km/h, which is recommended on German motorways without a limit
OPEN_MPS = 13.89  # netconvert's, where the file says nothing
FASTEST_MPS = 100.0  # of what a network may say
MOST_BORDERS = 100_000  # some seconds
LEAST_PART_M = 3.0  # limits hold for no shorter parts of a lane section
CLOSED_M = 0.5
SHORTEST_LOOP_M = 20.0
ALONG_ITSELF = 0.9  # cosine of the angle at which a loop meets its own beginning


def rewrite_for_netconvert(root: Element, title: str) -> list[str]:
    """Changes the document in place; returns sentences about what cannot be said to netconvert.

    Where a road has a number that is none, that part of it is left for netconvert to judge.

    Raises MapError, which calls the document by its title, where it would take too long or make more elements than are read.
    """
    turned = added = 0
    for lane in root.iter("lane"):
        if (kind := lane.get("type")) in KINDS:
            lane.set("type", KINDS[kind])
        turned += lane.get("direction", "standard") != "standard" and lane.get("type") in DRIVING_KINDS
    if sum(1 for _ in root.iter("border")) > MOST_BORDERS:
        raise MapError(f"{title}: more than {MOST_BORDERS:,} borders of lanes; cut out a smaller region")
    for section in root.iter("laneSection"):
        _borders_to_widths(section)
    for road in root.iter("road"):
        if road.get("junction") != "-1":
            continue
        for section, limits in _limits_of_sections(road):
            lanes = [lane for lane in section.iter("lane") if lane.get("id") != "0"]
            added += len(limits) * len(lanes)
            if added > MAX_ELEMENTS:
                raise MapError(f"{title}: more than {MAX_ELEMENTS:,} limits of lanes; cut out a smaller region")
            for lane in lanes:
                _limit(lane, limits)
        if _is_loop(road):
            _link_to_itself(road)
    if turned == 0:
        return []
    return [f"lanes whose `direction` is not the standard one, driven as their side of the road says: {turned}"]


def _limits_of_sections(road: Element) -> list[tuple[Element, Limits]]:
    """Lane sections, and what the road's own records say of the limit along each; nothing where one has no number."""
    try:
        said = sorted(((number_in(kind, "s"), _mps(kind.find("speed"))) for kind in road.findall("type")), key=_start)
        sections = sorted(((number_in(one, "s"), one) for one in road.iter("laneSection")), key=_start)
        ends = [s for s, _ in sections[1:]] + [number_in(road, "length")]
    except (KeyError, ValueError):
        return []
    starts = [s for s, _ in said]
    found = []
    for (start, section), end in zip(sections, ends, strict=True):
        first = bisect_right(starts, start + LEAST_PART_M)
        now = said[first - 1][1] if first else None
        limits = [] if now is None else [(0.0, now)]
        for s, limit in said[first : bisect_right(starts, end - LEAST_PART_M)]:
            if limit != now:
                limits.append((s - start, OPEN_MPS if limit is None else limit))
            now = limit
        found.append((section, limits))
    return found


def _start(record: tuple[float, object]) -> float:
    return record[0]


def _mps(speed: Element | None) -> float | None:
    """The limit in a <speed> element, None where that leaves it open."""
    if speed is None:
        return None
    if speed.get("max") == "no limit":
        return NO_LIMIT_MPS
    try:
        limit = float(speed.get("max", "")) * UNITS_MPS[speed.get("unit", "m/s")]
    except (KeyError, ValueError):
        return None
    return limit if 0.0 < limit <= FASTEST_MPS else None


def _limit(lane: Element, limits: Limits) -> None:
    """Gives a lane those limits up to where its own begin."""
    until = math.inf
    lane[:] = [part for part in lane if part.tag != "speed" or _mps(part) is not None]
    for own in lane.findall("speed"):
        own.set("max", repr(_mps(own)))
        own.set("unit", "m/s")
        try:
            until = min(until, number_in(own, "sOffset"))
        except (KeyError, ValueError):
            until = 0.0
    for s, limit in limits:
        if s < until:
            SubElement(lane, "speed", sOffset=repr(s), max=repr(limit), unit="m/s")


def _borders_to_widths(section: Element) -> None:
    """Says the widths of lanes that the file gives by their outer borders alone: outer border minus that of the lane inside.

    The innermost lane begins in the middle of the road. A lane beside one without borders is left as it is.
    """
    lanes = {lane.get("id", ""): lane for lane in section.iter("lane")}
    borders = {name: lane.findall("border") for name, lane in lanes.items()}
    for name, lane in lanes.items():
        if not borders[name] or lane.find("width") is not None:
            continue
        try:
            number = int(name)
            side = 1 if number > 0 else -1
            outer = polynomials(borders[name], "sOffset")
            inner = polynomials(borders.get(str(number - side), []), "sOffset")
        except (KeyError, ValueError):
            continue
        if abs(number) == 1:
            inner = np.zeros((1, 5))
        if number == 0 or len(inner) == 0:
            continue
        starts = np.union1d(outer[:, 0], inner[:, 0])
        with np.errstate(all="ignore"):  # numbers beyond all measure are left for netconvert to judge
            widths = side * (_expanded(outer, starts) - _expanded(inner, starts))
        lane[:] = [part for part in lane if part.tag != "border"]
        for row in np.column_stack([starts, widths]).tolist():
            SubElement(lane, "width", dict(zip(("sOffset", *"abcd"), map(repr, row), strict=True)))


def _expanded(table: F64, starts: F64) -> F64:
    """(N, 4) coefficients, about these starts (N,), of the polynomials that hold there."""
    row = table[np.clip(np.searchsorted(table[:, 0], starts, side="right") - 1, 0, None)]
    t = starts - row[:, 0]
    a, b, c, d = row[:, 1:].T
    return np.stack([a + t * (b + t * (c + t * d)), b + t * (2 * c + 3 * t * d), c + 3 * t * d, d], axis=1)


def _is_loop(road: Element) -> bool:
    """Whether a road that no link joins to another ends where it begins, in the direction in which it begins."""
    if road.find("link/predecessor") is not None or road.find("link/successor") is not None:
        return False
    try:
        evaluated = read_road(road)
        with np.errstate(all="ignore"):  # numbers beyond all measure end nowhere
            points, yaw = reference_line(evaluated, np.array([0.0, evaluated.length_m]))
            gap, turned = np.hypot(*(points[1] - points[0])), np.cos(yaw[1] - yaw[0])
    except ValueError:
        return False
    return evaluated.length_m > SHORTEST_LOOP_M and bool(gap < CLOSED_M and turned > ALONG_ITSELF)


def _link_to_itself(road: Element) -> None:
    link = road.find("link")
    if link is None:
        link = SubElement(road, "link")
    for tag, end in (("predecessor", "end"), ("successor", "start")):
        SubElement(link, tag, elementType="road", elementId=road.get("id", ""), contactPoint=end)
