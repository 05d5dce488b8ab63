"""Families with something in the way: blocked lane, road works, cyclist, and somebody who overtakes towards the ego.

Knows places and scripts; knows nothing about the world that runs them. All take place on one street; the ego begins on it.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from sim.scenarios.ahead import START_M, Share, paint_of
from sim.scenarios.checks import EVERYWHERE, KEPT_SIDE_GAP, PASSED
from sim.scenarios.draws import Draws, Parameters
from sim.scenarios.family import Family
from sim.scenarios.placement import Actor, Placement
from sim.scenarios.places import Places
from sim.traffic.scripts import (
    BARRIER_KIND,
    CONE_KIND,
    EGO_ARRIVES,
    EGO_WITHIN,
    IGNORES_EGO,
    IGNORES_LEADER,
    MEETS_EGO,
)
from sim.traffic.spawning import BICYCLE_KIND, BICYCLE_OFFSET_M, CAR_KIND, TRUCK_KIND, VAN_KIND

TOWNS = ("town", "grid-small", "grid-large")


def _two_way(least_m: float, most_bend: float) -> Callable[[Places], list[tuple[int, int]]]:
    """Streets with one lane each way of at least that length: (lane, oncoming lane)."""

    def sites(places: Places) -> list[tuple[int, int]]:
        found = []
        for k in places.roads:
            other = places.oncoming(k)
            single = places.right(k) < 0 and other >= 0 and places.right(other) < 0
            straight = places.length(k) >= least_m and places.bend(k, 0.0, min(places.length(k), 130.0)) < most_bend
            if single and straight and places.successors(k) and k not in places.rings:
                found.append((k, other))
        return found

    return sites


def _oncoming(
    places: Places, lane: int, other: int, at_m: float, count: int, space_m: float, speed: float, draws: Draws
) -> list[Actor]:
    """Vehicles on the oncoming lane, the first of which comes to the place beside arc length at_m when the ego does."""
    x, y, _ = places.pose(lane, at_m)
    there, _ = places.place_on(other, x, y)
    room = (count - 1) * (space_m + 5.0)
    first = min(max(there - 75.0, 12.0 + room), there - 25.0)
    actors = []
    for k in range(count):
        s = first - k * (space_m + 5.0)
        if s < 6.0 or there - s < 20.0:
            break
        kind = draws.choice((CAR_KIND, CAR_KIND, VAN_KIND, TRUCK_KIND)) if k == 0 else CAR_KIND
        actors.append(
            Actor(
                f"oncoming {k}", kind, path=(other,), s_m=s, speed_mps=0.8 * speed, paint=paint_of(draws),
                size=draws.share(), pace=MEETS_EGO, at_m=at_m - START_M, left_m=there - s, speed_before_mps=speed,
                trigger=EGO_ARRIVES, threshold=2.0,
            )
        )  # fmt: skip
    return actors


class BlockedLaneParameters(Parameters):
    start_share: Share
    obstacle_m: float = Field(ge=55.0, le=66.0, description="from the ego's start to what stands in the lane")
    kind: int = Field(ge=0, le=2, description="0 a car, 1 a van, 2 a lorry has broken down")
    oncoming: int = Field(ge=1, le=3, description="vehicles that come towards the ego; fewer where their lane is short")
    space_m: float = Field(ge=6.0, le=16.0, description="between them")
    aside_m: float = Field(ge=-0.5, le=0.1, description="of what stands from the lane's middle, left positive")


def _place_blocked(places: Places, site: tuple[int, int], p: BlockedLaneParameters, draws: Draws) -> Placement | None:
    lane, other = site
    at = START_M + p.obstacle_m
    found = places.route([lane], START_M, p.obstacle_m + 55.0, draws)
    if found is None or at + 34.0 > places.length(lane):
        return None
    lanes, length = found
    kind = (CAR_KIND, VAN_KIND, TRUCK_KIND)[p.kind]
    half = (2.2, 2.8, 3.9)[p.kind]
    x, y, yaw = places.pose(lane, at + half, p.aside_m)
    broken = Actor("broken down", kind, x_m=x, y_m=y, yaw_rad=yaw, paint=paint_of(draws))
    speed = 0.8 * places.limit(other)
    actors = (broken, *_oncoming(places, lane, other, at, p.oncoming, p.space_m, speed, draws))
    return Placement(
        lanes, START_M, length, p.start_share * places.limit(lane), actors, clear=(x, y, 85.0),
        cross=(p.obstacle_m - 35.0, p.obstacle_m + 2 * half + 35.0),
        marks={"passed_m": p.obstacle_m + 2 * half + 4.0}, given={"oncoming": len(actors) - 1},
    )  # fmt: skip


BLOCKED_LANE = Family(
    "blocked_lane", 7, "A broken-down vehicle blocks the lane",
    "It can only be passed on the oncoming lane, where others come.",
    TOWNS, BlockedLaneParameters, _two_way(105.0, 0.5), _place_blocked, (*EVERYWHERE, PASSED), 4,
)  # fmt: skip


class RoadWorksParameters(Parameters):
    start_share: Share
    obstacle_m: float = Field(ge=55.0, le=64.0, description="from the ego's start to the first cone")
    works_m: float = Field(ge=6.0, le=14.0, description="length of the works behind the boards")
    oncoming: int = Field(ge=0, le=2, description="vehicles that come towards the ego; fewer where their lane is short")
    reach_m: float = Field(ge=0.6, le=1.2, description="how far beyond the lane's middle the boards stand")


def _place_works(places: Places, site: tuple[int, int], p: RoadWorksParameters, draws: Draws) -> Placement | None:
    lane, other = site
    at, half = START_M + p.obstacle_m, 0.5 * float(places.network.lane_width_m[lane])
    found = places.route([lane], START_M, p.obstacle_m + 60.0, draws)
    if found is None or at + 8.0 + p.works_m + 26.0 > places.length(lane):
        return None
    lanes, length = found
    actors = []

    def stand(name: str, kind: int, s: float, left: float) -> None:
        x, y, yaw = places.pose(lane, s, left)
        actors.append(Actor(name, kind, x_m=x, y_m=y, yaw_rad=yaw))

    for k in range(4):  # cones that lead from the kerb to the boards
        stand(f"cone {k}", CONE_KIND, at + 1.5 * k, -half + 0.4 + (half + p.reach_m - 0.4) * k / 4)
    stand("board 0", BARRIER_KIND, at + 6.5, p.reach_m - 0.75)
    stand("board 1", BARRIER_KIND, at + 6.5, p.reach_m - 2.35)
    for k in range(3):
        stand(f"cone {4 + k}", CONE_KIND, at + 6.5 + p.works_m * (k + 1) / 3, p.reach_m - 0.2)
    x, y, _ = places.pose(lane, at)
    speed = 0.8 * places.limit(other)
    oncoming = _oncoming(places, lane, other, at + 4.0, p.oncoming, 8.0, speed, draws)
    end = p.obstacle_m + 6.5 + p.works_m
    return Placement(
        lanes, START_M, length, p.start_share * places.limit(lane), (*actors, *oncoming), clear=(x, y, 85.0),
        cross=(p.obstacle_m - 35.0, end + 35.0), marks={"passed_m": end + 4.0}, given={"oncoming": len(oncoming)},
    )  # fmt: skip


ROAD_WORKS = Family(
    "road_works", 8, "Road works", "Cones and boards close the lane; the oncoming one is open.",
    TOWNS, RoadWorksParameters, _two_way(110.0, 0.5), _place_works, (*EVERYWHERE, PASSED), 11,
)  # fmt: skip


class CyclistParameters(Parameters):
    start_share: Share
    ahead_m: float = Field(ge=18.0, le=35.0, description="from the ego's front to the cyclist")
    cyclist_mps: float = Field(ge=2.8, le=5.0, description="speed of the cyclist")
    oncoming: int = Field(ge=0, le=2, description="vehicles that come towards the ego; fewer where their lane is short")


def _place_cyclist(places: Places, site: tuple[int, int], p: CyclistParameters, draws: Draws) -> Placement | None:
    lane, other = site
    found = places.route([lane], START_M, 150.0, draws)
    if found is None:
        return None
    lanes, length = found
    cyclist = Actor(
        "cyclist", BICYCLE_KIND, path=(lane,), s_m=START_M + places.ego_half_m + p.ahead_m + 2.0, speed_mps=p.cyclist_mps,
        speed_before_mps=p.cyclist_mps, lateral_m=BICYCLE_OFFSET_M, paint=paint_of(draws),
    )  # fmt: skip
    at = START_M + p.ahead_m + 25.0
    actors = (cyclist, *_oncoming(places, lane, other, at, p.oncoming, 12.0, 0.8 * places.limit(other), draws))
    x, y, _ = places.pose(lane, START_M + 45.0)
    return Placement(
        lanes, START_M, length, p.start_share * places.limit(lane), actors, clear=(x, y, 70.0),
        cross=(0.0, places.length(lane) - START_M), given={"oncoming": len(actors) - 1},
    )  # fmt: skip


CYCLIST_OVERTAKEN = Family(
    "cyclist_overtaken", 9, "A slow cyclist", "A bicycle rides ahead; others may come towards the ego.",
    TOWNS, CyclistParameters, _two_way(105.0, 0.6), _place_cyclist, (*EVERYWHERE, KEPT_SIDE_GAP), 3,
)  # fmt: skip


class OvertakerParameters(Parameters):
    start_share: float = Field(ge=0.6, le=0.75, description="speed at the start, of the limit")
    slow_mps: float = Field(ge=3.0, le=4.2, description="speed of the cyclist that is overtaken")
    fast_mps: float = Field(ge=8.5, le=10.5, description="speed of who overtakes")
    spare_m: float = Field(
        ge=0.0, le=8.0, description="that are left between the two if the ego brakes at once, evenly"
    )
    out_m: float = Field(ge=2.0, le=2.4, description="how far it pulls out")


def _place_overtaker(places: Places, site: tuple[int, int], p: OvertakerParameters, draws: Draws) -> Placement | None:
    lane, other = site
    found = places.route([lane], START_M, 130.0, draws)
    if found is None:
        return None
    lanes, length = found
    x, y, _ = places.pose(lane, START_M)
    ego_there, _ = places.place_on(other, x, y)
    speed = p.start_share * places.limit(lane) + 1.0  # it speeds up at first
    out_s = 0.6 + 15.0 / (p.fast_mps - p.slow_mps)
    pulls_out_m = p.fast_mps * (out_s + 1.3) + speed * speed / 5.0 + 0.5 * speed + 1.0 + p.spare_m
    fast_s = ego_there - pulls_out_m - 8.0  # front of the overtaker
    slow_s = fast_s + 9.0
    if fast_s < 6.5:
        return None
    actors = (
        Actor(
            "overtaker", draws.choice((CAR_KIND, CAR_KIND, VAN_KIND)), path=(other,), s_m=fast_s, size=draws.share(),
            paint=paint_of(draws), speed_mps=p.slow_mps + 2.0, speed_before_mps=p.slow_mps + 2.0, trigger=EGO_WITHIN,
            threshold=pulls_out_m, lateral_acting_m=p.out_m, sideways_mps=1.8, speed_acting_mps=p.fast_mps,
            hold_s=out_s, speed_after_mps=p.fast_mps, rate_mps2=3.0,
            ignores=IGNORES_LEADER | IGNORES_EGO,
        ),
        Actor(
            "overtaken", BICYCLE_KIND, path=(other,), s_m=slow_s, speed_mps=p.slow_mps, speed_before_mps=p.slow_mps,
            lateral_m=BICYCLE_OFFSET_M, paint=paint_of(draws),
        ),
    )  # fmt: skip
    x, y, _ = places.pose(lane, START_M + 45.0)
    return Placement(lanes, START_M, length, p.start_share * places.limit(lane), actors, clear=(x, y, 80.0))


ONCOMING_OVERTAKER = Family(
    "oncoming_overtaker", 10, "Somebody overtakes towards the ego",
    "An oncoming car pulls out around a cyclist, into the ego's lane.",
    TOWNS, OvertakerParameters, _two_way(112.0, 0.35), _place_overtaker, EVERYWHERE, 2,
)  # fmt: skip
