"""Steps with random contents, for tests of logs and replay: every field filled, no simulator needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perception.geometry import rotation_from_euler, se3
from perception.sensors import CameraCalibration, CameraFrame, EgoState, GnssFix, ImuSamples, LidarSweep, SensorFrame
from planning.action import Action
from sim.logs.log import ImageFormat, LogHeader
from sim.step import Actors, ParkedVehicle, Standing, Step

WIDTH_PX, HEIGHT_PX = 48, 24
EGO_FROM_CAMERA = se3([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [1.2, 0.1, 1.6])
EGO_FROM_LIDAR = se3(rotation_from_euler(0.3, 0.01, 0.02), [1.0, 0.0, 1.9])
CALIBRATION = CameraCalibration(
    WIDTH_PX,
    HEIGHT_PX,
    np.array([[30.0, 0.0, 23.5], [0.0, 30.0, 11.5], [0.0, 0.0, 1.0]]),
    EGO_FROM_CAMERA,
    "brown_conrady",
    np.array([-0.1, 0.01, 1e-3, -1e-3]),
)


def header(image_format: ImageFormat = "png") -> LogHeader:
    """A header as a run would write it."""
    return LogHeader(
        config='{"size":"smoke"}',
        seed=2**61 + 1,
        episode=3,
        policy="expert",
        map_name="grid-small",
        git_commit="0" * 40,
        cpu_model="test",
        versions={"numpy": np.__version__},
        image_format=image_format,
    )


def synthetic_steps(count: int, seed: int = 0, points: int = 200, actors: int = 5) -> Iterator[Step]:
    """An episode of `count` steps. At odd ticks the camera `side` and GNSS are silent and signals, events, actors
    and standing are absent;
    the LiDAR's points have times at ticks divisible by 3."""
    random = np.random.default_rng(seed)
    for tick in range(count):
        now_us = tick * 100_000
        shape = (HEIGHT_PX, WIDTH_PX, 3)
        front = CameraFrame(random.integers(0, 256, shape, np.uint8), CALIBRATION, now_us - 10_000)
        side = CameraFrame(random.integers(0, 256, shape, np.uint8), CALIBRATION, now_us)
        offsets = random.integers(-100_000, 1, points).astype(np.int32) if tick % 3 == 0 else None
        sweep = LidarSweep(random.normal(size=(points, 4)).astype(np.float32), EGO_FROM_LIDAR, now_us, offsets)
        pose = se3(rotation_from_euler(*random.normal(size=3).tolist()), random.normal(size=3) * 100)
        ego = EgoState(now_us, *random.normal(size=5).tolist(), world_from_ego=pose)
        last = tick == count - 1
        yield Step(
            tick=tick,
            timestamp_us=now_us,
            frame=SensorFrame(
                now_us,
                {"front": front, "side": None if tick % 2 else side},
                {"top": sweep},
                ego,
                random.normal(size=(20, 2)).astype(np.float32),
                None if tick % 2 else _fix(now_us, np.random.default_rng([seed, tick])),
                _samples(now_us, np.random.default_rng([seed, tick, 1])),
            ),
            action=None if last else Action(*random.uniform(-1, 1, 2).tolist()),
            reward=float(random.normal()),
            reward_terms={"progress": float(random.normal()), "comfort": 1.0},
            events={} if tick % 2 else {"red_light": "crossed the stop line of signal 3 at red"},
            actors=None if tick % 2 else _actors(random, actors),
            signals=None if tick % 2 else random.integers(0, 4, 7).astype(np.int8),
            progress_m=float(tick),
            route_length_m=100.0,
            standing=None if tick % 2 else _standing(tick),
        )


def _fix(now_us: int, random: np.random.Generator) -> GnssFix:
    latitude, longitude, altitude = random.uniform([-80.0, -180.0, -100.0], [80.0, 180.0, 3000.0]).tolist()
    return GnssFix(now_us, latitude, longitude, altitude, random.normal(size=3), 0.8, 1.6)


def _samples(now_us: int, random: np.random.Generator) -> ImuSamples:
    times = now_us - 10_000 * np.arange(9, -1, -1, dtype=np.int64)
    return ImuSamples(times, random.normal(size=(10, 3)), random.normal(size=(10, 3)))


def _standing(tick: int) -> Standing:
    return Standing(
        length_m=4.6,
        width_m=1.86,
        center_ahead_m=1.35,
        lane_offset_m=None if tick % 4 else 0.1 * tick,
        speed_limit_mps=13.889,
        off_drivable_m=0.0,
        in_junction=tick % 3 == 0,
        in_several_lanes=False,
        off_lanes=tick % 4 == 2,
        against_flow=False,
        stop_sign=tick - 1,
        stop_sign_distance_m=None if tick == 0 else 7.5,
        signal=-1 if tick % 4 else 2,
        signal_distance_m=None if tick % 4 else 3.25 - tick,
        touched=(3, -12) if tick % 4 else (),
        parked=(ParkedVehicle(-12, 0.1 * tick, -3.5, 1.57, 4.25, 1.8),) if tick % 4 else (),
    )


def _actors(random: np.random.Generator, count: int) -> Actors:
    return Actors(
        instance=np.arange(1, count + 1, dtype=np.int32),
        kind=random.integers(0, 7, count).astype(np.int8),
        center=random.normal(size=(count, 3)) * 50,
        size=random.uniform(0.5, 5, (count, 3)),
        yaw_rad=random.uniform(-3, 3, count),
        speed_mps=random.uniform(0, 20, count),
    )
