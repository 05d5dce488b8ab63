"""All scores of one episode, from its track and the track of the driver that it is compared with.

Puts the protocols together; knows tracks and nothing about how they came about.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

from sim.evaluation import carla_score, comfort, nuplan_score, pdm_score
from sim.evaluation.carla_score import CARLA_KINDS, RouteRecord, driving_score
from sim.evaluation.nuplan_score import NuplanScores
from sim.evaluation.pdm_score import WindowScores
from sim.evaluation.track import DT_S, Track

MIN_SPEED_PARTS, LAST_PART_SHARE = 4, 0.95
# What stands against `success` beside not arriving.
FAILURES = (*CARLA_KINDS, "off_road")


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

    Quarters that were not driven to their end (the last one up to 95 % of the route), or without traffic that moves, do not
    count.
    """
    along = track.progress_m / max(track.route_length_m, 1e-9)
    part = np.minimum((MIN_SPEED_PARTS * along).astype(int), MIN_SPEED_PARTS - 1)
    driven = int(part[-1]) + (1 if track.arrived or along[-1] > LAST_PART_SHARE else 0)
    shares = []
    for quarter in range(driven):
        there = (part == quarter) & np.isfinite(track.traffic_mps)
        theirs = float(track.traffic_mps[there].sum())
        if theirs > 0.0:
            share = float(track.speed_mps[there].sum()) / theirs
            if share < 1.0:
                shares.append(max(share, 0.0))
    return tuple(shares)


def nuplan_scores(track: Track, expert: Track) -> NuplanScores:
    """nuPlan's sub-scores of a whole episode."""
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
        c=_comfortable(track, slice(None)),
    )


def _at_fault(track: Track, first: int, last: int, anew: bool = False) -> dict[str, int]:
    """Class to the number of others first hit after tick `first` up to tick `last`, through the ego's fault.

    anew: whoever was hit before `first` counts again, as in NAVSIM, to which every window is a scene of its own.
    """
    hit: dict[int, str] = {}
    known: set[int] = set()
    for contact in track.contacts:
        if anew and contact.tick <= first:
            continue
        fresh = contact.other not in known
        known.add(contact.other)
        if fresh and contact.at_fault and first < contact.tick <= last:
            hit[contact.other] = contact.kind
    return dict(Counter(hit.values()))


def window_scores(track: Track, expert: Track) -> list[tuple[int, int, tuple[WindowScores, WindowScores]]]:
    """Windows of 4 s: first and last tick, and the sub-scores of the ego and of the expert.

    The expert's window begins where the ego's does: of its states within 5 m of there along the route, at that nearest in time.
    """
    result = []
    for first, last in pdm_score.windows(track.ticks, DT_S):
        begin = float(track.progress_m[first])
        own, human, its_progress = _window(track, first, last), WindowScores(), 0.0
        near = np.flatnonzero(np.abs(expert.progress_m - begin) <= pdm_score.LEAST_PROGRESS_M)
        there = int(near[np.argmin(np.abs(near - first))]) if len(near) else expert.ticks
        until = min(there + last - first, expert.ticks - 1)
        if there < until:
            human = _window(expert, there, until)
            its_progress = float(expert.progress_m[until] - expert.progress_m[there])
        own = own.with_progress(float(track.progress_m[last]) - begin, human, its_progress)
        result.append((first, last, (own, human)))
    return result


def _comfortable(track: Track, inside: slice, one_fit: bool = False) -> float:
    motion = comfort.motion_of(
        track.speed_mps[inside],
        track.acceleration_mps2[inside],
        track.yaw_rad[inside],
        track.yaw_rate_radps[inside],
        DT_S,
        one_fit,
    )
    return 1.0 if bool(comfort.comfortable(motion).all()) else 0.0


def _window(track: Track, first: int, last: int) -> WindowScores:
    """All but progress."""
    inside = slice(first, last + 1)
    red = any(i.kind == "red_light" and first < i.tick <= last for i in track.infractions)
    against = track.driven_m[first + 1 : last + 1] * track.against_flow[first + 1 : last + 1]
    hit = _at_fault(track, first, last, anew=True)
    meets = np.isfinite(track.pdm_ttc_s[inside])
    meets[0] &= track.pdm_ttc_s[first] > 0.0  # who is hit at the first state was hit in the window before
    return WindowScores(
        nc=pdm_score.no_collision(hit),
        dac=0.0 if bool((track.off_drivable_m[inside] > 0.0).any()) else 1.0,
        ddc=nuplan_score.driving_direction(against, DT_S),
        tlc=0.0 if red else 1.0,
        ttc=0.0 if hit or bool(meets.any()) else 1.0,
        c=_comfortable(track, inside, one_fit=True),
        lk=pdm_score.lane_keeping(track.lane_offset_m[inside], track.in_junction[inside], DT_S),
        hc=_comfortable(track, slice(max(first - pdm_score.HISTORY_TICKS, 0), last + 1)),
    )


def as_plain(scores: EpisodeScores) -> dict[str, object]:
    """The scores as JSON values."""
    plain = asdict(scores)
    plain["windows"] = [
        {"first": first, "last": last, **{name: value for name, value in parts.items()}}
        for first, last, parts in plain["windows"]
    ]
    return plain
