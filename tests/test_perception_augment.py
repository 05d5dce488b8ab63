"""Augmentation: a mirror undoes itself and turns everything together; nothing else touches labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from perception.augment import AugmentConfig, augment, mirror, mirror_partners
from perception.geometry import rotation_from_euler, se3
from perception.labels import MAX_BOXES, Affordance, BevClass, BoxField, LabelledFrames
from perception.preprocess import project_rays
from perception.sensors import CameraCalibration, SemanticClass

AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def camera(y_m: float = 0.0, yaw_rad: float = 0.0) -> CameraCalibration:
    pose = se3(rotation_from_euler(yaw_rad) @ AXES, [1.2, y_m, 1.8])
    return CameraCalibration(48, 32, np.array([[24.0, 0, 23.5], [0, 24.0, 15.5], [0, 0, 1]]), pose)


PAIR = {"front": camera(), "left": camera(0.5, 0.9), "right": camera(-0.5, -0.9)}
PARTNERS = {"front": "front", "left": "right", "right": "left"}


def frames(n: int = 4, seed: int = 0) -> LabelledFrames:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 100, 4)).astype(np.float32)
    count = rng.integers(50, 90, (n, 1)).astype(np.int32)
    points[np.arange(100) >= count] = 0
    points[..., 3] = np.abs(points[..., 3])
    observation = {name: rng.integers(1, 256, (n, 32, 48, 3)).astype(np.uint8) for name in PAIR}
    observation |= {
        "points": points.reshape(n, -1), "point_count": count, "ego": rng.normal(size=(n, 5)).astype(np.float32),
        "route": rng.normal(size=(n, 40)).astype(np.float32),
    }  # fmt: skip
    return LabelledFrames(
        observation=observation,
        beam=np.tile(np.arange(100, dtype=np.uint8) // 10, (n, 1)),
        bev=rng.integers(0, len(BevClass), (n, 24, 24)).astype(np.uint8),
        boxes=rng.normal(size=(n, MAX_BOXES, len(BoxField))).astype(np.float32),
        box_count=np.full(n, 5, np.int32),
        depth={name: rng.uniform(1, 80, (n, 8, 12)).astype(np.float32) for name in PAIR},
        semantic={name: rng.integers(0, len(SemanticClass), (n, 8, 12)).astype(np.uint8) for name in PAIR},
        light=rng.integers(0, 4, n),
        lane=rng.normal(size=(n, 2)).astype(np.float32),
        affordances=rng.normal(size=(n, len(Affordance))).astype(np.float32),
    )


def assert_equal(a: LabelledFrames, b: LabelledFrames) -> None:
    for key in a.observation:
        np.testing.assert_array_equal(a.observation[key], b.observation[key], err_msg=key)
    for name in a.depth:
        np.testing.assert_array_equal(a.depth[name], b.depth[name])
        np.testing.assert_array_equal(a.semantic[name], b.semantic[name])
    for field in ("bev", "boxes", "box_count", "light", "lane", "affordances"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)


def require_mirrored_pictures(pair: Mapping[str, CameraCalibration]) -> None:
    """What the left camera sees of a place, the right one sees of the mirrored place, in the mirrored column."""
    place = np.array([[6.0, 5.0, 1.0]])
    pixels = {}
    for name, at in (("left", place), ("right", place * [1, -1, 1])):
        pose = pair[name].ego_from_camera
        pixels[name] = project_rays(pair[name], (at - pose[:3, 3]) @ pose[:3, :3])[0]
    np.testing.assert_allclose(pixels["right"], [47 - pixels["left"][0], pixels["left"][1]], atol=1e-6)


def test_partners_in_a_mirror_are_found_by_geometry() -> None:
    assert mirror_partners(PAIR) == PARTNERS
    with pytest.raises(ValueError, match="camera left has no partner"):
        mirror_partners({"front": PAIR["front"], "left": PAIR["left"]})
    require_mirrored_pictures(PAIR)


def test_a_lens_that_bends_sideways_has_its_mirror_image_as_partner() -> None:
    """p2 changes its sign in a mirror; whoever is its own partner has none."""
    lens = np.array([-0.1, 0.02, 0.001, 0.01])
    pair = {
        name: replace(PAIR[name], distortion_model="brown_conrady", distortion=lens * [1, 1, 1, sign])
        for name, sign in (("left", 1), ("right", -1))
    }
    assert mirror_partners(pair) == {"left": "right", "right": "left"}
    require_mirrored_pictures(pair)
    with pytest.raises(ValueError, match="has no partner"):
        mirror_partners({name: replace(camera, distortion=lens) for name, camera in pair.items()})
    with pytest.raises(ValueError, match="has no partner"):
        mirror_partners({"front": replace(PAIR["front"], distortion_model="brown_conrady", distortion=lens)})


def test_a_mirror_changes_all_and_undoes_itself() -> None:
    before, given = frames(), frames()
    which = np.array([True, False, True, False])
    mirror(given, which, PARTNERS)
    for key in ("left", "points", "ego", "route"):
        changed = (given.observation[key] != before.observation[key]).reshape(4, -1).any(1)
        assert np.array_equal(changed, which), key
    np.testing.assert_array_equal(given.observation["left"][0], before.observation["right"][0, :, ::-1])
    np.testing.assert_array_equal(given.bev[0], before.bev[0, :, ::-1])
    assert (given.boxes[0, :, BoxField.Y] == -before.boxes[0, :, BoxField.Y]).all()
    assert (given.boxes[0, :, BoxField.X] == before.boxes[0, :, BoxField.X]).all()
    assert (given.lane[0] == -before.lane[0]).all()
    assert given.affordances is not None
    assert before.affordances is not None
    turned = given.affordances[0] == -before.affordances[0]
    assert list(np.flatnonzero(turned)) == [Affordance.SWING]
    mirror(given, which, PARTNERS)
    assert_equal(given, before)


def test_without_strength_nothing_changes() -> None:
    nothing = AugmentConfig.model_validate(dict.fromkeys(AugmentConfig.model_fields, 0.0))
    before, given = frames(), frames()
    augment(given, nothing, {}, np.random.default_rng(0))
    assert_equal(given, before)


def test_equal_seeds_change_alike_and_points_are_thinned_in_order() -> None:
    config = AugmentConfig.model_validate({"beam_dropout": 1.0, "point_dropout": 0.5, "intensity": 0.0, "flip": 0.0})
    config = config.model_copy(update={"silent_lidar": 0.0})
    before, given, again = frames(), frames(), frames()
    augment(given, config, {}, np.random.default_rng(5))
    augment(again, config, {}, np.random.default_rng(5))
    assert_equal(given, again)
    for e in range(len(before)):
        old = before.observation["points"][e].reshape(-1, 4)[: before.observation["point_count"][e, 0]]
        n = given.observation["point_count"][e, 0]
        new = given.observation["points"][e].reshape(-1, 4)
        assert n < len(old)
        assert not new[n:].any()
        places = [int(np.flatnonzero((old == point).all(1))[0]) for point in new[:n]]
        assert places == sorted(places)
        assert np.array_equal(given.beam[e, :n], before.beam[e, places])


def test_never_are_both_sensors_silent_and_colours_never_look_like_silence() -> None:
    config = AugmentConfig.model_validate(
        {"silent_camera": 0.5, "silent_lidar": 0.9, "color": 1.0, "beam_dropout": 0.0}
    )
    given = frames(200)
    augment(given, config, PARTNERS, np.random.default_rng(1))
    dark = given.observation["front"].reshape(200, -1).max(1) == 0
    empty = given.observation["point_count"][:, 0] == 0
    assert 60 < dark.sum() < 140
    assert empty.sum() > 60
    assert not (dark & empty).any()
    assert given.observation["front"][~dark].min() > 0


def test_a_config_is_checked() -> None:
    with pytest.raises(ValueError, match="flip"):
        AugmentConfig.model_validate({"flip": 1.5})
