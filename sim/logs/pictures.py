"""Compressed pictures, decoded with their size checked first. Knows PNG and JPEG; knows nothing about logs."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 1 << 26
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8"
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 (ITU-T T.81, table B.1)
JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


class PictureError(ValueError):
    """Bytes that are no picture we read, or one of an unexpected size."""


def decode_picture(data: bytes, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """The picture in PNG or JPEG bytes, (height_px, width_px, 3) uint8 RGB.

    Raises:
        PictureError: the bytes are neither, are damaged, or hold a picture of another size.
    """
    size = picture_size(data)
    if size != (width_px, height_px):
        raise PictureError(f"picture is {size[0]}x{size[1]}, but its calibration is for {width_px}x{height_px}")
    if width_px * height_px > MAX_PIXELS:
        raise PictureError(f"picture of {width_px}x{height_px} is larger than the {MAX_PIXELS} pixels allowed")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise PictureError(f"picture does not decode ({error.err})") from None
    if bgr is None or bgr.shape != (height_px, width_px, 3):
        raise PictureError("picture does not decode")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def picture_size(data: bytes) -> tuple[int, int]:
    """Width and height that the head of PNG or JPEG bytes states, in pixels.

    Raises:
        PictureError: the bytes are neither, or end before they say.
    """
    if data.startswith(PNG_MAGIC):
        if len(data) < 24:
            raise PictureError("PNG picture is cut off")
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data.startswith(JPEG_MAGIC):
        return _jpeg_size(data)
    raise PictureError(f"picture starts with {data[:4].hex()}, which is neither PNG nor JPEG")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in JPEG_BARE:
            position += 2
        elif marker in JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        else:
            position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    raise PictureError("JPEG picture is damaged or cut off")
