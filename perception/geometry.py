"""Rigid transforms in two and three dimensions, written as algebra.

A transform `a_from_b` is a 4x4 matrix that takes homogeneous points of frame b to frame a, so
`a_from_c = a_from_b @ b_from_c`. Knows numpy and nothing else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def se3(rotation: ArrayLike, translation: ArrayLike) -> Float:
    """Transform with the given rotation matrix (3, 3) and translation (3,) in metres; (4, 4) float64."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    return matrix


def inverse(a_from_b: ArrayLike) -> Float:
    """`b_from_a` of a rigid transform (..., 4, 4), by transposing its rotation."""
    matrix = np.asarray(a_from_b, np.float64)
    result = np.zeros_like(matrix)
    rotation = np.swapaxes(matrix[..., :3, :3], -1, -2)
    result[..., :3, :3] = rotation
    result[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, matrix[..., :3, 3])
    result[..., 3, 3] = 1.0
    return result


def transform(a_from_b: ArrayLike, points_in_b: ArrayLike) -> Float:
    """Points (..., N, 3) of frame b, in metres, expressed in frame a."""
    matrix = np.asarray(a_from_b, np.float64)
    points = np.asarray(points_in_b, np.float64)
    return points @ np.swapaxes(matrix[..., :3, :3], -1, -2) + matrix[..., None, :3, 3]


def rotation_from_euler(yaw_rad: float, pitch_rad: float = 0.0, roll_rad: float = 0.0) -> Float:
    """Rotation (3, 3) that turns about x by roll, then about y by pitch, then about z by yaw (ISO 8855)."""
    cy, sy = np.cos(yaw_rad), np.sin(yaw_rad)
    cp, sp = np.cos(pitch_rad), np.sin(pitch_rad)
    cr, sr = np.cos(roll_rad), np.sin(roll_rad)
    about_z = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
    about_y = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]])
    return np.asarray(about_z @ about_y @ about_x)


def se2_as_se3(x_m: float, y_m: float, yaw_rad: float, z_m: float = 0.0) -> Float:
    """Transform of a pose on the ground plane; yaw is counter-clockwise about z."""
    return se3(rotation_from_euler(yaw_rad), [x_m, y_m, z_m])


def rotation_from_quaternion(x: float, y: float, z: float, w: float) -> Float:
    """Rotation (3, 3) of a quaternion, which is normalised first.

    Raises:
        ValueError: the quaternion has no length or is not finite.
    """
    quaternion = np.array([x, y, z, w], np.float64)
    norm = float(np.linalg.norm(quaternion))
    if not np.isfinite(norm) or norm < 1e-9:
        raise ValueError(f"quaternion must be finite and not zero, got {quaternion.tolist()}")
    x, y, z, w = (float(v) for v in quaternion / norm)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation(rotation: ArrayLike) -> Float:
    """Quaternion (x, y, z, w), w >= 0, of a rotation (3, 3); Shepperd's method."""
    m = np.asarray(rotation, np.float64)
    squares = np.array(
        [
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
            1 + m[0, 0] + m[1, 1] + m[2, 2],
        ]
    )
    largest = int(np.argmax(squares))
    s = 2.0 * np.sqrt(squares[largest])
    match largest:
        case 0:
            q = [s / 4, (m[0, 1] + m[1, 0]) / s, (m[0, 2] + m[2, 0]) / s, (m[2, 1] - m[1, 2]) / s]
        case 1:
            q = [(m[0, 1] + m[1, 0]) / s, s / 4, (m[1, 2] + m[2, 1]) / s, (m[0, 2] - m[2, 0]) / s]
        case 2:
            q = [(m[0, 2] + m[2, 0]) / s, (m[1, 2] + m[2, 1]) / s, s / 4, (m[1, 0] - m[0, 1]) / s]
        case _:
            q = [(m[2, 1] - m[1, 2]) / s, (m[0, 2] - m[2, 0]) / s, (m[1, 0] - m[0, 1]) / s, s / 4]
    quaternion = np.array(q)
    return np.asarray(quaternion if quaternion[3] >= 0 else -quaternion)


def yaw_of(rotation_or_transform: ArrayLike) -> float:
    """Yaw in radians of a rotation (3, 3) or transform (4, 4): the heading of its x axis on the ground."""
    matrix = np.asarray(rotation_or_transform, np.float64)
    return float(np.arctan2(matrix[1, 0], matrix[0, 0]))


def wrap_angle(angle_rad: ArrayLike) -> Float:
    """Angle brought to [-pi, pi)."""
    return np.asarray((np.asarray(angle_rad, np.float64) + np.pi) % (2 * np.pi) - np.pi)


def require_rigid(name: str, matrix: NDArray[np.floating]) -> None:
    """Raise ValueError unless the matrix is a finite (4, 4) rigid transform, to 1e-3."""
    if matrix.shape != (4, 4):
        raise ValueError(f"{name} must have shape (4, 4), got {matrix.shape}")
    rotation = matrix[:3, :3].astype(np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite")
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise ValueError(f"{name} must hold a rotation (orthonormal, right-handed)")
    if not np.allclose(matrix[3], [0.0, 0.0, 0.0, 1.0], atol=1e-6):
        raise ValueError(f"{name} must end with the row 0 0 0 1, got {matrix[3].tolist()}")
