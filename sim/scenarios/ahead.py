"""Families with somebody ahead in the same direction: following, hard brake, traffic jam, cut-in, cut-out.

Knows places and scripts; knows nothing about the world that runs them. All take place on one street; the ego begins on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from sim.scenarios.checks import EVERYWHERE, KEPT_DISTANCE, PASSED
from sim.scenarios.draws import Draws, Parameters
from sim.scenarios.family import Family
from sim.scenarios.placement import Actor, Placement
from sim.scenarios.places import Places
from sim.traffic.scripts import (
    ARRIVES,
    BESIDE_EGO,
    EGO_PASSES,
    IGNORES_EGO,
    IGNORES_LEADER,
)
from sim.traffic.spawning import BUS_KIND, CAR_KIND, TRUCK_KIND, VAN_KIND

Share = Annotated[float, Field(ge=0.6, le=0.85, description="speed at the start, of the limit")]
START_M = 6.0
PAINTS = ((206, 160, 52), (60, 110, 170), (236, 236, 234), (112, 116, 120), (58, 84, 66), (150, 24, 28))


def _long_streets(least_m: float, most_bend: float = 0.5) -> Callable[[Places], list[int]]:
    """Streets of at least that length whose first part is about straight."""

    def sites(places: Places) -> list[int]:
        return [
            k
            for k in places.roads
            if places.length(k) >= least_m
            and k not in places.rings
            and places.bend(k, 0.0, least_m) < most_bend
            and places.successors(k)
        ]

    return sites


def paint_of(draws: Draws) -> tuple[int, int, int]:
    """A colour for a vehicle."""
    return draws.choice(PAINTS)


class FollowingParameters(Parameters):
    start_share: Share
    gap_m: float = Field(ge=10.0, le=25.0, description="between the bumpers at the start, to within 1.6 m")
    leader_share: float = Field(ge=0.5, le=0.85, description="speed of the leader, of the limit")
    slow_mps: float = Field(ge=0.0, le=4.0, description="to which it slows down")
    slow_s: float = Field(ge=3.0, le=8.0, description="for how long")
    brake_mps2: float = Field(ge=2.0, le=4.0, description="how hard it brakes")


def _place_following(places: Places, lane: int, p: FollowingParameters, draws: Draws) -> Placement | None:
    found = places.route([lane], START_M, 190.0, draws)
    if found is None:
        return None
    lanes, length = found
    limit = places.limit(lane)
    front = START_M + places.ego_half_m
    kind = draws.choice((CAR_KIND, CAR_KIND, VAN_KIND, TRUCK_KIND))
    leader = Actor(
        "leader", kind, path=lanes[:9], s_m=front + p.gap_m + 5.0 + 3.5 * (kind == TRUCK_KIND), paint=paint_of(draws),
        size=draws.share(), speed_mps=p.leader_share * limit, speed_before_mps=p.leader_share * limit,
        trigger=EGO_PASSES, at_m=draws.uniform(12.0, 30.0), speed_acting_mps=p.slow_mps, hold_s=p.slow_s,
        rate_mps2=p.brake_mps2,
    )  # fmt: skip
    x, y, _ = places.pose(lane, START_M + 35.0)
    share = min(p.start_share, p.leader_share + 0.1)
    given = {"start_share": round(share, 3)}
    return Placement(lanes, START_M, length, share * limit, (leader,), clear=(x, y, 45.0), given=given)


FOLLOWING = Family(
    "following", 2, "Following a car that slows down",
    "A vehicle in front slows down or stops for a while and drives on.",
    ("grid-small", "town", "radial", "grid-large"), FollowingParameters, _long_streets(85.0), _place_following,
    (*EVERYWHERE, KEPT_DISTANCE), 1,
)  # fmt: skip


class HardBrakeParameters(Parameters):
    start_share: Share
    headway_s: float = Field(
        ge=1.1, le=1.9, description="time behind the leader at the start; more where that is below 9 m"
    )
    brake_mps2: float = Field(ge=5.5, le=7.5, description="how hard the leader brakes")
    stand_s: float = Field(ge=3.0, le=6.0, description="from the brake to driving on")


def _place_hard_brake(places: Places, lane: int, p: HardBrakeParameters, draws: Draws) -> Placement | None:
    found = places.route([lane], START_M, 150.0, draws)
    if found is None:
        return None
    lanes, length = found
    speed = p.start_share * places.limit(lane)
    gap = max(p.headway_s * speed, 9.0)
    leader = Actor(
        "leader", draws.choice((CAR_KIND, VAN_KIND)), path=lanes[:9], s_m=START_M + places.ego_half_m + gap + 5.0,
        size=draws.share(), paint=paint_of(draws), speed_mps=speed, speed_before_mps=speed, trigger=EGO_PASSES,
        at_m=draws.uniform(10.0, 26.0), speed_acting_mps=0.0, hold_s=p.stand_s, rate_mps2=p.brake_mps2,
    )  # fmt: skip
    x, y, _ = places.pose(lane, START_M + 40.0)
    given = {"headway_s": round(gap / speed, 3)}
    return Placement(lanes, START_M, length, speed, (leader,), clear=(x, y, 50.0), given=given)


HARD_BRAKE = Family(
    "hard_brake", 3, "The car in front brakes hard", "The leader brakes to a stop for no visible reason, then drives on.",
    ("grid-small", "town", "radial", "grid-large"), HardBrakeParameters, _long_streets(95.0), _place_hard_brake,
    (*EVERYWHERE, KEPT_DISTANCE), 1,
)  # fmt: skip


class JamParameters(Parameters):
    start_share: Share
    vehicles: int = Field(ge=3, le=5, description="in the queue; fewer where the lane has no room for more")
    spacing_m: float = Field(ge=2.0, le=5.0, description="between them")
    stand_s: float = Field(ge=4.0, le=9.0, description="until the first drives on, once the ego is near")


def _place_jam(places: Places, lane: int, p: JamParameters, draws: Draws) -> Placement | None:
    found = places.route([lane], START_M, 150.0, draws)
    if found is None:
        return None
    lanes, length = found
    tail = START_M + places.ego_half_m + 52.0
    actors, at = [], tail
    for k in range(p.vehicles):
        kind = draws.choice((CAR_KIND, CAR_KIND, VAN_KIND, TRUCK_KIND, BUS_KIND))
        if at > places.length(lane) - 16.0:
            break
        body = {CAR_KIND: 4.8, VAN_KIND: 5.9, TRUCK_KIND: 8.4, BUS_KIND: 10.5}[kind]
        at += body
        actors.append(
            Actor(
                "leader" if k == 0 else f"jam {k}", kind, path=lanes[:9], s_m=at, size=1.0, paint=paint_of(draws),
                speed_before_mps=0.0, trigger=EGO_PASSES, at_m=30.0, speed_acting_mps=0.0, hold_s=p.stand_s,
            )
        )  # fmt: skip
        at += p.spacing_m
    x, y, _ = places.pose(lane, START_M + 45.0)
    speed = p.start_share * places.limit(lane)
    given = {"vehicles": len(actors)}
    return Placement(lanes, START_M, length, speed, tuple(actors), clear=(x, y, 60.0), given=given)


TRAFFIC_JAM = Family(
    "traffic_jam", 4, "The end of a traffic jam", "A queue stands in the lane, and after a while drives off.",
    ("town", "radial", "grid-small", "grid-large"), JamParameters, _long_streets(105.0), _place_jam,
    (*EVERYWHERE, KEPT_DISTANCE), 5,
)  # fmt: skip


class CutInParameters(Parameters):
    start_share: Share
    gap_m: float = Field(ge=3.0, le=8.0, description="from the ego's front to the other's rear when it moves over")
    slower_share: float = Field(ge=0.45, le=0.75, description="speed that it then drives, of the ego's at the start")
    slow_s: float = Field(ge=3.0, le=6.0, description="for how long")
    sideways_mps: float = Field(ge=1.4, le=2.2, description="how fast it moves over")


def _multi_lane(places: Places) -> list[tuple[int, int, int]]:
    """(lane of the ego, lane beside it in the same direction, side of the other as seen from the ego)."""
    found = []
    for k in places.roads:
        for other, side in ((places.left(k), 1), (places.right(k), -1)):
            if other >= 0 and places.length(k) >= 85.0 and places.bend(k, 0.0, 80.0) < 0.35 and places.successors(k):
                found.append((k, other, side))
    return found


def _place_cut_in(places: Places, site: tuple[int, int, int], p: CutInParameters, draws: Draws) -> Placement | None:
    lane, beside, side = site
    found = places.route([lane], START_M + 4.0, 150.0, draws)
    if found is None:
        return None
    lanes, length = found
    start, speed = START_M + 4.0, p.start_share * places.limit(lane)
    slow = p.slower_share * speed
    other = Actor(
        "leader", draws.choice((CAR_KIND, CAR_KIND, VAN_KIND)), path=(beside,), size=draws.share(), paint=paint_of(draws),
        s_m=start + places.ego_half_m + p.gap_m + 4.6, speed_mps=speed, pace=BESIDE_EGO, gap_m=p.gap_m, trigger=EGO_PASSES,
        at_m=draws.uniform(10.0, 16.0), change=-side, sideways_mps=p.sideways_mps, speed_acting_mps=slow,
        hold_s=p.slow_s, rate_mps2=2.5, ignores=IGNORES_EGO,
    )  # fmt: skip
    x, y, _ = places.pose(lane, START_M + 45.0)
    return Placement(lanes, start, length, speed, (other,), clear=(x, y, 60.0))


CUT_IN = Family(
    "cut_in", 5, "A car cuts in", "A vehicle in the next lane moves over closely in front, and is slower.",
    ("grid-small", "town", "radial", "grid-large"), CutInParameters, _multi_lane, _place_cut_in, EVERYWHERE, 1,
)  # fmt: skip


class CutOutParameters(Parameters):
    start_share: float = Field(ge=0.6, le=0.75, description="speed at the start, of the limit")
    headway_s: float = Field(
        ge=1.1, le=1.6, description="time behind the leader at the start; more where that is below 9 m"
    )
    late_m: float = Field(
        ge=20.0, le=28.0, description="before the stopped car at which the leader begins to move over"
    )
    stopped_kind: int = Field(ge=0, le=1, description="0 a car, 1 a van")


def _place_cut_out(places: Places, site: tuple[int, int, int], p: CutOutParameters, draws: Draws) -> Placement | None:
    lane, _, side = site
    speed = p.start_share * places.limit(lane)
    gap = max(p.headway_s * speed, 9.0)
    leader_s = START_M + places.ego_half_m + gap + 4.8
    stopped = leader_s + p.late_m + 12.0
    found = places.route([lane], START_M, stopped + 60.0, draws)
    if found is None or stopped + 28.0 > places.length(lane):
        return None
    lanes, length = found
    x, y, yaw = places.pose(lane, stopped + 2.4)
    actors = (
        Actor("stopped", (CAR_KIND, VAN_KIND)[p.stopped_kind], x_m=x, y_m=y, yaw_rad=yaw, paint=paint_of(draws)),
        Actor(
            "leader", draws.choice((CAR_KIND, VAN_KIND, VAN_KIND)), path=(lane,), s_m=leader_s, size=0.4, speed_mps=speed,
            paint=paint_of(draws), speed_before_mps=speed, trigger=ARRIVES, left_m=stopped - leader_s, threshold=p.late_m,
            change=side, sideways_mps=2.4, speed_acting_mps=speed, hold_s=5.0, ignores=IGNORES_LEADER,
        ),
    )  # fmt: skip
    mark = stopped + 6.0 - START_M
    given = {"headway_s": round(gap / speed, 3)}
    return Placement(lanes, START_M, length, speed, actors, clear=(x, y, 70.0), marks={"passed_m": mark}, given=given)


CUT_OUT = Family(
    "cut_out", 6, "The car in front swerves around a stopped one",
    "The leader changes lanes late and shows a car that stands in the lane.",
    ("grid-small", "town", "radial", "grid-large"), CutOutParameters, _multi_lane, _place_cut_out,
    (*EVERYWHERE, PASSED), 2,
)  # fmt: skip
