"""Recorded scenes as bytes and back, exactly: what a log attaches so that it can be simulated again.

One canonical JSON text, packed with gzip. Knows scenes; knows nothing about logs. What is read is not trusted.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sim.playback.recorded_scene import (
    FURTHEST_COORDINATE_M,
    MAX_ACTORS,
    MAX_TICKS,
    LineKind,
    RecordedLane,
    RecordedScene,
    RecordingError,
    RoadLine,
    SceneMap,
    StandingKind,
    Tracks,
)
from sim.playback.untrusted_json import validated

F64 = NDArray[np.float64]

SCENE_VERSION = 1
MAX_TEXT_BYTES = 200_000_000

Number = Annotated[float, Field(ge=-FURTHEST_COORDINATE_M, le=FURTHEST_COORDINATE_M, allow_inf_nan=False)]
Row = Annotated[list[Number], Field(max_length=MAX_TICKS)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
Points = Annotated[list[Pair], Field(min_length=1, max_length=100_000)]
Size = Annotated[float, Field(gt=0, le=100)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Track(_Part):
    name: Annotated[str, Field(max_length=100)]
    kind: Annotated[int, Field(ge=0, le=6)]
    size_m: Annotated[list[Size], Field(min_length=3, max_length=3)]
    first_tick: Annotated[int, Field(ge=0, lt=MAX_TICKS)]
    x_m: Row
    y_m: Row
    yaw_rad: Row
    speed_mps: Row


class _Lane(_Part):
    points: Annotated[Points, Field(min_length=2)]
    width_m: Annotated[float, Field(gt=0, le=50)]
    bicycles: bool
    followers: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1000)]


class _Line(_Part):
    kind: LineKind
    points: Annotated[Points, Field(min_length=2)]


class _Standing(_Part):
    kind: StandingKind
    box: Annotated[list[Number], Field(min_length=6, max_length=6)]


class _Scene(_Part):
    version: Annotated[int, Field(ge=SCENE_VERSION, le=SCENE_VERSION)]
    name: Annotated[str, Field(max_length=200)]
    origin_m: Pair
    limit_mps: Annotated[float, Field(gt=0, le=100)]
    ticks: Annotated[int, Field(ge=2, le=MAX_TICKS)]
    ego: _Track
    others: Annotated[list[_Track], Field(max_length=MAX_ACTORS)]
    lanes: Annotated[list[_Lane], Field(min_length=1, max_length=50_000)]
    lines: Annotated[list[_Line], Field(max_length=50_000)]
    drivable: Annotated[list[Points], Field(max_length=50_000)]
    edges: Annotated[list[Points], Field(max_length=50_000)]
    crosswalks: Annotated[list[Points], Field(max_length=50_000)]
    standing: Annotated[list[_Standing], Field(max_length=50_000)]
    left_out: dict[str, int]


def scene_as_bytes(scene: RecordedScene) -> bytes:
    """The canonical text of a scene: the same scene gives the same bytes."""
    road = scene.road
    value = {
        "version": SCENE_VERSION,
        "name": scene.name,
        "origin_m": scene.origin_m.tolist(),
        "limit_mps": scene.limit_mps,
        "ticks": scene.num_ticks,
        "ego": _tracks_as_json(scene.ego)[0],
        "others": _tracks_as_json(scene.others),
        "lanes": [
            {"points": lane.points.tolist(), "width_m": lane.width_m, "bicycles": lane.bicycles, "followers": lane.followers}
            for lane in road.lanes
        ],
        "lines": [{"kind": int(line.kind), "points": line.points.tolist()} for line in road.lines],
        "drivable": [polygon.tolist() for polygon in road.drivable],
        "edges": [edge.tolist() for edge in road.edges],
        "crosswalks": [polygon.tolist() for polygon in road.crosswalks],
        "standing": [
            {"kind": int(kind), "box": box.tolist()} for kind, box in zip(road.standing_kind, road.standing, strict=True)
        ],
        "left_out": dict(scene.left_out),
    }  # fmt: skip
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def pack_scene(scene: RecordedScene) -> bytes:
    """`scene_as_bytes`, packed with gzip."""
    return gzip.compress(scene_as_bytes(scene), 6, mtime=0)


def unpack_scene(data: bytes, title: str) -> RecordedScene:
    """The scene that `pack_scene` packed; title: where it comes from, for messages.

    Raises RecordingError where the bytes are no such scene.
    """
    unpacking = zlib.decompressobj(wbits=31)
    try:
        text = unpacking.decompress(data, MAX_TEXT_BYTES)
        if not unpacking.eof:
            raise RecordingError(f"{title}: the recorded scene is cut off or too large; record the episode again")
        return _scene(validated(_Scene, text))
    except zlib.error as error:
        raise RecordingError(f"{title}: the recorded scene is damaged ({error}); record the episode again") from None
    except RecordingError:
        raise
    except ValueError as error:
        raise RecordingError(f"{title}: the recorded scene is damaged ({error})") from None


def _tracks_as_json(tracks: Tracks) -> list[dict[str, Any]]:
    rows = []
    for n in range(tracks.num_actors):
        at = np.flatnonzero(tracks.present[n])
        part = np.s_[int(at[0]) : int(at[-1]) + 1]
        values = {key: getattr(tracks, key)[n, part].tolist() for key in ("x_m", "y_m", "yaw_rad", "speed_mps")}
        whole = {"name": tracks.name[n], "kind": int(tracks.kind[n]), "size_m": tracks.size_m[n].tolist()}
        rows.append({**whole, "first_tick": int(at[0]), **values})
    return rows


def _tracks(rows: list[_Track], ticks: int) -> Tracks:
    """Outside its ticks an actor keeps the place of the nearest one, and no speed."""
    shape = (len(rows), ticks)
    places: dict[str, F64] = {key: np.zeros(shape) for key in ("x_m", "y_m", "yaw_rad", "speed_mps")}
    present = np.zeros(shape, np.bool_)
    for n, row in enumerate(rows):
        count = len(row.x_m)
        at = row.first_tick + np.arange(count)
        if count == 0 or at[-1] >= ticks or not len(row.y_m) == len(row.yaw_rad) == len(row.speed_mps) == count:
            raise ValueError(f"track {n} does not fit into {ticks} ticks")
        present[n, at] = True
        for key in ("x_m", "y_m", "yaw_rad"):
            places[key][n] = np.interp(np.arange(ticks), at, getattr(row, key))
            places[key][n, at] = getattr(row, key)
        places["speed_mps"][n, at] = row.speed_mps
    return Tracks(
        **places, present=present, size_m=np.array([row.size_m for row in rows], np.float64).reshape(-1, 3),
        kind=np.array([row.kind for row in rows], np.int8), name=tuple(row.name for row in rows),
    )  # fmt: skip


def _scene(value: _Scene) -> RecordedScene:
    if any(n >= len(value.lanes) for lane in value.lanes for n in lane.followers):
        raise ValueError("a lane is followed by one that is not there")

    def polylines(rows: list[Points]) -> tuple[F64, ...]:
        return tuple(np.array(row, np.float64) for row in rows)

    road = SceneMap(
        lanes=tuple(
            RecordedLane(np.array(lane.points, np.float64), lane.width_m, lane.bicycles, tuple(lane.followers))
            for lane in value.lanes
        ),
        lines=tuple(RoadLine(line.kind, np.array(line.points, np.float64)) for line in value.lines),
        drivable=polylines(value.drivable),
        edges=polylines(value.edges),
        crosswalks=polylines(value.crosswalks),
        standing=np.array([thing.box for thing in value.standing], np.float64).reshape(-1, 6),
        standing_kind=np.array([thing.kind for thing in value.standing], np.int8),
    )
    return RecordedScene(
        name=value.name,
        origin_m=np.array(value.origin_m, np.float64),
        others=_tracks(value.others, value.ticks),
        ego=_tracks([value.ego], value.ticks),
        road=road,
        limit_mps=value.limit_mps,
        left_out=value.left_out,
    )
