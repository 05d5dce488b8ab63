"""What perception is trained on: frames with everything that the heads are to say about them.

The simulator renders these, a labelled recording could. Knows numpy only. Frame: ego.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABEL_STRIDE = 4  # pixels of a picture for each pixel of its labels
MAX_BOXES = 64
LIGHT_STATES = 4  # none, red, yellow, green, as in `planning.policy.SignalState`
UNKNOWN = -1


class BevClass(IntEnum):
    """Class of a cell of the bird's-eye map, uint8."""

    OTHER = 0
    ROAD = 1
    LANE_MARKING = 2
    CROSSWALK = 3
    SIDEWALK = 4
    VEHICLE = 5
    WALKER = 6


class PictureClass(IntEnum):
    """Class of a pixel of a picture's labels, uint8: `SemanticClass`, and heads of signals that look this way by what they show.

    A lamp is a few pixels wide, and what it says decides whether the car may go: it is learned where it stands, pixel by pixel.
    """

    SKY = 0
    TERRAIN = 1
    ROAD = 2
    LANE_MARKING = 3
    CROSSWALK = 4
    SIDEWALK = 5
    BUILDING = 6
    VEGETATION = 7
    POLE = 8
    TRAFFIC_LIGHT = 9
    TRAFFIC_SIGN = 10
    VEHICLE = 11
    TWO_WHEELER = 12
    PEDESTRIAN = 13
    BARRIER = 14
    SIGNAL_RED = 15
    SIGNAL_YELLOW = 16
    SIGNAL_GREEN = 17
    STOP_SIGN = 18  # that looks this way


class Affordance(IntEnum):
    """What the road ahead allows, as far as sensors can show it: columns of `LabelledFrames.affordances`, float32.

    The reasons for which a careful driver slows down or swings out, as in DeepDriving (Chen et al., ICCV 2015) and conditional
    affordance learning (Sauer et al., CoRL 2018). Distances d from the front bumper are told as `closeness`, 0 where there is none.
    """

    LEADER = 0  # closeness of who is in the car's corridor
    LEADER_SPEED = 1  # m/s / 10 along the route, NaN where there is nobody
    YIELD = 2  # closeness of the line at which right of way has to be given now
    WALKER = 3  # and of the line at which somebody on foot has to be let by
    BLOCKED = 4  # and of where to wait before what cannot be passed yet
    STOP_SIGN = 5  # and of the line of a stop sign at which the car has not stopped yet
    SIGNAL = 6  # and of the line of a signal that shows red or yellow
    SWING = 7  # m / 2, how far left of the route the path lies some 10 m ahead, where it swings around something
    SPEED_LIMIT = 8  # m/s / 20


CLOSE_M = 10.0


def closeness(distance_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 at once, 1/2 at CLOSE_M, 0 for inf."""
    return CLOSE_M / (CLOSE_M + np.maximum(distance_m, 0.0))


class BoxClass(IntEnum):
    """What is detected. Bicycles and motorcycles are vehicles."""

    VEHICLE = 0
    WALKER = 1


class BoxField(IntEnum):
    """Columns of a box, float32: SI, centre in ego, yaw counter-clockwise, velocity over ground in ego axes.

    SEEN: 1 where a sensor sees it (a return, or some pixels), 0 where nobody could know of it.
    """

    CLASS = 0
    X = 1
    Y = 2
    Z = 3
    LENGTH = 4
    WIDTH = 5
    HEIGHT = 6
    YAW = 7
    VX = 8
    VY = 9
    SEEN = 10


@dataclass(frozen=True)
class LabelledFrames:
    """B frames; arrays owned by whoever holds this, so that augmentation may change them.

    observation: as `perception.preprocess.frames_to_observation` gives it.
    beam: (B, P) uint8, beam of each point; zeros where nobody knows.
    bev: (B, rows, columns) uint8 `BevClass`, rows along x and columns along y, as in `perception.points.BevGrid`.
    boxes: (B, MAX_BOXES, len(BoxField)) float32, the first box_count (B,) int32 of each frame.
    depth: by camera, (B, H / 4, W / 4) float32 metres along the optical axis, 0 where there is nothing (sky).
    semantic: by camera, (B, H / 4, W / 4) uint8 `PictureClass`.
    light: (B,) int64, state of the signal ahead, UNKNOWN where it cannot be told.
    lane: (B, 2) float32: metres left of the route's lane centre, and heading against it, radians; NaN where there is none.
    expert: (B, A, 2) float32, how a driver to be imitated would act: concentrations alpha and beta of each action, steering first.
        None where nobody is imitated.
    affordances: (B, len(Affordance)) float32, NaN where unknown. None where nobody tells them.
    """

    observation: dict[str, NDArray[Any]]
    beam: NDArray[np.uint8]
    bev: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    box_count: NDArray[np.int32]
    depth: Mapping[str, NDArray[np.float32]]
    semantic: Mapping[str, NDArray[np.uint8]]
    light: NDArray[np.int64]
    lane: NDArray[np.float32]
    expert: NDArray[np.float32] | None = None
    affordances: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.bev)
        shapes = {
            "boxes": (self.boxes.shape, (n, MAX_BOXES, len(BoxField))),
            "box_count": (self.box_count.shape, (n,)),
            "light": (self.light.shape, (n,)),
            "lane": (self.lane.shape, (n, 2)),
        }
        if self.affordances is not None:
            shapes["affordances"] = (self.affordances.shape, (n, len(Affordance)))
        for name, (given, expected) in shapes.items():
            if given != expected:
                raise ValueError(f"{name} must have shape {expected}, got {given}")
        for name in self.depth:
            if self.depth[name].shape != self.semantic[name].shape:
                raise ValueError(f"depth and semantic of {name} must have the same shape")

    def __len__(self) -> int:
        return len(self.bev)


def joined(parts: Sequence[LabelledFrames]) -> LabelledFrames:
    """The frames of all parts, in their order."""
    return _merged(parts, np.concatenate)


def picked(parts: Sequence[LabelledFrames], which: NDArray[np.intp]) -> LabelledFrames:
    """Copies of some frames of parts that all have as many; which (K,): their numbers, counted through all parts."""
    part, row = np.divmod(which, len(parts[0]))

    def rows(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.stack([arrays[p][r] for p, r in zip(part, row, strict=True)])

    return _merged(parts, rows)


def _merged(parts: Sequence[LabelledFrames], merge: Callable[[list[NDArray[Any]]], NDArray[Any]]) -> LabelledFrames:
    """Frames each of whose arrays is merged from those of all parts."""
    first = parts[0]
    experts = [p.expert for p in parts if p.expert is not None]
    affordances = [p.affordances for p in parts if p.affordances is not None]
    return LabelledFrames(
        observation={k: merge([p.observation[k] for p in parts]) for k in first.observation},
        beam=merge([p.beam for p in parts]),
        bev=merge([p.bev for p in parts]),
        boxes=merge([p.boxes for p in parts]),
        box_count=merge([p.box_count for p in parts]),
        depth={k: merge([p.depth[k] for p in parts]) for k in first.depth},
        semantic={k: merge([p.semantic[k] for p in parts]) for k in first.semantic},
        light=merge([p.light for p in parts]),
        lane=merge([p.lane for p in parts]),
        expert=merge(experts) if experts else None,
        affordances=merge(affordances) if affordances else None,
    )
