"""Effects of real cameras: how the picture moves against projected points, noise against its statistics, JPEG against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.geometry import inverse, rotation_from_euler, se3, transform
from perception.sensors import CameraCalibration, DistortionModel
from sim.drive_batch import EnvConfig
from sim.roads.driving_map import load_map
from sim.sensors.camera_effects import CameraEffects, EffectsConfig, image_flow
from sim.sensors.cast import FAR_M
from sim.sensors.lens import project, ray_directions
from sim.sensors.rig import CameraConfig, RigConfig
from sim.sensors.suite import SensorSuite
from sim.world import World

WIDTH, HEIGHT = 96, 64
BODY_FROM_CAMERA = se3([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 0])
NOTHING = np.zeros((1, 2), np.float32)
LENSES: list[tuple[DistortionModel, list[float], float]] = [
    ("none", [], 60.0),
    ("brown_conrady", [-0.2, 0.05, 0.001, -0.001], 60.0),
    ("kannala_brandt", [0.02, 0.0, 0.0, 0.0], 30.0),
]


def calibration(model: DistortionModel, distortion: list[float], focal: float, yaw: float = 0.0) -> CameraCalibration:
    k = np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1]])
    pose = se3(rotation_from_euler(yaw, 0.1), [1.2, -0.3, 1.5]) @ BODY_FROM_CAMERA
    return CameraCalibration(WIDTH, HEIGHT, k, pose, model, np.array(distortion))


def effects(config: EffectsConfig, camera: int = 0) -> CameraEffects:
    return CameraEffects(config, camera, ray_directions(calibration("none", [], 60.0)))


def apply(
    e: CameraEffects, image: NDArray[np.uint8], yaw_rate: float = 0.0, counter: tuple[int, int, int] = (1, 2, 3)
) -> NDArray[np.uint8]:
    """On something infinitely far away, which only turning moves."""
    result = image.copy()
    far = np.full(image.shape[:2], FAR_M, np.float32)
    e.apply(result, far, np.full(far.shape, -2, np.int32), NOTHING, (0.0, yaw_rate, 0.0, 0.0), counter)
    return result


@settings(max_examples=30, deadline=None)
@given(
    lens=st.sampled_from(LENSES), seed=st.integers(0, 2**32 - 1), yaw=st.floats(-3, 3), speed=st.floats(0, 40),
    yaw_rate=st.floats(-1, 1), vx=st.floats(-20, 20), vy=st.floats(-20, 20),
)  # fmt: skip
def test_the_picture_moves_as_projected_points_do(
    lens: tuple[DistortionModel, list[float], float], seed: int, yaw: float, speed: float, yaw_rate: float, vx: float, vy: float
) -> None:  # fmt: skip
    camera = calibration(*lens, yaw)
    directions = ray_directions(camera)
    rng = np.random.default_rng(seed)
    depth = rng.uniform(5, 60, (HEIGHT, WIDTH)).astype(np.float32)
    code = np.where(rng.random((HEIGHT, WIDTH)) < 0.5, 4 * 1 + 2, -1).astype(np.int32)
    velocity = np.array([[9, 9], [vx, vy]], np.float32)
    place = camera.ego_from_camera[:3, 3]
    flow = np.zeros((2, HEIGHT, WIDTH), np.float32)
    motion = tuple(np.float32(m) for m in (speed, yaw_rate, place[0], place[1]))
    image_flow(depth, code, directions, velocity, motion, flow)
    points = (place[:, None, None] + depth * directions.astype(np.float64)).reshape(3, -1).T
    moving = np.where((code >= 0).reshape(-1, 1), [[vx, vy, 0.0]], 0.0)
    dt = 1e-4
    later = se3(rotation_from_euler(yaw_rate * dt), [speed * dt, 0.0, 0.0])
    camera_from_ego = inverse(camera.ego_from_camera)
    before = project(camera, transform(camera_from_ego, points))
    after = project(camera, transform(camera_from_ego @ inverse(later), points + moving * dt))
    expected = ((after - before) / dt).T.reshape(2, HEIGHT, WIDTH)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    error = np.abs(flow - expected)[inner].max()
    # Differences of neighbouring rays are not quite the slope where a lens bends; measured in pixels of one 50 ms exposure.
    assert error <= 0.02 * np.abs(expected).max() + 0.05


def texture(azimuth: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A smooth picture that depends on the azimuth of each ray."""
    wave = 127.5 + 100 * np.sin(9 * azimuth)
    return np.repeat(np.rint(wave)[..., None], 3, axis=2).astype(np.uint8)


def azimuths() -> NDArray[np.float64]:
    rays = ray_directions(calibration("none", [], 60.0)).astype(np.float64)
    return np.arctan2(rays[1], rays[0])


def test_a_rolling_shutter_shears_what_the_car_turns_past() -> None:
    readout, yaw_rate = 0.03, 0.9
    rolled = apply(effects(EffectsConfig(readout_time_s=readout)), texture(azimuths()), yaw_rate)
    moment = ((np.arange(HEIGHT) + 0.5) / HEIGHT - 0.5) * readout
    expected = texture(
        azimuths() + yaw_rate * moment[:, None]
    )  # the camera has turned left: it looks at larger azimuths
    inner = (slice(None), slice(3, -3))
    assert np.abs(rolled.astype(int) - expected)[inner].max() <= 4
    assert np.abs(texture(azimuths()).astype(int) - expected)[inner].max() > 10


def test_an_open_shutter_averages_over_its_time() -> None:
    exposure, yaw_rate = 0.04, 1.5
    blurred = apply(effects(EffectsConfig(exposure_time_s=exposure)), texture(azimuths()), yaw_rate)
    moments = np.linspace(-0.5, 0.5, 201) * exposure
    expected = np.mean([texture(azimuths() + yaw_rate * t).astype(float) for t in moments], axis=0)
    inner = (slice(None), slice(4, -4))
    assert np.abs(blurred - expected)[inner].max() <= 4
    assert np.ptp(blurred[:, 4:-4].astype(int)) < np.ptp(texture(azimuths())[:, 4:-4].astype(int))


def test_what_stands_still_is_not_blurred() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    assert np.array_equal(apply(effects(EffectsConfig(exposure_time_s=0.03, readout_time_s=0.03)), image), image)


@pytest.mark.parametrize(("read", "shot"), [(3.0, 0.0), (0.0, 0.4), (2.0, 0.3)])
@pytest.mark.parametrize("level", [20, 120, 200])
def test_noise_has_the_stated_variance_and_no_bias(read: float, shot: float, level: int) -> None:
    image = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    noise = apply(effects(EffectsConfig(read_noise=read, shot_noise=shot)), image).astype(float) - level
    expected = np.sqrt(read**2 + shot * level + 1 / 12)  # rounding adds a twelfth
    assert abs(noise.mean()) < 4 * expected / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(expected, rel=0.03)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.05


def test_noise_belongs_to_camera_seed_episode_and_tick() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    config = EffectsConfig(read_noise=5.0)
    first = apply(effects(config), image)
    assert np.array_equal(first, apply(effects(config), image))
    others = [apply(effects(config, camera=1), image)]
    others += [apply(effects(config), image, counter=c) for c in ((2, 2, 3), (1, 3, 3), (1, 2, 4))]
    for other in others:
        assert np.mean(first == other) < 0.2


@pytest.mark.parametrize("stops", [-2.0, -0.5, 1.0])
def test_a_stop_is_twice_the_light(stops: float) -> None:
    image = np.arange(40, 120, dtype=np.uint8).reshape(8, 10, 1).repeat(3, 2)
    image = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    brighter = apply(effects(EffectsConfig(exposure_ev=stops)), image)
    ratio = (brighter / image.astype(float)) ** 2.2
    assert np.median(ratio) == pytest.approx(2.0**stops, rel=0.05)
    assert apply(effects(EffectsConfig(exposure_ev=8.0)), image).max() == 255


def test_jpeg_keeps_colours_and_loses_more_at_lower_quality() -> None:
    rng = np.random.default_rng(3)
    image = cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (WIDTH, HEIGHT))
    image[:, :30] = (220, 30, 20)
    errors = []
    for quality in (95, 60, 10):
        ours = apply(effects(EffectsConfig(jpeg_quality=quality)), image)
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert np.array_equal(ours, cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
        assert np.abs(ours[:, 4:20].astype(int) - image[:, 4:20]).mean() < 12, "red stays red"
        errors.append(np.abs(ours.astype(int) - image).mean())
    assert errors[0] < errors[1] < errors[2]


def test_effects_change_pictures_and_nothing_else_whatever_the_batch() -> None:
    town = load_map("grid-small")
    plain = CameraConfig(name="camera_wide", width_px=96, height_px=48, horizontal_fov_deg=90.0)
    every = EffectsConfig(
        exposure_time_s=0.01, readout_time_s=0.02, exposure_ev=0.3, read_noise=2.0, shot_noise=0.1, jpeg_quality=90
    )
    changed = plain.model_copy(update={"effects": every})
    world = World(town, EnvConfig.of().world, 2)
    world.reset(np.ones(2, np.bool_), np.array([3, 4], np.uint64), np.zeros(2, np.int64))
    for _ in range(25):
        world.step(np.full((2, 2), [0.2, 0.7], np.float32))
    agents = world.state.x_m.shape[1]
    clean, both = (SensorSuite(RigConfig(cameras=(c,)), town, 2, agents, labels=True) for c in (plain, changed))
    clean.observe(world.state)
    both.observe(world.state)
    difference = np.abs(both.images["camera_wide"].astype(int) - clean.images["camera_wide"])
    assert 1.0 < difference.mean() < 40.0
    for buffers in ("depth", "code", "semantic", "instance"):
        assert np.array_equal(getattr(both, buffers)["camera_wide"], getattr(clean, buffers)["camera_wide"])
    alone = SensorSuite(RigConfig(cameras=(changed,)), town, 2, agents, labels=True)
    alone.observe(world.state, np.array([False, True]))
    assert np.array_equal(alone.images["camera_wide"][1], both.images["camera_wide"][1])
    assert not alone.images["camera_wide"][0].any()
