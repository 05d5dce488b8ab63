"""A user's own meshes as a static part of the scene: seen by cameras and LiDAR, cast by Open3D and merged by depth.

Knows mesh files, rays and light; knows nothing about the world's traffic, which neither meets a mesh nor avoids it. Slower than
the boxes' caster by far; where there is no mesh, nothing of this runs and Open3D is not loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from perception.geometry import inverse, rotation_from_euler, transform
from perception.sensors import SemanticClass
from sim.counter_random import Purpose, uniform_array
from sim.open3d_loader import load_open3d
from sim.sensors.cast import NEAR
from sim.sensors.rig import LidarConfig

MAX_BYTES = 256 * 2**20
MAX_TRIANGLES = 4_000_000
MAX_EXTENT_M = 2000.0
FORMATS = (".ply", ".stl", ".obj", ".off", ".gltf", ".glb")
MESH = np.int32(-3)  # code of what is neither box nor ground nor sky
MESH_INSTANCE = 3_000_000
_REACH_M = 400.0
_MESH = int(Purpose.MESH)


class MeshError(ValueError):
    """A file that is no mesh, or one that is too large."""


class MeshConfig(BaseModel):
    """A mesh in the world: z up, metres after scaling; placed by the origin of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    path: Path
    x_m: float = Field(default=0.0, ge=-1e6, le=1e6)
    y_m: float = Field(default=0.0, ge=-1e6, le=1e6)
    z_m: float = Field(default=0.0, ge=-1000, le=1000)
    yaw_deg: float = Field(default=0.0, ge=-360, le=360)
    scale: float = Field(default=1.0, gt=0, le=1e4)
    semantic: str = Field(default="building", description="name of a SemanticClass, in small letters")
    color: tuple[int, int, int] = Field(default=(170, 165, 155), description="RGB where the file has no vertex colours")
    reflectivity: float = Field(default=0.4, ge=0, le=1, description="share of a LiDAR's light that comes back")

    @field_validator("semantic")
    @classmethod
    def _known(cls, value: str) -> str:
        names = [c.name.lower() for c in SemanticClass]
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return value

    @field_validator("color")
    @classmethod
    def _bytes(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(0 <= c <= 255 for c in value):
            raise ValueError("must be three numbers from 0 to 255")
        return value


@dataclass(frozen=True)
class MeshLight:
    """Light on meshes, for one environment: sun (3,) unit vector in ego; ambient and direct (3,), light from the sky and from the
    sun in shares of a surface's colour; horizon (3,) in grey levels; haze_per_m."""

    sun: NDArray[np.float32]
    ambient: NDArray[np.float32]
    direct: NDArray[np.float32]
    horizon: NDArray[np.float32]
    haze_per_m: float


@dataclass(frozen=True)
class Hits:
    """What rays of any shape S meet first. distance: S float32 in lengths of the direction, inf for nothing; the rest holds where
    it is finite. normal: S + (3,) float32 in ego, towards the sensor. color: S + (3,) float32. mesh: S int64, its number."""

    distance: NDArray[np.float32]
    normal: NDArray[np.float32]
    color: NDArray[np.float32]
    mesh: NDArray[np.int64]


def _claimed(path: Path, size: int) -> int:
    """Vertices and faces that the header of a file claims to hold; 0 where the format does not say."""
    with path.open("rb") as file:
        head = file.read(65_536)
    match path.suffix.lower():
        case ".ply":
            header = head.split(b"end_header")[0].splitlines()
            words = [line.split() for line in header if line.startswith(b"element")]
            numbers = [w[2] for w in words if len(w) == 3]
        case ".off":
            body = [line.split(b"#")[0].split() for line in head.splitlines()]
            words = [line for line in body if line and line[0] not in (b"OFF", b"COFF", b"NOFF", b"CNOFF")]
            numbers = words[0][:2] if words else []
        case ".stl" if not head.startswith(b"solid") and size >= 84:
            numbers = [str(int.from_bytes(head[80:84], "little")).encode()]
        case _:
            numbers = []
    return sum(int(n) if n.isdigit() else MAX_BYTES for n in numbers)


def load_mesh(path: Path) -> tuple[NDArray[np.float32], NDArray[np.uint32], NDArray[np.float32] | None]:
    """Vertices (V, 3) as in the file, triangles (T, 3), and colours (V, 3) in grey levels or None, of a mesh file.

    Raises:
        MeshError: there is no such file, it is no mesh, or it is too large; sizes are checked before memory is taken.
    """
    if not path.is_file():
        raise MeshError(f"no mesh at {path}: give a file in one of the formats {', '.join(FORMATS)}")
    if path.suffix.lower() not in FORMATS:
        raise MeshError(
            f"{path}: a mesh is a file in one of the formats {', '.join(FORMATS)}, got {path.suffix or 'no suffix'}"
        )
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise MeshError(f"{path} has {size} bytes; a mesh has at least 1 and at most {MAX_BYTES}")
    claimed = _claimed(path, size)
    if claimed > min(size, 3 * MAX_TRIANGLES):
        raise MeshError(
            f"{path} claims {claimed} vertices and faces in {size} bytes: it is damaged, or has more than {MAX_TRIANGLES} triangles"
        )
    o3d = load_open3d()
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        mesh = o3d.io.read_triangle_mesh(str(path))
    vertices, triangles = np.asarray(mesh.vertices), np.asarray(mesh.triangles)
    if len(triangles) == 0:
        raise MeshError(f"{path} holds no triangles that Open3D can read: it is no mesh, or damaged")
    if len(triangles) > MAX_TRIANGLES:
        raise MeshError(
            f"{path} has {len(triangles)} triangles; at most {MAX_TRIANGLES} are allowed: simplify it first"
        )
    if not np.isfinite(vertices).all() or triangles.min() < 0 or triangles.max() >= len(vertices):
        raise MeshError(
            f"{path} is damaged: it has vertices that are not finite, or triangles of vertices that it does not have"
        )
    colors = np.asarray(mesh.vertex_colors)
    return (
        vertices.astype(np.float32),
        triangles.astype(np.uint32),
        (255 * colors).astype(np.float32) if len(colors) == len(vertices) else None,
    )


class MeshScene:
    """All meshes of a world, built for casting rays."""

    def __init__(self, configs: tuple[MeshConfig, ...]) -> None:
        """Raises MeshError for a file that is no mesh, or one that is too large once scaled."""
        self.configs = configs
        loaded = [load_mesh(config.path) for config in configs]
        o3d = load_open3d()
        self._core: Any = o3d.core
        self._scene: Any = o3d.t.geometry.RaycastingScene()
        # Coordinates from here on are relative to this place, so that float32 is good enough anywhere in a map.
        self._anchor = np.mean([[c.x_m, c.y_m] for c in configs], axis=0)
        self._triangles, self._colors = [], []
        corners = []
        for config, (vertices, triangles, colors) in zip(configs, loaded, strict=True):
            place = [config.x_m - self._anchor[0], config.y_m - self._anchor[1], config.z_m]
            turn = rotation_from_euler(math.radians(config.yaw_deg))
            placed = (config.scale * vertices.astype(np.float64)) @ turn.T + place
            extent = float(np.ptp(placed, axis=0).max())
            if extent > MAX_EXTENT_M:
                raise MeshError(
                    f"{config.path} is {extent:.0f} m large; at most {MAX_EXTENT_M:.0f} m are allowed: set scale"
                )
            corners += [placed.min(0), placed.max(0)]
            self._scene.add_triangles(np.ascontiguousarray(placed, np.float32), triangles)
            self._triangles.append(triangles)
            plain = np.broadcast_to(np.array(config.color, np.float32), vertices.shape)
            self._colors.append(plain if colors is None else colors)
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        self._middle, self._radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
        self.semantic = np.array([SemanticClass[c.semantic.upper()] for c in configs], np.uint8)
        self.reflectivity = np.array([c.reflectivity for c in configs], np.float32)

    def cast(
        self, pose: NDArray[np.float64], origin: NDArray[np.float32], directions: NDArray[np.float32]
    ) -> Hits | None:
        """What rays meet. pose: (4,) x, y, cosine and sine of the ego in the world; origin (3,) and directions (3, ...) in ego.

        None where all meshes are too far away to matter.
        """
        x, y, c, s = (float(v) for v in pose)
        if (
            math.hypot(x - self._anchor[0] - self._middle[0], y - self._anchor[1] - self._middle[1])
            > self._radius + _REACH_M
        ):
            return None
        rays = np.empty((*directions.shape[1:], 6), np.float32)
        rays[..., 0] = x - self._anchor[0] + c * origin[0] - s * origin[1]
        rays[..., 1] = y - self._anchor[1] + s * origin[0] + c * origin[1]
        rays[..., 2] = origin[2]
        rays[..., 3], rays[..., 4] = c * directions[0] - s * directions[1], s * directions[0] + c * directions[1]
        rays[..., 5] = directions[2]
        answer = {key: value.numpy() for key, value in self._scene.cast_rays(self._core.Tensor(rays)).items()}
        distance = np.where(answer["t_hit"] > NEAR, answer["t_hit"], np.inf).astype(np.float32)
        found = np.isfinite(distance)
        normal = np.zeros((*found.shape, 3), np.float32)
        n = answer["primitive_normals"][found].astype(np.float64)
        n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)
        n *= np.where((n * rays[found][:, 3:]).sum(1, keepdims=True) > 0, -1.0, 1.0)
        normal[found] = np.column_stack([c * n[:, 0] + s * n[:, 1], c * n[:, 1] - s * n[:, 0], n[:, 2]])
        mesh = np.where(found, answer["geometry_ids"], 0).astype(np.int64)
        color = np.zeros((*found.shape, 3), np.float32)
        for k, (triangles, colors) in enumerate(zip(self._triangles, self._colors, strict=True)):
            mine = found & (mesh == k)
            u, v = answer["primitive_uvs"][mine].T[..., None]
            a, b, d = (colors[triangles[answer["primitive_ids"][mine], i]] for i in range(3))
            color[mine] = (1 - u - v) * a + u * b + v * d
        return Hits(distance, normal, color, mesh)


def shade(hits: Hits, seen: NDArray[np.bool_], range_m: NDArray[np.float32], light: MeshLight) -> NDArray[np.uint8]:
    """Colours (N, 3) uint8 of the hits where seen is true: Lambert's law below an even sky, then haze; range_m: (N,)."""
    normal = hits.normal[seen]
    facing = np.maximum(normal @ light.sun, 0.0)[:, None]
    sky = (0.75 + 0.25 * normal[:, 2])[:, None]
    clear = np.exp(-light.haze_per_m * range_m)[:, None]
    lit = hits.color[seen] * (light.ambient * sky + light.direct * facing)
    return np.asarray(np.clip(lit * clear + light.horizon * (1 - clear), 0, 255), np.uint8)


def merge_picture(
    scene: MeshScene, pose: NDArray[np.float64], origin: NDArray[np.float32], directions: NDArray[np.float32], light: MeshLight,
    image: NDArray[np.uint8], depth: NDArray[np.float32], code: NDArray[np.int32],
    labels: tuple[NDArray[np.uint8], NDArray[np.int32]] | None,
) -> None:  # fmt: skip
    """Put meshes into a picture (H, W, 3) of which depth, code and, if asked for, semantic and instance (H, W) are known.

    All are changed in place where a mesh is nearer; code becomes MESH. pose, origin and directions as in `MeshScene.cast`.
    """
    hits = scene.cast(pose, origin, directions)
    if hits is None:
        return
    seen = hits.distance < depth
    length = np.linalg.norm(directions[:, seen], axis=0)
    image[seen] = shade(hits, seen, hits.distance[seen] * length, light)
    depth[seen], code[seen] = hits.distance[seen], MESH
    if labels is not None:
        semantic, instance = labels
        semantic[seen], instance[seen] = scene.semantic[hits.mesh[seen]], MESH_INSTANCE + hits.mesh[seen]


@dataclass(frozen=True)
class Sweep:
    """The buffers of one environment's sweep, as in `SensorSuite`; labels: whether the last four hold anything.

    times_us: (beams, columns) int32, when each ray is measured.
    """

    depth: NDArray[np.float32]
    code: NDArray[np.int32]
    points: NDArray[np.float32]
    semantic: NDArray[np.uint8]
    instance: NDArray[np.int32]
    point_labels: NDArray[np.int32]
    point_time_us: NDArray[np.int32]
    times_us: NDArray[np.int32]
    labels: bool


def merge_sweep(
    scene: MeshScene, config: LidarConfig, pose: NDArray[np.float64], origin: NDArray[np.float32],
    directions: NDArray[np.float32], extinction_per_m: float, counter: tuple[int, int, int], sweep: Sweep, count: int,
) -> int:  # fmt: skip
    """Put meshes into a sweep with `count` points, in place; returns how many it has then.

    What a mesh hides goes, and the meshes' own returns come last. A mesh is matt: a ray comes back if its reflectivity times
    the cosine of incidence, dimmed by the air, is at least a tenth of (range / sensitivity)^2, with the chance and the noise
    of `returns`. Where the ray has a return in front of it (of the air, or by noise), the stronger of both is kept.
    counter: seed, episode and tick, which these belong to.
    """
    hits = scene.cast(pose, origin, directions)
    if hits is None:
        return count
    points, rest = sweep.points, np.arange(count)
    towards = points[:count, :3] - origin
    hiding = scene.cast(pose, origin, np.ascontiguousarray(towards.T))
    if hiding is not None:
        rest = np.flatnonzero(~(hiding.distance < 1.0))
    seen = hits.distance < sweep.depth
    distance, facing = hits.distance[seen], -(hits.normal[seen] * directions[:, seen].T).sum(1)
    ray = np.flatnonzero(seen)
    first, second, chance = (uniform_array(*counter, ray + k * seen.size, _MESH) for k in range(3))
    noise = np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)  # Box and Muller, 1958
    light = scene.reflectivity[hits.mesh[seen]] * facing * np.exp(-2 * extinction_per_m * distance)
    enough = light > 0.1 * (distance / config.sensitivity_m) ** 2 * (0.5 + chance)
    back = enough & (distance >= config.min_range_m) & (distance <= config.max_range_m)
    shown = config.white * (np.sqrt(np.maximum(light, 0.0)) if config.rooted else light)
    other = _rays_of(config, points[rest])
    brightest = np.zeros(seen.size, np.float32)
    brightest[other] = points[rest, 3]
    back &= shown > brightest[ray]
    answered = np.zeros(seen.size, np.bool_)
    answered[ray[back]] = True
    rest = rest[~answered[other]]
    room = len(points) - len(rest)
    back &= np.cumsum(back) <= room
    measured = distance[back] + config.range_noise_m * noise[back]
    total = len(rest) + int(back.sum())
    points[: len(rest)] = points[rest]
    points[len(rest) : total, :3] = origin + measured[:, None] * directions[:, seen].T[back]
    points[len(rest) : total, 3] = np.minimum(shown[back], 1.0)
    points[total:count] = 0.0
    sweep.depth[seen], sweep.code[seen] = distance, MESH
    if sweep.labels:
        sweep.semantic[seen], sweep.instance[seen] = scene.semantic[hits.mesh[seen]], MESH_INSTANCE + hits.mesh[seen]
        sweep.point_labels[: len(rest)] = sweep.point_labels[rest]
        sweep.point_time_us[: len(rest)] = sweep.point_time_us[rest]
        beam = ray[back] // seen.shape[1]
        sweep.point_labels[len(rest) : total] = np.column_stack(
            [beam, sweep.semantic[seen][back], sweep.instance[seen][back]]
        )
        sweep.point_time_us[len(rest) : total] = sweep.times_us[seen][back]
    return total


def _rays_of(config: LidarConfig, points: NDArray[np.float32]) -> NDArray[np.int64]:
    """(N,) int64 beam * columns + column of the rays along which points (N, 4) in ego were measured."""
    x, y, z = transform(inverse(config.mount.ego_from_mount()), points[:, :3]).T
    elevations = np.radians(config.elevations_deg)
    beam = np.searchsorted(-0.5 * (elevations[:-1] + elevations[1:]), -np.arctan2(z, np.hypot(x, y)))
    step = math.radians(config.azimuth_step_deg)
    turned = np.arctan2(y, x) - config.ray_azimuths_rad()[beam, 0] + 0.5 * step
    column = np.minimum(np.mod(turned, 2 * np.pi) // step, config.columns - 1)
    return np.asarray(beam * config.columns + column, np.int64)
