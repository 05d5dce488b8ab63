"""What a policy is, and what a rule-based driver may see. Knows numpy only; knows nothing about the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Observation = Mapping[str, NDArray[np.generic]]


class SignalState(IntEnum):
    """State of the signal that governs the ego's next stop line."""

    NONE = 0
    RED = 1
    YELLOW = 2
    GREEN = 3


class NavigationCommand(IntEnum):
    """The next manoeuvre along the route; names and values of CARLA's `RoadOption`.

    LEFT, RIGHT, STRAIGHT: through a junction where one can go elsewhere or meets others; STRAIGHT where the way through it turns by
    less than 30 degrees. CHANGE_LANE_LEFT, CHANGE_LANE_RIGHT: to the lane beside. LANE_FOLLOW: nothing of these before the goal.
    """

    LEFT = 1
    RIGHT = 2
    STRAIGHT = 3
    LANE_FOLLOW = 4
    CHANGE_LANE_LEFT = 5
    CHANGE_LANE_RIGHT = 6


@dataclass(frozen=True)
class Situation:
    """The privileged view of a rule-based driver: N egos at once, arrays owned and reused by the producer.

    speed_mps, speed_limit_mps: (N,) float64.
    route_in_ego: (N, ROUTE_POINTS, 2) float32, metres, as in `SensorFrame`.
    goal_distance_m: (N,) float64 along the route.
    leader_gap_m, leader_speed_mps: (N,) float64; bumper to bumper along the route, inf where there is none.
    stop_line_distance_m: (N,) float64; from the front bumper to the next stop line with a signal, inf if none.
    signal: (N,) int8, `SignalState` at that line.
    yield_distance_m: (N,) float64; from the front bumper to the line at which right of way has to be given
        now (somebody with priority comes, the junction is taken or cannot be cleared, what blocks the lane cannot be passed
        yet); inf where there is none.
    path_in_ego: (N, ROUTE_POINTS, 2) float32, metres: the route, swung around what stands or creeps on it where that can be
        passed now; None where nobody plans it, which means the route.
    command: (N,) int8 `NavigationCommand`; command_distance_m: (N,) float64 from the front bumper to where that manoeuvre begins,
        0 during it; to the goal with LANE_FOLLOW. None where nobody gives commands.
    """

    speed_mps: NDArray[np.float64]
    speed_limit_mps: NDArray[np.float64]
    route_in_ego: NDArray[np.float32]
    goal_distance_m: NDArray[np.float64]
    leader_gap_m: NDArray[np.float64]
    leader_speed_mps: NDArray[np.float64]
    stop_line_distance_m: NDArray[np.float64]
    signal: NDArray[np.int8]
    yield_distance_m: NDArray[np.float64]
    path_in_ego: NDArray[np.float32] | None = None
    command: NDArray[np.int8] | None = None
    command_distance_m: NDArray[np.float64] | None = None


class Policy(Protocol):
    """A driver of N cars at once.

    `observation` is the batched observation of the environment, leading dimension N. `situation` is the
    privileged view, or None where nobody knows it (recorded logs): a policy that needs it then raises ValueError.
    """

    @property
    def name(self) -> str: ...

    def reset(self, started: NDArray[np.bool_]) -> None:
        """Forget what is remembered of those cars (N,) whose episode starts now."""

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        """Actions (N, 2) float32 in [-1, 1]: steer, throttle."""
