"""Left-hand traffic, as right-hand traffic seen in a mirror: everything is reflected in the x axis.

Knows OpenDRIVE and SUMO networks as XML and what a map is made of; knows nothing about conversion or traffic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from xml.etree.ElementTree import Element, tostring

import numpy as np
from defusedxml.ElementTree import fromstring

from sim.roads.ground import GroundRaster
from sim.roads.network import F64, I32, RoadNetwork
from sim.roads.signal_heads import SignalHeads
from sim.solids import Boxes, Shape

LEFT_HAND = "LHT"
TURNED = {"l": "r", "L": "R", "r": "l", "R": "L"}
# What changes its sign in the mirror, by element of OpenDRIVE.
SIGNED = {
    "geometry": ("y", "hdg"), "offset": ("y", "hdg"), "arc": ("curvature",), "spiral": ("curvStart", "curvEnd"),
    "poly3": ("a", "b", "c", "d"), "paramPoly3": ("aV", "bV", "cV", "dV"), "laneOffset": ("a", "b", "c", "d"),
    "border": ("a", "b", "c", "d"),
    "superelevation": ("a", "b", "c", "d"), "signal": ("t", "hOffset"), "signalReference": ("t",),
    "laneLink": ("from", "to"), "validity": ("fromLane", "toLane"),
}  # fmt: skip


def mirror_opendrive(root: Element) -> None:
    """Turns an OpenDRIVE document into its mirror image, in which everybody drives on the other side.

    Raises ValueError where a number is none.
    """
    for element in root.iter():
        for key in SIGNED.get(element.tag, ()):
            if key in element.attrib:
                element.set(key, _negated(element.attrib[key]))
    for road in root.iter("road"):
        road.attrib.pop("rule", None)
    for section in root.iter("laneSection"):
        left, right = section.find("left"), section.find("right")
        for side, other in ((left, "right"), (right, "left")):
            if side is None:
                continue
            side.tag = other
            for lane in side.iter("lane"):
                lane.set("id", _negated(lane.attrib["id"]))
                for link in (*lane.iter("predecessor"), *lane.iter("successor")):
                    link.set("id", _negated(link.attrib["id"]))
            side[:] = sorted(side, key=lambda lane: -int(lane.get("id", 0)))
        order = {"left": 0, "center": 1, "right": 2}
        section[:] = sorted(section, key=lambda part: order.get(part.tag, 3))


def mirror_net_xml(net_xml: bytes) -> bytes:
    """The mirror image of a SUMO network; one for right-hand traffic becomes one for left-hand traffic, and back."""
    root = fromstring(net_xml)
    for element in root.iter():
        for key in ("shape", "outlineShape"):
            if key in element.attrib:
                element.set(key, " ".join(_reflected(point) for point in element.attrib[key].split()))
        if element.tag == "junction" and "y" in element.attrib:
            element.set("y", _negated(element.attrib["y"]))
        elif element.tag == "connection" and "dir" in element.attrib:
            element.set("dir", TURNED.get(element.attrib["dir"], element.attrib["dir"]))
        elif element.tag == "location":
            x, y = element.attrib["netOffset"].split(",")
            element.set("netOffset", f"{x},{_negated(y)}")
            for key in ("convBoundary", "origBoundary"):
                x_low, y_low, x_high, y_high = element.attrib[key].split(",")
                element.set(key, ",".join((x_low, _negated(y_high), x_high, _negated(y_low))))
    if root.get("lefthand") == "true":
        del root.attrib["lefthand"]
    else:
        root.set("lefthand", "true")
    return bytes(tostring(root))


def _negated(number: str) -> str:
    """The number with the other sign, its digits untouched."""
    number = number.strip()
    float(number)
    if number.startswith("-"):
        return number[1:]
    return f"-{number.removeprefix('+')}"


def _reflected(point: str) -> str:
    x, y, *height = point.split(",")
    return ",".join((x, _negated(y), *height))


def mirrored_network(network: RoadNetwork) -> RoadNetwork:
    """The network in the mirror; arrays that do not change are shared. Twice mirrored is the network itself."""
    columns, rows = network.grid_shape
    cells = np.arange(rows * columns).reshape(rows, columns)[::-1].ravel()
    counts = np.diff(network.grid_start)[cells]
    lanes = [network.grid_lane[network.grid_start[c] : network.grid_start[c + 1]] for c in cells]
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    x_low, y_low, x_high, y_high = network.bounds
    top = network.grid_origin[1] + rows * network.grid_cell_m
    return replace(
        network,
        point_y=-network.point_y,
        point_yaw=-network.point_yaw,
        lane_left=network.lane_right,
        lane_right=network.lane_left,
        lane_turn=np.where(np.abs(network.lane_turn) == 1, -network.lane_turn, network.lane_turn).astype(np.int8),
        crosswalks=_reflected_polygons(network.crosswalks),
        junction_polygons=_reflected_polygons(network.junction_polygons),
        sidewalk_polygons=_reflected_polygons(network.sidewalk_polygons),
        bounds=np.array([x_low, -y_high, x_high, -y_low]),
        grid_origin=np.array([network.grid_origin[0], -top]),
        grid_start=start,
        grid_lane=_joined(lanes),
        left_hand=not network.left_hand,
    )


def _joined(rows: list[I32]) -> I32:
    return np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32)


def _reflected_polygons(polygons: Iterable[F64]) -> tuple[F64, ...]:
    return tuple(np.ascontiguousarray(polygon * [1.0, -1.0]) for polygon in polygons)


def mirrored_ground(ground: GroundRaster) -> GroundRaster:
    """The ground in the mirror."""
    rows = ground.classes.shape[0]
    return replace(
        ground,
        classes=np.ascontiguousarray(ground.classes[::-1]),
        drivable=np.ascontiguousarray(ground.drivable[::-1]),
        paint=np.ascontiguousarray(ground.paint[::-1]),
        origin=np.array([ground.origin[0], -ground.origin[1] - rows * ground.cell_m]),
    )


def mirrored_heads(heads: SignalHeads) -> SignalHeads:
    """The signal heads in the mirror."""
    return replace(heads, y_m=-heads.y_m, yaw_rad=-heads.yaw_rad)


def mirrored_boxes(boxes: Boxes) -> Boxes:
    """The solids in the mirror. Of wheels, discs of signs among them, the same end of the axis stays the front."""
    return replace(
        boxes,
        center=boxes.center * np.array([1.0, -1.0, 1.0]).astype(boxes.center.dtype),
        yaw_rad=np.where(boxes.shape == Shape.WHEEL, np.pi - boxes.yaw_rad, -boxes.yaw_rad),
    )
