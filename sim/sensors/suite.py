"""All sensors of a rig, for all environments: state in, pictures and clouds out.

Owns the buffers and calls the kernels; knows nothing about rewards, policies or logs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.geometry import inverse, transform
from perception.sensors import CameraFrame, LidarSweep
from sim.counter_random import Purpose, hash_key
from sim.roads.driving_map import DrivingMap
from sim.sensors.camera import cast_camera
from sim.sensors.camera_effects import CameraEffects
from sim.sensors.cast import BOX_COLUMNS, UNLOCKED, cast_ground
from sim.sensors.ground_texture import FINER, LEVELS, GroundTexture, grain_tiles
from sim.sensors.lamps import add_halos, cast_pools
from sim.sensors.lens import lens_tables, ray_directions
from sim.sensors.light import AMBIENT, DIRECT, HAZE, HORIZON, LAMPS, RAIN, SUN, WET, Light, WeatherName
from sim.sensors.meshes import MeshConfig, MeshLight, MeshScene, Sweep, merge_picture, merge_sweep
from sim.sensors.parts import BINS, INSTANCE, Surroundings, empty_boxes, gather_boxes, sort_boxes
from sim.sensors.pinhole import pinhole_view
from sim.sensors.rain import draw_drops, mirror_table, mirror_wet_ground
from sim.sensors.returns import AIR_COLUMNS, GROUND_CLASSES, RETURN_ROWS, Air, air_extinction, measure_sweep
from sim.sensors.rig import CameraConfig, LidarConfig, RigConfig
from sim.sensors.shading import light_faces, shade_camera
from sim.sensors.shadows import cast_contact, cast_shadows
from sim.sensors.sky import skyline
from sim.sensors.surfaces import PANE_COLUMNS
from sim.sensors.sweep import BOUNDS, cast_sweep, sweep_directions
from sim.sensors.sweep_motion import MovingSweep, sweep_in_motion
from sim.simd import WIDTH
from sim.threads import MOST_THREADS, over_environments
from sim.world import EGO, WorldState

# Grain of the ground, the same everywhere and always.
_NOISE_TILE = grain_tiles()
_NOISE, _RAIN = int(Purpose.NOISE), int(Purpose.RAIN)
_SKYLINE = skyline()


@njit(**UNLOCKED)
def _gather_all(
    k,
    which,
    arrays,
    static,
    static_attributes,
    static_turns,
    start,
    origin,
    cell_m,
    columns,
    rows,
    reach_m,
    heads,
    links,
    boxes,
    attributes,
    counts,
    order,
    bins,
):
    (active, kind, x_m, y_m, yaw, rear, length, width, height, speed, brake, indicator, paint, tick, signal) = arrays
    for e in which:
        count, actors = gather_boxes(
            e, active, kind, x_m, y_m, yaw, rear, length, width, height, speed, brake, indicator, paint, tick, signal, static,
            static_attributes, static_turns, start, origin, cell_m, columns, rows, reach_m, heads, links, boxes[e], attributes[e],
        )  # fmt: skip
        counts[e, 0], counts[e, 1] = count, actors
        sort_boxes(boxes[e], count, order[e], bins[e])


@njit(**UNLOCKED)
def _render_all(
    k, which, pose, rain_keys, lights, boxes, attributes, counts, order, camera, lens, scratch, ground, skyline, image, depth, code,
    semantic, instance, labels,
):  # fmt: skip
    (origin, camera_from_ego, intrinsics, dx, dy, dz, lengths, turns, level, noise, mirror, mirrored, rain_key) = camera
    (shade, contact, faces, panes, drawn, corners, bounds, flat, shine) = scratch
    pixel_angle = np.float32(1.0) / intrinsics[0]
    for e in which:
        view = pinhole_view(camera_from_ego, intrinsics, dz.shape[0], dz.shape[1])
        light = lights[e]
        cast_ground(origin, dz, depth[e], code[e])
        seen = cast_camera(
            boxes[e],
            order[e],
            counts[e, 0],
            origin,
            view,
            lens,
            dx,
            dy,
            dz,
            depth[e],
            code[e],
            corners[k],
            bounds[k],
            drawn[k],
        )
        if light[DIRECT] > np.float32(0.0):
            cast_shadows(
                boxes[e], order[e], counts[e, 0], origin, view, lens, light, dx, dy, depth[e], code[e], shade[k],
                corners[k], bounds[k], flat[k],
            )  # fmt: skip
        else:
            cast_pools(
                boxes[e], attributes[e], counts[e, 0], origin, view, lens, light, dx, dy, depth[e], code[e], shade[k],
                corners[k], bounds[k], flat[k],
            )  # fmt: skip
        cast_contact(
            boxes[e], attributes[e], order[e], counts[e, 0], origin, view, lens, dx, dy, depth[e], code[e], contact[k], corners[k],
            bounds[k], flat[k],
        )  # fmt: skip
        light_faces(boxes[e], attributes[e], drawn[k], seen, origin, light, faces[k], panes[k])
        shade_camera(
            depth[e], code[e], shade[k], contact[k], shine[k], dx, dy, dz, lengths, turns, level, origin, pixel_angle, boxes[e],
            attributes[e], faces[k], panes[k], light, skyline, pose[e, 0], pose[e, 1], pose[e, 2], pose[e, 3], ground, noise,
            image[e], semantic[e], instance[e], labels,
        )  # fmt: skip
        if light[WET] > np.float32(0.0):
            mirror_wet_ground(image[e], code[e], shine[k], dz, mirror, mirrored, light)
        if light[LAMPS] > np.float32(0.0):
            add_halos(
                image[e], depth[e], code[e], boxes[e], attributes[e], counts[e, 0], origin, view, lens, light, corners[k],
                bounds[k], flat[k],
            )  # fmt: skip
        if light[RAIN] > np.float32(0.0):
            draw_drops(image[e], rain_keys[e] + rain_key, light)


@njit(**UNLOCKED)
def _sweep_all(
    k, which, pose, keys, boxes, attributes, counts, order, view, scratch, ground, air, depth, code, points, point_count,
    semantic, instance, point_labels, point_time, labels,
):  # fmt: skip
    (origin, lidar_from_ego, upright, slopes, first, step, spread, dx, dy, dz, times, limits) = view
    (bounds, rows, wet) = scratch
    (classes, raster_origin, cell_m) = ground
    for e in which:
        cast_ground(origin, dz, depth[e], code[e])
        cast_sweep(
            boxes[e], order[e], counts[e, 0], origin, lidar_from_ego, upright, limits[1], slopes, first, step, spread,
            dx, dy, dz, depth[e], code[e], bounds[k],
        )  # fmt: skip
        point_count[e] = measure_sweep(
            depth[e], code[e], dx, dy, dz, times, origin, boxes[e], attributes[e], pose[e, 0], pose[e, 1], pose[e, 2],
            pose[e, 3], classes, raster_origin, cell_m, limits, air[e], keys[e], wet[k], rows[k],
            points[e], semantic[e], instance[e], point_labels[e], point_time[e], labels,
        )  # fmt: skip


@njit(cache=True)
def _prepare(which, x_m, y_m, yaw_rad, rear_axle_m, seed, episode, tick, sun_world, pose, keys, rain_keys, lights):
    """Pose of the rear axle (x, y, cosine, sine), keys of measurement noise and rain, and sun in ego, of each environment."""
    for e in which:
        c, s = math.cos(yaw_rad[e, EGO]), math.sin(yaw_rad[e, EGO])
        pose[e, 0], pose[e, 1] = x_m[e, EGO] - rear_axle_m[e, EGO] * c, y_m[e, EGO] - rear_axle_m[e, EGO] * s
        pose[e, 2], pose[e, 3] = c, s
        keys[e] = hash_key(seed[e], episode[e], tick[e], 0, _NOISE)
        rain_keys[e] = hash_key(seed[e], episode[e], tick[e], 0, _RAIN)
        lights[e, SUN] = c * sun_world[e, 0] + s * sun_world[e, 1]
        lights[e, SUN + 1] = c * sun_world[e, 1] - s * sun_world[e, 0]
        lights[e, SUN + 2] = sun_world[e, 2]


class SensorSuite:
    """The rig of E environments; `observe` overwrites the buffers, which are allocated once.

    images: by camera, (E, H, W, 3) uint8 RGB. points: (E, P, 4) float32 x y z intensity in ego, beam after beam,
    zero-padded; point_count: (E,) int32. depth: by sensor, (E, H, W) or (E, beams, columns) float32 metres, along the
    optical axis for a camera (along the ray if `measures_range`), along the ray for a LiDAR, FAR_M where there is nothing.
    With labels=True also semantic (uint8 `SemanticClass`) and instance (int32, 0 for none) of the same shape, and for each
    point point_labels (E, P, 3) int32 beam, class and instance, and point_time_us (E, P) int32 before the end of the sweep;
    otherwise these hold nothing.
    A LiDAR with motion gives points where the ego saw them at their own time, sector after sector (`sweep_motion`).
    air: (E, AIR_COLUMNS) float32 as in `returns.Air`, what the LiDAR looks through: the episode's weather.
    """

    def __init__(
        self, rig: RigConfig, driving_map: DrivingMap, num_envs: int, num_agents: int, labels: bool = False,
        meshes: tuple[MeshConfig, ...] = (), weather: WeatherName = "clear",
    ) -> None:  # fmt: skip
        self.rig = rig
        self.num_envs = num_envs
        self.labels = labels
        self._surroundings = Surroundings.of(driving_map)
        self._texture = GroundTexture.of(driving_map.ground)
        self.boxes, self.attributes = empty_boxes(num_envs)
        self.counts = np.zeros((num_envs, 2), np.int64)
        self.order = np.zeros(self.boxes.shape[:2], np.int32)
        self._bins = np.zeros((num_envs, BINS + 1 + self.boxes.shape[1]), np.int32)
        self._pose = np.zeros((num_envs, 4))
        self._keys = np.zeros(num_envs, np.uint64)
        self._rain_keys = np.zeros(num_envs, np.uint64)
        self._velocity = np.zeros((self.boxes.shape[1], 2), np.float32)  # of boxes in ego, for cameras with effects
        self.light = Light(weather, num_envs)
        self._cameras = {
            c.name: _CameraView(c, i, self._texture.cell_m, self.boxes.shape[1]) for i, c in enumerate(rig.cameras)
        }
        self._lidar = _LidarView(rig.lidar, self.boxes.shape[1], labels) if rig.lidar is not None else None
        self._meshes = MeshScene(meshes) if meshes else None
        self.images: dict[str, NDArray[np.uint8]] = {}
        self.depth: dict[str, NDArray[np.float32]] = {}
        self.code: dict[str, NDArray[np.int32]] = {}
        self.semantic: dict[str, NDArray[np.uint8]] = {}
        self.instance: dict[str, NDArray[np.int32]] = {}
        shapes = {c.name: (c.height_px, c.width_px) for c in rig.cameras}
        for name, shape in shapes.items():
            self.images[name] = np.zeros((num_envs, *shape, 3), np.uint8)
        if rig.lidar is not None:
            shapes[rig.lidar.name] = (rig.lidar.beams, rig.lidar.columns)
        for name, shape in shapes.items():
            labelled = shape if labels else (1, 1)
            self.depth[name] = np.zeros((num_envs, *shape), np.float32)
            self.code[name] = np.zeros((num_envs, *shape), np.int32)
            self.semantic[name] = np.zeros((num_envs, *labelled), np.uint8)
            self.instance[name] = np.zeros((num_envs, *labelled), np.int32)
        self.points = np.zeros((num_envs, rig.max_points, 4), np.float32)
        self.point_count = np.zeros(num_envs, np.int32)
        self.point_labels = np.zeros((num_envs, rig.max_points if labels else 1, 3), np.int32)
        self.point_time_us = np.zeros((num_envs, rig.max_points if labels else 1), np.int32)
        self._speed_mps, self._yaw_rate_radps = np.zeros((num_envs, num_agents)), np.zeros(num_envs)
        self._velocity_mps = np.zeros((num_envs, num_agents, 2))  # of agents in ego, for a LiDAR with motion
        self.air = np.zeros((num_envs, AIR_COLUMNS), np.float32)

    def observe(self, state: WorldState, only: NDArray[np.bool_] | None = None) -> None:
        """Sense the state in all environments, or in those where `only` (E,) is true."""
        which = np.arange(self.num_envs) if only is None else np.flatnonzero(only)
        for e in self.light.draw(state, which):
            weather = self.light.weather[e]
            self.air[e, [Air.FOG, Air.RAIN, Air.WETNESS]] = weather.fog_per_m, weather.rain_mm_h, weather.wetness
        _prepare(
            which, state.x_m, state.y_m, state.yaw_rad, state.rear_axle_m, state.seed, state.episode, state.tick,
            self.light.sun_world, self._pose, self._keys, self._rain_keys, self.light.rows,
        )  # fmt: skip
        s, grid = self._surroundings, self._surroundings.grid
        arrays = (
            state.active, state.kind, state.x_m, state.y_m, state.yaw_rad, state.rear_axle_m, state.length_m,
            state.width_m, state.height_m, state.speed_mps, state.brake_light, state.indicator, state.paint, state.tick,
            state.signal,
        )  # fmt: skip
        over_environments(
            _gather_all, which, arrays, grid.boxes, s.attributes, s.turns, grid.start, grid.origin, grid.cell_m,
            grid.columns, grid.rows, grid.reach_m, s.heads, s.head_links, self.boxes, self.attributes, self.counts, self.order,
            self._bins,
        )  # fmt: skip
        if self._lidar is not None and self._lidar.moving is not None:
            self._speed_mps[:], self._yaw_rate_radps[:] = state.speed_mps, state.yaw_rate_radps[:, EGO]
            heading = state.yaw_rad - state.yaw_rad[:, EGO, None]
            self._velocity_mps[..., 0] = state.speed_mps * np.cos(heading)
            self._velocity_mps[..., 1] = state.speed_mps * np.sin(heading)
        self.render(which)
        if self._meshes is not None:
            for e in which:
                self._add_meshes(self._meshes, state, int(e))
        for name, view in self._cameras.items():
            if view.effects is not None:
                for e in which:
                    self._apply_effects(view.effects, state, name, int(e))

    def render(self, which: NDArray[np.intp]) -> None:
        """Cast and colour what boxes, attributes, counts and order hold for the environments which (N,); no camera effects."""
        t = self._texture
        ground = t.arrays()
        for name, view in self._cameras.items():
            over_environments(
                _render_all, which, self._pose, self._rain_keys, self.light.rows, self.boxes, self.attributes, self.counts,
                self.order, view.constants, view.lens, view.scratch, ground, _SKYLINE, self.images[name], self.depth[name],
                self.code[name], self.semantic[name], self.instance[name], self.labels,
            )  # fmt: skip
        if self._lidar is not None:
            name, moving = self._lidar.name, self._lidar.moving
            if moving is not None:
                over_environments(
                    sweep_in_motion, which, self._pose, self._speed_mps, self._velocity_mps, self._yaw_rate_radps, self._keys,
                    self.boxes, self.attributes, self.counts, self.order, self._lidar.constants, moving.sectors, moving.scratch,
                    (t.classes, t.origin, t.cell_m), self.air, self.depth[name], self.code[name], self.points, self.point_count,
                    self.semantic[name], self.instance[name], self.point_labels, self.point_time_us, self.labels,
                )  # fmt: skip
                return
            over_environments(
                _sweep_all, which, self._pose, self._keys, self.boxes, self.attributes, self.counts, self.order,
                self._lidar.constants, self._lidar.scratch, (t.classes, t.origin, t.cell_m), self.air, self.depth[name],
                self.code[name], self.points, self.point_count, self.semantic[name], self.instance[name], self.point_labels,
                self.point_time_us, self.labels,
            )  # fmt: skip

    def _add_meshes(self, meshes: MeshScene, state: WorldState, e: int) -> None:
        row = self.light.rows[e]
        sun, ambient, direct, horizon = (row[first : first + 3] for first in (SUN, AMBIENT, DIRECT, HORIZON))
        light = MeshLight(sun, ambient, direct, horizon, float(row[HAZE]))
        for name, view in self._cameras.items():
            merge_picture(
                meshes, self._pose[e], view.origin, view.directions, light, self.images[name][e], self.depth[name][e],
                self.code[name][e], (self.semantic[name][e], self.instance[name][e]) if self.labels else None,
            )  # fmt: skip
        if self._lidar is not None:
            lidar, name = self._lidar, self._lidar.name
            sweep = Sweep(
                self.depth[name][e], self.code[name][e], self.points[e], self.semantic[name][e], self.instance[name][e],
                self.point_labels[e], self.point_time_us[e], lidar.times_us, self.labels,
            )  # fmt: skip
            counter = (int(state.seed[e]), int(state.episode[e]), int(state.tick[e]))
            extinction = float(air_extinction(self.air[e, Air.FOG], self.air[e, Air.RAIN]))
            self.point_count[e] = merge_sweep(
                meshes, lidar.config, self._pose[e], lidar.origin, lidar.directions, extinction, counter, sweep,
                int(self.point_count[e]),
            )  # fmt: skip

    def _apply_effects(self, effects: CameraEffects, state: WorldState, name: str, e: int) -> None:
        actors = self.counts[e, 1]
        cos_ego, sin_ego = self._pose[e, 2:]
        east, north = state.speed_mps[e] * np.cos(state.yaw_rad[e]), state.speed_mps[e] * np.sin(state.yaw_rad[e])
        in_ego = np.column_stack([cos_ego * east + sin_ego * north, cos_ego * north - sin_ego * east])
        self._velocity[:] = 0.0
        self._velocity[:actors] = in_ego[self.attributes[e, :actors, INSTANCE]]
        place = self._cameras[name].calibration.ego_from_camera[:2, 3]
        effects.apply(
            self.images[name][e], self.depth[name][e], self.code[name][e], self._velocity,
            (float(state.speed_mps[e, EGO]), float(state.yaw_rate_radps[e, EGO]), float(place[0]), float(place[1])),
            (int(state.seed[e]), int(state.episode[e]), int(state.tick[e])),
        )  # fmt: skip

    def frame(self, e: int, timestamp_us: int) -> tuple[dict[str, CameraFrame], dict[str, LidarSweep]]:
        """What environment e sensed last, copied: cameras and LiDARs by name, the sweep in its sensor's frame."""
        cameras = {
            name: CameraFrame(self.images[name][e].copy(), view.calibration, timestamp_us)
            for name, view in self._cameras.items()
        }
        if self._lidar is None:
            return cameras, {}
        points = self.points[e, : self.point_count[e]].copy()
        points[:, :3] = transform(inverse(self._lidar.ego_from_lidar), points[:, :3])
        times = self.point_time_us[e, : self.point_count[e]].copy() if self.labels else None
        return cameras, {self._lidar.name: LidarSweep(points, self._lidar.ego_from_lidar, timestamp_us, times)}


class _CameraView:
    """Everything about one camera that does not change: ray tables, where they meet the ground; and scratch for each thread, which
    stays in its cache from one environment to the next."""

    def __init__(self, config: CameraConfig, number: int, cell_m: float, max_boxes: int) -> None:
        self.calibration = config.calibration()
        k, pose = self.calibration.intrinsics, self.calibration.ego_from_camera
        shape = (config.height_px, config.width_px)
        self.lens = lens_tables(self.calibration)
        directions = self.directions = ray_directions(self.calibration)
        dx, dy, dz = directions
        origin = self.origin = pose[:3, 3].astype(np.float32)
        depth, code = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        cast_ground(origin, dz, depth, code)
        stretch = np.sqrt(dx * dx + dy * dy + dz * dz)
        # Footprint of a pixel on the ground: across, and along (longer by one over the sine of the grazing angle).
        across = depth / np.float32(k[0, 0])
        along = across * stretch / np.maximum(-dz / stretch, 1e-3)
        footprint = np.sqrt(across * np.minimum(along, 8 * across))
        level = np.clip(np.round(np.log2(footprint / cell_m)) + FINER, 0, FINER + LEVELS - 1).astype(np.uint8)
        intrinsics = np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], np.float32)
        camera_from_ego = np.ascontiguousarray(pose[:3, :3].T, np.float32)
        mirror, mirrored = mirror_table(directions, camera_from_ego, intrinsics, pinhole=len(self.lens[1]) == 0)
        turns = (np.arctan2(dy, dx) / (2 * np.pi) % 1.0).astype(np.float32)
        self.constants: tuple[Any, ...] = (
            origin, camera_from_ego, intrinsics, dx, dy, dz, stretch, turns, level, _NOISE_TILE, mirror, mirrored,
            np.uint64(number << 32),  # far enough apart that no two cameras count through the same drops
        )  # fmt: skip
        self.effects = CameraEffects(config.effects, number, directions) if config.effects.any else None
        threads = MOST_THREADS
        self.scratch: tuple[Any, ...] = (
            np.zeros((threads, *shape), np.uint8),
            np.zeros((threads, *shape), np.uint8),
            np.zeros((threads, 4 * max_boxes, 3), np.float32),
            np.zeros((threads, max_boxes, PANE_COLUMNS), np.float32),
            np.zeros((threads, max_boxes), np.int32),
            np.zeros((threads, 3, WIDTH), np.float32),
            np.zeros((threads, 4), np.int64),
            np.zeros((threads, BOX_COLUMNS), np.float32),
            np.zeros((threads, *shape), np.uint8),
        )


class _LidarView:
    """Everything about the LiDAR that does not change."""

    def __init__(self, config: LidarConfig, max_boxes: int, labels: bool) -> None:
        self.config, self.name = config, config.name
        self.ego_from_lidar = config.mount.ego_from_mount()
        elevations, azimuths = np.radians(np.array(config.elevations_deg)), config.azimuths_rad()
        rays = config.ray_azimuths_rad()
        self.directions = sweep_directions(elevations, rays, self.ego_from_lidar)
        dx, dy, dz = self.directions
        spread = np.float32(np.abs(rays - azimuths).max())
        origin = self.origin = self.ego_from_lidar[:3, 3].astype(np.float32)
        self.times_us = config.time_offsets_us()
        upright = bool(abs(self.ego_from_lidar[2, 2] - 1.0) < 1e-9)
        step = np.float32(math.radians(config.azimuth_step_deg))
        limits = (
            *(np.float32(m) for m in (config.min_range_m, config.max_range_m, config.sensitivity_m, config.range_noise_m)),
            np.float32(config.white), config.rooted,
        )  # fmt: skip
        self.constants: tuple[Any, ...] = (
            origin, np.ascontiguousarray(self.ego_from_lidar[:3, :3].T, np.float32), upright,
            np.tan(elevations).astype(np.float32), np.float32(azimuths[0]), step, spread, dx, dy, dz,
            self.times_us, limits,
        )  # fmt: skip
        self.moving = (
            MovingSweep(np.stack([dx, dy, dz]), self.times_us, config.column_times_s(), max_boxes, BOX_COLUMNS, labels)
            if config.motion
            else None
        )
        threads = MOST_THREADS
        self.scratch = (
            np.zeros((threads, BOUNDS, WIDTH), np.float32),
            np.zeros((threads, RETURN_ROWS, config.columns), np.float32),
            np.zeros((threads, GROUND_CLASSES, 2), np.float32),
        )
