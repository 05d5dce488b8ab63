"""Draws a picture of a map for people. Knows maps; knows nothing about sensors or traffic."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.roads.driving_map import DrivingMap
from sim.roads.ground import GroundClass

MAX_SIDE_PX = 2400
# RGB of each ground class, in the order of GroundClass.
GROUND_COLORS = np.array(
    [
        [151, 176, 126], [88, 91, 96], [240, 240, 236], [236, 193, 66], [250, 250, 250], [238, 238, 238],
        [188, 186, 180], [150, 149, 145],
    ],
    np.uint8,
)  # fmt: skip
SIGNAL_COLOR = (220, 50, 47)


def draw_map(driving_map: DrivingMap, path_png: str | Path) -> None:
    """Writes a PNG of the map from above: ground, solids with shadows, signal heads; north up, 2400 pixels at most."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(map_picture(driving_map), cv2.COLOR_RGB2BGR))
    assert encoded, "PNG takes any uint8 picture"
    Path(path_png).write_bytes(data.tobytes())


def map_picture(driving_map: DrivingMap, max_side_px: int = MAX_SIDE_PX) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, north up."""
    ground = driving_map.ground
    assert len(GROUND_COLORS) == len(GroundClass)
    picture = np.ascontiguousarray(GROUND_COLORS[ground.classes])
    scale = min(1.0, max_side_px / max(ground.classes.shape))
    if scale < 1.0:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pixels_per_metre = scale / ground.cell_m

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(np.rint(((points - ground.origin) * pixels_per_metre - 0.5) * 16), np.int32)

    boxes = driving_map.scenery
    order = np.argsort(boxes.center[:, 2] + boxes.half_size[:, 2], kind="stable")
    shade = picture.copy()
    for k in order:
        top = boxes.center[k, 2] + boxes.half_size[k, 2]
        reach = min(0.35 * top, 9.0)
        corners = _footprint(boxes.center[k, :2], boxes.half_size[k, :2], boxes.yaw_rad[k])
        both = np.concatenate([corners, corners + reach * np.array([0.8, -0.6])])
        cv2.fillConvexPoly(shade, cv2.convexHull(to_pixels(both)), (40, 44, 52), cv2.LINE_AA, 4)
    picture = cv2.addWeighted(picture, 0.62, shade, 0.38, 0.0)
    for k in order:
        outline = to_pixels(_footprint(boxes.center[k, :2], boxes.half_size[k, :2], boxes.yaw_rad[k]))
        cv2.fillConvexPoly(picture, outline, boxes.color[k].tolist(), cv2.LINE_AA, 4)
        if boxes.half_size[k, :2].min() > 0.8:
            cv2.polylines(picture, [outline], True, (boxes.color[k] * 0.7).tolist(), 1, cv2.LINE_AA, 4)
    heads = driving_map.signal_heads
    centers = to_pixels(np.stack([heads.x_m, heads.y_m], axis=1))
    radius = max(16 * 2, round(0.6 * pixels_per_metre * 16))
    for x, y in centers:
        cv2.circle(picture, (int(x), int(y)), radius, SIGNAL_COLOR, -1, cv2.LINE_AA, 4)
    return np.ascontiguousarray(picture[::-1])


def _footprint(center: NDArray[np.float64], half: NDArray[np.float64], yaw_rad: float) -> NDArray[np.float64]:
    ahead = np.array([np.cos(yaw_rad), np.sin(yaw_rad)]) * half[0]
    aside = np.array([-np.sin(yaw_rad), np.cos(yaw_rad)]) * half[1]
    return np.stack([center + ahead + aside, center - ahead + aside, center - ahead - aside, center + ahead - aside])
