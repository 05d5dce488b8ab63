"""Lenses: the ray of every pixel, and which pixels can see a box, whatever the lens does to straight lines.

Knows calibrations, rays and boxes; knows nothing about pictures, traffic or environments. Everything about a lens is worked
out once: kernels only search tables of its rays, so they know no lens model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.sensors import CameraCalibration
from sim.sensors.cast import COS, CX, CY, CZ, FAST, HX, HY, HZ, SIN
from sim.sensors.pinhole import pinhole_directions
from sim.simd import WIDTH

Float = NDArray[np.float64]

STEEPEST_RAD = math.radians(85.0)  # rays further from the axis have no useful component along it
_WIDEST_RAD = math.radians(175.0)
_COEFFICIENTS = {"none": (0,), "brown_conrady": (4, 5, 8), "kannala_brandt": (4,)}
_BANDS = 16
_MARGIN = np.float32(2e-5)  # far above what float32 does to a ray
# An arc of a circle with a radius of 1 or more lies within this times its squared chord of that chord, for chords up to 1.
_SAGITTA = np.float32(0.135)


class LensError(ValueError):
    """A calibration that no lens can have, or that cannot be inverted over the whole picture."""


def check_lens(calibration: CameraCalibration) -> None:
    """Raise LensError unless the intrinsics are those of a camera and the number of coefficients fits the model."""
    k = calibration.intrinsics
    if k[0, 1] != 0 or k[1, 0] != 0 or not np.array_equal(k[2], [0.0, 0.0, 1.0]):
        raise LensError(f"intrinsics must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], got {k.tolist()}")
    allowed = _COEFFICIENTS[calibration.distortion_model]
    if len(calibration.distortion) not in allowed:
        numbers = " or ".join(map(str, allowed))
        raise LensError(
            f"{calibration.distortion_model} takes {numbers} coefficients (OpenCV's order), got {len(calibration.distortion)}"
        )


def _brown_conrady(coefficients: Float) -> tuple[Float, float, float, Float]:
    """Numerator (3,), p1, p2 and denominator (3,) in powers of the squared radius, of 4, 5 or 8 coefficients."""
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(coefficients, (0, 8 - len(coefficients)))
    return np.array([k1, k2, k3]), float(p1), float(p2), np.array([k4, k5, k6])


def _radial(squared: Float, numerator: Float, denominator: Float) -> tuple[Float, Float]:
    """Factor by which a radius grows, and its derivative by the squared radius."""
    powers = np.stack([squared, squared**2, squared**3])
    slopes = np.stack([np.ones_like(squared), 2 * squared, 3 * squared**2])
    over, under = 1 + np.tensordot(numerator, powers, 1), 1 + np.tensordot(denominator, powers, 1)
    d_over, d_under = np.tensordot(numerator, slopes, 1), np.tensordot(denominator, slopes, 1)
    return over / under, (d_over * under - over * d_under) / under**2


def _fisheye_radius(theta: Float, coefficients: Float) -> tuple[Float, Float]:
    """Radius on the sensor, in focal lengths, of rays at the angle theta from the axis, and its derivative."""
    k1, k2, k3, k4 = coefficients
    s = theta**2
    radius = theta * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4))))
    return radius, 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))


def _rising(radius: Float) -> int:
    """Length of the leading part of a sampled curve that rises strictly."""
    falls = np.flatnonzero(~(np.diff(radius) > 0))
    return len(radius) if falls.size == 0 else int(falls[0]) + 1


def project(calibration: CameraCalibration, points_in_camera: Float) -> Float:
    """Pixels (N, 2) float64 of points (N, 3) in the camera's frame.

    Formulas of OpenCV's projectPoints (Brown, 1966; Heikkila and Silven, 1997) and fisheye.projectPoints (Kannala and
    Brandt, 2006). NaN where a point is not in front of a lens that sees forward only.

    Raises:
        LensError: as `check_lens`.
    """
    check_lens(calibration)
    k, distortion = calibration.intrinsics, calibration.distortion
    px, py, pz = np.asarray(points_in_camera, np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        if calibration.distortion_model == "kannala_brandt":
            aside = np.hypot(px, py)
            radius, _ = _fisheye_radius(np.arctan2(aside, pz), distortion)
            per = np.where(aside > 0, radius / np.where(aside > 0, aside, 1.0), 0.0)
            x, y = px * per, py * per
        else:
            x, y = np.where(pz > 0, px / pz, np.nan), np.where(pz > 0, py / pz, np.nan)
            if calibration.distortion_model == "brown_conrady":
                numerator, p1, p2, denominator = _brown_conrady(distortion)
                squared = x * x + y * y
                factor, _ = _radial(squared, numerator, denominator)
                x, y = (
                    x * factor + 2 * p1 * x * y + p2 * (squared + 2 * x * x),
                    y * factor + p1 * (squared + 2 * y * y) + 2 * p2 * x * y,
                )
    return np.stack([k[0, 0] * x + k[0, 2], k[1, 1] * y + k[1, 2]], axis=1)


def unproject(calibration: CameraCalibration, pixels: Float) -> Float:
    """Unit directions (N, 3) float64 in the camera's frame of pixels (N, 2): the inverse of `project`.

    Newton's method from a table of the radial part, so that it finds the branch that starts at the axis.

    Raises:
        LensError: as `check_lens`, or a pixel that no ray reaches, because the lens model folds back or ends before it.
    """
    check_lens(calibration)
    k, distortion = calibration.intrinsics, calibration.distortion
    u, v = np.asarray(pixels, np.float64).T
    x, y = (u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1]
    radius = np.hypot(x, y)
    if calibration.distortion_model == "kannala_brandt":
        angles = np.linspace(0.0, _WIDEST_RAD, 8192)
        reached, _ = _fisheye_radius(angles, distortion)
        rising = _rising(reached)
        _require_reached(calibration, pixels, radius, reached[rising - 1])
        theta = np.interp(radius, reached[:rising], angles[:rising])
        for _ in range(8):
            value, slope = _fisheye_radius(theta, distortion)
            theta = np.clip(theta - (value - radius) / np.maximum(slope, 1e-6), 0.0, angles[rising - 1])
        per = np.where(radius > 0, np.sin(theta) / np.where(radius > 0, radius, 1.0), 1.0)
        return np.stack([x * per, y * per, np.cos(theta)], axis=1)
    if calibration.distortion_model == "brown_conrady":
        x, y = _undistort(calibration, pixels, x, y)
    directions = np.stack([x, y, np.ones_like(x)], axis=1)
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))


def _undistort(calibration: CameraCalibration, pixels: Float, x_seen: Float, y_seen: Float) -> tuple[Float, Float]:
    """Where rays would meet the plane at distance 1 without Brown-Conrady distortion."""
    numerator, p1, p2, denominator = _brown_conrady(calibration.distortion)
    radii = np.tan(np.linspace(0.0, STEEPEST_RAD, 8192))
    with np.errstate(divide="ignore", invalid="ignore"):
        reached = radii * _radial(radii**2, numerator, denominator)[0]
    rising = _rising(reached)
    seen = np.hypot(x_seen, y_seen)
    _require_reached(calibration, pixels, seen, 1.05 * reached[rising - 1])  # the tangential part moves points a little
    per = np.interp(seen, reached[:rising], radii[:rising]) / np.maximum(seen, 1e-12)
    x, y = x_seen * per, y_seen * per
    for _ in range(12):
        squared = x * x + y * y
        factor, slope = _radial(squared, numerator, denominator)
        off_x = x * factor + 2 * p1 * x * y + p2 * (squared + 2 * x * x) - x_seen
        off_y = y * factor + p1 * (squared + 2 * y * y) + 2 * p2 * x * y - y_seen
        xx = factor + 2 * slope * x * x + 2 * p1 * y + 6 * p2 * x
        yy = factor + 2 * slope * y * y + 6 * p1 * y + 2 * p2 * x
        xy = 2 * slope * x * y + 2 * p1 * x + 2 * p2 * y
        determinant = xx * yy - xy * xy
        safe = np.where(np.abs(determinant) > 1e-9, determinant, 1e-9)
        x, y = x - (yy * off_x - xy * off_y) / safe, y - (xx * off_y - xy * off_x) / safe
    lost = ~((np.hypot(off_x, off_y) < 1e-9) & (determinant > 0) & (np.hypot(x, y) <= radii[rising - 1]))
    if lost.any():
        _refuse(calibration, pixels[int(np.argmax(lost))])
    return x, y


def _require_reached(calibration: CameraCalibration, pixels: Float, radius: Float, most: float) -> None:
    beyond = radius > most
    if beyond.any():
        _refuse(calibration, pixels[int(np.argmax(beyond))])


def _refuse(calibration: CameraCalibration, pixel: Float) -> None:
    raise LensError(
        f"no ray reaches pixel ({pixel[0]:g}, {pixel[1]:g}): with the coefficients {calibration.distortion.tolist()} the "
        f"{calibration.distortion_model} lens folds back or ends before it; check their order and sign, or crop the picture"
    )


def _all_pixels(calibration: CameraCalibration) -> Float:
    u, v = np.meshgrid(np.arange(calibration.width_px), np.arange(calibration.height_px))
    return np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64)


def measures_range(calibration: CameraCalibration) -> bool:
    """Whether the camera sees further than 85 degrees from its axis, so that its depth is range: along the ray, not the axis."""
    if calibration.distortion_model != "kannala_brandt":
        return False
    return bool(unproject(calibration, _border(calibration))[:, 2].min() < math.cos(STEEPEST_RAD))


def _border(calibration: CameraCalibration) -> Float:
    pixels = _all_pixels(calibration).reshape(calibration.height_px, calibration.width_px, 2)
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def ray_directions(calibration: CameraCalibration) -> NDArray[np.float32]:
    """Ray directions (3, H, W) float32 in ego, one a pixel.

    Their component along the optical axis is 1, so that a hit's depth is along the axis; where the lens sees further than 85
    degrees from it (`measures_range`) they are unit vectors, and depth is range.

    Raises:
        LensError: as `unproject`.
    """
    check_lens(calibration)
    pose, shape = calibration.ego_from_camera, (calibration.height_px, calibration.width_px)
    if calibration.distortion_model == "none":
        return pinhole_directions(calibration.intrinsics, pose, calibration.width_px, calibration.height_px)
    rays = unproject(calibration, _all_pixels(calibration))
    if not measures_range(calibration):
        rays = rays / rays[:, 2:]
    directions = (pose[:3, :3] @ rays.T).reshape(3, *shape)
    return np.ascontiguousarray(directions, np.float32)


class LensTables(NamedTuple):
    """Where a lens looks, sorted for `distorted_bounds`; float32, all empty for a pinhole camera, which needs none.

    Directions are told by their stereographic place: (X, Y) / (length + Z) in the camera's frame, which is tan(angle / 2) from
    the axis and takes all of space but straight back. `highest` of columns holds, from the left on, the largest place along x
    that has come so far, `lowest`, from the right on, the smallest; so both rise, and a binary search finds the first and the
    last column in which some pixel sees beyond a value. In bands these are taken over the rows of one band only.

    columns: (2, W) highest and lowest over all rows. row_bands: (B, 2, W) over the rows of each band. column_bands: (C, 2, H),
    the same of y along the rows. cone: (3,) cosine and sine of the widest angle, 1 if depth is range else 0.
    """

    columns: NDArray[np.float32]
    row_bands: NDArray[np.float32]
    column_bands: NDArray[np.float32]
    cone: NDArray[np.float32]


def lens_tables(calibration: CameraCalibration) -> LensTables:
    """The tables of a camera's lens.

    Raises:
        LensError: as `unproject`.
    """
    if calibration.distortion_model == "none":
        nothing = np.zeros((0, 2, 0), np.float32)
        return LensTables(np.zeros((2, 0), np.float32), nothing, nothing.copy(), np.zeros(3, np.float32))
    height, width = calibration.height_px, calibration.width_px
    rays = unproject(calibration, _all_pixels(calibration))
    x, y = (rays[:, i].reshape(height, width) / (1 + rays[:, 2].reshape(height, width)) for i in (0, 1))
    rows, columns = -(-height // _BANDS), -(-width // _BANDS)
    row_bands = [_extremes(x[v : v + rows]) for v in range(0, height, rows)]
    column_bands = [_extremes(y[:, u : u + columns].T) for u in range(0, width, columns)]
    cosine = float(rays[:, 2].min())
    cone = [cosine, math.sqrt(max(0.0, 1 - cosine * cosine)), float(measures_range(calibration))]
    return LensTables(
        _extremes(x), np.stack(row_bands), np.stack(column_bands), np.array(cone, np.float32)
    )  # fmt: skip


def _extremes(places: Float) -> NDArray[np.float32]:
    """(2, N) float32 of places (M, N): running maximum from the left, running minimum from the right."""
    highest = np.maximum.accumulate(places.max(axis=0))
    lowest = np.minimum.accumulate(places.min(axis=0)[::-1])[::-1]
    return np.ascontiguousarray(np.stack([highest, lowest]), np.float32)


@njit(**FAST)
def _first_not_below(rising, value):
    """Index of the first element that is value or more; the length if there is none."""
    low, high = 0, rising.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if rising[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(**FAST)
def _first_above(rising, value):
    """Index of the first element that is more than value; the length if there is none."""
    low, high = 0, rising.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if rising[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(**FAST)
def _banded_range(bands, first, last, length, low, high):
    """First and end index between which bands[first:last] have places from low to high."""
    begin, end = length, 0
    for b in range(first, last):
        begin = min(begin, _first_not_below(bands[b, 0], low))
        end = max(end, _first_above(bands[b, 1], high))
    return begin, end


@njit(**FAST)
def _out_of_cone(x, y, z, forward, radius, cone):
    """Whether a sphere around (x, y, z), forward along the axis, lies outside a cone (its cosine and sine) around the axis."""
    distance = math.sqrt(x * x + y * y + z * z)
    if distance <= radius:
        return False
    sine = radius / distance
    cosine = math.sqrt(np.float32(1.0) - sine * sine)
    # Sum of two angles; only where it is below half a turn does a larger one have a smaller cosine.
    return (cosine > -cone[0]) & (forward < distance * (cone[0] * cosine - cone[1] * sine - np.float32(1e-5)))


@njit(**FAST)
def _stereographic_bounds(box, origin, rotation, corners):
    """Rectangle (low x, high x, low y, high y) of stereographic places that surely holds the box; all of them if unsure.

    Straight edges become arcs of circles whose radius is at least 1, because each great circle passes two opposite places of
    the unit circle. So a piece of an edge lies close to its chord, which is widened by the largest sagitta. Two samples that
    are less than 1 apart are joined by the shorter arc: the other one would hold opposite directions, which are 2 apart or more.
    corners: (3, WIDTH) float32, filled with the corners in the camera's frame.
    """
    (m00, m01, m02, m10, m11, m12, m20, m21, m22) = rotation
    zero, one, huge = np.float32(0.0), np.float32(1.0), np.float32(1e9)
    x, y, z = box[CX] - origin[0], box[CY] - origin[1], box[CZ] - origin[2]
    hx, hy, hz = box[HX], box[HY], box[HZ]
    for k in range(8):
        sx = hx if k & 1 else -hx
        sy = hy if k & 2 else -hy
        px, py = x + box[COS] * sx - box[SIN] * sy, y + box[SIN] * sx + box[COS] * sy
        pz = z + hz if k & 4 else z - hz
        corners[0, k] = m00 * px + m01 * py + m02 * pz
        corners[1, k] = m10 * px + m11 * py + m12 * pz
        corners[2, k] = m20 * px + m21 * py + m22 * pz
    # The ray straight back, which has no place, in the box's frame; around it the box would be everything outside its edges.
    ox, oy = -box[COS] * x - box[SIN] * y, box[SIN] * x - box[COS] * y
    bx, by = -(box[COS] * m20 + box[SIN] * m21), box[SIN] * m20 - box[COS] * m21
    x0, x1 = (-hx - ox) / bx, (hx - ox) / bx
    y0, y1 = (-hy - oy) / by, (hy - oy) / by
    z0, z1 = (z - hz) / -m22, (z + hz) / -m22
    enters = max(min(x0, x1), min(y0, y1), min(z0, z1))
    leaves = min(max(x0, x1), max(y0, y1), max(z0, z1))
    if (enters <= leaves) & (leaves >= zero):
        return -huge, huge, -huge, huge
    size = math.sqrt((hx * hx + hy * hy + hz * hz) / (x * x + y * y + z * z))
    pieces = 1 if size < np.float32(0.03) else (2 if size < np.float32(0.12) else (4 if size < np.float32(0.5) else 12))
    share = one / np.float32(pieces)
    low_x, high_x, low_y, high_y = huge, -huge, huge, -huge
    for k in range(8):
        for bit in (1, 2, 4):
            if k & bit:
                continue
            other = k | bit
            ax, ay, az = corners[0, k], corners[1, k], corners[2, k]
            ex, ey, ez = corners[0, other] - ax, corners[1, other] - ay, corners[2, other] - az
            last_x, last_y = zero, zero
            for j in range(pieces + 1):
                t = np.float32(j) * share
                px, py, pz = ax + t * ex, ay + t * ey, az + t * ez
                length = math.sqrt(px * px + py * py + pz * pz)
                below = length + pz
                if below <= np.float32(1e-4) * length:
                    return -huge, huge, -huge, huge
                place_x, place_y = px / below, py / below
                sagitta = zero
                if j > 0:
                    gap_x, gap_y = place_x - last_x, place_y - last_y
                    chord = gap_x * gap_x + gap_y * gap_y
                    if chord > one:
                        return -huge, huge, -huge, huge
                    sagitta = _SAGITTA * chord
                    low_x, high_x = min(low_x, last_x - sagitta), max(high_x, last_x + sagitta)
                    low_y, high_y = min(low_y, last_y - sagitta), max(high_y, last_y + sagitta)
                low_x, high_x = min(low_x, place_x - sagitta), max(high_x, place_x + sagitta)
                low_y, high_y = min(low_y, place_y - sagitta), max(high_y, place_y + sagitta)
                last_x, last_y = place_x, place_y
    return low_x - _MARGIN, high_x + _MARGIN, low_y - _MARGIN, high_y + _MARGIN


@njit(**FAST)
def distorted_bounds(box, origin, rotation, lens, corners, out):
    """Rectangle of pixels (column, end column, row, end row) that surely holds the box, under any lens.

    rotation: camera_from_ego, row after row, as nine float32. lens: `LensTables`. corners: (3, WIDTH) float32 scratch; afterwards
    the smallest number in its last row is the smallest depth that the box can have, in the camera's sense of depth.
    Returns False if the box is out of the picture. Cost: up to 156 samples of edges for a box nearby, 24 for a small one, and 66
    binary searches at most.
    """
    columns, row_bands, column_bands, cone = lens
    width, height = row_bands.shape[2], column_bands.shape[2]
    x, y, z = box[CX] - origin[0], box[CY] - origin[1], box[CZ] - origin[2]
    hx, hy, hz = box[HX], box[HY], box[HZ]
    forward = rotation[6] * x + rotation[7] * y + rotation[8] * z
    radius = math.sqrt(hx * hx + hy * hy + hz * hz)
    if _out_of_cone(x, y, z, forward, radius, cone):
        return False
    low_x, high_x, low_y, high_y = _stereographic_bounds(box, origin, rotation, corners)
    u0, u1 = _first_not_below(columns[0], low_x), _first_above(columns[1], high_x)
    if u0 >= u1:
        return False
    per_band = (width + np.int64(_BANDS) - 1) // np.int64(_BANDS)
    v0, v1 = _banded_range(column_bands, u0 // per_band, (u1 - 1) // per_band + 1, height, low_y, high_y)
    if v0 >= v1:
        return False
    per_band = (height + np.int64(_BANDS) - 1) // np.int64(_BANDS)
    u2, u3 = _banded_range(row_bands, v0 // per_band, (v1 - 1) // per_band + 1, width, low_x, high_x)
    out[0], out[1], out[2], out[3] = max(u0, u2), min(u1, u3), v0, v1
    if cone[2] > np.float32(0.0):
        # Range to the nearest point of the box.
        gap_x = max(abs(box[COS] * x + box[SIN] * y) - hx, np.float32(0.0))
        gap_y = max(abs(box[COS] * y - box[SIN] * x) - hy, np.float32(0.0))
        gap_z = max(abs(z) - hz, np.float32(0.0))
        corners[2, 0] = math.sqrt(gap_x * gap_x + gap_y * gap_y + gap_z * gap_z) * np.float32(0.9999)
        for k in range(1, WIDTH):
            corners[2, k] = corners[2, 0]
    return out[1] > out[0]
