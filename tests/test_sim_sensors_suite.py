"""Pictures and returns of the whole suite: against Embree for shadows, against the depth buffer for returns."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_arguments import view_of
from numba import njit
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.drive_batch import EnvConfig
from sim.roads.driving_map import DrivingMap
from sim.sensors.camera import cast_camera
from sim.sensors.cast import BOX_COLUMNS, COS, CX, CZ, FAR_M, FAST, GROUND, HX, HZ, SHAPE, SIN, cast_ground
from sim.sensors.embree_oracle import EmbreeScene
from sim.sensors.lens import lens_tables
from sim.sensors.light import AMBIENT, DIRECT, HAZE, HORIZON, LIGHT_COLUMNS, SUN, ZENITH
from sim.sensors.parts import BINS, sort_boxes
from sim.sensors.pinhole import pinhole_directions
from sim.sensors.rig import rig
from sim.sensors.shading import _face_pixels, light_faces, store_pixels
from sim.sensors.shadows import SHADOW, SUNNY, cast_shadows
from sim.sensors.suite import SensorSuite
from sim.sensors.surfaces import PANE_COLUMNS
from sim.simd import WIDTH, lane
from sim.simd_memory import load2
from sim.solids import Material, Shape
from sim.world import World, WorldState


def test_labels_change_no_picture_and_no_return(town: DrivingMap, state: WorldState) -> None:
    agents = state.x_m.shape[1]
    with_labels, without = (SensorSuite(rig("small"), town, 2, agents, labels=labels) for labels in (True, False))
    with_labels.observe(state)
    without.observe(state)
    for name, images in with_labels.images.items():
        assert np.array_equal(images, without.images[name])
        assert len(np.unique(with_labels.semantic[name])) > 4
    assert np.array_equal(with_labels.points, without.points)


def test_observing_some_leaves_the_others_alone(town: DrivingMap, state: WorldState) -> None:
    suite = SensorSuite(rig("small"), town, 2, state.x_m.shape[1])
    suite.observe(state, np.array([False, True]))
    everyone = SensorSuite(rig("small"), town, 2, state.x_m.shape[1])
    everyone.observe(state)
    for name, images in suite.images.items():
        assert not images[0].any()
        assert np.array_equal(images[1], everyone.images[name][1])
    assert suite.point_count[0] == 0
    assert np.array_equal(suite.points[1], everyone.points[1])


def test_labels_say_what_the_codes_say(town: DrivingMap, state: WorldState) -> None:
    suite = SensorSuite(rig("small"), town, 2, state.x_m.shape[1], labels=True)
    suite.observe(state)
    for name, code in suite.code.items():
        assert (code >= 0).any()
        for e in range(2):
            boxes, attributes = code[e] >= 0, suite.attributes[e]
            assert np.array_equal(suite.semantic[name][e][boxes], attributes[code[e][boxes] >> 2, 1])
            assert np.array_equal(suite.instance[name][e][boxes], attributes[code[e][boxes] >> 2, 2])
            assert (suite.instance[name][e][~boxes] == 0).all()
            nothing = suite.depth[name][e] == FAR_M
            assert (suite.semantic[name][e][nothing] == int(SemanticClass.SKY)).all()
            assert (suite.semantic[name][e][code[e] == GROUND] != int(SemanticClass.SKY)).all()


def test_returns_lie_on_their_rays_with_the_stated_noise(town: DrivingMap, state: WorldState) -> None:
    lidar = rig("small").lidar
    assert lidar is not None
    suite = SensorSuite(rig("small"), town, 2, state.x_m.shape[1], labels=True)
    suite.observe(state)
    count = int(suite.point_count[0])
    points = suite.points[0, :count].astype(np.float64)
    assert not suite.points[0, count:].any()
    depth = suite.depth[lidar.name][0]
    sensor = points[:, :3] - lidar.mount.ego_from_mount()[:3, 3]
    measured = np.linalg.norm(sensor, axis=1)
    # Upright sensor: a return's angles give back beam and column.
    azimuth = np.arctan2(sensor[:, 1], sensor[:, 0])
    turn = (azimuth - lidar.azimuths_rad()[0]) / (lidar.azimuths_rad()[1] - lidar.azimuths_rad()[0])
    column = np.round(turn).astype(int) % lidar.columns
    elevation = np.degrees(np.arcsin(sensor[:, 2] / measured))
    beam = np.abs(elevation[:, None] - np.array(lidar.elevations_deg)).argmin(axis=1)
    assert len(np.unique(beam * lidar.columns + column)) == count, "two returns of one ray"
    assert (np.diff(beam) >= 0).all(), "beam after beam"
    noise = measured - depth[beam, column]
    assert abs(noise.mean()) < 4 * lidar.range_noise_m / np.sqrt(count)
    assert noise.std() == pytest.approx(lidar.range_noise_m, rel=0.05)
    assert np.abs(noise).max() < 5 * lidar.range_noise_m
    assert (points[:, 3] > 0).all()
    assert (points[:, 3] <= 1).all()


def test_noise_differs_from_tick_to_tick(town: DrivingMap) -> None:
    world = World(town, EnvConfig.of().world, 1)
    world.reset(np.ones(1, np.bool_), np.array([3], np.uint64), np.zeros(1, np.int64))
    suite = SensorSuite(rig("small"), town, 1, world.state.x_m.shape[1])
    sweeps = []
    for _ in range(2):
        world.step(np.array([[0.0, -1.0]], np.float32))  # standing still
        suite.observe(world.state)
        sweeps.append(suite.points[0, : suite.point_count[0]].copy())
    shared = min(len(sweep) for sweep in sweeps)
    assert np.mean(sweeps[0][:shared, 0] == sweeps[1][:shared, 0]) < 0.05


@pytest.mark.parametrize("seed", range(6))
def test_shadows_are_where_embree_sees_no_sun(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 25
    boxes = np.zeros((count, BOX_COLUMNS), np.float32)
    boxes[:, HX : HZ + 1] = rng.uniform(0.3, 3.0, (count, 3))
    boxes[:, CX : CX + 2] = np.stack([rng.uniform(8, 40, count), rng.uniform(-20, 20, count)], 1)
    boxes[:, CZ] = boxes[:, HZ] + rng.choice([0.004, 1.0], count)
    boxes[:, SHAPE] = rng.choice(len(Shape), count)
    yaw = rng.uniform(-np.pi, np.pi, count)
    boxes[:, COS], boxes[:, SIN] = np.cos(yaw), np.sin(yaw)
    calibration = rig("small").cameras[0].calibration()
    lens = lens_tables(calibration)
    k, pose = calibration.intrinsics, calibration.ego_from_camera
    shape = (calibration.height_px, calibration.width_px)
    directions = pinhole_directions(k, pose, calibration.width_px, calibration.height_px)
    origin = pose[:3, 3].astype(np.float32)
    depth, code, shade = np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.zeros(shape, np.uint8)
    view = view_of(calibration)
    corners, bounds = np.zeros((3, WIDTH), np.float32), np.zeros(4, np.int64)
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(25, 65))
    level = np.cos(elevation)
    sun = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], np.float32)
    cast_ground(origin, directions[2], depth, code)
    cast_camera(
        boxes, np.arange(count, dtype=np.int32), count, origin, view, lens, *directions, depth, code, corners, bounds,
        np.zeros(count, np.int32),
    )  # fmt: skip
    cast_shadows(
        boxes, nearest_first(boxes), count, origin, view, lens, sun, directions[0], directions[1], depth, code, shade,
        corners, bounds, np.zeros(BOX_COLUMNS, np.float32),
    )  # fmt: skip
    assert set(np.unique(shade)) == {int(SHADOW), int(SUNNY)}
    # Beyond that range shadows are left out.
    seen = (code == GROUND) & (depth < 45.0)
    ground = origin[:, None] + depth[seen] * directions[:, seen]
    ground[2] = 2e-4
    rays = np.concatenate([ground, np.broadcast_to(sun[:, None], ground.shape)]).T.astype(np.float32)
    distance, _ = EmbreeScene(boxes, segments=64).cast(np.ascontiguousarray(rays))
    assert np.mean((shade[seen] == SHADOW) == np.isfinite(distance)) > 0.995


def nearest_first(boxes: NDArray[np.float32]) -> NDArray[np.int32]:
    order, bins = np.zeros(len(boxes), np.int32), np.zeros(BINS + 1 + len(boxes), np.int32)
    sort_boxes(boxes, len(boxes), order, bins)
    assert sorted(order) == list(range(len(boxes)))
    return order


def test_colours_beyond_a_byte_are_cut_off() -> None:
    colors = np.zeros((3, WIDTH + 1), np.float32)
    colors[:, 1:5] = np.array([[-3.0, 0.0, 254.9, 300.0], [1.0, 2.0, 3.0, 4.0], [255.0, 1e9, -1e9, 128.5]])
    image = np.full((3, WIDTH + 1, 3), 7, np.uint8)
    store_at(colors, 1, 1, image)
    assert image[1, 1:5].tolist() == [[0, 1, 255], [0, 2, 255], [254, 3, 0], [255, 4, 128]]
    assert (image[1, 5:] == 0).all()
    assert (image[[0, 2]] == 7).all()
    assert (image[1, 0] == 7).all()


@njit(**FAST)
def store_at(colors, v, c, image):
    """Kernels that are inlined cannot be called from Python."""
    store_pixels(image, v, c, load2(colors, 0, c), load2(colors, 1, c), load2(colors, 2, c))


@njit(**FAST)
def paint_one(
    v, u, code, depth, dx, dy, dz, lengths, origin, boxes, attributes, faces, panes, light, colors
):  # fmt: skip
    """One pixel of a face: colors (3,)."""
    c = min(u, depth.shape[1] - WIDTH)
    red, green, blue = _face_pixels(
        code[v, u], v, c, depth, dx, dy, dz, lengths, origin, boxes, attributes, faces, panes, light, np.float32(0.01)
    )
    colors[0], colors[1], colors[2] = lane(red, u - c), lane(green, u - c), lane(blue, u - c)


@pytest.mark.parametrize("shape", list(Shape))
def test_light_on_a_solid_follows_its_normal(shape: Shape) -> None:
    """Every pixel's colour against Lambert's law for the normal that Embree's triangles have there."""
    boxes = np.zeros((1, BOX_COLUMNS), np.float32)
    yaw = 0.7
    boxes[0, [CX, CX + 1, CZ, HX, HX + 1, HZ]] = [9.0, 0.5, 1.2, 1.4, 0.9, 1.1]
    boxes[0, [COS, SIN, SHAPE]] = np.cos(yaw), np.sin(yaw), shape
    attributes = np.array([[int(Material.PLAIN), 1, 5, 200, 150, 100]], np.int32)
    camera = rig("small").cameras[0].calibration()
    k, pose = camera.intrinsics, camera.ego_from_camera
    shape_px = (camera.height_px, camera.width_px)
    directions = pinhole_directions(k, pose, camera.width_px, camera.height_px)
    origin = pose[:3, 3].astype(np.float32)
    depth, code = np.zeros(shape_px, np.float32), np.zeros(shape_px, np.int32)
    view = view_of(camera)
    cast_ground(origin, directions[2], depth, code)
    drawn = np.zeros(1, np.int32)
    assert (
        cast_camera(
            boxes,
            drawn,
            1,
            origin,
            view,
            lens_tables(camera),
            *directions,
            depth,
            code,
            np.zeros((3, WIDTH), np.float32),
            np.zeros(4, np.int64),
            drawn,
        )
        == 1
    )
    sun = np.array([-0.6, 0.48, 0.64], np.float32)
    light = np.zeros(LIGHT_COLUMNS, np.float32)
    light[SUN : SUN + 3], light[AMBIENT : AMBIENT + 3], light[DIRECT : DIRECT + 3] = sun, 0.4, 0.5
    light[HORIZON : HORIZON + 3], light[ZENITH : ZENITH + 3], light[HAZE] = 200.0, 200.0, 1 / 900
    faces, panes = np.zeros((4, 3), np.float32), np.zeros((1, PANE_COLUMNS), np.float32)
    light_faces(boxes, attributes, drawn, 1, origin, light, faces, panes)
    scene = EmbreeScene(boxes, segments=400)
    answer = scene.cast_tensor(scene.rays(origin, directions))
    normals = answer["primitive_normals"].numpy()
    normals *= -np.sign((normals * np.moveaxis(directions, 0, -1)).sum(-1, keepdims=True))
    checked = 0
    for v in range(shape_px[0]):
        for u in np.flatnonzero(code[v] >= 0)[::5]:
            colors = np.zeros(3, np.float32)
            paint_one(
                v, u, code, depth, *directions, np.linalg.norm(directions, axis=0), origin, boxes, attributes, faces, panes,
                light, colors,
            )  # fmt: skip
            n = normals[v, u]
            aside_up_down = 0.78 + n[2] * (0.22 if n[2] > 0 else 0.33)
            level = 0.4 * aside_up_down + 0.5 * max(float(n @ sun), 0.0)
            veil = panes[0, 7:10]
            clear = 1 - veil / 200.0
            assert colors == pytest.approx(np.array([200, 150, 100]) * level * clear + veil, rel=0.03)
            checked += 1
    assert checked > 20
