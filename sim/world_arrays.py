"""The arrays of a batch of worlds, in the form that numba takes: tuples of them.

Knows which arrays there are; knows nothing about what happens to them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rules(NamedTuple):
    """Numbers of `WorldConfig` that the kernels need, SI, and the ego as (1,) `dynamics.VEHICLE`."""

    traffic_density: float
    route_min_m: float
    route_max_m: float
    speed_factor_spread: float
    spawn_radius_m: float
    respawn_distance_m: float
    stuck_after_s: float
    stop_below_mps: float
    rule_breakers: float
    walkers: int
    car: NDArray[np.void]


class Hidden(NamedTuple):
    """What the world remembers beside its public state, leading dimension E.

    cars (E, A) `CAR`, paths (E, A, PATH) int32, egos (E,) `EGO`, route_lane (E, R) int32, route_from (E, R) float64, line
    (E, P, 3) float64, claims (E, A * CLAIMS) `CLAIM` and their number (E,), spans (E, S) `SPAN` and their number (E,), late (E, G)
    int8: what signals showed LATE_MS ago, walkers (E, W) `WALKER`, the last W agents, scripts (E, A) `SCRIPT`, script_paths
    (E, A, PATH) int32: the lanes that a script knows, else -1, scenes (E,) `SCENE`, followers (E, F) `FOLLOWER`, the agents
    after the ego where a recording is played, else none.
    """

    cars: NDArray[np.void]
    paths: NDArray[np.int32]
    egos: NDArray[np.void]
    route_lane: NDArray[np.int32]
    route_from: NDArray[np.float64]
    line: NDArray[np.float64]
    claims: NDArray[np.void]
    num_claims: NDArray[np.int64]
    spans: NDArray[np.void]
    num_spans: NDArray[np.int64]
    late: NDArray[np.int8]
    walkers: NDArray[np.void]
    scripts: NDArray[np.void]
    script_paths: NDArray[np.int32]
    scenes: NDArray[np.void]
    followers: NDArray[np.void]


class State(NamedTuple):
    """The arrays of `sim.world.WorldState`, in its order."""

    seed: NDArray[np.uint64]
    episode: NDArray[np.int64]
    tick: NDArray[np.int64]
    active: NDArray[np.uint8]
    kind: NDArray[np.int8]
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    rear_axle_m: NDArray[np.float64]
    length_m: NDArray[np.float64]
    width_m: NDArray[np.float64]
    height_m: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    acceleration_mps2: NDArray[np.float64]
    yaw_rate_radps: NDArray[np.float64]
    steer_rad: NDArray[np.float64]
    brake_light: NDArray[np.uint8]
    indicator: NDArray[np.int8]
    paint: NDArray[np.uint8]
    last_action: NDArray[np.float32]
    signal: NDArray[np.int8]


class Events(NamedTuple):
    """The arrays of `sim.world.WorldEvents`, in its order."""

    collision: NDArray[np.int8]
    red_light: NDArray[np.uint8]
    off_road: NDArray[np.uint8]
    off_route: NDArray[np.uint8]
    wrong_way: NDArray[np.uint8]
    stuck: NDArray[np.uint8]
    arrived: NDArray[np.uint8]
    progress_m: NDArray[np.float64]
    route_length_m: NDArray[np.float64]
    lateral_m: NDArray[np.float64]
    replans: NDArray[np.int32]


class View(NamedTuple):
    """The arrays of `planning.policy.Situation`, in its order."""

    speed_mps: NDArray[np.float64]
    speed_limit_mps: NDArray[np.float64]
    route_in_ego: NDArray[np.float32]
    goal_distance_m: NDArray[np.float64]
    leader_gap_m: NDArray[np.float64]
    leader_speed_mps: NDArray[np.float64]
    stop_line_distance_m: NDArray[np.float64]
    signal: NDArray[np.int8]
    yield_distance_m: NDArray[np.float64]
    path_in_ego: NDArray[np.float32]
    command: NDArray[np.int8]
    command_distance_m: NDArray[np.float64]
