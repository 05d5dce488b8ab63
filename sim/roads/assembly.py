"""Puts lanes, junctions and signal programs together into the arrays of `RoadNetwork`.

Knows lanes as records; knows nothing about the file they come from, traffic or sensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.roads.conflicts import stretches_too_close
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.polyline import headings, resampled, ribbon

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

SPACING_M = 1.0
GRID_CELL_M = 8.0


@dataclass
class LaneRecord:
    name: str
    kind: LaneKind
    shape: F64
    width_m: float
    limit_mps: float
    widths_m: F64 | None = None  # spread evenly from start to end, where the width changes
    junction: int = -1
    control: LaneControl = LaneControl.NONE
    signal_link: int = -1
    turn: int = 0
    origin: int = -1
    target: int = -1
    request: int = -1


@dataclass
class JunctionRecord:
    name: str
    polygon: F64
    inner_lanes: list[str]
    responses: dict[int, str] = field(default_factory=dict)


@dataclass
class SignalPrograms:
    """Signal programs as they will stand in `RoadNetwork`."""

    first_link: dict[str, int]
    start: I32
    phase_start: I32
    duration_s: F64
    state: NDArray[np.int8]
    minor: NDArray[np.uint8]
    offset_s: F64


def _rows(pairs: Iterable[tuple[int, int]], count: int) -> tuple[I32, I32]:
    """CSR of pairs (row, value), values in the order given."""
    rows: list[list[int]] = [[] for _ in range(count)]
    for row, value in pairs:
        rows[row].append(value)
    start = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    return start, np.array([value for row in rows for value in row], np.int32)


def assemble(
    driving: list[LaneRecord],
    inner: list[LaneRecord],
    beside: list[LaneRecord],
    left: I32,
    right: I32,
    direct: list[tuple[int, int]],
    junctions: list[JunctionRecord],
    signals: SignalPrograms,
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
    point_widths = [_widths_along(lane, len(line)) for lane, (line, _) in zip(lanes, sampled, strict=True)]
    ribbons = [ribbon(line, width) for (line, _), width in zip(sampled, point_widths, strict=True)]
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
        point_width_m=np.concatenate(point_widths),
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


def _widths_along(lane: LaneRecord, count: int) -> F64:
    """(count,) the width of a lane at points that stand evenly along it."""
    if lane.widths_m is None:
        return np.full(count, lane.width_m)
    return np.interp(np.linspace(0.0, 1.0, count), np.linspace(0.0, 1.0, len(lane.widths_m)), lane.widths_m)


def _conflicts(
    inner: Sequence[LaneRecord],
    first: int,
    count: int,
    junctions: list[JunctionRecord],
    point_start: I32,
    points: F64,
    step_m: F64,
) -> dict[str, Any]:
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


def _gives_way(lane: LaneRecord, other: LaneRecord, junction: JunctionRecord) -> int:
    """Which of two gives way, exactly one: SUMO's response matrix, and where it names none or both (as between stop
    signs), the one that turns more sharply or comes later in the junction's numbering."""

    def responds(a: LaneRecord, b: LaneRecord) -> bool:
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
