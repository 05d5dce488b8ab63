"""Measures camera and LiDAR against Open3D/Embree: one thread, the same rays, the same scene, in one run.

Ours is everything that `SensorSuite.observe` does for one environment, labels included: boxes are gathered and built,
cast, shaded and labelled. Theirs is `cast_rays` alone on the triangles of the same boxes, built before.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numba
import numpy as np

from sim.env import EnvConfig
from sim.logs.log import cpu_model, git_commit
from sim.roads.driving_map import load_map
from sim.sensors.cast import pinhole_directions, sweep_directions
from sim.sensors.embree_oracle import EmbreeScene
from sim.sensors.rig import RigConfig, rig
from sim.sensors.suite import SensorSuite
from sim.world import World

WARM_UP = 5


def bench_sensors(
    map_name: str = "grid-small", rig_name: str = "small", seed: int = 3, rounds: int = 40
) -> dict[str, Any]:
    """Medians in milliseconds and their ratios, with how they were measured. Every round times all four in turn."""
    driving_map = load_map(map_name)
    world = World(driving_map, EnvConfig.of().world, 1)
    world.reset(np.ones(1, np.bool_), np.array([seed], np.uint64), np.zeros(1, np.int64))
    for _ in range(20):
        world.step(np.array([[0.0, 0.2]], np.float32))
    full = rig(rig_name)
    agents = world.state.x_m.shape[1]
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        camera = SensorSuite(RigConfig(cameras=full.cameras, lidar=None), driving_map, 1, agents, labels=True)
        lidar = SensorSuite(RigConfig(cameras=(), lidar=full.lidar), driving_map, 1, agents, labels=True)
        camera.observe(world.state)
        lidar.observe(world.state)
        count = int(camera.counts[0, 0])
        scene = EmbreeScene(camera.boxes[0, :count])
        camera_rays = []
        for config in full.cameras:
            calibration = config.calibration()
            directions = pinhole_directions(
                calibration.intrinsics, calibration.ego_from_camera, config.width_px, config.height_px
            )
            origin = calibration.ego_from_camera[:3, 3].astype(np.float32)
            camera_rays.append(scene.rays(origin, directions))
        assert full.lidar is not None
        ego_from_lidar = full.lidar.mount.ego_from_mount()
        directions = sweep_directions(
            np.radians(full.lidar.elevations_deg), full.lidar.ray_azimuths_rad(), ego_from_lidar
        )
        lidar_rays = scene.rays(ego_from_lidar[:3, 3].astype(np.float32), directions)
        contestants: dict[str, Callable[[], object]] = {
            "camera": lambda: camera.observe(world.state),
            "camera_embree": lambda: [scene.cast_tensor(rays) for rays in camera_rays],
            "lidar": lambda: lidar.observe(world.state),
            "lidar_embree": lambda: scene.cast_tensor(lidar_rays),
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for k in range(WARM_UP + rounds):
            for name, run in contestants.items():
                begin = time.perf_counter()
                run()
                if k >= WARM_UP:
                    times[name].append(1000 * (time.perf_counter() - begin))
    finally:
        numba.set_num_threads(threads)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    spread = {name: [float(q) for q in np.percentile(values, [25, 75])] for name, values in times.items()}
    return {
        "camera_ms": medians["camera"],
        "camera_embree_ms": medians["camera_embree"],
        "camera_ratio": _ratio(times["camera_embree"], times["camera"]),
        "lidar_ms": medians["lidar"],
        "lidar_embree_ms": medians["lidar_embree"],
        "lidar_ratio": _ratio(times["lidar_embree"], times["lidar"]),
        "quartiles_ms": spread,
        "rounds": rounds,
        "map": map_name,
        "rig": rig_name,
        "boxes": count,
        "triangles": scene.triangles,
        "camera_rays": sum(c.width_px * c.height_px for c in full.cameras),
        "lidar_rays": full.lidar.beams * full.lidar.columns,
        "threads": 1,
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("numba", "numpy", "open3d")},
        "commit": git_commit(),
    }


def _ratio(theirs: list[float], ours: list[float]) -> float:
    """Median of the ratios round by round, so that a slow moment of the machine hits both."""
    return float(np.median(np.array(theirs) / np.array(ours)))
