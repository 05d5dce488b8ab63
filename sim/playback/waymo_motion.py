"""Reads scenarios of the Waymo Open Motion Dataset as JSON, in the layout that GPUDrive converts them to.

Knows that layout; knows nothing about the world. Positions every 0.1 s, lanes without links (found from where they
meet), painted lines, road edges, crosswalks, driveways and stop signs. The file is not trusted.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

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
    rounded,
)
from sim.playback.scene_extent import assumed_limit, near_path
from sim.playback.track_tidying import LabelledTrack, ego_track, tidied
from sim.playback.untrusted_json import validated

F64 = NDArray[np.float64]

MAX_FILE_BYTES = 100_000_000
LANE_WIDTH_M, BICYCLE_LANE_WIDTH_M = 3.5, 1.6  # the format has none
MEETING_M = 0.3
BICYCLE_LANE = 3
# Codes of painted lines: broken, solid and double white, broken (single, double), solid, double and passing yellow.
LINE_KINDS = {
    6: LineKind.DASHED_WHITE, 7: LineKind.SOLID_WHITE, 8: LineKind.DOUBLE_WHITE, 9: LineKind.DASHED_YELLOW,
    10: LineKind.DASHED_YELLOW, 11: LineKind.SOLID_YELLOW, 12: LineKind.DOUBLE_YELLOW, 13: LineKind.DOUBLE_YELLOW,
}  # fmt: skip
MOST_STOP_SIGNS = 500
STOP_SIGN_SIZE_M = (0.1, 0.8, 2.9)

Coordinate = Annotated[float, Field(ge=-FURTHEST_COORDINATE_M, le=FURTHEST_COORDINATE_M, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class _Point(BaseModel):
    model_config = ConfigDict(extra="ignore")
    x: Coordinate
    y: Coordinate


class _Object(BaseModel):
    model_config = ConfigDict(extra="ignore")
    position: Annotated[list[_Point], Field(min_length=2, max_length=MAX_TICKS)]
    heading: Annotated[list[Number], Field(min_length=2, max_length=MAX_TICKS)]
    valid: Annotated[list[bool], Field(min_length=2, max_length=MAX_TICKS)]
    length: Number
    width: Number
    height: Number
    type: str
    id: int | str = "?"


class _Road(BaseModel):
    model_config = ConfigDict(extra="ignore")
    geometry: Annotated[list[_Point], Field(min_length=1, max_length=100_000)]
    type: str
    map_element_id: int = 0


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore")
    sdc_track_index: Annotated[int, Field(ge=0)]


class _Scenario(BaseModel):
    model_config = ConfigDict(extra="ignore")
    scenario_id: str = ""
    objects: Annotated[list[_Object], Field(min_length=1, max_length=5000)]
    roads: Annotated[list[_Road], Field(max_length=20_000)]
    metadata: _Metadata


def read_waymo_motion(path: Path) -> RecordedScene:
    """The scene of a .json file.

    Raises RecordingError for a file that is missing, too large, of another kind or damaged.
    """
    if not path.is_file():
        raise RecordingError(f"{path}: no such file; give the path of a scenario")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise RecordingError(f"{path}: {size // 1_000_000} MB, and at most 100 MB are read; give one scenario a file")
    try:
        scenario = validated(_Scenario, path.read_bytes())
    except ValueError as error:
        raise RecordingError(f"{path}: no Waymo Motion scenario as GPUDrive writes them ({error})") from None
    try:
        return _scene(path, scenario)
    except ValueError as error:
        raise RecordingError(f"{path}: {error}; take another scenario") from None


def _scene(path: Path, scenario: _Scenario) -> RecordedScene:
    if scenario.metadata.sdc_track_index >= len(scenario.objects):
        raise ValueError(f"the recorded car is object {scenario.metadata.sdc_track_index} of {len(scenario.objects)}")
    own = scenario.objects[scenario.metadata.sdc_track_index]
    ticks = len(own.position)
    if any(not len(o.position) == len(o.heading) == len(o.valid) == ticks for o in scenario.objects):
        raise ValueError(f"not all tracks have {ticks} positions, headings and valid marks")
    first = next((k for k in range(ticks) if own.valid[k]), 0)
    origin = np.floor(np.array([own.position[first].x, own.position[first].y]))
    left_out: Counter[str] = Counter()
    ego = ego_track(_labelled(own, 0, origin))
    labelled = []
    for thing in scenario.objects:
        kind = _kind(thing)
        if thing is own:
            continue
        if kind is None:
            left_out[f"objects of type {thing.type[:20]!r}"] += 1
        else:
            labelled.append(_labelled(thing, kind, origin))
    others = tidied(labelled, ego, left_out)
    road = _road(scenario.roads, origin, ego.x_m[0], ego.y_m[0], left_out)
    return RecordedScene(
        name=(scenario.scenario_id or path.stem)[:100],
        origin_m=origin,
        others=others,
        ego=ego,
        road=road,
        limit_mps=assumed_limit(ego, others),
        left_out={what: number for what, number in sorted(left_out.items()) if number},
    )


def _kind(thing: _Object) -> int | None:
    """`sim.world.ActorKind` by type, and of vehicles by length: the format knows no vans, trucks or buses."""
    match thing.type:
        case "vehicle":
            return 0 if thing.length < 5.6 else 1 if thing.length < 7.2 else 2 if thing.length < 9.5 else 3
        case "cyclist":
            return 5
        case "pedestrian":
            return 6
        case _:
            return None


def _labelled(thing: _Object, kind: int, origin: F64) -> LabelledTrack:
    """Places that are not valid hold anything in this format, so they are made those of the origin."""
    valid = np.array(thing.valid, np.bool_)
    places = np.array([(p.x, p.y) for p in thing.position], np.float64) - origin
    places[~valid] = 0.0
    yaw = np.unwrap(np.where(valid, np.array(thing.heading, np.float64), 0.0))
    size = (thing.length, thing.width, thing.height)
    return LabelledTrack(str(thing.id)[:40], kind, places[:, 0], places[:, 1], yaw, valid, size)


def _road(roads: list[_Road], origin: F64, x: F64, y: F64, left_out: Counter[str]) -> SceneMap:
    lanes: list[tuple[F64, bool]] = []
    lines: list[RoadLine] = []
    drivable: list[F64] = []
    edges: list[F64] = []
    crosswalks: list[F64] = []
    stops: list[F64] = []
    for road in roads:
        points = rounded(np.array([(p.x, p.y) for p in road.geometry]) - origin)
        if not near_path(points, x, y, FARTHEST_M):
            left_out[f"{road.type[:20]} over 150 m away"] += 1
            continue
        match road.type:
            case "lane" if len(points) >= 2:
                lanes.append((points, road.map_element_id == BICYCLE_LANE))
            case "road_line" if len(points) >= 2 and road.map_element_id in LINE_KINDS:
                lines.append(RoadLine(LINE_KINDS[road.map_element_id], points))
            case "road_edge" if len(points) >= 2:
                edges.append(points)
            case "crosswalk" if len(points) >= 3:
                crosswalks.append(points)
            case "driveway" if len(points) >= 3:
                drivable.append(points)
            case "stop_sign":
                stops.append(points[0])
            case kind:
                left_out[f"road elements {kind[:20]!r}"] += 1
    if not lanes:
        raise ValueError("no lane near the recorded car")
    if len(stops) > MOST_STOP_SIGNS:
        raise ValueError(f"{len(stops)} stop signs, and at most {MOST_STOP_SIGNS} are read")
    linked = _linked(lanes)
    standing = np.array([(*spot, _facing(spot, linked), *STOP_SIGN_SIZE_M) for spot in stops]).reshape(-1, 6)
    return SceneMap(
        lanes=linked,
        lines=tuple(lines),
        drivable=tuple(drivable),
        edges=tuple(edges),
        crosswalks=tuple(crosswalks),
        standing=rounded(standing),
        standing_kind=np.full(len(stops), StandingKind.STOP_SIGN, np.int8),
    )


def _linked(lanes: list[tuple[F64, bool]]) -> tuple[RecordedLane, ...]:
    """Lanes with those that begin where they end and go the same way."""
    begin = np.array([points[0] for points, _ in lanes])
    heading = np.array([np.arctan2(*(points[1] - points[0])[::-1]) for points, _ in lanes])
    linked = []
    for k, (points, bicycles) in enumerate(lanes):
        end, out = points[-1], np.arctan2(*(points[-1] - points[-2])[::-1])
        after = (np.hypot(*(begin - end).T) < MEETING_M) & (np.cos(heading - out) > 0.7)
        followers = tuple(int(n) for n in np.flatnonzero(after) if n != k)
        linked.append(RecordedLane(points, BICYCLE_LANE_WIDTH_M if bicycles else LANE_WIDTH_M, bicycles, followers))
    return tuple(linked)


def _facing(spot: F64, lanes: tuple[RecordedLane, ...]) -> float:
    """Direction of driving on the lane nearest to a sign."""
    best, yaw = np.inf, 0.0
    for lane in lanes:
        distance = np.hypot(*(lane.points - spot).T)
        k = int(np.argmin(distance))
        if distance[k] < best:
            a, b = lane.points[max(k - 1, 0)], lane.points[min(k + 1, len(lane.points) - 1)]
            best, yaw = float(distance[k]), float(np.arctan2(b[1] - a[1], b[0] - a[0]))
    return yaw
