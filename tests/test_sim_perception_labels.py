"""Labels for perception: against the labeller of logs, the ground raster looked up by hand, and the suite's own pictures."""

from __future__ import annotations

import numpy as np
import pytest

from perception.augment import AugmentConfig, augment, mirror_partners
from perception.geometry import inverse, rotation_from_euler, se3, transform
from perception.labels import UNKNOWN, BevClass, BoxClass, BoxField, LabelledFrames, PictureClass
from perception.points import BevGrid
from perception.sensors import SemanticClass
from sim.config import ConfigError
from sim.labelled_frames import DrivenFrames, FramesConfig, jittered
from sim.parked import parked_vehicles
from sim.perception_labels import PerceptionLabeller
from sim.roads.driving_map import DrivingMap, GroundClass, load_map
from sim.roads.map_xml import MapError
from sim.roads.scenery import stop_signs
from sim.sensors.cast import FAR_M
from sim.sensors.labels import Labeller
from sim.sensors.rig import rig
from sim.sensors.suite import SensorSuite
from sim.world import EGO, ActorKind, World, WorldConfig

GRID = BevGrid()
CONFIG = FramesConfig(towns=("grid-small",), towns_at_once=1, envs=4, warm_up_ticks=20, world=WorldConfig(agents=16))


@pytest.fixture(scope="module")
def observed(town: DrivingMap) -> tuple[World, SensorSuite, LabelledFrames]:
    world = World(town, WorldConfig(agents=24), 4)
    world.reset(np.ones(4, np.bool_), np.arange(4).astype(np.uint64), np.zeros(4, np.int64))
    suite = SensorSuite(rig("smoke"), town, 4, 24, labels=True)
    suite.observe(world.state)
    return world, suite, PerceptionLabeller(world, suite, GRID).frames()


def test_boxes_are_those_of_the_labeller_of_logs(observed: tuple[World, SensorSuite, LabelledFrames]) -> None:
    world, suite, frames = observed
    theirs, f = Labeller(suite), BoxField
    walkers = seen = parked_seen = 0
    for e in range(4):
        ours, all_theirs = frames.boxes[e, : frames.box_count[e]], theirs.actors(world.state, e)
        pixels = dict.fromkeys(all_theirs.instance.tolist(), 0)
        for camera in suite.rig.cameras:
            picture = theirs.picture(world.state, e, camera.name)
            for instance, number in zip(picture.instance.tolist(), picture.pixels.tolist(), strict=True):
                pixels[instance] += number
        away = np.hypot(all_theirs.center[:, 0], all_theirs.center[:, 1])
        parked, _ = parked_vehicles(world.map.scenery)
        in_ego = transform(inverse(world.world_from_ego(e)), parked[:, f.X : f.Z + 1])
        ours_parked = np.abs(ours[:, None, f.X : f.Y + 1] - in_ego[None, :, :2]).max(2).min(1) < 1e-3
        assert ours_parked.sum() == (np.hypot(in_ego[:, 0], in_ego[:, 1]) < 60).sum()
        parked_seen += ours[ours_parked, f.SEEN].sum()
        ours = ours[~ours_parked]
        assert len(ours) == ((away < 60) & (all_theirs.kind <= ActorKind.PEDESTRIAN)).sum()
        for box in ours:
            k = int(np.argmin(np.abs(all_theirs.center[:, :2] - box[f.X : f.Y + 1]).sum(1)))
            np.testing.assert_allclose(box[f.X : f.Z + 1], all_theirs.center[k], atol=1e-3)
            np.testing.assert_allclose(box[f.LENGTH : f.HEIGHT + 1], all_theirs.size[k], atol=1e-4)
            np.testing.assert_allclose(box[f.YAW], all_theirs.yaw_rad[k], atol=1e-5)
            np.testing.assert_allclose(box[f.VX : f.VY + 1], all_theirs.velocity_mps[k], atol=1e-4)
            assert (box[f.CLASS] == BoxClass.WALKER) == (all_theirs.kind[k] == ActorKind.PEDESTRIAN)
            returns = all_theirs.num_lidar_points[k]
            if returns == 0 and pixels[int(all_theirs.instance[k])] == 0:
                assert box[f.SEEN] == 0
            if returns >= 10 or pixels[int(all_theirs.instance[k])] >= 6:
                assert box[f.SEEN] == 1
            walkers += box[f.CLASS] == BoxClass.WALKER
            seen += box[f.SEEN] == 1
    assert walkers > 0
    assert 0 < seen < frames.box_count.sum()
    assert parked_seen > 0


def test_parked_vehicles_are_boxes_around_their_parts(town: DrivingMap) -> None:
    boxes, instances = parked_vehicles(town.scenery)
    f, scenery = BoxField, town.scenery
    assert len(boxes) > 50
    assert 3.5 < boxes[:, f.LENGTH].min() <= boxes[:, f.LENGTH].max() < 5.5
    assert 1.6 < boxes[:, f.WIDTH].min() <= boxes[:, f.WIDTH].max() < 2.2
    assert 1.2 < boxes[:, f.HEIGHT].min() <= boxes[:, f.HEIGHT].max() < 2.3
    for box, instance in zip(boxes[::9], instances[::9], strict=True):
        mine = np.flatnonzero((scenery.instance == instance) & (scenery.semantic == SemanticClass.VEHICLE))
        box_from_world = inverse(se3(rotation_from_euler(box[f.YAW]), box[f.X : f.Z + 1]))
        for k in mine:
            pose = se3(rotation_from_euler(scenery.yaw_rad[k]), scenery.center[k])
            ends = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * scenery.half_size[k]
            inside = np.abs(transform(box_from_world, transform(pose, ends)))
            assert (inside <= box[f.LENGTH : f.HEIGHT + 1] / 2 + 1e-6).all()


def test_the_birds_eye_map_is_the_ground_looked_up_and_the_boxes_that_are_seen(
    observed: tuple[World, SensorSuite, LabelledFrames],
) -> None:
    world, _, frames = observed
    ground, f = world.map.ground, BoxField
    x = GRID.x_min_m + (np.arange(GRID.rows) + 0.5) * GRID.cell_m
    y = GRID.y_min_m + (np.arange(GRID.columns) + 0.5) * GRID.cell_m
    centers = np.stack([*np.meshgrid(x, y, indexing="ij"), np.zeros((GRID.rows, GRID.columns))], -1)
    for e in range(4):
        places = transform(world.world_from_ego(e), centers.reshape(-1, 3))[:, :2]
        column, row = np.floor((places - ground.origin) / ground.cell_m).astype(int).T
        inside = (row >= 0) & (column >= 0) & (row < ground.classes.shape[0]) & (column < ground.classes.shape[1])
        looked = np.full(len(places), GroundClass.TERRAIN)
        looked[inside] = ground.classes[row[inside], column[inside]]
        looked = looked.reshape(GRID.rows, GRID.columns)
        boxes = frames.boxes[e, : frames.box_count[e]]
        covered = np.zeros((GRID.rows, GRID.columns), bool)
        for box in boxes[boxes[:, f.SEEN] > 0]:
            along, aside = centers[..., 0] - box[f.X], centers[..., 1] - box[f.Y]
            c, s = np.cos(box[f.YAW]), np.sin(box[f.YAW])
            covered |= (np.abs(c * along + s * aside) < box[f.LENGTH] / 2) & (
                np.abs(c * aside - s * along) < box[f.WIDTH] / 2
            )
        actors = (frames.bev[e] == BevClass.VEHICLE) | (frames.bev[e] == BevClass.WALKER)
        assert (actors == covered).mean() > 0.995
        for ground_class, bev_class in (
            (GroundClass.TERRAIN, BevClass.OTHER), (GroundClass.ROAD, BevClass.ROAD), (GroundClass.SIDEWALK, BevClass.SIDEWALK),
        ):  # fmt: skip
            plain = (looked == ground_class) & ~covered & (frames.bev[e] != BevClass.LANE_MARKING) & ~actors
            assert (frames.bev[e][plain] == bev_class).mean() > 0.97
        assert (frames.bev[e] == BevClass.LANE_MARKING).sum() > 20
        assert frames.bev[e, 32:40, 44:52].max() > BevClass.OTHER  # the ego stands on a road


def test_pictures_are_every_fourth_pixel_of_the_suites(observed: tuple[World, SensorSuite, LabelledFrames]) -> None:
    _, suite, frames = observed
    for camera in suite.rig.cameras:
        depth, semantic = suite.depth[camera.name], suite.semantic[camera.name]
        assert frames.depth[camera.name].shape == (4, camera.height_px // 4, camera.width_px // 4)
        assert frames.depth[camera.name][2, 5, 7] in (0.0, depth[2, 22, 30])
        classes = frames.semantic[camera.name]
        assert (frames.depth[camera.name][classes == PictureClass.SKY] == 0).all()
        assert (frames.depth[camera.name] < FAR_M).all()
        signal = classes >= PictureClass.SIGNAL_RED
        assert np.array_equal(classes[~signal], semantic[:, 2::4, 2::4][~signal])
        rows, columns = classes.shape[1:]
        fields = (semantic == SemanticClass.TRAFFIC_LIGHT).reshape(4, rows, 4, columns, 4).any((2, 4))
        assert fields[signal].all()


def test_heads_of_signals_are_labelled_by_the_colour_that_is_seen() -> None:
    """In most frames in which some of a head is labelled, one of these fields has a pixel of that colour."""
    source = DrivenFrames(CONFIG.model_copy(update={"weather": "clear-noon"}), rig("small"), GRID, 3, "train")
    source.begin(0)
    seen: dict[PictureClass, list[bool]] = {PictureClass.SIGNAL_RED: [], PictureClass.SIGNAL_GREEN: []}
    for _ in range(12):
        source._driven[0].drive(25)
        frames = source.next()
        for e in range(len(frames)):
            for kind, found in seen.items():
                picture = frames.observation["camera_tele"][e].astype(int)
                fields = np.repeat(np.repeat(frames.semantic["camera_tele"][e] == kind, 4, 0), 4, 1)
                if fields.sum() >= 2 * 16:
                    red_over_green = (picture[..., 0] - picture[..., 1])[fields]
                    found.append(
                        bool(
                            (red_over_green.max() > 60)
                            if kind == PictureClass.SIGNAL_RED
                            else (red_over_green.min() < -40)
                        )
                    )
    for kind, found in seen.items():
        assert len(found) >= 3, kind
        assert np.mean(found) > 0.8, kind


def test_stop_signs_are_labelled_where_they_look_this_way() -> None:
    """A car before each sign sees it ahead; one that has passed it, and looks back, sees the back of a sign like any other."""
    town = load_map("grid-large:1")
    signs = stop_signs(town.scenery)
    assert len(signs) >= 4
    world = World(town, WorldConfig(agents=2), len(signs))
    world.reset(np.ones(len(signs), np.bool_), np.arange(len(signs)).astype(np.uint64), np.zeros(len(signs), np.int64))
    state, suite = world.state, SensorSuite(rig("small"), town, len(signs), 2, labels=True, weather="clear")
    state.active[:, 1:] = 0
    yaw = town.scenery.yaw_rad[signs] - 0.5 * np.pi
    left = 2.5 * np.column_stack([-np.sin(yaw), np.cos(yaw)])
    for side, expected in ((-1.0, True), (1.0, False)):
        spot = town.scenery.center[signs, :2] + left + side * 14.0 * np.column_stack([np.cos(yaw), np.sin(yaw)])
        state.x_m[:, EGO], state.y_m[:, EGO] = spot[:, 0], spot[:, 1]
        state.yaw_rad[:, EGO] = yaw if side < 0 else yaw + np.pi
        suite.observe(state)
        frames = PerceptionLabeller(world, suite, GRID).frames()
        for e, sign in enumerate(signs):
            fields = frames.semantic["camera_wide"][e] == PictureClass.STOP_SIGN
            pixels = np.repeat(np.repeat(fields, 4, 0), 4, 1)
            mine = suite.instance["camera_wide"][e] == town.scenery.instance[sign]
            mine &= suite.semantic["camera_wide"][e] == SemanticClass.TRAFFIC_SIGN
            if mine.sum() >= 4:  # nothing stands before it
                assert pixels[mine].all() if expected else not pixels[mine].any(), (sign, side)
        found = (frames.semantic["camera_wide"] == PictureClass.STOP_SIGN).any((1, 2))
        assert not expected or found.mean() > 0.5


def test_lane_and_light_say_what_the_world_knows(observed: tuple[World, SensorSuite, LabelledFrames]) -> None:
    world, _, frames = observed
    np.testing.assert_allclose(frames.lane[:, 0], world.events.lateral_m, atol=1e-6)
    for e in range(4):
        line = world.route_line(e)
        here = world.world_from_ego(e)[:2, 3]
        nearest = int(np.argmin(np.hypot(*(line[:, :2] - here).T)))
        yaw = np.arctan2(*world.world_from_ego(e)[[1, 0], 0])
        turned = (yaw - line[nearest, 2] + np.pi) % (2 * np.pi) - np.pi
        assert abs(turned - frames.lane[e, 1]) < 0.15
    assert set(frames.light.tolist()) <= {UNKNOWN, 0, 1, 2, 3}


def test_a_chapter_is_the_same_whatever_came_before_it() -> None:
    first, second = (DrivenFrames(CONFIG, rig("smoke"), GRID, 3, "train") for _ in range(2))
    first.begin(0)
    before = first.next()
    first.begin(1)
    second.begin(1)
    for _ in range(2):
        a, b = first.next(), second.next()
        for key in a.observation:
            assert np.array_equal(a.observation[key], b.observation[key]), key
        assert np.array_equal(a.bev, b.bev)
        assert np.array_equal(a.boxes, b.boxes)
    assert not np.array_equal(before.bev, a.bev)
    # Augmentation fits what is rendered: flips keep the sweep on the boxes.
    own = rig("smoke")
    partners = mirror_partners({c.name: c.calibration() for c in own.cameras})
    augment(a, AugmentConfig.model_validate({"flip": 1.0}), partners, np.random.default_rng(0))
    assert np.array_equal(a.bev[:, :, ::-1], b.bev)


def test_cameras_are_mounted_anew_and_stay_where_they_are_without_jitter() -> None:
    own = rig("small")
    moved = jittered(own, 1.0, 0.05, np.random.default_rng(0))
    assert jittered(own, 0.0, 0.0, np.random.default_rng(0)) == own
    for before, after in zip(own.cameras, moved.cameras, strict=True):
        assert 0 < abs(after.mount.yaw_deg - before.mount.yaw_deg) <= 1.0
        assert 0 < abs(after.mount.z_m - before.mount.z_m) <= 0.05
    assert moved.lidar == own.lidar


def test_towns_of_other_splits_are_refused() -> None:
    with pytest.raises(MapError, match="kept for validation"):
        DrivenFrames(CONFIG.model_copy(update={"towns": ("town:10000",)}), rig("smoke"), GRID, 0, "train")
    with pytest.raises(ConfigError, match="no validation town"):
        DrivenFrames(CONFIG, rig("smoke"), GRID, 0, "validation")
    with pytest.raises(ConfigError, match=r"must divide frames\.envs = 4 .*got 3"):
        DrivenFrames(CONFIG.model_copy(update={"towns_at_once": 3}), rig("smoke"), GRID, 0, "train")
