"""Signal programs: which link shows what at which time. Knows `RoadNetwork`; knows nothing about vehicles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.numba_setup import KERNEL
from sim.roads.network import RoadNetwork


class SignalPrograms(NamedTuple):
    """S programs over G links; times are whole milliseconds, so that no rounding adds up.

    link_start, phase_start: (S + 1,) int32 CSR. phase_end_ms: (phases,) int64, end of each phase within its cycle.
    phase_state: (phases, most links) int8 `SignalState`. offset_ms: (S,) int64.
    """

    link_start: NDArray[np.int32]
    phase_start: NDArray[np.int32]
    phase_end_ms: NDArray[np.int64]
    phase_state: NDArray[np.int8]
    offset_ms: NDArray[np.int64]


def build_signal_programs(network: RoadNetwork) -> SignalPrograms:
    """Programs of all signals of a network, their own memory."""
    duration_ms = np.round(network.phase_duration_s * 1000.0).astype(np.int64)
    ends = [np.cumsum(duration_ms[a:b]) for a, b in zip(network.phase_start[:-1], network.phase_start[1:], strict=True)]
    return SignalPrograms(
        network.signal_start.astype(np.int32),
        network.phase_start.astype(np.int32),
        np.concatenate([*ends, np.zeros(0, np.int64)]),
        np.ascontiguousarray(network.phase_state, np.int8).copy(),
        np.round(network.signal_offset_s * 1000.0).astype(np.int64),
    )


@njit(**KERNEL)
def show_signals(programs: SignalPrograms, time_ms: int, shown: NDArray[np.int8]) -> None:
    """Write the state of every link, (G,) int8, at a time. A signal at time t is in its cycle at t - offset."""
    for k in range(len(programs.offset_ms)):
        first, last = programs.phase_start[k], programs.phase_start[k + 1]
        links = programs.link_start[k + 1] - programs.link_start[k]
        if last == first:
            shown[programs.link_start[k] : programs.link_start[k + 1]] = 0
            continue
        at = (time_ms - programs.offset_ms[k]) % max(programs.phase_end_ms[last - 1], 1)
        phase = first
        while phase < last - 1 and at >= programs.phase_end_ms[phase]:
            phase += 1
        for i in range(links):
            shown[programs.link_start[k] + i] = programs.phase_state[phase, i]
