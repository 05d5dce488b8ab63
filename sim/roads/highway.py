"""The plan of a town along a highway: two carriageways with ramps, streets on either side that lead from one end to the other.

Knows plans of towns; knows nothing about netconvert, ground or traffic. The world is flat, so nothing crosses the highway: each
carriageway has its ramps on its own side, and who wants to turn back does so at one of the ends.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.roads.polyline import arc_lengths, headings
from sim.roads.town_plan import Place, Street, Town, Way, rounded

F64 = NDArray[np.float64]

LIMITS_MPS = (100 / 3.6, 120 / 3.6)
SLOWING_MPS = 80 / 3.6  # towards an end, and on lanes that lead off
APPROACH_MPS = 60 / 3.6
RAMP_MPS = (60 / 3.6, 40 / 3.6)  # beside the highway, beside the street
STREET_MPS, BLOCK_MPS = 50 / 3.6, 30 / 3.6
HIGHWAY_LANE_M, RAMP_LANE_M = 3.75, 4.5
MEDIAN_M = 2.2  # from the middle to the left edge of a carriageway
MEDIAN_OPENS_M = 110.0
WIDENS_M, MERGES_M = 50.0, 70.0  # in which a lane begins and ends
GORE_M = 8.0  # in which a ramp leaves or joins
JOINT_M = 1.5
SLOWING_LANE_M = 130.0
MERGING_LANE_M = 230.0
RAMP_M = 170.0  # along the highway
APPROACH_M = 110.0
BLOCK_DEPTH_M = 80.0
SPACING_M = 3.0
HIGHWAY_RANK, RAMP_RANK, STREET_RANK, BLOCK_RANK = 8, 2, 3, 1


@dataclass(frozen=True)
class _Side:
    """One carriageway's view of the highway. middle: (N, 2) metres, its middle line in the direction of travel.

    highway, street: first numbers of the places on it, and on the street beside it.
    """

    middle: F64
    highway: int
    street: int

    @property
    def length_m(self) -> float:
        return float(arc_lengths(self.middle)[-1])

    def median(self, s: F64) -> F64:
        """Half the width of the median: none at the ends, where both carriageways become one street."""
        share = np.clip(np.minimum(s, self.length_m - s) / MEDIAN_OPENS_M, 0.0, 1.0)
        return np.asarray(MEDIAN_M * share * share * (3.0 - 2.0 * share))

    def line(self, begin_m: float, end_m: float, right_m: float | None = None) -> F64:
        """Points from one arc length to another, so far right of the middle, or at the left edge of the carriageway."""
        s = np.linspace(begin_m, end_m, max(2, round(abs(end_m - begin_m) / SPACING_M) + 1))
        lengths, yaw = arc_lengths(self.middle), headings(self.middle)
        x, y, turn = (np.interp(s, lengths, values) for values in (self.middle[:, 0], self.middle[:, 1], yaw))
        right = self.median(s) if right_m is None else np.full(len(s), right_m)
        return np.stack([x + right * np.sin(turn), y - right * np.cos(turn)], axis=1)

    def at(self, s_m: float, right_m: float | None = None) -> F64:
        return np.asarray(self.line(s_m, s_m + 0.01, right_m)[0])

    def ahead(self, s_m: float) -> F64:
        """(2,) unit vector along the highway."""
        step = self.at(s_m + 1.0, 0.0) - self.at(s_m - 1.0, 0.0)
        return np.asarray(step / np.hypot(*step))

    def outline(self, begin_m: float, end_m: float, lanes: tuple[int, int]) -> F64:
        """Corners of a piece of the carriageway that has so many lanes where it begins and where it ends."""
        widths = [lanes[k] * HIGHWAY_LANE_M + 0.3 for k in (0, 1)]
        left, right = [], []
        for share in np.linspace(0.0, 1.0, 9):
            s = begin_m + share * (end_m - begin_m)
            edge = float(self.median(np.array([s]))[0])
            left.append(self.at(s, edge - 0.3))
            right.append(self.at(s, edge + widths[0] + share * (widths[1] - widths[0])))
        return np.array([*left, *right[::-1]])


def highway_town(rng: random.Random) -> Town:
    """A winding highway of two or three lanes a direction, 1.5 km long, with one exit and one entry on either side.

    It ends at signals; from there streets lead along it, past its ramps, with a block of houses behind.
    """
    lanes, limit_mps = rng.choice((2, 3)), rng.choice(LIMITS_MPS)
    x = np.arange(0.0, rng.uniform(1500.0, 1560.0), SPACING_M)
    swings = ((rng.uniform(18.0, 40.0) * rng.choice((-1.0, 1.0)), 1), (rng.uniform(-8.0, 8.0), 2))
    y = sum((a * (1.0 - np.cos(2.0 * math.pi * k * x / x[-1])) / 2.0 for a, k in swings), np.zeros(len(x)))
    middle = np.stack([x, y], axis=1)
    east, west = _Side(middle, 7, 18), _Side(np.ascontiguousarray(middle[::-1]), 22, 13)
    ends, signals = ((4, 0), (4, 1)), ((0, 0), (0, 1))
    town = Town({ends[0]: middle[0], ends[1]: middle[-1]})
    approaches = []
    for end, signal, side in zip(ends, signals, (west, east), strict=True):
        away = side.ahead(side.length_m - 2.0)
        town.place[signal] = town.place[end] + APPROACH_M * away
        line = np.linspace(town.place[end], town.place[signal], 40)
        approach = Street(end, signal, line, lanes, APPROACH_MPS, HIGHWAY_RANK, lane_width_m=HIGHWAY_LANE_M, fast=True)
        approaches.append(approach)
        left = np.array([-away[1], away[0]]) * (lanes * HIGHWAY_LANE_M + 0.3)
        corners = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))
        town.outline[end] = np.array([town.place[end] + a * JOINT_M * away + b * left for a, b in corners])
        town.control[end], town.control[signal] = "priority", "traffic_light"
    town.streets += approaches
    for side, (first, last) in ((east, (0, 1)), (west, (1, 0))):
        pieces, ramps = _carriageway(rng, town, side, (ends[first], ends[last]), lanes, limit_mps)
        _connect(town, pieces, ramps, (approaches[first], approaches[last]), lanes)
        feet = (ramps[1].end, ramps[2].start)
        _streets(rng, town, side, feet, (signals[first], signals[last]), lanes - 1)
    return town


def _carriageway(
    rng: random.Random, town: Town, side: _Side, ends: tuple[Place, Place], lanes: int, limit_mps: float
) -> tuple[list[Street], list[Street]]:
    """One direction: six pieces, between which a lane begins, leaves, joins and ends and the limit falls; and its ramps."""
    exit_m = rng.uniform(300.0, 340.0)
    off_m = exit_m + SLOWING_LANE_M
    on_m = off_m + 2.0 * RAMP_M + rng.uniform(95.0, 115.0)
    merge_m = on_m + MERGING_LANE_M
    slow_m = side.length_m - rng.uniform(215.0, 245.0)
    stations = (exit_m, off_m, on_m, merge_m, slow_m)
    places = [ends[0], *((side.highway, k) for k in range(5)), ends[1]]
    for place, station in zip(places[1:-1], stations, strict=True):
        town.place[place], town.control[place] = side.at(station), "priority"
    one_more = lanes + 1
    town.outline[places[1]] = side.outline(exit_m - JOINT_M, exit_m + WIDENS_M, (lanes, one_more))
    town.outline[places[2]] = side.outline(off_m - JOINT_M, off_m + GORE_M, (one_more, one_more))
    town.outline[places[3]] = side.outline(on_m - GORE_M, on_m + JOINT_M, (one_more, one_more))
    town.outline[places[4]] = side.outline(merge_m - MERGES_M, merge_m + JOINT_M, (one_more, lanes))
    town.outline[places[5]] = side.outline(slow_m - JOINT_M, slow_m + JOINT_M, (lanes, lanes))
    bounds = (0.0, *stations, side.length_m)
    pieces = [
        Street(
            places[k], places[k + 1], side.line(bounds[k], bounds[k + 1]), lanes + (k in (1, 3)),
            SLOWING_MPS if k == 5 else limit_mps, HIGHWAY_RANK, True, HIGHWAY_LANE_M, fast=True, right_of_line=True,
            outer_limit_mps=SLOWING_MPS if k == 1 else 0.0, keeps_out=k == 3,
        )
        for k in range(6)
    ]  # fmt: skip
    town.streets += pieces
    beside_m = MEDIAN_M + (lanes + 0.5) * HIGHWAY_LANE_M
    distance_m = rng.uniform(100.0, 112.0)
    ramps = _ramp(town, side, off_m, places[2], 1.0, beside_m, distance_m)
    ramps += _ramp(town, side, on_m, places[3], -1.0, beside_m, distance_m)
    return pieces, ramps


def _ramp(
    town: Town, side: _Side, station_m: float, place: Place, way: float, beside_m: float, distance_m: float
) -> list[Street]:
    """The two pieces of the way off (way 1) or on (way -1): from beside the highway, in a curve, straight to the street."""
    foot_m = station_m + way * RAMP_M
    near, foot = side.at(station_m, beside_m), side.at(foot_m, distance_m)
    p1 = near + way * 0.68 * RAMP_M * side.ahead(station_m)
    p2 = foot + 6.0 * (side.at(foot_m, distance_m - 10.0) - foot)
    t = np.linspace(0.0, 1.0, 97)[:, None]
    line = (1 - t) ** 3 * near + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * foot
    number = 0 if way > 0 else 1
    middle, street = (side.highway, 7 + number), (side.street, number)
    half = len(line) // 2
    town.place[middle], town.place[street] = line[half], foot
    town.control[middle], town.corner_m[middle] = "priority", 1.0
    parts = [(place, middle, line[: half + 1], RAMP_MPS[0]), (middle, street, line[half:], RAMP_MPS[1])]
    if way < 0:
        parts = [(end, start, points[::-1], limit) for start, end, points, limit in parts[::-1]]
    ramp = [Street(a, b, points, 1, limit, RAMP_RANK, True, RAMP_LANE_M, fast=True) for a, b, points, limit in parts]
    town.streets += ramp
    return ramp


def _connect(
    town: Town, pieces: list[Street], ramps: list[Street], approaches: tuple[Street, Street], lanes: int
) -> None:
    """Which lane leads to which: those of the highway straight on, the outermost off, on, and at last into its neighbour."""
    off, on = ramps[0], ramps[3]
    for k in range(lanes):
        town.ways += [
            Way(approaches[0], k, pieces[0], k), Way(pieces[0], k, pieces[1], k + 1), Way(pieces[1], k + 1, pieces[2], k),
            Way(pieces[2], k, pieces[3], k + 1), Way(pieces[3], k + 1, pieces[4], k), Way(pieces[4], k, pieces[5], k),
            Way(pieces[5], k, approaches[1], k),
        ]  # fmt: skip
    town.ways += [
        Way(pieces[0], 0, pieces[1], 0), Way(pieces[1], 0, off, 0), Way(on, 0, pieces[3], 0), Way(pieces[3], 0, pieces[4], 0),
    ]  # fmt: skip


def _streets(
    rng: random.Random,
    town: Town,
    side: _Side,
    feet: tuple[Place, Place],
    signals: tuple[Place, Place],
    lanes: int,
) -> None:
    """The street along one side, from signal to signal past the ends of both ramps, and a block behind these."""
    s, away = [], []
    for foot in feet:
        gaps = np.hypot(*(side.middle - town.place[foot]).T)
        s.append(float(arc_lengths(side.middle)[np.argmin(gaps)]))
        away.append(float(gaps.min()))
    distance = away[0]
    corners = []
    for signal, at in zip(signals, (2.0, side.length_m - 2.0), strict=True):
        ahead = side.ahead(at)
        corners.append(town.place[signal] + distance * np.array([ahead[1], -ahead[0]]))
    first = np.concatenate([corners[0][None], side.line(0.0, s[0] - SPACING_M, distance), town.place[feet[0]][None]])
    between = np.concatenate(
        [
            town.place[feet[0]][None],
            side.line(s[0] + SPACING_M, s[1] - SPACING_M, distance),
            town.place[feet[1]][None],
        ]
    )
    last = np.concatenate(
        [town.place[feet[1]][None], side.line(s[1] + SPACING_M, side.length_m, distance), corners[1][None]]
    )
    down = np.linspace(town.place[signals[0]], corners[0], 40)
    up = np.linspace(corners[1], town.place[signals[1]], 40)
    town.streets += [
        Street(signals[0], feet[0], rounded(down, first), lanes, STREET_MPS, STREET_RANK),
        Street(feet[0], feet[1], between, lanes, STREET_MPS, STREET_RANK),
        Street(feet[1], signals[1], rounded(last, up), lanes, STREET_MPS, STREET_RANK),
    ]
    back = side.line(s[0], s[1], distance + BLOCK_DEPTH_M)
    out, home = np.linspace(town.place[feet[0]], back[0], 40), np.linspace(back[-1], town.place[feet[1]], 40)
    town.streets.append(Street(feet[0], feet[1], rounded(rounded(out, back), home), 1, BLOCK_MPS, BLOCK_RANK))
    for foot in feet:
        town.control[foot] = "traffic_light" if rng.random() < 0.4 else "priority"
