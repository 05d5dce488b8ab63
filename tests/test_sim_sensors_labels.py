"""Labels of what is seen: against instance pictures, projected boxes and the returns' own instances."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from perception.geometry import inverse, transform
from sim.drive_batch import EnvConfig
from sim.roads.driving_map import load_map
from sim.sensors.labels import Labeller, PictureBoxes, points_in_boxes
from sim.sensors.rig import CameraConfig, LidarConfig, Mount, RigConfig
from sim.sensors.suite import SensorSuite
from sim.world import World, WorldState

ENVS = 3


@pytest.fixture(scope="module")
def seen() -> tuple[SensorSuite, WorldState, Labeller]:
    town = load_map("grid-small")
    world = World(town, EnvConfig.of().world, ENVS)
    world.reset(np.ones(ENVS, np.bool_), np.array([3, 4, 5], np.uint64), np.zeros(ENVS, np.int64))
    for _ in range(40):
        world.step(np.full((ENVS, 2), [0.0, 0.5], np.float32))
    mount = Mount(x_m=1.2, z_m=1.8)
    fisheye = {"distortion_model": "kannala_brandt", "distortion": (0.02, 0.0, 0.0, 0.0)}
    cameras = (
        CameraConfig(name="front", width_px=320, height_px=160, horizontal_fov_deg=90.0, mount=mount),
        CameraConfig.model_validate(
            {"name": "round", "width_px": 240, "height_px": 160, "fx_px": 75.0, "mount": mount, **fisheye}
        ),
    )
    lidar = LidarConfig(elevations_deg=tuple(np.linspace(5, -25, 32).tolist()), columns=720, mount=mount)
    suite = SensorSuite(RigConfig(cameras=cameras, lidar=lidar), town, ENVS, world.state.x_m.shape[1], labels=True)
    suite.observe(world.state)
    return suite, world.state, Labeller(suite)


def everything(seen: tuple[SensorSuite, WorldState, Labeller], name: str) -> list[tuple[int, PictureBoxes]]:
    _, state, labeller = seen
    found = [(e, labeller.picture(state, e, name)) for e in range(ENVS)]
    assert sum(len(boxes.instance) for _, boxes in found) >= 5
    return found


@pytest.mark.parametrize("name", ["front", "round"])
def test_boxes_hold_exactly_the_instances_pixels(seen: tuple[SensorSuite, WorldState, Labeller], name: str) -> None:
    suite, state, _ = seen
    for e, boxes in everything(seen, name):
        picture = suite.instance[name][e]
        actors = [a for a in np.unique(picture) if 0 < a < state.x_m.shape[1]]
        assert boxes.instance.tolist() == actors
        for i, a in enumerate(actors):
            v, u = np.nonzero(picture == a)
            assert boxes.pixels[i] == len(u)
            assert boxes.box[i].tolist() == [u.min() - 0.5, v.min() - 0.5, u.max() + 0.5, v.max() + 0.5]
            assert (boxes.whole[i, :2] <= boxes.box[i, :2]).all()
            assert (boxes.whole[i, 2:] >= boxes.box[i, 2:]).all()


@pytest.mark.parametrize("name", ["front", "round"])
def test_what_hides_an_actor_is_what_its_fraction_says(
    seen: tuple[SensorSuite, WorldState, Labeller], name: str
) -> None:
    """Take everything else away, observe again, and count."""
    suite, _, _ = seen
    hidden = 0
    for e, boxes in everything(seen, name):
        assert ((boxes.visible_fraction > 0) & (boxes.visible_fraction <= 1)).all()
        counts, order = suite.counts[e].copy(), suite.order[e].copy()
        before = suite.instance[name][e].copy()
        for i, a in enumerate(boxes.instance):
            own = np.flatnonzero(suite.attributes[e, : counts[1], 2] == a)
            suite.order[e, : len(own)], suite.counts[e, 0] = own, len(own)
            suite.render(np.array([e]))
            alone = np.count_nonzero(suite.instance[name][e] == a)
            assert boxes.visible_fraction[i] == pytest.approx(boxes.pixels[i] / alone)
            hidden += boxes.visible_fraction[i] < 0.9
            suite.counts[e], suite.order[e] = counts, order
        suite.render(np.array([e]))
        assert np.array_equal(suite.instance[name][e], before)
    assert hidden, "the scene must hide somebody, or this tests little"


def test_three_dimensional_boxes_project_around_their_pixels(seen: tuple[SensorSuite, WorldState, Labeller]) -> None:
    suite, state, labeller = seen
    calibration = suite.rig.cameras[0].calibration()
    checked = 0
    for e, boxes in everything(seen, "front"):
        actors = labeller.actors(state, e)
        for i, a in enumerate(boxes.instance):
            j = int(np.flatnonzero(actors.instance == a)[0])
            corners = corners_of(actors.center[j], actors.size[j], actors.yaw_rad[j])
            in_camera = transform(inverse(calibration.ego_from_camera), corners)
            if in_camera[:, 2].min() < 0.5:
                continue
            pixels, _ = cv2.projectPoints(in_camera, np.zeros(3), np.zeros(3), calibration.intrinsics, None)
            low, high = pixels[:, 0].min(0), pixels[:, 0].max(0)
            inside = (low >= 0).all() and (high <= [calibration.width_px - 1, calibration.height_px - 1]).all()
            # Lamps and mirrors stand out of the box by centimetres.
            slack = 1.5 + 0.03 * (high - low).max()
            assert (boxes.whole[i, :2] >= low - slack).all()
            assert (boxes.whole[i, 2:] <= high + slack).all()
            if inside:
                assert boxes.truncation[i] == 0.0
                assert np.abs(boxes.whole[i] - [*low, *high]).max() < 3 + 0.35 * (high - low).max()
            else:
                assert boxes.truncation[i] > 0.0
            checked += 1
    assert checked >= 3


def corners_of(center: NDArray[np.float64], size: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    signs = np.array([[(k & 1) - 0.5, (k >> 1 & 1) - 0.5, (k >> 2 & 1) - 0.5] for k in range(8)])
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return np.asarray((signs * size) @ turn.T + center)


def test_points_in_boxes_are_the_returns_of_their_actors(seen: tuple[SensorSuite, WorldState, Labeller]) -> None:
    suite, state, labeller = seen
    total = 0
    for e in range(ENVS):
        actors = labeller.actors(state, e)
        count = suite.point_count[e]
        returned = np.bincount(np.clip(suite.point_labels[e, :count, 2], 0, 9999), minlength=10_000)
        for a, inside in zip(actors.instance, actors.num_lidar_points, strict=True):
            # Something that stands within the margin, and lamps that stand out, make a small difference.
            assert abs(int(inside) - int(returned[a])) <= 3 + 0.08 * returned[a]
            total += inside
    assert total > 100


def test_points_of_a_sweep_in_motion_are_counted_where_their_actors_were(
    seen: tuple[SensorSuite, WorldState, Labeller],
) -> None:
    suite, state, _ = seen
    lidar = suite.rig.lidar
    assert lidar is not None
    rig = RigConfig(cameras=(), lidar=lidar.model_copy(update={"motion": True}))
    moving = SensorSuite(rig, load_map("grid-small"), ENVS, state.x_m.shape[1], labels=True)
    fast = replace(state, speed_mps=state.speed_mps + 12.0 * state.active, yaw_rate_radps=state.yaw_rate_radps + 0.3)
    moving.observe(fast)
    found = 0
    for e in range(ENVS):
        actors = Labeller(moving).actors(fast, e)
        for a, inside in zip(actors.instance, actors.num_lidar_points, strict=True):
            own = int(np.count_nonzero(moving.point_labels[e, : moving.point_count[e], 2] == a))
            assert abs(inside - own) <= 3 + 0.1 * own
            found += own
    assert found > 100


def test_points_in_boxes_by_hand() -> None:
    center, size, yaw = np.array([[10.0, 0.0, 0.75]]), np.array([[4.0, 2.0, 1.5]]), np.array([np.pi / 2])
    inside = [[10.0, 1.9, 0.5], [10.9, 0.0, 1.0], [10.0, 0.0, 1.55], [11.05, 0.0, 0.7]]
    outside = [[11.9, 0.0, 0.5], [10.0, 2.3, 0.5], [10.0, 0.0, 0.01], [10.0, 0.0, 1.8]]
    for points, expected in ((inside, 4), (outside, 0), (inside + outside, 4)):
        assert points_in_boxes(np.array(points), center, size, yaw).tolist() == [expected]
    assert points_in_boxes(np.zeros((0, 3)), center, size, yaw).tolist() == [0]


def test_poses_and_velocities_are_in_ego(seen: tuple[SensorSuite, WorldState, Labeller]) -> None:
    _, state, labeller = seen
    for e in range(ENVS):
        actors = labeller.actors(state, e)
        yaw = state.yaw_rad[e, 0]
        rear = np.array([state.x_m[e, 0], state.y_m[e, 0]]) - state.rear_axle_m[e, 0] * np.array(
            [np.cos(yaw), np.sin(yaw)]
        )
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        world = actors.center[:, :2] @ turn.T + rear
        assert (
            np.abs(world - np.column_stack([state.x_m[e, actors.instance], state.y_m[e, actors.instance]])).max() < 1e-9
        )
        velocity = actors.velocity_mps @ turn.T
        heading = state.yaw_rad[e, actors.instance]
        expected = state.speed_mps[e, actors.instance, None] * np.column_stack([np.cos(heading), np.sin(heading)])
        assert np.abs(velocity - expected).max() < 1e-9


def test_levels_of_kitti_and_nuscenes() -> None:
    fractions = np.array([0.05, 0.4, 0.41, 0.6, 0.75, 0.81, 0.97, 1.0])
    empty = np.zeros((8, 4))
    boxes = PictureBoxes(np.arange(8, dtype=np.int32), empty, empty, np.ones(8, np.int64), fractions, np.zeros(8))
    assert boxes.kitti_occlusion().tolist() == [2, 2, 2, 1, 1, 1, 0, 0]
    assert boxes.nuscenes_visibility().tolist() == [1, 1, 2, 2, 3, 4, 4, 4]
