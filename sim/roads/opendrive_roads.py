"""Evaluates roads of an OpenDRIVE file: where its lanes run, and how wide they are.

Knows OpenDRIVE's geometry; knows nothing about SUMO, junctions or traffic.
https://publications.pages.asam.net/standards/ASAM_OpenDRIVE/ASAM_OpenDRIVE_Specification/latest/specification/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from sim.roads.polyline import arc_lengths

F64 = NDArray[np.float64]

LONGEST_ROAD_M = 100_000.0
# Of lanes that netconvert keeps for cars, and of all that it keeps.
DRIVING_KINDS = frozenset({"driving", "entry", "exit", "onRamp", "offRamp", "mwyEntry", "mwyExit", "bidirectional"})
KEPT_KINDS = DRIVING_KINDS | {"restricted", "roadWorks", "tram", "rail"}
VARYING = 1e-9  # smaller coefficients are rounding of who wrote the file
NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)  # exact to a micrometre up to two full turns of a piece


class UnknownGeometry(ValueError):
    """A road that this module cannot evaluate: its message says why."""


@dataclass(frozen=True)
class Piece:
    """One element of a reference line, from station s_m on.

    kind: "clothoid" (line, arc and spiral: heading and curvature at its start, and curvature's change per metre) or "cubic"
    (x and y along and across the heading, each as four coefficients of a parameter up to `last`). cubic: (2, 4).
    """

    s_m: float
    length_m: float
    x: float
    y: float
    yaw_rad: float
    curvature: float = 0.0
    curvature_per_m: float = 0.0
    cubic: F64 | None = None
    last: float = 0.0


@dataclass(frozen=True)
class Section:
    """Lanes from station s_m to end_m: id (positive to the left) to kind, and to widths, rows of station, a, b, c, d."""

    s_m: float
    end_m: float
    kinds: dict[int, str]
    widths: dict[int, F64]


@dataclass(frozen=True)
class OpenDriveRoad:
    """One road: reference line, offset of its lanes from that (rows of station, a, b, c, d), and lane sections."""

    name: str
    length_m: float
    pieces: tuple[Piece, ...]
    offsets: F64
    sections: tuple[Section, ...]


def read_road(road: Element) -> OpenDriveRoad:
    """The road in a <road> element.

    Raises UnknownGeometry where something is missing, no number, or of a kind that is not evaluated (widths as <border>,
    sections of one side only).
    """
    try:
        pieces = tuple(sorted(map(_piece, road.iter("geometry")), key=lambda piece: piece.s_m))
        if not pieces or road.find("lanes/laneSection") is None:
            raise UnknownGeometry("no geometry or no lanes")
        length = min(number_in(road, "length"), pieces[-1].s_m + pieces[-1].length_m)
        if not 0.0 < length <= LONGEST_ROAD_M:
            raise UnknownGeometry(f"a length of {length} m")
        elements = sorted(road.iter("laneSection"), key=lambda element: number_in(element, "s"))
        ends = [number_in(element, "s") for element in elements[1:]] + [length]
        return OpenDriveRoad(
            name=road.attrib["id"],
            length_m=length,
            pieces=pieces,
            offsets=_offsets(road),
            sections=tuple(_section(element, end) for element, end in zip(elements, ends, strict=True)),
        )
    except KeyError as error:
        raise UnknownGeometry(f"{error} is missing") from error


def number_in(element: Element, key: str) -> float:
    """A finite number among the attributes.

    Raises KeyError where it is missing, ValueError where it is none, UnknownGeometry where it is not finite.
    """
    value = float(element.attrib[key])
    if not np.isfinite(value):
        raise UnknownGeometry(f"{key}={value}")
    return value


def polynomials(elements: Iterable[Element], key: str, start_m: float = 0.0) -> F64:
    """(K, 5) station and coefficients of each polynomial, in the order of stations; raises as `number_in` does."""
    rows = [[start_m + number_in(e, key), *(number_in(e, name) for name in "abcd")] for e in elements]
    return np.array(sorted(rows), np.float64).reshape(-1, 5)


def _offsets(road: Element) -> F64:
    """Rows of `OpenDriveRoad.offsets`; before the first record lanes lie at the reference line."""
    table = polynomials(road.iter("laneOffset"), "s")
    return np.concatenate([np.zeros((1, 5)), table]) if len(table) and table[0, 0] > 0.0 else table


def _piece(element: Element) -> Piece:
    s, length, x, y, yaw = (number_in(element, key) for key in ("s", "length", "x", "y", "hdg"))
    if not 0.0 <= length <= LONGEST_ROAD_M:
        raise UnknownGeometry(f"a piece of {length} m")
    shape = next(iter(element), None)
    match None if shape is None else shape.tag, shape:
        case "line", _:
            return Piece(s, length, x, y, yaw)
        case "arc", Element() as arc:
            return Piece(s, length, x, y, yaw, number_in(arc, "curvature"))
        case "spiral", Element() as spiral:
            first, last = number_in(spiral, "curvStart"), number_in(spiral, "curvEnd")
            return Piece(s, length, x, y, yaw, first, (last - first) / length if length > 0.0 else 0.0)
        case "poly3", Element() as poly:
            across = [number_in(poly, name) for name in "abcd"]
            return Piece(s, length, x, y, yaw, cubic=np.array([[0.0, 1.0, 0.0, 0.0], across]), last=length)
        case "paramPoly3", Element() as poly:
            cubic = np.array([[number_in(poly, name + axis) for name in "abcd"] for axis in "UV"])
            last = length if poly.get("pRange") == "arcLength" else 1.0
            return Piece(s, length, x, y, yaw, cubic=cubic, last=last)
        case tag, _:
            raise UnknownGeometry(f"a reference line of kind {tag}")


def _section(element: Element, end_m: float) -> Section:
    if element.get("singleSide") == "true":
        raise UnknownGeometry("a lane section of one side only")
    s = number_in(element, "s")
    kinds: dict[int, str] = {}
    widths: dict[int, F64] = {}
    for lane in element.iter("lane"):
        number = int(lane.attrib["id"])
        if number == 0:
            continue
        kinds[number] = lane.get("type", "none")
        widths[number] = polynomials(lane.iter("width"), "sOffset", s)
        if len(widths[number]) == 0:
            raise UnknownGeometry(f"lane {number} without widths")
    return Section(s, end_m, kinds, widths)


def lanes_bend(road: OpenDriveRoad) -> bool:
    """Whether a driving lane moves sideways along the road's reference line, changes its width, or lies beyond another one and a
    lane that netconvert drops, whose width it forgets there."""
    if _varies(road.offsets):
        return True
    for section in road.sections:
        for side in (1, -1):
            driving = [side * n for n, kind in section.kinds.items() if kind in DRIVING_KINDS and side * n > 0]
            first, last = min(driving, default=0), max(driving, default=0)
            for n, table in section.widths.items():
                if 0 < side * n <= last and _varies(table):
                    return True
                if first < side * n < last and section.kinds[n] not in KEPT_KINDS and table[:, 1:].any():
                    return True
    return False


def _varies(table: F64) -> bool:
    """Whether a row of polynomials changes along the road, at their joints included."""
    return bool((np.abs(table[:, 2:]) > VARYING).any()) or (len(table) > 0 and bool(np.ptp(table[:, 1]) > VARYING))


def reference_line(road: OpenDriveRoad, stations: F64) -> tuple[F64, F64]:
    """Points (N, 2) in the file's frame and headings (N,) in radians of the reference line at stations (N,) in metres."""
    begins = np.array([piece.s_m for piece in road.pieces])
    which = np.clip(np.searchsorted(begins, stations, side="right") - 1, 0, len(begins) - 1)
    points, yaw = np.empty((len(stations), 2)), np.empty(len(stations))
    for k in np.unique(which):
        piece, here = road.pieces[k], which == k
        along = np.clip(stations[here] - piece.s_m, 0.0, piece.length_m)
        if piece.cubic is None:
            local, turned = _on_clothoid(piece, along)
        else:
            local, turned = _on_cubic(piece, piece.cubic, along)
        cos, sin = np.cos(piece.yaw_rad), np.sin(piece.yaw_rad)
        points[here] = local @ np.array([[cos, sin], [-sin, cos]]) + [piece.x, piece.y]
        yaw[here] = piece.yaw_rad + turned
    return points, yaw


def _on_clothoid(piece: Piece, along: F64) -> tuple[F64, F64]:
    """The integral of the direction, whose angle is quadratic in length, by Gauss and Legendre's rule."""
    at = 0.5 * along[:, None] * (1.0 + NODES)
    angle = at * (piece.curvature + 0.5 * at * piece.curvature_per_m)
    half = 0.5 * along
    local = np.stack([half * (np.cos(angle) @ WEIGHTS), half * (np.sin(angle) @ WEIGHTS)], axis=1)
    return local, along * (piece.curvature + 0.5 * along * piece.curvature_per_m)


def _on_cubic(piece: Piece, cubic: F64, along: F64) -> tuple[F64, F64]:
    """Parameters are those at which the curve is as long as asked for."""
    fine = np.linspace(0.0, piece.last, 4 * int(np.ceil(piece.length_m)) + 9)
    lengths = arc_lengths(fine[:, None] ** np.arange(4) @ cubic.T)
    p = np.interp(along, lengths, fine)
    local = p[:, None] ** np.arange(4) @ cubic.T
    slope = p[:, None] ** np.arange(3) @ (cubic[:, 1:] * [1.0, 2.0, 3.0]).T
    return local, np.arctan2(slope[:, 1], slope[:, 0])


def _value(table: F64, stations: F64) -> F64:
    """The polynomial that holds at each station; 0 where there is none."""
    if len(table) == 0:
        return np.zeros(len(stations))
    row = table[np.clip(np.searchsorted(table[:, 0], stations, side="right") - 1, 0, len(table) - 1)]
    ds = np.maximum(stations - row[:, 0], 0.0)
    return np.asarray(row[:, 1] + ds * (row[:, 2] + ds * (row[:, 3] + ds * row[:, 4])))


def lanes_across(
    road: OpenDriveRoad, section: Section, side: int, stations: F64
) -> tuple[dict[int, F64], dict[int, F64]]:
    """Offsets of lane centres to the left of the reference line, and widths, both (N,) metres, by lane of that side (1 left)."""
    border = _value(road.offsets, stations)
    centers: dict[int, F64] = {}
    widths: dict[int, F64] = {}
    for number in sorted((n for n in section.widths if side * n > 0), key=abs):
        widths[number] = np.maximum(_value(section.widths[number], stations), 0.0)
        centers[number] = border + 0.5 * side * widths[number]
        border = border + side * widths[number]
    return centers, widths
