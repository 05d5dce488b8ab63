"""LiDAR returns: which hits come back, how bright, and what fog, rain and water do to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.roads.driving_map import DrivingMap, GroundClass
from sim.sensors.cast import BOX_COLUMNS, COS, FAR_M, FAST, GROUND, SKY
from sim.sensors.parts import ATTRIBUTES, MATERIAL, RED
from sim.sensors.returns import AIR_COLUMNS, GROUND_CLASSES, RETURN_ROWS, SURFACE, Air, measure_sweep, shot_noise
from sim.sensors.rig import LidarConfig, RigConfig
from sim.sensors.suite import SensorSuite
from sim.simd import WIDTH, lane_numbers
from sim.simd_memory import store
from sim.solids import Material
from sim.world import WorldState

BEAMS, COLUMNS = 16, 1024
SENSITIVITY_M = 50.0


def measure(
    range_m: float, *, material: Material = Material.CONCRETE, grey: int = 255, cosine: float = 1.0,
    ground: GroundClass | None = None, air: dict[Air, float] | None = None, key: int = 1 << 40, noise_m: float = 0.0,
) -> NDArray[np.float32]:  # fmt: skip
    """Returns (N, 4) of BEAMS x COLUMNS shots forwards at one surface: range, 0, 0 and intensity."""
    shape = (BEAMS, COLUMNS)
    depth = np.full(shape, range_m, np.float32)
    code = np.full(shape, GROUND if ground is not None else 0, np.int32)
    boxes = np.zeros((1, BOX_COLUMNS), np.float32)
    boxes[0, COS] = 1.0
    attributes = np.zeros((1, ATTRIBUTES), np.int32)
    attributes[0, MATERIAL], attributes[0, RED : RED + 3] = material, grey
    dx = np.full(shape, cosine, np.float32) if ground is None else np.ones(shape, np.float32)
    dy = np.full(shape, np.sqrt(1 - cosine**2), np.float32) if ground is None else np.zeros(shape, np.float32)
    dz = np.zeros(shape, np.float32) if ground is None else np.full(shape, -cosine, np.float32)
    classes = np.full((1000, 1000), 0 if ground is None else ground, np.uint8)
    columns = np.zeros(AIR_COLUMNS, np.float32)
    for name, value in (air or {}).items():
        columns[name] = value
    points = np.zeros((BEAMS * COLUMNS, 4), np.float32)
    nothing = np.zeros((1, 1), np.int32)
    count = measure_sweep(
        depth, code, dx, dy, dz, nothing, np.zeros(3, np.float32), boxes, attributes, 0.0, 0.0, 1.0, 0.0, classes,
        np.array([-500.0, -500.0]), 1.0,
        (*np.array([0.5, 500.0, SENSITIVITY_M, noise_m], np.float32), np.float32(0.4), False), columns, np.uint64(key),
        np.zeros((GROUND_CLASSES, 2), np.float32), np.zeros((RETURN_ROWS, COLUMNS), np.float32),
        points, nothing.astype(np.uint8), nothing,
        np.zeros((1, 3), np.int32), np.zeros(1, np.int32), False,
    )  # fmt: skip
    return points[:count]


def share(returns: NDArray[np.float32]) -> float:
    return len(returns) / (BEAMS * COLUMNS)


def test_a_tenth_is_seen_in_half_of_the_shots_at_the_sensitivity() -> None:
    # What concrete sends back head on, against 10 %; the range grows with its root.
    half = SENSITIVITY_M * np.sqrt(SURFACE[Material.CONCRETE, 0] / 0.1)
    assert share(measure(half)) == pytest.approx(0.5, abs=0.02)
    assert share(measure(0.8 * half)) == 1.0
    assert share(measure(1.45 * half)) == 0.0


@settings(deadline=None, max_examples=30)
@given(near=st.floats(1.0, 300.0), factor=st.floats(1.01, 3.0), cosine=st.floats(0.02, 1.0),
       material=st.sampled_from([m for m in Material if m not in (Material.SIGN, Material.GLASS)]))  # fmt: skip
def test_no_surface_is_seen_better_from_further_or_flatter(
    near: float, factor: float, cosine: float, material: Material
) -> None:
    here = share(measure(near, material=material, cosine=cosine))
    assert share(measure(near * factor, material=material, cosine=cosine)) <= here
    assert share(measure(near, material=material, cosine=cosine / 2)) <= here
    assert share(measure(near, material=material, cosine=cosine, air={Air.FOG: 0.0, Air.WETNESS: 1.0})) == here


def test_dark_paint_drops_out_where_light_paint_is_seen() -> None:
    light, dark = (share(measure(60.0, material=Material.PAINT, grey=grey, cosine=0.7)) for grey in (255, 10))
    assert light == 1.0
    assert dark < 0.1


def test_glass_is_hardly_seen_and_signs_are_seen_from_afar() -> None:
    assert share(measure(15.0, material=Material.GLASS)) == 0.0
    assert share(measure(300.0, material=Material.SIGN, cosine=0.3)) == 1.0
    assert (measure(50.0, material=Material.SIGN)[:, 3] == 1.0).all()
    # Road paint holds glass beads: far ahead, where asphalt is too flat to be seen, markings still are.
    far = {kind: share(measure(60.0, ground=kind, cosine=0.03)) for kind in (GroundClass.ROAD, GroundClass.LINE_WHITE)}
    assert far[GroundClass.ROAD] == 0.0
    assert far[GroundClass.LINE_WHITE] == 1.0


def test_intensity_does_not_depend_on_range_but_on_incidence() -> None:
    head_on = measure(10.0)[:, 3].mean()
    assert head_on == pytest.approx(0.4 * SURFACE[Material.CONCRETE, 0], rel=1e-5)
    assert measure(60.0)[:, 3].mean() == head_on
    assert measure(10.0, cosine=0.3)[:, 3].mean() < 0.5 * head_on


@njit(**FAST)
def draw(start, noise, chance):
    """`shot_noise` of one place after another."""
    for i in range(0, noise.shape[0], WIDTH):
        drawn = shot_noise(lane_numbers() + np.int32(start + i))
        store(noise, i, drawn[0])
        store(chance, i, drawn[1])


def test_range_noise_is_normal_and_tells_nothing_about_who_is_seen() -> None:
    noise, chance = np.zeros(1 << 16, np.float32), np.zeros(1 << 16, np.float32)
    draw(np.int32(-5), noise, chance)
    assert noise.mean() == pytest.approx(0.0, abs=0.015)
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    assert np.mean(np.abs(noise) > 2) == pytest.approx(0.0455, abs=0.006)
    assert chance.mean() == pytest.approx(0.5, abs=0.005)
    assert chance.std() == pytest.approx(1 / np.sqrt(12), abs=0.005)
    assert abs(np.corrcoef(noise, chance)[0, 1]) < 0.015
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.015
    limit = 1.7 * SENSITIVITY_M  # where about half of the shots come back
    returns = measure(limit, noise_m=0.02)
    assert (returns[:, 0] - limit).mean() == pytest.approx(0.0, abs=5 * 0.02 / np.sqrt(len(returns)))


@pytest.mark.parametrize("air", [{Air.FOG: 0.03}, {Air.RAIN: 40.0}])
def test_fog_and_rain_dim_what_is_behind_by_beer_and_lambert(air: dict[Air, float]) -> None:
    extinction = air.get(Air.FOG, 0.0) + 1.076 / 4342.9 * air.get(Air.RAIN, 0.0) ** 0.67
    clear, dimmed = measure(25.0), measure(25.0, air=air)
    behind = dimmed[dimmed[:, 0] > 24.9]
    assert len(behind) > 0.9 * len(clear)
    assert behind[:, 3].mean() == pytest.approx(clear[:, 3].mean() * np.exp(-2 * extinction * 25.0), rel=1e-4)


def test_thick_fog_answers_itself_nearby_and_hides_the_rest() -> None:
    spurious = []
    for fog in (0.0, 0.02, 0.06, 0.15):  # clear, and visibilities of 150, 50 and 20 m
        returns = measure(60.0, air={Air.FOG: fog})
        near = returns[returns[:, 0] < 59.9]
        spurious.append(share(near))
        if len(near):
            assert near[:, 0].min() >= 1.0
            assert np.median(near[:, 0]) < 6.0
            assert np.median(near[:, 3]) < 0.05  # faint: intensity alone tells most of it from a surface
    assert spurious[0] == 0.0
    assert spurious == sorted(spurious)
    assert spurious[1] < 0.05
    assert spurious[-1] > 0.3
    assert not (measure(60.0, air={Air.FOG: 0.15})[:, 0] > 59.9).any()


def test_rain_adds_a_few_near_returns() -> None:
    drops = [
        share(r[r[:, 0] < 24.9])
        for r in (measure(25.0, material=Material.RUBBER, air={Air.RAIN: rain}) for rain in (0.0, 10.0, 40.0))
    ]
    assert drops[0] == 0.0
    assert 0.0005 < drops[1] < drops[2] < 0.05


def test_water_darkens_the_ground_and_drowns_markings() -> None:
    for kind in GroundClass:
        dry, damp, wet = (measure(5.0, ground=kind, cosine=0.3, air={Air.WETNESS: w})[:, 3] for w in (0.0, 0.5, 1.0))
        assert dry.mean() > damp.mean() > wet.mean()
    ratio = {}
    for wet in (0.0, 1.0):
        kinds = (GroundClass.LINE_WHITE, GroundClass.ROAD)
        line, road = (measure(5.0, ground=kind, cosine=0.1, air={Air.WETNESS: wet})[:, 3].mean() for kind in kinds)
        ratio[wet] = line / road
    assert ratio[1.0] < ratio[0.0]
    assert share(measure(25.0, ground=GroundClass.ROAD, cosine=0.06, air={Air.WETNESS: 1.0})) == 0.0
    assert share(measure(25.0, ground=GroundClass.ROAD, cosine=0.06)) > 0.2


def observed(town: DrivingMap, state: WorldState, labels: bool, fog: float = 0.0) -> SensorSuite:
    lidar = LidarConfig.of_model("Pandar64", columns=256)
    suite = SensorSuite(RigConfig(cameras=(), lidar=lidar), town, 2, state.x_m.shape[1], labels=labels)
    suite.observe(state)  # the episode's own weather
    suite.air[1, Air.FOG] = fog
    suite.observe(state)
    return suite


def test_weather_stays_in_its_environment(town: DrivingMap, state: WorldState) -> None:
    clear, foggy = observed(town, state, False), observed(town, state, False, fog=0.05)
    assert np.array_equal(clear.points[0], foggy.points[0])
    assert not np.array_equal(clear.points[1], foggy.points[1])


@pytest.mark.parametrize("fog", [0.0, 0.05])
def test_every_point_knows_its_beam_time_class_and_instance(town: DrivingMap, state: WorldState, fog: float) -> None:
    suite = observed(town, state, True, fog)
    lidar = suite.rig.lidar
    assert lidar is not None
    e, name = 1, lidar.name
    count = int(suite.point_count[e])
    points, (beam, semantic, instance) = suite.points[e, :count], suite.point_labels[e, :count].T
    origin = lidar.mount.ego_from_mount()[:3, 3]
    offset = points[:, :3].astype(np.float64) - origin
    measured = np.linalg.norm(offset, axis=1)
    assert np.abs(np.degrees(np.arcsin(offset[:, 2] / measured)) - np.array(lidar.elevations_deg)[beam]).max() < 0.02
    turned = np.arctan2(offset[:, 1], offset[:, 0])[:, None] - lidar.ray_azimuths_rad()[beam]
    column = np.abs(np.angle(np.exp(1j * turned))).argmin(axis=1)
    assert np.array_equal(suite.point_time_us[e, :count], lidar.time_offsets_us()[beam, column])
    of_air = np.abs(measured - suite.depth[name][e][beam, column]) > 0.2
    assert of_air.any() == (fog > 0)
    assert (semantic[of_air] == SemanticClass.SKY).all()
    surface = semantic != SemanticClass.SKY  # a drop may hang right in front of a surface
    assert np.mean(surface[~of_air]) > 0.999
    assert np.array_equal(semantic[surface], suite.semantic[name][e][beam, column][surface])
    assert np.array_equal(instance[surface], suite.instance[name][e][beam, column][surface])
    assert (suite.code[name][e][beam, column][surface] != SKY).all()
    assert (suite.depth[name][e][beam, column][surface] < FAR_M).all()
    sweep = suite.frame(e, 1_000_000)[1][name]
    assert sweep.time_offset_us is not None
    assert np.array_equal(sweep.time_offset_us, suite.point_time_us[e, :count])
