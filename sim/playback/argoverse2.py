"""Reads logs of the Argoverse 2 Sensor Dataset: labelled boxes, poses of the car and the vector map.

Knows that layout; knows nothing about the world. Boxes are in the frame of the car at their own stamps, about 0.1 s apart;
they are put into the city's frame and onto even ticks. The files are not trusted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sim.feather import feather_columns
from sim.playback.recorded_scene import (
    FARTHEST_M,
    FURTHEST_COORDINATE_M,
    MAX_TICKS,
    LineKind,
    RecordedLane,
    RecordedScene,
    RecordingError,
    RoadLine,
    SceneMap,
    StandingKind,
    Tracks,
    rounded,
)
from sim.playback.scene_extent import assumed_limit, near_path
from sim.playback.track_tidying import LabelledTrack, ego_track, tidied
from sim.playback.untrusted_json import validated
from sim.roads.polyline import resampled, without_repeats

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

BOXES_FILE, POSES_FILE = "annotations.feather", "city_SE3_egovehicle.feather"
MAX_FILE_BYTES = 100_000_000
MAX_TRACKS = 20_000
TICK_NS = 100_000_000
LONGEST_STEP_NS = 250_000_000  # between two boxes of one actor; more is a gap
LEAST_LANE_WIDTH_M, MOST_LANE_WIDTH_M = 1.0, 8.0
STILL_SPREAD_M = 0.5
# The recording car: a Ford Fusion Hybrid, length, width, height, and how far before its rear axle its middle lies, m.
CAR_SIZE_M, CAR_MIDDLE_M = (4.87, 1.85, 1.48), 1.4

# `sim.world.ActorKind` of each category; bicycles are labelled apart from who rides them, so riders are left out.
ACTOR_KINDS = {
    "REGULAR_VEHICLE": 0, "LARGE_VEHICLE": 2, "BOX_TRUCK": 2, "TRUCK": 2, "TRUCK_CAB": 2, "VEHICULAR_TRAILER": 2,
    "MESSAGE_BOARD_TRAILER": 1, "BUS": 3, "SCHOOL_BUS": 3, "ARTICULATED_BUS": 3, "RAILED_VEHICLE": 3,
    "MOTORCYCLE": 4, "BICYCLE": 5, "PEDESTRIAN": 6, "OFFICIAL_SIGNALER": 6,
}  # fmt: skip
STANDING_KINDS = {
    "BOLLARD": StandingKind.BOLLARD, "CONSTRUCTION_CONE": StandingKind.CONE, "CONSTRUCTION_BARREL": StandingKind.BOLLARD,
    "SIGN": StandingKind.SIGN, "STOP_SIGN": StandingKind.STOP_SIGN, "MOBILE_PEDESTRIAN_CROSSING_SIGN": StandingKind.SIGN,
}  # fmt: skip
VAN_LENGTH_M = 5.6

Coordinate = Annotated[float, Field(ge=-FURTHEST_COORDINATE_M, le=FURTHEST_COORDINATE_M, allow_inf_nan=False)]


class _Point(BaseModel):
    model_config = ConfigDict(extra="ignore")
    x: Coordinate
    y: Coordinate


Line = Annotated[list[_Point], Field(min_length=2, max_length=100_000)]


class _Segment(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: int
    lane_type: str
    left_lane_boundary: Line
    right_lane_boundary: Line
    left_lane_mark_type: str = "NONE"
    right_lane_mark_type: str = "NONE"
    successors: Annotated[list[int], Field(max_length=100)] = []


class _Crossing(BaseModel):
    model_config = ConfigDict(extra="ignore")
    edge1: Line
    edge2: Line


class _Area(BaseModel):
    model_config = ConfigDict(extra="ignore")
    area_boundary: Annotated[list[_Point], Field(min_length=3, max_length=100_000)]


class _VectorMap(BaseModel):
    model_config = ConfigDict(extra="ignore")
    lane_segments: Annotated[dict[str, _Segment], Field(max_length=50_000)]
    drivable_areas: Annotated[dict[str, _Area], Field(max_length=10_000)]
    pedestrian_crossings: Annotated[dict[str, _Crossing], Field(max_length=10_000)]


@dataclass(frozen=True)
class _Poses:
    """The car in the city at stamps (N,) ns, ascending: x, y (N,) of the rear axle, yaw (N,) continuous, rotation
    (N, 3, 3) to the city's frame."""

    stamp_ns: I64
    x_m: F64
    y_m: F64
    yaw_rad: F64
    rotation: F64


def is_argoverse2(folder: Path) -> bool:
    """Whether a folder looks like a log."""
    return (folder / BOXES_FILE).is_file() or (folder / POSES_FILE).is_file()


def read_argoverse2(folder: Path) -> RecordedScene:
    """The scene of a log's folder.

    Raises RecordingError for files that are missing, too large or damaged.
    """
    if not is_argoverse2(folder):
        inside = [p.name for p in sorted(folder.iterdir())[:1000] if p.is_dir() and is_argoverse2(p)]
        hint = f"; did you mean {folder / inside[0]}?" if inside else ""
        raise RecordingError(f"{folder}: no Argoverse 2 log, which holds {BOXES_FILE} and {POSES_FILE}{hint}")
    poses = _read_poses(folder / POSES_FILE)
    boxes = _read_columns(folder / BOXES_FILE, ("timestamp_ns", "track_uuid", "category", *_BOX_NUMBERS))
    vector_map = _read_map(folder)
    try:
        return _scene(folder, poses, boxes, vector_map)
    except ValueError as error:
        raise RecordingError(f"{folder}: {error}; take another log") from None


_QUATERNION = ("qw", "qx", "qy", "qz")
_BOX_NUMBERS = ("length_m", "width_m", "height_m", *_QUATERNION, "tx_m", "ty_m", "tz_m")


def _checked_size(path: Path) -> None:
    if not path.is_file():
        raise RecordingError(f"{path}: no such file; download the whole log")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise RecordingError(f"{path}: {path.stat().st_size // 1_000_000} MB, and at most 100 MB are read")


def _read_columns(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Columns of a feather file, numbers finite."""
    _checked_size(path)
    try:
        columns = feather_columns(path, names)
    except ValueError as error:
        raise RecordingError(f"{path}: {error}") from None
    for name, values in columns.items():
        if name in ("track_uuid", "category"):
            columns[name] = np.array([str(v)[:64] for v in values])
        elif name == "timestamp_ns":
            if values.dtype != np.int64:
                raise RecordingError(f"{path}: column {name} holds {values.dtype}, not int64")
        elif values.dtype.kind != "f" or not np.isfinite(values).all() or np.abs(values).max() > FURTHEST_COORDINATE_M:
            raise RecordingError(f"{path}: column {name} holds what is no finite number in reach; download it again")
    return columns


def _read_poses(path: Path) -> _Poses:
    columns = _read_columns(path, ("timestamp_ns", *_QUATERNION, "tx_m", "ty_m"))
    order = np.unique(columns["timestamp_ns"], return_index=True)[1]
    stamp = columns["timestamp_ns"][order]
    rotation = _rotations(*(columns[name][order] for name in _QUATERNION))
    yaw = np.unwrap(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))
    return _Poses(stamp, columns["tx_m"][order], columns["ty_m"][order], yaw, rotation)


def _rotations(w: F64, x: F64, y: F64, z: F64) -> F64:
    """(N, 3, 3) of unit quaternions (N,) each; others are scaled."""
    length = np.sqrt(w * w + x * x + y * y + z * z)
    length[length == 0.0] = np.inf
    w, x, y, z = w / length, x / length, y / length, z / length
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def _read_map(folder: Path) -> _VectorMap:
    found = sorted((folder / "map").glob("log_map_archive_*.json"))
    if not found:
        raise RecordingError(f"{folder / 'map'}: no log_map_archive_*.json; download the whole log")
    _checked_size(found[0])
    try:
        return validated(_VectorMap, found[0].read_bytes())
    except ValueError as error:
        raise RecordingError(f"{found[0]}: no map of an Argoverse 2 log ({error})") from None


def _scene(folder: Path, poses: _Poses, boxes: dict[str, NDArray[Any]], vector_map: _VectorMap) -> RecordedScene:
    stamps = np.unique(boxes["timestamp_ns"])
    begin = max(int(stamps[0]), int(poses.stamp_ns[0]))
    end = min(int(stamps[-1]), int(poses.stamp_ns[-1]))
    count = (end - begin) // TICK_NS + 1
    if count < 2 or count > MAX_TICKS:
        raise ValueError(f"boxes and poses share {max(count, 0)} ticks; 2 to {MAX_TICKS} are played")
    ticks = begin + TICK_NS * np.arange(count)
    since = (ticks - begin) / 1e9
    pose_s = (poses.stamp_ns - begin) / 1e9
    yaw = np.interp(since, pose_s, poses.yaw_rad)
    x = np.interp(since, pose_s, poses.x_m) + CAR_MIDDLE_M * np.cos(yaw)
    y = np.interp(since, pose_s, poses.y_m) + CAR_MIDDLE_M * np.sin(yaw)
    origin = np.floor(np.array([x[0], y[0]]))
    ego = ego_track(LabelledTrack("ego", 0, x - origin[0], y - origin[1], yaw, np.ones(count, np.bool_), CAR_SIZE_M))
    left_out: Counter[str] = Counter()
    labelled, standing, standing_kind = _things(poses, boxes, begin, ticks, origin, ego, left_out)
    others = tidied(labelled, ego, left_out)
    road = _road(vector_map, origin, ego.x_m[0], ego.y_m[0], standing, standing_kind, left_out)
    return RecordedScene(
        name=folder.resolve().name[:100],
        origin_m=origin,
        others=others,
        ego=ego,
        road=road,
        limit_mps=assumed_limit(ego, others),
        left_out={what: number for what, number in sorted(left_out.items()) if number},
    )


def _things(
    poses: _Poses,
    boxes: dict[str, NDArray[Any]],
    begin: int,
    ticks: I64,
    origin: F64,
    ego: Tracks,
    left_out: Counter[str],
) -> tuple[list[LabelledTrack], F64, NDArray[np.int8]]:
    """Actors on the ticks, and what stands near the recorded car: (S, 6) and its kinds."""
    since = (boxes["timestamp_ns"] - begin) / 1e9
    pose_s = (poses.stamp_ns - begin) / 1e9
    nearest = np.clip(np.searchsorted(pose_s, since), 0, len(pose_s) - 1)  # poses come every few milliseconds
    city_from_car = poses.rotation[nearest]
    in_car = np.stack([boxes[name] for name in ("tx_m", "ty_m", "tz_m")], axis=1)
    x, y = np.einsum("nij,nj->ni", city_from_car[:, :2], in_car).T
    x += np.interp(since, pose_s, poses.x_m) - origin[0]
    y += np.interp(since, pose_s, poses.y_m) - origin[1]
    heading = np.einsum("nij,nj->ni", city_from_car[:, :2], _rotations(*(boxes[q] for q in _QUATERNION))[:, :, 0])
    yaw = np.arctan2(heading[:, 1], heading[:, 0])
    actors: list[LabelledTrack] = []
    standing: list[list[float]] = []
    kinds: list[int] = []
    names, which, counts = np.unique(boxes["track_uuid"], return_inverse=True, return_counts=True)
    if len(names) > MAX_TRACKS:
        raise ValueError(f"{len(names)} tracks, and at most {MAX_TRACKS} are read")
    grouped = np.split(np.argsort(which, kind="stable"), np.cumsum(counts)[:-1])
    for k, group in enumerate(grouped):
        rows = group[np.unique(boxes["timestamp_ns"][group], return_index=True)[1]]
        category = str(boxes["category"][rows[0]])
        size = tuple(float(np.median(boxes[name][rows])) for name in ("length_m", "width_m", "height_m"))
        if category in STANDING_KINDS:
            place = np.median(x[rows]), np.median(y[rows])
            if min(size) <= 0 or np.hypot(x[rows] - place[0], y[rows] - place[1]).max() > STILL_SPREAD_M:
                left_out[f"{category} that moves"] += 1
                continue
            if not near_path(np.array([place]), ego.x_m[0], ego.y_m[0], FARTHEST_M):
                left_out[f"{category} over 150 m away"] += 1
                continue
            standing.append([*place, float(yaw[rows[0]]), *size])
            kinds.append(STANDING_KINDS[category])
        elif category == "BICYCLE" and np.ptp(x[rows]) + np.ptp(y[rows]) < STILL_SPREAD_M:
            left_out["parked bicycles"] += 1  # nobody rides them, and the simulator's bicycles come with a rider
        elif category in ACTOR_KINDS:
            kind = ACTOR_KINDS[category]
            kind = 1 if kind == 0 and size[0] >= VAN_LENGTH_M else kind
            turned = np.unwrap(yaw[rows])
            at, valid = _on_ticks(boxes["timestamp_ns"][rows], ticks)
            there = [np.interp(at, since[rows], v) for v in (x[rows], y[rows], turned)]
            size_m = (size[0], size[1], size[2])
            actors.append(LabelledTrack(str(names[k]), kind, there[0], there[1], there[2], valid, size_m))
        else:
            left_out[category] += 1
    return actors, rounded(np.array(standing).reshape(-1, 6)), np.array(kinds, np.int8)


def _on_ticks(stamps: I64, ticks: I64) -> tuple[F64, NDArray[np.bool_]]:
    """Seconds of the ticks after the first of them, and at which of them an actor with boxes at those stamps is known."""
    after = np.searchsorted(stamps, ticks)
    before = np.clip(np.searchsorted(stamps, ticks, side="right") - 1, 0, len(stamps) - 1)
    inside = (after < len(stamps)) & (ticks >= stamps[0])
    after = np.minimum(after, len(stamps) - 1)
    return (ticks - ticks[0]) / 1e9, inside & (stamps[after] - stamps[before] <= LONGEST_STEP_NS)


def _road(
    vector_map: _VectorMap,
    origin: F64,
    x: F64,
    y: F64,
    standing: F64,
    standing_kind: NDArray[np.int8],
    left_out: Counter[str],
) -> SceneMap:
    def local(points: list[_Point]) -> F64:
        return np.array([(p.x, p.y) for p in points]) - origin

    segments = []
    for segment in vector_map.lane_segments.values():
        left, right = local(segment.left_lane_boundary), local(segment.right_lane_boundary)
        if near_path(np.concatenate([left, right]), x, y, FARTHEST_M):
            segments.append((segment, left, right))
        else:
            left_out["lanes over 150 m away"] += 1
    if not segments:
        raise ValueError("no lane near the recorded car")
    number = {segment.id: k for k, (segment, _, _) in enumerate(segments)}
    lanes, lines, drawn = [], [], set()
    for segment, left, right in segments:
        center, width = _center_line(left, right)
        followers = tuple(number[n] for n in segment.successors if n in number)
        lanes.append(RecordedLane(rounded(center), width, segment.lane_type == "BIKE", followers))
        for points, mark in ((left, segment.left_lane_mark_type), (right, segment.right_lane_mark_type)):
            kind = _line_kind(mark)
            ends = frozenset((tuple(np.round(points[0], 1)), tuple(np.round(points[-1], 1))))
            if kind is not None and ends not in drawn:  # a border of two lanes is painted once
                drawn.add(ends)
                lines.append(RoadLine(kind, rounded(points)))
    crossings = [(local(c.edge1), local(c.edge2)) for c in vector_map.pedestrian_crossings.values()]
    polygons = [np.concatenate([a, b if _turned(a, b) else b[::-1]]) for a, b in crossings]
    areas = [local(area.area_boundary) for area in vector_map.drivable_areas.values()]
    return SceneMap(
        lanes=tuple(lanes),
        lines=tuple(lines),
        drivable=tuple(rounded(a) for a in areas if near_path(a, x, y, FARTHEST_M)),
        edges=(),
        crosswalks=tuple(rounded(p) for p in polygons if near_path(p, x, y, FARTHEST_M)),
        standing=standing,
        standing_kind=standing_kind,
    )


def _turned(one: F64, other: F64) -> bool:
    """Whether two sides of a crossing point in opposite directions."""
    return float((one[-1] - one[0]) @ (other[-1] - other[0])) < 0.0


def _center_line(left: F64, right: F64) -> tuple[F64, float]:
    """The line half-way between two borders, and the lane's width, m."""
    left, right = without_repeats(left), without_repeats(right)
    count = max(len(left), len(right), int(max(np.hypot(*np.diff(left, axis=0).T).sum(), 4.0) / 2.0)) + 1
    sides = []
    for border in (left, right):
        length = float(np.hypot(*np.diff(border, axis=0).T).sum())
        points = resampled(border, length / count)[0] if length > 0.0 else np.repeat(border[:1], count + 1, axis=0)
        sides.append(points)
    a, b = sides
    width = float(np.median(np.hypot(*(a - b).T)))
    return 0.5 * (a + b), float(rounded(np.clip(width, LEAST_LANE_WIDTH_M, MOST_LANE_WIDTH_M)))


def _line_kind(mark: str) -> LineKind | None:
    """What a mark type is painted as; dashed on one side and solid on the other counts as double."""
    yellow = "YELLOW" in mark
    if mark in ("NONE", "UNKNOWN"):
        return None
    if mark.startswith(("DOUBLE_SOLID", "SOLID_DASH", "DASH_SOLID")):
        return LineKind.DOUBLE_YELLOW if yellow else LineKind.DOUBLE_WHITE
    if mark.startswith(("DASHED", "DOUBLE_DASH")):
        return LineKind.DASHED_YELLOW if yellow else LineKind.DASHED_WHITE
    return LineKind.SOLID_YELLOW if yellow else LineKind.SOLID_WHITE
