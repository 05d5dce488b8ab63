"""A recorded piece of traffic: where everybody was at each tick, and the road they were on.

Knows arrays; knows nothing about the formats that recordings come in, the world or sensors. World frame of the simulator:
metres, x east, y north, the recording's own coordinates less `origin_m`; heights are dropped, the world is flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

DECIMALS = 4  # of metres, radians and metres a second: what a scene keeps, so that it reads back from text as it was
MAX_ACTORS = 255
MAX_TICKS = 3000
FARTHEST_M = 150.0  # from the ego's path; what is further away is left out
MOST_DRIVEN_M = 5000.0
MOST_EXTENT_M = 3000.0  # of one lane, line or area; larger ones are left out
LONGEST_LINES_M = 200_000.0  # all lanes, lines and edges of a scene together
FURTHEST_COORDINATE_M = 1e7  # of a recording: more is no place on earth


class RecordingError(ValueError):
    """A recording that cannot be played: the message says which file, what is wrong and what to do."""


class LineKind(IntEnum):
    """What is painted along a road line."""

    DASHED_WHITE = 0
    SOLID_WHITE = 1
    DOUBLE_WHITE = 2
    DASHED_YELLOW = 3
    SOLID_YELLOW = 4
    DOUBLE_YELLOW = 5


class StandingKind(IntEnum):
    """What stands there for the whole recording."""

    BOLLARD = 0
    CONE = 1
    SIGN = 2
    STOP_SIGN = 3


@dataclass(frozen=True)
class RecordedLane:
    """points: (K, 2) float64 centre line in the direction of driving. followers: indices of the lanes that come after.

    bicycles: whether it is for bicycles alone.
    """

    points: F64
    width_m: float
    bicycles: bool
    followers: tuple[int, ...]


@dataclass(frozen=True)
class RoadLine:
    """points: (K, 2) float64."""

    kind: LineKind
    points: F64


@dataclass(frozen=True)
class SceneMap:
    """The road of a recording, as far as it says.

    drivable: polygons (K, 2), road. edges: polylines (K, 2) with the road on their left. crosswalks: polygons (K, 2).
    standing: (S, 6) float64 x, y, yaw, length, width, height of each of standing_kind (S,) int8 `StandingKind`.
    """

    lanes: tuple[RecordedLane, ...]
    lines: tuple[RoadLine, ...]
    drivable: tuple[F64, ...]
    edges: tuple[F64, ...]
    crosswalks: tuple[F64, ...]
    standing: F64
    standing_kind: NDArray[np.int8]


@dataclass(frozen=True)
class Tracks:
    """A actors over T ticks of 0.1 s.

    x_m, y_m, yaw_rad, speed_mps: (A, T) float64, centre of the box, heading and speed; of no meaning where present is false.
    present: (A, T) bool, without gaps: each actor comes once and goes once. size_m: (A, 3) float64 length, width, height.
    kind: (A,) int8 `sim.world.ActorKind`. name: of each in the recording.
    """

    x_m: F64
    y_m: F64
    yaw_rad: F64
    speed_mps: F64
    present: NDArray[np.bool_]
    size_m: F64
    kind: NDArray[np.int8]
    name: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.present.shape
        for field in ("x_m", "y_m", "yaw_rad", "speed_mps"):
            values = getattr(self, field)
            if values.shape != shape:
                raise ValueError(f"{field} must have shape {shape}, got {values.shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{field} must be finite")
        if self.size_m.shape != (shape[0], 3) or self.kind.shape != (shape[0],) or len(self.name) != shape[0]:
            raise ValueError(f"size_m, kind and name must be of {shape[0]} actors")

    @property
    def num_actors(self) -> int:
        return len(self.name)

    @property
    def num_ticks(self) -> int:
        return int(self.present.shape[1])


@dataclass(frozen=True)
class RecordedScene:
    """What one recording gives.

    name: of the recording. origin_m: (2,) float64, what was subtracted from its coordinates.
    others: everybody but the recorded car. ego: the recorded car alone, as one actor who is present throughout.
    limit_mps: speed limit that is assumed, as none was recorded. left_out: what was left out, kind to number.
    """

    name: str
    origin_m: F64
    others: Tracks
    ego: Tracks
    road: SceneMap
    limit_mps: float
    left_out: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.ego.num_actors != 1 or not self.ego.present.all():
            raise ValueError("the recorded car must be one actor who is present throughout")
        if self.ego.num_ticks != self.others.num_ticks:
            raise ValueError("the recorded car and the others must have the same number of ticks")
        self._check_extent()

    def _check_extent(self) -> None:
        """Raises ValueError for more road, or things further apart, than memory should be spent on."""
        path = np.stack([self.ego.x_m[0], self.ego.y_m[0]], axis=1)
        if np.ptp(path, axis=0).max() > MOST_DRIVEN_M:
            raise ValueError("the recorded car drives further than 5 km away; cut out a part")
        road = self.road
        lines = [lane.points for lane in road.lanes] + [line.points for line in road.lines] + [*road.edges]
        length = sum(float(np.hypot(*np.diff(points, axis=0).T).sum()) for points in [path, *lines])
        if not length <= LONGEST_LINES_M:
            raise ValueError(f"lanes and lines of {length / 1000:.0f} km in all, and 200 km at most are drawn")
        everything = np.concatenate([*lines, *road.drivable, *road.crosswalks, road.standing[:, :2], path])
        if (np.abs(everything - path[0]) > MOST_DRIVEN_M + MOST_EXTENT_M + FARTHEST_M).any():
            raise ValueError("the road, or what stands there, goes on for more than 8 km; cut out a part")

    @property
    def num_ticks(self) -> int:
        return self.ego.num_ticks


def rounded(values: F64 | float) -> F64:
    """Values as a scene keeps them; zero has no sign."""
    return np.asarray(np.round(values, DECIMALS) + 0.0, np.float64)
