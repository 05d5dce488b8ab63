"""Plain figures of an episode: rates over distance and time, comfort, energy, and success as other benchmarks count it.

Knows tracks; knows nothing about how they came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.evaluation import comfort
from sim.evaluation.track import DT_S, Track

ARRIVED_WITHIN_M = 5.0
MASS_FREE_RESISTANCE = (0.12, 0.0004)  # rolling m/s2 and drag 1/m of the sedan, per kilogram
COLLISIONS = ("collision_vehicle", "collision_pedestrian", "collision_static")


@dataclass(frozen=True)
class EpisodeRates:
    """driven_m, duration_s, mean_speed_mps. counts: kind of infraction to how often.

    metadrive_success: within 5 m of the end, with no collision and never off the road. waymo_overlap, waymo_off_road,
    waymo_wrong_way: share of the ticks in which the ego overlaps somebody, is off the road, or is against the flow.
    comfort_share: of the ticks in which all of nuPlan's bounds hold. energy_kj_per_kg_km: work of the wheels a kilometre for
    each kilogram of the car, braking not given back.
    """

    driven_m: float
    duration_s: float
    mean_speed_mps: float
    counts: dict[str, int]
    metadrive_success: bool
    waymo_overlap: float
    waymo_off_road: float
    waymo_wrong_way: float
    comfort_share: float
    energy_kj_per_kg_km: float


def episode_rates(track: Track) -> EpisodeRates:
    """The figures of one track."""
    driven = float(track.driven_m.sum())
    counts = dict(sorted(Counter(infraction.kind for infraction in track.infractions).items()))
    near = track.route_length_m - float(track.progress_m[-1]) <= ARRIVED_WITHIN_M
    motion = comfort.motion_of(track.speed_mps, track.acceleration_mps2, track.yaw_rad, track.yaw_rate_radps, DT_S)
    rolling, drag = MASS_FREE_RESISTANCE
    push = np.maximum(track.acceleration_mps2 + rolling + drag * track.speed_mps**2, 0.0)
    work = float((push * track.driven_m).sum())
    return EpisodeRates(
        driven_m=driven,
        duration_s=track.duration_s,
        mean_speed_mps=driven / track.duration_s if track.duration_s > 0 else 0.0,
        counts=counts,
        metadrive_success=near and not any(counts.get(kind) for kind in (*COLLISIONS, "off_road")),
        waymo_overlap=float(np.mean(track.touching)),
        waymo_off_road=float(np.mean(track.off_drivable_m > 0.0)),
        waymo_wrong_way=float(np.mean(track.against_flow)),
        comfort_share=float(np.mean(comfort.comfortable(motion))),
        energy_kj_per_kg_km=work / driven if driven > 1.0 else 0.0,
    )


def per_100_km(count: int, driven_m: float) -> float:
    """How often something happens in 100 km; nan without any distance."""
    return 1e5 * count / driven_m if driven_m > 0 else float("nan")


def mean_time_between(counts: int, duration_s: float) -> float:
    """Seconds between infractions; infinite where there was none."""
    return duration_s / counts if counts else float("inf")


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one decision of a policy, ms."""

    mean_ms: float
    p99_ms: float


def latency_of(seconds: Sequence[float]) -> Latency:
    """Latency over the decisions of a run; zero without any."""
    if not seconds:
        return Latency(0.0, 0.0)
    milliseconds = 1e3 * np.asarray(seconds)
    return Latency(float(milliseconds.mean()), float(np.percentile(milliseconds, 99)))
