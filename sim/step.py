"""One step of an episode, as the loop shows it to its observers and as a log gives it back.

Knows the contract of perception and planning; knows nothing about how a world or a log works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.sensors import SensorFrame
from planning.action import Action
from planning.policy import NavigationCommand


@dataclass(frozen=True)
class Actors:
    """M actors other than the ego, world frame, SI.

    instance: int32, stable over an episode. kind: int8 `sim.world.ActorKind`. center: (M, 3) float64, centre of the
    bounding box. size: (M, 3) float64 length width height. yaw_rad, speed_mps: (M,) float64.
    """

    instance: NDArray[np.int32]
    kind: NDArray[np.int8]
    center: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    speed_mps: NDArray[np.float64]


class ParkedVehicle(NamedTuple):
    """A vehicle of the scenery: its number as in `Standing.touched`, and its box, world frame, m and rad."""

    other: int
    x_m: float
    y_m: float
    yaw_rad: float
    length_m: float
    width_m: float


@dataclass(frozen=True)
class Standing:
    """Where the ego stands among roads, rules and others at a tick: what scores need to know and no sensor says.

    length_m, width_m: of the ego's box; center_ahead_m: from the ego frame's origin forward to its centre.
    lane_offset_m: of the box's centre from the centre line of the nearest lane that leads its way, left positive; None where
        there is none within 3 m. in_junction: that lane leads through a junction. in_several_lanes: the box reaches beyond
        that lane. off_lanes: the centre is over 0.5 m outside it. against_flow: it is over a lane that leads the other way,
        and over none that leads its own. speed_limit_mps: on the route.
    off_drivable_m: distance of the furthest corner of the box from drivable ground, 0 to 1.
    stop_sign: number of the route's next junction lane behind a stop sign, or of the one under the front bumper, else -1;
        stop_sign_distance_m: from the front bumper to its line, negative behind it.
    signal, signal_distance_m: the same of the route's next signal, index of its link in `Step.signals`, until the tail is 6 m
        behind the line; signal is None where unknown.
    touched: whom the box overlaps: the instance of an actor, or -(k + 1) for a static thing, k being its first solid.
    parked: vehicles of the scenery that the box touches, or would within 3 s going straight on; None where unknown.
    """

    length_m: float
    width_m: float
    center_ahead_m: float
    lane_offset_m: float | None
    speed_limit_mps: float
    off_drivable_m: float
    in_junction: bool
    in_several_lanes: bool
    off_lanes: bool
    against_flow: bool
    stop_sign: int
    stop_sign_distance_m: float | None
    signal: int | None
    signal_distance_m: float | None
    touched: tuple[int, ...]
    parked: tuple[ParkedVehicle, ...] | None


@dataclass(frozen=True)
class Step:
    """What was sensed at one tick, what the policy then did, and what arriving at this tick had brought.

    action: chosen on `frame` and applied afterwards; None at the last step of an episode and where a log holds none.
    reward, reward_terms, events: of the tick that led here (0 and empty at tick 0). events: name of the event to a
        sentence for people, e.g. {"red_light": "crossed the stop line of signal 3 at red"}.
    actors: None where unknown. signals: (G,) int8 state of every signal link, None where unknown.
    progress_m, route_length_m: furthest arc length reached along the route, and its length; None without a route.
    command, command_distance_m: next manoeuvre along the route and distance to it; None where unknown, as in logs.
    standing: None where unknown.
    """

    tick: int
    timestamp_us: int
    frame: SensorFrame
    action: Action | None
    reward: float = 0.0
    reward_terms: Mapping[str, float] = field(default_factory=dict)
    events: Mapping[str, str] = field(default_factory=dict)
    actors: Actors | None = None
    signals: NDArray[np.int8] | None = None
    progress_m: float | None = None
    route_length_m: float | None = None
    command: NavigationCommand | None = None
    command_distance_m: float | None = None
    standing: Standing | None = None


class StepObserver(Protocol):
    """Somebody who watches an episode (recorder, video, metrics). `close` comes once, also after an error."""

    def on_step(self, step: Step) -> None: ...

    def close(self) -> None: ...
