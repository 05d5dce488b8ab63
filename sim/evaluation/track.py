"""What an episode leaves behind for scores: arrays over its ticks, and who was hit and what went wrong where.

Knows plain values and JSON; knows nothing about steps, worlds or logs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Flags = NDArray[np.bool_]

DT_S = 0.1


@dataclass(frozen=True)
class Contact:
    """The tick at which the ego's box begins to overlap another's. kind: vehicle (a parked one too), pedestrian or static."""

    tick: int
    other: int
    kind: str
    at_fault: bool


@dataclass(frozen=True)
class Infraction:
    """Something that went wrong: kind, when, where the centre of the ego was (world, m), and a sentence."""

    kind: str
    tick: int
    x_m: float
    y_m: float
    sentence: str


@dataclass(frozen=True)
class Track:
    """T states of one episode, DT_S apart, the first at rest at the start. Arrays are (T,).

    x_m, y_m, yaw_rad: centre of the ego's box. speed_mps, acceleration_mps2, yaw_rate_radps, steer, throttle: of the ego.
    progress_m: furthest along the route. speed_limit_mps, lane_offset_m (nan on no lane), off_drivable_m, in_junction,
    off_lanes, against_flow: as in `sim.step.Standing`. wrong_way: against the flow where nothing excuses it. touching: the
    box overlaps another. ttc_s: least time to a collision as nuPlan checks it with those not hit so far, inf if none; pdm_ttc_s:
    the same at NAVSIM's times, 0 with who is hit at this tick. traffic_mps: mean speed of the motor vehicles around, nan where
    there are none.
    """

    x_m: F64
    y_m: F64
    yaw_rad: F64
    speed_mps: F64
    acceleration_mps2: F64
    yaw_rate_radps: F64
    steer: F64
    throttle: F64
    progress_m: F64
    speed_limit_mps: F64
    lane_offset_m: F64
    off_drivable_m: F64
    in_junction: Flags
    off_lanes: Flags
    against_flow: Flags
    wrong_way: Flags
    touching: Flags
    ttc_s: F64
    pdm_ttc_s: F64
    traffic_mps: F64
    route_length_m: float
    arrived: bool
    contacts: tuple[Contact, ...]
    infractions: tuple[Infraction, ...]

    @property
    def ticks(self) -> int:
        """States, the first included."""
        return len(self.x_m)

    @property
    def duration_s(self) -> float:
        return max(self.ticks - 1, 0) * DT_S

    @property
    def driven_m(self) -> F64:
        """(T,) distance of each tick, 0 for the first."""
        return np.concatenate([[0.0], np.hypot(np.diff(self.x_m), np.diff(self.y_m))])

    def as_json(self) -> dict[str, Any]:
        """Plain values that `from_json` takes back to the same bits; NaN and infinity become null and "inf"."""
        return {name: _plain(value) for name, value in self.__dict__.items()}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Track:
        """Raises KeyError, TypeError or ValueError where the fields are not those of a track."""
        arrays: dict[str, Any] = {}
        for name in Track.__dataclass_fields__:
            value = fields[name]
            match name:
                case "contacts":
                    arrays[name] = tuple(Contact(**entry) for entry in value)
                case "infractions":
                    arrays[name] = tuple(Infraction(**entry) for entry in value)
                case "route_length_m" | "arrived":
                    arrays[name] = value
                case _ if name in FLAGS:
                    arrays[name] = np.array(value, np.bool_)
                case _:
                    arrays[name] = np.array([np.nan if v is None else float(v) for v in value], np.float64)
        return Track(**arrays)


COLUMNS = tuple(name for name, kind in Track.__annotations__.items() if kind in ("F64", "Flags"))
FLAGS = tuple(name for name, kind in Track.__annotations__.items() if kind == "Flags")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        listed = value.tolist()
        if value.dtype != np.float64:
            return listed
        return [None if v != v else "inf" if v == float("inf") else v for v in listed]
    if isinstance(value, tuple):
        return [asdict(entry) for entry in value]
    return value
