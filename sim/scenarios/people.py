"""Families with somebody on foot: at a crosswalk, and from behind a parked van.

Knows places and scripts; knows nothing about the world that runs them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from sim.roads.network import LaneKind
from sim.scenarios.ahead import START_M, Share, paint_of
from sim.scenarios.checks import EVERYWHERE, LET_WALK
from sim.scenarios.draws import Draws, Parameters
from sim.scenarios.family import Family
from sim.scenarios.placement import Actor, Placement
from sim.scenarios.places import Places, Turn
from sim.traffic.scripts import EGO_ARRIVES, PEDESTRIAN_KIND
from sim.traffic.spawning import VAN_KIND

TOWNS = ("grid-small", "town", "radial", "grid-large")
BEHIND_KERB_M = 1.2
ONWARD_M = 3.0  # that people walk on behind the other kerb
APPROACH_M = 75.0


@dataclass(frozen=True)
class Crosswalk:
    """A crosswalk without signals on the path of a turn: arc length on its junction lane, and where one waits on each side.

    Of both ends the distance along the crosswalk to the path is given, m.
    """

    turn: Turn
    s_m: float
    ends: tuple[tuple[float, float], tuple[float, float]]
    away_m: tuple[float, float]


def _crosswalks(places: Places) -> list[Crosswalk]:
    network = places.network
    crossings = [int(k) for k in np.flatnonzero(network.lane_kind == LaneKind.CROSSING)]
    found = []
    for turn in places.turns:
        if places.length(turn.approach) < 60.0 or places.link(turn.through) >= 0:
            continue
        path, step = places.line(turn.through), float(network.lane_step_m[turn.through])
        for k in crossings:
            if network.lane_signal_link[k] >= 0:
                continue
            line = places.line(k)
            away = np.hypot(*(path[:, None] - line[None]).transpose(2, 0, 1))
            i, j = np.unravel_index(int(np.argmin(away)), away.shape)
            if away[i, j] > 0.8 or i * step > 0.5 * len(path) * step:  # those behind the junction are left to chance
                continue
            first, last = line[0] - line[1], line[-1] - line[-2]
            a = line[0] + BEHIND_KERB_M * first / np.hypot(*first)
            b = line[-1] + BEHIND_KERB_M * last / np.hypot(*last)
            ends = ((float(a[0]), float(a[1])), (float(b[0]), float(b[1])))
            reach = (float(np.hypot(*(a - line[j]))), float(np.hypot(*(b - line[j]))))
            found.append(Crosswalk(turn, float(i) * step, ends, reach))
    return found


class CrosswalkParameters(Parameters):
    start_share: Share
    pace_mps: float = Field(ge=1.1, le=1.9, description="of the one who crosses")
    late_s: float = Field(ge=-0.6, le=0.6, description="after the ego would be there that somebody reaches its path")
    people: int = Field(ge=1, le=3, description="how many cross together")
    side: int = Field(ge=0, le=1, description="from which end of the crosswalk")


def _place_crosswalk(places: Places, site: Crosswalk, p: CrosswalkParameters, draws: Draws) -> Placement | None:
    turn = site.turn
    offset = max(places.length(turn.approach) - APPROACH_M, START_M)
    at = places.length(turn.approach) - offset + site.s_m
    found = places.route([turn.approach, turn.through, turn.exit], offset, at + 45.0, draws)
    if found is None:
        return None
    lanes, length = found
    start, goal = site.ends[p.side], site.ends[1 - p.side]
    yaw = math.atan2(goal[1] - start[1], goal[0] - start[0])
    needs_s = (site.away_m[p.side] - 0.9) / p.pace_mps
    actors = []
    for k in range(p.people):
        aside, back = 0.75 * (k - 0.5 * (p.people - 1)), 0.35 * k
        dx, dy = -aside * math.sin(yaw) - back * math.cos(yaw), aside * math.cos(yaw) - back * math.sin(yaw)
        actors.append(
            Actor(
                f"walker {k}", PEDESTRIAN_KIND, x_m=start[0] + dx, y_m=start[1] + dy, yaw_rad=yaw, size=draws.share(),
                paint=paint_of(draws), trigger=EGO_ARRIVES, at_m=at, threshold=max(needs_s - p.late_s, 1.6),
                speed_acting_mps=p.pace_mps, rate_mps2=4.0,
                goal_m=(goal[0] + dx + ONWARD_M * math.cos(yaw), goal[1] + dy + ONWARD_M * math.sin(yaw)),
            )
        )  # fmt: skip
    x, y, _ = places.pose(turn.through, site.s_m)
    speed = p.start_share * places.limit(turn.approach)
    return Placement(lanes, offset, length, speed, tuple(actors), clear=(x, y, 75.0))


PEDESTRIAN_CROSSING = Family(
    "pedestrian_crossing", 11, "People at a crosswalk", "People step onto a crosswalk without signals as the ego comes.",
    TOWNS, CrosswalkParameters, _crosswalks, _place_crosswalk, (*EVERYWHERE, LET_WALK), 3,
)  # fmt: skip


class OccludedParameters(Parameters):
    start_share: Share
    van_m: float = Field(ge=42.0, le=58.0, description="from the ego's start to the van")
    pace_mps: float = Field(ge=1.4, le=2.4, description="of the one who steps out")
    warning_s: float = Field(ge=1.7, le=2.3, description="before the ego would be there that somebody steps out")


def _streets(places: Places) -> list[int]:
    return [
        k
        for k in places.roads
        if places.length(k) >= 85.0 and places.right(k) < 0 and places.bend(k, 0.0, 80.0) < 0.4
        and k not in places.rings and places.successors(k)
    ]  # fmt: skip


def _place_occluded(places: Places, lane: int, p: OccludedParameters, draws: Draws) -> Placement | None:
    found = places.route([lane], START_M, p.van_m + 70.0, draws)
    if found is None:
        return None
    lanes, length = found
    half, at = 0.5 * float(places.network.lane_width_m[lane]), START_M + p.van_m
    x, y, yaw = places.pose(lane, at, -half - 0.95)
    if not all(places.is_clear(*places.pose(lane, at + k, -half - 0.95)[:2], 1.3) for k in (-2.2, 0.0, 2.2)):
        return None
    van = Actor("van", VAN_KIND, x_m=x, y_m=y, yaw_rad=yaw, size=1.0, paint=paint_of(draws))
    front = at + 3.0 + 0.7
    x, y, _ = places.pose(lane, front, -half - 0.7)
    goal = places.pose(lane, front, half + 5.0)
    walker = Actor(
        "walker", PEDESTRIAN_KIND, x_m=x, y_m=y, yaw_rad=yaw + math.pi / 2, size=draws.share(), paint=paint_of(draws),
        trigger=EGO_ARRIVES, at_m=front - START_M, threshold=p.warning_s, speed_acting_mps=p.pace_mps, rate_mps2=6.0,
        goal_m=(goal[0], goal[1]),
    )  # fmt: skip
    speed = p.start_share * places.limit(lane)
    return Placement(lanes, START_M, length, speed, (van, walker), clear=(x, y, 65.0))


OCCLUDED_PEDESTRIAN = Family(
    "occluded_pedestrian", 12, "A pedestrian from behind a parked van",
    "Somebody steps into the road from in front of a van that hides them.",
    TOWNS, OccludedParameters, _streets, _place_occluded, (*EVERYWHERE, LET_WALK), 2,
)  # fmt: skip
