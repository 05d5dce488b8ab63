"""People on foot: where they go, when they cross, and where vehicles have to stop for them.

Knows ways on foot, and vehicles on paths; knows nothing about how vehicles move. A walker is where its distance along
its way is; its box is a record like a vehicle's.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.counter_random import Purpose, hash_key, mix, nth_uniform
from sim.lane_graph import LaneGraph
from sim.numba_setup import INNER
from sim.traffic.vehicles import BEHIND, PATH
from sim.traffic.walk_graph import CROSSWALK, JAYWALK, LINK, WALK_CELL_M, WalkGraph

PEDESTRIAN_KIND = 6
GREEN = 3
TICK_S = 0.1
TRIES = 40
TURN_BACK_TICKS = 400
PATIENT_TICKS = 50  # a vehicle waits so long for somebody at the kerb who does not come
MARGIN_M = 0.7  # between a vehicle that stops and the crosswalk, beyond what it keeps to any line
LOOK_M = 70.0
HASTE = 1.15  # on the road people walk a little faster
KEEP_ASIDE_M = 0.4  # to the side on which vehicles drive
STEP_ASIDE_MPS = 0.6  # who turns into another way, or round, gets to its side of it so fast
FOLLOW_M = 0.8
YIELD_BRAKE_MPS2 = 2.5  # a walker steps out if vehicles need no harder braking than that
CAREFUL_BRAKE_MPS2 = 2.0  # of the ego, whose driver may not be looking
HARDEST_YIELD_MPS2 = 6.0
CLEAR_S = 1.5  # between a jaywalker's leaving the lane and a vehicle's coming
BOLD_SHARE = 0.2  # of the walkers cross without a crosswalk
BEFORE_S, AFTER_S = 0.7, 1.0  # by which a vehicle keeps clear of a walker on the road
WALKING, WAITING = 0, 1
_SPAWN, _PROFILE, _WALK = int(Purpose.WALKER_SPAWN), int(Purpose.WALKER_PROFILE), int(Purpose.WALKER_TURN)

WALKER = np.dtype(
    [
        ("s", "f8"), ("pace", "f8"), ("aside", "f8"),
        ("way", "i4"), ("next", "i4"), ("turns", "i4"), ("wait", "i4"), ("ahead", "i1"), ("state", "i1"), ("bold", "i1"),
    ],
    align=True,
)  # fmt: skip
"""Someone on foot. s: along the way, m, walked towards its end (ahead 1) or its start (-1). pace: m/s. aside: right of the
way's middle, m. next: the way that it waits to enter, times 2, plus 1 if at its end. turns: ways chosen so far (the counter
of its random numbers). wait: ticks. state: WALKING or WAITING at a kerb. bold: 1 if it crosses without a crosswalk."""


@njit(**INNER)
def _place(walk: WalkGraph, walker: np.void, car: np.void) -> None:
    """Set x, y and yaw of the walker's box."""
    way = walk.ways[walker.way]
    at = walker.s / way.step
    i = min(max(math.floor(at), 0), way.points - 2)
    a, b = way.point + i, way.point + i + 1
    dx, dy = walk.xy[b, 0] - walk.xy[a, 0], walk.xy[b, 1] - walk.xy[a, 1]
    yaw = math.atan2(walker.ahead * dy, walker.ahead * dx)
    aside = 0.0 if way.kind == LINK else walker.aside
    car.x = walk.xy[a, 0] + dx * (at - i) + aside * math.sin(yaw)
    car.y = walk.xy[a, 1] + dy * (at - i) - aside * math.cos(yaw)
    car.yaw = yaw


@njit(**INNER)
def spawn_walker(
    walk: WalkGraph,
    cars: NDArray[np.void],
    walker: np.void,
    paint: NDArray[np.uint8],
    agent: int,
    seed: np.uint64,
    episode: int,
    tick: int,
    nearest_m: float,
    furthest_m: float,
) -> bool:
    """Try to put a walker on a sidewalk between two distances from the ego; returns whether there was a place."""
    car = cars[agent]
    base = hash_key(seed, episode, tick, agent, _SPAWN)
    profile = hash_key(seed, episode, tick, agent, _PROFILE)
    columns, rows = int(walk.grid[2]), int(walk.grid[3])
    for t in range(TRIES):
        key = mix(base + np.uint64(t))
        distance = math.sqrt(nearest_m**2 + (furthest_m**2 - nearest_m**2) * nth_uniform(key, 0))
        angle = 2.0 * math.pi * nth_uniform(key, 1)
        column = math.floor((cars[0].x + distance * math.cos(angle) - walk.grid[0]) / WALK_CELL_M)
        row = math.floor((cars[0].y + distance * math.sin(angle) - walk.grid[1]) / WALK_CELL_M)
        if column < 0 or row < 0 or column >= columns or row >= rows:
            continue
        cell = row * columns + column
        count = walk.cell_start[cell + 1] - walk.cell_start[cell]
        if count == 0:
            continue
        entry = walk.cell_start[cell] + int(nth_uniform(key, 2) * count)
        walker.way, walker.s = walk.cell_way[entry], walk.cell_s[entry]
        walker.ahead = 1 if nth_uniform(key, 3) < 0.5 else -1
        walker.aside = walk.hand * (KEEP_ASIDE_M + 0.4 * (nth_uniform(profile, 4) - 0.5))
        _place(walk, walker, car)
        if (car.x - cars[0].x) ** 2 + (car.y - cars[0].y) ** 2 < nearest_m * nearest_m:
            continue
        walker.pace = 1.1 + 0.6 * nth_uniform(profile, 0)
        walker.bold = 1 if nth_uniform(profile, 1) < BOLD_SHARE else 0
        walker.state, walker.wait, walker.next, walker.turns = WALKING, 0, -1, 0
        car.height = 1.55 + 0.35 * nth_uniform(profile, 2)
        car.length, car.width, car.front_axle, car.wheelbase = 0.5, 0.55, 0.25, 0.0
        car.kind, car.active, car.speed, car.acceleration, car.indicator = PEDESTRIAN_KIND, 1, walker.pace, 0.0, 0
        car.breaks, car.siren, car.narrow, car.wait = 0, 0, 0, 0
        tone = hash_key(seed, episode, tick, agent, _WALK)
        for c in range(3):
            paint[c] = int(40.0 + 190.0 * nth_uniform(tone, c))
        return True
    car.active = 0
    return False


@njit(**INNER)
def _may_cross(
    graph: LaneGraph,
    walk: WalkGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    last: int,
    way: np.void,
    from_end: int,
    pace: float,
    shown: NDArray[np.int8],
) -> bool:
    """Whether a walker may step onto a way across the road now. Cost: vehicles x lanes of their paths x crossed lanes."""
    if way.link >= 0 and shown[way.link] != GREEN:
        return False
    for j in range(last):
        car = cars[j]
        if car.active == 0:
            continue
        if paths[j, BEHIND] < 0:  # the ego, off its lane, or something that is no vehicle
            if j > 0:
                continue
            place = way.point + (way.points - 1 if from_end == 1 else 0)
            dx, dy = walk.xy[place, 0] - car.x, walk.xy[place, 1] - car.y
            if car.speed > 0.5 and dx * dx + dy * dy < 400.0:
                return False
            continue
        start = -car.s
        first = BEHIND
        while first > 0 and paths[j, first - 1] >= 0 and start > -car.length:
            first -= 1
            start -= graph.lanes[paths[j, first]].length
        for k in range(first, PATH):
            lane = paths[j, k]
            if lane < 0 or start > LOOK_M:
                break
            for q in range(way.crossed, way.crossed_end):
                crossing = walk.crossings[q]
                if crossing.lane != lane:
                    continue
                away = start + crossing.enter
                if start + crossing.exit + car.length < 0.0:
                    continue
                if away < 0.0 or (away < 0.5 and car.speed > 0.3):
                    return False
                brake = CAREFUL_BRAKE_MPS2 if j == 0 else YIELD_BRAKE_MPS2
                needed = car.speed * car.speed / (2.0 * max(away - 1.5 - 0.2 * car.speed, 0.1))
                if car.speed > 0.3 and needed > brake:
                    return False
                if way.kind == JAYWALK:
                    leaves = (way.length - crossing.low if from_end == 1 else crossing.high) / pace
                    if away / max(car.speed, 3.0) < leaves + CLEAR_S:
                        return False
            start += graph.lanes[lane].length
    return True


@njit(**INNER)
def _is_pointless(kind: int, following: int) -> bool:
    """Whether nobody walks so: from one short link to the next, or across two roads without a pause."""
    return kind == following and kind in (LINK, CROSSWALK)


@njit(**INNER)
def _choose(walk: WalkGraph, walker: np.void, seed: np.uint64, episode: int, agent: int) -> int:
    """What comes after the way that the walker has just walked to its end: 2 * way + end, or -1."""
    way = walk.ways[walker.way]
    if way.kind == JAYWALK:
        return -1
    low, high = (way.last, way.last_end) if walker.ahead > 0 else (way.first, way.first_end)
    count = 0
    for q in range(low, high):
        count += not _is_pointless(way.kind, walk.ways[walk.onward[q] // 2].kind)
    if count == 0:
        return -1
    walker.turns += 1
    pick = int(nth_uniform(hash_key(seed, episode, 1, agent, _WALK), walker.turns) * count)
    for q in range(low, high):
        if _is_pointless(way.kind, walk.ways[walk.onward[q] // 2].kind):
            continue
        if pick == 0:
            return walk.onward[q]
        pick -= 1
    return -1


@njit(**INNER)
def _enter(walk: WalkGraph, walker: np.void, entry: int) -> None:
    """Put the walker at the beginning of what it enters: 2 * way + end."""
    walker.way = entry // 2
    walker.ahead = 1 if entry % 2 == 0 else -1
    walker.s = 0.0 if entry % 2 == 0 else walk.ways[walker.way].length
    walker.state, walker.wait, walker.next = WALKING, 0, -1


@njit(**INNER)
def _arrive(walk: WalkGraph, walker: np.void, seed: np.uint64, episode: int, agent: int) -> None:
    """Go on at the end of a way: onto the next, to the kerb of one across the road, or back."""
    way = walk.ways[walker.way]
    if way.kind == JAYWALK:
        walker.turns += 1
        draw = nth_uniform(hash_key(seed, episode, 1, agent, _WALK), walker.turns)
        walker.way, walker.s, walker.ahead = way.land, way.land_s, 1 if draw < 0.5 else -1
        return
    entry = _choose(walk, walker, seed, episode, agent)
    walker.s = way.length if walker.ahead > 0 else 0.0
    if entry < 0:
        walker.ahead = -walker.ahead
    elif walk.ways[entry // 2].kind == CROSSWALK:
        walker.next, walker.state, walker.wait = entry, WAITING, 0
    else:
        _enter(walk, walker, entry)


@njit(**INNER)
def _walk_to_place(walk: WalkGraph, walker: np.void, car: np.void) -> None:
    """Bring the box to where the walker is on its way, little by little where that place has jumped to another side."""
    x, y = car.x, car.y
    _place(walk, walker, car)
    dx, dy = car.x - x, car.y - y
    away, most = math.sqrt(dx * dx + dy * dy), (car.speed + STEP_ASIDE_MPS) * TICK_S
    if away > most:
        car.x, car.y = x + dx * most / away, y + dy * most / away


@njit(**INNER)
def move_walkers(
    graph: LaneGraph,
    walk: WalkGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    walkers: NDArray[np.void],
    shown: NDArray[np.int8],
    seed: np.uint64,
    episode: int,
) -> None:
    """One tick of all walkers. They are the last of the records in cars."""
    first = len(cars) - len(walkers)
    for n in range(len(walkers)):
        walker, car = walkers[n], cars[first + n]
        if car.active == 0:
            continue
        if walker.state == WAITING:
            walker.wait += 1
            entry = walker.next
            target = walk.ways[entry // 2]
            if _may_cross(graph, walk, cars, paths, first, target, entry % 2, walker.pace * HASTE, shown):
                _enter(walk, walker, entry)
            elif walker.wait > TURN_BACK_TICKS:
                walker.state, walker.next = WALKING, -1
                if target.kind == CROSSWALK:
                    walker.ahead = -walker.ahead
                else:  # not here, then
                    walker.bold = 0
        if walker.state == WALKING:
            way = walk.ways[walker.way]
            on_road = way.kind == CROSSWALK or way.kind == JAYWALK
            car.speed = walker.pace * HASTE if on_road else walker.pace
            for m in range(len(walkers)):  # nobody walks into the back of another
                other = walkers[m]
                if m != n and other.way == walker.way and other.ahead == walker.ahead and cars[first + m].active == 1:
                    gap = (other.s - walker.s) * walker.ahead
                    if 0.0 < gap < FOLLOW_M:
                        car.speed = min(car.speed, cars[first + m].speed)
            before = walker.s
            walker.s += walker.ahead * car.speed * TICK_S
            if walker.bold == 1 and way.jay >= 0 and (before - way.jay_s) * (walker.s - way.jay_s) <= 0.0:
                walker.next, walker.state, walker.wait = 2 * way.jay, WAITING, 0
            elif walker.s > way.length or walker.s < 0.0:
                _arrive(walk, walker, seed, episode, first + n)
        if walker.state == WAITING:
            car.speed = 0.0
        _walk_to_place(walk, walker, car)


@njit(**INNER)
def walker_stop_distance(
    graph: LaneGraph,
    walk: WalkGraph,
    me: np.void,
    path: NDArray[np.int32],
    cars: NDArray[np.void],
    walkers: NDArray[np.void],
    shown: NDArray[np.int8],
) -> float:
    """Distance in m from a front bumper to where it has to stop for somebody on foot, inf if nowhere.

    For people on the road where their ways and the vehicle's would meet, and for those who wait at a crosswalk, if one can
    stop in comfort. Cost: crossings of the lanes ahead x walkers.
    """
    horizon = 12.0 + me.speed * me.speed / 3.0
    first = len(cars) - len(walkers)
    best = np.inf
    start = -me.s
    for k in range(BEHIND, PATH):
        lane = path[k]
        if lane < 0 or start > horizon:
            break
        for row in range(walk.lane_start[lane], walk.lane_start[lane + 1]):
            crossing = walk.crossings[walk.lane_crossing[row]]
            away = start + crossing.enter
            if start + crossing.exit < -0.5 or away > horizon:
                continue
            for n in range(len(walkers)):
                walker = walkers[n]
                if cars[first + n].active == 0:
                    continue
                if walker.state == WAITING:
                    if walker.next // 2 != crossing.way or away < 0.5 or me.wait > PATIENT_TICKS:
                        continue
                    way = walk.ways[crossing.way]
                    if way.kind != CROSSWALK or (way.link >= 0 and shown[way.link] != GREEN):
                        continue
                    if me.speed * me.speed <= 2.0 * YIELD_BRAKE_MPS2 * away:
                        best = min(best, away)
                    continue
                if walker.way != crossing.way:
                    continue
                pace = walker.pace * HASTE
                to_enter = crossing.low - walker.s if walker.ahead > 0 else walker.s - crossing.high
                to_leave = crossing.high - walker.s if walker.ahead > 0 else walker.s - crossing.low
                if to_leave < 0.0:
                    continue
                speed = max(me.speed, 3.0)
                if to_leave / pace < away / speed - BEFORE_S:
                    continue
                if to_enter / pace > (start + crossing.exit + me.length) / speed + AFTER_S:
                    continue
                if away >= 0.0:
                    if me.speed * me.speed <= 2.0 * HARDEST_YIELD_MPS2 * max(away, 0.2):
                        best = min(best, away)
                elif to_enter < 0.3 and start + 0.5 * (crossing.enter + crossing.exit) > 0.3:
                    best = 0.0
        start += graph.lanes[lane].length
    return max(best - MARGIN_M, 0.0)
