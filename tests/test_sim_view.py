"""Pictures and videos: what is where in them, what they do with missing parts, and that a video decodes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.geometry import se2_as_se3, se3, transform
from perception.sensors import CameraCalibration, CameraFrame, EgoState, LidarSweep, SensorFrame
from planning.action import Action
from planning.policy import SignalState
from sim import drawing
from sim.birdseye import RING_SPACING_M, Chart, box_corners, draw_birdseye, signal_ahead
from sim.drawing import BACKGROUND, BLUE, BRIGHT, GREEN, RED, fitted, shortened, text_width
from sim.roads.driving_map import DrivingMap, GroundClass
from sim.roads.network import LaneKind
from sim.step import Actors, Step
from sim.view import HEIGHT_PX, WIDTH_PX, VideoError, VideoWriter, ViewContext, compose, project

CHART = Chart(432, 688, 7.5, 216.0, 480.0)
EGO_FROM_CAMERA = se3([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [1.5, 0.0, 1.6])


def camera(width_px: int, height_px: int, timestamp_us: int, model: str = "none") -> CameraFrame:
    intrinsics = np.array([[width_px / 2, 0, width_px / 2], [0, width_px / 2, height_px / 2], [0, 0, 1.0]])
    distortion = {"none": [], "brown_conrady": [-0.1, 0.02, 1e-3, -1e-3], "kannala_brandt": [0.02, -0.01, 1e-3, 0.0]}
    calibration = CameraCalibration(
        width_px, height_px, intrinsics, EGO_FROM_CAMERA, model, np.array(distortion[model])  # type: ignore[arg-type]
    )  # fmt: skip
    ramp = np.linspace(0, 255, width_px).astype(np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (height_px, width_px, 3)))
    return CameraFrame(image, calibration, timestamp_us)


def full_step(tick: int = 3) -> Step:
    time_us = tick * 100_000
    rng = np.random.default_rng(tick)
    points = rng.uniform([-20, -20, -2, 0], [50, 20, 3, 1], (4000, 4)).astype(np.float32)
    route = np.stack([2.5 * np.arange(20), np.zeros(20)], axis=-1).astype(np.float32)
    actors = Actors(
        np.array([1, 2], np.int32), np.array([0, 6], np.int8), np.array([[20.0, 4.0, 0.8], [15.0, -6.0, 0.9]]),
        np.array([[4.5, 1.8, 1.5], [0.6, 0.6, 1.8]]), np.array([0.1, 2.0]), np.array([8.0, 1.0]),
    )  # fmt: skip
    frame = SensorFrame(
        time_us,
        {"camera_wide": camera(192, 96, time_us), "camera_tele": camera(128, 64, time_us)},
        {"lidar": LidarSweep(points, se3(np.eye(3), [1.0, 0.0, 1.8]), time_us)},
        EgoState(time_us, 9.0 + tick, world_from_ego=se2_as_se3(0.0, 0.0, 0.0)),
        route,
    )
    return Step(tick, time_us, frame, Action(0.2, 0.5), 0.1, {"progress": 0.1}, {}, actors, None, 40.0, 200.0)


def recorded_step() -> Step:
    """As from somebody's recording: one big camera, no route, no pose, no actors, no action."""
    frame = SensorFrame(
        0, {"front": camera(1920, 1080, 0, "brown_conrady")},
        {"top": LidarSweep(np.array([[8.0, 0.0, 0.0, 0.5]], np.float32), np.eye(4), 0)}, EgoState(0, 3.0), None,
    )  # fmt: skip
    return Step(0, 0, frame, None)


def silent_step() -> Step:
    return Step(0, 0, SensorFrame(0, {"front": None}, {"top": None}, None, None), None)


def bare_step() -> Step:
    return Step(0, 0, SensorFrame(0, {}, {}, None, None), None)


def test_time_counts_from_the_beginning_of_a_recording() -> None:
    step, since_us = full_step(), 1_317_042_145_000_000
    recorded = replace(step, timestamp_us=step.timestamp_us + since_us)
    wanted = compose(step, ViewContext(log_name="drive"))
    assert (compose(recorded, ViewContext(log_name="drive", start_us=since_us)) == wanted).all()
    assert (compose(recorded, ViewContext(log_name="drive")) != wanted).any()
    assert (compose(step, ViewContext("drive")) != wanted).any()  # a log is no map


@pytest.mark.parametrize("step", [full_step(), recorded_step(), silent_step(), bare_step()])
@pytest.mark.parametrize(
    "context", [ViewContext(), ViewContext("a-map", "/x/" * 90, 2**62, None, -1234.5, (("off_road", "left " * 80),))]
)
def test_compose_is_pure(step: Step, context: ViewContext) -> None:
    before = copy.deepcopy(step)
    first, second = compose(step, context), compose(step, context)
    assert first.shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    assert repr(step) == repr(before)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, action=Action(-0.8, 0.5)),
        lambda s: replace(s, action=Action(0.2, -0.5)),
        lambda s: replace(s, action=None),
        lambda s: replace(s, actors=None),
        lambda s: replace(s, progress_m=190.0),
        lambda s: replace(s, frame=replace(s.frame, route_in_ego=None)),
        lambda s: replace(s, frame=replace(s.frame, lidars={"lidar": None})),
        lambda s: replace(s, frame=replace(s.frame, cameras={**s.frame.cameras, "camera_tele": None})),
        lambda s: replace(s, frame=replace(s.frame, ego=replace(s.frame.ego, speed_mps=20.0))),
    ],
)
def test_every_part_of_a_step_shows(change) -> None:  # type: ignore[no-untyped-def]
    step = full_step()
    shown, changed = compose(step, ViewContext()), compose(change(step), ViewContext())
    assert np.abs(shown.astype(int) - changed).max() > 30


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (bare_step(), {"this observation has no sensors"}),
        (silent_step(), {"no picture at this instant", "no LiDAR sweep at this instant"}),
        (
            replace(bare_step(), frame=SensorFrame(0, {}, {"top": None}, None, None)),
            {"no camera", "no LiDAR sweep at this instant"},
        ),
        (
            replace(bare_step(), frame=SensorFrame(0, {"front": None}, {}, None, None)),
            {"no picture at this instant", "no LiDAR"},
        ),
    ],
)
def test_an_empty_panel_says_why(step: Step, words: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(drawing, "text", lambda picture, string, *where: said.append(string))
    compose(step, ViewContext())
    reasons = {"this observation has no sensors", "no picture at this instant", "no camera", "no LiDAR"}
    assert {string for string in said if string in reasons or string.startswith("no LiDAR")} == words


def test_events_show_as_banner() -> None:
    quiet = compose(full_step(), ViewContext())
    bad = compose(full_step(), ViewContext(recent_events=(("red_light", "crossed a stop line at red"),)))
    good = compose(full_step(), ViewContext(recent_events=(("arrived", "reached the end of the route"),)))
    for picture, color in ((bad, RED), (good, GREEN)):
        banner = (picture == color).all(axis=-1) & (quiet != picture).any(axis=-1)
        assert banner.any()


def test_camera_keeps_its_shape_and_orientation() -> None:
    image = camera(192, 96, 0).image
    scaled, place = fitted(image, 800, 500)
    assert (place.width, place.height, place.x, place.y) == (800, 400, 0, 50)
    columns = scaled.astype(float).mean(axis=(0, 2))
    assert columns[-40:].mean() > 240 > 15 > columns[:40].mean()


@given(st.text(max_size=60), st.integers(20, 300))
def test_shortened_text_fits(string: str, width_px: int) -> None:
    short = shortened(string, width_px, 15)
    assert text_width(short, 15) <= max(width_px, text_width("…", 15) + text_width(string[-1:], 15))
    assert short == string or string.endswith(short[1:])


@pytest.mark.parametrize("model", ["none", "brown_conrady", "kannala_brandt"])
def test_projection_agrees_with_the_lens_equations(model: str) -> None:
    """Formulas as in OpenCV's documentation of calib3d and fisheye, written out."""
    frame = camera(640, 480, 0, model)
    points = np.random.default_rng(0).uniform([-3, -2, 4], [3, 2, 9], (200, 3))
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    r = np.hypot(x, y)
    k = frame.calibration.distortion
    if model == "brown_conrady":
        radial = 1 + k[0] * r**2 + k[1] * r**4
        x, y = (
            x * radial + 2 * k[2] * x * y + k[3] * (r**2 + 2 * x**2),
            y * radial + k[2] * (r**2 + 2 * y**2) + 2 * k[3] * x * y,
        )
    elif model == "kannala_brandt":
        theta = np.arctan(r)
        scale = theta * (1 + k[0] * theta**2 + k[1] * theta**4 + k[2] * theta**6 + k[3] * theta**8) / r
        x, y = x * scale, y * scale
    expected = np.stack([320 + 320 * x, 240 + 320 * y], axis=-1)
    np.testing.assert_allclose(project(points, frame), expected, atol=1e-6)


@given(st.floats(-20, 50), st.floats(-25, 25))
def test_chart_looks_along_the_ego(x: float, y: float) -> None:
    here = CHART.pixels(np.array([x, y]))
    ahead, left = CHART.pixels(np.array([x + 1, y])), CHART.pixels(np.array([x, y + 1]))
    np.testing.assert_allclose(ahead - here, [0, -CHART.scale_px_per_m], atol=1e-9)
    np.testing.assert_allclose(left - here, [-CHART.scale_px_per_m, 0], atol=1e-9)


def test_box_corners_agree_with_opencv() -> None:
    rng = np.random.default_rng(2)
    center, size, yaw = rng.uniform(-30, 30, (50, 2)), rng.uniform(0.5, 9, (50, 2)), rng.uniform(-4, 4, 50)
    for corners, c, s, a in zip(box_corners(center, size, yaw), center, size, yaw, strict=True):
        theirs = cv2.boxPoints((c.tolist(), s.tolist(), float(np.rad2deg(a))))
        apart = np.linalg.norm(corners[:, None] - theirs[None], axis=-1)
        assert (apart.min(axis=1) < 1e-3).all()
        assert (apart.min(axis=0) < 1e-3).all()


@given(st.floats(-200, 200), st.floats(-200, 200), st.floats(-3, 3), st.floats(6, 40), st.floats(-20, 20))
def test_actor_is_drawn_where_it_stands(x: float, y: float, yaw: float, ahead: float, left: float) -> None:
    front = CHART.pixels(np.array([ahead + 2.0, left]))
    # Distances are written over whatever lies there.
    plates = [
        CHART.pixels(r * np.array([np.cos(0.5), -np.sin(0.5)])) for r in np.arange(RING_SPACING_M, 100, RING_SPACING_M)
    ]
    assume(all((np.abs(front - plate) > [40, 25]).any() for plate in plates))
    world_from_ego = se2_as_se3(x, y, yaw)
    center = transform(world_from_ego, np.array([[ahead, left, 0.8]]))
    size = np.array([[4.5, 2.0, 1.5]])
    actors = Actors(np.ones(1, np.int32), np.zeros(1, np.int8), center, size, np.array([yaw]), np.zeros(1))
    frame = SensorFrame(0, {}, {}, EgoState(0, 0.0, world_from_ego=world_from_ego), None)
    picture = np.zeros((688, 432, 3), np.uint8)
    draw_birdseye(picture, CHART, frame, actors)
    where = np.argwhere((picture == BLUE).all(axis=-1))
    row, column = where.mean(axis=0)
    expected = CHART.pixels(np.array([ahead + 2.0, left]))  # the front bar has the pure colour
    assert np.hypot(column - expected[0], row - expected[1]) < 14
    assert (picture == BRIGHT).all(axis=-1).any(), "the ego's own symbol"


def test_ground_lies_under_the_ego_as_in_the_map(town: DrivingMap) -> None:
    """Away from borders between classes, the picture shows the class of the raster's cell, for any pose."""
    ground = town.ground
    rng = np.random.default_rng(4)
    road = np.argwhere(ground.classes == GroundClass.ROAD)
    same = cv2.erode((ground.classes == GroundClass.ROAD).astype(np.uint8), np.ones((7, 7), np.uint8))
    for row, column in road[rng.integers(0, len(road), 8)]:
        ego_xy = ground.origin + (np.array([column, row]) + 0.5) * ground.cell_m
        pose = se2_as_se3(*ego_xy, rng.uniform(-np.pi, np.pi))
        picture = np.zeros((688, 432, 3), np.uint8)
        draw_birdseye(
            picture, CHART, SensorFrame(0, {}, {}, EgoState(0, 0.0, world_from_ego=pose), None), driving_map=town
        )
        in_ego = rng.uniform([6, -10, 0], [17, 10, 0], (400, 3))
        world = transform(pose, in_ego)[:, :2]
        cells = np.floor((world - ground.origin) / ground.cell_m).astype(int)
        inside = (cells >= 0).all(axis=1) & (cells < ground.classes.shape[::-1]).all(axis=1)
        known = np.zeros(len(cells), bool)
        known[inside] = same[cells[inside, 1], cells[inside, 0]] == 1
        at = np.rint(CHART.pixels(in_ego[known])).astype(int)
        shown = picture[at[:, 1], at[:, 0]].astype(int)
        # The rest lies beside a line that the picture blends with it.
        assert np.mean(np.abs(shown - np.median(shown, axis=0)).max(axis=1) < 3) > 0.9
        assert (np.median(shown, axis=0) != BACKGROUND).all()


def lane_points(town: DrivingMap, lane: int) -> NDArray[np.float64]:
    network = town.network
    at = slice(network.point_start[lane], network.point_start[lane + 1])
    return np.stack([network.point_x[at], network.point_y[at]], axis=-1)


def test_signal_ahead_is_the_one_of_the_route(town: DrivingMap) -> None:
    """20 m before each signal of the town, on the way through its junction lane: its state, and the distance."""
    network = town.network
    tried = 0
    for lane in np.flatnonzero((network.lane_signal_link >= 0) & (network.lane_kind == LaneKind.DRIVING)):
        before = int(network.predecessor[network.predecessor_start[lane]])
        after = int(network.successor[network.successor_start[lane]])
        if network.lane_length_m[before] < 25:
            continue
        path = np.concatenate([lane_points(town, m) for m in (before, int(lane), after)])
        path = path[np.concatenate([[True], np.hypot(*np.diff(path, axis=0).T) > 1e-6])]
        arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
        start = network.lane_length_m[before] - 20.0
        s = np.minimum(start + 2.5 * np.arange(21), arc[-1])
        points = np.stack([np.interp(s, arc, path[:, axis]) for axis in range(2)], axis=-1)
        yaw = float(np.arctan2(*(points[1] - points[0])[::-1]))
        pose = se2_as_se3(points[0, 0], points[0, 1], yaw)
        in_ego = transform(np.linalg.inv(pose), np.column_stack([points[1:], np.zeros(20)]))[:, :2].astype(np.float32)
        signals = np.full(network.num_signal_links, SignalState.RED, np.int8)
        signals[network.lane_signal_link[lane]] = SignalState.GREEN
        found = signal_ahead(town, signals, pose, in_ego)
        assert found is not None, network.lane_name[lane]
        assert found[0] == SignalState.GREEN, network.lane_name[lane]
        assert abs(found[1] - 20.0) < 1.5
        assert signal_ahead(town, signals, pose, in_ego[:5]) is None, "the known route ends before the line"
        tried += 1
    assert tried > 10


def boxes_of(data: bytes) -> list[bytes]:
    """Names of the top-level boxes of an MP4 (ISO 14496-12)."""
    names, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        names.append(data[at + 4 : at + 8])
        at += size if size >= 8 else len(data)
    return names


def test_video_decodes_to_the_pictures(tmp_path: Path) -> None:
    path, thumbnail = tmp_path / "new" / "drive.mp4", tmp_path / "drive.png"
    writer = VideoWriter(path, ViewContext("a-map"), thumbnail)
    steps = [full_step(tick) for tick in range(5)]
    for step in steps:
        writer.on_step(step)
    writer.close()
    data = path.read_bytes()
    assert boxes_of(data).index(b"moov") < boxes_of(data).index(b"mdat"), "a browser needs the index first"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 10
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(pictures) == len(steps)
    last = compose(steps[-1], ViewContext("a-map", total_reward=sum(step.reward for step in steps)))
    assert np.abs(pictures[-1].astype(int) - last).mean() < 4
    still = cv2.cvtColor(cv2.imread(str(thumbnail)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(still, last)


def test_events_stay_for_a_while(tmp_path: Path) -> None:
    """A banner of one tick would be missed: it is still there two seconds later, and gone after four."""
    shown = {}
    for later in (20, 40):
        writer = VideoWriter(tmp_path / f"{later}.mp4", ViewContext(), tmp_path / f"{later}.png", frames_per_second=100)
        writer.on_step(replace(full_step(0), events={"off_road": "left the road"}))
        writer.on_step(full_step(later))
        writer.close()
        shown[later] = (cv2.imread(str(tmp_path / f"{later}.png"))[372:404, 28:70] == RED[::-1]).all(axis=-1).any()
    assert shown == {20: True, 40: False}


def test_without_steps_there_is_no_file(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "none.mp4", ViewContext(), tmp_path / "none.png")
    writer.close()
    writer.close()
    assert not list(tmp_path.iterdir())


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"must end in \.mp4"):
        VideoWriter(tmp_path / "drive.avi", ViewContext())
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(VideoError, match="choose another folder"):
        VideoWriter(tmp_path / "file" / "drive.mp4", ViewContext())
    (tmp_path / "folder.mp4").mkdir()
    writer = VideoWriter(tmp_path / "folder.mp4", ViewContext())
    with pytest.raises(VideoError, match="cannot write a video"):
        writer.on_step(bare_step())
