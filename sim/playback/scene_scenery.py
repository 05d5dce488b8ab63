"""What stands beside the road in a recording: bollards, cones and signs, as solids.

Knows recorded scenes and solids; knows nothing about sensors. Buildings, trees and walls are in no recording, so there are none.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.playback.recorded_scene import RecordedScene, StandingKind
from sim.roads.ground import GroundRaster
from sim.roads.roadside import FIRST_INSTANCE
from sim.roads.scenery import SIGN_RED, STEEL
from sim.solids import Boxes, BoxList, Color, Material, Shape

F64 = NDArray[np.float64]

ORANGE: Color = (232, 96, 28)
WHITE: Color = (228, 228, 222)
DARK: Color = (58, 60, 62)
LARGEST_M, SMALLEST_M = 6.0, 0.05
SIGN_FROM_M = 1.4  # a lower sign is a plate that stands on the ground
STOP_PLATE_UP_M, STOP_RIM_M, STOP_PLATE_M = 2.5, 0.42, 0.37
BESIDE_ROAD_M, FARTHEST_BESIDE_M = 0.5, 8.0


def scene_scenery(scene: RecordedScene, ground: GroundRaster) -> Boxes:
    """Solids of everything that stands, each thing with an instance number of its own.

    What stands on the roadway stays there, save stop signs: they are recorded on the lane that they are for, and come to stand to
    its right.
    """
    solids = BoxList(FIRST_INSTANCE)
    for thing, (kind, box) in enumerate(zip(scene.road.standing_kind, scene.road.standing, strict=True)):
        x, y, yaw = (float(value) for value in box[:3])
        size = np.clip(box[3:], SMALLEST_M, LARGEST_M)
        solids.instance = FIRST_INSTANCE + thing
        match StandingKind(int(kind)):
            case StandingKind.BOLLARD:
                _add_bollard(solids, x, y, size)
            case StandingKind.CONE:
                _add_cone(solids, x, y, yaw, size)
            case StandingKind.SIGN:
                _add_sign(solids, x, y, yaw, size)
            case StandingKind.STOP_SIGN:
                _add_stop_sign(solids, np.array([x, y]), yaw, ground)
    return solids.boxes()


def _add_post(solids: BoxList, x: float, y: float, height: float) -> None:
    half = (0.035, 0.035, 0.5 * height)
    solids.add((x, y, half[2]), half, 0.0, Material.METAL, SemanticClass.POLE, STEEL, Shape.CYLINDER)


def _add_bollard(solids: BoxList, x: float, y: float, size: F64) -> None:
    radius, half = min(0.5 * float(size[:2].min()), 0.15), 0.5 * float(size[2])
    solids.add((x, y, half), (radius, radius, half), 0.0, Material.CONCRETE, SemanticClass.POLE, DARK, Shape.CYLINDER)


def _add_cone(solids: BoxList, x: float, y: float, yaw: float, size: F64) -> None:
    """A foot, a body as a slim cylinder, and a bright band around it."""
    length, width, height = (float(value) for value in size)
    radius, half = 0.25 * min(length, width), 0.5 * height
    barrier = SemanticClass.BARRIER
    solids.add((x, y, 0.03), (0.5 * length, 0.5 * width, 0.03), yaw, Material.RUBBER, barrier, DARK, Shape.BOX)
    solids.add((x, y, half), (radius, radius, half), yaw, Material.PLAIN, barrier, ORANGE, Shape.CYLINDER)
    band = (radius + 0.01, radius + 0.01, 0.08 * height)
    solids.add((x, y, 0.65 * height), band, yaw, Material.SIGN, barrier, WHITE, Shape.CYLINDER)


def _add_sign(solids: BoxList, x: float, y: float, yaw: float, size: F64) -> None:
    """A plate on a post, as wide as the recorded box; what is on it, no recording says."""
    length, width, height = (float(value) for value in size)
    bottom = 0.62 * height if height > SIGN_FROM_M else 0.5 * SMALLEST_M
    _add_post(solids, x, y, height)
    turned = yaw if width >= length else yaw + 0.5 * math.pi
    half = (SMALLEST_M, 0.5 * max(width, length), 0.5 * (height - bottom))
    center = (x, y, 0.5 * (bottom + height))
    solids.add(center, half, turned, Material.SIGN, SemanticClass.TRAFFIC_SIGN, WHITE, Shape.BOX)


def _add_stop_sign(solids: BoxList, place: F64, yaw: float, ground: GroundRaster) -> None:
    foot = _beside(place, yaw, ground)
    if foot is None:
        return
    x, y = foot
    _add_post(solids, x, y, STOP_PLATE_UP_M + STOP_PLATE_M)
    for towards, radius, color in ((0.05, STOP_RIM_M, WHITE), (0.08, STOP_PLATE_M, SIGN_RED)):
        center = (x - towards * math.cos(yaw), y - towards * math.sin(yaw), STOP_PLATE_UP_M)
        half, turned = (radius, 0.012, radius), yaw + 0.5 * math.pi
        solids.add(center, half, turned, Material.SIGN, SemanticClass.TRAFFIC_SIGN, color, Shape.WHEEL)


def _beside(place: F64, yaw: float, ground: GroundRaster) -> tuple[float, float] | None:
    """The first place to the right of one that is no roadway, and half a metre more; None within 8 m."""
    right = np.array([math.sin(yaw), -math.cos(yaw)])
    for away in np.arange(0.0, FARTHEST_BESIDE_M, 0.2):
        column, row = np.floor((place + away * right - ground.origin) / ground.cell_m).astype(int)
        if not (0 <= row < ground.drivable.shape[0] and 0 <= column < ground.drivable.shape[1]):
            return None
        if ground.drivable[row, column] == 0:
            x, y = place + (away + BESIDE_ROAD_M if away > 0.0 else 0.0) * right
            return float(x), float(y)
    return None
