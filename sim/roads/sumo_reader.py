"""Reads a SUMO network (.net.xml) into the arrays of `RoadNetwork`.

Knows SUMO's network format; knows nothing about traffic, sensors or how the network came to be.
https://sumo.dlr.de/docs/Networks/SUMO_Road_Networks.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import numpy as np
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from planning.policy import SignalState
from sim.roads.conflicts import stretches_too_close
from sim.roads.junction_paths import SHORTEST_M, drivable_path
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.polyline import headings, resampled, ribbon, without_repeats

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

MAX_FILE_BYTES = 200_000_000
SPACING_M = 1.0
GRID_CELL_M = 8.0
DEFAULT_WIDTH_M = 3.2
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


class MapError(ValueError):
    """A map file that cannot be used: the message says which file, what is wrong and what to do."""


@dataclass
class _Lane:
    name: str
    kind: LaneKind
    shape: F64
    width_m: float
    limit_mps: float
    junction: int = -1
    control: LaneControl = LaneControl.NONE
    signal_link: int = -1
    turn: int = 0
    origin: int = -1
    target: int = -1
    request: int = -1


@dataclass
class _Junction:
    name: str
    polygon: F64
    inner_lanes: list[str]
    responses: dict[int, str] = field(default_factory=dict)


@dataclass
class _Signals:
    """Signal programs as they will stand in `RoadNetwork`."""

    first_link: dict[str, int]
    start: I32
    phase_start: I32
    duration_s: F64
    state: NDArray[np.int8]
    minor: NDArray[np.uint8]
    offset_s: F64


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
        return _network_from(root, title)
    except (KeyError, IndexError) as error:
        raise MapError(
            f"{title}: not a complete SUMO network ({error} is missing); write it again with netconvert"
        ) from error


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise MapError(f"{path}: no such file; give the path of a .net.xml file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise MapError(f"{path}: larger than {MAX_FILE_BYTES // 1_000_000} MB; cut the region down with netconvert")
    return path.read_bytes()


def _parse(data: bytes, title: str) -> Element:
    try:
        root: Element = fromstring(data)
    except (ParseError, defusedxml.DefusedXmlException, ValueError) as error:
        raise MapError(f"{title}: not well-formed XML ({error}); write it again with netconvert") from error
    if root.tag != "net":
        raise MapError(
            f"{title}: a <{root.tag}> file, not a SUMO network; .xodr and .osm files have to be imported first"
        )
    return root


def _network_from(root: Element, title: str) -> RoadNetwork:
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
            walking_areas.extend(_shape(lane) for lane in lanes)
    junctions = [_junction(element) for element in root.iter("junction") if element.get("type") != "internal"]
    junction_of_lane = {name: index for index, junction in enumerate(junctions) for name in junction.inner_lanes}
    signals = _read_signals(root)

    driving: list[_Lane] = []
    beside: list[_Lane] = []
    for lanes in edge_lanes:
        for element in lanes:
            kind = _kind(element)
            if kind is not None:
                lane = _Lane(
                    element.attrib["id"], kind, _shape(element), _width(element), float(element.attrib["speed"])
                )
                (driving if kind is LaneKind.DRIVING else beside).append(lane)
    if not driving:
        raise MapError(f"{title}: holds no lane for passenger cars; choose a region with roads for cars")
    index_of = {lane.name: index for index, lane in enumerate(driving)}
    left, right = _neighbours(edge_lanes, index_of, root.get("lefthand") == "true")

    connections = [c for c in root.iter("connection") if edge_function.get(c.attrib["from"], "internal") == "normal"]
    onward = {
        (c.attrib["from"], c.attrib["fromLane"]): c for c in root.iter("connection") if c.attrib["from"].startswith(":")
    }
    inner, direct = _read_connections(connections, onward, elements, index_of, junction_of_lane, junctions, signals)
    for lane in inner:
        before, after = driving[lane.origin].shape, driving[lane.target].shape
        lane.shape = drivable_path(before[-1], _end_yaw(before), after[0], _start_yaw(after), lane.shape)
    beside.extend(_read_crossings(root, elements, edge_function, junction_of_lane, signals))
    return _assemble(driving, inner, beside, left, right, direct, junctions, signals, walking_areas)


def _shape(element: Element) -> F64:
    points = [[float(value) for value in point.split(",")[:2]] for point in element.attrib["shape"].split()]
    shape = np.array(points, np.float64).reshape(-1, 2)
    if len(shape) == 0 or not np.isfinite(shape).all():
        raise MapError(f"{element.get('id')}: a shape without points or with infinite ones; write the network again")
    return shape


def _line(element: Element) -> F64:
    """The centre line of a lane: at least two points that differ."""
    line = without_repeats(_shape(element))
    if len(line) < 2:
        line = np.stack([line[0], line[0] + [SHORTEST_M, 0.0]])
    return line


def _start_yaw(shape: F64) -> float:
    ahead = shape[1] - shape[0]
    return float(np.arctan2(ahead[1], ahead[0]))


def _end_yaw(shape: F64) -> float:
    return _start_yaw(shape[-2:])


def _width(element: Element) -> float:
    return float(element.get("width", DEFAULT_WIDTH_M))


def _allows(element: Element, vehicle: str) -> bool:
    if "allow" in element.attrib:
        allowed = element.attrib["allow"].split()
        return vehicle in allowed or "all" in allowed
    banned = element.get("disallow", "").split()
    return vehicle not in banned and "all" not in banned


def _kind(element: Element) -> LaneKind | None:
    if _allows(element, "passenger"):
        return LaneKind.DRIVING
    if _allows(element, "pedestrian"):
        return LaneKind.SIDEWALK
    return LaneKind.CYCLE if _allows(element, "bicycle") else None


def _junction(element: Element) -> _Junction:
    polygon = _shape(element) if element.get("shape") else np.empty((0, 2))
    junction = _Junction(element.attrib["id"], polygon, element.get("intLanes", "").split())
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
            if _may_change(outer, "changeLeft"):
                inward[a] = b
            if _may_change(inner, "changeRight"):
                outward[b] = a
    return (outward, inward) if left_hand else (inward, outward)


def _may_change(element: Element, attribute: str) -> bool:
    allowed = element.get(attribute)
    return allowed is None or "passenger" in allowed.split() or "all" in allowed.split()


def _read_signals(root: Element) -> _Signals:
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
        offsets.append(float(element.get("offset", 0.0)))
        durations.extend(float(phase.attrib["duration"]) for phase in phases)
        states.extend(phase.attrib["state"].ljust(links, "O") for phase in phases)
    widest = max((len(state) for state in states), default=0)
    table = np.zeros((len(states), widest), np.int8)
    minor = np.zeros((len(states), widest), np.uint8)
    for row, state in enumerate(states):
        for column, letter in enumerate(state):
            table[row, column] = SIGNALS.get(letter, SignalState.NONE)
            minor[row, column] = letter in YIELDING_GREEN
    return _Signals(
        first_link=first_link,
        start=np.array(start, np.int32),
        phase_start=np.array(phase_start, np.int32),
        duration_s=np.array(durations, np.float64),
        state=table,
        minor=minor,
        offset_s=np.array(offsets, np.float64),
    )


def _signal_link(connection: Element, signals: _Signals) -> int:
    first = signals.first_link.get(connection.get("tl", ""), -1)
    return first + int(connection.attrib["linkIndex"]) if first >= 0 else -1


def _read_connections(
    connections: list[Element],
    onward: dict[tuple[str, str], Element],
    elements: dict[str, Element],
    index_of: dict[str, int],
    junction_of_lane: dict[str, int],
    junctions: list[_Junction],
    signals: _Signals,
) -> tuple[list[_Lane], list[tuple[int, int]]]:
    """The junction lanes, and the pairs of lanes that follow each other without one."""
    inner: list[_Lane] = []
    direct: list[tuple[int, int]] = []
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
            chain.append(step.attrib["via"])
        parts = [_shape(elements[name]) for name in chain]
        shape = without_repeats(np.concatenate(parts))
        turn = TURNS.get(connection.get("dir", "s"), 0)
        if turn == 2 and np.hypot(*(shape[-1] - shape[0])) < SHORTEST_TURN_BACK_M:
            continue
        junction = junction_of_lane[chain[-1]]
        link = _signal_link(connection, signals)
        control = CONTROLS.get(connection.get("state", "M"), LaneControl.PRIORITY)
        inner.append(
            _Lane(
                name=chain[0],
                kind=LaneKind.DRIVING,
                shape=shape,
                width_m=_width(elements[chain[0]]),
                limit_mps=min(float(elements[name].attrib["speed"]) for name in chain),
                junction=junction,
                control=LaneControl.SIGNAL if link >= 0 else control,
                signal_link=link,
                turn=turn,
                origin=origin,
                target=target,
                request=junctions[junction].inner_lanes.index(chain[-1]),
            )
        )
    return inner, direct


def _read_crossings(
    root: Element,
    elements: dict[str, Element],
    edge_function: dict[str, str],
    junction_of_lane: dict[str, int],
    signals: _Signals,
) -> list[_Lane]:
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
            _Lane(
                name=name,
                kind=LaneKind.CROSSING,
                shape=_line(element),
                width_m=_width(element),
                limit_mps=float(element.attrib["speed"]),
                junction=junction_of_lane.get(name, -1),
                control=LaneControl.SIGNAL if link >= 0 else state,
                signal_link=link,
            )
        )
    return crossings


def _rows(pairs: Iterable[tuple[int, int]], count: int) -> tuple[I32, I32]:
    """CSR of pairs (row, value), values in the order given."""
    rows: list[list[int]] = [[] for _ in range(count)]
    for row, value in pairs:
        rows[row].append(value)
    start = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    return start, np.array([value for row in rows for value in row], np.int32)


def _assemble(
    driving: list[_Lane],
    inner: list[_Lane],
    beside: list[_Lane],
    left: I32,
    right: I32,
    direct: list[tuple[int, int]],
    junctions: list[_Junction],
    signals: _Signals,
    walking_areas: list[F64],
) -> RoadNetwork:
    lanes = driving + inner + beside
    count = len(lanes)
    sampled = [resampled(lane.shape, SPACING_M) for lane in lanes]
    point_start = np.concatenate([[0], np.cumsum([len(points) for points, _ in sampled])]).astype(np.int32)
    points = np.concatenate([points for points, _ in sampled])
    step_m = np.array([step for _, step in sampled])
    follows = [(lane.origin, len(driving) + k) for k, lane in enumerate(inner)] + direct
    follows += [(len(driving) + k, lane.target) for k, lane in enumerate(inner)]
    successor_start, successor = _rows(follows, count)
    predecessor_start, predecessor = _rows([(b, a) for a, b in follows], count)
    kinds = np.array([lane.kind for lane in lanes], np.int8)
    widths = np.array([lane.width_m for lane in lanes])
    polygons = [junction.polygon for junction in junctions if len(junction.polygon) >= 3]
    ribbons = [ribbon(shape, width) for (shape, _), width in zip(sampled, widths, strict=True)]
    everything = np.concatenate(ribbons + polygons + walking_areas)
    bounds = np.concatenate([everything.min(axis=0), everything.max(axis=0)])
    num_roads = len(driving) + len(inner)
    grid_origin, grid_shape, grid_start, grid_lane = _grid(bounds, points, point_start, widths, num_roads)
    conflicts = _conflicts(inner, len(driving), count, junctions, point_start, points, step_m)
    outside = np.full(count - len(driving), -1, np.int32)
    return RoadNetwork(
        lane_name=tuple(lane.name for lane in lanes),
        point_start=point_start,
        point_x=np.ascontiguousarray(points[:, 0]),
        point_y=np.ascontiguousarray(points[:, 1]),
        point_yaw=np.concatenate([headings(line) for line, _ in sampled]),
        lane_length_m=step_m * (np.diff(point_start) - 1),
        lane_step_m=step_m,
        lane_width_m=widths,
        lane_limit_mps=np.array([lane.limit_mps for lane in lanes]),
        lane_kind=kinds,
        lane_junction=np.array([lane.junction for lane in lanes], np.int32),
        lane_left=np.concatenate([left, outside]),
        lane_right=np.concatenate([right, outside]),
        successor_start=successor_start,
        successor=successor,
        predecessor_start=predecessor_start,
        predecessor=predecessor,
        lane_control=np.array([lane.control for lane in lanes], np.int8),
        lane_signal_link=np.array([lane.signal_link for lane in lanes], np.int32),
        lane_turn=np.array([lane.turn for lane in lanes], np.int8),
        **conflicts,
        signal_start=signals.start,
        phase_start=signals.phase_start,
        phase_duration_s=signals.duration_s,
        phase_state=signals.state,
        phase_minor=signals.minor,
        signal_offset_s=signals.offset_s,
        crosswalks=tuple(ribbons[k] for k in range(count) if kinds[k] == LaneKind.CROSSING),
        junction_polygons=tuple(polygons),
        bounds=bounds,
        grid_origin=grid_origin,
        grid_cell_m=GRID_CELL_M,
        grid_shape=grid_shape,
        grid_start=grid_start,
        grid_lane=grid_lane,
        sidewalk_polygons=tuple(area for area in walking_areas if len(area) >= 3),
    )


def _conflicts(
    inner: Sequence[_Lane],
    first: int,
    count: int,
    junctions: list[_Junction],
    point_start: I32,
    points: F64,
    step_m: F64,
) -> dict[str, NDArray]:
    """The CSR arrays of conflicts, as keyword arguments of `RoadNetwork`."""
    members: dict[int, list[int]] = {}
    for k, lane in enumerate(inner):
        members.setdefault(lane.junction, []).append(k)
    pairs = [
        (a, b) for rows in members.values() for a in rows for b in rows if a != b and inner[a].origin != inner[b].origin
    ]
    one = np.array([first + a for a, _ in pairs], np.int32)
    other = np.array([first + b for _, b in pairs], np.int32)
    enter, leave = np.empty(len(pairs)), np.empty(len(pairs))
    x, y = np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1])
    stretches_too_close(point_start, x, y, step_m, one, other, enter, leave)
    close = {pair: k for k, pair in enumerate(pairs) if np.isfinite(enter[k])}
    rows: list[list[tuple[int, float, float, int]]] = [[] for _ in range(count)]
    for (a, b), k in close.items():
        if (b, a) in close:
            yields = _gives_way(inner[a], inner[b], junctions[inner[a].junction])
            rows[first + a].append((first + b, enter[k], leave[k], yields))
    flat = [entry for row in rows for entry in row]
    return {
        "conflict_start": np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32),
        "conflict_lane": np.array([entry[0] for entry in flat], np.int32),
        "conflict_enter_m": np.array([entry[1] for entry in flat], np.float64),
        "conflict_exit_m": np.array([entry[2] for entry in flat], np.float64),
        "conflict_yields": np.array([entry[3] for entry in flat], np.uint8),
    }


def _gives_way(lane: _Lane, other: _Lane, junction: _Junction) -> int:
    """Which of two gives way, exactly one: SUMO's response matrix, and where it names none or both (as between stop
    signs), the one that turns more sharply or comes later in the junction's numbering."""

    def responds(a: _Lane, b: _Lane) -> bool:
        bits = junction.responses.get(a.request, "")
        return b.request < len(bits) and bits[len(bits) - 1 - b.request] == "1"

    ours, theirs = responds(lane, other), responds(other, lane)
    if ours != theirs:
        return int(ours)
    return int((abs(lane.turn), lane.request) > (abs(other.turn), other.request))


def _grid(
    bounds: F64, points: F64, point_start: I32, widths: F64, num_roads: int
) -> tuple[F64, tuple[int, int], I32, I32]:
    """Which driving lanes have a point within half a width and a cell of each cell of the grid."""
    origin = bounds[:2] - GRID_CELL_M
    columns, rows = (int(n) for n in np.ceil((bounds[2:] + GRID_CELL_M - origin) / GRID_CELL_M))
    lane = np.repeat(np.arange(num_roads), np.diff(point_start[: num_roads + 1]))
    inside = points[: len(lane)] - origin
    cell = np.floor(inside / GRID_CELL_M).astype(np.int64)
    reach = widths[lane] / 2 + GRID_CELL_M
    span = int(np.ceil(reach.max() / GRID_CELL_M))
    keys = []
    for dc in range(-span, span + 1):
        for dr in range(-span, span + 1):
            near = cell + np.array([dc, dr])
            low, high = near * GRID_CELL_M, (near + 1) * GRID_CELL_M
            gap = np.maximum(np.maximum(low - inside, inside - high), 0.0)
            hit = (
                (np.hypot(gap[:, 0], gap[:, 1]) <= reach)
                & (near >= 0).all(axis=1)
                & (near < [columns, rows]).all(axis=1)
            )
            keys.append((near[hit, 0] + near[hit, 1] * columns) * num_roads + lane[hit])
    unique = np.unique(np.concatenate(keys))
    start = np.searchsorted(unique // num_roads, np.arange(columns * rows + 1)).astype(np.int32)
    return origin, (columns, rows), start, (unique % num_roads).astype(np.int32)
