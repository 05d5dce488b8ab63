"""Readers of recorded traffic: what they give, and what they say to files that are none."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_recordings import (
    CYCLIST,
    PARKED,
    TICKS,
    YAW_RAD,
    ego_places,
    motions,
    placed,
    scene_of,
    waymo_scenario,
    write_argoverse2,
    write_waymo,
)

from sim.playback.argoverse2 import read_argoverse2
from sim.playback.recorded_scene import LineKind, RecordedScene, RecordingError
from sim.playback.scene_bytes import pack_scene, scene_as_bytes, unpack_scene
from sim.playback.scene_route import scene_route
from sim.playback.waymo_motion import read_waymo_motion
from sim.roads.driving_map import DrivingMap, GroundClass, load_map

Reader = Callable[[Path], RecordedScene]


@pytest.fixture(scope="module")
def waymo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_waymo(tmp_path_factory.mktemp("waymo") / "invented.json")


@pytest.fixture(scope="module")
def argoverse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_argoverse2(tmp_path_factory.mktemp("argoverse") / "log")


@pytest.fixture(scope="module", params=["waymo", "argoverse"])
def scene(request: pytest.FixtureRequest) -> RecordedScene:
    path = request.getfixturevalue(request.param)
    return read_waymo_motion(path) if request.param == "waymo" else read_argoverse2(path)


def test_everybody_is_where_the_recording_has_them(scene: RecordedScene) -> None:
    # The last tick of the uneven log has no box after it.
    ticks = scene.num_ticks
    assert ticks in (TICKS, TICKS - 1)
    assert scene.others.num_actors == len(motions())
    for row, (_, size, places, yaw) in enumerate(motions()):
        x, y = scene.others.x_m[row] + scene.origin_m[0], scene.others.y_m[row] + scene.origin_m[1]
        there = scene.others.present[row]
        assert there.sum() >= TICKS - 2
        error = np.hypot(x - places[:ticks, 0], y - places[:ticks, 1])[there]
        assert error.max() < 0.02
        turned = np.angle(np.exp(1j * (scene.others.yaw_rad[row] - yaw[:ticks])))[there]
        assert np.abs(turned).max() < 1e-3
        np.testing.assert_allclose(scene.others.size_m[row], size, atol=1e-3)
    own = np.stack([scene.ego.x_m[0], scene.ego.y_m[0]], axis=1) + scene.origin_m
    assert np.hypot(*(own - ego_places()[:ticks]).T).max() < 0.02
    assert scene.others.kind.tolist() == [0, 0, 0, 6, 5]


def test_speeds_are_those_of_the_places(scene: RecordedScene) -> None:
    there = scene.others.present[:, 5:-5].all(axis=1)
    assert there.all()
    mean = scene.others.speed_mps[:, 5:-5].mean(axis=1)
    np.testing.assert_allclose(mean, [8.0, 9.0, 0.0, 1.3, 4.0], atol=0.05)
    assert scene.others.speed_mps[PARKED].max() == 0.0
    assert scene.limit_mps >= 25 * 0.44704 - 1e-3


def test_lanes_lead_on_and_the_route_goes_on_along_them(scene: RecordedScene) -> None:
    assert [lane.followers for lane in scene.road.lanes] == [(1,), (), ()]
    route = scene_route(scene)
    assert route.driven_m == pytest.approx(8.0 * 0.1 * (scene.num_ticks - 1), abs=0.6)
    own = route.points + scene.origin_m
    ahead = (own - ego_places()[0]) @ np.array([np.cos(YAW_RAD), np.sin(YAW_RAD)])
    aside = (own - ego_places()[0]) @ np.array([-np.sin(YAW_RAD), np.cos(YAW_RAD)])
    assert np.abs(aside).max() < 0.05
    assert np.diff(ahead).min() > 0.5
    assert ahead[-1] > route.driven_m + 30.0


@pytest.mark.parametrize("before_end_m", [0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 4.0])
def test_the_route_of_a_car_parked_before_the_end_of_its_lane_goes_on(tmp_path: Path, before_end_m: float) -> None:
    scenario = waymo_scenario()
    places = placed(np.full(TICKS, 180.0 - before_end_m), 0.0)
    scenario["objects"][-1]["position"] = [{"x": float(x), "y": float(y), "z": 0.0} for x, y in places]
    path = tmp_path / "parked.json"
    path.write_text(json.dumps(scenario))
    points = scene_route(scene_of(load_map(str(path)))).points
    steps, (x, y) = np.diff(points, axis=0), (np.cos(YAW_RAD), np.sin(YAW_RAD))
    ahead, aside = steps @ [x, y], steps @ [-y, x]
    assert len(points) >= 2
    assert ahead.min() > 0.3
    assert np.abs(aside).max() < 0.01


def test_ground_is_road_between_the_edges(waymo: Path, argoverse: Path) -> None:
    for path in (waymo, argoverse):
        driving_map = load_map(str(path))
        for left, expected in ((-3.6, 1), (0.0, 1), (5.2, 1), (-4.5, 0), (6.1, 0)):
            assert drivable_share(driving_map, left) == expected, (path.name, left)
        along = np.linspace(-20.0, 90.0, 400)
        stripe = classes_at(driving_map, placed(along, 1.75 + 0.11))
        assert (stripe == GroundClass.LINE_YELLOW).mean() > 0.9
        crossing = classes_at(driving_map, placed(np.full(300, 101.5), np.linspace(-1.5, 5.0, 300)))
        assert 0.35 < (crossing == GroundClass.CROSSWALK).mean() < 0.65


def classes_at(driving_map: DrivingMap, places: np.ndarray) -> np.ndarray:
    ground, scene = driving_map.ground, driving_map.recording
    assert scene is not None
    column, row = np.floor((places - scene.origin_m - ground.origin) / ground.cell_m).astype(int).T
    return ground.classes[row, column]


def drivable_share(driving_map: DrivingMap, left: float) -> float:
    ground, scene = driving_map.ground, driving_map.recording
    assert scene is not None
    places = placed(np.linspace(-20.0, 90.0, 400), left) - scene.origin_m
    column, row = np.floor((places - ground.origin) / ground.cell_m).astype(int).T
    return float(ground.drivable[row, column].mean())


def test_a_scene_reads_back_from_its_bytes_as_it_was(scene: RecordedScene) -> None:
    again = unpack_scene(pack_scene(scene), "a test")
    assert scene_as_bytes(again) == scene_as_bytes(scene)
    for name in ("x_m", "y_m", "yaw_rad", "speed_mps", "present", "size_m", "kind"):
        assert getattr(again.others, name).tobytes() == getattr(scene.others, name).tobytes(), name
    assert again.road.lines[0].kind == scene.road.lines[0].kind == LineKind.DOUBLE_YELLOW


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_scene_bytes_give_one_clear_error(scene: RecordedScene, data: st.DataObject) -> None:
    packed = bytearray(pack_scene(scene))
    if data.draw(st.booleans()):
        packed = packed[: data.draw(st.integers(0, len(packed) - 1))]
    else:
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        unpack_scene(bytes(packed), "a test")
    except RecordingError as error:
        assert "\n" not in str(error)  # noqa: PT017 (a flip may hit what gzip does not check)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lanes", [{"points": [[9e6, 0.0], [9e6, 9.0]], "width_m": 3.0, "bicycles": False, "followers": []}]),
        ("drivable", [[[0.0, 0.0], [1e6, 0.0], [0.0, 5.0]]]),
        ("standing", [{"kind": 0, "box": [x, x, 0.0, 0.4, 0.4, 1.0]} for x in (0.0, 1e5)]),
        ("ticks", 10),
        ("limit_mps", 0),
        ("version", 2),
        ("others", [{}]),
    ],
)
def test_a_scene_that_is_too_large_or_no_scene_is_refused(scene: RecordedScene, key: str, value: Any) -> None:
    text = json.loads(scene_as_bytes(scene)) | {key: value}
    with pytest.raises(RecordingError, match="a test"):
        unpack_scene(gzip.compress(json.dumps(text).encode()), "a test")


def test_a_scene_with_missing_fields_takes_the_memory_of_its_text() -> None:
    """Not that of the whole text for each of them: a few kilobytes packed had taken gigabytes."""
    text = b'{"ego": {"x_m": [' + b"1, " * 300_000 + b"1]}}"
    packed = gzip.compress(text)
    tracemalloc.start()
    with pytest.raises(RecordingError, match="version: Field required"):
        unpack_scene(packed, "log")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * len(text)


def test_a_recorded_car_that_flies_is_refused(scene: RecordedScene) -> None:
    text = json.loads(scene_as_bytes(scene))
    text["ego"]["x_m"] = [1e6 * (k % 2) for k in range(len(text["ego"]["x_m"]))]
    with pytest.raises(RecordingError, match="5 km"):
        unpack_scene(gzip.compress(json.dumps(text).encode()), "a test")


def test_gaps_are_filled_flickers_dropped_and_the_parked_stay(tmp_path: Path) -> None:
    scenario = waymo_scenario()
    objects = scenario["objects"]
    for tick in range(40, 52):  # 1.2 s out of sight
        objects[0]["valid"][tick] = False
        objects[0]["position"][tick] = {"x": -10000.0, "y": -10000.0, "z": -10000.0}
    objects[PARKED]["valid"] = [30 < tick < 50 for tick in range(TICKS)]
    objects[CYCLIST]["valid"] = [10 <= tick < 13 for tick in range(TICKS)]
    path = tmp_path / "gaps.json"
    path.write_text(json.dumps(scenario))
    scene = read_waymo_motion(path)
    assert scene.others.num_actors == len(motions()) - 1
    assert scene.left_out["tracks shorter than half a second"] == 1
    assert scene.others.present[0].all()
    places = motions()[0][2]
    assert np.hypot(*(np.stack([scene.others.x_m[0], scene.others.y_m[0]], 1) + scene.origin_m - places).T).max() < 0.02
    assert scene.others.present[PARKED].all()


def changed(change: Callable[[dict[str, Any]], None]) -> bytes:
    scenario = copy.deepcopy(waymo_scenario())
    change(scenario)
    return json.dumps(scenario).encode()


def _nan(scenario: dict[str, Any]) -> None:
    scenario["objects"][0]["position"][3]["x"] = float("nan")


def _absurd(scenario: dict[str, Any]) -> None:
    scenario["objects"][0]["position"][3]["x"] = 1e300


def _short(scenario: dict[str, Any]) -> None:
    scenario["objects"][0]["heading"].pop()


def _no_ego(scenario: dict[str, Any]) -> None:
    scenario["metadata"]["sdc_track_index"] = 99


def _ego_lost(scenario: dict[str, Any]) -> None:
    scenario["objects"][-1]["valid"][40] = False


def _no_lanes(scenario: dict[str, Any]) -> None:
    scenario["roads"] = []


def _no_roads(scenario: dict[str, Any]) -> None:
    del scenario["roads"]


def _endless_zigzag(scenario: dict[str, Any]) -> None:
    places = placed(np.tile([-900.0, 900.0], 2000), np.tile([0.0, 1.0], 2000)).tolist()
    scenario["roads"][0]["geometry"] = [{"x": x, "y": y, "z": 0.0} for x, y in places]


@pytest.mark.parametrize("change", [_nan, _absurd, _short, _no_ego, _ego_lost, _no_lanes, _no_roads, _endless_zigzag])
def test_wrong_scenarios_give_one_clear_line(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(changed(change))
    with pytest.raises(RecordingError, match=r"wrong\.json") as caught:
        load_map(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"objects": 3}'])
def test_no_scenario_at_all(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "none.json"
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=r"none\.json") as caught:
        read_waymo_motion(path)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such file"):
        load_map(str(tmp_path / "absent.json"))
    with pytest.raises(RecordingError, match="no Argoverse 2 log"):
        load_map(str(tmp_path))
    write_argoverse2(tmp_path / "one")
    with pytest.raises(RecordingError, match=r"did you mean .*one"):
        load_map(str(tmp_path))


def json_values() -> st.SearchStrategy[Any]:
    numbers = st.integers(-(10**12), 10**12) | st.floats() | st.booleans() | st.none() | st.text(max_size=5)
    return st.recursive(
        numbers, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3), max_leaves=8
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_of_a_scenario_may_be_anything(tmp_path: Path, data: st.DataObject) -> None:
    """A scenario with one part replaced by any JSON value is read or refused in one line."""
    scenario = waymo_scenario()
    at: Any = scenario
    for _ in range(data.draw(st.integers(0, 4))):
        keys = sorted(at) if isinstance(at, dict) else list(range(min(len(at), 4)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key]:
            break
        at = at[key]
    key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(min(len(at), 4)))))
    at[key] = data.draw(json_values())
    path = tmp_path / "fuzzed.json"
    path.write_text(json.dumps(scenario))
    try:
        scene = read_waymo_motion(path)
    except RecordingError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert scene.num_ticks >= 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_argoverse_files_give_one_clear_error(argoverse: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(argoverse, folder)
    names = ["annotations.feather", "city_SE3_egovehicle.feather", "map/log_map_archive_invented.json"]
    path = folder / data.draw(st.sampled_from(names))
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 20))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        scene = read_argoverse2(folder)
    except RecordingError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert scene.num_ticks >= 2


def test_rows_are_counted_before_they_are_unpacked(argoverse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes may hold gigabytes of zeros."""

    def read_table(*_: Any, **__: Any) -> None:
        raise AssertionError("the file was unpacked")

    monkeypatch.setattr("sim.feather.MAX_ROWS", 10)
    monkeypatch.setattr("pyarrow.feather.read_table", read_table)
    with pytest.raises(RecordingError, match=rf"city_SE3_egovehicle\.feather: {TICKS} rows; 1 to 10 are read"):
        read_argoverse2(argoverse)


def test_what_stands_far_from_the_recorded_car_is_left_out(argoverse: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import feather

    folder = tmp_path / "far"
    shutil.copytree(argoverse, folder)
    table = feather.read_table(folder / "annotations.feather").to_pydict()
    for name, ahead_m in (("near", 100.0), ("far", 3e5)):
        for key, values in table.items():
            values.append({"track_uuid": name, "category": "BOLLARD", "tx_m": ahead_m}.get(key, values[0]))
    feather.write_feather(pa.table(table), str(folder / "annotations.feather"))
    scene = read_argoverse2(folder)
    assert len(scene.road.standing) == 1
    assert np.hypot(*scene.road.standing[0, :2]) < 120.0
    assert scene.left_out["BOLLARD over 150 m away"] == 1
