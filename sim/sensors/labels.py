"""Labels of what the sensors of one car see: 2-D boxes in each picture, 3-D boxes with their LiDAR points.

Knows the sensors' buffers and the world's state; knows nothing about files or detectors. Terms are those of KITTI and nuScenes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.geometry import inverse, transform
from sim.sensors.camera import cast_camera, in_picture
from sim.sensors.cast import FAR_M, FAST, SKY
from sim.sensors.lens import lens_tables, project, ray_directions
from sim.sensors.parts import INSTANCE
from sim.sensors.pinhole import pinhole_view
from sim.sensors.rig import CameraConfig
from sim.sensors.suite import SensorSuite
from sim.simd import WIDTH
from sim.world import EGO, WorldState

# A return counts for an actor this far outside its box: range noise, mirrors.
POINT_MARGIN_M = 0.1
# The road under an actor is not the actor.
_CLEARANCE_M = 0.05
_GRID = np.stack(np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in (9, 5, 5)), indexing="ij"), -1).reshape(-1, 3)


@dataclass(frozen=True)
class ActorBoxes:
    """The N actors of one environment, the ego left out, at one instant; frame ego.

    instance: (N,) int32, as in instance pictures. kind: (N,) int8 `ActorKind`. center: (N, 3) float64 metres. size: (N, 3)
    float64 length, width, height. yaw_rad: (N,) float64. velocity_mps: (N, 2) float64 over ground, in ego axes.
    num_lidar_points: (N,) int64, returns inside the box, widened by POINT_MARGIN_M; 0 without a LiDAR. Of a sweep with motion,
    inside the box as it was when each was measured, which only a suite with labels knows.
    """

    instance: NDArray[np.int32]
    kind: NDArray[np.int8]
    center: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    velocity_mps: NDArray[np.float64]
    num_lidar_points: NDArray[np.int64]


@dataclass(frozen=True)
class PictureBoxes:
    """The M actors that one camera sees at least one pixel of.

    instance: (M,) int32. box: (M, 4) float64 left, top, right, bottom of what is visible, pixels; a pixel reaches half a pixel
    to each side of its centre. whole: (M, 4), the same of all that would be visible with nothing in front, inside the picture.
    pixels: (M,) int64, visible ones. visible_fraction: (M,) float64 in (0, 1], visible pixels over those with nothing in front.
    truncation: (M,) float64 in [0, 1), share of the actor's 3-D box that lies outside the picture.
    """

    instance: NDArray[np.int32]
    box: NDArray[np.float64]
    whole: NDArray[np.float64]
    pixels: NDArray[np.int64]
    visible_fraction: NDArray[np.float64]
    truncation: NDArray[np.float64]

    def kitti_occlusion(self) -> NDArray[np.int64]:
        """(M,) int64: 0 fully visible, 1 partly, 2 largely occluded (under half is visible)."""
        return np.where(self.visible_fraction > 0.95, 0, np.where(self.visible_fraction >= 0.5, 1, 2))

    def nuscenes_visibility(self) -> NDArray[np.int64]:
        """(M,) int64: 1 for up to 40 % visible, 2 up to 60 %, 3 up to 80 %, 4 above."""
        return 1 + np.searchsorted([0.4, 0.6, 0.8], self.visible_fraction, side="left")


@njit(**FAST)
def _visible_pixels(code, instance_of, pixels, box):
    """Count the pixels of every instance and their extent; instance_of (K,) int32 of each box, 0 for what is no actor.

    pixels: (A,) int64. box: (A, 4) int64, left, top, right, bottom, inclusive.
    """
    pixels[:] = 0
    for v in range(code.shape[0]):
        for u in range(code.shape[1]):
            hit = code[v, u]
            if hit < 0:
                continue
            a = instance_of[hit >> 2]
            if a <= 0:
                continue
            if pixels[a] == 0:
                box[a, 0], box[a, 1], box[a, 2], box[a, 3] = u, v, u, v
            box[a, 0], box[a, 2], box[a, 3] = min(box[a, 0], u), max(box[a, 2], u), v
            pixels[a] += 1


@njit(**FAST)
def _alone(boxes, order, view, lens, origin, dx, dy, dz, depth, code, corners, bounds, drawn, box):
    """Pixels that boxes[order] would cover with nothing in front, and their extent in box (4,), inclusive.

    depth and code (H, W) are scratch; view is what `pinhole_view` makes its view of.
    """
    rows, columns = dz.shape
    seen = pinhole_view(view[0], view[1], rows, columns)
    u0, u1, v0, v1 = columns, 0, rows, 0
    for i in range(order.shape[0]):
        if in_picture(boxes[order[i]], origin, seen, lens, corners, bounds):
            u0, u1, v0, v1 = min(u0, bounds[0]), max(u1, bounds[1]), min(v0, bounds[2]), max(v1, bounds[3])
    if u0 >= u1 or v0 >= v1:
        return 0
    depth[v0:v1, u0:u1] = FAR_M
    code[v0:v1, u0:u1] = SKY
    cast_camera(boxes, order, order.shape[0], origin, seen, lens, dx, dy, dz, depth, code, corners, bounds, drawn)
    count = 0
    box[0], box[1], box[2], box[3] = columns, rows, -1, -1
    for v in range(v0, v1):
        for u in range(u0, u1):
            if code[v, u] >= 0:
                count += 1
                box[0], box[1], box[2], box[3] = min(box[0], u), min(box[1], v), max(box[2], u), max(box[3], v)
    return count


class _Camera:
    """What labelling needs of one camera."""

    def __init__(self, config: CameraConfig, max_boxes: int) -> None:
        self.calibration = config.calibration()
        k, pose = self.calibration.intrinsics, self.calibration.ego_from_camera
        shape = (config.height_px, config.width_px)
        self.origin = pose[:3, 3].astype(np.float32)
        self.directions = ray_directions(self.calibration)
        self.lens = lens_tables(self.calibration)
        self.view = (
            np.ascontiguousarray(pose[:3, :3].T, np.float32), np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], np.float32)
        )  # fmt: skip
        rays = self.directions.reshape(3, -1).astype(np.float64)
        self.least_cosine = float((pose[:3, 2] @ rays / np.linalg.norm(rays, axis=0)).min())
        self.depth, self.code = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        self.corners, self.bounds = np.zeros((3, WIDTH), np.float32), np.zeros(4, np.int64)
        self.drawn = np.zeros(max_boxes, np.int32)

    def inside(self, points_in_ego: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which points (N, 3) lie in the picture, whatever is in front of them."""
        points = transform(inverse(self.calibration.ego_from_camera), points_in_ego)
        ahead = points[:, 2] >= self.least_cosine * np.linalg.norm(points, axis=1)
        pixels = project(self.calibration, np.where(ahead[:, None], points, [0.0, 0.0, 1.0]))
        size = (self.calibration.width_px, self.calibration.height_px)
        return np.asarray(ahead & (pixels >= -0.5).all(1) & (pixels < np.array(size) - 0.5).all(1))


class Labeller:
    """Labels what a suite has observed last; owns its scratch. It costs nothing unless it is asked."""

    def __init__(self, suite: SensorSuite) -> None:
        self._suite = suite
        self._cameras = {c.name: _Camera(c, suite.boxes.shape[1]) for c in suite.rig.cameras}

    def actors(self, state: WorldState, e: int) -> ActorBoxes:
        """The 3-D boxes of environment e; state: the one that was observed."""
        others = np.flatnonzero(state.active[e, 1:]) + 1
        yaw_ego = state.yaw_rad[e, EGO]
        c, s = np.cos(yaw_ego), np.sin(yaw_ego)
        axle = state.rear_axle_m[e, EGO]
        east = state.x_m[e, others] - (state.x_m[e, EGO] - axle * c)
        north = state.y_m[e, others] - (state.y_m[e, EGO] - axle * s)
        height = state.height_m[e, others]
        yaw = (state.yaw_rad[e, others] - yaw_ego + np.pi) % (2 * np.pi) - np.pi
        speed = state.speed_mps[e, others]
        center = np.column_stack([c * east + s * north, c * north - s * east, height / 2])
        size = np.column_stack([state.length_m[e, others], state.width_m[e, others], height])
        velocity = np.column_stack([speed * np.cos(yaw), speed * np.sin(yaw)])
        return ActorBoxes(
            instance=others.astype(np.int32),
            kind=state.kind[e, others].copy(),
            center=center,
            size=size,
            yaw_rad=yaw,
            velocity_mps=velocity,
            num_lidar_points=self._points_inside(state, e, center, size, yaw, velocity),
        )

    def _points_inside(
        self, state: WorldState, e: int, center: NDArray[np.float64], size: NDArray[np.float64], yaw: NDArray[np.float64],
        velocity: NDArray[np.float64],
    ) -> NDArray[np.int64]:  # fmt: skip
        suite, lidar, count = self._suite, self._suite.rig.lidar, int(self._suite.point_count[e])
        points = suite.points[e, :count, :3].astype(np.float64)
        if lidar is None or not lidar.motion or not suite.labels:
            return points_in_boxes(points, center, size, yaw)
        times = 1e-6 * suite.point_time_us[e, :count]
        points = _seen_from_now(points, times, float(state.speed_mps[e, EGO]), float(state.yaw_rate_radps[e, EGO]))
        counts = np.zeros(len(center), np.int64)
        for i, (vx, vy) in enumerate(velocity):
            moved = points - np.column_stack([vx * times, vy * times, np.zeros(count)])
            counts[i] = points_in_boxes(moved, center[i : i + 1], size[i : i + 1], yaw[i : i + 1])[0]
        return counts

    def picture(self, state: WorldState, e: int, name: str) -> PictureBoxes:
        """The 2-D boxes in the picture of one camera of environment e.

        Raises:
            KeyError: the rig has no such camera.
        """
        suite, camera = self._suite, self._cameras[name]
        agents = state.x_m.shape[1]
        of_actors = suite.attributes[e, : suite.counts[e, 1], INSTANCE]
        instance_of = np.zeros(suite.boxes.shape[1], np.int32)
        instance_of[: len(of_actors)] = of_actors
        pixels, box = np.zeros(agents, np.int64), np.zeros((agents, 4), np.int64)
        _visible_pixels(suite.code[name][e], instance_of, pixels, box)
        found = np.flatnonzero(pixels)
        alone, whole = np.zeros(len(found), np.int64), np.zeros((len(found), 4), np.int64)
        for i, a in enumerate(found):
            order = np.flatnonzero(of_actors == a).astype(np.int32)
            alone[i] = _alone(
                suite.boxes[e], order, camera.view, camera.lens, camera.origin, *camera.directions, camera.depth, camera.code,
                camera.corners, camera.bounds, camera.drawn, whole[i],
            )  # fmt: skip
        edges = np.array([-0.5, -0.5, 0.5, 0.5])
        boxes = self.actors(state, e)
        truncation = np.zeros(len(found))
        for i, a in enumerate(found):
            j = int(np.flatnonzero(boxes.instance == a)[0])
            truncation[i] = 1 - camera.inside(_filled(boxes.center[j], boxes.size[j], boxes.yaw_rad[j])).mean()
        return PictureBoxes(
            instance=found.astype(np.int32),
            box=box[found] + edges,
            whole=whole + edges,
            pixels=pixels[found],
            visible_fraction=pixels[found] / np.maximum(alone, 1),
            truncation=truncation,
        )


def _seen_from_now(
    points: NDArray[np.float64], times_s: NDArray[np.float64], speed_mps: float, yaw_rate_radps: float
) -> NDArray[np.float64]:
    """Points (N, 3) of the ego's frames at times_s (N,), not positive, in its frame of now; as `sweep_motion.ego_before` has it."""
    half = 0.5 * yaw_rate_radps * times_s
    chord = speed_mps * times_s * np.sinc(half / np.pi)
    c, s = np.cos(2 * half), np.sin(2 * half)
    x, y, z = points.T
    return np.column_stack([chord * np.cos(half) + c * x - s * y, chord * np.sin(half) + s * x + c * y, z])


def _filled(center: NDArray[np.float64], size: NDArray[np.float64], yaw_rad: float) -> NDArray[np.float64]:
    """Points (225, 3) that fill a box evenly."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.asarray((_GRID * size) @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]) + center)


def points_in_boxes(
    points: NDArray[np.float64], center: NDArray[np.float64], size: NDArray[np.float64], yaw_rad: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(N,) int64: how many points (P, 3) lie in each upright box, widened by POINT_MARGIN_M but clear of the road below it."""
    counts = np.zeros(len(center), np.int64)
    for i, (middle, full, yaw) in enumerate(zip(center, size, yaw_rad, strict=True)):
        near = points[np.abs(points[:, :2] - middle[:2]).max(1, initial=0.0) < np.hypot(*full[:2]) / 2 + 1.0] - middle
        along, aside = (
            np.cos(yaw) * near[:, 0] + np.sin(yaw) * near[:, 1],
            np.cos(yaw) * near[:, 1] - np.sin(yaw) * near[:, 0],
        )
        half = full / 2 + POINT_MARGIN_M
        inside = (np.abs(along) < half[0]) & (np.abs(aside) < half[1]) & (near[:, 2] < half[2])
        counts[i] = np.count_nonzero(inside & (near[:, 2] > _CLEARANCE_M - full[2] / 2))
    return counts
