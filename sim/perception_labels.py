"""Labels of what the sensors of a batch see, as perception is trained on them: bird's-eye map, boxes, pictures, lane, signal.

Knows world, sensors and ground; knows nothing about networks, towns or who drives.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.labels import (
    LABEL_STRIDE,
    MAX_BOXES,
    UNKNOWN,
    BevClass,
    BoxClass,
    BoxField,
    LabelledFrames,
    PictureClass,
)
from perception.points import BevGrid
from perception.sensors import SemanticClass
from planning.policy import SignalState
from sim.observation import ROUTE_RANGE_M, ego_vector
from sim.parked import parked_vehicles
from sim.roads.ground import GroundClass
from sim.roads.roadside import FIRST_INSTANCE
from sim.roads.scenery import stop_signs
from sim.sensors.cast import FAR_M
from sim.sensors.parts import SIGNAL_INSTANCE
from sim.sensors.suite import SensorSuite
from sim.world import EGO, ActorKind, World

FINER = (
    3  # places looked at along each side of a cell: 0.17 m apart where cells have 0.5 m, and markings are 0.15 m wide
)
LEAST_THIN = 2  # of FINER^2 places, for what is thin: markings, people
BOX_RANGE_M = 60.0
LEAST_RETURNS, LEAST_PIXELS = 2, 6  # of which either makes an actor seen
SIGNAL_TOLD_M, SIGNAL_NONE_M = 40.0, 60.0  # nearer a signal can be told, further it counts as none
FURTHEST_FROM_LANE_M = 3.0

_BEV_OF_GROUND = np.zeros(len(GroundClass), np.uint8)
_BEV_OF_GROUND[[GroundClass.LINE_WHITE, GroundClass.LINE_YELLOW, GroundClass.STOP_LINE]] = BevClass.LANE_MARKING
_BEV_OF_GROUND[[GroundClass.SIDEWALK, GroundClass.KERB]] = BevClass.SIDEWALK
_BEV_OF_GROUND[GroundClass.ROAD], _BEV_OF_GROUND[GroundClass.CROSSWALK] = BevClass.ROAD, BevClass.CROSSWALK
_THIN = (BevClass.LANE_MARKING, BevClass.WALKER)


class PerceptionLabeller:
    """Labels what a suite (with labels) has observed last of a world."""

    def __init__(self, world: World, suite: SensorSuite, grid: BevGrid) -> None:
        assert suite.labels, "the suite has to render labels"
        self.world, self.suite, self.grid = world, suite, grid
        self.parked, self.parked_instance = parked_vehicles(world.map.scenery)
        self._heads = world.map.signal_heads
        scenery = world.map.scenery
        signs = stop_signs(scenery)
        order = np.argsort(scenery.instance[signs])
        self._signs = signs[order]
        self._sign_instance = scenery.instance[self._signs]
        self._agents = world.state.x_m.shape[1]
        self._things = int(world.map.scenery.instance.max(initial=FIRST_INSTANCE)) + 1 - FIRST_INSTANCE

    def frames(self) -> LabelledFrames:
        """The frames of all environments; nothing is shared with the buffers of world and suite."""
        world, suite = self.world, self.suite
        n = world.num_envs
        boxes, count = np.zeros((n, MAX_BOXES, len(BoxField)), np.float32), np.zeros(n, np.int32)
        bev = np.zeros((n, self.grid.rows, self.grid.columns), np.uint8)
        for e in range(n):
            found = self._boxes(e)
            boxes[e, : len(found)], count[e] = found, len(found)
            bev[e] = self._bird_view(e, found)
        picked = slice(LABEL_STRIDE // 2, None, LABEL_STRIDE)
        cameras = [camera.name for camera in suite.rig.cameras]
        depth = {name: suite.depth[name][:, picked, picked].copy() for name in cameras}
        for metres in depth.values():
            metres[metres >= FAR_M] = 0.0
        return LabelledFrames(
            observation=self.observation(),
            beam=suite.point_labels[..., 0].astype(np.uint8),
            bev=bev,
            boxes=boxes,
            box_count=count,
            depth=depth,
            semantic={name: self._picture_classes(name, picked) for name in cameras},
            light=self.light(),
            lane=self.lane(),
        )

    def _picture_classes(self, camera: str, picked: slice) -> NDArray[np.uint8]:
        """(E, rows, columns) `PictureClass`; signal heads and stop signs that look this way count in each field of LABEL_STRIDE
        pixels that any of them is in."""
        suite, state, scenery = self.suite, self.world.state, self.world.map.scenery
        classes = suite.semantic[camera][:, picked, picked].copy()
        rows, columns = classes.shape[1] * LABEL_STRIDE, classes.shape[2] * LABEL_STRIDE
        if suite.semantic[camera].shape[1:] != (rows, columns):
            return classes  # sizes that the fields do not fill
        heads = suite.instance[camera] - SIGNAL_INSTANCE
        e, row, column = np.nonzero((heads >= 0) & (heads < len(self._heads.link)))
        h = heads[e, row, column]
        away_x, away_y = state.x_m[e, EGO] - self._heads.x_m[h], state.y_m[e, EGO] - self._heads.y_m[h]
        yaw = self._heads.yaw_rad[h]
        shown = state.signal[e, self._heads.link[h]]
        told = (away_x * np.cos(yaw) + away_y * np.sin(yaw) > 0) & (shown != SignalState.NONE)
        e, row, column, shown = e[told], row[told], column[told], shown[told]
        classes[e, row // LABEL_STRIDE, column // LABEL_STRIDE] = PictureClass.SIGNAL_RED - SignalState.RED + shown
        if len(self._signs):
            e, row, column = np.nonzero(suite.semantic[camera] == SemanticClass.TRAFFIC_SIGN)
            instance = suite.instance[camera][e, row, column]
            found = np.minimum(np.searchsorted(self._sign_instance, instance), len(self._signs) - 1)
            sign, yaw = self._signs[found], scenery.yaw_rad[self._signs[found]] - 0.5 * np.pi
            away_x, away_y = state.x_m[e, EGO] - scenery.center[sign, 0], state.y_m[e, EGO] - scenery.center[sign, 1]
            told = (self._sign_instance[found] == instance) & (away_x * np.cos(yaw) + away_y * np.sin(yaw) < 0)
            classes[e[told], row[told] // LABEL_STRIDE, column[told] // LABEL_STRIDE] = PictureClass.STOP_SIGN
        return classes

    def observation(self) -> dict[str, NDArray[Any]]:
        """What all environments observe, a copy; as `perception.preprocess.frames_to_observation` gives it."""
        world, suite = self.world, self.suite
        n = world.num_envs
        ego = np.zeros((n, 5), np.float32)
        ego_vector(world.state, ego)
        observation: dict[str, NDArray[Any]] = {c.name: suite.images[c.name].copy() for c in suite.rig.cameras}
        observation["ego"] = ego
        observation["route"] = np.clip(world.route_in_ego.reshape(n, -1), -ROUTE_RANGE_M, ROUTE_RANGE_M)
        if suite.rig.max_points:
            observation["points"] = suite.points.reshape(n, -1).copy()
            observation["point_count"] = suite.point_count[:, None].copy()
        return observation

    def _boxes(self, e: int) -> NDArray[np.float32]:
        """(N, len(BoxField)) the actors and parked cars within BOX_RANGE_M, nearest first, at most MAX_BOXES."""
        state, f = self.world.state, BoxField
        others = np.flatnonzero((state.active[e] != 0) & (state.kind[e] <= ActorKind.PEDESTRIAN))
        others = others[others != EGO]
        actors = np.zeros((len(others), len(f)))
        pedestrian = state.kind[e, others] == ActorKind.PEDESTRIAN
        actors[:, f.CLASS] = np.where(pedestrian, BoxClass.WALKER, BoxClass.VEHICLE)
        actors[:, f.X], actors[:, f.Y] = state.x_m[e, others], state.y_m[e, others]
        actors[:, f.Z], actors[:, f.HEIGHT] = state.height_m[e, others] / 2, state.height_m[e, others]
        actors[:, f.LENGTH], actors[:, f.WIDTH] = state.length_m[e, others], state.width_m[e, others]
        actors[:, f.YAW] = state.yaw_rad[e, others]
        actors[:, f.VX] = state.speed_mps[e, others]
        boxes = np.concatenate([actors, self.parked])
        instance = np.concatenate([others, self.parked_instance])

        yaw_ego, axle = state.yaw_rad[e, EGO], state.rear_axle_m[e, EGO]
        c, s = np.cos(yaw_ego), np.sin(yaw_ego)
        east = boxes[:, f.X] - (state.x_m[e, EGO] - axle * c)
        north = boxes[:, f.Y] - (state.y_m[e, EGO] - axle * s)
        away = np.hypot(east, north)
        order = np.argsort(away, kind="stable")
        order = order[away[order] < BOX_RANGE_M][:MAX_BOXES]
        boxes, instance, east, north = boxes[order], instance[order], east[order], north[order]
        speed, yaw = boxes[:, f.VX].copy(), (boxes[:, f.YAW] - yaw_ego + np.pi) % (2 * np.pi) - np.pi
        boxes[:, f.X], boxes[:, f.Y], boxes[:, f.YAW] = c * east + s * north, c * north - s * east, yaw
        boxes[:, f.VX], boxes[:, f.VY] = speed * np.cos(yaw), speed * np.sin(yaw)
        boxes[:, f.SEEN] = self._seen(e, instance)
        return np.asarray(boxes, np.float32)

    def _seen(self, e: int, instance: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether sensors of environment e see those instances (N,)."""
        suite = self.suite
        pixels = np.zeros(self._agents + self._things, np.int64)
        for camera in suite.rig.cameras:
            pixels += self._counts(suite.instance[camera.name][e].ravel())
        returns = self._counts(suite.point_labels[e, : suite.point_count[e], 2])
        place = self._place(instance)
        return np.asarray((returns[place] >= LEAST_RETURNS) | (pixels[place] >= LEAST_PIXELS))

    def _counts(self, instances: NDArray[np.int32]) -> NDArray[np.int64]:
        """How often each agent and each thing of the scenery occurs (agents + things,); signals lie beyond and are left out."""
        places = self._place(instances[instances > 0])
        size = self._agents + self._things
        return np.bincount(places[places < size], minlength=size)

    def _place(self, instances: NDArray[np.integer]) -> NDArray[np.integer]:
        """Instances as numbers without a gap: agents first, then the scenery."""
        return np.where(instances >= FIRST_INSTANCE, instances - (FIRST_INSTANCE - self._agents), instances)

    def _bird_view(self, e: int, boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(rows, columns) `BevClass`: the ground, and on it the actors that are seen."""
        fine = _BEV_OF_GROUND[self._ground(e)]
        grid, f = self.grid, BoxField
        step = grid.cell_m / FINER
        for box in boxes[boxes[:, f.SEEN] > 0]:
            c, s = np.cos(box[f.YAW]), np.sin(box[f.YAW])
            ends = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * box[f.LENGTH : f.WIDTH + 1] / 2
            corners = ends @ np.array([[c, s], [-s, c]]) + box[f.X : f.Y + 1]
            places = (corners[:, ::-1] - [grid.y_min_m, grid.x_min_m]) / step - 0.5
            kind = BevClass.WALKER if box[f.CLASS] == BoxClass.WALKER else BevClass.VEHICLE
            cv2.fillConvexPoly(fine, np.rint(places * 16).astype(np.int32), int(kind), shift=4)
        blocks = fine.reshape(grid.rows, FINER, grid.columns, FINER)
        result = np.ascontiguousarray(blocks[:, FINER // 2, :, FINER // 2])
        for kind in _THIN:
            result[(blocks == kind).sum((1, 3)) >= LEAST_THIN] = kind
        return result

    def _ground(self, e: int) -> NDArray[np.uint8]:
        """(rows * FINER, columns * FINER) `GroundClass` around the ego, terrain beyond the map."""
        grid, ground = self.grid, self.world.map.ground
        pose = self.world.world_from_ego(e)
        step = grid.cell_m / FINER
        first = np.array([grid.x_min_m, grid.y_min_m]) + 0.5 * step
        # Column u and row v of the result lie at x = first + v, y = first + u in ego.
        along, across = pose[:2, 0] * step / ground.cell_m, pose[:2, 1] * step / ground.cell_m
        start = (pose[:2, :2] @ first + pose[:2, 3] - ground.origin) / ground.cell_m - 0.5
        reach = np.hypot(grid.rows, grid.columns) * grid.cell_m / ground.cell_m + 2
        low = np.maximum(np.floor(start - reach), 0).astype(int)
        size = np.array(ground.classes.shape[::-1])
        high = np.minimum(np.ceil(start + reach).astype(int), size)
        if (high <= low).any():
            return np.full((grid.rows * FINER, grid.columns * FINER), GroundClass.TERRAIN, np.uint8)
        window = ground.classes[low[1] : high[1], low[0] : high[0]]
        matrix = np.column_stack([across, along, start - low])
        drawn = cv2.warpAffine(
            window, matrix, (grid.columns * FINER, grid.rows * FINER), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT, borderValue=int(GroundClass.TERRAIN),
        )  # fmt: skip
        return np.asarray(drawn, np.uint8)

    def light(self) -> NDArray[np.int64]:
        situation = self.world.situation()
        distance = situation.stop_line_distance_m
        told = np.where(distance <= SIGNAL_TOLD_M, situation.signal, UNKNOWN)
        return np.where(distance > SIGNAL_NONE_M, SignalState.NONE, told).astype(np.int64)

    def lane(self) -> NDArray[np.float32]:
        lateral, heading = self.world.events.lateral_m, self.world.route_heading_rad
        lane = np.column_stack([lateral, heading]).astype(np.float32)
        lane[np.abs(lateral) > FURTHEST_FROM_LANE_M] = np.nan
        return lane
