"""What single elements of a SUMO network say: shapes, widths, limits, who may drive there.

Values out of range end in a MapError that names the element.
https://sumo.dlr.de/docs/Networks/SUMO_Road_Networks.html
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from sim.roads.junction_paths import SHORTEST_M
from sim.roads.map_xml import MapError
from sim.roads.network import LaneKind
from sim.roads.polyline import arc_lengths, without_repeats

F64 = NDArray[np.float64]

MAX_COORDINATE_M = 1e7
DEFAULT_WIDTH_M = 3.2
WIDEST_M = 30.0
WIDTHS_KEY = "widths"  # parameter of a lane whose width changes: its widths in metres, spread evenly from start to end


def shape_of(element: Element) -> F64:
    """(N, 2) corner points in metres, at least one."""
    points = [[float(value) for value in point.split(",")[:2]] for point in element.attrib["shape"].split()]
    shape = np.array(points, np.float64).reshape(-1, 2)
    if len(shape) == 0 or not (np.abs(shape) <= MAX_COORDINATE_M).all():
        raise MapError(
            f"{element.get('id')}: a shape without points or with coordinates beyond {MAX_COORDINATE_M:.0e} m;"
            " write the network again"
        )
    return shape


def line_of(element: Element) -> F64:
    """The centre line of a lane: at least two points that differ, also where the file has it without length."""
    line = without_repeats(shape_of(element))
    if arc_lengths(line)[-1] < SHORTEST_M:
        line = np.stack([line[0], line[0] + [SHORTEST_M, 0.0]])
    return line


def number_of(element: Element, key: str, low: float, high: float, default: float | None = None) -> float:
    """An attribute that lies in [low, high]; KeyError where it is missing and has no default."""
    value = default if default is not None and key not in element.attrib else float(element.attrib[key])
    if not low <= value <= high:
        raise MapError(f"{element.get('id', element.tag)}: {key} must lie in [{low}, {high}], got {value}")
    return value


def width_of(element: Element) -> float:
    """Width of a lane, m."""
    return number_of(element, "width", 0.1, WIDEST_M, DEFAULT_WIDTH_M)


def widths_of(element: Element) -> F64 | None:
    """(N,) the widths of a lane along it, or None where it has but one."""
    for param in element.iter("param"):
        if param.get("key") == WIDTHS_KEY:
            try:
                widths = np.array([float(value) for value in param.get("value", "").split()])
            except ValueError:
                widths = np.zeros(0)
            if len(widths) == 0 or not ((widths >= 0.0) & (widths <= WIDEST_M)).all():
                raise MapError(
                    f"{element.get('id')}: widths must be numbers in [0, {WIDEST_M}]; write the network again"
                )
            return widths
    return None


def limit_of(element: Element) -> float:
    """Speed limit of a lane, m/s."""
    return number_of(element, "speed", 0.0, 100.0)


def kind_of(element: Element) -> LaneKind | None:
    """Whose lane it is; None where it is of no use here."""
    if _allows(element, "passenger"):
        return LaneKind.DRIVING
    if _allows(element, "pedestrian"):
        return LaneKind.SIDEWALK
    if _allows(element, "bicycle"):
        return LaneKind.CYCLE
    return LaneKind.NARROW if widths_of(element) is not None else None


def _allows(element: Element, vehicle: str) -> bool:
    if "allow" in element.attrib:
        allowed = element.attrib["allow"].split()
        return vehicle in allowed or "all" in allowed
    banned = element.get("disallow", "").split()
    return vehicle not in banned and "all" not in banned


def may_change(element: Element, attribute: str) -> bool:
    """Whether cars may change lanes by the attribute `changeLeft` or `changeRight`."""
    allowed = element.get(attribute)
    return allowed is None or "passenger" in allowed.split() or "all" in allowed.split()
