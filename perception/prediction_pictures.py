"""Labelled frames and what is predicted for them as one picture. Knows numpy and OpenCV; knows nothing about files."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.detections import decode_centers
from perception.heads import Predictions
from perception.labels import BoxField, LabelledFrames
from perception.points import BevGrid

# Colours of BevClass and of PictureClass, RGB.
BEV_COLORS = np.array(
    [(40, 44, 40), (96, 96, 102), (236, 236, 226), (206, 196, 120), (150, 130, 112), (66, 132, 220), (226, 74, 66)], np.uint8
)  # fmt: skip
PICTURE_COLORS = np.array(
    [
        (140, 180, 220), (110, 140, 90), (90, 90, 96), (236, 236, 226), (206, 196, 120), (150, 130, 112), (130, 104, 96),
        (60, 110, 60), (170, 160, 150), (250, 190, 60), (240, 230, 40), (66, 132, 220), (150, 90, 220), (226, 74, 66),
        (200, 120, 60), (255, 40, 40), (255, 220, 0), (40, 255, 90), (255, 0, 160),
    ],
    np.uint8,
)  # fmt: skip
SHOWN_FRAMES = 3
HEIGHT_PX = 288
LEAST_SCORE = 0.3


def paint_predictions(frames: LabelledFrames, predictions: Predictions, grid: BevGrid) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. A row for each of the first frames: first camera, its true and predicted classes and depth, then the
    true and the predicted bird's-eye map, forward upwards, with boxes (white true, yellow predicted).
    """
    found = decode_centers(predictions.centers.detach(), grid, LEAST_SCORE)
    predicted_bev = predictions.bev.detach().argmax(1).numpy().astype(np.uint8)
    rows = []
    for e in range(min(SHOWN_FRAMES, len(frames))):
        panels = []
        if frames.depth:
            name = next(iter(frames.depth))
            true, depth = frames.semantic[name][e], frames.depth[name][e]
            size = true.shape
            classes = predictions.semantic[name][e].detach().argmax(0).numpy()[: size[0], : size[1]]
            away = predictions.log_depth[name][e].detach().exp().numpy()[: size[0], : size[1]]
            panels.append(_stacked(_fitted(frames.observation[name][e]), _fitted(PICTURE_COLORS[true])))
            panels.append(_stacked(_fitted(_gray(away)), _fitted(PICTURE_COLORS[classes])))
            panels.append(_stacked(_fitted(_gray(np.where(depth > 0, depth, 80.0))), None))
        boxes = frames.boxes[e, : frames.box_count[e]]
        panels.append(_bird_view(frames.bev[e], boxes[boxes[:, BoxField.SEEN] > 0], (255, 255, 255), grid))
        panels.append(_bird_view(predicted_bev[e], found[e][0], (255, 214, 60), grid))
        rows.append(np.concatenate(panels, axis=1))
    return np.concatenate(rows, axis=0)


def _bird_view(
    classes: NDArray[np.uint8], boxes: NDArray[np.float32], color: tuple[int, int, int], grid: BevGrid
) -> NDArray[np.uint8]:
    picture = np.ascontiguousarray(BEV_COLORS[classes][::-1, ::-1])  # forward up, left left
    picture = cv2.resize(picture, (HEIGHT_PX, HEIGHT_PX), interpolation=cv2.INTER_NEAREST)
    scale = HEIGHT_PX / (grid.rows * grid.cell_m)
    f = BoxField
    for box in boxes:
        c, s = np.cos(box[f.YAW]), np.sin(box[f.YAW])
        ends = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * box[f.LENGTH : f.WIDTH + 1] / 2
        corners = ends @ np.array([[c, s], [-s, c]]) + box[f.X : f.Y + 1]
        up = (grid.rows * grid.cell_m + grid.x_min_m - corners[:, 0]) * scale
        right = (grid.columns * grid.cell_m + grid.y_min_m - corners[:, 1]) * scale
        cv2.polylines(picture, [np.rint(np.stack([right, up], 1)).astype(np.int32)], True, color, 1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (HEIGHT_PX, HEIGHT_PX // 2), interpolation=cv2.INTER_NEAREST), np.uint8)


def _stacked(upper: NDArray[np.uint8], lower: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    return np.concatenate([upper, np.zeros_like(upper) if lower is None else lower], axis=0)


def _gray(metres: NDArray[np.floating]) -> NDArray[np.uint8]:
    level = 255 * (1 - np.log(np.clip(metres, 1.0, 80.0)) / np.log(80.0))
    return np.repeat(level.astype(np.uint8)[..., None], 3, axis=-1)
