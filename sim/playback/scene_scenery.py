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
from sim.roads.scenery import FIRST_INSTANCE, SIGN_RED, STEEL
from sim.solids import Boxes, Material, Shape

F64 = NDArray[np.float64]
Color = tuple[int, int, int]
Solid = tuple[float, float, float, float, float, float, float]

ORANGE: Color = (232, 96, 28)
WHITE: Color = (228, 228, 222)
DARK: Color = (58, 60, 62)
LARGEST_M, SMALLEST_M = 6.0, 0.05
SIGN_FROM_M = 1.4  # a plate lower than this stands on the ground
STOP_PLATE_M = (2.5, 0.4)  # height of its middle, and half its width
TOWARDS_M = 0.08


def scene_scenery(scene: RecordedScene, ground: GroundRaster) -> Boxes:
    """Solids of everything that stands, each thing with an instance number of its own.

    What stands on the roadway stays there, save the posts of stop signs, which recordings place on the lane they are for.
    """
    rows: list[Solid] = []
    looks: list[tuple[int, int, int, int]] = []
    colors: list[Color] = []

    def add(solid: Solid, material: Material, semantic: SemanticClass, color: Color, shape: Shape, thing: int) -> None:
        rows.append(solid)
        looks.append((material, semantic, FIRST_INSTANCE + thing, shape))
        colors.append(color)

    for thing, (kind, box) in enumerate(zip(scene.road.standing_kind, scene.road.standing, strict=True)):
        x, y, yaw = (float(value) for value in box[:3])
        length, width, height = (float(v) for v in np.clip(box[3:], SMALLEST_M, LARGEST_M))
        match StandingKind(int(kind)):
            case StandingKind.BOLLARD:
                radius = min(0.5 * length, 0.5 * width, 0.15)
                post = (x, y, 0.5 * height, radius, radius, 0.5 * height, yaw)
                add(post, Material.CONCRETE, SemanticClass.POLE, DARK, Shape.CYLINDER, thing)
            case StandingKind.CONE:
                radius = 0.25 * min(length, width)
                foot, half = (x, y, 0.03, 0.5 * length, 0.5 * width, 0.03, yaw), 0.5 * height
                add(foot, Material.RUBBER, SemanticClass.BARRIER, DARK, Shape.BOX, thing)
                add(
                    (x, y, half, radius, radius, half, yaw),
                    Material.PLAIN,
                    SemanticClass.BARRIER,
                    ORANGE,
                    Shape.CYLINDER,
                    thing,
                )
                band = (x, y, 0.65 * height, radius + 0.01, radius + 0.01, 0.08 * height, yaw)
                add(band, Material.SIGN, SemanticClass.BARRIER, WHITE, Shape.CYLINDER, thing)
            case StandingKind.SIGN:
                bottom = 0.62 * height if height > SIGN_FROM_M else 0.05
                half_width = 0.5 * max(width, length)
                add(
                    (x, y, 0.5 * height, 0.035, 0.035, 0.5 * height, yaw),
                    Material.METAL,
                    SemanticClass.POLE,
                    STEEL,
                    Shape.CYLINDER,
                    thing,
                )
                turned = yaw if width >= length else yaw + 0.5 * math.pi
                plate = (x, y, 0.5 * (bottom + height), 0.05, half_width, 0.5 * (height - bottom), turned)
                add(plate, Material.SIGN, SemanticClass.TRAFFIC_SIGN, WHITE, Shape.BOX, thing)
            case StandingKind.STOP_SIGN:
                foot_xy = _beside(np.array([x, y]), yaw, ground)
                if foot_xy is None:
                    continue
                x, y = foot_xy
                top, half_width = STOP_PLATE_M
                add(
                    (x, y, 0.5 * top, 0.035, 0.035, 0.5 * top, yaw),
                    Material.METAL,
                    SemanticClass.POLE,
                    STEEL,
                    Shape.CYLINDER,
                    thing,
                )
                px, py = x - TOWARDS_M * math.cos(yaw), y - TOWARDS_M * math.sin(yaw)
                plate = (px, py, top, half_width, 0.012, half_width, yaw + 0.5 * math.pi)
                add(plate, Material.SIGN, SemanticClass.TRAFFIC_SIGN, SIGN_RED, Shape.WHEEL, thing)
    table, look = np.array(rows).reshape(-1, 7), np.array(looks, np.int32).reshape(-1, 4)
    return Boxes(
        center=np.ascontiguousarray(table[:, :3]), half_size=np.ascontiguousarray(table[:, 3:6]),
        yaw_rad=np.ascontiguousarray(table[:, 6]), material=look[:, 0].astype(np.uint8),
        semantic=look[:, 1].astype(np.uint8), instance=np.ascontiguousarray(look[:, 2]),
        color=np.array(colors, np.uint8).reshape(-1, 3), shape=look[:, 3].astype(np.uint8),
    )  # fmt: skip


def _beside(place: F64, yaw: float, ground: GroundRaster) -> tuple[float, float] | None:
    """The first place to the right of one that is no roadway, and half a metre more; None within 8 m."""
    right = np.array([math.sin(yaw), -math.cos(yaw)])
    for away in np.arange(0.0, 8.0, 0.2):
        column, row = np.floor((place + away * right - ground.origin) / ground.cell_m).astype(int)
        if not (0 <= row < ground.drivable.shape[0] and 0 <= column < ground.drivable.shape[1]):
            return None
        if ground.drivable[row, column] == 0:
            x, y = place + (away + 0.5 if away > 0.0 else 0.0) * right
            return float(x), float(y)
    return None
