"""An episode as a small moving picture from above: who was where, five times a second, and the roads around.

For the report only; no score looks at it. Knows steps and lanes; knows nothing about drawing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.roads.network import LaneKind, RoadNetwork
from sim.step import Step

EVERY_TICKS = 2
NEAR_M = 70.0
LANE_POINTS_M = 4.0


class SceneRecorder:
    """A `StepObserver`; after the last step `scene()` is the picture."""

    def __init__(self) -> None:
        self._ego: list[list[float]] = []
        self._others: list[list[list[float]]] = []
        self._sizes: dict[int, list[float]] = {}
        self._box = (4.6, 1.86)

    def on_step(self, step: Step) -> None:
        ego, standing, actors = step.frame.ego, step.standing, step.actors
        if step.tick % EVERY_TICKS or ego is None or ego.world_from_ego is None or standing is None or actors is None:
            return
        pose = ego.world_from_ego
        x = float(pose[0, 3] + standing.center_ahead_m * pose[0, 0])
        y = float(pose[1, 3] + standing.center_ahead_m * pose[1, 0])
        self._box = (standing.length_m, standing.width_m)
        self._ego.append([round(x, 1), round(y, 1), round(float(np.arctan2(pose[1, 0], pose[0, 0])), 2)])
        near = np.flatnonzero(np.hypot(actors.center[:, 0] - x, actors.center[:, 1] - y) < NEAR_M)
        row = []
        for k in near.tolist():
            instance = int(actors.instance[k])
            self._sizes[instance] = [int(actors.kind[k]), *(round(float(v), 1) for v in actors.size[k, :2])]
            place = (round(float(actors.center[k, 0]), 1), round(float(actors.center[k, 1]), 1))
            row.append([instance, *place, round(float(actors.yaw_rad[k]), 2)])
        self._others.append(row)

    def close(self) -> None:
        """Nothing is held open."""

    def scene(self, network: RoadNetwork) -> dict[str, Any]:
        """Plain values. ego: x, y, yaw at each picture; others: instance, x, y, yaw; sizes: instance to kind, length, width;
        lanes: polylines (x, y, x, y, ...) with their width, those within NEAR_M of the path."""
        return {
            "period_s": 0.1 * EVERY_TICKS,
            "box": [round(v, 2) for v in self._box],
            "ego": self._ego,
            "others": self._others,
            "sizes": {str(instance): size for instance, size in sorted(self._sizes.items())},
            "lanes": _lanes_near(network, np.array(self._ego).reshape(-1, 3)[:, :2]),
        }


def _lanes_near(network: RoadNetwork, path: NDArray[np.float64]) -> list[dict[str, Any]]:
    found = []
    places = path[::10] if len(path) else np.zeros((1, 2))
    for k in range(network.num_lanes):
        if network.lane_kind[k] != LaneKind.DRIVING:
            continue
        row = slice(int(network.point_start[k]), int(network.point_start[k + 1]))
        points = np.column_stack([network.point_x[row], network.point_y[row]])
        step = max(1, round(LANE_POINTS_M / float(network.lane_step_m[k])))
        kept = np.unique([*range(0, len(points), step), len(points) - 1])
        points = points[kept]
        away = np.hypot(points[:, None, 0] - places[None, :, 0], points[:, None, 1] - places[None, :, 1])
        if away.min() < NEAR_M:
            found.append({"w": round(float(network.lane_width_m[k]), 1), "p": np.round(points, 1).ravel().tolist()})
    return found
