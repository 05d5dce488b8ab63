"""Recorded scenes in the form that the world's kernels read. Knows scenes and `Playback`; knows nothing about the world."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.playback.recorded_scene import RecordedScene, Tracks
from sim.playback.scene_roads import ROUTE_LANE
from sim.playback.scene_route import scene_route
from sim.playback.track_tidying import TICK_S
from sim.roads.network import RoadNetwork
from sim.traffic.playback import PEDESTRIAN_KIND, Playback

F64 = NDArray[np.float64]

PlaybackMode = Literal["reactive", "log"]

LEAST_MOVE_M = 0.5  # shorter steps are noise, and no way along a path
PACE_BEHIND_M, PACE_AHEAD_M = 2.0, 15.0
LEAST_PACE_MPS, LEAST_WALKING_PACE_MPS = 3.0, 1.0
SMOOTHING_TICKS = 2
GOAL_SHARE = 0.8  # of the recorded car's way: who comes that far in the same time has kept up with it
LEAST_CURVED_M = 3.0
TIGHTEST_M = 6.0


def no_playback() -> Playback:
    """The arrays of a world without a recording."""
    table, row, whole = np.zeros((0, 0)), np.zeros(0), np.zeros(0, np.int64)
    return Playback(
        table, table.copy(), table.copy(), table.copy(), table.copy(), table.copy(), table.copy(),
        whole, whole.copy(), np.zeros((0, 3)), np.zeros(0, np.int8), np.zeros((0, 4)), row, np.zeros((0, 3)),
        0.0, 0.0, 0, 0,
    )  # fmt: skip


def playback_arrays(scene: RecordedScene, network: RoadNetwork, mode: PlaybackMode) -> Playback:
    """The arrays of a scene on its network, their own memory."""
    tracks, ego, route = scene.others, scene.ego, scene_route(scene)
    count, ticks = tracks.present.shape
    first = np.argmax(tracks.present, axis=1) if count else np.zeros(0)
    last = ticks - 1 - np.argmax(tracks.present[:, ::-1], axis=1) if count else np.zeros(0)
    along, pace, acceleration = np.zeros((count, ticks)), np.zeros((count, ticks)), np.zeros((count, ticks))
    for n in range(count):
        part = np.s_[int(first[n]) : int(last[n]) + 1]
        along[n, part] = along_path(tracks.x_m[n, part], tracks.y_m[n, part])
        least = LEAST_WALKING_PACE_MPS if tracks.kind[n] == PEDESTRIAN_KIND else LEAST_PACE_MPS
        pace[n, part] = _pace(along[n, part], tracks.speed_mps[n, part], least)
        acceleration[n, part] = _accelerations(tracks.speed_mps[n, part])
    yaw = np.arctan2(*np.diff(route.points, axis=0).T[::-1])
    line = np.column_stack([route.points, np.append(yaw, yaw[-1])])
    return Playback(
        tracks.x_m.copy(), tracks.y_m.copy(), tracks.yaw_rad.copy(), tracks.speed_mps.copy(), acceleration, along, pace,
        first.astype(np.int64), last.astype(np.int64), tracks.size_m.copy(), tracks.kind.astype(np.int8),
        np.column_stack([ego.x_m[0], ego.y_m[0], ego.yaw_rad[0], ego.speed_mps[0]]), ego.size_m[0, :2].copy(),
        np.ascontiguousarray(line),
        GOAL_SHARE * route.driven_m,
        _first_curvature(ego),
        network.lane_name.index(ROUTE_LANE), int(mode == "reactive"),
    )  # fmt: skip


def along_path(x_m: F64, y_m: F64) -> F64:
    """(T,) arc length in m of places (T,) along the path they make, without the length that scatter would add.

    Only where a place is LEAST_MOVE_M from the last that counted does it count; in between the way is shared out evenly.
    """
    counted, length = [0], [0.0]
    for k in range(1, len(x_m)):
        step = float(np.hypot(x_m[k] - x_m[counted[-1]], y_m[k] - y_m[counted[-1]]))
        if step >= LEAST_MOVE_M:
            counted.append(k)
            length.append(length[-1] + step)
    return np.asarray(np.interp(np.arange(len(x_m)), counted, length))


def _pace(along: F64, speed: F64, least_mps: float) -> F64:
    """(T,) the highest recorded speed from 2 m behind each place of the path to 15 m ahead, m/s."""
    low = np.searchsorted(along, along - PACE_BEHIND_M)
    high = np.searchsorted(along, along + PACE_AHEAD_M, side="right")
    return np.maximum([speed[a:b].max() for a, b in zip(low, high, strict=True)], least_mps)


def _accelerations(speed: F64) -> F64:
    """(T,) m/s2 of speeds (T,): differences over two ticks to either side."""
    at = np.arange(len(speed))
    low, high = np.maximum(at - SMOOTHING_TICKS, 0), np.minimum(at + SMOOTHING_TICKS, len(speed) - 1)
    return np.asarray((speed[high] - speed[low]) / (np.maximum(high - low, 1) * TICK_S))


def _first_curvature(ego: Tracks) -> float:
    """Curvature in 1/m of the recorded car's path over its first metres, left positive; 0 where it stands."""
    x, y, yaw = ego.x_m[0], ego.y_m[0], np.unwrap(ego.yaw_rad[0])
    away = np.flatnonzero(np.hypot(x - x[0], y - y[0]) >= LEAST_CURVED_M)
    if len(away) == 0 or ego.speed_mps[0, 0] < 1.0:
        return 0.0
    k = int(away[0])
    curvature = (yaw[k] - yaw[0]) / float(np.hypot(x[k] - x[0], y[k] - y[0]))
    return float(np.clip(curvature, -1.0 / TIGHTEST_M, 1.0 / TIGHTEST_M))
