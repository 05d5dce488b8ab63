"""The driving score of CARLA's leaderboards 1.0, 2.0 and 2.1 for one route: completion times penalty.

Knows counts of infractions; knows nothing about how they were noticed. Sources: leaderboard.carla.org/evaluation_v1_0,
_v2_0 and _v2_1 (2.1 divides by a sum where the others multiply factors).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

CarlaVersion = Literal["1.0", "2.0", "2.1"]
CARLA_VERSIONS: tuple[CarlaVersion, ...] = ("1.0", "2.0", "2.1")

FACTOR_1_0 = MappingProxyType({
    "collision_pedestrian": 0.50,
    "collision_vehicle": 0.60,
    "collision_static": 0.65,
    "red_light": 0.70,
    "stop_sign": 0.80,
})  # fmt: skip
FACTOR_2_0 = MappingProxyType({**FACTOR_1_0, "scenario_timeout": 0.70, "yield_emergency": 0.70})
COEFFICIENT_2_1 = MappingProxyType({
    "collision_pedestrian": 1.00,
    "collision_vehicle": 0.70,
    "collision_static": 0.60,
    "red_light": 0.40,
    "stop_sign": 0.25,
    "scenario_timeout": 0.40,
    "yield_emergency": 0.40,
})  # fmt: skip
CARLA_KINDS = tuple(COEFFICIENT_2_1)
MIN_SPEED_2_0, MIN_SPEED_2_1 = 0.30, 0.40

COMPLETE_SHARE, COMPLETE_WITHIN_M = 0.99, 10.0


@dataclass(frozen=True)
class RouteRecord:
    """What one route brought. completion: share of the route in [0, 1]. counts: infraction (of CARLA_KINDS) to how often.

    off_lane_share: of the distance driven, outside the lanes or against the traffic, in [0, 1]. min_speed_shares: for each
    part of the route in which the ego was slower than the traffic around it, its speed as a share of theirs, in [0, 1].
    """

    completion: float
    counts: Mapping[str, int] = field(default_factory=dict)
    off_lane_share: float = 0.0
    min_speed_shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        shares = (self.completion, self.off_lane_share, *self.min_speed_shares)
        if not all(0.0 <= share <= 1.0 for share in shares):
            raise ValueError(f"completion, off_lane_share and min_speed_shares lie in [0, 1], got {shares}")
        unknown = set(self.counts) - set(CARLA_KINDS)
        if unknown or any(count < 0 for count in self.counts.values()):
            raise ValueError(f"counts must be of {CARLA_KINDS} and not negative, got {dict(self.counts)}")


def penalty(record: RouteRecord, version: CarlaVersion) -> float:
    """The factor P in [0, 1] that infractions leave."""
    inside = 1.0 - record.off_lane_share
    match version:
        case "1.0":
            return inside * _product(record, FACTOR_1_0)
        case "2.0":
            slow = 1.0
            for share in record.min_speed_shares:
                slow *= 1.0 - MIN_SPEED_2_0 * (1.0 - share)
            return inside * slow * _product(record, FACTOR_2_0)
        case "2.1":
            points = sum(COEFFICIENT_2_1[kind] * count for kind, count in record.counts.items())
            points += sum(MIN_SPEED_2_1 * (1.0 - share) for share in record.min_speed_shares)
            return inside / (1.0 + points)


def _product(record: RouteRecord, factors: Mapping[str, float]) -> float:
    result = 1.0
    for kind, factor in factors.items():
        result *= factor ** record.counts.get(kind, 0)
    return result


def driving_score(record: RouteRecord, version: CarlaVersion) -> float:
    """Completion in percent times penalty, 0 to 100. The score of several routes is the mean of theirs."""
    return 100.0 * record.completion * penalty(record, version)


def is_complete(progress_m: float, length_m: float) -> bool:
    """Whether a route counts as completed: over 99 % of it, and within 10 m of its end."""
    return progress_m > COMPLETE_SHARE * length_m and length_m - progress_m < COMPLETE_WITHIN_M


def completion(progress_m: float, length_m: float) -> float:
    """Share of a route that was driven, in [0, 1]; 1 where it counts as completed."""
    if is_complete(progress_m, length_m):
        return 1.0
    return min(max(progress_m / max(length_m, 1e-9), 0.0), 1.0)
