"""Shortest ways over the lane graph, lane changes included: for routes planned anew, and for anybody who asks from Python.

Knows lanes; knows nothing about vehicles. Dijkstra's algorithm (1959) over lanes, with an indexed binary heap in arrays. A
route is a row of lanes, each of which follows the last one or lies beside it. Where lane k + 1 lies beside lane k, both begin at
about the same arc length: the route is then said to be on the last one of such a run from its beginning, and only its centre
line shows where it moves over (`change_window`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import GRID_CELL_M, LaneGraph, build_lane_graph, wrapped
from sim.numba_setup import INNER, KERNEL
from sim.roads.network import RoadNetwork

CHANGE_COST_M = 20.0  # a change of lane counts as so many metres more
CHANGE_ROOM_M = 20.0  # a lane changes only where both lanes are at least that long
CHANGE_M = 30.0  # length of a lane change, where there is room
CHANGE_LEAD_M = 10.0  # straight on before it, where there is room
REACH_M = 1.0  # so far outside a lane the middle of a car still counts as on it
TURNED_M = 2.0  # a lane turned away by one radian is as unlikely as one that lies so much further off
_ALIGNED = 0.7  # cosine
_UNSEEN, _DONE = -1, -2
_FROM_START, _BESIDE_START, _BESIDE = -1, -2, -3  # in `before`; _BESIDE - k: on the first road, beside lane k


class Planner(NamedTuple):
    """Scratch of the planner, a row for each thread: cost (T, L) float64, before, heap, place (T, L) int32, lanes (T, R) int32,
    begins (T, R) float64."""

    cost: NDArray[np.float64]
    before: NDArray[np.int32]
    heap: NDArray[np.int32]
    place: NDArray[np.int32]
    lanes: NDArray[np.int32]
    begins: NDArray[np.float64]


def allocate_planner(threads: int, num_lanes: int, route_lanes: int) -> Planner:
    """Memory for `threads` planners at once, of routes of up to route_lanes lanes."""
    shape = (threads, num_lanes)
    return Planner(
        np.zeros(shape), np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32),
        np.zeros((threads, route_lanes), np.int32), np.zeros((threads, route_lanes)),
    )  # fmt: skip


@njit(**INNER)
def change_side(graph: LaneGraph, route_lane: NDArray[np.int32], count: int, k: int) -> int:
    """1 where the route changes to the left from its lane k to lane k + 1, -1 to the right, 0 where it does not change."""
    if k < 0 or k + 1 >= count:
        return 0
    record, other = graph.lanes[route_lane[k]], route_lane[k + 1]
    return 1 if record.left == other else -1 if record.right == other else 0


@njit(**INNER)
def change_window(
    graph: LaneGraph, route_lane: NDArray[np.int32], route_from: NDArray[np.float64], count: int, k: int
) -> tuple[float, float]:
    """Arc lengths from and to which the route moves over from its lane k to lane k + 1, which lies beside it."""
    first, last = k, k + 1
    while change_side(graph, route_lane, count, first - 1) != 0:
        first -= 1
    while change_side(graph, route_lane, count, last) != 0:
        last += 1
    low = max(route_from[first], 0.0)
    room = max(route_from[last] + graph.lanes[route_lane[last]].length - low, 1.0)
    span = min(CHANGE_M, room / (last - first))
    begin = low + min(CHANGE_LEAD_M, room - span * (last - first)) + span * (k - first)
    return begin, begin + span


@njit(**INNER)
def lane_begins(
    graph: LaneGraph, route_lane: NDArray[np.int32], count: int, s: float, route_from: NDArray[np.float64]
) -> None:
    """Write the arc length (count,) at which each lane of a route begins whose arc length 0 is at s of its first lane.

    Lanes beside each other are measured in proportion to their lengths, because one is longer in a curve.
    """
    route_from[0] = -s
    for k in range(1, count):
        before = graph.lanes[route_lane[k - 1]].length
        if change_side(graph, route_lane, count, k - 1) != 0:
            driven = max(-route_from[k - 1], 0.0)
            route_from[k] = route_from[k - 1] + driven - driven * graph.lanes[route_lane[k]].length / before
        else:
            route_from[k] = route_from[k - 1] + before


@njit(**INNER)
def _offer(
    cost: NDArray[np.float64],
    before: NDArray[np.int32],
    heap: NDArray[np.int32],
    place: NDArray[np.int32],
    size: int,
    lane: int,
    price: float,
    parent: int,
) -> int:
    """Put a lane on the heap, or a cheaper way to it; returns the heap's size. Cost: O(log size)."""
    at = place[lane]
    if at == _DONE or (at >= 0 and price >= cost[lane]):
        return size
    if at == _UNSEEN:
        at = size
        size += 1
    cost[lane], before[lane] = price, parent
    while at > 0 and cost[heap[(at - 1) // 2]] > price:
        heap[at] = heap[(at - 1) // 2]
        place[heap[at]] = at
        at = (at - 1) // 2
    heap[at], place[lane] = lane, at
    return size


@njit(**INNER)
def _take(cost: NDArray[np.float64], heap: NDArray[np.int32], place: NDArray[np.int32], size: int) -> int:
    """The cheapest lane, taken from a heap of `size` lanes. Cost: O(log size)."""
    taken, moved, at = heap[0], heap[size - 1], 0
    place[taken] = _DONE
    size -= 1
    if size == 0:
        return taken
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and cost[heap[child + 1]] < cost[heap[child]]:
            child += 1
        if cost[heap[child]] >= cost[moved]:
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
    heap[at], place[moved] = moved, at
    return taken


@njit(**INNER)
def _room(graph: LaneGraph, lane: int, goal: int, goal_s: float) -> float:
    """Where a lane must have been reached at the latest, as an arc length of it."""
    length = graph.lanes[lane].length
    return min(length, goal_s) if lane == goal else length


@njit(**INNER)
def find_route(graph: LaneGraph, planner: Planner, thread: int, start: int, s: float, goal: int, goal_s: float) -> int:
    """Write the cheapest route from s of lane `start` to goal_s of lane `goal` to the planner's row of lanes.

    A way costs its length and CHANGE_COST_M for each change of lane; the forward direction only, lanes of `LaneGraph.onward`.
    Returns the number of lanes, both ends included; 0 where the goal cannot be reached, or only over more lanes than there is
    room for.
    Cost: O(L log L) for L lanes at worst, less where the goal is near.
    """
    cost, before, heap, place = (
        planner.cost[thread],
        planner.before[thread],
        planner.heap[thread],
        planner.place[thread],
    )
    chain = planner.lanes[thread]
    if start == goal and goal_s >= s:
        chain[0] = start
        return 1
    place[:] = _UNSEEN
    size, own = 0, graph.lanes[start]
    for n in range(own.next, own.next_end):
        size = _offer(cost, before, heap, place, size, np.int64(graph.onward[n]), own.length - s, np.int64(_FROM_START))
    for side in range(2):
        lane, changes, room = np.int64(start), 0, own.length - s
        while True:
            beside = np.int64(graph.lanes[lane].left if side == 0 else graph.lanes[lane].right)
            if beside < 0:
                break
            there = s * graph.lanes[beside].length / own.length
            room = min(room, _room(graph, beside, goal, goal_s) - there)
            changes += 1
            if room < CHANGE_ROOM_M * changes:
                break
            parent = _BESIDE_START if changes == 1 else _BESIDE - lane
            size = _offer(cost, before, heap, place, size, beside, CHANGE_COST_M * changes - there, parent)
            lane = beside
    found = False
    while size > 0 and not found:
        lane = np.int64(_take(cost, heap, place, size))
        size -= 1
        found = lane == goal
        record = graph.lanes[lane]
        for n in range(record.next, record.next_end):
            size = _offer(cost, before, heap, place, size, np.int64(graph.onward[n]), cost[lane] + record.length, lane)
        if before[lane] <= _BESIDE_START:
            continue
        for beside in (np.int64(record.left), np.int64(record.right)):
            if beside >= 0 and min(record.length, _room(graph, beside, goal, goal_s)) >= CHANGE_ROOM_M:
                size = _offer(cost, before, heap, place, size, beside, cost[lane] + CHANGE_COST_M, lane)
    return _write_chain(before, start, goal, chain) if found else 0


@njit(**INNER)
def _write_chain(before: NDArray[np.int32], start: int, goal: int, chain: NDArray[np.int32]) -> int:
    """Follow `before` from the goal back to the start and write the lanes in driving order; returns their number, 0 if too many."""
    count, lane = 2, goal
    while before[lane] != _FROM_START and before[lane] != _BESIDE_START:
        lane = before[lane] if before[lane] >= 0 else _BESIDE - before[lane]
        count += 1
    if count > len(chain):
        return 0
    lane = goal
    for k in range(count - 1, 0, -1):
        chain[k] = lane
        lane = before[lane] if before[lane] >= 0 else _BESIDE - before[lane]
    chain[0] = start
    return count


@njit(**INNER)
def lane_under(graph: LaneGraph, x: float, y: float, yaw: float) -> tuple[int, float]:
    """The driving lane that leads the way of a car at a place, and the arc length there; lane -1 where there is none.

    The car is within the lane or at most REACH_M beside it. Where lanes overlap, as in junctions, the one that is nearest and
    turned away least. Cost: lane points within some metres.
    """
    columns, rows = int(graph.grid[2]), int(graph.grid[3])
    column, row = math.floor((x - graph.grid[0]) / GRID_CELL_M), math.floor((y - graph.grid[1]) / GRID_CELL_M)
    best, found, s = np.inf, -1, 0.0
    for r in range(max(row - 1, 0), min(row + 2, rows)):
        for c in range(max(column - 1, 0), min(column + 2, columns)):
            cell = r * columns + c
            for k in range(graph.cell_start[cell], graph.cell_start[cell + 1]):
                point, lane = graph.points[graph.cell_point[k]], graph.cell_lane[k]
                record = graph.lanes[lane]
                dx, dy = x - point.x, y - point.y
                cos, sin = math.cos(point.yaw), math.sin(point.yaw)
                along, aside = dx * cos + dy * sin, abs(dy * cos - dx * sin)
                if abs(along) > 0.6 * record.step or aside > record.half_width + REACH_M:
                    continue
                turned = wrapped(yaw - point.yaw)
                if math.cos(turned) < _ALIGNED:
                    continue
                badness = aside + TURNED_M * abs(turned)
                if badness < best:
                    at = (graph.cell_point[k] - record.point) * record.step + along
                    best, found, s = badness, lane, min(max(at, 0.0), record.length)
    return found, s


@njit(**KERNEL)
def _find_one(
    graph: LaneGraph, planner: Planner, start: int, s: float, goal: int, goal_s: float, route_from: NDArray[np.float64]
) -> int:
    count = find_route(graph, planner, np.int64(0), np.int64(start), s, np.int64(goal), goal_s)
    if count > 0:
        lane_begins(graph, planner.lanes[0], count, s, route_from)
    return count


class NoRoute(ValueError):
    """Two lanes of which the second cannot be reached from the first: one line that says which."""


@dataclass(frozen=True)
class ShortestRoute:
    """lanes: of the network, in driving order, both ends included; each follows the one before it or lies beside it.

    length_m: from the start to the goal. changes: number of lane changes.
    """

    lanes: tuple[int, ...]
    length_m: float
    changes: int


def shortest_route(
    network: RoadNetwork | LaneGraph, from_lane: int, to_lane: int, from_m: float = 0.0, to_m: float | None = None
) -> ShortestRoute:
    """The shortest way from arc length from_m of one driving lane to arc length to_m (its end, where None) of another.

    A change of lane counts as CHANGE_COST_M more than the way is long, so that lanes are changed only where it is of use. Ways
    into dead ends, and turning back where there is another way, are left out, as for all traffic. Who asks often gives the
    network as `build_lane_graph(network)`, made once.

    Raises:
        ValueError: no driving lane of that number, or an arc length outside it.
        NoRoute: there is no way.
    """
    graph = build_lane_graph(network) if isinstance(network, RoadNetwork) else network
    drivable = np.unique(graph.cell_lane)
    for name, lane in (("from_lane", from_lane), ("to_lane", to_lane)):
        if lane not in drivable:
            raise ValueError(f"{name} must be the number of a driving lane, 0 to {int(drivable[-1])}, got {lane}")
    end_m = float(graph.lanes[to_lane]["length"]) if to_m is None else to_m
    for name, lane, at_m in (("from_m", from_lane, from_m), ("to_m", to_lane, end_m)):
        longest = float(graph.lanes[lane]["length"])
        if not 0.0 <= at_m <= longest:
            raise ValueError(f"{name} must be within lane {lane}, 0 to {longest:.2f} m, got {at_m}")
    planner = allocate_planner(1, len(graph.lanes), 2 * len(graph.lanes) + 2)
    begins = np.zeros(planner.lanes.shape[1])
    count = int(_find_one(graph, planner, from_lane, float(from_m), to_lane, end_m, begins))
    if count == 0:
        raise NoRoute(f"no way leads from lane {from_lane} to lane {to_lane}")
    lanes = tuple(planner.lanes[0, :count].tolist())
    changes = sum(b in (graph.lanes[a]["left"], graph.lanes[a]["right"]) for a, b in pairwise(lanes))
    return ShortestRoute(lanes, float(begins[count - 1]) + end_m, changes)
