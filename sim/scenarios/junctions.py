"""Families at junctions: merge, roundabout, left turn, priority, red light, somebody who runs it, emergency vehicle.

Knows places and scripts; knows nothing about the world that runs them. The ego begins on the street that comes to the junction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from pydantic import Field

from planning.policy import SignalState
from sim.roads.network import LaneControl
from sim.scenarios.ahead import START_M, Share, paint_of
from sim.scenarios.checks import EVERYWHERE, GAVE_WAY, STOPPED_AT_RED
from sim.scenarios.draws import Draws, Parameters
from sim.scenarios.family import Family
from sim.scenarios.placement import Actor, Placement
from sim.scenarios.places import Meeting, Places, Turn
from sim.traffic.scripts import (
    EGO_ARRIVES,
    IGNORES_EGO,
    IGNORES_PRIORITY,
    IGNORES_SIGNALS,
    MEETS_EGO,
    time_to,
)
from sim.traffic.spawning import CAR_KIND, MOTORCYCLE_KIND, TRUCK_KIND, VAN_KIND

TOWNS = ("grid-small", "town", "radial", "grid-large")
MIXED_TOWNS = ("town", "radial", "grid-small", "grid-large")
APPROACH_M = 80.0
LEAST_APPROACH_M = 55.0
LEAST_OTHER_M = 45.0
SPARE_M = 10.0  # between the first of the others and the beginning of its lane
AFTER_M = 60.0
LATERAL_MPS2 = 2.0
RED_PAINT = (236, 28, 36)
GIVES_WAY = (LaneControl.PRIORITY, LaneControl.YIELD, LaneControl.STOP)


def _meetings(keep: Callable[[Places, Meeting], bool]) -> Callable[[Places], list[Meeting]]:
    def sites(places: Places) -> list[Meeting]:
        return [
            m
            for m in places.meetings
            if places.length(m.mine.approach) >= LEAST_APPROACH_M
            and places.length(m.other.approach) >= LEAST_OTHER_M
            and keep(places, m)
        ]

    return sites


def _has_priority(places: Places, m: Meeting) -> bool:
    """Whether the ego gives way without a signal, and those it meets have no stop sign: they will not stop."""
    return places.control(m.mine.through) in GIVES_WAY and places.control(m.other.through) != LaneControl.STOP


def _start(places: Places, turn: Turn) -> float:
    """Offset of the ego on the lane that comes to the junction."""
    return max(places.length(turn.approach) - APPROACH_M, START_M)


def _through_mps(places: Places, turn: Turn) -> float:
    """Speed at which a careful driver takes a turn, m/s."""
    line = places.line(turn.through)
    heading = np.unwrap(np.arctan2(*np.diff(line, axis=0).T[::-1]))
    if len(heading) < 5:
        return places.limit(turn.approach)
    step = float(places.network.lane_step_m[turn.through])
    sharpest = float(np.abs(heading[4:] - heading[:-4]).max()) / (4.0 * step)
    return min(math.sqrt(LATERAL_MPS2 / max(sharpest, 1e-3)), 0.95 * places.limit(turn.approach))


def _arrival_s(places: Places, turn: Turn, speed: float, metres: float) -> float:
    """About how long the ego needs to a place that many metres ahead if it does not have to stop, s."""
    cruise = 0.95 * places.limit(turn.approach)
    return float(time_to(metres, 0.5 * (speed + cruise), _through_mps(places, turn)))


def _others(
    places: Places, meeting: Meeting, offset: float, count: int, gap_s: float, late_s: float, share: float, ignores: int,
    name: str, draws: Draws, kinds: tuple[int, ...] = (CAR_KIND, CAR_KIND, VAN_KIND, TRUCK_KIND), siren: bool = False,
) -> list[Actor]:  # fmt: skip
    """Vehicles on the other way, the first of which reaches the meeting place late_s after the ego would, the rest behind it."""
    other = meeting.other
    at = places.length(meeting.mine.approach) - offset + meeting.enter_m
    speed = share * places.limit(other.approach)
    lane_m = places.length(other.approach)
    to_meeting = lane_m + meeting.other_enter_m
    arrival = _arrival_s(places, meeting.mine, 0.7 * places.limit(meeting.mine.approach), at) + late_s
    room = (count - 1) * (gap_s * speed + 5.0)
    left = min(0.95 * speed * arrival, to_meeting - SPARE_M - min(room, 0.5 * lane_m))
    actors = []
    for k in range(count):
        away = left + k * (gap_s * speed + 5.0)
        s = to_meeting - away
        if s < 6.5:
            break
        actors.append(
            Actor(
                f"{name} {k}", draws.choice(kinds) if k == 0 else CAR_KIND, path=(other.approach, other.through, other.exit),
                s_m=s, size=draws.share(), paint=RED_PAINT if siren else paint_of(draws), speed_mps=0.85 * speed,
                pace=MEETS_EGO, at_m=at + 0.1, left_m=left - late_s * speed if k == 0 else away,
                speed_before_mps=speed, trigger=EGO_ARRIVES, threshold=2.2, speed_acting_mps=speed, hold_s=9.0,
                ego_mps=_through_mps(places, meeting.mine),
                ignores=ignores, siren=siren,
            )
        )  # fmt: skip
    return actors


def _placed(
    places: Places,
    meeting: Meeting,
    offset: float,
    share: float,
    actors: list[Actor],
    shift_ms: int | None,
    draws: Draws,
    given: Mapping[str, float],
) -> Placement | None:
    mine = meeting.mine
    goal = places.length(mine.approach) - offset + places.length(mine.through) + AFTER_M
    found = places.route([mine.approach, mine.through, mine.exit], offset, goal, draws)
    if found is None or not actors:
        return None
    lanes, length = found
    x, y, _ = places.pose(mine.through, meeting.enter_m)
    speed = share * places.limit(mine.approach)
    return Placement(lanes, offset, length, speed, tuple(actors), clear=(x, y, 85.0), shift_ms=shift_ms, given=given)


class StreamParameters(Parameters):
    start_share: Share
    vehicles: int = Field(
        ge=2, le=4, description="with priority, in a row; fewer where their lane has no room for more"
    )
    gap_s: float = Field(ge=0.9, le=2.4, description="between them")
    late_s: float = Field(
        ge=-0.8, le=0.6, description="after the ego that the first would reach the place where they meet"
    )
    speed_share: float = Field(ge=0.6, le=0.95, description="their speed, of the limit")


def _place_stream(places: Places, site: Meeting, p: StreamParameters, draws: Draws) -> Placement | None:
    offset = _start(places, site.mine)
    actors = _others(
        places, site, offset, p.vehicles, p.gap_s, p.late_s, p.speed_share, IGNORES_EGO, "priority", draws
    )  # fmt: skip
    shift = None
    if places.link(site.mine.through) >= 0:
        shift = _both_green(places, site, offset, p.start_share, draws)
        if shift is None:
            return None
    return _placed(places, site, offset, p.start_share, actors, shift, draws, {"vehicles": len(actors)})


def _both_green(places: Places, site: Meeting, offset: float, share: float, draws: Draws) -> int | None:
    speed = share * places.limit(site.mine.approach)
    arrival = _arrival_s(places, site.mine, speed, places.length(site.mine.approach) - offset)
    links = (places.link(site.mine.through), places.link(site.other.through))
    return places.shift_for(
        [(link, max(arrival - 4.0, 0.0), arrival + 3.0, SignalState.GREEN) for link in links], draws
    )


def _is_merge(places: Places, m: Meeting) -> bool:
    same = m.mine.exit == m.other.exit and _has_priority(places, m)
    ring = m.other.exit in places.rings or m.mine.approach in places.rings
    return same and not ring and places.turn_of(m.mine.through) == -1 and places.turn_of(m.other.through) == 0


MERGE = Family(
    "merge", 13, "Merging into traffic with priority",
    "The ego turns right into a street on which a row of vehicles has priority.",
    MIXED_TOWNS, StreamParameters, _meetings(_is_merge), _place_stream, (*EVERYWHERE, GAVE_WAY), 4,
)  # fmt: skip


def _is_roundabout(places: Places, m: Meeting) -> bool:
    ring = m.mine.exit in places.rings and m.mine.approach not in places.rings
    return ring and m.other.exit == m.mine.exit


def _roundabouts(places: Places) -> list[Meeting]:
    return [m for m in places.meetings if _is_roundabout(places, m) and places.length(m.mine.approach) >= 45.0]


class RoundaboutParameters(Parameters):
    start_share: Share
    vehicles: int = Field(ge=1, le=2, description="on the ring, one behind the other")
    late_s: float = Field(
        ge=-0.3, le=0.8, description="after the ego that the first would reach the place where they meet"
    )
    speed_share: float = Field(ge=0.6, le=0.9, description="their speed, of the limit")
    exits: int = Field(ge=1, le=3, description="at which the ego leaves; another where the ring has none there")


def _upstream(places: Places, lane: int, metres: float) -> tuple[list[int], float]:
    """Ring lanes before and with a lane, in driving order, at least so long in all if the ring is; and their length."""
    way, total = [lane], places.length(lane)
    while total < metres:
        before = [k for k in places.predecessors(way[0]) if k not in way]
        ring = [k for k in before if not places.is_road(k) and set(places.predecessors(k)) & places.rings]
        ring += [k for k in before if k in places.rings]
        if not ring:
            break
        way.insert(0, ring[0])
        total += places.length(ring[0])
    return way, total


def _ways_out(places: Places, onward: Sequence[int]) -> list[int]:
    """Those lanes of a row that neither are on a ring nor lead to one."""
    return [k for k in onward if k not in places.rings and (places.successors(k) or [k])[0] not in places.rings]


def _exit_taken(places: Places, lanes: Sequence[int]) -> int:
    """At which exit, counted from 1, a way that begins on a ring leaves it."""
    count = 0
    for lane, onward in pairwise(lanes):
        out = _ways_out(places, places.successors(lane)) if lane in places.rings else []
        count += len(out) > 0
        if onward in out:
            break
    return count


def _place_roundabout(places: Places, site: Meeting, p: RoundaboutParameters, draws: Draws) -> Placement | None:
    mine, other = site.mine, site.other
    offset = _start(places, mine)
    at = places.length(mine.approach) - offset + site.enter_m
    limit = places.limit(other.through)
    speed = p.speed_share * limit
    arrival = _arrival_s(places, mine, p.start_share * places.limit(mine.approach), at)
    way, total = _upstream(places, other.approach, speed * arrival + 14.0 * p.vehicles)
    actors = []
    for k in range(p.vehicles):
        away = min(0.95 * speed * arrival, total - 22.0 * (p.vehicles - 1) - 8.0) + 12.0 * k
        s, index = total - away, 0
        while index + 1 < len(way) and s > places.length(way[index]):
            s -= places.length(way[index])
            index += 1
        if s < 0.0:
            break
        path = (*way[index:], other.through, other.exit)
        actors.append(
            Actor(
                f"priority {k}", draws.choice((CAR_KIND, CAR_KIND, VAN_KIND)), path=path, behind=tuple(reversed(way[:index])),
                s_m=s, size=draws.share(), paint=paint_of(draws), speed_mps=0.8 * speed, pace=MEETS_EGO, at_m=at,
                left_m=away + site.other_enter_m - p.late_s * speed, speed_before_mps=speed, trigger=EGO_ARRIVES,
                threshold=1.8, speed_acting_mps=speed, hold_s=9.0, ego_mps=_through_mps(places, mine),
                ignores=IGNORES_EGO | IGNORES_PRIORITY,
            )
        )  # fmt: skip
    core = [mine.approach, mine.through, mine.exit]
    for _ in range(2 * p.exits):  # on along the ring, then out
        onward = places.successors(core[-1])
        out = _ways_out(places, onward)
        ring = [k for k in onward if k not in out]
        core.append(draws.choice(ring or onward))
        if len(core) >= 2 + 2 * p.exits and out:
            core[-1] = out[0]
            break
    around = places.length(mine.approach) - offset + sum(places.length(k) for k in core[1:])
    found = places.route(core, offset, around + 30.0, draws)
    if found is None or not actors:
        return None
    lanes, length = found
    x, y, _ = places.pose(mine.through, site.enter_m)
    return Placement(
        lanes, offset, length, p.start_share * places.limit(mine.approach), tuple(actors), clear=(x, y, 75.0),
        given={"vehicles": len(actors), "exits": _exit_taken(places, lanes[2:])},
    )  # fmt: skip


ROUNDABOUT = Family(
    "roundabout", 14, "Into a roundabout", "Vehicles on the ring have priority when the ego comes to it.",
    ("radial", "town"), RoundaboutParameters, _roundabouts, _place_roundabout, (*EVERYWHERE, GAVE_WAY), 2,
)  # fmt: skip


def _faces(places: Places, m: Meeting) -> bool:
    return math.cos(places.approach_yaw(m.mine) - places.approach_yaw(m.other)) < -0.6


def _is_left_turn(places: Places, m: Meeting) -> bool:
    return places.turn_of(m.mine.through) == 1 and places.turn_of(m.other.through) == 0 and _faces(places, m)


UNPROTECTED_LEFT = Family(
    "unprotected_left", 15, "Left turn across oncoming traffic", "Vehicles come straight on while the ego turns left.",
    TOWNS, StreamParameters, _meetings(_is_left_turn), _place_stream, (*EVERYWHERE, GAVE_WAY), 4,
)  # fmt: skip


def _is_crossing(places: Places, m: Meeting) -> bool:
    straight = places.turn_of(m.other.through) == 0 and not _faces(places, m)
    ring = m.other.exit in places.rings or m.mine.approach in places.rings
    return straight and not ring and _has_priority(places, m) and m.mine.exit != m.other.exit


PRIORITY_JUNCTION = Family(
    "priority_junction", 16, "Cross traffic with priority",
    "The ego comes to a junction without signals where the crossing street has priority.",
    MIXED_TOWNS, StreamParameters, _meetings(_is_crossing), _place_stream, (*EVERYWHERE, GAVE_WAY), 4,
)  # fmt: skip


class RedLightParameters(Parameters):
    start_share: Share
    late_m: float = Field(
        ge=32.0, le=60.0, description="from the stop line, where the ego is when its signal turns yellow"
    )


def _signals(places: Places) -> list[Turn]:
    return [t for t in places.turns if places.link(t.through) >= 0 and places.length(t.approach) >= LEAST_APPROACH_M]


def _place_red_light(places: Places, site: Turn, p: RedLightParameters, draws: Draws) -> Placement | None:
    offset = _start(places, site)
    line = places.length(site.approach) - offset - places.ego_half_m
    found = places.route([site.approach, site.through, site.exit], offset, line + AFTER_M, draws)
    if found is None:
        return None
    lanes, length = found
    speed = p.start_share * places.limit(site.approach)
    yellow = max(line - p.late_m, 0.0) / max(0.5 * (speed + 0.95 * places.limit(site.approach)), 3.0)
    link = places.link(site.through)
    wanted = [
        (link, yellow + 0.5, yellow + 1.5, SignalState.YELLOW),
        (link, yellow + 5.5, yellow + 12.0, SignalState.RED),
    ]
    if yellow > 1.0:
        wanted.append((link, 0.0, yellow - 0.5, SignalState.GREEN))
    shift = places.shift_for(wanted, draws)
    x, y, _ = places.pose(site.through, 0.0)
    return None if shift is None else Placement(lanes, offset, length, speed, clear=(x, y, 80.0), shift_ms=shift)


RED_LIGHT = Family(
    "red_light", 17, "The light turns red", "The signal changes to yellow and red as the ego comes to it.",
    TOWNS, RedLightParameters, _signals, _place_red_light, (*EVERYWHERE, STOPPED_AT_RED), 0,
)  # fmt: skip


class CrossingParameters(Parameters):
    start_share: Share
    late_s: float = Field(
        ge=-0.3, le=0.7, description="after the ego that the other would reach the place where they meet"
    )
    speed_share: float = Field(ge=0.75, le=1.1, description="speed of the other, of the limit")


def _is_signalised(places: Places, m: Meeting) -> bool:
    signals = places.link(m.mine.through) >= 0 and places.link(m.other.through) >= 0
    straight = places.turn_of(m.other.through) == 0 and places.turn_of(m.mine.through) == 0
    return signals and straight and not _faces(places, m)


def _crossings_at_signals(places: Places) -> list[Meeting]:
    """Straight on for both, from either one's point of view."""
    one = _meetings(_is_signalised)(places)
    return one + [Meeting(m.other, m.mine, m.other_enter_m, m.enter_m) for m in one]


def _place_against_red(
    places: Places, site: Meeting, p: CrossingParameters, name: str, kinds: tuple[int, ...], siren: bool, draws: Draws
) -> Placement | None:
    """Somebody crosses at red while the ego has green."""
    if places.length(site.mine.approach) < LEAST_APPROACH_M or places.length(site.other.approach) < LEAST_OTHER_M:
        return None
    offset = _start(places, site.mine)
    metres = places.length(site.mine.approach) - offset + site.enter_m
    arrival = _arrival_s(places, site.mine, p.start_share * places.limit(site.mine.approach), metres)
    mine, its = places.link(site.mine.through), places.link(site.other.through)
    shift = places.shift_for(
        [
            (mine, max(arrival - 5.0, 0.0), arrival + 2.0, SignalState.GREEN),
            (its, max(arrival - 5.0, 0.0), arrival + 2.0, SignalState.RED),
        ],
        draws,
    )
    if shift is None:
        return None
    ignores = IGNORES_EGO | IGNORES_SIGNALS | IGNORES_PRIORITY
    actors = _others(places, site, offset, 1, 0.0, p.late_s, p.speed_share, ignores, name, draws, kinds, siren)
    return _placed(places, site, offset, p.start_share, actors, shift, draws, {})


def _place_runner(places: Places, site: Meeting, p: CrossingParameters, draws: Draws) -> Placement | None:
    kinds = (CAR_KIND, CAR_KIND, VAN_KIND, MOTORCYCLE_KIND)
    return _place_against_red(places, site, p, "runner", kinds, False, draws)


RED_LIGHT_RUNNER = Family(
    "red_light_runner", 18, "Somebody runs a red light", "The ego has green, and a vehicle crosses at red.",
    TOWNS, CrossingParameters, _crossings_at_signals, _place_runner, EVERYWHERE, 1,
)  # fmt: skip


def _place_emergency(places: Places, site: Meeting, p: CrossingParameters, draws: Draws) -> Placement | None:
    return _place_against_red(places, site, p, "priority", (VAN_KIND,), True, draws)


EMERGENCY_VEHICLE = Family(
    "emergency_vehicle", 19, "An emergency vehicle crosses", "The ego has green, and an ambulance crosses at red.",
    TOWNS, CrossingParameters, _crossings_at_signals, _place_emergency, (*EVERYWHERE, GAVE_WAY), 1,
)  # fmt: skip
