"""Sensor frames to the batched observation that networks take. Knows numpy and OpenCV; knows nothing about torch.

A camera that the observation asks for and the frame has with the same geometry is copied. Any other is resampled by
rotation alone: the ray of every wanted pixel is looked up in the source picture, lens distortion included, as if both
cameras stood at one point. That is exact for what is far away and errs by (distance between the cameras) / (distance
of the object) radians at most for what is near.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry import transform
from perception.sensors import (
    ROUTE_POINTS,
    CameraCalibration,
    CameraFrame,
    DistortionModel,
    EgoField,
    LidarSweep,
    SensorFrame,
)

LIDAR_RANGE_M = 100.0
MAX_VIEW_ANGLE_RAD = np.deg2rad(60.0)  # a camera that looks further aside than this stands in for no other
MAX_SUPERSAMPLING = 4
OUTSIDE_PX = -1.0e6
MAX_PIXELS = 1 << 23  # of one picture, 4K and no more: resampling takes some hundred bytes for each
MAX_CAMERAS = 16
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

RemapPlan = tuple[int, int, int, int, int, NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class ObservationSpec:
    """What a network is given, per car.

    cameras: name of the observation's key to the geometry of that picture; the key is the camera's name.
    max_points: rows of `points`; 0 where there is no LiDAR.
    ego_size, route_points: sizes of `ego` and `route`.
    privileged_size: length of `privileged` (critic and expert only); 0 where there is none.
    """

    cameras: Mapping[str, CameraCalibration]
    max_points: int
    ego_size: int = len(EgoField)
    route_points: int = ROUTE_POINTS
    privileged_size: int = 0

    def __post_init__(self) -> None:
        for name in ("max_points", "ego_size", "route_points", "privileged_size"):
            if not 0 <= getattr(self, name) <= 1 << 20:
                raise ValueError(f"{name} must lie in 0..{1 << 20}, got {getattr(self, name)}")
        for name, sizes in (("ego_size", (0, len(EgoField))), ("route_points", (0, ROUTE_POINTS))):
            if getattr(self, name) not in sizes:
                raise ValueError(f"{name} must be {sizes[0]} or {sizes[1]}, got {getattr(self, name)}")
        if len(self.cameras) > MAX_CAMERAS:
            raise ValueError(f"at most {MAX_CAMERAS} cameras, got {len(self.cameras)}")
        for name, camera in self.cameras.items():
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"a camera's name is of a-z, 0-9 and _ (64 at most, a letter first), got {name[:80]!r}"
                )
            if camera.width_px * camera.height_px > MAX_PIXELS:
                raise ValueError(f"{name} has more than {MAX_PIXELS} pixels: {camera.width_px}x{camera.height_px}")

    def same_sensors(self, other: ObservationSpec) -> bool:
        """Whether the other differs at most in `privileged`."""
        return replace(self, privileged_size=0).to_json() == replace(other, privileged_size=0).to_json()

    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Key of the observation to the shape per car and the dtype's name; what is absent is left out.

        Points and route are flat, row after row (docs/decisions/0003-flat-vectors.md).
        """
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            name: ((c.height_px, c.width_px, 3), "uint8") for name, c in self.cameras.items()
        }
        if self.max_points:
            shapes["points"] = ((self.max_points * 4,), "float32")
            shapes["point_count"] = ((1,), "int32")
        if self.ego_size:
            shapes["ego"] = ((self.ego_size,), "float32")
        if self.route_points:
            shapes["route"] = ((self.route_points * 2,), "float32")
        if self.privileged_size:
            shapes["privileged"] = ((self.privileged_size,), "float32")
        return shapes

    def to_json(self) -> str:
        """The specification as one line of JSON."""
        cameras = {
            name: {
                "width_px": c.width_px,
                "height_px": c.height_px,
                "intrinsics": c.intrinsics.tolist(),
                "ego_from_camera": c.ego_from_camera.tolist(),
                "distortion_model": c.distortion_model,
                "distortion": c.distortion.tolist(),
            }
            for name, c in self.cameras.items()
        }
        sizes = {n: getattr(self, n) for n in ("max_points", "ego_size", "route_points", "privileged_size")}
        return json.dumps({"cameras": cameras, **sizes})

    @staticmethod
    def from_json(text: str) -> ObservationSpec:
        """The inverse of `to_json`.

        Raises:
            ValueError: the text is not such a specification.
        """
        try:
            values = json.loads(text)
            cameras = {str(name): _camera_from_json(camera) for name, camera in values.pop("cameras").items()}
            return ObservationSpec(cameras=cameras, **{str(name): int(size) for name, size in values.items()})
        except (AttributeError, KeyError, TypeError, OverflowError, json.JSONDecodeError) as error:
            raise ValueError(f"not an observation specification: {type(error).__name__} {error}") from None


def frames_to_observation(
    frames: Sequence[SensorFrame],
    spec: ObservationSpec,
    camera_map: Mapping[str, str] | None = None,
    lidar: str | None = None,
) -> dict[str, NDArray[Any]]:
    """The batched observation of N frames; a sensor that is silent or absent gives zeros.

    Args:
        frames: one per car.
        spec: which keys and sizes; `privileged` is never filled in, as no sensor knows it.
        camera_map: key of the observation to the name of the frame's camera. A key that is not in it takes the camera
            of its own name, or of its name without `camera_`; failing those, the camera that looks most nearly the
            same way, if it does so within 60 degrees.
        lidar: name of the LiDAR to use; None takes all together.

    Returns:
        `<camera>` uint8 (N, H, W, 3) RGB; `points` float32 (N, P * 4), x y z in metres in ego and intensity, |x| and
        |y| at most 100 m, zero-padded; `point_count` int32 (N, 1); `ego` float32 (N, 5); `route` float32 (N, 40).

    Raises:
        ValueError: `camera_map` or `lidar` names a sensor that a frame does not have.
    """
    n = len(frames)
    observation: dict[str, NDArray[Any]] = {
        name: np.zeros((n, *shape), dtype) for name, (shape, dtype) in spec.shapes().items() if name != "privileged"
    }
    for i, frame in enumerate(frames):
        for name, target in spec.cameras.items():
            source = _find_camera(frame, name, target, (camera_map or {}).get(name))
            if source is not None:
                observation[name][i] = resample(source, target)
        if spec.max_points:
            points = points_in_ego(_find_sweeps(frame, lidar), spec.max_points)
            observation["points"][i, : points.size] = points.ravel()
            observation["point_count"][i] = len(points)
        if frame.ego is not None and spec.ego_size:
            observation["ego"][i] = frame.ego.as_vector()
        if frame.route_in_ego is not None and spec.route_points:
            observation["route"][i] = frame.route_in_ego.ravel()
    return observation


def points_in_ego(sweeps: Sequence[LidarSweep], max_points: int) -> NDArray[np.float32]:
    """Points (M, 4) float32 of all sweeps in ego, M <= max_points: cropped to 100 m, thinned evenly in scan order."""
    clouds = []
    for sweep in sweeps:
        cloud = sweep.points[np.isfinite(sweep.points).all(axis=1)]
        cloud = np.concatenate([transform(sweep.ego_from_lidar, cloud[:, :3]).astype(np.float32), cloud[:, 3:]], axis=1)
        clouds.append(cloud[(np.abs(cloud[:, :2]) <= LIDAR_RANGE_M).all(axis=1)])
    points = np.concatenate(clouds) if clouds else np.zeros((0, 4), np.float32)
    if len(points) > max_points:
        points = points[np.arange(max_points, dtype=np.int64) * len(points) // max_points]
    return points


def resample(source: CameraFrame, target: CameraCalibration) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 that the target camera would take from the source's place; 0 where it saw nothing.

    Antialiased: the source is shrunk by area first, then sampled several times per wanted pixel and averaged.
    """
    if _key(source.calibration) == _key(target):
        return source.image
    shrunk_w, shrunk_h, width, height, factor, map_x, map_y = _remap_plan(_key(source.calibration), _key(target))
    image = source.image
    if (shrunk_w, shrunk_h) != (image.shape[1], image.shape[0]):
        image = cv2.resize(image, (shrunk_w, shrunk_h), interpolation=cv2.INTER_AREA)
    fine = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    if factor > 1:
        fine = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(fine, np.uint8)


def project_rays(camera: CameraCalibration, rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels (N, 2) at which rays (N, 3) of the camera frame meet the picture; NaN where the lens cannot see them.

    A lens polynomial is trusted only up to the angle at which it stops to grow: beyond, it folds back into the picture.
    """
    z = rays[:, 2]
    radius = np.hypot(rays[:, 0], rays[:, 1])
    if camera.distortion_model == "kannala_brandt":
        visible = np.arctan2(radius, z) < _largest_angle(camera)
    else:
        visible = (z > 1e-6 * radius) & (radius < np.tan(_largest_angle(camera)) * z)
    pixels = np.full((len(rays), 2), np.nan)
    seen = rays[visible]
    if len(seen) == 0:
        return pixels
    still = np.zeros(3)
    match camera.distortion_model:
        case "none":
            projected = seen @ camera.intrinsics.T
            pixels[visible] = projected[:, :2] / projected[:, 2:]
        case "brown_conrady":
            projected, _ = cv2.projectPoints(seen[:, None], still, still, camera.intrinsics, camera.distortion)
            pixels[visible] = projected[:, 0]
        case "kannala_brandt":
            angle = np.arctan2(radius[visible], seen[:, 2])
            # OpenCV takes x/z and y/z only, which has no value at 90 degrees and beyond; the model is in the angle.
            k = camera.distortion
            bent = angle * (1 + angle**2 * (k[0] + angle**2 * (k[1] + angle**2 * (k[2] + angle**2 * k[3]))))
            scale = np.where(radius[visible] > 0, bent / np.maximum(radius[visible], 1e-12), 1.0)
            flat = np.concatenate([seen[:, :2] * scale[:, None], np.ones((len(seen), 1))], axis=1)
            pixels[visible] = (flat @ camera.intrinsics.T)[:, :2]
    return pixels


def _largest_angle(camera: CameraCalibration) -> float:
    """Angle from the optical axis, in radians, up to which the lens polynomial grows."""
    if camera.distortion_model == "kannala_brandt":
        angle = np.linspace(0.0, np.pi, 2001)
        k = camera.distortion
        bent = angle * (1 + angle**2 * (k[0] + angle**2 * (k[1] + angle**2 * (k[2] + angle**2 * k[3]))))
    else:
        angle = np.linspace(0.0, np.deg2rad(89.0), 2001)
        if camera.distortion_model == "none":
            return float(angle[-1])
        k = np.zeros(8)
        k[: min(8, len(camera.distortion))] = camera.distortion[:8]
        r2 = np.tan(angle) ** 2
        upper = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
        bent = np.sqrt(r2) * upper / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
    folds = np.flatnonzero(~(np.diff(bent) > 0))
    return float(angle[folds[0]] if len(folds) else angle[-1])


def _find_camera(frame: SensorFrame, name: str, target: CameraCalibration, wanted: str | None) -> CameraFrame | None:
    if wanted is not None:
        if wanted not in frame.cameras:
            raise ValueError(f'the frame has no camera "{wanted}" for {name}; it has: {", ".join(frame.cameras)}')
        return frame.cameras[wanted]
    for own in (name, name.removeprefix("camera_")):
        if own in frame.cameras:
            return frame.cameras[own]
    axis = target.ego_from_camera[:3, 2]
    candidates = [
        (float(np.arccos(np.clip(axis @ c.calibration.ego_from_camera[:3, 2], -1, 1))), other, c)
        for other, c in frame.cameras.items()
        if c is not None
    ]
    if not candidates:
        return None
    angle, _, nearest = min(candidates, key=lambda candidate: candidate[:2])
    return nearest if angle <= MAX_VIEW_ANGLE_RAD else None


def _find_sweeps(frame: SensorFrame, lidar: str | None) -> list[LidarSweep]:
    if lidar is not None and lidar not in frame.lidars:
        raise ValueError(f'the frame has no LiDAR "{lidar}"; it has: {", ".join(frame.lidars) or "none"}')
    return [s for name, s in frame.lidars.items() if s is not None and lidar in (None, name)]


_CalibrationKey = tuple[int, int, bytes, bytes, DistortionModel, bytes]


def _key(c: CameraCalibration) -> _CalibrationKey:
    """The calibration as something that can be compared and hashed."""
    intrinsics, pose = c.intrinsics.astype(np.float64), c.ego_from_camera.astype(np.float64)
    distortion = c.distortion.astype(np.float64)
    return c.width_px, c.height_px, intrinsics.tobytes(), pose.tobytes(), c.distortion_model, distortion.tobytes()


def _calibration(key: _CalibrationKey) -> CameraCalibration:
    width, height, intrinsics, pose, model, distortion = key
    return CameraCalibration(
        width_px=width,
        height_px=height,
        intrinsics=np.frombuffer(intrinsics).reshape(3, 3),
        ego_from_camera=np.frombuffer(pose).reshape(4, 4),
        distortion_model=model,
        distortion=np.frombuffer(distortion),
    )


@lru_cache(maxsize=32)
def _remap_plan(source_key: _CalibrationKey, target_key: _CalibrationKey) -> RemapPlan:
    """How to resample: sizes of the shrunk source and of the target, samples per pixel and side, where they lie."""
    source, target = _calibration(source_key), _calibration(target_key)
    # Where the two pictures are sampled most alike, on the optical axes, one target pixel is this many source pixels.
    scale = min(
        source.intrinsics[0, 0] / target.intrinsics[0, 0],
        source.intrinsics[1, 1] / target.intrinsics[1, 1],
    )
    shrink = max(1, int(scale))
    shrunk_w, shrunk_h = max(1, round(source.width_px / shrink)), max(1, round(source.height_px / shrink))
    factor = int(np.clip(np.ceil(scale / shrink * 2), 2, MAX_SUPERSAMPLING))

    rays = _rays(target, factor)
    rotation = source.ego_from_camera[:3, :3].T @ target.ego_from_camera[:3, :3]
    pixels = project_rays(source, rays @ rotation.T)
    pixels = (pixels + 0.5) * [shrunk_w / source.width_px, shrunk_h / source.height_px] - 0.5
    pixels = np.nan_to_num(pixels, nan=OUTSIDE_PX, posinf=OUTSIDE_PX, neginf=OUTSIDE_PX)
    maps = pixels.clip(OUTSIDE_PX, -OUTSIDE_PX).astype(np.float32).reshape(*rays_shape(target, factor), 2)
    map_x, map_y = np.ascontiguousarray(maps[..., 0]), np.ascontiguousarray(maps[..., 1])
    return shrunk_w, shrunk_h, target.width_px, target.height_px, factor, map_x, map_y


def rays_shape(camera: CameraCalibration, factor: int) -> tuple[int, int]:
    """Rows and columns of a grid of factor x factor rays per pixel."""
    return camera.height_px * factor, camera.width_px * factor


def _rays(camera: CameraCalibration, factor: int) -> NDArray[np.float64]:
    """Rays (H*factor*W*factor, 3) in the camera frame through an even grid of factor x factor points per pixel."""
    rows, columns = rays_shape(camera, factor)
    u = (np.arange(columns) + 0.5) / factor - 0.5
    v = (np.arange(rows) + 0.5) / factor - 0.5
    pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 1, 2)
    match camera.distortion_model:
        case "none":
            flat = cv2.undistortPoints(pixels, camera.intrinsics, None)[:, 0]
        case "brown_conrady":
            flat = cv2.undistortPoints(pixels, camera.intrinsics, camera.distortion)[:, 0]
        case "kannala_brandt":
            flat = cv2.fisheye.undistortPoints(pixels, camera.intrinsics, camera.distortion)[:, 0]
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


def _camera_from_json(values: Mapping[str, Any]) -> CameraCalibration:
    return CameraCalibration(
        width_px=int(values["width_px"]),
        height_px=int(values["height_px"]),
        intrinsics=np.asarray(values["intrinsics"], np.float64),
        ego_from_camera=np.asarray(values["ego_from_camera"], np.float64),
        distortion_model=values["distortion_model"],
        distortion=np.asarray(values["distortion"], np.float64),
    )
