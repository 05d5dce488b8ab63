"""The driver of a recording as the one that a policy is compared with, and progress along the recorded way.

Knows recorded scenes, roads and steps; knows nothing about worlds, policies or scores. The recorded car is judged as the ego
is: by the same observer, on its own box, among the recorded others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception.geometry import se2_as_se3
from perception.sensors import EgoState, SensorFrame
from sim.evaluation.comfort import fit_derivative
from sim.evaluation.track import DT_S, Track
from sim.evaluation.track_observer import track_of
from sim.events import build_surroundings
from sim.lane_graph import build_lane_graph
from sim.parked import NOBODY_PARKED
from sim.playback.playback_arrays import GOAL_SHARE
from sim.playback.recorded_scene import RecordedScene
from sim.playback.scene_roads import route_lane
from sim.playback.scene_route import scene_route
from sim.roads.driving_map import DrivingMap
from sim.routes import EGO
from sim.standing import standing_of
from sim.step import Actors, Standing, Step
from sim.traffic.vehicles import CAR

F64 = NDArray[np.float64]

REAR_AXLE_SHARE = 0.29  # of its length the rear axle lies behind the middle of a car; recordings do not say
BEHIND_M, AHEAD_M = 6.0, 12.0  # of the last place: where the next one is looked for, as the world does it
TICK_US = 100_000
FIT_TICKS = 15


def recorded_track(driving_map: DrivingMap) -> Track:
    """What the recorded driver left behind, progress counted along its own way, beyond the goal too."""
    assert driving_map.recording is not None
    return track_of(recorded_steps(driving_map.recording, driving_map))


def beyond_the_goal(track: Track, driving_map: DrivingMap) -> Track:
    """The track of an ego on a recording, its progress that along the route to wherever it came.

    The world counts to the goal only, which is 80 % of the recorded way; who is compared with the recorded driver may have come
    further.
    """
    assert driving_map.recording is not None
    route = scene_route(driving_map.recording)
    return replace(track, progress_m=furthest_along(route.points, track.x_m, track.y_m))


def furthest_along(line: F64, x_m: F64, y_m: F64) -> F64:
    """(T,) furthest arc length in m of places (T,) along a route's points (P, 2), a metre apart; never falling.

    Each place is looked for near the last one, so a way that crosses itself is no short cut. Cost: T times P.
    """
    steps = np.diff(line, axis=0)
    squares = np.maximum(np.einsum("ij,ij->i", steps, steps), 1e-12)
    begins = np.arange(len(steps), dtype=np.float64)  # a metre a point, as the world counts
    at, reached = 0.0, np.zeros(len(x_m))
    for k, place in enumerate(np.column_stack([x_m, y_m])):
        share = np.clip(np.einsum("ij,ij->i", place - line[:-1], steps) / squares, 0.0, 1.0)
        away = np.hypot(*(line[:-1] + share[:, None] * steps - place).T)
        away[(begins + 1.0 < at - BEHIND_M) | (begins > at + AHEAD_M)] = np.inf
        nearest = int(np.argmin(away))
        at = float(begins[nearest] + share[nearest])
        reached[k] = at
    return np.maximum.accumulate(reached)


def recorded_steps(scene: RecordedScene, driving_map: DrivingMap) -> Iterator[Step]:
    """A step for each tick of a recording, with the recorded car as the ego; no sensors, no actions.

    Acceleration and rate of turn are those of parabolas fitted to 1.5 s of speed and heading, because labelled places scatter.
    """
    ego, route = scene.ego, scene_route(scene)
    x, y, yaw, speed = ego.x_m[0], ego.y_m[0], ego.yaw_rad[0], ego.speed_mps[0]
    progress = furthest_along(route.points, x, y)
    acceleration = fit_derivative(speed, FIT_TICKS, 2, 1, DT_S)
    yaw_rate = fit_derivative(np.unwrap(yaw), FIT_TICKS, 2, 1, DT_S)
    stand = _Stander(scene, driving_map)
    for tick in range(scene.num_ticks):
        standing = stand(tick)
        events = {"wrong_way": "drove against the traffic"} if standing.against_flow else {}
        if tick == scene.num_ticks - 1:
            events["arrived"] = "reached the end of the recording"
        state = EgoState(
            timestamp_us=tick * TICK_US,
            speed_mps=float(speed[tick]),
            acceleration_mps2=float(acceleration[tick]),
            yaw_rate_radps=float(yaw_rate[tick]),
            world_from_ego=_rear_axle_pose(scene, tick),
        )
        yield Step(
            tick=tick,
            timestamp_us=tick * TICK_US,
            frame=SensorFrame(tick * TICK_US, {}, {}, state, None),
            action=None,
            events=events,
            actors=actors_at(scene, tick),
            progress_m=float(progress[tick]),
            route_length_m=GOAL_SHARE * route.driven_m,
            standing=standing,
        )


def actors_at(scene: RecordedScene, tick: int) -> Actors:
    """Everybody else at a tick; the instance is that of the world's agent who plays them."""
    tracks = scene.others
    here = np.flatnonzero(tracks.present[:, tick])
    size = tracks.size_m[here]
    return Actors(
        instance=(here + 1).astype(np.int32),
        kind=tracks.kind[here].copy(),
        center=np.column_stack([tracks.x_m[here, tick], tracks.y_m[here, tick], 0.5 * size[:, 2]]),
        size=size.copy(),
        yaw_rad=tracks.yaw_rad[here, tick].copy(),
        speed_mps=tracks.speed_mps[here, tick].copy(),
    )


class _Stander:
    """Where the recorded car stands at a tick, as the world would say it."""

    def __init__(self, scene: RecordedScene, driving_map: DrivingMap) -> None:
        self._scene = scene
        self._graph = build_lane_graph(driving_map.network)
        self._around = build_surroundings(driving_map.ground, driving_map.scenery)
        self._cars = np.zeros(1 + scene.others.num_actors, CAR)
        for name, column in (("length", 0), ("width", 1), ("height", 2)):
            self._cars[name] = np.concatenate([scene.ego.size_m, scene.others.size_m])[:, column]
        self._cars["kind"] = np.concatenate([scene.ego.kind, scene.others.kind])
        self._route = np.zeros(1, EGO)
        self._route["lanes"] = 1
        self._lane, self._from = np.array([route_lane(driving_map.network)], np.int32), np.zeros(1)

    def __call__(self, tick: int) -> Standing:
        cars, ego, others = self._cars, self._scene.ego, self._scene.others
        columns = {"x": "x_m", "y": "y_m", "yaw": "yaw_rad", "speed": "speed_mps"}
        for name, column in columns.items():
            cars[name] = np.concatenate([getattr(ego, column)[:, tick], getattr(others, column)[:, tick]])
        cars["active"] = np.concatenate([[True], others.present[:, tick]])
        ahead = REAR_AXLE_SHARE * float(ego.size_m[0, 0])
        return standing_of(
            self._graph, self._around, cars, self._route[0], self._lane, self._from, ahead, NOBODY_PARKED
        )


def _rear_axle_pose(scene: RecordedScene, tick: int) -> F64:
    ego = scene.ego
    yaw, back = float(ego.yaw_rad[0, tick]), REAR_AXLE_SHARE * float(ego.size_m[0, 0])
    return se2_as_se3(float(ego.x_m[0, tick]) - back * np.cos(yaw), float(ego.y_m[0, tick]) - back * np.sin(yaw), yaw)
