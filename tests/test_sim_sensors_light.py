"""Weather and time of day: what they do to a picture, and what they leave alone."""

from __future__ import annotations

import typing

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.sensors import SemanticClass
from sim.config import ConfigError
from sim.drive_batch import EnvConfig
from sim.roads.driving_map import DrivingMap
from sim.sensors.cast import FAR_M, GROUND
from sim.sensors.light import DIRECT, HORIZON, LIGHT_COLUMNS, SUN, WeatherName, draw_weather, light_of
from sim.sensors.rig import RigConfig, rig
from sim.sensors.shading import haze_share
from sim.sensors.suite import SensorSuite
from sim.world import World, WorldState

NAMES = typing.get_args(WeatherName)


@pytest.fixture(scope="module")
def state(town: DrivingMap) -> WorldState:
    world = World(town, EnvConfig.of().world, 3)
    world.reset(np.ones(3, np.bool_), np.array([3, 4, 5], np.uint64), np.zeros(3, np.int64))
    for _ in range(30):
        world.step(np.full((3, 2), [0.0, 0.3], np.float32))
    return world.state


def look(town: DrivingMap, state: WorldState, weather: WeatherName) -> SensorSuite:
    cameras = RigConfig(cameras=rig("small").cameras, lidar=None)
    suite = SensorSuite(cameras, town, 3, state.x_m.shape[1], labels=True, weather=weather)
    suite.observe(state)
    return suite


@pytest.fixture(scope="module")
def looks(town: DrivingMap, state: WorldState) -> dict[str, SensorSuite]:
    return {name: look(town, state, name) for name in NAMES}


def brightness(suite: SensorSuite, name: str = "camera_wide") -> float:
    return float(suite.images[name].mean())


def test_the_later_the_darker(looks: dict[str, SensorSuite]) -> None:
    hours = ("clear-noon", "clear-sunset", "dusk", "clear-night")
    levels = [brightness(looks[name]) for name in hours]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] < 0.5 * levels[0]


@pytest.mark.parametrize("hour", ["noon", "sunset"])
def test_a_wet_road_is_darker_near_the_car(looks: dict[str, SensorSuite], hour: str) -> None:
    dry, wet = looks[f"clear-{hour}"], looks[f"wet-{hour}"]
    near = (dry.semantic["camera_wide"] == SemanticClass.ROAD) & (dry.depth["camera_wide"] < 8.0)
    assert near.sum() > 1000
    assert wet.images["camera_wide"][near].mean() < 0.93 * dry.images["camera_wide"][near].mean()


def test_fog_hides_more_the_further_away(looks: dict[str, SensorSuite]) -> None:
    """Mean distance to the colour of the fog falls from one depth to the next; on dry ground, where nothing shines."""
    suite = looks["fog-noon"]
    for e in range(suite.num_envs):
        fog = suite.light.rows[e, HORIZON : HORIZON + 3]
        image, depth = suite.images["camera_wide"][e].astype(float), suite.depth["camera_wide"][e]
        road = (suite.code["camera_wide"][e] == GROUND) & (suite.semantic["camera_wide"][e] == SemanticClass.ROAD)
        away = [
            np.abs(image[road & (depth >= near) & (depth < 2 * near)] - fog).mean()
            for near in (5.0, 10.0, 20.0, 40.0)
            if (road & (depth >= near) & (depth < 2 * near)).sum() > 30
        ]
        assert len(away) >= 3
        assert away == sorted(away, reverse=True)
        assert np.abs(image[(depth > 200.0) & (depth < FAR_M)] - fog).mean() < 12.0


@given(st.floats(0.0, 5000.0), st.floats(0.0, 5000.0), st.floats(1e-4, 0.2))
def test_haze_grows_with_distance_and_stays_a_share(near: float, far: float, per_m: float) -> None:
    near, far = sorted((near, far))
    shares = [float(haze_share(np.float32(d), np.float32(per_m))) for d in (near, far)]
    assert 0.0 <= shares[0] <= shares[1] <= 1.0
    exact = 1.0 - np.exp(-near * per_m)
    assert shares[0] == pytest.approx(exact, abs=0.06)


def test_weather_changes_no_label_and_no_depth(looks: dict[str, SensorSuite]) -> None:
    clear = looks["clear"]
    for suite in looks.values():
        for name in clear.images:
            assert np.array_equal(suite.semantic[name], clear.semantic[name])
            assert np.array_equal(suite.instance[name], clear.instance[name])
            assert np.array_equal(suite.depth[name], clear.depth[name])


def test_every_weather_looks_its_own_way(looks: dict[str, SensorSuite]) -> None:
    fixed = [suite.images["camera_wide"].tobytes() for name, suite in looks.items() if name not in ("clear", "random")]
    assert len(set(fixed)) == len(fixed)


@pytest.mark.parametrize("weather", ["clear", "rain-night"])
def test_a_picture_is_the_same_in_any_batch_and_on_any_number_of_threads(
    town: DrivingMap, state: WorldState, looks: dict[str, SensorSuite], weather: WeatherName
) -> None:
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = SensorSuite(
            RigConfig(cameras=rig("small").cameras, lidar=None), town, 3, state.x_m.shape[1], weather=weather
        )
        for e in range(3):
            alone.observe(state, np.arange(3) == e)
    finally:
        numba.set_num_threads(threads)
    for name, images in looks[weather].images.items():
        assert np.array_equal(alone.images[name], images)


def test_a_brake_lamp_turns_red_where_it_is_and_nowhere_else(town: DrivingMap, state: WorldState) -> None:
    braking, rolling = state.brake_light.copy(), state.brake_light.copy()
    braking[:], rolling[:] = 1, 0
    suites = []
    for lamps in (rolling, braking):
        state.brake_light[:] = lamps
        suites.append(look(town, state, "clear-noon"))
    off, on = suites
    changed = 0
    for name in off.images:
        before, after = off.images[name].astype(int), on.images[name].astype(int)
        differs = (before != after).any(axis=-1)
        code = on.code[name]
        assert np.array_equal(code, off.code[name])
        assert (code[differs] >= 0).all()
        for e in range(3):
            spots = differs[e]
            lit = on.attributes[e][code[e][spots] >> 2]
            assert (lit[:, 1] == int(SemanticClass.VEHICLE)).all()
            assert (after[e][spots][:, 0] > before[e][spots][:, 0]).all()
            changed += int(spots.sum())
    assert changed > 3


def test_lamps_come_on_after_dark(looks: dict[str, SensorSuite]) -> None:
    """At night the brightest pixels of a dark street are as bright as by day, and the sky is not among them."""
    night = looks["clear-night"]
    image, sky = night.images["camera_wide"], night.code["camera_wide"] == -2
    assert image[~sky].max() > 200
    assert image[sky].mean() < 60


@given(st.sampled_from(NAMES), st.integers(0, 2**62), st.integers(0, 10**6))
def test_light_is_finite_and_belongs_to_the_episode(name: WeatherName, seed: int, episode: int) -> None:
    weather = draw_weather(name, seed, episode)
    row = light_of(weather)
    assert weather == draw_weather(name, seed, episode)
    assert row.shape == (LIGHT_COLUMNS,)
    assert np.isfinite(row).all()
    assert (row[SUN + 3 :] >= 0).all()
    assert np.linalg.norm(row[SUN : SUN + 3]) == pytest.approx(1.0, abs=1e-5)
    if row[DIRECT] > 0:
        assert row[SUN + 2] > 0, "shadows need a sun above the ground"


def test_random_weather_has_day_and_night_rain_and_fog() -> None:
    drawn = [draw_weather("random", 1, episode) for episode in range(400)]
    day = np.mean([weather.sun_elevation_deg > 10 for weather in drawn])
    night = np.mean([weather.sun_elevation_deg < -10 for weather in drawn])
    assert 0.4 < day < 0.7
    assert 0.12 < night < 0.3
    assert 0.15 < np.mean([weather.rain_mm_h > 0 for weather in drawn]) < 0.35
    assert 0.05 < np.mean([weather.visibility_m < 600 for weather in drawn]) < 0.3


def test_clear_is_daylight_that_differs() -> None:
    drawn = [draw_weather("clear", 1, episode) for episode in range(50)]
    assert all(weather.sun_elevation_deg > 25 and weather.rain_mm_h == 0 for weather in drawn)
    assert len({weather.sun_azimuth_deg for weather in drawn}) == 50


def test_an_unknown_weather_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="weather") as error:
        EnvConfig.of(weather="sunny")
    assert "\n" not in str(error.value)
    assert "clear-noon" in str(error.value)


def test_markings_do_not_shimmer(town: DrivingMap, state: WorldState) -> None:
    """How much light markings add to a picture stays the same while the car moves by parts of a cell; the number of pixels
    whose nearest cell is a marking does not."""
    suite = SensorSuite(
        RigConfig(cameras=rig("small").cameras[:1], lidar=None),
        town,
        3,
        state.x_m.shape[1],
        labels=True,
        weather="cloudy-noon",
    )
    start = state.x_m[:, 0].copy(), state.y_m[:, 0].copy()
    added, counted = [], []
    for shift in np.linspace(0.0, town.ground.cell_m, 9):
        state.x_m[:, 0], state.y_m[:, 0] = start[0] + 0.6 * shift, start[1] + 0.8 * shift
        suite.observe(state)
        depth, semantic = suite.depth["camera_wide"], suite.semantic["camera_wide"]
        marked = (semantic == SemanticClass.LANE_MARKING) | (semantic == SemanticClass.CROSSWALK)
        near = (suite.code["camera_wide"] == GROUND) & (depth < 25.0)
        road = near & ((semantic == SemanticClass.ROAD) | marked)
        red = suite.images["camera_wide"][..., 0].astype(float)
        plain = np.median(red[road & ~marked])
        added.append(np.maximum(red[road] - plain - 12.0, 0.0).sum())
        counted.append(float((marked & near).sum()))
    state.x_m[:, 0], state.y_m[:, 0] = start
    jump, count_jump = (np.abs(np.diff(values)).max() / np.mean(values) for values in (added, counted))
    assert jump < 0.02
    assert jump < 0.7 * count_jump


def test_every_camera_sees_drops_of_its_own(town: DrivingMap, state: WorldState) -> None:
    (camera, *_) = rig("smoke").cameras
    twins = RigConfig(cameras=tuple(camera.model_copy(update={"name": f"camera_{n}"}) for n in ("a", "b")), lidar=None)
    for weather, same in (("clear-noon", True), ("hard-rain-noon", False)):
        suite = SensorSuite(twins, town, 3, state.x_m.shape[1], weather=weather)
        suite.observe(state)
        a, b = (suite.images[name] for name in ("camera_a", "camera_b"))
        assert (a == b).all() == same
