"""How a scenario's episode begins: the ego's route, and the scripts of those who play a part in it.

Knows the records that the world reads; knows nothing about which scenario it is, or about checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.traffic import scripts
from sim.traffic.scripts import LIKE_TRAFFIC
from sim.traffic.vehicles import BEHIND, PATH

Color = tuple[int, int, int]
GREY: Color = (150, 154, 158)


@dataclass(frozen=True)
class Actor:
    """One scripted agent; what the fields mean stands at `sim.traffic.scripts.SCRIPT`. SI units, world frame.

    path: the lanes from the one it begins on, as far as it matters; the rest is drawn. behind: the lanes before it, nearest
    first. An actor without a path stands at x_m, y_m, yaw_rad.
    """

    name: str
    kind: int
    path: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    s_m: float = 0.0
    x_m: float = 0.0
    y_m: float = 0.0
    yaw_rad: float = 0.0
    size: float = 0.5
    paint: Color = GREY
    speed_mps: float = 0.0
    lateral_m: float = 0.0
    lateral_acting_m: float | None = None
    lateral_after_m: float = 0.0
    sideways_mps: float = 1.1
    trigger: int = scripts.NEVER
    threshold: float = 0.0
    at_m: float = 0.0
    hold_s: float = 0.0
    pace: int = scripts.FREE_PACE
    gap_m: float = 0.0
    ego_mps: float = 0.0
    left_m: float = 0.0
    speed_before_mps: float = LIKE_TRAFFIC
    speed_acting_mps: float = LIKE_TRAFFIC
    speed_after_mps: float = LIKE_TRAFFIC
    rate_mps2: float = 3.0
    change: int = 0
    ignores: int = 0
    siren: bool = False
    goal_m: tuple[float, float] | None = None


@dataclass(frozen=True)
class Placement:
    """Everything that a scenario decides about one episode.

    lanes: of the ego's route, those beyond the goal included; none where the route is drawn as ever and nothing is staged.
    offset_m: of the ego's centre on the first. length_m: from there to the goal. clear: x, y and radius in metres, where no other
    vehicle appears (people on foot do). cross: arc lengths between which the ego may use the oncoming lane. shift_ms: where signal
    programs begin; None leaves that to chance. marks: arc lengths that checks need, by name. given: parameters that the place does
    not allow as they were drawn, by name, as they are.
    """

    lanes: tuple[int, ...]
    offset_m: float
    length_m: float
    speed_mps: float
    actors: tuple[Actor, ...] = ()
    clear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cross: tuple[float, float] = (0.0, -1.0)
    shift_ms: int | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    given: Mapping[str, float] = field(default_factory=dict)


def write_scene(placement: Placement, scene: np.void, route_lane: NDArray[np.int32]) -> None:
    """Fill the record of one environment, `SCENE`, and its route lanes (R,) int32."""
    route_lane[:] = 0
    route_lane[: len(placement.lanes)] = placement.lanes
    scene["given"], scene["lanes"] = bool(placement.lanes), len(placement.lanes)
    scene["offset"], scene["length"], scene["speed"] = placement.offset_m, placement.length_m, placement.speed_mps
    scene["clear_x"], scene["clear_y"], scene["clear_m"] = placement.clear
    scene["cross_from"], scene["cross_to"] = placement.cross
    scene["shift_ms"] = -1 if placement.shift_ms is None else placement.shift_ms


def write_scripts(placement: Placement, records: NDArray[np.void], paths: NDArray[np.int32]) -> None:
    """Fill the scripts (A,) `SCRIPT` and the lanes that they know (A, PATH) int32 of one environment: actor k is agent k + 1."""
    records[:] = np.zeros((), records.dtype)
    paths[:] = -1
    for record, path, actor in zip(records[1:], paths[1:], placement.actors, strict=False):
        record["mode"] = scripts.ON_LANE if actor.path else scripts.OFF_LANE
        known = actor.path[: PATH - BEHIND]
        path[BEHIND : BEHIND + len(known)] = known
        for k, lane in enumerate(actor.behind[:BEHIND]):
            path[BEHIND - 1 - k] = lane
        record["kind"], record["size"] = actor.kind, actor.size
        record["red"], record["green"], record["blue"] = actor.paint
        record["s"], record["x"], record["y"], record["yaw"] = actor.s_m, actor.x_m, actor.y_m, actor.yaw_rad
        record["speed"], record["rate"], record["sideways"] = actor.speed_mps, actor.rate_mps2, actor.sideways_mps
        acting = actor.lateral_m if actor.lateral_acting_m is None else actor.lateral_acting_m
        record["lateral"], record["lateral_acting"], record["lateral_after"] = (
            actor.lateral_m, acting, actor.lateral_after_m
        )  # fmt: skip
        record["trigger"], record["threshold"], record["at"] = actor.trigger, actor.threshold, actor.at_m
        record["hold"] = round(actor.hold_s / scripts.TICK_S)
        record["pace"], record["gap"], record["left"] = actor.pace, actor.gap_m, actor.left_m
        record["ego_speed"] = actor.ego_mps
        record["speed_before"], record["speed_acting"] = actor.speed_before_mps, actor.speed_acting_mps
        record["speed_after"], record["change"], record["ignores"] = actor.speed_after_mps, actor.change, actor.ignores
        record["siren"] = actor.siren
        record["goal_x"], record["goal_y"] = actor.goal_m if actor.goal_m is not None else (actor.x_m, actor.y_m)
