"""Measures camera and LiDAR against Open3D/Embree: one thread, the same rays, the same scene, in one run.

Ours is everything that `SensorSuite.observe` does, labels included: solids are gathered and built, cast, shaded and labelled.
Theirs is `cast_rays` alone on the triangles of the same solids, built before. What counts is a batch of environments, as in
training: every round, each contestant observes ENVIRONMENTS scenes one after another, so that what belongs to a scene is in no
cache when its turn comes, neither our solids nor their triangles. `single` has the ratios for one scene that is observed five
times in a row, `alternating` for single calls in turn, in which each finds the caches full of the other's data.
"""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import numba
import numpy as np
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.drive_batch import EnvConfig
from sim.logs.log import cpu_model, git_commit
from sim.roads.driving_map import DrivingMap, load_map
from sim.sensors.cast import COS, CX, CZ, HX, HZ, SHAPE, SIN
from sim.sensors.embree_oracle import EmbreeScene
from sim.sensors.lens import ray_directions
from sim.sensors.parts import BINS, sort_boxes
from sim.sensors.rig import RigConfig, RigName, rig
from sim.sensors.suite import SensorSuite
from sim.sensors.sweep import sweep_directions
from sim.solids import Material, Shape
from sim.world import World

WARM_UP = 3
CALLS = 5
ENVIRONMENTS = 32  # as many as the stages of training that render step at once (configs)
Contestants = dict[str, Callable[[], object]]


def bench_sensors(
    map_name: str = "grid-small", rig_name: str = "small", seed: int = 3, rounds: int = 30
) -> dict[str, Any]:
    """Medians in milliseconds and their ratios, with how they were measured."""
    driving_map = load_map(map_name)
    world = _world(driving_map, range(seed, seed + ENVIRONMENTS))
    full = rig(rig_name)
    agents = world.state.x_m.shape[1]
    first = np.arange(ENVIRONMENTS) == 0
    with _one_thread():
        camera, lidar = (SensorSuite(part, driving_map, ENVIRONMENTS, agents, labels=True) for part in _halves(full))
        camera.observe(world.state)
        lidar.observe(world.state)
        scenes = [EmbreeScene(camera.boxes[e, : camera.counts[e, 0]]) for e in range(ENVIRONMENTS)]
        camera_rays, lidar_rays = _rays(scenes[0], full)
        times = _measure(
            {
                "camera": partial(camera.observe, world.state),
                "camera_embree": partial(_cast_all, scenes, camera_rays),
                "lidar": partial(lidar.observe, world.state),
                "lidar_embree": partial(_cast_all, scenes, lidar_rays),
            },
            rounds, 1, ENVIRONMENTS,
        )  # fmt: skip
        of_one: Contestants = {
            "camera": partial(camera.observe, world.state, first),
            "camera_embree": partial(_cast_all, scenes[:1], camera_rays),
            "lidar": partial(lidar.observe, world.state, first),
            "lidar_embree": partial(_cast_all, scenes[:1], lidar_rays),
        }
        single, alternating = _measure(of_one, rounds, CALLS), _measure(of_one, rounds, 1)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "camera_ms": medians["camera"],
        "camera_embree_ms": medians["camera_embree"],
        "camera_ratio": _ratio(times, "camera"),
        "lidar_ms": medians["lidar"],
        "lidar_embree_ms": medians["lidar_embree"],
        "lidar_ratio": _ratio(times, "lidar"),
        "single": {f"{name}_ratio": _ratio(single, name) for name in ("camera", "lidar")},
        "alternating": {f"{name}_ratio": _ratio(alternating, name) for name in ("camera", "lidar")},
        "quartiles_ms": {n: [float(q) for q in np.percentile(values, [25, 75])] for n, values in times.items()},
        "rounds": rounds,
        "environments": ENVIRONMENTS,
        "map": map_name,
        "rig": rig_name,
        "solids": float(camera.counts[:, 0].mean()),
        "triangles": float(np.mean([scene.triangles for scene in scenes])),
        "camera_rays": sum(c.width_px * c.height_px for c in full.cameras),
        "lidar_rays": full.lidar.beams * full.lidar.columns if full.lidar else 0,
        "threads": 1,
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("numba", "numpy", "open3d")},
        "commit": git_commit(),
    }


def sensor_scaling(map_name: str = "grid-small", seed: int = 3, rounds: int = 15) -> dict[str, Any]:
    """How the cost depends on the number of solids, on their distance and on the rig; and whether memory grows.

    solids: of mixed shapes, anywhere from 5 to 120 m ahead (rig `small`). distance: 200 solids, all that far ahead; the cost of
    one is that of the scene less that of an empty one. rigs: on the map, with Embree beside it. All in milliseconds.
    """
    driving_map = load_map(map_name)
    world = _world(driving_map, (seed,))
    agents = world.state.x_m.shape[1]
    rng = np.random.default_rng(seed)
    with _one_thread():
        parts = _halves(rig("small"))
        suites = {
            name: SensorSuite(part, driving_map, 1, agents, labels=True)
            for name, part in zip(("camera", "lidar"), parts, strict=True)
        }
        for suite in suites.values():
            suite.observe(world.state)
        solids = []
        for count in (10, 30, 100, 300, 1000):
            boxes = _random_solids(rng, count, rng.uniform(5.0, 120.0, count))
            solids.append({"solids": count, **_medians(_scene_contestants(suites, boxes), rounds)})
        empty = _medians(_scene_contestants(suites, _random_solids(rng, 0, np.zeros(0))), rounds)
        distances = []
        for distance in (5.0, 10.0, 20.0, 40.0, 80.0):
            boxes = _random_solids(rng, 200, np.full(200, distance))
            costs = _medians(_scene_contestants(suites, boxes), rounds)
            each = {f"{name}_us_per_solid": 5.0 * (costs[name] - empty[name]) for name in ("camera", "lidar")}
            distances.append({"distance_m": distance, **each})
        rigs = {name: _rig_costs(name, driving_map, world, rounds) for name in get_args(RigName)}
        before = _resident_bytes()
        for _ in range(2000):
            for suite in suites.values():
                suite.observe(world.state)
        growth = _resident_bytes() / before - 1.0
    return {"solids": solids, "distance": distances, "rigs": rigs, "rss_growth": growth}


class BenchError(ValueError):
    """A measurement that cannot be made or drawn here."""


def require_plot(path: Path) -> None:
    """Raises BenchError, with what to do, where `plot_scaling` could not draw into that file."""
    if path.suffix != ".png" or not path.parent.is_dir():
        raise BenchError(f"--plot {path}: give the name of a .png file in a folder that exists")
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib: pip install 'automedon[plots]'")


def plot_scaling(report: dict[str, Any], path: Path) -> None:
    """Draw cost against number of solids and against distance. Needs matplotlib (extra `plots`)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colors = {"camera": "#2a6fbb", "lidar": "#c9582c"}
    numbers = [row["solids"] for row in report["solids"]]
    for name, color in colors.items():
        label = {"camera": "cameras (26,624 rays)", "lidar": "LiDAR (16,384 rays)"}[name]
        left.plot(numbers, [row[name] for row in report["solids"]], "o-", color=color, label=f"Automedon, {label}")
        theirs = [row[f"{name}_embree"] for row in report["solids"]]
        left.plot(numbers, theirs, "o--", color=color, alpha=0.6, label=f"Embree, {label}, rays alone")
        distance = [row["distance_m"] for row in report["distance"]]
        right.plot(
            distance, [row[f"{name}_us_per_solid"] for row in report["distance"]], "o-", color=color, label=label
        )
    left.set(xscale="log", yscale="log", xlabel="solids in the scene", ylabel="ms a frame, one thread")
    right.set(xscale="log", yscale="log", xlabel="distance of the solids, m", ylabel="microseconds a solid")
    right.set_xticks(distance, [f"{d:g}" for d in distance])
    right.set_xticks([], minor=True)
    left.set_ylim(top=6 * max(row["camera_embree"] for row in report["solids"]))
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False, fontsize=8, loc="upper left" if axes is left else "upper right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _world(driving_map: DrivingMap, seeds: Sequence[int]) -> World:
    count = len(seeds)
    world = World(driving_map, EnvConfig.of().world, count)
    world.reset(np.ones(count, np.bool_), np.array(seeds, np.uint64), np.zeros(count, np.int64))
    for _ in range(20):
        world.step(np.full((count, 2), [0.0, 0.2], np.float32))
    return world


def _halves(full: RigConfig) -> tuple[RigConfig, RigConfig]:
    return RigConfig(cameras=full.cameras, lidar=None), RigConfig(cameras=(), lidar=full.lidar)


def _rays(scene: EmbreeScene, full: RigConfig) -> tuple[list[Any], list[Any]]:
    """Embree's rays of all cameras, and of the LiDAR."""
    cameras = []
    for config in full.cameras:
        calibration = config.calibration()
        origin = calibration.ego_from_camera[:3, 3].astype(np.float32)
        cameras.append(scene.rays(origin, ray_directions(calibration)))
    if full.lidar is None:
        return cameras, []
    pose = full.lidar.mount.ego_from_mount()
    directions = sweep_directions(np.radians(full.lidar.elevations_deg), full.lidar.azimuths_rad(), pose)
    return cameras, [scene.rays(pose[:3, 3].astype(np.float32), directions)]


def _random_solids(rng: np.random.Generator, count: int, distance_m: NDArray[np.float64]) -> NDArray[np.float32]:
    """Solids of the size of cars within 40 degrees of straight ahead, (N, BOX_COLUMNS)."""
    boxes = np.zeros((count, max(SHAPE, SIN) + 1), np.float32)
    boxes[:, HX : HZ + 1] = rng.uniform([0.4, 0.3, 0.4], [2.2, 1.0, 1.0], (count, 3))
    angle, yaw = np.radians(rng.uniform(-40, 40, count)), rng.uniform(-np.pi, np.pi, count)
    boxes[:, CX], boxes[:, CX + 1] = distance_m * np.cos(angle), distance_m * np.sin(angle)
    boxes[:, CZ] = boxes[:, HZ] + 0.01
    boxes[:, COS], boxes[:, SIN] = np.cos(yaw), np.sin(yaw)
    boxes[:, SHAPE] = rng.choice(len(Shape), count)
    return boxes


def _scene_contestants(suites: dict[str, SensorSuite], boxes: NDArray[np.float32]) -> Contestants:
    """Both sensors on a scene given box by box, and Embree on the same."""
    contestants: Contestants = {}
    scene, everyone = EmbreeScene(boxes), np.zeros(1, np.intp)
    for name, suite in suites.items():
        count = len(boxes)
        suite.boxes[0, :count] = boxes
        suite.attributes[0, :count] = [int(Material.PAINT), int(SemanticClass.VEHICLE), 1, 120, 40, 40]
        suite.counts[0] = count, count
        sort_boxes(suite.boxes[0], count, suite.order[0], np.zeros(BINS + 1 + count, np.int32))
        cameras, sweeps = _rays(scene, suite.rig)
        contestants[name] = partial(suite.render, everyone)
        contestants[f"{name}_embree"] = partial(_cast_all, [scene], cameras + sweeps)
    return contestants


def _rig_costs(name: str, driving_map: DrivingMap, world: World, rounds: int) -> dict[str, float]:
    full = rig(name)
    agents = world.state.x_m.shape[1]
    costs = {"cameras": float(len(full.cameras)), "camera_rays": 0.0, "lidar_rays": 0.0}
    costs["camera_rays"] = float(sum(c.width_px * c.height_px for c in full.cameras))
    for part, kind in zip(_halves(full), ("camera", "lidar"), strict=True):
        if not part.cameras and part.lidar is None:
            continue
        suite = SensorSuite(part, driving_map, 1, agents, labels=True)
        suite.observe(world.state)
        scene = EmbreeScene(suite.boxes[0, : int(suite.counts[0, 0])])
        cameras, sweeps = _rays(scene, part)
        if part.lidar is not None:
            costs["lidar_rays"] = float(part.lidar.beams * part.lidar.columns)
        contestants: Contestants = {
            kind: partial(suite.observe, world.state),
            f"{kind}_embree": partial(_cast_all, [scene], cameras + sweeps),
        }
        times = _measure(contestants, max(3, rounds // 3), 1)
        costs[f"{kind}_ms"] = float(np.median(times[kind]))
        costs[f"{kind}_embree_ms"] = float(np.median(times[f"{kind}_embree"]))
        costs[f"{kind}_ratio"] = _ratio(times, kind)
    return costs


def _cast_all(scenes: Sequence[EmbreeScene], rays: list[Any]) -> None:
    for scene in scenes:
        for tensor in rays:
            scene.cast_tensor(tensor)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(threads)


def _measure(contestants: Contestants, rounds: int, calls: int, scenes: int = 1) -> dict[str, list[float]]:
    """Milliseconds a scene, by contestant and round; every round times `calls` of each in turn, each of that many scenes."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for k in range(WARM_UP + rounds):
        for name, run in contestants.items():
            begin = time.perf_counter()
            for _ in range(calls):
                run()
            if k >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - begin) / (calls * scenes))
    return times


def _medians(contestants: Contestants, rounds: int) -> dict[str, float]:
    return {name: float(np.median(values)) for name, values in _measure(contestants, rounds, CALLS).items()}


def _ratio(times: dict[str, list[float]], name: str) -> float:
    """Median of the ratios round by round, so that a slow moment of the machine hits both."""
    return float(np.median(np.array(times[f"{name}_embree"]) / np.array(times[name])))


def _resident_bytes() -> int:
    """Memory of this process that is in RAM; Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
