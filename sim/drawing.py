"""Palette, type and shapes for pictures that people look at.

Pictures are (H, W, 3) uint8 RGB and drawn upon in place. Knows OpenCV; knows nothing about driving.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

BACKGROUND: Color = (13, 16, 21)
SURFACE: Color = (22, 27, 34)
OUTLINE: Color = (44, 51, 61)
TRACK: Color = (52, 60, 71)
FAINT: Color = (116, 126, 140)
SOFT: Color = (168, 177, 189)
BRIGHT: Color = (236, 240, 245)
TEAL: Color = (61, 214, 196)
BLUE: Color = (92, 158, 255)
GREEN: Color = (86, 211, 122)
AMBER: Color = (246, 190, 74)
RED: Color = (250, 92, 92)

_SHIFT = 4
_SUBPIXEL = 1 << _SHIFT


class Rect(NamedTuple):
    """A rectangle in pixels, top left corner first."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    def of(self, picture: Picture) -> Picture:
        """The part of the picture inside the rectangle, as a view."""
        return picture[self.y : self.bottom, self.x : self.right]


@cache
def _typeface() -> cv2.FontFace:
    return cv2.FontFace("sans")


def text_width(string: str, size_px: int, weight: int = 400) -> int:
    """Width in pixels of a line of text."""
    left, _, width, _ = cv2.getTextSize((4096, 4096), string, (0, 0), _typeface(), size_px, weight)
    return int(left + width)


def text(
    picture: Picture,
    string: str,
    x: float,
    baseline_y: float,
    size_px: int,
    color: Color,
    weight: int = 400,
    align: Literal["left", "center", "right"] = "left",
) -> None:
    """Draw one line of text; x is its left end, middle or right end in pixels."""
    if align != "left":
        x -= text_width(string, size_px, weight) / (2 if align == "center" else 1)
    cv2.putText(picture, string, (round(x), round(baseline_y)), color, _typeface(), size_px, weight)


def shortened(string: str, width_px: int, size_px: int, weight: int = 400) -> str:
    """The text, or its end after an ellipsis, so that it is at most `width_px` wide."""
    if text_width(string, size_px, weight) <= width_px:
        return string
    start = 1
    while start < len(string) and text_width("…" + string[start:], size_px, weight) > width_px:
        start += 1
    return "…" + string[start:]


def subpixel(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """Pixel coordinates (..., 2) as the fixed-point numbers that `polyline` and `polygon` draw with.

    Far points are clipped to 30,000 px, where OpenCV's fixed point still holds.
    """
    return np.asarray(np.rint(np.clip(points, -3e4, 3e4) * _SUBPIXEL), np.int32)


def polyline(picture: Picture, points: NDArray[np.floating], color: Color, width_px: int, closed: bool = False) -> None:
    """Antialiased line through pixel coordinates (N, 2)."""
    cv2.polylines(picture, [subpixel(points)], closed, color, width_px, cv2.LINE_AA, _SHIFT)


def polygon(picture: Picture, points: NDArray[np.floating], color: Color) -> None:
    """Antialiased filled polygon with pixel corners (N, 2)."""
    cv2.fillPoly(picture, [subpixel(points)], color, cv2.LINE_AA, _SHIFT)


def disc(picture: Picture, x: float, y: float, radius_px: float, color: Color, line_px: int = -1) -> None:
    """Antialiased disc, or a circle of the given line width."""
    center = round(x * _SUBPIXEL), round(y * _SUBPIXEL)
    cv2.circle(picture, center, round(radius_px * _SUBPIXEL), color, line_px, cv2.LINE_AA, _SHIFT)


def arc(
    picture: Picture, x: float, y: float, radius_px: float, from_deg: float, to_deg: float, color: Color, width_px: int
) -> None:
    """Antialiased arc with round ends; angles are clockwise from the right, as on a dial."""
    angle = np.deg2rad(np.linspace(from_deg, to_deg, max(2, int(abs(to_deg - from_deg) / 2) + 1)))
    points = np.stack([x + radius_px * np.cos(angle), y + radius_px * np.sin(angle)], axis=-1)
    polyline(picture, points, color, width_px)


def rounded(picture: Picture, rect: Rect, radius_px: int, color: Color) -> None:
    """Filled rectangle with round corners."""
    radius_px = min(radius_px, rect.width // 2, rect.height // 2)
    angle = np.deg2rad(np.arange(0, 91, 6))
    corner = radius_px * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    inner = np.array(
        [
            [rect.right - 1 - radius_px, rect.bottom - 1 - radius_px],
            [rect.x + radius_px, rect.bottom - 1 - radius_px],
            [rect.x + radius_px, rect.y + radius_px],
            [rect.right - 1 - radius_px, rect.y + radius_px],
        ],
        np.float64,
    )
    turns = [corner, corner[:, ::-1] * [-1, 1], -corner, corner[:, ::-1] * [1, -1]]
    outline = np.concatenate([center + turn for center, turn in zip(inner, turns, strict=True)])
    polygon(picture, outline, color)


def round_off(picture: Picture, rect: Rect, radius_px: int, color: Color) -> None:
    """Paint what lies inside the rectangle but outside its round corners."""
    mask = np.zeros((rect.height, rect.width, 3), np.uint8)
    rounded(mask, Rect(0, 0, rect.width, rect.height), radius_px, (255, 255, 255))
    view = rect.of(picture)
    for rows in (slice(0, radius_px + 1), slice(rect.height - radius_px - 1, rect.height)):
        share = mask[rows] / 255.0
        view[rows] = np.rint(view[rows] * share + np.array(color) * (1.0 - share)).astype(np.uint8)


def fitted(image: Picture, width_px: int, height_px: int) -> tuple[Picture, Rect]:
    """The image scaled to fit, its shape kept, and where it then lies inside (width_px, height_px), centred.

    Small images are enlarged with Lanczos' filter, large ones averaged down by area.
    """
    rows, columns = image.shape[:2]
    scale = min(width_px / columns, height_px / rows)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA)
    place = Rect((width_px - size[0]) // 2, (height_px - size[1]) // 2, *size)
    return np.asarray(scaled, np.uint8), place


def blend(under: Picture, over: Picture, opacity: float) -> None:
    """Lay `over` on `under` in place, both of one shape."""
    under[:] = cv2.addWeighted(over, opacity, under, 1.0 - opacity, 0.0)


def number(value: float, digits: int = 0) -> str:
    """A number for people: commas between thousands and a true minus."""
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")
