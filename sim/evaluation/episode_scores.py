"""All scores of one episode, from its track and the track of the driver that it is compared with.

Puts the protocols together; knows tracks and nothing about how they came about.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sim.evaluation import carla_score, comfort, nuplan_score, pdm_score
from sim.evaluation.carla_score import CARLA_KINDS, RouteRecord, driving_score
from sim.evaluation.nuplan_score import NuplanScores
from sim.evaluation.pdm_score import WindowScores
from sim.evaluation.track import DT_S, Track

MIN_SPEED_PARTS = 4
# What stands against `success` beside not arriving.
FAILURES = (*CARLA_KINDS, "off_road")
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class EpisodeScores:
    """One episode. Scores in [0, 1], driving scores in [0, 100]; the parts of each stand beside it.

    carla: what the driving scores were made of. nuplan: sub-scores. windows: of PDMS, as (first tick, last tick, sub-scores).
    """

    success: bool
    completion: float
    driving_score_1_0: float
    driving_score_2_0: float
    driving_score_2_1: float
    cls_nr: float
    pdms_driven_4s: float
    epdms_driven_4s: float
    carla: RouteRecord
    nuplan: NuplanScores
    windows: tuple[tuple[int, int, WindowScores], ...]


def score_episode(track: Track, expert: Track) -> EpisodeScores:
    """Scores of a track. expert: the route follower's own run of the same episode, or the recorded driver's."""
    record = route_record(track)
    nuplan = nuplan_scores(track, expert)
    driven = window_scores(track, expert)
    states = [(first, last) for first, last, _ in driven]
    failed = any(infraction.kind in FAILURES for infraction in track.infractions)
    return EpisodeScores(
        success=record.completion == 1.0 and not failed,
        completion=record.completion,
        driving_score_1_0=driving_score(record, "1.0"),
        driving_score_2_0=driving_score(record, "2.0"),
        driving_score_2_1=driving_score(record, "2.1"),
        cls_nr=nuplan.total(),
        pdms_driven_4s=pdm_score.mean_over_windows([own.pdms() for _, _, (own, _) in driven], states),
        epdms_driven_4s=pdm_score.mean_over_windows(
            [own.waived_by(human).epdms_without_plans() for _, _, (own, human) in driven], states
        ),
        carla=record,
        nuplan=nuplan,
        windows=tuple((first, last, own) for first, last, (own, _) in driven),
    )


def route_record(track: Track) -> RouteRecord:
    """What CARLA's scores are made of. Beside what blocks the own lane, a scenario excuses the one of oncoming traffic."""
    counts = Counter(infraction.kind for infraction in track.infractions if infraction.kind in CARLA_KINDS)
    driven = track.driven_m
    astray = driven[(track.off_lanes & ~track.against_flow & ~track.in_junction) | track.wrong_way].sum()
    return RouteRecord(
        completion=1.0 if track.arrived else carla_score.completion(float(track.progress_m[-1]), track.route_length_m),
        counts=dict(sorted(counts.items())),
        off_lane_share=float(min(astray / max(driven.sum(), 1e-9), 1.0)),
        min_speed_shares=min_speed_shares(track),
    )


def min_speed_shares(track: Track) -> tuple[float, ...]:
    """For each quarter of the route: mean speed over that of the traffic around, where it is below 1.

    Quarters that were not begun, or without traffic that moves, do not count.
    """
    part = np.minimum(
        (MIN_SPEED_PARTS * track.progress_m / max(track.route_length_m, 1e-9)).astype(int), MIN_SPEED_PARTS - 1
    )
    shares = []
    for quarter in range(MIN_SPEED_PARTS):
        there = (part == quarter) & np.isfinite(track.traffic_mps)
        theirs = float(track.traffic_mps[there].sum())
        if theirs > 0.0:
            share = float(track.speed_mps[there].sum()) / theirs
            if share < 1.0:
                shares.append(max(share, 0.0))
    return tuple(shares)


def nuplan_scores(track: Track, expert: Track) -> NuplanScores:
    """nuPlan's sub-scores of a whole episode."""
    motion = comfort.motion_of(track.speed_mps, track.acceleration_mps2, track.yaw_rad, track.yaw_rate_radps, DT_S)
    ep = nuplan_score.ego_progress(float(track.progress_m[-1]), float(expert.progress_m[-1]))
    hit = _at_fault(track, 0, track.ticks - 1)
    return NuplanScores(
        nc=nuplan_score.no_collision(hit),
        dac=nuplan_score.drivable_area(track.off_drivable_m),
        mp=nuplan_score.making_progress(ep),
        ddc=nuplan_score.driving_direction(track.driven_m * track.against_flow, DT_S),
        ep=ep,
        ttc=0.0 if hit else nuplan_score.time_to_collision(track.ttc_s),
        sl=nuplan_score.speed_limit(track.speed_mps, track.speed_limit_mps, DT_S),
        c=1.0 if bool(comfort.comfortable(motion).all()) else 0.0,
    )


def _at_fault(track: Track, first: int, last: int) -> dict[str, int]:
    """Class to the number of others first hit after tick `first` up to tick `last`, through the ego's fault."""
    hit: dict[int, str] = {}
    known: set[int] = set()
    for contact in track.contacts:
        fresh = contact.other not in known
        known.add(contact.other)
        if fresh and contact.at_fault and first < contact.tick <= last:
            hit[contact.other] = contact.kind
    return dict(Counter(hit.values()))


def window_scores(track: Track, expert: Track) -> list[tuple[int, int, tuple[WindowScores, WindowScores]]]:
    """Windows of 4 s: first and last tick, and the sub-scores of the ego and of the expert.

    The expert's window begins where, not when, the ego's does: at its first state at least as far along the route.
    """
    own_comfort, its_comfort = _comfort(track), _comfort(expert)
    result = []
    for first, last in pdm_score.windows(track.ticks, DT_S):
        begin = float(track.progress_m[first])
        there = int(np.searchsorted(expert.progress_m, begin - 1e-6))
        until = min(there + last - first, expert.ticks - 1)
        human = WindowScores()
        own_progress = float(track.progress_m[last]) - begin
        its_progress = own_progress
        if there < until:
            its_progress = float(expert.progress_m[until]) - begin
            ep = pdm_score.window_progress(its_progress, own_progress)
            human = _window(expert, its_comfort, there, until, ep)
        ep = pdm_score.window_progress(own_progress, its_progress)
        result.append((first, last, (_window(track, own_comfort, first, last, ep), human)))
    return result


def _comfort(track: Track) -> Flags:
    return comfort.comfortable(
        comfort.motion_of(track.speed_mps, track.acceleration_mps2, track.yaw_rad, track.yaw_rate_radps, DT_S)
    )


def _window(track: Track, comfortable: Flags, first: int, last: int, ep: float) -> WindowScores:
    inside = slice(first, last + 1)
    history = slice(max(first - round(pdm_score.HISTORY_S / DT_S), 0), last + 1)
    red = any(i.kind == "red_light" and first < i.tick <= last for i in track.infractions)
    against = track.driven_m[first + 1 : last + 1] * track.against_flow[first + 1 : last + 1]
    hit = _at_fault(track, first, last)
    meets = np.isfinite(track.pdm_ttc_s[inside])
    meets[0] &= track.pdm_ttc_s[first] > 0.0  # who is hit at the first state was hit in the window before
    return WindowScores(
        nc=nuplan_score.no_collision(hit),
        dac=nuplan_score.drivable_area(track.off_drivable_m[inside]),
        ddc=nuplan_score.driving_direction(against, DT_S),
        tlc=0.0 if red else 1.0,
        ep=ep,
        ttc=0.0 if hit or bool(meets.any()) else 1.0,
        c=1.0 if bool(comfortable[inside].all()) else 0.0,
        lk=pdm_score.lane_keeping(track.lane_offset_m[inside], track.in_junction[inside], DT_S),
        hc=1.0 if bool(comfortable[history].all()) else 0.0,
    )


def as_plain(scores: EpisodeScores) -> dict[str, object]:
    """The scores as JSON values."""
    plain = asdict(scores)
    plain["windows"] = [
        {"first": first, "last": last, **{name: value for name, value in parts.items()}}
        for first, last, parts in plain["windows"]
    ]
    return plain
