"""Which sensors a network can be made to drive without. Needs nothing, so that the command line can name them at once."""

from __future__ import annotations

from enum import StrEnum


class Sense(StrEnum):
    """Sensors that fail together."""

    CAMERAS = "cameras"
    LIDAR = "lidar"
