"""The road network as the world's kernels read it: records of lanes, points and conflicts, and a grid of points.

Knows `RoadNetwork`; knows nothing about vehicles.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.numba_setup import INNER, KERNEL
from sim.roads.network import LaneKind, RoadNetwork

GRID_CELL_M = 4.0
LATERAL_COMFORT_MPS2 = 2.0
CURVE_BRAKE_MPS2 = 1.5
TURN_BACK = 2
INWARDS, OUTWARDS = 1, -1  # to the middle of the road, to its edge

LANE = np.dtype(
    [
        ("length", "f8"), ("step", "f8"), ("half_width", "f8"), ("limit", "f8"),
        ("point", "i4"), ("points", "i4"), ("junction", "i4"), ("link", "i4"),
        ("next", "i4"), ("next_end", "i4"), ("sibling", "i4"), ("sibling_end", "i4"), ("conflict", "i4"), ("conflict_end", "i4"),
        ("left", "i4"), ("right", "i4"),
        ("control", "i1"), ("turn", "i1"), ("endless", "i1"), ("leaves", "i1"), ("fast", "i1"),
    ],
    align=True,
)  # fmt: skip
POINT = np.dtype([("x", "f8"), ("y", "f8"), ("yaw", "f8"), ("cap", "f8")], align=True)
CONFLICT = np.dtype(
    [
        ("enter", "f8"), ("exit", "f8"), ("other_enter", "f8"), ("other_exit", "f8"),
        ("lane", "i4"), ("yields", "i1"), ("other_yields", "i1"), ("merges", "i1"),
    ],
    align=True,
)  # fmt: skip
SIBLING = np.dtype([("until", "f8"), ("lane", "i4")], align=True)
APART_M = 2.3


class LaneGraph(NamedTuple):
    """lanes: (L,) `LANE`; `next` to `next_end` is the row in `onward`, `conflict` to `conflict_end` in `conflicts`; leaves is 1
        where the road ends with the map, so that traffic drives on beyond it until nobody sees it.

    points: (P,) `POINT`; cap is the speed in m/s from which every later curve of the lane is still reached in comfort.
    onward: lanes that follow, without those that end in a dead end or turn back where there is a choice.
    conflicts: (C,) `CONFLICT`; `other_*` is the same conflict seen along the other lane; merges is 1 where both lanes lead to
        the same one on a fast road, so that one follows the other instead of waiting until it is gone.
    siblings: `SIBLING`: for each junction lane those that begin where it does, and the arc length up to which the two are
        closer than APART_M; row `sibling` to `sibling_end`.
    start_lanes: driving lanes outside junctions on which a route or a vehicle may begin.
    cell_start, cell_point, cell_lane: CSR of a grid of GRID_CELL_M over all points of driving lanes.
    grid: (4,) float64: x and y of the grid's corner, columns, rows.
    hand: 1, or -1 where everybody drives on the left: the factor of distances to the left that are meant for right-hand traffic.
    """

    lanes: NDArray[np.void]
    points: NDArray[np.void]
    onward: NDArray[np.int32]
    conflicts: NDArray[np.void]
    siblings: NDArray[np.void]
    start_lanes: NDArray[np.int32]
    cell_start: NDArray[np.int32]
    cell_point: NDArray[np.int32]
    cell_lane: NDArray[np.int32]
    grid: NDArray[np.float64]
    hand: int


def _endless(usable: NDArray[np.bool_], followers: list[list[int]]) -> NDArray[np.bool_]:
    """Lanes from which one can drive on for ever: those left when lanes without a follower are taken away again and again."""
    alive = usable.copy()
    count = np.array([sum(alive[n] for n in row) for row in followers])
    leads: list[list[int]] = [[] for _ in followers]
    for lane, row in enumerate(followers):
        for n in row:
            leads[n].append(lane)
    dead = [k for k in range(len(followers)) if alive[k] and count[k] == 0]
    while dead:
        k = dead.pop()
        alive[k] = False
        for lane in leads[k]:
            count[lane] -= 1
            if alive[lane] and count[lane] == 0:
                dead.append(lane)
    return alive


def _leaves(network: RoadNetwork, driving: NDArray[np.bool_], all_next: list[list[int]]) -> NDArray[np.bool_]:
    """Lanes outside junctions that nothing follows, nor any lane beside them, to which one would have to change in time."""
    dead = np.array([not row for row in all_next])
    leaves = driving & dead & (network.lane_junction < 0)
    for k in np.flatnonzero(leaves):
        for beside in (network.lane_left, network.lane_right):
            lane = int(beside[k])
            while lane >= 0 and leaves[k]:
                leaves[k] = dead[lane]
                lane = int(beside[lane])
    return leaves


def _curve_caps(network: RoadNetwork) -> NDArray[np.float64]:
    """Speed caps (P,) in m/s of all points: comfort in curves, and braking to the curves that come later in the lane."""
    caps = np.full(len(network.point_x), 100.0)
    for k in range(network.num_lanes):
        a, b = int(network.point_start[k]), int(network.point_start[k + 1])
        step = float(network.lane_step_m[k])
        yaw = np.unwrap(network.point_yaw[a:b])
        n = b - a
        if n < 2:
            continue
        low, high = np.maximum(np.arange(n) - 2, 0), np.minimum(np.arange(n) + 2, n - 1)
        curvature = np.abs(yaw[high] - yaw[low]) / ((high - low) * step)
        cap = np.minimum(np.sqrt(LATERAL_COMFORT_MPS2 / np.maximum(curvature, 1e-4)), 100.0)
        for i in range(n - 2, -1, -1):
            cap[i] = min(cap[i], math.sqrt(cap[i + 1] ** 2 + 2.0 * CURVE_BRAKE_MPS2 * step))
        caps[a:b] = np.maximum(cap, 2.0)
    return caps


def _conflict_records(network: RoadNetwork) -> NDArray[np.void]:
    records = np.zeros(len(network.conflict_lane), CONFLICT)
    row_of = {}
    for k in range(network.num_lanes):
        for c in range(network.conflict_start[k], network.conflict_start[k + 1]):
            row_of[(k, int(network.conflict_lane[c]))] = c
    leads_to = [
        int(network.successor[network.successor_start[k]]) if n else -1
        for k, n in enumerate(np.diff(network.successor_start))
    ]
    fast = network.lane_fast
    for (k, other), c in row_of.items():
        twin = row_of.get((other, k))
        records[c]["lane"] = other
        records[c]["enter"] = network.conflict_enter_m[c]
        records[c]["exit"] = network.conflict_exit_m[c]
        records[c]["yields"] = network.conflict_yields[c]
        records[c]["merges"] = fast[k] and fast[other] and leads_to[k] == leads_to[other]
        records[c]["other_enter"] = 0.0 if twin is None else network.conflict_enter_m[twin]
        records[c]["other_exit"] = network.lane_length_m[other] if twin is None else network.conflict_exit_m[twin]
        records[c]["other_yields"] = 0 if twin is None else network.conflict_yields[twin]
    return records


def _sibling_rows(network: RoadNetwork, all_next: list[list[int]]) -> list[list[tuple[float, int]]]:
    rows: list[list[tuple[float, int]]] = [[] for _ in all_next]
    for followers in all_next:
        for k in followers:
            for other in followers:
                if other == k:
                    continue
                mine = slice(network.point_start[k], network.point_start[k + 1])
                its = slice(network.point_start[other], network.point_start[other + 1])
                dx = network.point_x[mine, None] - network.point_x[None, its]
                dy = network.point_y[mine, None] - network.point_y[None, its]
                apart = np.flatnonzero(np.hypot(dx, dy).min(axis=1) > APART_M)
                until = network.lane_length_m[k] if len(apart) == 0 else apart[0] * network.lane_step_m[k]
                rows[k].append((float(until), other))
    return rows


def _point_grid(network: RoadNetwork, driving: NDArray[np.bool_]) -> tuple[NDArray[Any], ...]:
    lane_of = np.repeat(np.arange(network.num_lanes, dtype=np.int32), np.diff(network.point_start))
    index = np.flatnonzero(driving[lane_of]).astype(np.int32)
    x, y = network.point_x[index], network.point_y[index]
    corner_x, corner_y = x.min() - GRID_CELL_M, y.min() - GRID_CELL_M
    columns = int((x.max() - corner_x) / GRID_CELL_M) + 2
    rows = int((y.max() - corner_y) / GRID_CELL_M) + 2
    cell = ((y - corner_y) / GRID_CELL_M).astype(np.int64) * columns + ((x - corner_x) / GRID_CELL_M).astype(np.int64)
    order = np.argsort(cell, kind="stable")
    start = np.zeros(columns * rows + 1, np.int32)
    np.cumsum(np.bincount(cell, minlength=columns * rows), out=start[1:])
    return start, index[order], lane_of[index[order]], np.array([corner_x, corner_y, columns, rows], np.float64)


def build_lane_graph(network: RoadNetwork) -> LaneGraph:
    """Arrays for the kernels, their own memory.

    Raises:
        ValueError: the network has no driving lane of 20 m outside junctions.
    """
    count = network.num_lanes
    driving = network.lane_kind == LaneKind.DRIVING
    all_next = [
        [int(n) for n in network.successor[network.successor_start[k] : network.successor_start[k + 1]] if driving[n]]
        for k in range(count)
    ]
    ahead = driving & (network.lane_turn != TURN_BACK)
    endless = _endless(ahead, [[n for n in row if ahead[n]] for row in all_next])
    if not endless.any():
        endless = _endless(driving, all_next)

    lanes = np.zeros(count, LANE)
    onward: list[int] = []
    for k in range(count):
        row = [n for n in all_next[k] if endless[n]] or [n for n in all_next[k] if ahead[n]] or all_next[k]
        lanes[k]["next"], lanes[k]["next_end"] = len(onward), len(onward) + len(row)
        onward += row
    siblings: list[tuple[float, int]] = []
    for k, near in enumerate(_sibling_rows(network, all_next)):
        lanes[k]["sibling"], lanes[k]["sibling_end"] = len(siblings), len(siblings) + len(near)
        siblings += near
    lanes["length"], lanes["step"] = network.lane_length_m, network.lane_step_m
    lanes["half_width"], lanes["limit"] = 0.5 * network.lane_width_m, network.lane_limit_mps
    lanes["point"], lanes["points"] = network.point_start[:-1], np.diff(network.point_start)
    lanes["junction"], lanes["link"] = network.lane_junction, network.lane_signal_link
    lanes["conflict"], lanes["conflict_end"] = network.conflict_start[:-1], network.conflict_start[1:]
    lanes["control"], lanes["turn"] = network.lane_control, network.lane_turn
    lanes["endless"] = endless if endless.any() else driving
    lanes["fast"] = network.lane_fast
    lanes["leaves"] = _leaves(network, driving, all_next)
    lanes["left"], lanes["right"] = network.lane_left, network.lane_right

    points = np.zeros(len(network.point_x), POINT)
    points["x"], points["y"], points["yaw"] = network.point_x, network.point_y, network.point_yaw
    points["cap"] = _curve_caps(network)
    startable = driving & (network.lane_junction < 0) & (network.lane_length_m >= 20.0)
    starts = np.flatnonzero(startable & endless) if (startable & endless).any() else np.flatnonzero(startable)
    if len(starts) == 0:
        raise ValueError("the map has no driving lane of 20 m outside junctions, so nobody can start on it")
    cell_start, cell_point, cell_lane, grid = _point_grid(network, driving)
    return LaneGraph(
        lanes, points, np.array(onward or [0], np.int32), _conflict_records(network),
        np.array(siblings, SIBLING), starts.astype(np.int32),
        cell_start, cell_point, cell_lane, grid, -1 if network.left_hand else 1,
    )  # fmt: skip


@njit(**INNER)
def lane_beside(graph: LaneGraph, lane: int, side: int) -> int:
    """The neighbour of a lane in its direction on one side, INWARDS or OUTWARDS; -1 where there is none."""
    record = graph.lanes[lane]
    return record.left if side * graph.hand > 0 else record.right


@njit(**INNER)
def turn_side(graph: LaneGraph, lane: int) -> int:
    """1 where a junction lane turns left, -1 right, 0 neither. Who turns back does so across the middle of the road."""
    turn = graph.lanes[lane].turn
    return graph.hand if turn == TURN_BACK else turn


@njit(**KERNEL)
def wrapped(angle_rad: float) -> float:
    """An angle brought to [-pi, pi)."""
    return angle_rad - 2.0 * math.pi * math.floor((angle_rad + math.pi) / (2.0 * math.pi))


@njit(**KERNEL)
def pose_at(lanes: NDArray[np.void], points: NDArray[np.void], lane: int, s_m: float) -> tuple[float, float, float]:
    """x, y in metres and yaw in radians (of the segment) at arc length s_m of a lane, straight on beyond its ends."""
    record = lanes[lane]
    at = s_m / record.step
    i = min(max(math.floor(at), 0), record.points - 2)
    p = points[record.point + i]
    q = points[record.point + i + 1]
    t = at - i
    return p.x + (q.x - p.x) * t, p.y + (q.y - p.y) * t, p.yaw


@njit(**KERNEL)
def cap_at(lanes: NDArray[np.void], points: NDArray[np.void], lane: int, s_m: float) -> float:
    """Speed cap in m/s at arc length s_m of a lane: its limit and its curves."""
    record = lanes[lane]
    i = min(max(int(s_m / record.step), 0), record.points - 1)
    return min(record.limit, points[record.point + i].cap)
