"""One step of an episode, as the loop shows it to its observers and as a log gives it back.

Knows the contract of perception and planning; knows nothing about how a world or a log works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perception.sensors import SensorFrame
from planning.action import Action


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


@dataclass(frozen=True)
class Step:
    """What was sensed at one tick, what the policy then did, and what arriving at this tick had brought.

    action: chosen on `frame` and applied afterwards; None at the last step of an episode and where a log holds none.
    reward, reward_terms, events: of the tick that led here (0 and empty at tick 0). events: name of the event to a
        sentence for people, e.g. {"red_light": "crossed the stop line of signal 3 at red"}.
    actors: None where unknown. signals: (G,) int8 state of every signal link, None where unknown.
    progress_m, route_length_m: furthest arc length reached along the route, and its length; None without a route.
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


class StepObserver(Protocol):
    """Somebody who watches an episode (recorder, video, metrics). `close` comes once, also after an error."""

    def on_step(self, step: Step) -> None: ...

    def close(self) -> None: ...
