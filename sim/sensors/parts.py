"""The boxes around one ego: scenery near it, vehicles built of several boxes, signal heads with their state.

Knows maps and the world's state; knows nothing about rays or colours on a screen. Boxes come out in the ego frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from planning.policy import SignalState
from sim.roads.driving_map import DrivingMap, SignalHeads
from sim.sensors.cast import BOX_COLUMNS, COS, CX, CY, CZ, FAST, HX, HY, HZ, SHAPE, SIN
from sim.solids import Material, Shape
from sim.visibility import BoxGrid
from sim.world import ActorKind

MAX_BOXES = 3072
SCENERY_RANGE_M = 150.0
BIN_M = 2.0  # boxes are sorted by distance to within this, so that near ones are cast first
BINS = 96
MIN_ANGLE = 0.0025  # radius over distance below which a box is left out: a third of a pixel of the tele camera


class Attribute(IntEnum):
    """Columns of a box's attributes, int32."""

    MATERIAL = 0
    SEMANTIC = 1
    INSTANCE = 2
    RED = 3
    GREEN = 4
    BLUE = 5


ATTRIBUTES = len(Attribute)
MATERIAL, SEMANTIC, INSTANCE, RED = Attribute.MATERIAL, Attribute.SEMANTIC, Attribute.INSTANCE, Attribute.RED


class Lamp(IntEnum):
    """What makes a part of a vehicle light up."""

    NONE = 0
    BRAKE = 1
    LEFT = 2
    RIGHT = 3


_FAR, _MIDDLE, _CLOSE = 1000.0, 90.0, 45.0
_DARK, _GLASS, _SILVER = (22, 22, 24), (38, 48, 58), (120, 122, 126)


class Part(NamedTuple):
    """A solid of a vehicle: x and y in shares of its length and width from its middle, z in shares of its height from the ground.

    own_color: painted as the vehicle is, instead of in `color`. reach_m: from further away it is left out.
    """

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    material: Material
    color: tuple[int, int, int] = (0, 0, 0)
    own_color: bool = False
    lamp: Lamp = Lamp.NONE
    reach_m: float = _FAR
    shape: Shape = Shape.BOX


def _wheels(x_front: float, x_rear: float, half_length: float, half_height: float) -> list[Part]:
    half = (half_length, 0.055, half_height)
    return [
        Part((x, side * 0.44, half_height), half, Material.RUBBER, _DARK, reach_m=_CLOSE, shape=Shape.WHEEL)
        for x in (x_front, x_rear)
        for side in (-1, 1)
    ]


def _lamps(z: float, half_height: float) -> list[Part]:
    parts: list[Part] = []
    wide, narrow = (0.008, 0.09, half_height), (0.010, 0.02, half_height)
    red, amber, white = (120, 12, 14), (150, 80, 10), (225, 228, 230)
    for side, lamp in ((1, Lamp.LEFT), (-1, Lamp.RIGHT)):
        parts += [
            Part((-0.497, side * 0.37, z), wide, Material.LAMP_OFF, red, lamp=Lamp.BRAKE),
            Part((-0.496, side * 0.475, z), narrow, Material.LAMP_OFF, amber, lamp=lamp, reach_m=_MIDDLE),
            Part((0.496, side * 0.475, z), narrow, Material.LAMP_OFF, amber, lamp=lamp, reach_m=_MIDDLE),
            Part((0.497, side * 0.36, z), wide, Material.LAMP_OFF, white, reach_m=_MIDDLE),
        ]
    return parts


def _vehicle(kind: ActorKind) -> list[Part]:
    paint, glass, metal, rubber = Material.PAINT, Material.GLASS, Material.METAL, Material.RUBBER
    plain, cloth = Material.PLAIN, Material.CLOTH
    match kind:
        case ActorKind.CAR:
            return [
                Part((0.0, 0.0, 0.39), (0.5, 0.5, 0.24), paint, own_color=True),
                Part((-0.06, 0.0, 0.785), (0.26, 0.44, 0.165), glass, _GLASS),
                Part((-0.09, 0.0, 0.965), (0.19, 0.42, 0.035), paint, own_color=True),
                Part((0.0, 0.0, 0.13), (0.47, 0.47, 0.05), plain, _DARK, reach_m=_CLOSE),
                Part((-0.501, 0.0, 0.30), (0.002, 0.14, 0.04), Material.SIGN, (225, 225, 215), reach_m=_CLOSE),
                Part((0.501, 0.0, 0.34), (0.002, 0.30, 0.05), plain, _DARK, reach_m=_CLOSE),
                *_wheels(0.31, -0.31, 0.072, 0.21),
                *_lamps(0.50, 0.045),
            ]
        case ActorKind.VAN | ActorKind.BUS:
            bus = kind == ActorKind.BUS
            front = 0.5 if bus else 0.37
            bonnet = [] if bus else [Part((0.43, 0.0, 0.32), (0.07, 0.48, 0.20), paint, own_color=True)]
            middle, length = (0.0, 0.44) if bus else (0.22, 0.10)
            return [
                Part(((front - 0.5) / 2, 0.0, 0.55), ((front + 0.5) / 2, 0.5, 0.43), paint, own_color=True),
                *bonnet,
                Part((front, 0.0, 0.70), (0.012, 0.44, 0.16), glass, _GLASS),
                Part((middle, 0.0, 0.70), (length, 0.505, 0.13), glass, _GLASS, reach_m=_MIDDLE),
                Part((-0.5, 0.0, 0.70), (0.006, 0.40, 0.13), glass, _GLASS, reach_m=_MIDDLE),
                *_wheels(0.32, -0.30, 0.065 if not bus else 0.045, 0.15),
                *_lamps(0.34, 0.05),
            ]
        case ActorKind.TRUCK:
            return [
                Part((0.39, 0.0, 0.45), (0.11, 0.49, 0.33), paint, own_color=True),
                Part((0.497, 0.0, 0.62), (0.006, 0.44, 0.12), glass, _GLASS, reach_m=_MIDDLE),
                Part((-0.12, 0.0, 0.60), (0.38, 0.5, 0.40), plain, (214, 212, 204)),
                Part((-0.02, 0.0, 0.17), (0.46, 0.40, 0.04), metal, (50, 52, 55), reach_m=_MIDDLE),
                *_wheels(0.38, -0.30, 0.06, 0.13),
                *_lamps(0.25, 0.04),
            ]
        case ActorKind.MOTORCYCLE | ActorKind.BICYCLE:
            wheel = (0.14, 0.10, 0.20)
            return [
                Part((0.0, 0.0, 0.35), (0.32, 0.20, 0.14), paint, own_color=True),
                Part((0.36, 0.0, 0.20), wheel, rubber, _DARK, reach_m=_MIDDLE, shape=Shape.WHEEL),
                Part((-0.36, 0.0, 0.20), wheel, rubber, _DARK, reach_m=_MIDDLE, shape=Shape.WHEEL),
                Part((-0.05, 0.0, 0.68), (0.14, 0.36, 0.19), cloth, (52, 58, 72)),
                Part((0.0, 0.0, 0.93), (0.08, 0.20, 0.07), plain, (60, 58, 56), shape=Shape.ELLIPSOID),
            ]
        case ActorKind.PEDESTRIAN:
            return [
                Part((0.0, 0.25, 0.24), (0.25, 0.18, 0.24), cloth, (44, 50, 66)),
                Part((0.0, -0.25, 0.24), (0.25, 0.18, 0.24), cloth, (44, 50, 66), reach_m=_MIDDLE),
                Part((0.0, 0.0, 0.66), (0.32, 0.46, 0.19), cloth, own_color=True, shape=Shape.CYLINDER),
                Part((0.0, 0.0, 0.93), (0.26, 0.20, 0.07), cloth, (196, 150, 124), shape=Shape.ELLIPSOID),
            ]


_SEMANTIC = {
    ActorKind.MOTORCYCLE: SemanticClass.TWO_WHEELER,
    ActorKind.BICYCLE: SemanticClass.TWO_WHEELER,
    ActorKind.PEDESTRIAN: SemanticClass.PEDESTRIAN,
}


def _templates() -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    start, shape, look, semantic = [0], [], [], []
    for kind in ActorKind:
        for part in _vehicle(kind):
            shape.append([*part.center, *part.half, part.reach_m])
            look.append([int(part.material), part.own_color, *part.color, int(part.lamp), int(part.shape)])
        start.append(len(shape))
        semantic.append(int(_SEMANTIC.get(kind, SemanticClass.VEHICLE)))
    return (
        np.array(start, np.int32), np.array(shape, np.float32), np.array(look, np.int32), np.array(semantic, np.int32)
    )  # fmt: skip


PART_START, PART_SHAPE, PART_LOOK, KIND_SEMANTIC = _templates()

# Boxes of a signal head in its own frame (x the way the lamps look): housing, then red, yellow and green lamp.
_HEAD = np.array(
    [
        [0.0, 0.0, 0.0, 0.12, 0.18, 0.50],
        [0.14, 0.0, 0.31, 0.05, 0.13, 0.13],
        [0.14, 0.0, 0.0, 0.05, 0.13, 0.13],
        [0.14, 0.0, -0.31, 0.05, 0.13, 0.13],
    ],
    np.float32,
)
_LAMP_ON = np.array([[255, 40, 30], [255, 190, 30], [40, 255, 120]], np.int32)
_LAMP_OFF = np.array([[62, 16, 14], [60, 46, 12], [12, 52, 30]], np.int32)
_RED, _YELLOW, _GREEN = int(SignalState.RED), int(SignalState.YELLOW), int(SignalState.GREEN)
_MATERIAL_ON, _MATERIAL_OFF = int(Material.LAMP_ON), int(Material.LAMP_OFF)
_MATERIAL_METAL, _SEMANTIC_LIGHT = int(Material.METAL), int(SemanticClass.TRAFFIC_LIGHT)
_BRAKE, _LEFT, _RIGHT = int(Lamp.BRAKE), int(Lamp.LEFT), int(Lamp.RIGHT)
SIGNAL_INSTANCE = 2_000_000


@dataclass(frozen=True)
class Surroundings:
    """What stands still in a map, sorted for kernels. attributes: (B, ATTRIBUTES) int32 in the grid's order."""

    grid: BoxGrid
    attributes: NDArray[np.int32]
    heads: NDArray[np.float64]
    head_links: NDArray[np.int32]

    @staticmethod
    def of(driving_map: DrivingMap) -> Surroundings:
        solids, heads = driving_map.scenery, driving_map.signal_heads
        grid = BoxGrid(solids)
        attributes = np.column_stack([solids.material, solids.semantic, solids.instance, solids.color])
        return Surroundings(grid, attributes.astype(np.int32)[grid.order], _head_array(heads), heads.link)


def _head_array(heads: SignalHeads) -> NDArray[np.float64]:
    columns = [heads.x_m, heads.y_m, heads.z_m, heads.yaw_rad]
    return np.ascontiguousarray(np.column_stack(columns), np.float64)


@njit(**FAST)
def _put(
    box, attribute, x, y, z, cos_yaw, sin_yaw, hx, hy, hz, shape, material, semantic, instance, red, green, blue
):  # fmt: skip
    box[CX], box[CY], box[CZ] = x, y, z
    box[HX], box[HY], box[HZ] = hx, hy, hz
    box[COS], box[SIN], box[SHAPE] = cos_yaw, sin_yaw, shape
    attribute[0], attribute[1], attribute[2] = material, semantic, instance
    attribute[3], attribute[4], attribute[5] = red, green, blue


@njit(**FAST)
def sort_boxes(boxes, count, order, bins):
    """Fill order[:count] with the boxes' indices, nearest first to within BIN_M; bins: (BINS + 1,) int32 scratch."""
    bins[:] = 0
    for k in range(count):
        bins[_bin(boxes[k]) + 1] += 1
    for b in range(BINS):
        bins[b + 1] += bins[b]
    for k in range(count):
        b = _bin(boxes[k])
        order[bins[b]] = k
        bins[b] += 1


@njit(**FAST)
def _bin(box):
    away = math.sqrt(box[CX] * box[CX] + box[CY] * box[CY]) - max(box[HX], box[HY])
    return min(max(math.floor(away / np.float32(BIN_M)), 0), BINS - 1)


@njit(**FAST)
def gather_boxes(
    e, active, kind, x_m, y_m, yaw_rad, rear_axle_m, length_m, width_m, height_m, brake_light, indicator, paint, tick,
    signal, static, static_attributes, start, origin, cell_m, columns, rows, reach_m, heads, head_links, boxes,
    attributes,
):  # fmt: skip
    """Fill boxes (MAX_BOXES, BOX_COLUMNS) float32 and attributes (MAX_BOXES, ATTRIBUTES) int32 of environment e.

    Actors come first, so that a crowded map never pushes them out. Positions are subtracted in float64 and then kept
    in float32, so precision does not depend on where in a map the ego is. Returns (boxes, boxes of actors).
    """
    yaw = yaw_rad[e, 0]
    c, s = math.cos(yaw), math.sin(yaw)
    ego_x, ego_y = x_m[e, 0] - rear_axle_m[e, 0] * c, y_m[e, 0] - rear_axle_m[e, 0] * s
    count = 0
    blink = (tick[e] // 4) % 2 == 0
    limit = boxes.shape[0]
    for a in range(1, x_m.shape[1]):
        if active[e, a] == 0:
            continue
        dx, dy = x_m[e, a] - ego_x, y_m[e, a] - ego_y
        distance = math.sqrt(dx * dx + dy * dy)
        if distance > SCENERY_RANGE_M + 10.0:
            continue
        x, y = c * dx + s * dy, c * dy - s * dx
        ca, sa = math.cos(yaw_rad[e, a] - yaw), math.sin(yaw_rad[e, a] - yaw)
        length, width, height = length_m[e, a], width_m[e, a], height_m[e, a]
        k = kind[e, a]
        for p in range(PART_START[k], PART_START[k + 1]):
            if distance > PART_SHAPE[p, 6] or count >= limit:
                continue
            px, py = PART_SHAPE[p, 0] * length, PART_SHAPE[p, 1] * width
            material, red, green, blue = PART_LOOK[p, 0], PART_LOOK[p, 2], PART_LOOK[p, 3], PART_LOOK[p, 4]
            if PART_LOOK[p, 1] == 1:
                red, green, blue = np.int32(paint[e, a, 0]), np.int32(paint[e, a, 1]), np.int32(paint[e, a, 2])
            lamp = PART_LOOK[p, 5]
            side = (lamp == _LEFT and indicator[e, a] > 0) or (lamp == _RIGHT and indicator[e, a] < 0)
            if lamp == _BRAKE and brake_light[e, a] != 0:
                material, red, green, blue = np.int32(_MATERIAL_ON), np.int32(255), np.int32(36), np.int32(30)
            elif side and blink:
                material, red, green, blue = np.int32(_MATERIAL_ON), np.int32(255), np.int32(170), np.int32(30)
            _put(
                boxes[count], attributes[count], x + ca * px - sa * py, y + sa * px + ca * py,
                PART_SHAPE[p, 2] * height, ca, sa, PART_SHAPE[p, 3] * length, PART_SHAPE[p, 4] * width,
                PART_SHAPE[p, 5] * height, PART_LOOK[p, 6], material, KIND_SEMANTIC[k], a, red, green, blue,
            )  # fmt: skip
            count += 1
    actors = count
    for h in range(heads.shape[0]):
        dx, dy = heads[h, 0] - ego_x, heads[h, 1] - ego_y
        distance = math.sqrt(dx * dx + dy * dy)
        if distance > SCENERY_RANGE_M or count + 4 > limit:
            continue
        x, y = c * dx + s * dy, c * dy - s * dx
        ca, sa = math.cos(heads[h, 3] - yaw), math.sin(heads[h, 3] - yaw)
        shown = signal[e, head_links[h]]
        facing = x * ca + y * sa < 0.0  # lamps look towards the ego
        for p in range(4):
            if p > 0 and not facing:
                break
            material, red, green, blue = _MATERIAL_METAL, 26, 28, 30
            if p > 0:
                on = shown == p  # SignalState counts RED, YELLOW, GREEN from 1, as the lamps do from the top
                material = _MATERIAL_ON if on else _MATERIAL_OFF
                colors = _LAMP_ON if on else _LAMP_OFF
                red, green, blue = colors[p - 1, 0], colors[p - 1, 1], colors[p - 1, 2]
            px, py = _HEAD[p, 0], _HEAD[p, 1]
            _put(
                boxes[count], attributes[count], x + ca * px - sa * py, y + sa * px + ca * py,
                heads[h, 2] + _HEAD[p, 2], ca, sa, _HEAD[p, 3], _HEAD[p, 4], _HEAD[p, 5], 0, material, _SEMANTIC_LIGHT,
                SIGNAL_INSTANCE + h, red, green, blue,
            )  # fmt: skip
            count += 1
    reach = SCENERY_RANGE_M + reach_m
    c0 = max(0, math.floor((ego_x - reach - origin[0]) / cell_m))
    c1 = min(columns - 1, math.floor((ego_x + reach - origin[0]) / cell_m))
    r0 = max(0, math.floor((ego_y - reach - origin[1]) / cell_m))
    r1 = min(rows - 1, math.floor((ego_y + reach - origin[1]) / cell_m))
    if c1 < c0:
        return count, actors
    for row in range(r0, r1 + 1):
        for k in range(start[row * columns + c0], start[row * columns + c1 + 1]):
            dx, dy = static[k, 0] - ego_x, static[k, 1] - ego_y
            distance = math.sqrt(dx * dx + dy * dy)
            size = max(static[k, 7], static[k, 6])
            if distance - static[k, 7] > SCENERY_RANGE_M or size < MIN_ANGLE * distance or count >= limit:
                continue
            attribute = static_attributes[k]
            ca, sa = math.cos(static[k, 3] - yaw), math.sin(static[k, 3] - yaw)
            _put(
                boxes[count], attributes[count], c * dx + s * dy, c * dy - s * dx, static[k, 2], ca, sa, static[k, 4],
                static[k, 5], static[k, 6], static[k, 8], attribute[0], attribute[1], attribute[2], attribute[3], attribute[4],
                attribute[5],
            )  # fmt: skip
            count += 1
    return count, actors


def empty_boxes(num_envs: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Buffers of all environments for `gather_boxes`, allocated once."""
    return np.zeros((num_envs, MAX_BOXES, BOX_COLUMNS), np.float32), np.zeros(
        (num_envs, MAX_BOXES, ATTRIBUTES), np.int32
    )
