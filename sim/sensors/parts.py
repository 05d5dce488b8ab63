"""The boxes around one ego: scenery near it, vehicles built of several boxes, signal heads with their state.

Knows maps and the world's state; knows nothing about rays or colours on a screen. Boxes come out in the ego frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from planning.policy import SignalState
from sim.bodies import Lamp, Part, barrier, bicycle, bus, car, cone, motorcycle, pedestrian, truck, van
from sim.roads.driving_map import DrivingMap, SignalHeads
from sim.sensors.cast import BOX_COLUMNS, COS, CX, CY, CZ, FAST, HX, HY, HZ, INLINE, SHAPE, SIN
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


def _body(kind: ActorKind) -> list[Part]:
    match kind:
        case ActorKind.CAR:
            return car()
        case ActorKind.VAN:
            return van()
        case ActorKind.TRUCK:
            return truck()
        case ActorKind.BUS:
            return bus()
        case ActorKind.MOTORCYCLE:
            return motorcycle()
        case ActorKind.BICYCLE:
            return bicycle()
        case ActorKind.PEDESTRIAN:
            return pedestrian()
        case ActorKind.BARRIER:
            return barrier()
        case ActorKind.CONE:
            return cone()


_SEMANTIC = {
    ActorKind.MOTORCYCLE: SemanticClass.TWO_WHEELER,
    ActorKind.BICYCLE: SemanticClass.TWO_WHEELER,
    ActorKind.PEDESTRIAN: SemanticClass.PEDESTRIAN,
    ActorKind.BARRIER: SemanticClass.BARRIER,
    ActorKind.CONE: SemanticClass.BARRIER,
}


def _templates() -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    start, shape, look, semantic = [0], [], [], []
    for kind in ActorKind:
        for part in _body(kind):
            shape.append([*part.center, *part.half, part.reach_m, part.own, -1.0 if part.turned else 1.0, part.swing])
            look.append([int(part.material), *part.color, int(part.lamp), int(part.shape)])
        start.append(len(shape))
        semantic.append(int(_SEMANTIC.get(kind, SemanticClass.VEHICLE)))
    return (
        np.array(start, np.int32), np.array(shape, np.float32), np.array(look, np.int32), np.array(semantic, np.int32)
    )  # fmt: skip


PART_START, PART_SHAPE, PART_LOOK, KIND_SEMANTIC = _templates()

# A signal head in its own frame (x the way the lamps look): housing, then red, yellow and green lamp; half sizes of the lamps
# as they are turned.
_HEAD = np.array(
    [
        [0.0, 0.0, 0.0, 0.12, 0.18, 0.50],
        [0.13, 0.0, 0.31, 0.14, 0.05, 0.14],
        [0.13, 0.0, 0.0, 0.14, 0.05, 0.14],
        [0.13, 0.0, -0.31, 0.14, 0.05, 0.14],
    ],
    np.float32,
)
_LAMP_ON = np.array([[255, 40, 30], [255, 190, 30], [40, 255, 120]], np.int32)
_LAMP_OFF = np.array([[62, 16, 14], [60, 46, 12], [12, 52, 30]], np.int32)
_RED, _YELLOW, _GREEN = int(SignalState.RED), int(SignalState.YELLOW), int(SignalState.GREEN)
_WHEEL = int(Shape.WHEEL)
_MATERIAL_ON, _MATERIAL_OFF = int(Material.LAMP_ON), int(Material.LAMP_OFF)
_MATERIAL_METAL, _SEMANTIC_LIGHT = int(Material.METAL), int(SemanticClass.TRAFFIC_LIGHT)
_BRAKE, _LEFT, _RIGHT = int(Lamp.BRAKE), int(Lamp.LEFT), int(Lamp.RIGHT)
SIGNAL_INSTANCE = 2_000_000
_STRIDE_RAD_PER_TICK = 2 * math.pi * 0.1 / 1.1


@dataclass(frozen=True)
class Surroundings:
    """What stands still in a map, sorted for kernels; in the grid's order attributes (B, ATTRIBUTES) int32 and turns (B, 2)
    float64, cosine and sine of the yaw."""

    grid: BoxGrid
    attributes: NDArray[np.int32]
    turns: NDArray[np.float64]
    heads: NDArray[np.float64]
    head_links: NDArray[np.int32]

    @staticmethod
    def of(driving_map: DrivingMap) -> Surroundings:
        solids, heads = driving_map.scenery, driving_map.signal_heads
        grid = BoxGrid(solids)
        attributes = np.column_stack([solids.material, solids.semantic, solids.instance, solids.color])
        yaw = grid.boxes[:, 3]
        turns = np.ascontiguousarray(np.column_stack([np.cos(yaw), np.sin(yaw)]))
        return Surroundings(grid, attributes.astype(np.int32)[grid.order], turns, _head_array(heads), heads.link)


def _head_array(heads: SignalHeads) -> NDArray[np.float64]:
    columns = [heads.x_m, heads.y_m, heads.z_m, heads.yaw_rad]
    return np.ascontiguousarray(np.column_stack(columns), np.float64)


@njit(**INLINE)
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
    """Fill order[:count] with the boxes' indices, nearest first to within BIN_M, that is by `distance_of`.

    bins: (BINS + 1 + MAX_BOXES,) int32 scratch.
    """
    bins[: BINS + 1] = 0
    for k in range(count):
        b = min(max(math.floor(distance_of(boxes[k]) / np.float32(BIN_M)), 0), BINS - 1)
        bins[BINS + 1 + k] = b
        bins[b + 1] += 1
    for b in range(BINS):
        bins[b + 1] += bins[b]
    for k in range(count):
        b = bins[BINS + 1 + k]
        order[bins[b]] = k
        bins[b] += 1


@njit(**INLINE)
def distance_of(box):
    """Horizontal distance from the ego's origin to the circle in which the longer side of the box moves; negative inside."""
    return math.sqrt(box[CX] * box[CX] + box[CY] * box[CY]) - max(box[HX], box[HY])


@njit(**FAST)
def gather_boxes(
    e, active, kind, x_m, y_m, yaw_rad, rear_axle_m, length_m, width_m, height_m, speed_mps, brake_light, indicator, paint, tick,
    signal, static, static_attributes, static_turns, start, origin, cell_m, columns, rows, reach_m, heads, head_links, boxes,
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
        # A stride of two steps takes a second and a little less; who stands still, keeps the feet together.
        stride = math.sin(_STRIDE_RAD_PER_TICK * tick[e] + 1.7 * a) * min(1.0, speed_mps[e, a])
        for p in range(PART_START[k], PART_START[k + 1]):
            if distance > PART_SHAPE[p, 6] or count >= limit:
                continue
            px, py = (PART_SHAPE[p, 0] + PART_SHAPE[p, 9] * stride) * length, PART_SHAPE[p, 1] * width
            material, red, green, blue = PART_LOOK[p, 0], PART_LOOK[p, 1], PART_LOOK[p, 2], PART_LOOK[p, 3]
            own = PART_SHAPE[p, 7]
            if own > 0:
                red, green = np.int32(own * paint[e, a, 0]), np.int32(own * paint[e, a, 1])
                blue = np.int32(own * paint[e, a, 2])
            lamp = PART_LOOK[p, 4]
            side = (lamp == _LEFT and indicator[e, a] > 0) or (lamp == _RIGHT and indicator[e, a] < 0)
            if lamp == _BRAKE and brake_light[e, a] != 0:
                material, red, green, blue = np.int32(_MATERIAL_ON), np.int32(255), np.int32(36), np.int32(30)
            elif side and blink:
                material, red, green, blue = np.int32(_MATERIAL_ON), np.int32(255), np.int32(170), np.int32(30)
            turn = PART_SHAPE[p, 8]
            _put(
                boxes[count], attributes[count], x + ca * px - sa * py, y + sa * px + ca * py,
                PART_SHAPE[p, 2] * height, turn * ca, turn * sa, PART_SHAPE[p, 3] * length, PART_SHAPE[p, 4] * width,
                PART_SHAPE[p, 5] * height, PART_LOOK[p, 5], material, KIND_SEMANTIC[k], a, red, green, blue,
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
            # A lamp is a disc: a wheel that is turned to the left, so that its axis is the way that the head looks.
            cos_part, sin_part = (ca, sa) if p == 0 else (-sa, ca)
            shape = 0 if p == 0 else _WHEEL
            _put(
                boxes[count], attributes[count], x + ca * px - sa * py, y + sa * px + ca * py, heads[h, 2] + _HEAD[p, 2],
                cos_part, sin_part, _HEAD[p, 3], _HEAD[p, 4], _HEAD[p, 5], shape, material, _SEMANTIC_LIGHT,
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
            square, reach, size = dx * dx + dy * dy, SCENERY_RANGE_M + static[k, 7], max(static[k, 7], static[k, 6])
            if (square > reach * reach) | (size * size < MIN_ANGLE * MIN_ANGLE * square) | (count >= limit):
                continue
            attribute, cw, sw = static_attributes[k], static_turns[k, 0], static_turns[k, 1]
            _put(
                boxes[count], attributes[count], c * dx + s * dy, c * dy - s * dx, static[k, 2], c * cw + s * sw,
                c * sw - s * cw, static[k, 4], static[k, 5], static[k, 6], static[k, 8], attribute[0], attribute[1], attribute[2],
                attribute[3], attribute[4], attribute[5],
            )  # fmt: skip
            count += 1
    return count, actors


def empty_boxes(num_envs: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Buffers of all environments for `gather_boxes`, allocated once."""
    return np.zeros((num_envs, MAX_BOXES, BOX_COLUMNS), np.float32), np.zeros(
        (num_envs, MAX_BOXES, ATTRIBUTES), np.int32
    )
