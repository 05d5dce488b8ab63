"""Where on a map scenarios can take place: streets, neighbours, oncoming lanes, turns at junctions, roundabouts, signals.

Knows `RoadNetwork`; knows nothing about traffic, scripts or what happens at a place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planning.policy import SignalState
from sim.dynamics import SEDAN
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.scenarios.draws import Draws
from sim.solids import Boxes

TURN_BACK = 2
GOAL_MARGIN_M = 12.0
BEYOND_GOAL_M = 90.0
LONGEST_RING_M = 220.0
LONGEST_RING_LANE_M = 70.0
SIGNAL_STEP_S = 0.5
SHIFTS = 300  # of signal programs that are tried, SIGNAL_STEP_S apart
LONGEST_LOOK = 120  # such steps of an episode


@dataclass(frozen=True)
class Turn:
    """One way through a junction: the lane that comes to it, the junction lane, the lane that leaves it."""

    approach: int
    through: int
    exit: int


@dataclass(frozen=True)
class Meeting:
    """Where the path of a turn meets that of another: arc lengths along both junction lanes at which they come together."""

    mine: Turn
    other: Turn
    enter_m: float
    other_enter_m: float


def _endless(network: RoadNetwork, driving: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(L,) bool, lanes from which one can drive on for ever without turning back; all driving lanes where there are none."""
    alive = driving & (network.lane_turn != TURN_BACK)
    while True:
        onward = np.zeros(network.num_lanes, np.bool_)
        for k in np.flatnonzero(alive):
            row = network.successor[network.successor_start[k] : network.successor_start[k + 1]]
            onward[k] = bool(alive[row].any())
        if (onward == alive).all():
            return alive if alive.any() else driving
        alive = onward


class Places:
    """Looks up what a road network offers. Lane numbers are those of the network.

    ego_half_m: half the length of the ego's box.
    """

    def __init__(self, network: RoadNetwork, scenery: Boxes, ego_half_m: float = 0.5 * SEDAN.length) -> None:
        self.network, self.ego_half_m = network, ego_half_m
        low = scenery.center[:, 2] - scenery.half_size[:, 2] < 2.0
        self._solid_at = scenery.center[low, :2]
        self._solid_reach = np.hypot(*scenery.half_size[low, :2].T)
        driving = network.lane_kind == LaneKind.DRIVING
        self._endless = _endless(network, driving)
        self.roads = [int(k) for k in np.flatnonzero(driving & (network.lane_junction < 0)) if self._endless[k]]

    def length(self, lane: int) -> float:
        return float(self.network.lane_length_m[lane])

    def limit(self, lane: int) -> float:
        return float(self.network.lane_limit_mps[lane])

    def left(self, lane: int) -> int:
        return int(self.network.lane_left[lane])

    def right(self, lane: int) -> int:
        return int(self.network.lane_right[lane])

    def is_road(self, lane: int) -> bool:
        return bool(self.network.lane_junction[lane] < 0)

    def successors(self, lane: int) -> list[int]:
        """Lanes that follow, without turning back and dead ends where there is a choice."""
        n = self.network
        row = [int(k) for k in n.successor[n.successor_start[lane] : n.successor_start[lane + 1]]]
        row = [k for k in row if n.lane_kind[k] == LaneKind.DRIVING]
        ahead = [k for k in row if n.lane_turn[k] != TURN_BACK] or row
        return [k for k in ahead if self._endless[k]] or ahead

    def predecessors(self, lane: int) -> list[int]:
        n = self.network
        row = [int(k) for k in n.predecessor[n.predecessor_start[lane] : n.predecessor_start[lane + 1]]]
        return [k for k in row if n.lane_kind[k] == LaneKind.DRIVING and n.lane_turn[k] != TURN_BACK]

    def line(self, lane: int) -> NDArray[np.float64]:
        """(N, 2) points of a lane's centre line."""
        part = slice(self.network.point_start[lane], self.network.point_start[lane + 1])
        return np.column_stack([self.network.point_x[part], self.network.point_y[part]])

    def pose(self, lane: int, s_m: float, left_m: float = 0.0) -> tuple[float, float, float]:
        """x, y, yaw at an arc length, left_m beside the centre line."""
        line, step = self.line(lane), float(self.network.lane_step_m[lane])
        i = min(max(int(s_m / step), 0), len(line) - 2)
        (dx, dy), t = line[i + 1] - line[i], s_m / step - i
        yaw = math.atan2(dy, dx)
        x, y = line[i] + t * (line[i + 1] - line[i])
        return float(x - left_m * math.sin(yaw)), float(y + left_m * math.cos(yaw)), yaw

    def bend(self, lane: int, from_m: float, to_m: float) -> float:
        """By how much a lane turns between two arc lengths, rad, the largest difference of headings."""
        n = self.network
        step = float(n.lane_step_m[lane])
        first, last = int(n.point_start[lane]), int(n.point_start[lane + 1])
        yaw = np.unwrap(n.point_yaw[first:last])[max(int(from_m / step), 0) : int(to_m / step) + 1]
        return float(np.ptp(yaw)) if len(yaw) else 0.0

    def place_on(self, lane: int, x: float, y: float) -> tuple[float, float]:
        """Arc length of the lane's point nearest to a place, and the distance to it, m."""
        away = np.hypot(*(self.line(lane) - (x, y)).T)
        return float(np.argmin(away)) * float(self.network.lane_step_m[lane]), float(away.min())

    def is_clear(self, x: float, y: float, reach_m: float) -> bool:
        """Whether nothing stands within a distance of a place: trees, lamps, parked cars, buildings (by their circumcircles)."""
        away = np.hypot(*(self._solid_at - (x, y)).T) - self._solid_reach
        return bool(away.min(initial=np.inf) > reach_m)

    @cached_property
    def _oncoming(self) -> dict[int, int]:
        middles = {k: self.pose(k, 0.5 * self.length(k)) for k in self.roads}
        found = {}
        n = self.network
        lane_of = np.repeat(np.arange(n.num_lanes), np.diff(n.point_start))
        mine = np.isin(lane_of, self.roads)
        x, y, yaw, lanes = n.point_x[mine], n.point_y[mine], n.point_yaw[mine], lane_of[mine]
        for k in self.roads:
            if n.lane_left[k] >= 0:
                continue
            mx, my, myaw = middles[k]
            width = float(n.lane_width_m[k])
            px, py = mx - width * math.sin(myaw), my + width * math.cos(myaw)
            against = np.cos(yaw - myaw) < -0.9
            away = np.where(against, np.hypot(x - px, y - py), np.inf)
            if away.min() < 1.5:
                found[k] = int(lanes[int(np.argmin(away))])
        return found

    def oncoming(self, lane: int) -> int:
        """The lane beside this one in the other direction, or -1 (one-way streets, lanes further right)."""
        return self._oncoming.get(lane, -1)

    @cached_property
    def turns(self) -> list[Turn]:
        """All ways through junctions from one road lane to another."""
        found = []
        for approach in self.roads:
            for through in self.successors(approach):
                exits = self.successors(through)
                if not self.is_road(through) and exits and self.is_road(exits[0]):
                    found.append(Turn(approach, through, exits[0]))
        return found

    def turn_of(self, through: int) -> int:
        """-1 right, 0 straight, 1 left."""
        return int(self.network.lane_turn[through])

    def control(self, through: int) -> LaneControl:
        return LaneControl(int(self.network.lane_control[through]))

    def link(self, through: int) -> int:
        return int(self.network.lane_signal_link[through])

    @cached_property
    def meetings(self) -> list[Meeting]:
        """All pairs of ways through a junction that cross or merge, seen from the one that has to give way."""
        n = self.network
        by_lane = {turn.through: turn for turn in self.turns}
        found = []
        for turn in self.turns:
            for q in range(n.conflict_start[turn.through], n.conflict_start[turn.through + 1]):
                other = by_lane.get(int(n.conflict_lane[q]))
                if other is None or not n.conflict_yields[q] or other.approach == turn.approach:
                    continue
                rows = range(n.conflict_start[other.through], n.conflict_start[other.through + 1])
                twin = [r for r in rows if n.conflict_lane[r] == turn.through]
                if twin:
                    enter, its = float(n.conflict_enter_m[q]), float(n.conflict_enter_m[twin[0]])
                    found.append(Meeting(turn, other, enter, its))
        return found

    def approach_yaw(self, turn: Turn) -> float:
        return self.pose(turn.approach, self.length(turn.approach))[2]

    @cached_property
    def rings(self) -> frozenset[int]:
        """Lanes of roundabouts: short ones from which one comes back to the same lane by turning left all the way."""
        found: set[int] = set()
        for start in self.roads:
            if start in found or self.length(start) > LONGEST_RING_LANE_M:
                continue
            found.update(self._ring_from(start))
        return frozenset(found)

    def _ring_from(self, start: int) -> list[int]:
        waiting = [(start, [start], self.length(start), self._turning(start))]
        while waiting:
            lane, way, metres, turned = waiting.pop()
            for onward in self.successors(lane):
                total, angle = metres + self.length(onward), turned + self._turning(onward)
                if onward == start and 4.7 < turned < 7.1:
                    return [k for k in way if self.is_road(k)]
                if onward in way or total > LONGEST_RING_M or self.length(onward) > LONGEST_RING_LANE_M or angle < -0.5:
                    continue
                waiting.append((onward, [*way, onward], total, angle))
        return []

    def _turning(self, lane: int) -> float:
        n = self.network
        yaw = np.unwrap(n.point_yaw[n.point_start[lane] : n.point_start[lane + 1]])
        return float(yaw[-1] - yaw[0])

    def extended(self, lanes: Sequence[int], metres: float, draws: Draws) -> list[int]:
        """The lanes, and those that follow at random until they are so long in all; no lane twice where that can be helped."""
        way = list(lanes)
        total = sum(self.length(k) for k in way)
        while total < metres:
            onward = self.successors(way[-1])
            if not onward:
                break
            fresh = [k for k in onward if k not in way]
            leading = [k for k in fresh if self.successors(k)] or fresh or onward
            way.append(draws.choice(leading))
            total += self.length(way[-1])
        return way

    def route(
        self, core: Sequence[int], offset_m: float, goal_m: float, draws: Draws
    ) -> tuple[tuple[int, ...], float] | None:
        """Lanes over `core` and on, and the length of a route whose goal is goal_m or a little further from offset_m.

        The goal is outside junctions. None where the map ends before.
        """
        lanes = self.extended(core, offset_m + goal_m + BEYOND_GOAL_M + 60.0, draws)
        end, length = 0.0, -1.0
        for lane in lanes:
            begin, end = end, end + self.length(lane)
            last = end - GOAL_MARGIN_M
            if self.is_road(lane) and last >= offset_m + goal_m and last >= begin + 5.0:
                length = max(offset_m + goal_m, begin + 5.0) - offset_m
                break
        if length < 0.0 or sum(self.length(k) for k in lanes) < offset_m + length + 20.0:
            return None
        return tuple(lanes), length

    @cached_property
    def _timelines(self) -> dict[int, NDArray[np.int8]]:
        return {}

    def timeline(self, link: int) -> NDArray[np.int8]:
        """What a signal link shows every SIGNAL_STEP_S from time 0 of its program on, `SignalState`."""
        if link not in self._timelines:
            n = self.network
            signal = int(np.searchsorted(n.signal_start, link, side="right")) - 1
            first, last = int(n.phase_start[signal]), int(n.phase_start[signal + 1])
            ends = np.cumsum(np.round(n.phase_duration_s[first:last] * 1000.0).astype(np.int64))
            shown = np.zeros(SHIFTS + LONGEST_LOOK, np.int8)
            if last > first and ends[-1] > 0:
                times = np.arange(len(shown)) * round(1000 * SIGNAL_STEP_S)
                at = (times - round(float(n.signal_offset_s[signal]) * 1000.0)) % ends[-1]
                phase = first + np.searchsorted(ends, at, side="right")
                shown = n.phase_state[phase, link - int(n.signal_start[signal])]
            self._timelines[link] = shown
        return self._timelines[link]

    def shift_for(self, wanted: Sequence[tuple[int, float, float, SignalState]], draws: Draws) -> int | None:
        """A shift of signal programs, ms, with which each link shows a state from one time of the episode to another, s.

        Times are kept to within SIGNAL_STEP_S. None where no shift does.
        """
        fits = np.ones(SHIFTS, np.bool_)
        for link, begin, end, state in wanted:
            shows = self.timeline(link) == state
            for k in range(int(begin / SIGNAL_STEP_S), min(math.ceil(end / SIGNAL_STEP_S), LONGEST_LOOK - 1) + 1):
                fits &= shows[k : k + SHIFTS]
        fitting = np.flatnonzero(fits)
        return None if len(fitting) == 0 else draws.choice(fitting.tolist()) * round(1000 * SIGNAL_STEP_S)
