"""The batched world: E environments with A agents each, agent 0 being the ego.

State is arrays; kernels update them in place. Knows roads and traffic; knows nothing about sensors, rewards or torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

TICK_S = 0.1
TICK_US = 100_000
EGO = 0


class ActorKind(IntEnum):
    CAR = 0
    VAN = 1
    TRUCK = 2
    BUS = 3
    MOTORCYCLE = 4
    BICYCLE = 5
    PEDESTRIAN = 6


class CollisionKind(IntEnum):
    NONE = 0
    VEHICLE = 1
    PEDESTRIAN = 2
    STATIC = 3


@dataclass(frozen=True)
class WorldState:
    """Arrays of E environments and A agents, allocated once and updated in place by the world's kernels.

    seed: (E,) uint64. episode, tick: (E,) int64.
    active: (E, A) uint8. kind: (E, A) int8 `ActorKind`.
    x_m, y_m, yaw_rad: (E, A) float64: centre of the bounding box on the ground, and heading.
    rear_axle_m: (E, A) float64: distance from the rear axle forward to that centre (so the ego frame's origin is the
        centre minus rear_axle_m along the heading).
    length_m, width_m, height_m: (E, A) float64. speed_mps, acceleration_mps2, yaw_rate_radps, steer_rad: (E, A) float64.
    brake_light: (E, A) uint8. indicator: (E, A) int8, 1 left, -1 right. paint: (E, A, 3) uint8 RGB.
    last_action: (E, 2) float32, as applied to the ego.
    signal: (E, G) int8 `planning.policy.SignalState` of every signal link.
    """

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


@dataclass(frozen=True)
class WorldEvents:
    """What the last tick brought to each ego, (E,) each; arrays updated in place.

    collision: int8 `CollisionKind`. red_light, off_road, off_route, wrong_way, stuck, arrived: uint8 flags.
        off_road: a corner of the ego has left the drivable ground. stuck: below 0.1 m/s for stuck_after_s without a
        reason in front (red light, leader). off_route: over 30 m from the route.
    progress_m: float64, furthest arc length reached along the route. route_length_m: float64.
    lateral_m: float64, signed distance of the ego's centre from the route's lane centre, left positive.
    """

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
