"""NAVSIM's PDM scores, taken over the driven path in windows of 4 s: `pdms_driven_4s` and `epdms_driven_4s`.

NAVSIM scores a planned path; a policy that gives steering and throttle plans none, so what it then drove is scored, and the
term that compares successive plans (EC) is left out. Knows sub-scores; knows nothing about how they were gathered. Sources:
Dauner et al., NeurIPS 2024 (PDMS); Cao et al., arXiv:2506.04218 and navsim's documentation (EPDMS).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Flags = NDArray[np.bool_]

WINDOW_S = 4.0
HISTORY_S = 1.5  # of driving before the window that history comfort looks at
TTC_TIMES_S = (0.0, 0.3, 0.6, 0.9)
OFF_CENTER_M, OFF_CENTER_S = 0.5, 2.0
LEAST_PROGRESS_M = 5.0  # where neither drives further, progress says nothing


@dataclass(frozen=True)
class WindowScores:
    """Sub-scores of one window in [0, 1]."""

    nc: float = 1.0
    dac: float = 1.0
    ddc: float = 1.0
    tlc: float = 1.0
    ep: float = 1.0
    ttc: float = 1.0
    c: float = 1.0
    lk: float = 1.0
    hc: float = 1.0

    def pdms(self) -> float:
        """PDMS in [0, 1]."""
        return self.nc * self.dac * (5.0 * self.ep + 5.0 * self.ttc + 2.0 * self.c) / 12.0

    def epdms_without_plans(self) -> float:
        """EPDMS in [0, 1] without EC and its weight."""
        multipliers = self.nc * self.dac * self.ddc * self.tlc
        return multipliers * (5.0 * self.ep + 5.0 * self.ttc + 2.0 * self.lk + 2.0 * self.hc) / 14.0

    def waived_by(self, human: WindowScores) -> WindowScores:
        """A sub-score that the human also got 0 in counts as 1."""
        waived = {f.name: 1.0 for f in fields(self) if getattr(human, f.name) == 0.0}
        return WindowScores(**{f.name: waived.get(f.name, getattr(self, f.name)) for f in fields(self)})


def windows(ticks: int, dt_s: float) -> list[tuple[int, int]]:
    """First and last state of each window of a path with `ticks` states; the last window takes what is left."""
    length = round(WINDOW_S / dt_s)
    return [(first, min(first + length, ticks - 1)) for first in range(0, max(ticks - 1, 0), length)]


def window_progress(progress_m: float, human_progress_m: float) -> float:
    """EP of a window: the ego's progress over the better of the two; 1 where neither gets 5 m ahead."""
    best = max(progress_m, human_progress_m)
    return 1.0 if best < LEAST_PROGRESS_M else float(np.clip(progress_m / best, 0.0, 1.0))


def lane_keeping(offset_m: F64, in_junction: Flags, dt_s: float) -> float:
    """LK. offset_m: (T,) from the centre of the lane, nan where the ego is on none (which is off centre)."""
    off = ~(np.abs(offset_m) <= OFF_CENTER_M) & ~in_junction
    ticks, run = round(OFF_CENTER_S / dt_s), 0
    for is_off in off.tolist():
        run = run + 1 if is_off else 0
        if run > ticks:
            return 0.0
    return 1.0


def mean_over_windows(scores: list[float], states: list[tuple[int, int]]) -> float:
    """Mean of windows weighted by their length; 0 without any."""
    lengths = np.array([last - first for first, last in states], np.float64)
    return float(np.average(scores, weights=lengths)) if len(scores) else 0.0
