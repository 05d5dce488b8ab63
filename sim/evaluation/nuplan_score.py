"""nuPlan's closed-loop score of one scenario: multipliers for safety and rules, times a weighted mean of the rest.

Knows arrays over ticks; knows nothing about how they were gathered. Sources: nuplan-devkit's metrics documentation and the
aggregator that it ships (`closed_loop_nonreactive_agents_weighted_average`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

# At-fault collisions that leave something of the score, by class.
ALLOWED_COLLISIONS = MappingProxyType({"vehicle": 0, "pedestrian": 0, "static": 1})
OFF_DRIVABLE_M = 0.3
LEAST_PROGRESS_SHARE = 0.2
LEAST_PROGRESS_M = 2.0  # the shipped value; the public text says 0.1 m
AGAINST_FLOW_S, AGAINST_FLOW_M, FAR_AGAINST_FLOW_M = 1.0, 2.0, 6.0
LEAST_TTC_S = 0.95
OVERSPEED_MPS = 2.23


@dataclass(frozen=True)
class NuplanScores:
    """Sub-scores in [0, 1] by nuPlan's abbreviations, lower case."""

    nc: float
    dac: float
    mp: float
    ddc: float
    ep: float
    ttc: float
    sl: float
    c: float

    def total(self) -> float:
        """The closed-loop score in [0, 1]."""
        multipliers = self.nc * self.dac * self.mp * self.ddc
        return multipliers * (5.0 * self.ep + 5.0 * self.ttc + 4.0 * self.sl + 2.0 * self.c) / 16.0


def no_collision(at_fault: Mapping[str, int]) -> float:
    """NC. at_fault: class (vehicle, pedestrian, static) to the number of others hit through the ego's own fault."""
    result = 1.0
    for kind, count in at_fault.items():
        result *= max(0.0, 1.0 - count / (ALLOWED_COLLISIONS[kind] + 1))
    return result


def drivable_area(off_drivable_m: F64) -> float:
    """DAC. off_drivable_m: (T,) distance of the furthest corner from drivable ground."""
    return 0.0 if bool((off_drivable_m >= OFF_DRIVABLE_M).any()) else 1.0


def driving_direction(against_m: F64, dt_s: float) -> float:
    """DDC. against_m: (T,) metres driven against the flow in each tick; as there, a tick and those of the second before it."""
    ticks = round(AGAINST_FLOW_S / dt_s) + 1
    total = np.concatenate([[0.0], np.cumsum(against_m)])
    ends = np.arange(1, len(total))
    furthest = float((total[ends] - total[np.maximum(ends - ticks, 0)]).max(initial=0.0))
    return 1.0 if furthest < AGAINST_FLOW_M else 0.5 if furthest < FAR_AGAINST_FLOW_M else 0.0


def ego_progress(progress_m: float, expert_progress_m: float) -> float:
    """EP: the ego's progress over the expert's."""
    return min(max(progress_m, LEAST_PROGRESS_M) / max(expert_progress_m, LEAST_PROGRESS_M), 1.0)


def making_progress(ep: float) -> float:
    """MP."""
    return 1.0 if ep >= LEAST_PROGRESS_SHARE else 0.0


def time_to_collision(least_ttc_s: F64) -> float:
    """TTC. least_ttc_s: (T,), inf where nothing is met within the horizon."""
    return 0.0 if bool((least_ttc_s < LEAST_TTC_S).any()) else 1.0


def speed_limit(speed_mps: F64, limit_mps: F64, dt_s: float) -> float:
    """SL. speed_mps, limit_mps: (T,) states, T - 1 ticks of dt_s apart; 1 for a single one."""
    overspeed = np.maximum(speed_mps - limit_mps, 0.0)
    duration_s = (len(speed_mps) - 1) * dt_s
    return max(0.0, 1.0 - float(overspeed.sum()) * dt_s / (OVERSPEED_MPS * duration_s)) if duration_s > 0.0 else 1.0
