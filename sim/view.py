"""Pictures and videos of an episode: cameras, LiDAR from above, and what the policy does.

Knows steps and maps, OpenCV and PyAV; knows nothing about where steps come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry import inverse, transform
from perception.sensors import CameraFrame, EgoState, SensorFrame
from planning.action import Action
from planning.policy import NavigationCommand, SignalState
from sim import drawing
from sim.birdseye import EGO_FRONT_M, SIGNAL_COLOR, Chart, draw_birdseye, height_color, signal_ahead
from sim.drawing import Picture, Rect
from sim.roads.driving_map import DrivingMap
from sim.step import Step

WIDTH_PX, HEIGHT_PX = 1280, 720
EVENT_SHOWN_S = 3.0
DIAL_MAX_KMH = 120.0
WHEEL_TURN_DEG = 135.0  # of the drawn wheel at full steering
NO_SENSORS = "this observation has no sensors"

_RADIUS_PX = 8
_MAIN = Rect(16, 16, 800, 400)
_SECOND = Rect(16, 432, 400, 200)
_STATE = Rect(432, 432, 384, 200)
_FACTS = Rect(16, 648, 800, 56)
_ABOVE = Rect(832, 16, 432, 688)
_CHART = Chart(_ABOVE.width, _ABOVE.height, 7.5, _ABOVE.width / 2, 0.70 * _ABOVE.height)


_COMMAND_WORDS: dict[NavigationCommand, str] = {
    NavigationCommand.LEFT: "left",
    NavigationCommand.RIGHT: "right",
    NavigationCommand.STRAIGHT: "straight",
    NavigationCommand.LANE_FOLLOW: "goal",
    NavigationCommand.CHANGE_LANE_LEFT: "lane left",
    NavigationCommand.CHANGE_LANE_RIGHT: "lane right",
}


class VideoError(ValueError):
    """A video that cannot be written where or how it was asked for."""


@dataclass(frozen=True)
class ViewContext:
    """What a picture says beyond its step; None and empty are left out of it.

    driving_map: drawn under the LiDAR points where the ego's pose is known.
    total_reward: sum over the episode so far. recent_events: name to sentence, shown as a banner.
    log_name, start_us: of a recording, whose steps do not count their time from 0.
    """

    map_name: str | None = None
    policy: str | None = None
    seed: int | None = None
    driving_map: DrivingMap | None = None
    total_reward: float | None = None
    recent_events: tuple[tuple[str, str], ...] = ()
    log_name: str | None = None
    start_us: int = 0


def compose(step: Step, context: ViewContext) -> Picture:
    """One picture of a step: (720, 1280, 3) uint8 RGB, the same bytes for the same arguments.

    The first camera is shown large; below it the second one, or, where there is none, the LiDAR points as the first
    camera sees them. Sensors, poses, routes and actions that are None leave their place empty and say so.
    """
    picture = np.empty((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    picture[:] = drawing.BACKGROUND
    names = list(step.frame.cameras)
    _draw_camera(picture, _MAIN, names[0] if names else None, step.frame)
    _draw_banner(picture, _MAIN, context.recent_events)
    if len(names) > 1:
        _draw_camera(picture, _SECOND, names[1], step.frame)
    else:
        _draw_camera(picture, _SECOND, names[0] if names else None, step.frame, with_points=True)
    _draw_above(picture, step, context)
    _draw_state(picture, step, context)
    _draw_facts(picture, _facts(step, context), step)
    return picture


class VideoWriter:
    """A `StepObserver` that writes an H.264 MP4 which browsers play, one picture a step.

    path: ends in .mp4; missing folders are made. Nothing is written before the first step.
    thumbnail: where `close` puts a PNG of the picture three seconds into the episode (or of the last one before that).
    frames_per_second: of playback; 10 is real time.

    Raises:
        VideoError: the path does not end in .mp4, or cannot be written.
    """

    def __init__(
        self, path: Path, context: ViewContext, thumbnail: Path | None = None, frames_per_second: int = 10
    ) -> None:
        if path.suffix.lower() != ".mp4":
            raise VideoError(f"cannot write a video to {path}: its name must end in .mp4")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VideoError(f"cannot write a video to {path}: {error.strerror}; choose another folder") from None
        self._path = path
        self._context = context
        self._thumbnail = thumbnail
        self._thumbnail_picture: Picture | None = None
        self._frames_per_second = frames_per_second
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._frames = 0
        self._total_reward = 0.0
        self._events: dict[str, tuple[str, int]] = {}

    def on_step(self, step: Step) -> None:
        """Draw and encode one step."""
        if step.tick == 0:
            self._total_reward, self._events = 0.0, {}
        self._total_reward += step.reward
        for name, sentence in step.events.items():
            self._events[name] = (sentence, step.timestamp_us)
        recent = tuple(
            (name, sentence)
            for name, (sentence, since_us) in self._events.items()
            if step.timestamp_us - since_us <= EVENT_SHOWN_S * 1e6
        )
        known = self._context.total_reward is not None or bool(step.reward_terms) or self._total_reward != 0.0
        total = self._total_reward if known else None
        picture = compose(step, replace(self._context, total_reward=total, recent_events=recent))
        if self._frames <= 3 * self._frames_per_second:
            self._thumbnail_picture = picture
        self._encode(picture)
        self._frames += 1

    def close(self) -> None:
        """Finish the file; the thumbnail is written here. Without any step there is no file."""
        if self._container is not None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = self._stream = None
        if self._thumbnail is not None and self._thumbnail_picture is not None:
            self._thumbnail.parent.mkdir(parents=True, exist_ok=True)
            save_png(self._thumbnail, self._thumbnail_picture)

    def _encode(self, picture: Picture) -> None:
        if self._container is None:
            self._open()
        assert self._container is not None
        assert self._stream is not None
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = self._frames, Fraction(1, self._frames_per_second)
        self._container.mux(self._stream.encode(frame))

    def _open(self) -> None:
        container = av.open(str(self._path), "w", format="mp4", options={"movflags": "+faststart"})
        stream = container.add_stream("libx264", rate=self._frames_per_second)
        stream.width, stream.height = WIDTH_PX, HEIGHT_PX
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        stream.codec_context.thread_count = 1
        try:
            container.start_encoding()
        except OSError as error:
            raise VideoError(f"cannot write a video to {self._path}: {error.strerror}; choose another file") from None
        self._container, self._stream = container, stream


def save_png(path: Path, picture: Picture) -> None:
    """Write an RGB picture as PNG."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert encoded, "PNG takes any uint8 picture"
    path.write_bytes(data.tobytes())


def _draw_camera(picture: Picture, rect: Rect, name: str | None, frame: SensorFrame, with_points: bool = False) -> None:
    drawing.rounded(picture, rect, _RADIUS_PX, drawing.SURFACE)
    camera = frame.cameras[name] if name is not None else None
    if name is None or camera is None:
        absent = "no camera" if frame.lidars else NO_SENSORS
        message = absent if name is None else "no picture at this instant"
        drawing.text(
            picture, message, rect.x + rect.width / 2, rect.y + rect.height / 2 + 5, 15, drawing.FAINT, 400, "center"
        )
    else:
        scaled, place = drawing.fitted(camera.image, rect.width, rect.height)
        if with_points:
            scaled = _with_points(scaled, camera, frame)
        place.of(rect.of(picture))[:] = scaled
        drawing.round_off(picture, rect, _RADIUS_PX, drawing.BACKGROUND)
    title = "" if name is None else name.removeprefix("camera_").replace("_", " ")
    if with_points and camera is not None:
        title += " + LiDAR"
    if camera is not None:
        title += f"  {camera.calibration.width_px}x{camera.calibration.height_px}"
    if title:
        _draw_label(picture, rect.x + 10, rect.y + 10, title)


def _with_points(scaled: Picture, camera: CameraFrame, frame: SensorFrame) -> Picture:
    """The darkened camera picture with the LiDAR points that it sees, coloured by depth."""
    result = np.asarray(scaled * 0.7, np.uint8)
    calibration = camera.calibration
    scale = scaled.shape[1] / calibration.width_px
    for sweep in frame.lidars.values():
        if sweep is None or len(sweep.points) == 0:
            continue
        camera_from_lidar = inverse(calibration.ego_from_camera) @ sweep.ego_from_lidar
        points = transform(camera_from_lidar, sweep.points[:, :3])
        points = points[(points[:, 2] > 0.5) & (np.abs(points[:, 0]) < 2.5 * points[:, 2])]
        if len(points) == 0:
            continue
        points = points[np.argsort(-points[:, 2], kind="stable")]
        at = np.floor(project(points, camera) * scale + 0.5 * scale).astype(int)
        color = height_color(1.0 - np.sqrt(np.clip(points[:, 2] / 60.0, 0.0, 1.0)))
        inside = (at >= 0).all(axis=1) & (at[:, 0] < result.shape[1]) & (at[:, 1] < result.shape[0])
        result[at[inside, 1], at[inside, 0]] = color[inside]
    return result


def project(points_in_camera: NDArray[np.float64], camera: CameraFrame) -> NDArray[np.float64]:
    """Pixel coordinates (N, 2) of points (N, 3) in front of the camera, lens distortion included (OpenCV's models)."""
    calibration = camera.calibration
    zero = np.zeros(3)
    match calibration.distortion_model:
        case "kannala_brandt":
            pixels, _ = cv2.fisheye.projectPoints(
                points_in_camera[:, None], zero, zero, calibration.intrinsics, calibration.distortion
            )
        case "brown_conrady" | "none":
            pixels, _ = cv2.projectPoints(points_in_camera, zero, zero, calibration.intrinsics, calibration.distortion)
    return np.asarray(pixels, np.float64).reshape(-1, 2).clip(-1e6, 1e6)


def _draw_label(picture: Picture, x: int, y: int, label: str) -> None:
    """A small title on a dark plate that lets the picture shine through."""
    rect = Rect(x, y, drawing.text_width(label, 13, 500) + 20, 24)
    over = rect.of(picture).copy()
    drawing.rounded(over, Rect(0, 0, rect.width, rect.height), 6, drawing.BACKGROUND)
    drawing.blend(rect.of(picture), over, 0.72)
    drawing.text(picture, label, x + 10, y + 17, 13, drawing.BRIGHT, 500)


def _draw_banner(picture: Picture, rect: Rect, events: tuple[tuple[str, str], ...]) -> None:
    y = rect.bottom - 44
    for name, sentence in events:
        color = drawing.GREEN if name == "arrived" else drawing.RED
        label = drawing.shortened(sentence, rect.width - 80, 15, 600)
        plate = Rect(rect.x + 12, y, drawing.text_width(label, 15, 600) + 44, 32)
        drawing.rounded(picture, plate, 8, drawing.BACKGROUND)
        drawing.disc(picture, plate.x + 17, plate.y + 16, 6, color)
        drawing.text(picture, label, plate.x + 32, plate.y + 21, 15, drawing.BRIGHT, 600)
        y -= 40


def _draw_above(picture: Picture, step: Step, context: ViewContext) -> None:
    drawing.rounded(picture, _ABOVE, _RADIUS_PX, drawing.SURFACE)
    view = _ABOVE.of(picture)
    draw_birdseye(view, _CHART, step.frame, step.actors, step.signals, context.driving_map)
    drawing.round_off(picture, _ABOVE, _RADIUS_PX, drawing.BACKGROUND)
    sweeps = [sweep for sweep in step.frame.lidars.values() if sweep is not None]
    count = sum(len(sweep.points) for sweep in sweeps)
    absent = "no LiDAR sweep at this instant" if step.frame.lidars else "no LiDAR" if step.frame.cameras else NO_SENSORS
    label = f"LiDAR  {drawing.number(count)} points" if sweeps else absent
    _draw_label(picture, _ABOVE.x + 10, _ABOVE.y + 10, label)


def _draw_state(picture: Picture, step: Step, context: ViewContext) -> None:
    drawing.rounded(picture, _STATE, _RADIUS_PX, drawing.SURFACE)
    ego = step.frame.ego
    _draw_dial(picture, _STATE.x + 96, _STATE.y + 108, 76, ego)
    _draw_wheel(picture, _STATE.x + 244, _STATE.y + 70, 42, step.action)
    _draw_pedals(picture, Rect(_STATE.x + 192, _STATE.y + 158, 104, 8), step.action)
    ahead: tuple[SignalState, float] | Literal["none", "unknown"] = "unknown"
    pose = None if ego is None else ego.world_from_ego
    route = step.frame.route_in_ego
    if context.driving_map is not None and step.signals is not None and pose is not None and route is not None:
        ahead = signal_ahead(context.driving_map, step.signals, pose, route) or "none"
    _draw_signal(picture, _STATE.x + 342, _STATE.y + 30, ahead)


def _draw_dial(picture: Picture, x: int, y: int, radius_px: int, ego: EgoState | None) -> None:
    start, sweep = 140.0, 260.0
    drawing.arc(picture, x, y, radius_px, start, start + sweep, drawing.TRACK, 9)
    for mark in range(0, int(DIAL_MAX_KMH) + 1, 20):
        angle = np.deg2rad(start + sweep * mark / DIAL_MAX_KMH)
        drawing.text(
            picture, str(mark), x + (radius_px - 17) * np.cos(angle), y + (radius_px - 17) * np.sin(angle) + 4, 10,
            drawing.FAINT, 400, "center",
        )  # fmt: skip
    if ego is None:
        drawing.text(picture, "\N{EN DASH}", x, y + 8, 34, drawing.FAINT, 600, "center")
        return
    speed_kmh = 3.6 * ego.speed_mps
    share = min(abs(speed_kmh) / DIAL_MAX_KMH, 1.0)
    if share > 0.005:
        drawing.arc(picture, x, y, radius_px, start, start + sweep * share, drawing.TEAL, 9)
    drawing.text(picture, drawing.number(speed_kmh), x, y + 10, 40, drawing.BRIGHT, 600, "center")
    drawing.text(picture, "km/h", x, y + 29, 13, drawing.SOFT, 400, "center")
    drawing.text(picture, f"{drawing.number(ego.speed_mps, 1)} m/s", x, y + 62, 13, drawing.FAINT, 400, "center")


def _draw_wheel(picture: Picture, x: int, y: int, radius_px: int, action: Action | None) -> None:
    turn = np.deg2rad(-WHEEL_TURN_DEG * (0.0 if action is None else action.steer))
    color = drawing.TRACK if action is None else drawing.SOFT
    drawing.disc(picture, x, y, radius_px, color, 6)
    for spoke_deg in (0.0, 180.0, 90.0):
        angle = turn + np.deg2rad(spoke_deg)
        end = np.array([x + (radius_px - 3) * np.cos(angle), y + (radius_px - 3) * np.sin(angle)])
        drawing.polyline(picture, np.array([[x, y], end]), color, 6)
    drawing.disc(picture, x, y, 10, color)
    top = turn - np.pi / 2
    drawing.arc(picture, x, y, radius_px, np.rad2deg(top) - 9, np.rad2deg(top) + 9, drawing.TEAL, 6)
    value = "no action" if action is None else f"steer {_signed(action.steer)}"
    drawing.text(picture, value, x, y + 68, 13, drawing.SOFT, 400, "center")


def _draw_pedals(picture: Picture, rect: Rect, action: Action | None) -> None:
    """One bar from its middle: throttle to the right in green, brake to the left in red."""
    drawing.rounded(picture, rect, 4, drawing.TRACK)
    middle = rect.x + rect.width // 2
    if action is None:
        return
    length = round(abs(action.throttle) * rect.width / 2)
    if length > 0:
        start = middle if action.throttle > 0 else middle - length
        color = drawing.GREEN if action.throttle > 0 else drawing.RED
        drawing.rounded(picture, Rect(start, rect.y, max(length, 2), rect.height), 4, color)
    drawing.polyline(picture, np.array([[middle, rect.y - 3], [middle, rect.bottom + 2]], np.float64), drawing.SOFT, 1)
    kind = "brake" if action.throttle < 0 else "throttle"
    drawing.text(
        picture, f"{kind} {abs(action.throttle):.2f}", middle, rect.bottom + 21, 13, drawing.SOFT, 400, "center"
    )


def _draw_signal(
    picture: Picture, x: int, y: int, ahead: tuple[SignalState, float] | Literal["none", "unknown"]
) -> None:
    housing = Rect(x - 19, y - 8, 38, 110)
    drawing.rounded(picture, housing, 10, drawing.BACKGROUND)
    for row, state in enumerate((SignalState.RED, SignalState.YELLOW, SignalState.GREEN)):
        lit = not isinstance(ahead, str) and ahead[0] == state
        drawing.disc(picture, x, y + 13 + 34 * row, 13, SIGNAL_COLOR[state] if lit else drawing.OUTLINE)
    match ahead:
        case "unknown":
            label = "unknown"
        case "none":
            label = "no signal"
        case (_, distance_m):
            ahead_m = distance_m - EGO_FRONT_M
            label = f"in {ahead_m:.0f} m" if ahead_m >= 1.0 else "at the line"
    color = drawing.FAINT if isinstance(ahead, str) else drawing.SOFT
    drawing.text(picture, label, x, y + 126, 13, color, 400, "center")


def _facts(step: Step, context: ViewContext) -> Mapping[str, str]:
    """Caption to value, in the order in which they stand at the bottom; unknown ones are absent."""
    elapsed_s = (step.timestamp_us - context.start_us) / 1e6
    facts = {"time": f"{drawing.number(elapsed_s, 1)} s", "tick": str(step.tick)}
    if context.log_name:
        facts["log"] = context.log_name
    if context.map_name:
        facts["map"] = context.map_name
    if context.policy:
        facts["policy"] = context.policy
    if context.seed is not None:
        facts["seed"] = str(context.seed)
    if context.total_reward is not None:
        facts["reward"] = _signed(step.reward)
        facts["in total"] = _signed(context.total_reward)
    if step.progress_m is not None and step.route_length_m is not None:
        facts["route"] = f"{step.progress_m:.0f} of {step.route_length_m:.0f} m"
    if step.command is not None and step.command_distance_m is not None:
        facts["next"] = _COMMAND_WORDS[step.command] + (
            f" in {step.command_distance_m:.0f} m" if step.command_distance_m >= 1.0 else " now"
        )
    return facts


def _draw_facts(picture: Picture, facts: Mapping[str, str], step: Step) -> None:
    drawing.rounded(picture, _FACTS, _RADIUS_PX, drawing.SURFACE)
    widths = {
        name: max(drawing.text_width(value, 15, 500), drawing.text_width(name, 11)) for name, value in facts.items()
    }
    room = _FACTS.width - 32
    gap = 22
    spare = room - gap * (len(facts) - 1)
    if sum(widths.values()) > spare:
        longest = max(widths, key=lambda name: widths[name])
        widths[longest] = max(60, widths[longest] - (sum(widths.values()) - spare))
    if len(facts) > 1:
        gap = min(48, (room - sum(widths.values())) // (len(facts) - 1))
    x = _FACTS.x + 16
    for name, value in facts.items():
        drawing.text(picture, name, x, _FACTS.y + 20, 11, drawing.FAINT)
        drawing.text(
            picture, drawing.shortened(value, widths[name], 15, 500), x, _FACTS.y + 40, 15, drawing.BRIGHT, 500
        )
        x += widths[name] + gap
    if step.progress_m is not None and step.route_length_m is not None and step.route_length_m > 0:
        share = min(max(step.progress_m / step.route_length_m, 0.0), 1.0)
        bar = Rect(_FACTS.x + 8, _FACTS.bottom - 6, _FACTS.width - 16, 3)
        drawing.rounded(picture, bar, 1, drawing.TRACK)
        drawing.rounded(picture, Rect(bar.x, bar.y, max(3, round(bar.width * share)), bar.height), 1, drawing.TEAL)


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + drawing.number(value, 2)
