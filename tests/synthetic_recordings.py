"""Recordings of invented traffic, in the layouts of the real data sets: a straight street of two lanes along a slanted line.

The recorded car drives at 8 m/s in the right lane; a car follows 14 m behind it, one comes towards it, a car stands parked,
somebody walks beside the road, and a bicycle crosses far ahead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.playback.recorded_scene import RecordedScene
from sim.roads.driving_map import DrivingMap

TICKS = 91
SPEED_MPS = 8.0
GAP_M = 14.0
YAW_RAD = 0.6
ORIGIN = np.array([5321.25, -812.5])
CAR_SIZE = (4.6, 1.9, 1.6)
LANE_M = 3.5
FOLLOWER, ONCOMING, PARKED, WALKER, CYCLIST = range(5)


def placed(along: NDArray[np.float64], left: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """(N, 2) recording coordinates of places along the street and left of its right lane's middle, m."""
    ahead, aside = np.array([np.cos(YAW_RAD), np.sin(YAW_RAD)]), np.array([-np.sin(YAW_RAD), np.cos(YAW_RAD)])
    along, left = np.broadcast_arrays(np.asarray(along, np.float64), np.asarray(left, np.float64))
    return ORIGIN + along[..., None] * ahead + left[..., None] * aside


def motions() -> list[tuple[str, tuple[float, float, float], NDArray[np.float64], NDArray[np.float64]]]:
    """Type, size, places (T, 2) and yaw (T,) of the others, in the order of the constants above."""
    t = 0.1 * np.arange(TICKS)
    yaw = np.full(TICKS, YAW_RAD)
    return [
        ("vehicle", CAR_SIZE, placed(SPEED_MPS * t - GAP_M, 0.0), yaw),
        ("vehicle", CAR_SIZE, placed(90.0 - 9.0 * t, LANE_M), yaw + np.pi),
        ("vehicle", CAR_SIZE, placed(np.full(TICKS, 30.0), -2.6), yaw),
        ("pedestrian", (0.6, 0.6, 1.8), placed(35.0 + 1.3 * t, -4.5), yaw),
        ("cyclist", (1.8, 0.7, 1.7), placed(np.full(TICKS, 120.0), 4.0 * t - 12.0), yaw + 0.5 * np.pi),
    ]


def ego_places() -> NDArray[np.float64]:
    """(T, 2) of the middle of the recorded car."""
    return placed(SPEED_MPS * 0.1 * np.arange(TICKS), 0.0)


def _track(kind: str, size: tuple[float, float, float], places: NDArray[np.float64], yaw: NDArray[np.float64]) -> Any:
    return {
        "position": [{"x": float(x), "y": float(y), "z": 3.0} for x, y in places],
        "heading": [float(v) for v in np.angle(np.exp(1j * yaw))],
        "velocity": [{"x": 0.0, "y": 0.0}] * len(places),
        "valid": [True] * len(places),
        "length": size[0], "width": size[1], "height": size[2], "type": kind, "id": 7,
    }  # fmt: skip


def waymo_scenario() -> dict[str, Any]:
    """A scenario as JSON values; the recorded car is the last object."""
    objects = [_track(*motion) for motion in motions()]
    objects.append(_track("vehicle", CAR_SIZE, ego_places(), np.full(TICKS, YAW_RAD)))

    def line(kind: str, code: int, along: NDArray[np.float64], left: float) -> dict[str, Any]:
        return {
            "type": kind,
            "map_element_id": code,
            "geometry": [{"x": x, "y": y, "z": 0.0} for x, y in placed(along, left)],
        }

    here, there = np.linspace(-60.0, 60.0, 241), np.linspace(60.0, 180.0, 241)
    back = np.linspace(180.0, -60.0, 481)
    whole = back[::-1]
    walk = placed(np.array([100.0, 103.0, 103.0, 100.0]), np.array([-1.7, -1.7, 5.2, 5.2]))
    return {
        "name": "synthetic",
        "scenario_id": "invented",
        "objects": objects,
        "roads": [
            line("lane", 2, here, 0.0), line("lane", 2, there, 0.0), line("lane", 2, back, LANE_M),
            line("road_line", 12, whole, 0.5 * LANE_M), line("road_line", 6, whole, -0.5 * LANE_M),
            line("road_edge", 15, whole, -4.0), line("road_edge", 15, back, 5.5),
            {"type": "crosswalk", "map_element_id": 18, "geometry": [{"x": x, "y": y, "z": 0.0} for x, y in walk]},
            line("stop_sign", 17, np.array([98.0]), 0.0),
        ],
        "tl_states": {},
        "metadata": {"sdc_track_index": len(objects) - 1, "objects_of_interest": [], "tracks_to_predict": []},
    }  # fmt: skip


def write_waymo(path: Path) -> Path:
    """The scenario as a file."""
    path.write_text(json.dumps(waymo_scenario()), encoding="utf-8")
    return path


def _quaternion(yaw: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    zero = np.zeros_like(yaw)
    return {"qw": np.cos(0.5 * yaw), "qx": zero, "qy": zero, "qz": np.sin(0.5 * yaw)}


def write_argoverse2(folder: Path, rear_axle_m: float = 1.4) -> Path:
    """The same traffic as a log: boxes in the frame of the car, whose origin is its rear axle, at uneven stamps."""
    import pyarrow as pa
    from pyarrow import feather

    start, stamp = 315_000_000_000_000_000, []
    clock = np.arange(TICKS) * 100_000_000 + np.where(np.arange(TICKS) % 2 == 0, 0, 3_000_000)
    stamp = start + clock
    seconds = clock / 1e9
    car = placed(SPEED_MPS * seconds - rear_axle_m, 0.0)
    table = {"timestamp_ns": stamp, **_quaternion(np.full(TICKS, YAW_RAD)), "tx_m": car[:, 0], "ty_m": car[:, 1]}
    (folder / "map").mkdir(parents=True)
    feather.write_feather(pa.table({**table, "tz_m": np.zeros(TICKS)}), str(folder / "city_SE3_egovehicle.feather"))
    categories = ["REGULAR_VEHICLE", "REGULAR_VEHICLE", "REGULAR_VEHICLE", "PEDESTRIAN", "BICYCLE"]
    columns: dict[str, list[Any]] = {}
    cos, sin = np.cos(YAW_RAD), np.sin(YAW_RAD)
    for k, (category, (_, size, places, yaw)) in enumerate(zip(categories, motions(), strict=True)):
        even = 0.1 * np.arange(TICKS)
        there = np.stack([np.interp(seconds, even, places[:, c]) for c in range(2)], axis=1) - car
        part = {
            "timestamp_ns": stamp, "track_uuid": [f"track-{k}"] * TICKS, "category": [category] * TICKS,
            "length_m": np.full(TICKS, size[0]), "width_m": np.full(TICKS, size[1]), "height_m": np.full(TICKS, size[2]),
            **_quaternion(yaw - YAW_RAD), "tx_m": cos * there[:, 0] + sin * there[:, 1],
            "ty_m": cos * there[:, 1] - sin * there[:, 0], "tz_m": np.zeros(TICKS),
        }  # fmt: skip
        for name, values in part.items():
            columns.setdefault(name, []).extend(list(values))
    feather.write_feather(pa.table(columns), str(folder / "annotations.feather"))
    (folder / "map" / "log_map_archive_invented.json").write_text(json.dumps(_vector_map()), encoding="utf-8")
    return folder


def _vector_map() -> dict[str, Any]:
    def points(along: list[float], left: float) -> list[dict[str, float]]:
        return [{"x": float(x), "y": float(y), "z": 0.0} for x, y in placed(np.array(along), left)]

    def segment(number: int, along: list[float], left: float, right: float, after: list[int]) -> dict[str, Any]:
        return {
            "id": number, "is_intersection": False, "lane_type": "VEHICLE",
            "left_lane_boundary": points(along, left), "left_lane_mark_type": "DOUBLE_SOLID_YELLOW",
            "right_lane_boundary": points(along, right), "right_lane_mark_type": "SOLID_WHITE",
            "successors": after, "predecessors": [], "left_neighbor_id": None, "right_neighbor_id": None,
        }  # fmt: skip

    half = 0.5 * LANE_M
    corners = placed(np.array([-60.0, 180.0, 180.0, -60.0]), np.array([-4.0, -4.0, 5.5, 5.5]))
    return {
        "lane_segments": {
            "1": segment(1, [-60.0, 60.0], half, -half, [2]),
            "2": segment(2, [60.0, 180.0], half, -half, []),
            "3": segment(3, [180.0, -60.0], half, LANE_M + half, []),
        },
        "drivable_areas": {"9": {"id": 9, "area_boundary": [{"x": x, "y": y, "z": 0.0} for x, y in corners.tolist()]}},
        "pedestrian_crossings": {
            "5": {
                "id": 5,
                "edge1": [
                    {"x": x, "y": y, "z": 0.0}
                    for x, y in placed(np.array([100.0, 100.0]), np.array([-1.7, 5.2])).tolist()
                ],
                "edge2": [
                    {"x": x, "y": y, "z": 0.0}
                    for x, y in placed(np.array([103.0, 103.0]), np.array([-1.7, 5.2])).tolist()
                ],
            }
        },
    }


def scene_of(driving_map: DrivingMap) -> RecordedScene:
    """The recording that a map was made from."""
    assert driving_map.recording is not None
    return driving_map.recording
