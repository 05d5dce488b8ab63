"""NAVSIM's PDM scores, taken over the driven path in windows of 4 s: `pdms_driven_4s` and `epdms_driven_4s`.

NAVSIM scores a planned path; a policy that gives steering and throttle plans none, so what it then drove is scored, and the
term that compares successive plans (EC) is left out. Knows sub-scores; knows nothing about how they were gathered. Sources:
Dauner et al., NeurIPS 2024 (PDMS); Cao et al., arXiv:2506.04218 and navsim's documentation (EPDMS).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Flags = NDArray[np.bool_]

WINDOW_S = 4.0
HISTORY_TICKS = 14  # before the window, that history comfort looks at too
TTC_TIMES_S = (0.0, 0.3, 0.6, 0.9)
OFF_CENTER_M, OFF_CENTER_S = 0.5, 2.0
LEAST_PROGRESS_M = 5.0  # where neither drives further, progress says nothing
# What a single collision through the ego's fault leaves, by class.
LEFT_BY_COLLISION = MappingProxyType({"vehicle": 0.0, "pedestrian": 0.0, "static": 0.5})
WAIVED = ("nc", "dac", "ddc", "tlc", "ttc", "lk")


@dataclass(frozen=True)
class WindowScores:
    """Sub-scores of one window in [0, 1]. ep and c: of PDMS; extended_ep and hc take their places in EPDMS."""

    nc: float = 1.0
    dac: float = 1.0
    ddc: float = 1.0
    tlc: float = 1.0
    ep: float = 1.0
    ttc: float = 1.0
    c: float = 1.0
    lk: float = 1.0
    hc: float = 1.0
    extended_ep: float = 1.0

    def safety(self) -> float:
        """Product of the multipliers of PDMS."""
        return self.nc * self.dac

    def extended_safety(self) -> float:
        """Product of the multipliers of EPDMS."""
        return self.nc * self.dac * self.ddc * self.tlc

    def pdms(self) -> float:
        """PDMS in [0, 1]."""
        return self.safety() * (5.0 * self.ep + 5.0 * self.ttc + 2.0 * self.c) / 12.0

    def epdms_without_plans(self) -> float:
        """EPDMS in [0, 1] without EC and its weight."""
        rest = 5.0 * self.extended_ep + 5.0 * self.ttc + 2.0 * self.lk + 2.0 * self.hc
        return self.extended_safety() * rest / 14.0

    def waived_by(self, human: WindowScores) -> WindowScores:
        """A sub-score of WAIVED that the human also got 0 in counts as 1. NAVSIM gives the human no history, so HC never does."""
        return replace(self, **{name: 1.0 for name in WAIVED if getattr(human, name) == 0.0})

    def with_progress(self, progress_m: float, human: WindowScores, human_progress_m: float) -> WindowScores:
        """The same with EP of both scores: progress over the better of the two, each first multiplied by its multipliers.

        Where the better one is not ahead by more than LEAST_PROGRESS_M, EP is 1; in PDMS it is 0 for who has lost all.
        """
        own = progress_m * self.safety()
        best = max(own, human_progress_m * human.safety())
        extended_best = max(progress_m * self.extended_safety(), human_progress_m * human.extended_safety())
        ep = own / best if best > LEAST_PROGRESS_M else float(self.safety() > 0.0)
        extended = min(progress_m / extended_best, 1.0) if extended_best > LEAST_PROGRESS_M else 1.0
        return replace(self, ep=ep, extended_ep=extended)


def windows(ticks: int, dt_s: float) -> list[tuple[int, int]]:
    """First and last state of each window of a path with `ticks` states; the last window takes what is left."""
    length = round(WINDOW_S / dt_s)
    return [(first, min(first + length, ticks - 1)) for first in range(0, max(ticks - 1, 0), length)]


def no_collision(hit: Iterable[str]) -> float:
    """NC. hit: classes of those hit through the ego's own fault; the worst single collision counts."""
    return min((LEFT_BY_COLLISION[kind] for kind in hit), default=1.0)


def lane_keeping(offset_m: F64, in_junction: Flags, dt_s: float) -> float:
    """LK. offset_m: (T,) from the centre of the lane, nan where the ego is on none (which is off centre).

    What lies in a junction is left out: what comes before and after it adds up.
    """
    off = ~(np.abs(offset_m[~in_junction]) <= OFF_CENTER_M)
    ticks, run = round(OFF_CENTER_S / dt_s), 0
    for is_off in off.tolist():
        run = run + 1 if is_off else 0
        if run >= ticks:
            return 0.0
    return 1.0


def mean_over_windows(scores: list[float], states: list[tuple[int, int]]) -> float:
    """Mean of windows weighted by their length; 0 without any."""
    lengths = np.array([last - first for first, last in states], np.float64)
    return float(np.average(scores, weights=lengths)) if len(scores) else 0.0
