"""Where people walk: sidewalks, crosswalks, the ways between them, and where somebody may cross a street without one.

Knows `RoadNetwork` and the ground; knows nothing about who walks. Built in numpy, read by kernels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.roads.ground import GroundClass, GroundRaster
from sim.roads.network import LaneKind, RoadNetwork
from sim.roads.polyline import resampled

CROSSWALK, JAYWALK, LINK = 1, 2, 3
WALK_CELL_M = 8.0
LONGEST_LINK_M = 26.0  # between the ends of sidewalks and crosswalks at one junction
LEAST_PAVED = 0.6  # share of such a link that is sidewalk
SAMPLE_M = 0.25
BEHIND_KERB_M = 1.1
BESIDE_M = 0.3  # a walker so far outside a lane is still in its way
JAYWALK_WIDTH_M = 1.0
JAYWALK_LEAST_M = 40.0  # of sidewalk
WIDEST_STREET_M = 24.0

Float = NDArray[np.float64]

WAY = np.dtype(
    [
        ("length", "f8"), ("step", "f8"), ("width", "f8"), ("jay_s", "f8"), ("land_s", "f8"),
        ("point", "i4"), ("points", "i4"), ("link", "i4"), ("first", "i4"), ("first_end", "i4"), ("last", "i4"), ("last_end", "i4"),
        ("crossed", "i4"), ("crossed_end", "i4"), ("jay", "i4"), ("land", "i4"), ("kind", "i1"),
    ],
    align=True,
)  # fmt: skip
"""A way on foot. Points stand `step` apart. link: signal link or -1. first to first_end: rows of `onward` at its start, last to
last_end at its end. crossed: its rows of `crossings`. kind: 0 sidewalk, CROSSWALK, JAYWALK or LINK. jay: a way of kind JAYWALK
that leaves this one at jay_s, or -1; land, land_s: where such a way arrives."""

CROSSING = np.dtype(
    [("enter", "f8"), ("exit", "f8"), ("low", "f8"), ("high", "f8"), ("lane", "i4"), ("way", "i4")], align=True
)
"""Where a way crosses a driving lane: enter to exit along the lane, low to high along the way, m."""


class WalkGraph(NamedTuple):
    """ways (W,) `WAY`; xy (P, 2) float64 points, m; onward (N,) int32: 2 * way, plus 1 where one enters at its end.

    crossings (C,) `CROSSING`, by way; lane_start (L + 1,) and lane_crossing (C,) int32: the same by lane. cell_start,
    cell_way, cell_s, grid (x, y of the corner, columns, rows): places to begin on sidewalks, by cells of WALK_CELL_M. hand: as in
    `LaneGraph`.
    """

    ways: NDArray[np.void]
    xy: Float
    onward: NDArray[np.int32]
    crossings: NDArray[np.void]
    lane_start: NDArray[np.int32]
    lane_crossing: NDArray[np.int32]
    cell_start: NDArray[np.int32]
    cell_way: NDArray[np.int32]
    cell_s: Float
    grid: Float
    hand: int


class _Ground:
    """Looks classes of the ground up."""

    def __init__(self, ground: GroundRaster) -> None:
        self._ground = ground

    def _cells(self, points: Float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows, columns = self._ground.drivable.shape
        cell = np.floor((points - self._ground.origin) / self._ground.cell_m).astype(np.int64)
        return np.clip(cell[:, 1], 0, rows - 1), np.clip(cell[:, 0], 0, columns - 1)

    def drivable(self, points: Float) -> NDArray[np.bool_]:
        return np.asarray(self._ground.drivable[self._cells(points)] != 0)

    def sidewalk(self, points: Float) -> NDArray[np.bool_]:
        return np.asarray(self._ground.classes[self._cells(points)] == GroundClass.SIDEWALK)


def _between(a: Float, b: Float) -> Float:
    return np.linspace(a, b, max(int(np.hypot(*(b - a)) / SAMPLE_M), 2))


def _to_the_sidewalk(line: Float) -> Float:
    """The line of a crosswalk, which ends at the kerbs, made longer at both ends so that one waits behind the kerb."""
    before, after = line[0] - line[1], line[-1] - line[-2]
    first = line[0] + BEHIND_KERB_M * before / np.hypot(*before)
    last = line[-1] + BEHIND_KERB_M * after / np.hypot(*after)
    return np.concatenate([first[None], line, last[None]])


def _links(lines: list[Float], ground: _Ground) -> list[Float]:
    """Straight lines between ends that are near each other, over ground that is nobody's road."""
    ends = np.array([point for line in lines for point in (line[0], line[-1])])
    found = []
    for a in range(len(ends)):
        away = np.hypot(*(ends[a + 1 :] - ends[a]).T)
        for b in np.flatnonzero((away < LONGEST_LINK_M) & (away > 0.05)) + a + 1:
            if b // 2 == a // 2:
                continue
            inner = _between(ends[a], ends[b])
            off_ends = (np.hypot(*(inner - ends[a]).T) > 0.6) & (np.hypot(*(inner - ends[b]).T) > 0.6)
            middle = inner[off_ends]
            if len(middle) and (ground.drivable(middle).any() or ground.sidewalk(middle).mean() < LEAST_PAVED):
                continue
            found.append(np.array([ends[a], ends[b]]))
    return found


def _jaywalks(sidewalks: list[Float], ground: _Ground) -> list[tuple[int, float, int, float, Float]]:
    """For some sidewalks one way straight across the street to the one over there: (way, s, other way, its s, line)."""
    points = np.concatenate(sidewalks)
    way_of = np.repeat(np.arange(len(sidewalks)), [len(line) for line in sidewalks])
    index = np.concatenate([np.arange(len(line)) for line in sidewalks])
    steps = [float(np.hypot(*(line[1] - line[0]))) for line in sidewalks]
    found = []
    for k, line in enumerate(sidewalks):
        if (len(line) - 1) * steps[k] < JAYWALK_LEAST_M:
            continue
        i = len(line) // 2 + (len(line) // 8) * (k % 3 - 1)
        along = line[i + 1] - line[i]
        for side in (1.0, -1.0):
            across = side * np.array([-along[1], along[0]]) / np.hypot(*along)
            away = np.arange(0.5, WIDEST_STREET_M, SAMPLE_M)
            road = ground.drivable(line[i] + away[:, None] * across)
            if not road.any() or away[np.argmax(road)] > 4.0:
                continue
            first = int(np.argmax(road))
            if road[first:].all():
                continue
            there = line[i] + (away[first + int(np.argmin(road[first:]))] + 1.25) * across
            gap = np.hypot(*(points - there).T)
            gap[way_of == k] = np.inf
            n = int(np.argmin(gap))
            if gap[n] < 1.5:
                found.append(
                    (k, i * steps[k], int(way_of[n]), index[n] * steps[way_of[n]], np.array([line[i], points[n]]))
                )
                break
    return found


def _crossings(network: RoadNetwork, lines: list[tuple[int, Float, float]]) -> NDArray[np.void]:
    """Crossings of ways (index, line, width) with driving lanes, by way."""
    driving = np.flatnonzero(network.lane_kind == LaneKind.DRIVING)
    lane_of = np.repeat(np.arange(network.num_lanes), np.diff(network.point_start))
    mine = np.isin(lane_of, driving)
    x, y, lane_of = network.point_x[mine], network.point_y[mine], lane_of[mine]
    s = (np.flatnonzero(mine) - network.point_start[lane_of]) * network.lane_step_m[lane_of]
    rows = []
    for way, line, width in lines:
        low, high = line.min(axis=0) - 4.0, line.max(axis=0) + 4.0
        near = np.flatnonzero((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
        fine = np.concatenate([_between(a, b) for a, b in pairwise(line)])
        at = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(fine, axis=0).T))])
        for lane in np.unique(lane_of[near]):
            points = near[lane_of[near] == lane]
            away = np.hypot(x[points][:, None] - fine[None, :, 0], y[points][:, None] - fine[None, :, 1])
            step = network.lane_step_m[lane]
            reach = 0.5 * network.lane_width_m[lane] + BESIDE_M
            over = np.flatnonzero(away.min(axis=0) < np.hypot(reach, 0.5 * step))
            under = np.flatnonzero(away.min(axis=1) < 0.5 * width + 0.5 * step)
            if len(over) and len(under):
                rows.append(
                    (
                        max(s[points[under]].min() - 0.25 * step, 0.0), s[points[under]].max() + 0.25 * step,
                        at[over[0]], at[over[-1]], lane, way,
                    )
                )  # fmt: skip
    return np.array(rows, CROSSING)


def build_walk_graph(network: RoadNetwork, ground: GroundRaster) -> WalkGraph:
    """Arrays for the kernels, their own memory; without ways where the map has no sidewalks."""
    looked_up = _Ground(ground)

    def lane_line(k: int) -> Float:
        part = slice(network.point_start[k], network.point_start[k + 1])
        return np.column_stack([network.point_x[part], network.point_y[part]])

    sidewalk_lanes = np.flatnonzero(network.lane_kind == LaneKind.SIDEWALK)
    crossing_lanes = np.flatnonzero(network.lane_kind == LaneKind.CROSSING) if len(sidewalk_lanes) else sidewalk_lanes
    lines = [lane_line(k) for k in sidewalk_lanes] + [_to_the_sidewalk(lane_line(k)) for k in crossing_lanes]
    walked, crossed = len(sidewalk_lanes), len(sidewalk_lanes) + len(crossing_lanes)
    links = _links(lines, looked_up) if lines else []
    jaywalks = _jaywalks(lines[:walked], looked_up) if walked else []
    lines += links
    first_jaywalk = len(lines)
    lines += [line for *_, line in jaywalks]

    ways = np.zeros(len(lines), WAY)
    ways["jay"], ways["land"], ways["link"] = -1, -1, -1
    ways["kind"][walked:crossed] = CROSSWALK
    ways["kind"][crossed:first_jaywalk] = LINK
    ways["kind"][first_jaywalk:] = JAYWALK
    ways["width"][:crossed] = network.lane_width_m[[*sidewalk_lanes, *crossing_lanes]]
    ways["width"][crossed:] = JAYWALK_WIDTH_M
    ways["link"][walked:crossed] = network.lane_signal_link[crossing_lanes]
    for n, (way, s, other, other_s, _) in enumerate(jaywalks):
        ways[way]["jay"], ways[way]["jay_s"] = first_jaywalk + n, s
        ways[first_jaywalk + n]["land"], ways[first_jaywalk + n]["land_s"] = other, other_s

    sampled = [resampled(line, 1.0) for line in lines]
    start = np.concatenate([[0], np.cumsum([len(points) for points, _ in sampled])]).astype(np.int32)
    if len(lines):
        ways["point"], ways["points"] = start[:-1], np.diff(start)
        ways["step"] = [step for _, step in sampled]
        ways["length"] = ways["step"] * (ways["points"] - 1)
    crossing = (ways["kind"] == CROSSWALK) | (ways["kind"] == JAYWALK)
    onward = _onward(ways, lines, first_jaywalk)
    crossings = _crossings(
        network, [(k, sampled[k][0], float(ways[k]["width"])) for k in np.flatnonzero(crossing).tolist()]
    )
    for k in range(len(ways)):
        rows = np.flatnonzero(crossings["way"] == k)
        if len(rows):
            ways[k]["crossed"], ways[k]["crossed_end"] = rows[0], rows[-1] + 1
    lane_crossing = np.argsort(crossings["lane"], kind="stable").astype(np.int32)
    lane_start = np.searchsorted(crossings["lane"][lane_crossing], np.arange(network.num_lanes + 1)).astype(np.int32)
    xy = np.concatenate([points for points, _ in sampled]) if sampled else np.zeros((0, 2))
    return WalkGraph(
        ways,
        xy,
        onward,
        crossings,
        lane_start,
        lane_crossing,
        *_places(ways[:walked], xy),
        -1 if network.left_hand else 1,
    )


def _onward(ways: NDArray[np.void], lines: list[Float], first_jaywalk: int) -> NDArray[np.int32]:
    """Fill the rows of what follows at each end: ways with an end at the same place."""
    ends = np.array([point for line in lines[:first_jaywalk] for point in (line[0], line[-1])]).reshape(-1, 2)
    onward: list[int] = []
    for k in range(first_jaywalk):
        for end, (low, high) in enumerate((("first", "first_end"), ("last", "last_end"))):
            ways[k][low] = len(onward)
            here = np.flatnonzero(np.hypot(*(ends - ends[2 * k + end]).T) < 0.05)
            onward += [int(n) for n in here if n // 2 != k]
            ways[k][high] = len(onward)
    return np.array(onward, np.int32)


def _places(sidewalks: NDArray[np.void], xy: Float) -> tuple[NDArray[np.int32], NDArray[np.int32], Float, Float]:
    """CSR of cells over the points of sidewalks, and the grid."""
    if len(sidewalks) == 0:
        return np.zeros(1, np.int32), np.zeros(0, np.int32), np.zeros(0), np.zeros(4)
    way = np.repeat(np.arange(len(sidewalks)), sidewalks["points"])
    s = np.concatenate([np.arange(n) * step for n, step in zip(sidewalks["points"], sidewalks["step"], strict=True)])
    place = xy[: len(way)]
    corner = place.min(axis=0) - WALK_CELL_M
    columns, rows = ((place.max(axis=0) - corner) / WALK_CELL_M).astype(int) + 2
    cell = ((place - corner) / WALK_CELL_M).astype(np.int64) @ np.array([1, columns])
    order = np.argsort(cell, kind="stable")
    start = np.zeros(columns * rows + 1, np.int32)
    np.cumsum(np.bincount(cell, minlength=columns * rows), out=start[1:])
    return start, way[order].astype(np.int32), s[order], np.array([*corner, columns, rows], np.float64)
