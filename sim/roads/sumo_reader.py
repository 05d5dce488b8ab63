"""Reads a SUMO network (.net.xml) into the arrays of `RoadNetwork`.

Knows SUMO's network format; knows nothing about traffic, sensors or how the network came to be.
https://sumo.dlr.de/docs/Networks/SUMO_Road_Networks.html
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from planning.policy import SignalState
from sim.roads.assembly import JunctionRecord, LaneRecord, SignalPrograms, assemble
from sim.roads.junction_paths import drivable_path
from sim.roads.map_xml import MAX_FILE_BYTES, MapError, parse_map_xml
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.polyline import arc_lengths, end_yaw, start_yaw, without_repeats
from sim.roads.sumo_elements import (
    kind_of,
    limit_of,
    line_of,
    may_change,
    number_of,
    shape_of,
    width_of,
    widths_of,
)

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

# A network that would take more than 1 GB of memory or 10 s is refused before it does.
MAX_EXTENT_KM = 15
MAX_LANES_KM = 1000
MAX_LANES = 100_000
MAX_WAYS_ON = 64  # connections of one lane
MAX_CHAIN = 16  # internal lanes of one connection
MAX_JUNCTION_LANES = 400
MAX_PHASE_LETTERS = 20_000_000
# Attribute of <net> that an import sets where the source has drawn the paths through junctions.
DRAWN_PATHS = "drawnPaths"
SHORTEST_TURN_BACK_M = 9.0  # a tighter U-turn is beyond a car's turning circle

TURNS = {"r": -1, "R": -1, "s": 0, "l": 1, "L": 1, "t": 2}
CONTROLS = {
    "M": LaneControl.PRIORITY, "m": LaneControl.YIELD, "=": LaneControl.YIELD, "Z": LaneControl.YIELD,
    "s": LaneControl.STOP, "w": LaneControl.STOP,
}  # fmt: skip
SIGNALS = {
    "r": SignalState.RED, "R": SignalState.RED, "u": SignalState.RED, "y": SignalState.YELLOW, "Y": SignalState.YELLOW,
    "g": SignalState.GREEN, "G": SignalState.GREEN, "s": SignalState.GREEN,
    "o": SignalState.NONE, "O": SignalState.NONE,
}  # fmt: skip
YIELDING_GREEN = "gs"


def read_network(source: str | Path | bytes, *, title: str = "the given network") -> RoadNetwork:
    """The network in a SUMO .net.xml file, given as its path or its bytes. Elevation is dropped: the world is flat.

    title: what messages call a network that is given as bytes. Only the first program of each traffic light is read.
    Turns back that are tighter than a car can drive are left out.

    Raises MapError where the file is missing, too large, not well formed, no SUMO network, or without a lane for cars.
    """
    if not isinstance(source, bytes):
        title, source = str(source), _bytes_of(Path(source))
    root = _parse(source, title)
    try:
        return _network_from(root)
    except MapError as error:
        raise MapError(f"{title}: {error}") from error
    except (KeyError, IndexError) as error:
        raise MapError(
            f"{title}: not a complete SUMO network ({error} is missing); write it again with netconvert"
        ) from error
    except ValueError as error:
        raise MapError(f"{title}: a value that is none ({error}); write it again with netconvert") from error


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise MapError(f"{path}: no such file; give the path of a .net.xml file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise MapError(f"{path}: larger than {MAX_FILE_BYTES // 1_000_000} MB; cut the region down with netconvert")
    return path.read_bytes()


def _parse(data: bytes, title: str) -> Element:
    root = parse_map_xml(data, title, "write it again with netconvert")
    if root.tag != "net":
        raise MapError(
            f"{title}: a <{root.tag}> file, not a SUMO network; .xodr and .osm files have to be imported first"
        )
    return root


def _network_from(root: Element) -> RoadNetwork:
    elements: dict[str, Element] = {}
    edge_lanes: list[list[Element]] = []
    walking_areas: list[F64] = []
    edge_function: dict[str, str] = {}
    for edge in root.iter("edge"):
        function = edge.get("function", "normal")
        edge_function[edge.attrib["id"]] = function
        lanes = sorted(edge.iter("lane"), key=lambda lane: int(lane.attrib["index"]))
        elements.update({lane.attrib["id"]: lane for lane in lanes})
        if function == "normal":
            edge_lanes.append(lanes)
        elif function == "walkingarea":
            walking_areas.extend(shape_of(lane) for lane in lanes)
    junctions = [_junction(element) for element in root.iter("junction") if element.get("type") != "internal"]
    junction_of_lane = {name: index for index, junction in enumerate(junctions) for name in junction.inner_lanes}
    signals = _read_signals(root)

    driving: list[LaneRecord] = []
    beside: list[LaneRecord] = []
    for lanes in edge_lanes:
        for element in lanes:
            kind = kind_of(element)
            if kind is not None:
                lane = LaneRecord(
                    element.attrib["id"],
                    kind,
                    line_of(element),
                    width_of(element),
                    limit_of(element),
                    widths_of(element),
                )
                (driving if kind is LaneKind.DRIVING else beside).append(lane)
    if not driving:
        raise MapError("holds no lane for passenger cars; choose a region with roads for cars")
    index_of = {lane.name: index for index, lane in enumerate(driving)}
    left_hand = root.get("lefthand") == "true"
    left, right = _neighbours(edge_lanes, index_of, left_hand)

    connections = [c for c in root.iter("connection") if edge_function.get(c.attrib["from"], "internal") == "normal"]
    onward = {
        (c.attrib["from"], c.attrib["fromLane"]): c for c in root.iter("connection") if c.attrib["from"].startswith(":")
    }
    inner, direct = _read_connections(connections, onward, elements, index_of, junction_of_lane, junctions, signals)
    faithful = root.get(DRAWN_PATHS) == "true"
    for lane in inner:
        before, after = driving[lane.origin].shape, driving[lane.target].shape
        lane.shape = drivable_path(before[-1], end_yaw(before), after[0], start_yaw(after), lane.shape, faithful)
    _check_junctions(inner, direct)
    beside.extend(_read_crossings(root, elements, edge_function, junction_of_lane, signals))
    _check_size(driving + inner + beside, [junction.polygon for junction in junctions] + walking_areas)
    network = assemble(driving, inner, beside, left, right, direct, junctions, signals, walking_areas)
    return replace(network, left_hand=left_hand)


def _check_size(lanes: list[LaneRecord], areas: list[F64]) -> None:
    """MapError before memory is taken for what no map of streets is. areas: of junctions and for walking, (N, 2) each."""
    if len(lanes) > MAX_LANES:
        raise MapError(f"{len(lanes):,} lanes, and at most {MAX_LANES:,} are read; cut out a smaller region")
    corners = np.concatenate([lane.shape for lane in lanes] + areas)
    extent_km = float((corners.max(axis=0) - corners.min(axis=0)).max()) / 1000.0
    total_km = sum(float(arc_lengths(lane.shape)[-1]) for lane in lanes) / 1000.0
    if extent_km > MAX_EXTENT_KM or total_km > MAX_LANES_KM:
        raise MapError(
            f"{extent_km:.0f} km across with {total_km:.0f} km of lanes; at most {MAX_EXTENT_KM} and {MAX_LANES_KM} are"
            " read, so cut out a smaller region"
        )


def _check_junctions(inner: list[LaneRecord], direct: list[tuple[int, int]]) -> None:
    """MapError where what grows with the square of these numbers would take too long."""
    ways_on = Counter([lane.origin for lane in inner] + [origin for origin, _ in direct])
    crowded = Counter(lane.junction for lane in inner)
    for numbers, most, what in ((ways_on, MAX_WAYS_ON, "a lane"), (crowded, MAX_JUNCTION_LANES, "a junction")):
        if numbers and max(numbers.values()) > most:
            raise MapError(
                f"{max(numbers.values())} connections of {what}, and at most {most} are read; write it again"
            )


def _junction(element: Element) -> JunctionRecord:
    polygon = shape_of(element) if element.get("shape") else np.empty((0, 2))
    junction = JunctionRecord(element.attrib["id"], polygon, element.get("intLanes", "").split())
    for request in element.iter("request"):
        junction.responses[int(request.attrib["index"])] = request.attrib["response"]
    return junction


def _neighbours(edge_lanes: list[list[Element]], index_of: dict[str, int], left_hand: bool) -> tuple[I32, I32]:
    """Lane indices to the left and right; SUMO counts from the outermost lane towards the middle of the road."""
    inward = np.full(len(index_of), -1, np.int32)
    outward = np.full(len(index_of), -1, np.int32)
    for lanes in edge_lanes:
        for outer, inner in pairwise(lanes):
            a, b = index_of.get(outer.attrib["id"], -1), index_of.get(inner.attrib["id"], -1)
            if a < 0 or b < 0:
                continue
            if may_change(outer, "changeLeft"):
                inward[a] = b
            if may_change(inner, "changeRight"):
                outward[b] = a
    return (outward, inward) if left_hand else (inward, outward)


def _read_signals(root: Element) -> SignalPrograms:
    programs: dict[str, Element] = {}
    for element in root.iter("tlLogic"):
        if any(True for _ in element.iter("phase")):
            programs.setdefault(element.attrib["id"], element)
    first_link: dict[str, int] = {}
    start, phase_start = [0], [0]
    durations: list[float] = []
    offsets: list[float] = []
    states: list[str] = []
    for name, element in programs.items():
        phases = list(element.iter("phase"))
        links = max(len(phase.attrib["state"]) for phase in phases)
        first_link[name] = start[-1]
        start.append(start[-1] + links)
        phase_start.append(phase_start[-1] + len(phases))
        offsets.append(number_of(element, "offset", -1e6, 1e6, 0.0))
        durations.extend(number_of(phase, "duration", 0.1, 1e6) for phase in phases)
        states.extend(phase.attrib["state"].ljust(links, "O") for phase in phases)
    widest = max((len(state) for state in states), default=0)
    if widest * len(states) > MAX_PHASE_LETTERS:
        raise MapError(f"{len(states):,} phases with up to {widest:,} links; cut out a smaller region")
    table = np.zeros((len(states), widest), np.int8)
    minor = np.zeros((len(states), widest), np.uint8)
    for row, state in enumerate(states):
        for column, letter in enumerate(state):
            table[row, column] = SIGNALS.get(letter, SignalState.NONE)
            minor[row, column] = letter in YIELDING_GREEN
    return SignalPrograms(
        first_link=first_link,
        start=np.array(start, np.int32),
        phase_start=np.array(phase_start, np.int32),
        duration_s=np.array(durations, np.float64),
        state=table,
        minor=minor,
        offset_s=np.array(offsets, np.float64),
    )


def _signal_link(connection: Element, signals: SignalPrograms) -> int:
    first = signals.first_link.get(connection.get("tl", ""), -1)
    if first < 0:
        return -1
    end = int(signals.start[np.searchsorted(signals.start, first, side="right")])
    return first + int(number_of(connection, "linkIndex", 0, end - first - 1))


def _read_connections(
    connections: list[Element],
    onward: dict[tuple[str, str], Element],
    elements: dict[str, Element],
    index_of: dict[str, int],
    junction_of_lane: dict[str, int],
    junctions: list[JunctionRecord],
    signals: SignalPrograms,
) -> tuple[list[LaneRecord], list[tuple[int, int]]]:
    """The junction lanes, and the pairs of lanes that follow each other without one."""
    inner: list[LaneRecord] = []
    direct: list[tuple[int, int]] = []
    place_of = {(j, name): k for j, junction in enumerate(junctions) for k, name in enumerate(junction.inner_lanes)}
    for connection in connections:
        origin = index_of.get(f"{connection.attrib['from']}_{connection.attrib['fromLane']}", -1)
        target = index_of.get(f"{connection.attrib['to']}_{connection.attrib['toLane']}", -1)
        if origin < 0 or target < 0:
            continue
        if connection.get("via") is None:
            direct.append((origin, target))
            continue
        chain = [connection.attrib["via"]]
        while (step := onward[tuple(chain[-1].rsplit("_", 1))]).get("via"):  # type: ignore[index]
            if step.attrib["via"] in chain or len(chain) >= MAX_CHAIN:
                raise MapError(f"{chain[0]}: a connection that leads back into itself; write the network again")
            chain.append(step.attrib["via"])
        parts = [shape_of(elements[name]) for name in chain]
        shape = without_repeats(np.concatenate(parts))
        turn = TURNS.get(connection.get("dir", "s"), 0)
        if turn == 2 and np.hypot(*(shape[-1] - shape[0])) < SHORTEST_TURN_BACK_M:
            continue
        junction = junction_of_lane[chain[-1]]
        link = _signal_link(connection, signals)
        control = CONTROLS.get(connection.get("state", "M"), LaneControl.PRIORITY)
        inner.append(
            LaneRecord(
                name=chain[0],
                kind=LaneKind.DRIVING,
                shape=shape,
                width_m=width_of(elements[chain[0]]),
                limit_mps=min(limit_of(elements[name]) for name in chain),
                junction=junction,
                control=LaneControl.SIGNAL if link >= 0 else control,
                signal_link=link,
                turn=turn,
                origin=origin,
                target=target,
                request=place_of[junction, chain[-1]],
            )
        )
    return inner, direct


def _read_crossings(
    root: Element,
    elements: dict[str, Element],
    edge_function: dict[str, str],
    junction_of_lane: dict[str, int],
    signals: SignalPrograms,
) -> list[LaneRecord]:
    links = {c.attrib["to"]: c for c in root.iter("connection") if edge_function.get(c.attrib["to"]) == "crossing"}
    crossings = []
    for edge, function in edge_function.items():
        if function != "crossing":
            continue
        name = f"{edge}_0"
        link = _signal_link(links[edge], signals) if edge in links else -1
        state = (
            CONTROLS.get(links[edge].get("state", "M"), LaneControl.PRIORITY) if edge in links else LaneControl.PRIORITY
        )
        element = elements[name]
        crossings.append(
            LaneRecord(
                name=name,
                kind=LaneKind.CROSSING,
                shape=line_of(element),
                width_m=width_of(element),
                limit_mps=limit_of(element),
                junction=junction_of_lane.get(name, -1),
                control=LaneControl.SIGNAL if link >= 0 else state,
                signal_link=link,
            )
        )
    return crossings
