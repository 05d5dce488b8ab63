"""The ground of a recorded scene: road, painted lines, crosswalks, kerbs, and sidewalks that are assumed beside it.

Knows recorded scenes and the brush that all maps are drawn with; knows nothing about sensors or traffic.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.playback.recorded_scene import FARTHEST_M, LineKind, RecordedScene
from sim.playback.scene_roads import ROUTE_WIDTH_M
from sim.playback.scene_route import SceneRoute
from sim.roads.ground import (
    CELL_SIZES_M,
    KERB_M,
    LINE_WIDTH_M,
    MARGIN_M,
    MAX_BYTES,
    STRIPE_M,
    Brush,
    GroundClass,
    GroundRaster,
    draw_dashes,
)
from sim.roads.polyline import arc_lengths, offset, resampled, ribbon, without_repeats

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

SIDEWALK_M = 2.5
FROM_LANE_M = 12.0  # so far from the middle of a lane its edge may lie
LEAST_LANE_M = 0.5
DOUBLE_APART_M = 0.22
THIN_LINE_M = 0.12
CLOSING_M = 0.5
WHITE, YELLOW = GroundClass.LINE_WHITE, GroundClass.LINE_YELLOW


def scene_ground(scene: RecordedScene, route: SceneRoute) -> GroundRaster:
    """The ground within 150 m of the recorded car. Raises ValueError where that is too large to draw."""
    origin, extent = _window(scene, route)
    fitting = [cell for cell in CELL_SIZES_M if 2 * np.prod(np.ceil(extent / cell)) <= MAX_BYTES]
    if not fitting:
        raise ValueError(f"a recording of {extent[0]:.0f} m x {extent[1]:.0f} m is too large; cut out a part of it")
    columns, rows = np.ceil(extent / fitting[0]).astype(int)
    brush = Brush(np.zeros((rows, columns), np.uint8), origin, fitting[0])
    _draw_road(scene, route, brush)
    road = (brush.classes == GroundClass.ROAD).astype(np.uint8)
    beside = (brush.near(road, SIDEWALK_M) == 1) & (road == 0)
    brush.classes[beside] = GroundClass.SIDEWALK
    brush.classes[(brush.near(road, KERB_M) == 1) & (road == 0)] = GroundClass.KERB
    brush.surface = brush.classes.copy()
    for line in scene.road.lines:
        _draw_line(brush, line.kind, without_repeats(line.points))
    for polygon in scene.road.crosswalks:
        _draw_crosswalk(brush, polygon)
    markings = (brush.classes >= WHITE) & (brush.classes <= GroundClass.CROSSWALK)
    np.copyto(brush.classes, brush.surface, where=markings & (road == 0))
    paint = brush.paint()
    paint[road == 0] = 0
    return GroundRaster(brush.classes, road, origin, fitting[0], paint)


def _window(scene: RecordedScene, route: SceneRoute) -> tuple[F64, F64]:
    """Corner and extent of what is drawn: what the road covers, and no more than is near the recorded car or its route."""
    road = scene.road
    shapes = [lane.points for lane in road.lanes] + [*road.drivable, *road.edges, *road.crosswalks, route.points]
    everything = np.concatenate(shapes)
    low = np.maximum(everything.min(axis=0), route.points.min(axis=0) - FARTHEST_M) - MARGIN_M
    high = np.minimum(everything.max(axis=0), route.points.max(axis=0) + FARTHEST_M) + MARGIN_M
    return low, high - low


def _draw_road(scene: RecordedScene, route: SceneRoute, brush: Brush) -> None:
    road = scene.road
    lanes = [lane for lane in road.lanes if arc_lengths(lane.points)[-1] >= LEAST_LANE_M]
    ribbons = [ribbon(without_repeats(lane.points), lane.width_m) for lane in lanes]
    if road.edges:
        near = np.zeros_like(brush.classes)
        wide = [ribbon(resampled(lane.points, 2.0)[0], 2.0 * FROM_LANE_M) for lane in lanes]
        brush.fill(wide, GroundClass.ROAD, near)
        inside = _left_of_edges(road.edges, near, brush)
        size = 2 * round(CLOSING_M / brush.cell_m) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        inside = np.asarray(cv2.morphologyEx(inside, cv2.MORPH_OPEN, kernel), np.uint8)
        brush.classes[inside == 1] = GroundClass.ROAD
    brush.fill(road.drivable, GroundClass.ROAD)
    if not road.drivable or road.edges:
        brush.fill(ribbons, GroundClass.ROAD)
    ribbons.append(ribbon(route.points, ROUTE_WIDTH_M))
    brush.fill(ribbons[-1:], GroundClass.ROAD)
    paved = (brush.classes == GroundClass.ROAD).astype(np.uint8)
    brush.classes[(paved == 1) & (_joined(paved, ribbons, brush) == 0)] = GroundClass.TERRAIN  # driveways of no road


def _left_of_edges(edges: tuple[F64, ...], near: U8, brush: Brush) -> U8:
    """1 where the nearest edge has the cell on its left, of the cells that are marked in `near`."""
    begin = np.concatenate([edge[:-1] for edge in edges])
    ahead = np.concatenate([np.diff(edge, axis=0) for edge in edges])
    cells = np.rint((np.stack([begin, begin + ahead]) - brush.origin) / brush.cell_m - 0.5).astype(np.int32)
    segment = np.zeros(near.shape, np.int32)
    for k in range(len(begin)):
        a, b = cells[0, k].tolist(), cells[1, k].tolist()
        cv2.line(segment, a, b, k + 1, 1, cv2.LINE_8)
    free = (segment == 0).astype(np.uint8)
    if free.all():
        return near
    _, label = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(int(label.max()) + 1, np.int32)
    on_edge = free == 0
    of_label[label[on_edge]] = segment[on_edge] - 1
    rows, columns = np.nonzero(near)
    nearest = of_label[label[rows, columns]]
    place = brush.origin + (np.stack([columns, rows], axis=1) + 0.5) * brush.cell_m
    dx, dy = (place - begin[nearest]).T
    left = ahead[nearest, 0] * dy - ahead[nearest, 1] * dx > 0.0
    inside = np.zeros_like(near)
    inside[rows[left], columns[left]] = 1
    return inside


def _joined(inside: U8, ribbons: list[F64], brush: Brush) -> U8:
    """What of the cells hangs together with a lane."""
    lanes = np.zeros_like(inside)
    brush.fill(ribbons, GroundClass.ROAD, lanes)
    _, label = cv2.connectedComponents(inside, connectivity=4, ltype=cv2.CV_32S)
    under_lane = np.zeros(int(label.max()) + 1, np.uint8)
    under_lane[label[lanes == 1]] = 1
    return np.asarray(inside & under_lane[label], np.uint8)


def _draw_line(brush: Brush, kind: LineKind, points: F64) -> None:
    length = arc_lengths(points)[-1]
    if length < LEAST_LANE_M:
        return
    color = WHITE if kind <= LineKind.DOUBLE_WHITE else YELLOW
    match kind:
        case LineKind.DASHED_WHITE | LineKind.DASHED_YELLOW:
            line, step = resampled(points, 1.0)
            draw_dashes(brush, line, step, color)
        case LineKind.DOUBLE_WHITE | LineKind.DOUBLE_YELLOW:
            for side in (0.5, -0.5):
                brush.fill([ribbon(offset(points, side * DOUBLE_APART_M), THIN_LINE_M)], color)
        case _:
            brush.fill([ribbon(points, LINE_WIDTH_M)], color)


def _draw_crosswalk(brush: Brush, polygon: F64) -> None:
    """Stripes half a metre wide along the direction of driving, which is across the longer side of the crosswalk."""
    center, size, turned = cv2.minAreaRect(polygon.astype(np.float32))
    yaw = np.deg2rad(turned)
    along, across = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    length, width = size
    if length < width:
        length, width, along, across = width, length, across, along
    for begin in np.arange(-0.5 * length + 0.5 * STRIPE_M, 0.5 * length - STRIPE_M, 2 * STRIPE_M):
        a, b = np.array(center) + begin * along, np.array(center) + (begin + STRIPE_M) * along
        half = 0.5 * width * across
        brush.fill([np.stack([a - half, b - half, b + half, a + half])], GroundClass.CROSSWALK)
