"""Actors that follow recorded tracks, and hand over to the Intelligent Driver Model where the ego is in the way.

Knows tracks and boxes; knows nothing about lanes, sensors or where tracks come from. An actor hands over when going on as
recorded would bring it closer, than a bold driver would go, to somebody who is not where the recording has them: to
the ego, or to another actor that has handed over. What would be as close in the recording itself is left alone. From then
on it drives along its own recorded path, as fast as was recorded there, behind whatever is in front, and never ahead of its
record.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.counter_random import Purpose, hash_key, nth_uniform
from sim.events import boxes_overlap
from sim.lane_graph import wrapped
from sim.numba_setup import INNER
from sim.traffic.spawning import BICYCLE_KIND, PAINTS
from sim.traffic.vehicles import idm

PEDESTRIAN_KIND = 6
ABSENT, FOLLOWS, DRIVES, GONE = 0, 1, 2, 3
TICK_S = 0.1
PARKED_M = 0.5  # whose path is shorter never hands over
REACH_M = 90.0
LOOK_AHEAD_TICKS = 30
LOOK_EVERY_TICKS = 2
PATH_STEP_M = 0.5
SIDE_MARGIN_M = 0.2
BOLD_GAP_M, BOLD_HEADWAY_S = 1.0, 0.6
BOLD_ACCELERATION_MPS2, BOLD_BRAKE_MPS2 = 2.0, 3.0
WORSE = 1.3  # than in the recording; below it the recording itself is as close
HEADWAY_S = 1.2
WALKER_HEADWAY_S = 0.6
ACCELERATION_MPS2 = 2.0
CATCH_UP_PER_S = 0.5  # of what it is behind its record
CROSSING_MPS = 0.5
_PROFILE, _WALKER_TONE = int(Purpose.PROFILE), int(Purpose.WALKER_TURN)

FOLLOWER = np.dtype([("s", "f8"), ("at", "i4"), ("mode", "i1")], align=True)
"""How far an actor is: s: along its recorded path, m, and at: the last tick of its track before that, both only while it DRIVES.
mode: ABSENT, FOLLOWS its track, DRIVES by itself, or GONE beyond its end."""


class Playback(NamedTuple):
    """The tracks of A actors over T ticks, and the recorded car; agent n + 1 of an environment is actor n. T is 0 without.

    x, y, yaw, speed, acceleration: (A, T) float64, SI. along: (A, T) float64, arc length of its own path, never falling.
    pace: (A, T) float64, the speed to drive at there when handed over, m/s. first, last: (A,) int64 ticks that it is there.
    size: (A, 3) float64 length, width, height. kind: (A,) int8. ego: (T, 4) float64 x, y, yaw, speed of the recorded car;
    ego_size: (2,) length, width. line: (P, 3) float64 x, y, yaw of the route, a metre apart. goal_m: how far along it
    one has to come by the end. curvature: of its path at the first tick, 1/m. route_lane: the lane that is the route.
    reactive: 1 where actors hand over.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    yaw: NDArray[np.float64]
    speed: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    along: NDArray[np.float64]
    pace: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    size: NDArray[np.float64]
    kind: NDArray[np.int8]
    ego: NDArray[np.float64]
    ego_size: NDArray[np.float64]
    line: NDArray[np.float64]
    goal_m: float
    curvature: float
    route_lane: int
    reactive: int


@njit(**INNER)
def _meet(
    x: float, y: float, yaw: float, length: float, width: float,
    other_x: float, other_y: float, other_yaw: float, other_length: float, other_width: float,
) -> bool:  # fmt: skip
    """Whether two boxes (whole sizes, m) overlap, the first one wider by SIDE_MARGIN_M on either side."""
    return boxes_overlap(
        x, y, yaw, 0.5 * length, 0.5 * width + SIDE_MARGIN_M,
        other_x, other_y, other_yaw, 0.5 * other_length, 0.5 * other_width,
    )  # fmt: skip


@njit(**INNER)
def _place(p: Playback, n: int, at: int, s: float) -> tuple[float, float, float, int]:
    """x, y, yaw of actor n at arc length s of its path, and the tick before it, searched onwards from tick `at`."""
    last = p.last[n]
    while at < last - 1 and p.along[n, at + 1] <= s:
        at += 1
    after = min(at + 1, last)
    span = p.along[n, after] - p.along[n, at]
    t = min(max((s - p.along[n, at]) / span, 0.0), 1.0) if span > 1e-9 else 0.0
    turn = wrapped(p.yaw[n, after] - p.yaw[n, at])
    return (
        p.x[n, at] + t * (p.x[n, after] - p.x[n, at]),
        p.y[n, at] + t * (p.y[n, after] - p.y[n, at]),
        p.yaw[n, at] + t * turn,
        at,
    )


@njit(**INNER)
def _queue_gap(
    p: Playback, n: int, me: np.void, at: int, s: float,
    x: float, y: float, yaw: float, speed: float, length: float, width: float,
) -> tuple[float, float]:  # fmt: skip
    """Gap in m along the path of actor n to a box that is on it now, and the box's speed along it; (inf, 0) if it is not.

    Who crosses and will be off the path half a second before the actor comes is not on it. Cost: one overlap for each
    half metre of path.
    """
    horizon = 8.0 + 2.5 * me.speed + 0.25 * me.speed * me.speed
    free = s
    for k in range(at, p.last[n] + 1):
        along = max(p.along[n, k], s)
        if along - s > horizon:
            break
        if k > at and along - free < PATH_STEP_M:
            continue
        px, py, heading = p.x[n, k], p.y[n, k], p.yaw[n, k]
        if k == at:
            px, py, heading = me.x, me.y, me.yaw
        if _meet(px, py, heading, me.length, me.width, x, y, yaw, length, width):
            cos, sin = math.cos(heading), math.sin(heading)
            if (x - px) * cos + (y - py) * sin <= 0.0:
                return np.inf, 0.0
            gap = free - s
            sideways = speed * math.sin(yaw - heading)
            if abs(sideways) > CROSSING_MPS:
                turned = yaw - heading
                half = 0.5 * (abs(math.sin(turned)) * length + abs(math.cos(turned)) * width) + 0.5 * me.width
                left = (y - py) * cos - (x - px) * sin
                away = half - left if sideways > 0.0 else half + left
                if away / abs(sideways) + 0.5 < gap / max(me.speed, 2.0):
                    return np.inf, 0.0
            return gap, speed * math.cos(yaw - heading)
        free = along
    return np.inf, 0.0


@njit(**INNER)
def _crossing_gap(
    p: Playback, n: int, me: np.void, follows: bool, at: int, s: float, tick: int, m: int,
    x: float, y: float, yaw: float, speed: float, turning: float, length: float, width: float,
) -> tuple[float, float]:  # fmt: skip
    """Gap in m to where actor n would run into a box within three seconds if both go on, and its speed along; else (inf, 0).

    The actor goes on as recorded (follows) or at its speed along its path. The other goes on as actor m was recorded, or, with
    m -1, at its speed and rate of turn. Of two who would meet, the one that has the other more in front of it gives way.
    """
    reached, step_at = s, at
    for step in range(LOOK_EVERY_TICKS, LOOK_AHEAD_TICKS + 1, LOOK_EVERY_TICKS):
        if follows:
            k = tick + step
            if k > p.last[n]:
                break
            px, py, heading, along = p.x[n, k], p.y[n, k], p.yaw[n, k], p.along[n, k]
        else:
            along = s + me.speed * TICK_S * step
            if along > p.along[n, p.last[n]]:
                break
            px, py, heading, step_at = _place(p, n, step_at, along)
        if m >= 0:
            k = tick + step
            if k > p.last[m]:
                break
            ox, oy, there = p.x[m, k], p.y[m, k], p.yaw[m, k]
        else:
            there = yaw + turning * TICK_S * step
            middle, way = yaw + 0.5 * turning * TICK_S * step, speed * TICK_S * step
            ox, oy = x + way * math.cos(middle), y + way * math.sin(middle)
        if _meet(px, py, heading, me.length, me.width, ox, oy, there, length, width):
            mine = (ox - px) * math.cos(heading) + (oy - py) * math.sin(heading)
            its = (px - ox) * math.cos(there) + (py - oy) * math.sin(there)
            if mine > 0.0 and mine >= its:
                return max(reached - s, 0.0), max(speed * math.cos(there - heading), 0.0)
            break
        reached = along
    return np.inf, 0.0


@njit(**INNER)
def _pressure(speed: float, gap: float, other_speed: float) -> float:
    """Square of the gap that a bold driver wants over the gap there is: above 1 is closer than that. 0 without anybody."""
    if gap == np.inf:
        return 0.0
    approach = speed * (speed - other_speed) / (2.0 * math.sqrt(BOLD_ACCELERATION_MPS2 * BOLD_BRAKE_MPS2))
    ratio = (BOLD_GAP_M + max(0.0, speed * BOLD_HEADWAY_S + approach)) / max(gap, 0.1)
    return ratio * ratio


@njit(**INNER)
def _hands_over(
    p: Playback, cars: NDArray[np.void], followers: NDArray[np.void], n: int, tick: int, turning: float
) -> bool:
    """Whether actor n, who follows its track, gets too close to somebody who is not where the recording has them."""
    me = cars[n + 1]
    s = p.along[n, tick]
    for j in range(len(cars)):
        if j == n + 1 or cars[j].active == 0 or (j > 0 and followers[j - 1].mode != DRIVES):
            continue
        other = cars[j]
        if (other.x - me.x) ** 2 + (other.y - me.y) ** 2 > REACH_M * REACH_M:
            continue
        turn = turning if j == 0 else 0.0
        gap, along = _queue_gap(
            p, n, me, tick, s, other.x, other.y, other.yaw, other.speed, other.length, other.width
        )  # fmt: skip
        now = _pressure(me.speed, gap, along)
        gap, along = _crossing_gap(
            p, n, me, True, tick, s, tick, -1, other.x, other.y, other.yaw, other.speed, turn, other.length, other.width
        )
        now = max(now, _pressure(me.speed, gap, along))
        if now <= 1.0:
            continue
        length, width = other.length, other.width
        if j == 0:
            x, y, yaw, speed = p.ego[tick, 0], p.ego[tick, 1], p.ego[tick, 2], p.ego[tick, 3]
            length, width = p.ego_size[0], p.ego_size[1]
            before = max(tick - 1, 0)
            turn = wrapped(yaw - p.ego[before, 2]) / TICK_S
        elif tick > p.last[j - 1]:
            return True
        else:
            x, y, yaw, speed = p.x[j - 1, tick], p.y[j - 1, tick], p.yaw[j - 1, tick], p.speed[j - 1, tick]
        gap, along = _queue_gap(p, n, me, tick, s, x, y, yaw, speed, length, width)
        then = _pressure(me.speed, gap, along)
        gap, along = _crossing_gap(p, n, me, True, tick, s, tick, -1, x, y, yaw, speed, turn, length, width)
        then = max(then, _pressure(me.speed, gap, along))
        if now > WORSE * then:
            return True
    return False


@njit(**INNER)
def _acceleration(
    p: Playback, cars: NDArray[np.void], followers: NDArray[np.void], n: int, tick: int, turning: float
) -> float:
    """IDM of actor n, who drives by itself, behind everybody in front of it. m/s2."""
    me, mine = cars[n + 1], followers[n]
    headway = WALKER_HEADWAY_S if me.kind == PEDESTRIAN_KIND else HEADWAY_S
    wanted = p.pace[n, mine.at]
    if tick <= p.last[n]:
        wanted = min(wanted, p.speed[n, tick] + CATCH_UP_PER_S * max(p.along[n, tick] - mine.s, 0.0))
    result = idm(me.speed, wanted, np.inf, 0.0, headway, ACCELERATION_MPS2)
    if p.speed[n, p.last[n]] < PARKED_M:  # its path ends where it stopped
        left = p.along[n, p.last[n]] - mine.s + 2.0
        result = min(result, idm(me.speed, wanted, left, 0.0, 0.5, ACCELERATION_MPS2))
    for j in range(len(cars)):
        if j == n + 1 or cars[j].active == 0:
            continue
        other = cars[j]
        if (other.x - me.x) ** 2 + (other.y - me.y) ** 2 > REACH_M * REACH_M:
            continue
        gap, along = _queue_gap(
            p, n, me, mine.at, mine.s, other.x, other.y, other.yaw, other.speed, other.length, other.width
        )  # fmt: skip
        if gap < np.inf:
            result = min(result, idm(me.speed, wanted, gap, along, headway, ACCELERATION_MPS2))
        m = j - 1 if j > 0 and followers[j - 1].mode == FOLLOWS else -1
        gap, along = _crossing_gap(
            p, n, me, False, mine.at, mine.s, tick, m,
            other.x, other.y, other.yaw, other.speed, turning if j == 0 else 0.0, other.length, other.width,
        )  # fmt: skip
        if gap < np.inf:
            result = min(result, idm(me.speed, wanted, gap, along, headway, ACCELERATION_MPS2))
    return result


@njit(**INNER)
def _appear(p: Playback, car: np.void, n: int) -> None:
    """Put actor n where its track begins."""
    tick = p.first[n]
    car.active, car.kind = 1, p.kind[n]
    car.length, car.width, car.height = p.size[n, 0], p.size[n, 1], p.size[n, 2]
    walks = car.kind == PEDESTRIAN_KIND
    car.front_axle, car.wheelbase = (0.5 * car.length, 0.0) if walks else (0.19 * car.length, 0.6 * car.length)
    car.x, car.y, car.yaw = p.x[n, tick], p.y[n, tick], p.yaw[n, tick]
    car.indicator, car.siren, car.breaks, car.from_lane, car.wait = 0, 0, 0, -1, 0
    car.narrow = 1 if car.kind == BICYCLE_KIND else 0


@njit(**INNER)
def _follow(p: Playback, car: np.void, n: int, tick: int) -> None:
    car.x, car.y, car.yaw = p.x[n, tick], p.y[n, tick], wrapped(p.yaw[n, tick])
    car.speed, car.acceleration = p.speed[n, tick], p.acceleration[n, tick]


@njit(**INNER)
def _drive(p: Playback, car: np.void, mine: np.void, n: int, tick: int) -> None:
    """One tick along its own path with the acceleration that was decided; not ahead of its record, nor beyond its end."""
    faster = max(0.0, car.speed + car.acceleration * TICK_S)
    mine.s += 0.5 * (car.speed + faster) * TICK_S
    car.speed = faster
    if tick <= p.last[n] and mine.s > p.along[n, tick]:
        mine.s, car.speed = p.along[n, tick], min(faster, p.speed[n, tick])
    if mine.s >= p.along[n, p.last[n]]:
        mine.s = p.along[n, p.last[n]]
        if p.speed[n, p.last[n]] >= PARKED_M and tick > p.last[n]:
            mine.mode, car.active = GONE, 0
            return
        if tick > p.last[n]:
            car.speed = 0.0
    x, y, yaw, at = _place(p, n, mine.at, mine.s)
    mine.at = at
    car.x, car.y, car.yaw = x, y, wrapped(yaw)


@njit(**INNER)
def begin_playback(
    p: Playback,
    cars: NDArray[np.void],
    followers: NDArray[np.void],
    paint: NDArray[np.uint8],
    seed: np.uint64,
    episode: int,
) -> None:
    """Puts the actors of the first tick in, and draws the paint of all; the seed decides nothing else."""
    for n in range(len(followers)):
        key = hash_key(seed, episode, 0, n + 1, _WALKER_TONE if p.kind[n] == PEDESTRIAN_KIND else _PROFILE)
        color = int(nth_uniform(key, 5) * len(PAINTS))
        for c in range(3):
            walker = int(40.0 + 190.0 * nth_uniform(key, c))
            paint[n + 1, c] = walker if p.kind[n] == PEDESTRIAN_KIND else PAINTS[color, c]
        followers[n].mode, followers[n].s, followers[n].at = ABSENT, 0.0, 0
        if p.first[n] == 0:
            _appear(p, cars[n + 1], n)
            _follow(p, cars[n + 1], n, 0)
            followers[n].mode = FOLLOWS


@njit(**INNER)
def play_tick(
    p: Playback,
    cars: NDArray[np.void],
    followers: NDArray[np.void],
    turned: NDArray[np.float64],
    tick: int,
    turning: float,
) -> None:
    """Decisions, from the state at the end of the last tick, and motion of all actors to `tick`.

    turned: (1 + A,) float64, the public headings, which who appears has to have had. turning: yaw rate of the ego, rad/s.
    Cost: for each actor near the ego its path ahead in half metres, twice; for each that drives by itself the same for
    everybody around it.
    """
    before = tick - 1
    if p.reactive == 1:
        for n in range(len(followers)):
            mine = followers[n]
            moves = mine.mode == FOLLOWS and p.along[n, p.last[n]] - p.along[n, before] > PARKED_M
            if moves and _hands_over(p, cars, followers, n, before, turning):
                mine.mode, mine.s, mine.at = DRIVES, p.along[n, before], before
        for n in range(len(followers)):
            if followers[n].mode == DRIVES:
                cars[n + 1].acceleration = _acceleration(p, cars, followers, n, before, turning)
    for n in range(len(followers)):
        mine, car = followers[n], cars[n + 1]
        if mine.mode == ABSENT and tick == p.first[n]:
            _appear(p, car, n)
            turned[n + 1] = car.yaw
            mine.mode = FOLLOWS
        if mine.mode == FOLLOWS:
            if tick > p.last[n]:
                mine.mode, car.active = GONE, 0
            else:
                _follow(p, car, n, tick)
        elif mine.mode == DRIVES:
            _drive(p, car, mine, n, tick)
