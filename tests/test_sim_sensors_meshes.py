"""Users' meshes: merged by depth, against the boxes' own caster where a mesh is a box; files that are no mesh; weather."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from perception.geometry import rotation_from_euler
from perception.sensors import SemanticClass
from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.open3d_loader import load_open3d
from sim.roads.driving_map import DrivingMap
from sim.sensors.cast import FAR_M
from sim.sensors.meshes import MESH, MESH_INSTANCE, MeshConfig, MeshError, MeshScene, load_mesh
from sim.sensors.returns import Air
from sim.sensors.rig import CameraConfig, LidarConfig, Mount, RigConfig
from sim.sensors.suite import SensorSuite
from sim.world import World, WorldState

LIDAR = LidarConfig(elevations_deg=tuple(np.linspace(8, -24, 24).tolist()), columns=360, mount=Mount(x_m=1.2, z_m=1.8))
RIG = RigConfig(
    cameras=(CameraConfig(name="front", width_px=160, height_px=96, horizontal_fov_deg=90.0),), lidar=LIDAR
)  # fmt: skip


def off_file(folder: Path, vertices: NDArray[np.float64], faces: list[list[int]], name: str = "mesh.off") -> Path:
    lines = ["OFF", f"{len(vertices)} {len(faces)} 0", *(" ".join(f"{c:.6f}" for c in v) for v in vertices)]
    path = folder / name
    path.write_text("\n".join([*lines, *(f"{len(f)} " + " ".join(map(str, f)) for f in faces)]) + "\n")
    return path


def box_file(folder: Path, half: tuple[float, float, float]) -> Path:
    signs = np.array([[(k & 1) * 2 - 1, (k >> 1 & 1) * 2 - 1, (k >> 2 & 1) * 2 - 1] for k in range(8)], np.float64)
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    faces = [list(t) for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return off_file(folder, signs * half, faces)


@pytest.fixture(scope="module")
def world(town: DrivingMap) -> World:
    world = World(town, EnvConfig.of().world, 2)
    world.reset(np.ones(2, np.bool_), np.array([3, 4], np.uint64), np.zeros(2, np.int64))
    for _ in range(20):
        world.step(np.full((2, 2), [0.0, 0.3], np.float32))
    return world


def suite_of(town: DrivingMap, state: WorldState, *meshes: MeshConfig) -> SensorSuite:
    return SensorSuite(RIG, town, 2, state.x_m.shape[1], labels=True, meshes=meshes)


def ahead(world: World, path: Path, away_m: float = 12.0, **fields: Any) -> MeshConfig:
    """A mesh in front of the ego of environment 0."""
    pose = world.world_from_ego(0)
    x, y = pose[:2, 3] + away_m * pose[:2, 0]
    return MeshConfig(path=path, x_m=float(x), y_m=float(y), **{"z_m": 1.0, **fields})


def test_a_mesh_is_seen_where_it_is_nearer_and_nowhere_else(tmp_path: Path, town: DrivingMap, world: World) -> None:
    config = ahead(world, box_file(tmp_path, (1.5, 1.0, 1.0)), yaw_deg=25.0, semantic="barrier")
    plain, meshed = suite_of(town, world.state), suite_of(town, world.state, config)
    plain.observe(world.state)
    meshed.observe(world.state)
    # The same box by hand: slabs in float64.
    pose = world.world_from_ego(0)
    turn = rotation_from_euler(np.radians(25.0)).T @ pose[:3, :3]
    camera = RIG.cameras[0].calibration()
    eye = camera.ego_from_camera[:3, 3]
    u, v = np.meshgrid(np.arange(160), np.arange(96))
    rays = np.linalg.inv(camera.intrinsics) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1)
    directions = turn @ camera.ego_from_camera[:3, :3] @ rays
    start = rotation_from_euler(np.radians(25.0)).T @ (pose[:3, :3] @ eye + pose[:3, 3] - [config.x_m, config.y_m, 1.0])
    half = np.array([1.5, 1.0, 1.0])
    with np.errstate(divide="ignore"):
        a, b = (-half - start)[:, None] / directions, (half - start)[:, None] / directions
    near, far = np.minimum(a, b).max(0), np.maximum(a, b).min(0)
    distance = np.where((near <= far) & (near > 0), near, np.inf).reshape(96, 160)
    depth, before = meshed.depth["front"][0], plain.depth["front"][0]
    expected = distance < before
    mesh = meshed.code["front"][0] == MESH
    assert mesh.sum() > 200
    assert np.mean(mesh == expected) > 0.999
    both = mesh & expected
    assert np.abs(depth[both] - distance[both]).max() < 2e-3
    assert np.array_equal(depth[~mesh], before[~mesh])
    assert np.array_equal(meshed.images["front"][0][~mesh], plain.images["front"][0][~mesh])
    assert (meshed.semantic["front"][0][mesh] == SemanticClass.BARRIER).all()
    assert (meshed.instance["front"][0][mesh] == MESH_INSTANCE).all()
    assert np.array_equal(meshed.semantic["front"][0][~mesh], plain.semantic["front"][0][~mesh])
    spread = np.unique(meshed.images["front"][0][mesh], axis=0)
    assert len(spread) > 1, "its faces are lit differently"


def test_returns_of_a_mesh_lie_on_it_and_what_it_hides_is_gone(tmp_path: Path, town: DrivingMap, world: World) -> None:
    config = ahead(world, box_file(tmp_path, (1.5, 2.0, 1.0)), away_m=9.0)
    plain, meshed = suite_of(town, world.state), suite_of(town, world.state, config)
    plain.observe(world.state)
    meshed.observe(world.state)
    count, before = int(meshed.point_count[0]), int(plain.point_count[0])
    own = meshed.point_labels[0, :count, 2] == MESH_INSTANCE
    assert own.sum() > 50
    points = meshed.points[0, :count].astype(np.float64)
    assert not meshed.points[0, count:].any()
    assert (points[:, 3] > 0).all()
    pose = world.world_from_ego(0)
    in_mesh = (pose[:3, :3] @ points[own, :3].T).T + pose[:3, 3] - [config.x_m, config.y_m, 1.0]
    surface = np.abs(np.abs(in_mesh) - [1.5, 2.0, 1.0]).min(1)
    assert np.quantile(surface, 0.95) < 4 * LIDAR.range_noise_m
    assert np.abs(in_mesh).max() < 2.1
    # Every ray but those that meet the mesh has its old return.
    kept = {tuple(p) for p in meshed.points[0, :count][~own].tolist()}
    old = plain.points[0, :before]
    gone = np.array([tuple(p) not in kept for p in old.tolist()])
    assert len(kept) + gone.sum() == before
    rays = meshed.code[LIDAR.name][0] == MESH
    assert own.sum() <= rays.sum()
    assert gone.sum() <= rays.sum()
    beams = meshed.point_labels[0, :count, 0][own]
    assert set(beams.tolist()) == set(np.flatnonzero(rays.any(1)).tolist())
    assert (meshed.point_time_us[0, :count] <= 0).all()
    assert np.array_equal(meshed.points[1], plain.points[1]) or world.num_envs == 1


def test_the_same_bytes_in_any_batch_and_less_in_fog(tmp_path: Path, town: DrivingMap, world: World) -> None:
    config = ahead(world, box_file(tmp_path, (1.5, 2.0, 1.0)), away_m=25.0, reflectivity=0.2)
    first, second = (suite_of(town, world.state, config) for _ in range(2))
    first.observe(world.state)
    second.observe(world.state, np.array([True, False]))
    assert np.array_equal(first.points[0], second.points[0])
    assert np.array_equal(first.images["front"][0], second.images["front"][0])
    clear = np.count_nonzero(first.point_labels[0, : first.point_count[0], 2] == MESH_INSTANCE)
    first.air[:, Air.FOG] = 0.08
    first.observe(world.state)
    fog = np.count_nonzero(first.point_labels[0, : first.point_count[0], 2] == MESH_INSTANCE)
    assert fog < clear


@pytest.mark.parametrize("fog", [0.0, 0.1])
def test_a_ray_has_one_return_in_front_of_a_mesh_too(
    tmp_path: Path, town: DrivingMap, world: World, fog: float
) -> None:
    suite = suite_of(town, world.state, ahead(world, box_file(tmp_path, (10.0, 10.0, 8.0)), away_m=0.0))  # all around
    suite.observe(world.state)
    suite.air[:, Air.FOG] = fog
    suite.observe(world.state)
    _, sweeps = suite.frame(0, 0)
    count = int(suite.point_count[0])
    x, y = sweeps[LIDAR.name].points[:, :2].T
    column = np.rint(np.degrees(np.arctan2(y, x)) - LIDAR.azimuth_start_deg - 0.5).astype(int) % LIDAR.columns
    beam, kind = suite.point_labels[0, :count, :2].T
    assert len(np.unique(beam * LIDAR.columns + column)) == count
    assert (np.count_nonzero(kind == SemanticClass.SKY) > 100) == (fog > 0)
    of_mesh = suite.point_labels[0, :count, 2] == MESH_INSTANCE
    assert of_mesh.sum() > 1000


def test_vertex_colours_are_kept(tmp_path: Path, town: DrivingMap, world: World) -> None:
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh.create_box(2.0, 4.0, 2.0).translate([-1.0, -2.0, -1.0])
    mesh.paint_uniform_color([1.0, 0.0, 0.0])
    path = tmp_path / "red.ply"
    o3d.io.write_triangle_mesh(str(path), mesh)
    suite = suite_of(town, world.state, ahead(world, path, away_m=9.0))
    suite.observe(world.state)
    seen = suite.images["front"][0][suite.code["front"][0] == MESH].astype(int)
    assert len(seen) > 100
    assert (seen[:, 0] > 3 * seen[:, 1]).mean() > 0.95


def test_a_mesh_far_away_costs_no_ray(tmp_path: Path) -> None:
    scene = MeshScene((MeshConfig(path=box_file(tmp_path, (1.0, 1.0, 1.0)), x_m=5000.0),))
    rays = np.array([[1.0], [0.0], [0.0]], np.float32)
    assert scene.cast(np.array([0.0, 0.0, 1.0, 0.0]), np.zeros(3, np.float32), rays) is None
    hits = scene.cast(np.array([4990.0, 0.0, 1.0, 0.0]), np.zeros(3, np.float32), rays)
    assert hits is not None
    assert hits.distance[0] == pytest.approx(9.0)
    assert hits.normal[0].tolist() == pytest.approx([-1.0, 0.0, 0.0])
    assert FAR_M > 9.0


def stl(claimed: int, triangles: int) -> bytes:
    body = struct.pack("<12fH", *([0.0] * 3 + [0, 0, 0, 1, 0, 0, 0, 1, 0]), 0) * triangles
    return b"\0" * 80 + struct.pack("<I", claimed) + body


PLY = b"ply\nformat binary_little_endian 1.0\nelement vertex %d\nproperty float x\nproperty float y\nproperty float z\n" \
      b"element face %d\nproperty list uchar int vertex_indices\nend_header\n"  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"", "has 0 bytes"),
        ("a.ply", b"this is no mesh", "no triangles"),
        ("a.ply", PLY % (4_000_000_000, 1), "claims 4000000001 vertices and faces"),
        ("a.ply", PLY % (3, 1), "no triangles|claims 4 vertices"),
        ("a.stl", stl(2**32 - 1, 1), "claims 4294967295"),
        ("a.off", b"OFF\n99999999999 3 0\n", "claims 100000000002"),
        ("a.off", b"OFF\nx y z\n", "claims"),
        ("a.obj", b"v 0 0 0\n", "no triangles"),
        ("a.glb", b"glTF\x02\0\0\0" + b"\xff" * 40, "no triangles"),
        ("a.txt", b"hello", "one of the formats .ply"),
        ("a.png", b"\x89PNG\r\n", "one of the formats .ply"),
    ],
)
def test_what_is_no_mesh_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MeshError, match=message) as caught:
        load_mesh(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_wrong_mesh_stops_before_the_first_frame(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="no mesh at"):
        DriveBatch(EnvConfig.of(rig="smoke", meshes=[{"path": str(tmp_path / "nothing.ply")}]), 1)
    huge = MeshConfig(path=box_file(tmp_path, (900.0, 900.0, 900.0)), scale=2.0)
    with pytest.raises(MeshError, match=re.escape("is 3600 m large")):
        MeshScene((huge,))
    not_finite = off_file(tmp_path, np.array([[0, 0, 0], [1, 0, 0], [np.nan, 1, 0]]), [[0, 1, 2]], "nan.off")
    with pytest.raises(MeshError):
        load_mesh(not_finite)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"semantic": "castle"}, "must be one of sky"),
        ({"scale": 0.0}, "greater than 0"),
        ({"x_m": float("nan")}, "finite"),
        ({"color": (0, 0, 300)}, "from 0 to 255"),
        ({"size": 3}, "unknown key|extra"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message.split("|")[-1]):
        MeshConfig(path=Path("x.ply"), **values)
    with pytest.raises(ConfigError):
        EnvConfig.of(meshes=[{"path": "x.ply", **values}])
