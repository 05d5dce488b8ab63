"""Packed point clouds with named fields (ROS PointCloud2, foxglove.PointCloud) as arrays.

Knows layouts of fields; knows nothing about containers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim.logs.recorded import MessageError, RecordedCloud

INTENSITY_NAMES = ("intensity", "reflectivity", "i", "intensities")
TIME_NAMES = ("t", "time", "time_offset_us", "offset_time", "timestamp", "time_stamp", "time_offset")
MAX_SWEEP_US = 2_000_000


def cloud_of_fields(
    frame_id: str,
    stamp_us: int,
    data: NDArray[np.uint8],
    fields: Mapping[str, tuple[int, str]],
    point_step: int,
    width: int,
    height: int = 1,
    row_step: int | None = None,
) -> RecordedCloud:
    """A cloud from packed bytes.

    Args:
        fields: name to byte offset and numpy format.
        point_step, row_step: bytes from one point and one row to the next.
        stamp_us: of the message; the sweep ends there, or at its last point's time where points have times.

    Raises:
        MessageError: a coordinate is missing, or sizes do not fit the data.
    """
    row_step = point_step * width if row_step is None else row_step
    missing = [name for name in "xyz" if name not in fields]
    if missing:
        raise MessageError(f"cloud has no field {missing[0]!r}, only {', '.join(fields) or 'none'}")
    if point_step < 1 or row_step < width * point_step or row_step * height > len(data):
        raise MessageError(f"cloud of {width}x{height} points of {point_step} bytes does not fit its {len(data)} bytes")
    try:
        dtype = np.dtype(
            {
                "names": list(fields),
                "formats": [layout for _, layout in fields.values()],
                "offsets": [offset for offset, _ in fields.values()],
                "itemsize": point_step,
            }
        )
    except (ValueError, TypeError) as error:
        raise MessageError(f"cloud's fields do not fit points of {point_step} bytes ({error})") from None
    rows = data[: row_step * height].reshape(height, row_step)[:, : width * point_step]
    packed = np.ascontiguousarray(rows).reshape(-1).view(dtype)
    points = np.zeros((len(packed), 4), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for column, name in enumerate("xyz"):
            points[:, column] = packed[name]
        for name in INTENSITY_NAMES:
            if name in fields:
                points[:, 3] = np.nan_to_num(packed[name], nan=0.0, posinf=0.0, neginf=0.0)
                break
    finite = np.asarray(np.isfinite(points).all(axis=1))
    time_name = next((name for name in TIME_NAMES if name in fields), None)
    offset_us = None if time_name is None else _offset_us(packed[time_name], stamp_us, time_name)
    if offset_us is not None:
        timed = finite & (np.abs(offset_us) < MAX_SWEEP_US)
        if 2 * np.count_nonzero(timed) < np.count_nonzero(finite):  # times of another unit, not of other sweeps
            offset_us = None
    if offset_us is not None:
        finite = timed
        offset_us = offset_us[finite]
        stamp_us += int(offset_us.max(initial=0))
        offset_us = (offset_us - offset_us.max(initial=0)).astype(np.int32)
    return RecordedCloud(frame_id, stamp_us, points[finite], offset_us, int(len(finite) - finite.sum()))


def _offset_us(times: NDArray[np.generic], stamp_us: int, name: str) -> NDArray[np.int64] | None:
    """Times of points relative to the message's stamp in microseconds, within 2 * MAX_SWEEP_US; None where they are no numbers.

    Drivers differ: floats are seconds, or since the epoch in seconds or nanoseconds; integers are nanoseconds, relative
    (Ouster, Livox) or since the epoch (Hesai). Which, the size tells.
    """
    if name == "time_offset_us":
        return times.astype(np.int64)
    if times.dtype.kind not in "fiu":
        return None
    values = np.nan_to_num(times.astype(np.float64), nan=np.inf, posinf=np.inf, neginf=np.inf)
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0))
    if largest > 1e17:  # nanoseconds since the epoch
        scale_us, origin_us = 1e-3, float(stamp_us)
    elif times.dtype.kind == "f" and largest > 1e8:  # seconds since the epoch
        scale_us, origin_us = 1e6, float(stamp_us)
    else:
        scale_us, origin_us = (1e6, 0.0) if times.dtype.kind == "f" else (1e-3, 0.0)
    offset = values * scale_us - origin_us
    offset[~np.isfinite(offset)] = 2 * MAX_SWEEP_US
    return np.clip(np.rint(offset), -2 * MAX_SWEEP_US, 2 * MAX_SWEEP_US).astype(np.int64)
