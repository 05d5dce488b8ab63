"""The way of the recorded car as a route: where it drove, and on along the lanes from there.

Knows recorded scenes; knows nothing about road networks or the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.playback.recorded_scene import RecordedLane, RecordedScene
from sim.playback.track_tidying import TICK_S
from sim.roads.polyline import arc_lengths, headings, without_repeats

F64 = NDArray[np.float64]

STEP_M = 1.0
LEAST_MOVE_M = 0.5  # shorter steps of the recorded car are noise
LEAST_BEYOND_M, MOST_BEYOND_M = 40.0, 400.0
STRAIGHT_ON_M = 30.0  # where there is no lane
ON_LANE_M = 3.0
BLEND_M = 15.0  # over which the route comes from where the car was to the middle of its lane
SMOOTHING_POINTS = 2


@dataclass(frozen=True)
class SceneRoute:
    """points: (P, 2) float64, a metre apart, from the middle of the recorded car at the first tick.

    driven_m: how far the recorded car came along them.
    """

    points: F64
    driven_m: float


def scene_route(scene: RecordedScene) -> SceneRoute:
    """The route of a scene."""
    ego = scene.ego
    x, y, yaw = ego.x_m[0], ego.y_m[0], ego.yaw_rad[0]
    path = without_repeats(np.stack([x, y], axis=1), LEAST_MOVE_M)
    driven = float(arc_lengths(path)[-1])
    if driven < LEAST_MOVE_M:
        path = np.stack([[x[0], y[0]], [x[0] + np.cos(yaw[0]), y[0] + np.sin(yaw[0])]])
    wanted = scene.limit_mps * scene.num_ticks * TICK_S - driven
    beyond = _beyond(scene, path, float(np.clip(wanted, LEAST_BEYOND_M, MOST_BEYOND_M)))
    whole = np.concatenate([path, beyond])
    lengths = arc_lengths(whole)
    stations = np.arange(0.0, lengths[-1], STEP_M)
    assert len(stations) >= 2, "the path is half a metre long or more, and what is beyond begins a metre after it"
    points = np.stack([np.interp(stations, lengths, whole[:, k]) for k in range(2)], axis=1)
    return SceneRoute(_smoothed(points), driven)


def _smoothed(points: F64) -> F64:
    """Running means, the ends kept: labelled places scatter by a few centimetres."""
    if len(points) < 5:
        return points
    smooth = points.copy()
    for _ in range(SMOOTHING_POINTS):
        smooth[1:-1] = (smooth[:-2] + smooth[1:-1] + smooth[2:]) / 3.0
    return smooth


def _beyond(scene: RecordedScene, path: F64, length_m: float) -> F64:
    """(K, 2), one at least, where the route goes after the recorded path: along lanes, or straight on where none goes on."""
    end, out = path[-1], float(headings(path)[-1])
    found = _lane_at(scene.road.lanes, end, out)
    forward = np.array([np.cos(out), np.sin(out)])
    straight_on: F64 = end + np.arange(STEP_M, STRAIGHT_ON_M, STEP_M)[:, None] * forward
    if found is None:
        return straight_on
    lane, first = found
    line = [scene.road.lanes[lane].points[first:]]
    seen = {lane}
    while arc_lengths(np.concatenate([end[None], *line]))[-1] < length_m:
        following = [n for n in scene.road.lanes[lane].followers if n not in seen]
        if not following:
            break
        lane = min(following, key=lambda n: _turn(scene.road.lanes[lane].points, scene.road.lanes[n].points))
        seen.add(lane)
        line.append(scene.road.lanes[lane].points)
    onward = np.concatenate(line)
    along = np.concatenate([[0.0], arc_lengths(onward)[1:]])
    aside = np.array([-np.sin(out), np.cos(out)])
    apart = float((end - onward[0]) @ aside)
    onward = onward + (apart * np.clip(1.0 - along / BLEND_M, 0.0, 1.0))[:, None] * aside
    ahead = (onward - end) @ forward > STEP_M
    keep = np.logical_or.accumulate(ahead) & (along <= length_m)
    return np.asarray(onward[keep]) if keep.any() else straight_on  # the car may stand just before the end of its lane


def _lane_at(lanes: tuple[RecordedLane, ...], place: F64, yaw: float) -> tuple[int, int] | None:
    """The lane that goes through a place in a direction, and its first point after it; None where there is none."""
    best, found = np.inf, None
    for k, lane in enumerate(lanes):
        if lane.bicycles:
            continue
        distance = np.hypot(*(lane.points - place).T)
        at = int(np.argmin(distance))
        turned = np.cos(headings(lane.points)[at] - yaw)
        cost = distance[at] + 3.0 * (1.0 - turned)
        if distance[at] < ON_LANE_M and turned > 0.7 and cost < best and at < len(lane.points) - 1:
            best, found = float(cost), (k, at)
    return found


def _turn(lane: F64, following: F64) -> float:
    """By how much a lane turns away from the one before it, rad: its end against that one's end."""
    out = np.arctan2(*(lane[-1] - lane[-2])[::-1])
    end = np.arctan2(*(following[-1] - following[-2])[::-1])
    return float(abs(np.angle(np.exp(1j * (end - out)))))
