"""Watches the steps of an episode, live or from a log, and makes the `Track` that scores are taken of.

Knows steps; knows nothing about environments, files or scores. Counts collisions and stop signs by the rules of CARLA's
leaderboard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planning.policy import SignalState
from sim.evaluation.pdm_score import TTC_TIMES_S
from sim.evaluation.time_to_collision import HORIZON_S, STANDING_MPS, STEP_S, is_at_fault, least_meeting_time
from sim.evaluation.track import COLUMNS, FLAGS, Contact, Infraction, Track
from sim.step import Actors, Standing, Step

SAME_COLLISION_M, SAME_COLLISION_TICKS = 5.0, 50
SLOWEST_COLLISION_MPS = 0.1
STOPPED_MPS = 0.1
STOP_WITHIN_M = 5.0  # before the line; further away it is a stop for another reason
TRAFFIC_RADIUS_M = 50.0
BICYCLE, PEDESTRIAN = 5, 6
OFF_ROAD_M = 0.3
# Events of a step that are infractions as they stand, each counted where it begins.
EVENT_KINDS = (
    "red_light", "off_route", "wrong_way", "stuck", "blocked", "timeout", "scenario_timeout", "yield_emergency",
)  # fmt: skip
_TIMES = np.arange(1, round(HORIZON_S / STEP_S) + 1) * STEP_S
_PDM_TIMES = np.array(TTC_TIMES_S)


class NotScorable(ValueError):
    """Steps that lack what scores need: one line that says what."""


class TrackObserver:
    """A `StepObserver`; after the last step `track()` is what happened."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._contacts: list[Contact] = []
        self._infractions: list[Infraction] = []
        self._length_m = 0.0
        self._arrived = False
        self._touching: frozenset[int] = frozenset()
        self._collided: set[int] = set()
        self._last_hit, self._last_hit_tick = 0, -SAME_COLLISION_TICKS - 1
        self._last_hit_at: tuple[float, float] | None = None
        self._standing_kinds: frozenset[str] = frozenset()
        self._stop_sign, self._stopped, self._passed = -1, False, False
        self._signal: tuple[int, bool] = (-1, False)  # the last one's link, and whether the tail was behind its line

    def on_step(self, step: Step) -> None:
        """Raises NotScorable where the step says nothing about the ego's standing, pose, route or the others."""
        ego, standing, actors = step.frame.ego, step.standing, step.actors
        if ego is None or ego.world_from_ego is None or standing is None or actors is None or step.progress_m is None:
            raise NotScorable(
                f"tick {step.tick}: scores need pose, actors, route and standing of the ego, which logs of version 1 and "
                "recordings of other cars do not hold"
            )
        pose = ego.world_from_ego
        yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
        x = float(pose[0, 3] + standing.center_ahead_m * pose[0, 0])
        y = float(pose[1, 3] + standing.center_ahead_m * pose[1, 0])
        box = np.array([x, y, yaw, 0.5 * standing.length_m, 0.5 * standing.width_m])
        rear_axle = pose[:2, 3].copy()
        others = _boxes(actors)
        parked = _parked_boxes(standing)
        strayed = standing.in_several_lanes or standing.off_lanes or standing.off_drivable_m > 0.0
        not_before = self._never_hit(actors, standing)
        self._note_contacts(step, box, ego.speed_mps, rear_axle, others, actors, standing, strayed)
        self._note_events(step, standing, x, y, ego.speed_mps)
        # nuPlan leaves out whoever was hit up to now; NAVSIM looks 0 s ahead too, so there whoever is hit now counts.
        ttc, pdm_ttc = (
            least_meeting_time(
                box,
                ego.speed_mps,
                rear_axle,
                np.concatenate([others, parked]),
                free,
                strayed or standing.in_junction,
                times,
            )
            for free, times in ((self._never_hit(actors, standing), _TIMES), (not_before, _PDM_TIMES))
        )
        offset = np.nan if standing.lane_offset_m is None else standing.lane_offset_m
        self._rows.append((
            x, y, yaw, ego.speed_mps, ego.acceleration_mps2, ego.yaw_rate_radps, ego.last_steer, ego.last_throttle,
            step.progress_m, standing.speed_limit_mps, offset, standing.off_drivable_m, standing.in_junction,
            standing.off_lanes, standing.against_flow, "wrong_way" in step.events, len(standing.touched) > 0,
            ttc, pdm_ttc, _traffic_speed(x, y, actors),
        ))  # fmt: skip
        self._length_m = step.route_length_m or 0.0
        self._arrived = self._arrived or "arrived" in step.events

    def close(self) -> None:
        """Nothing is held open."""

    def track(self) -> Track:
        """What was seen so far.

        Raises:
            NotScorable: there was no step.
        """
        if not self._rows:
            raise NotScorable("there is no step to score")
        columns: dict[str, Any] = {}
        for name, values in zip(COLUMNS, zip(*self._rows, strict=True), strict=True):
            columns[name] = np.array(values, np.bool_ if name in FLAGS else np.float64)
        return Track(
            **columns,
            route_length_m=self._length_m,
            arrived=self._arrived,
            contacts=tuple(self._contacts),
            infractions=tuple(self._infractions),
        )

    def _never_hit(self, actors: Actors, standing: Standing) -> NDArray[np.bool_]:
        """(M + P,) which actors and parked vehicles the ego has not touched so far."""
        parked = np.array([vehicle.other for vehicle in standing.parked or ()], np.int32)
        known = np.fromiter(self._collided, np.int32, len(self._collided))
        return ~np.isin(np.concatenate([actors.instance, parked]), known)

    def _note_contacts(
        self,
        step: Step,
        box: NDArray[np.float64],
        speed_mps: float,
        rear_axle: NDArray[np.float64],
        others: NDArray[np.float64],
        actors: Actors,
        standing: Standing,
        strayed: bool,
    ) -> None:
        x, y = float(box[0]), float(box[1])
        if self._last_hit_at is not None and math.dist((x, y), self._last_hit_at) > SAME_COLLISION_M:
            self._last_hit_at = None
        row_of = {int(instance): k for k, instance in enumerate(actors.instance.tolist())}
        parked = {vehicle.other for vehicle in standing.parked or ()}
        for other in standing.touched:
            row = row_of.get(other)
            if row is None:
                kind, fault = "static", speed_mps > STANDING_MPS
            else:
                kind = _kind_name(int(actors.kind[row]))
                fault = is_at_fault(box, speed_mps, rear_axle, others[row], strayed)
            if other not in self._touching:
                self._contacts.append(Contact(step.tick, other, "vehicle" if other in parked else kind, fault))
            self._collided.add(other)
            if speed_mps < SLOWEST_COLLISION_MPS:
                continue
            again = other == self._last_hit and step.tick - self._last_hit_tick <= SAME_COLLISION_TICKS
            if again or self._last_hit_at is not None:
                continue
            self._last_hit, self._last_hit_tick, self._last_hit_at = other, step.tick, (x, y)
            what = {
                "static": "something that stands beside the road",
                "pedestrian": "a pedestrian",
                "vehicle": "a vehicle",
            }
            self._add(step, f"collision_{kind}", x, y, f"hit {what[kind]}")
        self._touching = frozenset(standing.touched)

    def _note_events(self, step: Step, standing: Standing, x: float, y: float, speed_mps: float) -> None:
        kinds = {kind: sentence for kind, sentence in step.events.items() if kind in EVENT_KINDS}
        if standing.signal is not None:  # else the log is of an older version, and the front bumper has to do
            kinds.pop("red_light", None)
            if self._ran_red_light(step, standing, standing.signal):
                kinds["red_light"] = "crossed a stop line at red"
        if standing.off_drivable_m > OFF_ROAD_M:
            kinds["off_road"] = "left the road"
        for kind, sentence in kinds.items():
            if kind not in self._standing_kinds:
                self._add(step, kind, x, y, sentence.split(" at (")[0])
        self._standing_kinds = frozenset(kinds)
        self._note_stop_sign(step, standing, x, y, speed_mps)

    def _ran_red_light(self, step: Step, standing: Standing, link: int) -> bool:
        """Whether the tail has passed a signal's line since the tick before, and the signal is red (CARLA's rule)."""
        distance = standing.signal_distance_m
        before, behind = self._signal, distance is not None and distance < -standing.length_m
        self._signal = link, behind
        if not behind or before != (link, False) or step.signals is None or not 0 <= link < len(step.signals):
            return False
        return int(step.signals[link]) == SignalState.RED

    def _note_stop_sign(self, step: Step, standing: Standing, x: float, y: float, speed_mps: float) -> None:
        """A stop sign wants a standstill within STOP_WITHIN_M before its line."""
        distance = standing.stop_sign_distance_m
        if standing.stop_sign != self._stop_sign:
            self._stop_sign, self._stopped, self._passed = standing.stop_sign, False, False
        if distance is None:
            return
        if 0.0 <= distance <= STOP_WITHIN_M and speed_mps < STOPPED_MPS:
            self._stopped = True
        if distance < 0.0 and not self._passed:
            self._passed = True
            if not self._stopped:
                self._add(step, "stop_sign", x, y, "did not stop at a stop sign")

    def _add(self, step: Step, kind: str, x: float, y: float, sentence: str) -> None:
        self._infractions.append(Infraction(kind, step.tick, x, y, sentence))


def track_of(steps: Iterable[Step]) -> Track:
    """The track of recorded steps.

    Raises:
        NotScorable: they lack what scores need.
    """
    observer = TrackObserver()
    for step in steps:
        observer.on_step(step)
    return observer.track()


def _kind_name(kind: int) -> str:
    """What is neither a vehicle nor a person on foot counts as a thing."""
    return "vehicle" if kind < PEDESTRIAN else "pedestrian" if kind == PEDESTRIAN else "static"


def _boxes(actors: Actors) -> NDArray[np.float64]:
    """(M, 6) x, y, yaw, half length, half width, speed."""
    half = 0.5 * actors.size
    columns = (actors.center[:, 0], actors.center[:, 1], actors.yaw_rad, half[:, 0], half[:, 1], actors.speed_mps)
    return np.ascontiguousarray(np.column_stack(columns), np.float64)


def _parked_boxes(standing: Standing) -> NDArray[np.float64]:
    """(P, 6) as `_boxes`, at rest."""
    boxes = np.array([vehicle[1:] for vehicle in standing.parked or ()], np.float64).reshape(-1, 5)
    return np.column_stack([boxes[:, :3], 0.5 * boxes[:, 3:], np.zeros(len(boxes))])


def _traffic_speed(x: float, y: float, actors: Actors) -> float:
    """Mean speed of motor vehicles within TRAFFIC_RADIUS_M, nan without any."""
    near = np.hypot(actors.center[:, 0] - x, actors.center[:, 1] - y) < TRAFFIC_RADIUS_M
    speeds = actors.speed_mps[near & (actors.kind < BICYCLE)]
    return float(speeds.mean()) if len(speeds) else float("nan")
