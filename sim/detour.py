"""Around what stands or creeps in the way: when it can be passed, on which side, and along which path.

Knows the ego's route, lanes and boxes; knows nothing about who drives. The path is the route plus a distance across it, the swing:
none up to `swing_from`, all of it from `swing_to` to `swing_end`, none again from `swing_back` (arc lengths of the rear axle).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.lane_graph import GRID_CELL_M, INWARDS, OUTWARDS, LaneGraph, lane_beside
from sim.numba_setup import INNER
from sim.routes import POINT_STEP_M, project
from sim.traffic.right_of_way import travel_time
from sim.traffic.vehicles import BEHIND

NOTICE_M = 50.0  # ahead of the front bumper
IN_THE_WAY_M = 0.35  # beside the ego's box: nearer than that it does not pass without a swing
STANDING_MARGIN_M = 0.75
CREEPING_MARGIN_M = 1.25
STANDS_MPS = 0.3
STOP_BEFORE_M = 9.0  # with less room a car does not get out of a lane
LONGEST_RAMP_M = 26.0
SHORTEST_RAMP_M = 9.0
BACK_M = 12.0
PASSING_MPS = 8.0
ONCOMING_SPARE_S = 1.0
BEHIND_RANGE_M = 60.0
FAR_M = 200.0
FOLLOWS_M = 1.0  # nearer to the middle of the route somebody behind is behind the ego, not beside it
WALKER_KIND = 6
NOWHERE = 1e9


@njit(**INNER)
def _smooth(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(**INNER)
def swing_at(ego: np.void, s: float) -> float:
    """How far left of the route the path lies at an arc length, m."""
    if ego.swinging == 0:
        return 0.0
    if s <= ego.swing_to:
        return ego.swing * _smooth((s - ego.swing_from) / max(ego.swing_to - ego.swing_from, 1.0))
    return ego.swing * (1.0 - _smooth((s - ego.swing_end) / max(ego.swing_back - ego.swing_end, 1.0)))


@njit(**INNER)
def box_along_route(
    ego: np.void, line: NDArray[np.float64], other: np.void, first: int, last: int
) -> tuple[float, float, float, float, float]:
    """Where a box lies along the route: from and to arc length, right and left side (left positive), yaw of the route there.

    Eight places on its outline are projected. Looks at points first to last of the line; the first value is NOWHERE if the box is
    far from all of them.
    """
    nearest, at = np.inf, first
    for i in range(first, last + 1, 4):
        d = (other.x - line[i, 0]) ** 2 + (other.y - line[i, 1]) ** 2
        if d < nearest:
            nearest, at = d, i
    beside = 0.5 * other.length + 6.0
    if nearest > beside * beside:
        return NOWHERE, NOWHERE, 0.0, 0.0, 0.0
    around = 0.5 * other.length + 5.0
    c, s = math.cos(other.yaw), math.sin(other.yaw)
    s_low, s_high, left_low, left_high, yaw_there = np.inf, -np.inf, np.inf, -np.inf, 0.0
    for k in range(8):
        ahead = (0.5, 0.5, 0.5, 0.0, -0.5, -0.5, -0.5, 0.0)[k] * other.length
        left = (0.5, 0.0, -0.5, -0.5, -0.5, 0.0, 0.5, 0.5)[k] * other.width
        at_s, side, yaw = project(
            line, ego.points, other.x + c * ahead - s * left, other.y + s * ahead + c * left,
            at * POINT_STEP_M - around, at * POINT_STEP_M + around,
        )  # fmt: skip
        if at_s < s_low:
            s_low, yaw_there = at_s, yaw
        s_high = max(s_high, at_s)
        left_low, left_high = min(left_low, side), max(left_high, side)
    return s_low, s_high, left_low, left_high, yaw_there


@njit(**INNER)
def _is_obstacle(car: np.void, path: NDArray[np.int32]) -> bool:
    """Whether something is to be passed and not to be waited for: what stands off lanes, and bicycles."""
    if car.active == 0 or car.kind == WALKER_KIND:
        return False
    return car.narrow == 1 or (path[BEHIND] < 0 and car.speed < STANDS_MPS)


@njit(**INNER)
def _is_road(graph: LaneGraph, x: float, y: float, yaw: float) -> bool:
    """Whether a lane against or along a heading runs within 1.6 m of a place. Cost: points in nine cells."""
    columns, rows = int(graph.grid[2]), int(graph.grid[3])
    column = math.floor((x - graph.grid[0]) / GRID_CELL_M)
    row = math.floor((y - graph.grid[1]) / GRID_CELL_M)
    for r in range(max(row - 1, 0), min(row + 2, rows)):
        for c in range(max(column - 1, 0), min(column + 2, columns)):
            cell = r * columns + c
            for k in range(graph.cell_start[cell], graph.cell_start[cell + 1]):
                point = graph.points[graph.cell_point[k]]
                near = (point.x - x) ** 2 + (point.y - y) ** 2 < 1.6 * 1.6
                if near and abs(math.cos(point.yaw - yaw)) > 0.9:
                    return True
    return False


@njit(**INNER)
def _is_strip_free(
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    ego: np.void,
    line: NDArray[np.float64],
    rear: float,
    swing: float,
    end: float,
    back: float,
    time: float,
) -> bool:
    """Whether nobody is, or comes in time, where the ego would be beside its lane: from arc length rear to back, for `time` s."""
    me = cars[0]
    low, high = swing - 0.5 * me.width - 0.4, swing + 0.5 * me.width + 0.4
    first = min(max(int((rear - BEHIND_RANGE_M) / POINT_STEP_M), 0), ego.points - 1)
    last = min(max(int((rear + FAR_M) / POINT_STEP_M), first), ego.points - 1)
    for j in range(1, len(cars)):
        other = cars[j]
        if other.active == 0 or (other.x - me.x) ** 2 + (other.y - me.y) ** 2 > FAR_M * FAR_M:
            continue
        s_low, s_high, left_low, left_high, yaw = box_along_route(ego, line, other, first, last)
        if s_low == NOWHERE or left_low > high or left_high < low:
            continue
        same = math.cos(other.yaw - yaw)
        if same > -0.3 and _is_obstacle(other, paths[j]):
            continue
        along = other.speed * same
        if same < -0.3:
            if s_high > rear - 2.0 and s_low - back < max(-along, 2.0) * (time + ONCOMING_SPARE_S):
                return False
        elif s_high < rear:
            follows = abs(left_low + left_high) < 2.0 * FOLLOWS_M and abs(swing) > FOLLOWS_M
            if not follows and rear - 1.0 - s_high < 4.0 + max(along - max(me.speed, 3.0), 0.0) * 2.5:
                return False
        elif s_low < end + 5.0 and (along < 3.0 or s_low - ego.front < 8.0):
            return False
    return True


@njit(**INNER)
def _side(graph: LaneGraph, lane: int, me: np.void, low: float, high: float, margin: float, line: NDArray[np.float64],
    at: int) -> float:  # fmt: skip
    """The swing that passes what lies from low to high across the route: the smaller one that the road allows, or 0."""
    record, hand = graph.lanes[lane], graph.hand
    half = 0.5 * me.width
    if hand < 0:
        low, high = -high, -low
    # From here on as in right-hand traffic, where inwards is left.
    inward, outward = max(high + margin + half, 0.0), min(low - margin - half, 0.0)
    x, y, yaw = line[at, 0], line[at, 1], line[at, 2]
    inward_ok, outward_ok = inward + half < record.half_width, half - outward < record.half_width
    if not outward_ok and half - outward < 3.0 * record.half_width:
        outward_ok = lane_beside(graph, lane, OUTWARDS) >= 0
    # The oncoming lane only where there is none in the same direction.
    several = lane_beside(graph, lane, INWARDS) >= 0
    if not inward_ok and inward + half < 3.0 * record.half_width and (several or not outward_ok):
        width = hand * 2.0 * record.half_width
        inward_ok = _is_road(graph, x - width * math.sin(yaw), y + width * math.cos(yaw), yaw)
    if inward_ok and (not outward_ok or inward <= -outward):
        return hand * inward
    return hand * outward if outward_ok else 0.0


@njit(**INNER)
def plan_swing(
    graph: LaneGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    ego: np.void,
    route_lane: NDArray[np.int32],
    route_from: NDArray[np.float64],
    line: NDArray[np.float64],
    rear_axle: float,
) -> float:
    """Set the swing of the ego; returns the distance in m at which it has to wait before what it cannot pass yet, or inf.

    What is in the way within NOTICE_M is passed together. Cost: nothing but a look at each agent where nothing is in the way.
    """
    me = cars[0]
    rear, half = ego.s - rear_axle, 0.5 * me.width
    if ego.swinging == 1 and rear > ego.swing_back:
        ego.swinging = 0
    begin, end, low, high, slowest, narrow = np.inf, -np.inf, np.inf, -np.inf, np.inf, True
    first = min(max(int((ego.s - 12.0) / POINT_STEP_M), 0), ego.points - 1)
    last = min(max(int((ego.front + NOTICE_M) / POINT_STEP_M), first), ego.points - 1)
    reach = NOTICE_M + 10.0
    for j in range(1, len(cars)):
        other = cars[j]
        if not _is_obstacle(other, paths[j]) or (other.x - me.x) ** 2 + (other.y - me.y) ** 2 > reach * reach:
            continue
        s_low, s_high, left_low, left_high, yaw = box_along_route(ego, line, other, first, last)
        if s_low == NOWHERE or s_high < rear - 1.0 or s_low > ego.front + NOTICE_M:
            continue
        if left_low > half + IN_THE_WAY_M or left_high < -half - IN_THE_WAY_M or math.cos(other.yaw - yaw) < -0.3:
            continue
        begin, end = min(begin, s_low), max(end, s_high)
        low, high = min(low, left_low), max(high, left_high)
        slowest = min(slowest, other.speed)
        narrow = narrow and other.narrow == 1
    if end < rear:
        return np.inf
    at = ego.at
    while at + 1 < ego.lanes and begin >= route_from[at + 1]:
        at += 1
    lane = route_lane[at]
    record = graph.lanes[lane]
    middle = min(max(int(0.5 * (begin + end) / POINT_STEP_M), 0), ego.points - 1)
    margin = CREEPING_MARGIN_M if narrow else STANDING_MARGIN_M
    swing = _side(graph, lane, me, low, high, margin, line, middle)
    if ego.swinging == 1 and abs(ego.swing) > 0.0:  # what has begun is finished on the same side
        swing = max(swing, ego.swing) if ego.swing > 0.0 else min(swing, ego.swing)
    creeping = slowest if narrow else 0.0
    fast = max(min(0.9 * record.limit, PASSING_MPS), me.speed)
    after = end + (3.0 if narrow else 1.5)
    way, time = after - rear, travel_time(after - rear, me.speed, 1.4, fast)
    if creeping > STANDS_MPS:
        time = way / max(0.85 * fast - creeping, 0.5)
        way += creeping * time
    free = swing != 0.0 and record.junction < 0
    if narrow:  # who could as well stay behind passes only within the side of the road, with room before the junction
        several = graph.hand * swing > 0.0 and lane_beside(graph, lane, INWARDS) >= 0
        free = free and (several or abs(swing) < record.half_width - 0.15)
        free = free and rear + way + BACK_M < route_from[at] + record.length and record.limit > creeping + 2.0
    free = free and _is_strip_free(cars, paths, ego, line, rear, swing, after, after + BACK_M + creeping * time, time)
    ahead = begin - ego.front
    can_stop = ahead > me.speed * me.speed / 6.0 + 3.0
    if ego.swinging == 0 and free:
        ego.swinging = 1
        ego.swing_from = max(rear, begin - 2.0 - LONGEST_RAMP_M)
        ego.swing_to = max(begin - 2.0, ego.swing_from + SHORTEST_RAMP_M)
    elif ego.swinging == 1 and not free and can_stop:
        ego.swinging = 0
    if ego.swinging == 1:
        ego.swing = swing
        if rear < ego.swing_to:
            ego.swing_to = max(begin - 2.0, ego.swing_from + SHORTEST_RAMP_M)
        ego.swing_end, ego.swing_back = after, after + max(BACK_M, 1.6 * me.speed)
        return np.inf
    return np.inf if narrow else max(ahead - STOP_BEFORE_M, 0.0)
