"""Keeps what happens in the scenarios of a batch, tick by tick, for the checks at their ends.

Knows the world's state; knows nothing about checks or families.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.scenarios.checks import Trace
from sim.world import World

FIELDS = ("x_m", "y_m", "yaw_rad", "speed_mps", "acceleration_mps2")


class TraceRecorder:
    """Copies of the ego's and the actors' columns after every tick, of all environments at once; memory grows with the ticks of
    the longest episode that runs. An actor that has gone stays gone, whoever drives in its place."""

    def __init__(self, world: World, actors: int) -> None:
        """actors: at most so many in one environment."""
        self._world, self._columns = world, actors + 1
        self._ticks: list[dict[str, NDArray[Any]]] = []
        self._begin = np.zeros(world.num_envs, np.int64)
        shape = (world.num_envs, self._columns)
        self._there, self._length_m, self._width_m = np.zeros(shape, np.bool_), np.zeros(shape), np.zeros(shape)

    def begin(self, started: NDArray[np.bool_]) -> None:
        """Forget the episodes before in those environments (E,), where others have just begun."""
        state = self._world.state
        self._there[started] = state.active[started, : self._columns] != 0
        self._length_m[started] = state.length_m[started, : self._columns]
        self._width_m[started] = state.width_m[started, : self._columns]
        self._begin[started] = len(self._ticks)
        over = int(self._begin.min())
        del self._ticks[:over]
        self._begin -= over

    def record(self) -> None:
        """Take down the tick that has just been."""
        state, view = self._world.state, self._world.situation()
        tick: dict[str, NDArray[Any]] = {name: getattr(state, name)[:, : self._columns].copy() for name in FIELDS}
        self._there &= state.active[:, : self._columns] != 0
        tick["active"] = self._there.copy()
        tick["stage"] = self._world.stages()[:, : self._columns].copy()
        tick["s"] = self._world.events.progress_m.copy()
        tick["stop_line"], tick["signal"] = view.stop_line_distance_m.copy(), view.signal.copy()
        self._ticks.append(tick)

    def trace(self, e: int, infractions: frozenset[str]) -> Trace:
        """What has happened in environment e since its episode began."""
        ticks = self._ticks[self._begin[e] :]

        def all_of(name: str) -> NDArray[Any]:
            return np.array([tick[name][e] for tick in ticks])

        return Trace(
            ego_s_m=all_of("s"), x_m=all_of("x_m"), y_m=all_of("y_m"), yaw_rad=all_of("yaw_rad"),
            speed_mps=all_of("speed_mps"), acceleration_mps2=all_of("acceleration_mps2"),
            active=all_of("active"), stage=all_of("stage"),
            length_m=self._length_m[e].copy(), width_m=self._width_m[e].copy(),
            stop_line_m=all_of("stop_line"), signal=all_of("signal"),
            arrived=bool(self._world.events.arrived[e]), infractions=infractions,
        )  # fmt: skip
