"""The sensor benchmark measures what it says, on a scene that both contestants see alike."""

from __future__ import annotations

import numpy as np

from sim.bench_sensors import _random_solids, _rays, _world, bench_sensors
from sim.roads.driving_map import load_map
from sim.sensors.embree_oracle import EmbreeScene
from sim.sensors.rig import rig
from sim.sensors.suite import SensorSuite


def test_report_has_the_keys_that_others_rely_on() -> None:
    report = bench_sensors(rig_name="smoke", rounds=2)
    for kind in ("camera", "lidar"):
        assert report[f"{kind}_ms"] > 0
        assert report[f"{kind}_embree_ms"] > 0
        assert report[f"{kind}_ratio"] > 0
        assert report["single"][f"{kind}_ratio"] > 0
        assert report["alternating"][f"{kind}_ratio"] > 0
    assert report["threads"] == 1
    assert report["triangles"] > 12 * 100


def test_both_contestants_see_the_same() -> None:
    town = load_map("grid-small")
    world = _world(town, (3,))
    small = rig("small")
    suite = SensorSuite(small, town, 1, world.state.x_m.shape[1], labels=True)
    suite.observe(world.state)
    scene = EmbreeScene(suite.boxes[0, : int(suite.counts[0, 0])])
    camera_rays, lidar_rays = _rays(scene, small)
    names = [c.name for c in small.cameras] + [small.lidar.name if small.lidar else ""]
    for name, rays in zip(names, camera_rays + lidar_rays, strict=True):
        distance, _ = scene.cast(rays)
        # Embree's round solids are facetted, ours are not.
        seen = np.isfinite(distance) & (distance < 70.0)
        assert np.mean(np.abs(suite.depth[name][0] - distance)[seen] < 0.02) > 0.98


def test_solids_of_the_scaling_stand_where_they_should() -> None:
    boxes = _random_solids(np.random.default_rng(0), 50, np.full(50, 20.0))
    assert np.allclose(np.hypot(boxes[:, 0], boxes[:, 1]), 20.0, atol=1e-4)
    assert (boxes[:, 0] > 0).all()
