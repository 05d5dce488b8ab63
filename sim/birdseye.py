"""The scene from above, ego at the bottom centre and looking up: ground, route, actors and LiDAR points.

Knows sensor frames, actors and maps; knows nothing about cameras, panels or video files.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry import inverse, transform, yaw_of
from perception.sensors import SensorFrame
from planning.policy import SignalState
from sim import drawing
from sim.drawing import Color, Picture
from sim.roads.driving_map import DrivingMap, GroundClass, GroundRaster
from sim.roads.network import LaneKind
from sim.step import Actors
from sim.world import ActorKind

RING_SPACING_M = 20.0
GROUND_BAND_M = 0.3
HEIGHT_RANGE_M = 4.0
EGO_FRONT_M, EGO_BACK_M, EGO_HALF_WIDTH_M = 3.6, -1.0, 0.95  # of the symbol, about the rear axle

_GROUND_COLOR: dict[GroundClass, Color] = {
    GroundClass.TERRAIN: drawing.BACKGROUND,
    GroundClass.ROAD: (34, 39, 48),
    GroundClass.LINE_WHITE: (104, 112, 124),
    GroundClass.LINE_YELLOW: (128, 110, 58),
    GroundClass.STOP_LINE: (128, 136, 148),
    GroundClass.CROSSWALK: (84, 92, 104),
    GroundClass.SIDEWALK: (24, 29, 36),
    GroundClass.KERB: (50, 57, 68),
}
_ACTOR_COLOR: dict[ActorKind, Color] = {
    ActorKind.MOTORCYCLE: drawing.AMBER,
    ActorKind.BICYCLE: drawing.AMBER,
    ActorKind.PEDESTRIAN: (255, 128, 171),
    ActorKind.BARRIER: (230, 120, 60),
    ActorKind.CONE: (230, 120, 60),
}
SIGNAL_COLOR: dict[SignalState, Color] = {
    SignalState.NONE: drawing.TRACK,
    SignalState.RED: drawing.RED,
    SignalState.YELLOW: drawing.AMBER,
    SignalState.GREEN: drawing.GREEN,
}


def _height_table() -> NDArray[np.uint8]:
    """(256, 3) colours: blue, teal, yellow, orange."""
    stops = np.array([0.0, 0.3, 0.65, 1.0])
    colors = np.array([(98, 128, 255), (61, 214, 196), (250, 221, 110), (255, 138, 92)])
    at = np.linspace(0.0, 1.0, 256)
    return np.stack([np.interp(at, stops, colors[:, channel]) for channel in range(3)], axis=-1).astype(np.uint8)


_HEIGHT_COLOR = _height_table()


def height_color(level: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours (N, 3) of levels (N,) in [0, 1], low ones blue and high ones orange."""
    return _HEIGHT_COLOR[np.asarray(np.clip(level, 0.0, 1.0) * 255, np.uint8)]


# Four bytes a class, so that one gather of 32-bit words colours a raster.
_CLASS_COLOR = np.array([(*_GROUND_COLOR[ground], 0) for ground in GroundClass], np.uint8).view(np.uint32).ravel()


@dataclass(frozen=True)
class Chart:
    """Scale and origin of a picture from above: the ego's origin lies at pixel (origin_x_px, origin_y_px)."""

    width_px: int
    height_px: int
    scale_px_per_m: float
    origin_x_px: float
    origin_y_px: float

    @property
    def reach_m(self) -> float:
        """No point of the picture is farther from the ego than this."""
        far_x = max(self.origin_x_px, self.width_px - self.origin_x_px)
        far_y = max(self.origin_y_px, self.height_px - self.origin_y_px)
        return float(np.hypot(far_x, far_y)) / self.scale_px_per_m

    def pixels(self, points_in_ego: NDArray[np.floating]) -> NDArray[np.float64]:
        """Pixel coordinates (..., 2) of ego points (..., 2 or more) in metres."""
        x, y = points_in_ego[..., 0], points_in_ego[..., 1]
        return np.stack(
            [self.origin_x_px - y * self.scale_px_per_m, self.origin_y_px - x * self.scale_px_per_m], axis=-1
        ).astype(np.float64)


def draw_birdseye(
    picture: Picture,
    chart: Chart,
    frame: SensorFrame,
    actors: Actors | None = None,
    signals: NDArray[np.int8] | None = None,
    driving_map: DrivingMap | None = None,
) -> None:
    """Draw the scene over all of `picture`, (H, W, 3) uint8 RGB. What is None or needs an unknown pose is left out."""
    ego_from_world = None
    if frame.ego is not None and frame.ego.world_from_ego is not None:
        ego_from_world = inverse(frame.ego.world_from_ego)
    if driving_map is not None and ego_from_world is not None:
        _draw_ground(picture, chart, driving_map.ground, ego_from_world)
        _draw_scenery(picture, chart, driving_map, ego_from_world)
    _draw_rings(picture, chart)
    sweeps = [sweep for sweep in frame.lidars.values() if sweep is not None]
    clouds = [(transform(s.ego_from_lidar, s.points[:, :3]), s.points[:, 3]) for s in sweeps]
    points = np.concatenate([xyz for xyz, _ in clouds]) if clouds else np.zeros((0, 3))
    intensity = np.concatenate([value for _, value in clouds]) if clouds else np.zeros(0, np.float32)
    on_ground = np.abs(points[:, 2]) < GROUND_BAND_M
    grey = 70 + 170 * np.sqrt(np.clip(intensity[on_ground], 0.0, 1.0))
    shade = (grey[:, None] * np.array([0.86, 0.94, 1.0])).astype(np.uint8)
    _draw_points(picture, chart, points[on_ground], shade, dot_px=1)
    if frame.route_in_ego is not None:
        _draw_route(picture, chart, frame.route_in_ego)
    if actors is not None and ego_from_world is not None:
        _draw_actors(picture, chart, actors, ego_from_world)
    standing = points[~on_ground & (points[:, 2] > 0)]
    standing = standing[np.argsort(standing[:, 2], kind="stable")]
    level = (standing[:, 2] - GROUND_BAND_M) / (HEIGHT_RANGE_M - GROUND_BAND_M)
    _draw_points(picture, chart, standing, height_color(level), dot_px=2)
    if driving_map is not None and signals is not None and ego_from_world is not None:
        _draw_signals(picture, chart, driving_map, signals, ego_from_world)
    _draw_ego(picture, chart)
    _label_rings(picture, chart)


def box_corners(
    center_xy: NDArray[np.float64], size_xy: NDArray[np.float64], yaw_rad: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Corners (M, 4, 2), front left first and then clockwise, of M rectangles of length and width `size_xy` (M, 2)."""
    half = 0.5 * size_xy[:, None, :] * np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
    c, s = np.cos(yaw_rad)[:, None], np.sin(yaw_rad)[:, None]
    turned = np.stack([c * half[..., 0] - s * half[..., 1], s * half[..., 0] + c * half[..., 1]], axis=-1)
    return np.asarray(center_xy[:, None, :] + turned)


def _draw_ground(picture: Picture, chart: Chart, ground: GroundRaster, ego_from_world: NDArray[np.float64]) -> None:
    """Warp the coloured raster around the ego into the picture."""
    ego_xy = inverse(ego_from_world)[:2, 3]
    first = np.floor((ego_xy - chart.reach_m - ground.origin) / ground.cell_m).astype(int)
    last = np.ceil((ego_xy + chart.reach_m - ground.origin) / ground.cell_m).astype(int)
    rows, columns = ground.classes.shape
    c0, r0 = np.clip(first, 0, [columns, rows])
    c1, r1 = np.clip(last, 0, [columns, rows])
    if c0 >= c1 or r0 >= r1:
        return
    colored = (
        np.take(_CLASS_COLOR, ground.classes[r0:r1, c0:c1], mode="clip").view(np.uint8).reshape(r1 - r0, c1 - c0, 4)
    )
    corners = (
        ground.origin + np.array([[c0 + 0.5, r0 + 0.5], [c0 + 1.5, r0 + 0.5], [c0 + 0.5, r0 + 1.5]]) * ground.cell_m
    )
    in_ego = transform(ego_from_world, np.column_stack([corners, np.zeros(3)]))
    at = chart.pixels(in_ego)
    matrix = np.column_stack([at[1] - at[0], at[2] - at[0], at[0]])
    size = (chart.width_px, chart.height_px)
    border = (*drawing.BACKGROUND, 0)
    picture[:] = cv2.warpAffine(colored, matrix, size, flags=cv2.INTER_LINEAR, borderValue=border)[..., :3]


def _draw_scenery(picture: Picture, chart: Chart, driving_map: DrivingMap, ego_from_world: NDArray[np.float64]) -> None:
    scenery = driving_map.scenery
    near = np.hypot(*(scenery.center[:, :2] - inverse(ego_from_world)[:2, 3]).T) < chart.reach_m + 30.0
    near &= scenery.center[:, 2] - scenery.half_size[:, 2] < 2.5
    center = transform(ego_from_world, scenery.center[near])
    yaw = scenery.yaw_rad[near] + yaw_of(ego_from_world)
    for corners in chart.pixels(box_corners(center[:, :2], 2 * scenery.half_size[near, :2], yaw)):
        drawing.polygon(picture, corners, (28, 34, 43))
        drawing.polyline(picture, corners, drawing.OUTLINE, 1, closed=True)


def _draw_rings(picture: Picture, chart: Chart) -> None:
    for radius_m in np.arange(RING_SPACING_M, chart.reach_m, RING_SPACING_M):
        radius_px = float(radius_m) * chart.scale_px_per_m
        drawing.disc(picture, chart.origin_x_px, chart.origin_y_px, radius_px, drawing.OUTLINE, 1)


def _label_rings(picture: Picture, chart: Chart) -> None:
    """Distances, written at one o'clock over whatever lies there."""
    for radius_m in np.arange(RING_SPACING_M, chart.reach_m, RING_SPACING_M):
        x, y = chart.pixels(float(radius_m) * np.array([np.cos(0.5), -np.sin(0.5)]))
        if x < chart.width_px - 50 and y > 60:
            plate = drawing.Rect(round(x) - 20, round(y) - 9, 40, 18)
            drawing.rounded(picture, plate, 5, drawing.SURFACE)
            drawing.text(picture, f"{radius_m:.0f} m", x, y + 4, 11, drawing.SOFT, 400, "center")


def _draw_points(
    picture: Picture, chart: Chart, points: NDArray[np.float64], color: NDArray[np.uint8], dot_px: int
) -> None:
    at = np.floor(chart.pixels(points)).astype(np.int64)
    for dy in range(dot_px):
        for dx in range(dot_px):
            x, y = at[:, 0] + dx, at[:, 1] + dy
            inside = (x >= 0) & (x < chart.width_px) & (y >= 0) & (y < chart.height_px)
            picture[y[inside], x[inside]] = color[inside]


def _draw_route(picture: Picture, chart: Chart, route_in_ego: NDArray[np.float32]) -> None:
    over = picture.copy()
    drawing.polyline(over, chart.pixels(route_in_ego), drawing.TEAL, max(3, round(1.1 * chart.scale_px_per_m)))
    drawing.blend(picture, over, 0.45)


def _draw_actors(picture: Picture, chart: Chart, actors: Actors, ego_from_world: NDArray[np.float64]) -> None:
    """Boxes with a bar at the front, and a line to where each is in one second."""
    center = transform(ego_from_world, actors.center)
    yaw = actors.yaw_rad + yaw_of(ego_from_world)
    near = np.hypot(center[:, 0], center[:, 1]) < chart.reach_m + 15.0
    corners = chart.pixels(box_corners(center[:, :2], actors.size[:, :2], yaw))
    heading = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    front = center[:, :2] + 0.5 * actors.size[:, :1] * heading
    ahead = np.stack([chart.pixels(front), chart.pixels(front + actors.speed_mps[:, None] * heading)], axis=1)
    over = picture.copy()
    for m in np.flatnonzero(near):
        drawing.polygon(over, corners[m], _actor_color(actors.kind[m]))
    drawing.blend(picture, over, 0.35)
    for m in np.flatnonzero(near):
        color = _actor_color(actors.kind[m])
        drawing.polyline(picture, corners[m], color, 1, closed=True)
        drawing.polyline(picture, corners[m, :2], color, 2)
        if actors.speed_mps[m] > 0.5:
            drawing.polyline(picture, ahead[m], color, 1)


def _actor_color(kind: int) -> Color:
    return _ACTOR_COLOR.get(ActorKind(kind), drawing.BLUE)


def _draw_signals(
    picture: Picture,
    chart: Chart,
    driving_map: DrivingMap,
    signals: NDArray[np.int8],
    ego_from_world: NDArray[np.float64],
) -> None:
    heads = driving_map.signal_heads
    at = chart.pixels(transform(ego_from_world, np.column_stack([heads.x_m, heads.y_m, heads.z_m])))
    for (x, y), link in zip(at, heads.link, strict=True):
        if -5 < x < chart.width_px + 5 and -5 < y < chart.height_px + 5:
            drawing.disc(picture, x, y, 5, drawing.BACKGROUND)
            drawing.disc(picture, x, y, 3.5, SIGNAL_COLOR[SignalState(signals[link])])


def _draw_ego(picture: Picture, chart: Chart) -> None:
    half, front, back = EGO_HALF_WIDTH_M, EGO_FRONT_M, EGO_BACK_M
    body = np.array([[front, half], [front, -half], [back, -half], [back, half]])
    arrow = np.array([[front - 0.5, 0.0], [back + 1.3, 0.62], [back + 1.9, 0.0], [back + 1.3, -0.62]])
    drawing.polygon(picture, chart.pixels(body), drawing.BRIGHT)
    drawing.polyline(picture, chart.pixels(body), drawing.BACKGROUND, 1, closed=True)
    drawing.polygon(picture, chart.pixels(arrow), drawing.SURFACE)


def signal_ahead(
    driving_map: DrivingMap,
    signals: NDArray[np.int8],
    world_from_ego: NDArray[np.float64],
    route_in_ego: NDArray[np.float32],
) -> tuple[SignalState, float] | None:
    """State of the next signal on the known part of the route, and metres from the ego's origin to its stop line.

    Found by geometry, so that recordings can be shown too: the signal-controlled junction lane whose first 15 m stay
    closest to the route, at most 1.5 m away; of several the nearest. None where there is none.
    """
    network = driving_map.network
    corners = np.vstack([np.zeros((1, 2)), route_in_ego]).astype(np.float64)
    arc_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    if arc_m[-1] < 1.0:
        return None
    along_m = np.arange(0.0, arc_m[-1], 0.5)
    route = np.stack([np.interp(along_m, arc_m, corners[:, axis]) for axis in range(2)], axis=-1)
    lanes = np.flatnonzero((network.lane_signal_link >= 0) & (network.lane_kind == LaneKind.DRIVING))
    first = network.point_start[lanes]
    line_xy = np.stack([network.point_x[first], network.point_y[first]], axis=-1)
    lanes = lanes[np.hypot(*(line_xy - world_from_ego[:2, 3]).T) < arc_m[-1] + 1.0]
    best: tuple[float, float, int] | None = None
    for lane in lanes:
        at = network.point_start[lane] + np.arange(network.point_start[lane + 1] - network.point_start[lane])
        world = np.stack([network.point_x[at], network.point_y[at], np.full(len(at), world_from_ego[2, 3])], axis=-1)
        lane_in_ego = transform(inverse(world_from_ego), world)[:, :2]
        to_line = np.hypot(*(route - lane_in_ego[0]).T)
        nearest = int(np.argmin(to_line))
        known = int(min(15.0, along_m[-1] - along_m[nearest]) / network.lane_step_m[lane])
        if to_line[nearest] > 1.5 or nearest == 0 or known < 2:
            continue
        apart = np.hypot(*(lane_in_ego[:known, None] - route).transpose(2, 0, 1)).min(axis=1)
        if apart.max() < 1.5:
            candidate = (round(float(along_m[nearest])), float(apart.mean()), int(network.lane_signal_link[lane]))
            best = candidate if best is None else min(best, candidate)
    return None if best is None else (SignalState(signals[best[2]]), float(best[0]))
