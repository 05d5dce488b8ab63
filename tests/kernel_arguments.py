"""What kernels take, made in Python: floats that cross into Python come back as float64, which kernels refuse beside lanes."""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.sensors import CameraCalibration
from sim.sensors.pinhole import pinhole_view


def view_of(calibration: CameraCalibration) -> tuple[Any, ...]:
    """`pinhole_view` of a camera, in float32."""
    k = calibration.intrinsics
    rotation = np.ascontiguousarray(calibration.ego_from_camera[:3, :3].T, np.float32)
    intrinsics = np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], np.float32)
    view = pinhole_view(rotation, intrinsics, calibration.height_px, calibration.width_px)
    return tuple(part if isinstance(part[0], int) else tuple(np.float32(x) for x in part) for part in view)
