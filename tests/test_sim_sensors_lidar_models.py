"""LiDAR models against their data sheets, against calibrations of real units, and against real sweeps."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from perception.geometry import rotation_from_euler, se3
from sim.logs.reader import open_log
from sim.sensors.cast import BOX_COLUMNS, COS, CX, CZ, FAR_M, HX, HZ, NEAR, SIN, cast_ground
from sim.sensors.embree_oracle import EmbreeScene
from sim.sensors.lidar_models import LIDAR_NAMES, LidarModelError, LidarName, lidar_model
from sim.sensors.rig import LidarConfig
from sim.sensors.sweep import BOUNDS, cast_sweep, sweep_directions
from sim.simd import WIDTH

STATISTICS = Path(__file__).resolve().parents[1] / "benchmarks" / "lidar_statistics.py"
names = st.sampled_from(LIDAR_NAMES)

# Beams, field of view (top, bottom), columns at 10 Hz, range: as the data sheets print them.
DATA_SHEETS = {
    "VLP-16": (16, 15.0, -15.0, 1808, 100.0),
    "HDL-32E": (32, 10.67, -30.67, 2170, 100.0),
    "HDL-64E": (64, 2.0, -24.9, 2083, 120.0),
    "Pandar64": (64, 15.0, -25.0, 1800, 200.0),
    "OS1-128": (128, 22.5, -22.5, 2048, 120.0),
}


@pytest.mark.parametrize("name", LIDAR_NAMES)
def test_model_is_that_of_its_data_sheet(name: LidarName) -> None:
    beams, top, bottom, columns, range_m = DATA_SHEETS[name]
    lidar = LidarConfig.of_model(name)
    assert lidar.beams == beams
    assert lidar.columns == columns
    assert lidar.max_range_m == range_m
    # A unit's outermost beams: Ouster rounds its field of view up to 45 degrees.
    assert lidar.elevations_deg[0] == pytest.approx(top, abs=1.6 if name == "OS1-128" else 0.15)
    assert lidar.elevations_deg[-1] == pytest.approx(bottom, abs=0.8 if name == "OS1-128" else 0.15)
    per_second = lidar.beams * lidar.columns * lidar.rate_hz
    assert per_second == pytest.approx(lidar_model(name).points_per_second, rel=0.04)


@pytest.mark.parametrize(("name", "rates"), [("VLP-16", (5, 10, 20)), ("Pandar64", (10, 20)), ("OS1-128", (10, 20))])
def test_faster_turns_have_fewer_columns(name: LidarName, rates: tuple[int, ...]) -> None:
    per_second = [LidarConfig.of_model(name, rate_hz=rate).columns * rate for rate in rates]
    assert max(per_second) - min(per_second) <= max(rates) / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("HDL-64",), "no LiDAR named"),
        (("VLP-16", {"rate_hz": 4}), "turns 5 to 20 times"),
        (("Pandar64", {"rate_hz": 15}), "turns 10 or 20 times"),
        (("OS1-128", {"rate_hz": 20, "columns": 2048}), "fires 1024 times in a turn at 20 Hz, not 2048"),
    ],
)
def test_what_the_sensor_cannot_do_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(LidarModelError, match=message):
        LidarConfig.of_model(arguments[0], **(arguments[1] if len(arguments) > 1 else {}))


def test_offsets_need_one_for_each_beam() -> None:
    with pytest.raises(ValidationError, match="one for each of 2 beams"):
        LidarConfig(elevations_deg=(1.0, 0.0), columns=100, azimuth_offsets_deg=(1.0,))


@given(name=names, columns=st.integers(64, 1024), clockwise=st.booleans())
def test_rays_and_times_are_those_of_the_turning_beams(name: LidarName, columns: int, clockwise: bool) -> None:
    lidar = LidarConfig.of_model(name, columns=columns, clockwise=clockwise)
    offsets = np.radians(lidar.azimuth_offsets_deg or (0.0,) * lidar.beams)
    # Straight from what the sensor does: the rotor stands at the middle of each column in turn, every beam at its offset.
    rotor = np.arange(columns) if not clockwise else np.arange(columns)[::-1]
    fired_us = (np.arange(columns) + 1) * (1e6 / lidar.rate_hz / columns) - 1e6 / lidar.rate_hz
    step = 2 * np.pi / columns
    azimuth = -np.pi + (rotor[None, :] + 0.5) * step + offsets[:, None]
    rays, times = lidar.ray_azimuths_rad(), lidar.time_offsets_us()
    column = np.rint((azimuth + np.pi) / step - 0.5).astype(int) % columns
    beam = np.arange(lidar.beams)[:, None]
    assert (np.sort(column, axis=1) == np.arange(columns)).all() or abs((offsets / step) % 1 - 0.5).min() < 1e-6
    turned = np.abs(np.angle(np.exp(1j * (rays[beam, column] - azimuth))))
    assert turned.max() < 1e-9 or abs((offsets / step) % 1 - 0.5).min() < 1e-6
    right = turned < 1e-9
    assert (np.abs(times[beam, column] - fired_us[None, :])[right] <= 0.51).all()
    assert times.max() <= 0
    assert times.min() > -1e6 / lidar.rate_hz
    assert np.abs(rays - lidar.azimuths_rad()).max() <= step / 2 + 1e-9


@settings(max_examples=40, deadline=None)
@given(name=names, seed=st.integers(0, 2**32 - 1), yaw=st.floats(-3.1, 3.1), tilt=st.sampled_from([0.0, 0.2]),
       span=st.sampled_from([360.0, 100.0]))  # fmt: skip
def test_sweeps_of_real_models_agree_with_embree(
    name: LidarName, seed: int, yaw: float, tilt: float, span: float
) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.zeros((30, BOX_COLUMNS), np.float32)
    boxes[:, HX : HZ + 1] = rng.uniform(0.05, 3.0, (30, 3))
    boxes[:, CX : CX + 2] = rng.uniform(-40, 40, (30, 2))
    boxes[:, CZ] = boxes[:, HZ] + rng.choice([0.013, 1.5], 30)
    turned = rng.uniform(-np.pi, np.pi, 30)
    boxes[:, COS], boxes[:, SIN] = np.cos(turned), np.sin(turned)
    lidar = LidarConfig.of_model(name, columns=180, azimuth_range_deg=span)
    pose = se3(rotation_from_euler(yaw, tilt), [1.2, 0.0, 1.8])
    elevations, rays = np.radians(lidar.elevations_deg), lidar.ray_azimuths_rad()
    directions = sweep_directions(elevations, rays, pose)
    origin = pose[:3, 3].astype(np.float32)
    depth, code = np.empty(directions.shape[1:], np.float32), np.empty(directions.shape[1:], np.int32)
    cast_ground(origin, directions[2], depth, code)
    azimuths = lidar.azimuths_rad()
    cast_sweep(
        boxes, np.arange(30, dtype=np.int32), 30, origin, np.ascontiguousarray(pose[:3, :3].T, np.float32), tilt == 0.0,
        FAR_M, np.tan(elevations).astype(np.float32), np.float32(azimuths[0]),
        np.float32(np.radians(lidar.azimuth_step_deg)), np.float32(np.abs(rays - azimuths).max()), *directions,
        depth, code, np.zeros((BOUNDS, WIDTH), np.float32),
    )  # fmt: skip
    scene = EmbreeScene(boxes)
    theirs, identity = scene.cast(scene.rays(origin, directions))
    near = (theirs < 1000.0) & (theirs > NEAR)  # from within a solid one sees through a face that is nearer
    ours = np.where(code >= 0, code >> 2, code)
    assert np.mean(np.abs(depth[near] - theirs[near]) < 1e-3 + 1e-6 * theirs[near]) >= 0.999
    assert np.mean(ours[near] == identity[near]) >= 0.999


def test_vlp16_is_calibrated_as_its_table_says(shared_data: Path) -> None:
    text = (shared_data / "velodyne" / "calibration" / "VLP16.yaml").read_text(encoding="utf-8")
    angles = sorted((float(a) for a in re.findall(r"vert_correction: ([-\d.]+)", text)), reverse=True)
    assert np.degrees(angles) == pytest.approx(lidar_model("VLP-16").elevations_deg, abs=1e-6)
    assert {float(a) for a in re.findall(r"rot_correction: ([-\d.]+)", text)} == {0.0}


def test_os1_is_calibrated_as_its_table_says(shared_data: Path) -> None:
    unit = json.loads((shared_data / "ouster" / "OS-1-128_v2.3.0_1024x10.json").read_text(encoding="utf-8"))
    model = lidar_model("OS1-128")
    assert np.abs(np.array(unit["beam_altitude_angles"]) - model.elevations_deg).max() < 0.03
    # Ouster counts azimuth clockwise.
    assert np.abs(np.array(unit["beam_azimuth_angles"]) + model.azimuth_offsets_deg).max() < 0.03


def beam_cones(points: NDArray[np.float32]) -> list[float]:
    """Elevation in degrees of each beam of a sweep of KITTI's, top to bottom, beam after beam and each a turn from the front.

    A laser that sits v above the origin and looks up by e draws the cone z = v + d tan(e) over the horizontal distance d.
    """
    p = points.astype(np.float64)
    azimuth = np.arctan2(p[:, 1], p[:, 0])
    starts = np.flatnonzero((azimuth[:-1] < 0) & (azimuth[1:] >= 0)) + 1
    angles = []
    for beam in np.split(p, starts):
        d = np.column_stack([np.hypot(beam[:, 0], beam[:, 1]), np.ones(len(beam))])
        kept = np.ones(len(beam), np.bool_)
        for _ in range(4):
            slope = np.linalg.lstsq(d[kept], beam[kept, 2], rcond=None)[0]
            error = np.abs(d @ slope - beam[:, 2])
            kept = error < max(3 * np.median(error), 0.003)
        angles.append(float(np.degrees(np.arctan(slope[0]))))
    return angles


def test_hdl64e_of_kitti_looks_where_its_table_says(shared_data: Path) -> None:
    sweep = next(iter(sorted((shared_data / "kitti_raw").rglob("velodyne_points/data/0000000000.bin"))))
    angles = beam_cones(np.fromfile(sweep, np.float32).reshape(-1, 4))
    assert len(angles) == 64
    assert np.abs(np.array(angles) - lidar_model("HDL-64E").elevations_deg).max() < 0.25


def test_pandar64_of_pandaset_looks_where_its_table_says(shared_data: Path) -> None:
    """The times of its points give the rotor's angle; what is left of azimuth and elevation names the beam."""
    spec = importlib.util.spec_from_file_location("lidar_statistics", STATISTICS)
    assert spec is not None
    assert spec.loader is not None
    statistics = sys.modules["lidar_statistics"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(statistics)
    with open_log(shared_data / "pandaset" / "ros2_mcap") as log:
        sweep = next(iter(next(iter(log.steps())).frame.lidars.values()))
    assert sweep is not None
    assert sweep.time_offset_us is not None
    elevation, azimuth, range_m = statistics.pandar64_rays(sweep.points, sweep.time_offset_us * 1e-6)
    model = lidar_model("Pandar64")
    far = (range_m > 5.0) & (range_m < 80.0)
    # Six planes two degrees apart, from the fan of azimuth offsets; all points are near one of them.
    planes = np.unique(model.azimuth_offsets_deg)
    assert len(planes) == 6
    nearest = np.abs(azimuth[:, None] - planes)
    assert np.mean(nearest.min(axis=1)[far] < 0.4) > 0.97
    # Within a plane, every beam of the table finds points at its elevation, and points lie at beams.
    plane = nearest.argmin(axis=1)
    elevations, offsets = np.array(model.elevations_deg), np.array(model.azimuth_offsets_deg)
    for k in range(6):
        beams = elevations[offsets == planes[k]]
        away = np.abs(elevation[far & (plane == k)][:, None] - beams)
        assert np.mean(away.min(axis=1) < 0.2) > 0.9
        found = [np.median(elevation[far & (plane == k) & (np.abs(elevation - b) < 0.3)]) for b in beams if b > -15]
        assert np.abs(np.array(found) - beams[beams > -15]).max() < 0.15


def test_statistics_without_data_end_politely(tmp_path: Path) -> None:
    command = [sys.executable, str(STATISTICS), "--data", str(tmp_path / "absent")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=STATISTICS.parents[1], check=False)
    assert run.returncode == 0, run.stderr
    assert "give their folder with --data" in run.stdout
