"""Puts what stands beside the roads: buildings, trees, hedges, lamps, signs, signal masts and parked cars.

Knows road networks and the ground; knows nothing about traffic, sensors or signal states.
"""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.bodies import CLOSE_M, car, van
from sim.roads.ground import GroundRaster
from sim.roads.highway_scenery import highway_lanes, line_highway
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.roadside import PLAN_CELL_M, Side, Yard
from sim.roads.signal_heads import SignalMast, beside_road
from sim.solids import Boxes, Color, Material, Shape

F64 = NDArray[np.float64]

STOP_RIM_M = 0.42
SIGN_BACK_M, SIGN_AFTER_M = 0.5, 12.0  # before a line, after a junction
SIGN_LEEWAY_M = 10.0  # so much earlier at most

FACADES: tuple[Color, ...] = (
    (214, 200, 176), (196, 164, 132), (168, 94, 74), (222, 216, 204), (182, 178, 170), (201, 182, 120),
    (150, 128, 112), (208, 170, 158), (160, 172, 178), (232, 226, 210),
)  # fmt: skip
ROOFS: tuple[Color, ...] = ((112, 64, 54), (84, 82, 86), (120, 110, 104), (96, 58, 48))
LEAVES: tuple[Color, ...] = ((74, 104, 48), (88, 118, 54), (62, 92, 50), (104, 122, 60), (80, 110, 66))
BARKS: tuple[Color, ...] = ((92, 74, 58), (78, 66, 56), (110, 96, 80))
PAINTS: tuple[Color, ...] = (
    (232, 232, 230), (24, 26, 30), (120, 124, 130), (176, 180, 184), (38, 58, 110), (142, 26, 30), (64, 70, 62),
    (196, 188, 170), (70, 96, 120), (92, 92, 96),
)  # fmt: skip
STEEL: Color = (96, 100, 104)
SIGN_RED: Color = (186, 28, 34)


def build_scenery(network: RoadNetwork, ground: GroundRaster, seed: int, masts: tuple[SignalMast, ...] = ()) -> Boxes:
    """What stands beside the roads of a network; the same for the same arguments.

    masts: poles of the signals, as `signal_heads` gives them; they get their boxes here, the heads do not.

    No box stands on a driving lane or a junction; what hangs over a road (arms of masts and lamps) has 4.5 m below it.
    The boxes of one object share an instance number from 1,000,000 upwards.
    """
    rng = random.Random(f"scenery:{seed}")
    yard = Yard(ground)
    for mast in masts:
        _add_mast(yard, mast)
    fast = highway_lanes(network)
    for lane in range(network.num_lanes):
        if lane in fast:
            line_highway(yard, network, Side(network, ground, lane), lane)
        elif _outermost(network, lane):
            _line_roadside(yard, rng, Side(network, ground, lane))
    _scatter_trees(yard, rng, ground)
    return yard.boxes()


def _outermost(network: RoadNetwork, lane: int) -> bool:
    outside = network.lane_kind[lane] == LaneKind.DRIVING and network.lane_junction[lane] < 0
    return bool(outside and network.lane_right[lane] < 0)


def _line_roadside(yard: Yard, rng: random.Random, side: Side) -> None:
    """Everything along one side of a street, from the kerb outwards; what does not fit is left out."""
    _add_signs(yard, rng, side)
    _add_lamps(yard, rng, side)
    _add_lots(yard, rng, side)
    _add_street_trees(yard, rng, side)


def _add_mast(yard: Yard, mast: SignalMast) -> None:
    yard.thing()
    yard.take(mast.foot, (0.3, 0.3), 0.0, on_paving=True)
    yard.box(
        mast.foot, (0.08, 0.08, 0.5 * mast.top_m), 0.0, 0.0, Material.METAL, SemanticClass.POLE, STEEL, Shape.CYLINDER
    )
    if not mast.reached:
        return
    farthest = max(mast.reached, key=lambda spot: float(np.hypot(*(spot - mast.foot))))
    reach = farthest - mast.foot
    length = float(np.hypot(*reach))
    if length > 0.3:
        yaw = math.atan2(reach[1], reach[0])
        middle = mast.foot + 0.5 * reach
        half = (0.5 * length, 0.06, 0.06)
        yard.box(middle, half, yaw, mast.top_m - 0.12, Material.METAL, SemanticClass.POLE, STEEL)


def _add_signs(yard: Yard, rng: random.Random, side: Side) -> None:
    """A sign for stop and give way at the line, and now and then a speed limit after the junction."""
    spots = []
    if LaneControl.STOP in side.controls:
        spots.append((side.length_m - SIGN_BACK_M, _add_stop_sign))
    elif LaneControl.YIELD in side.controls:
        spots.append((side.length_m - SIGN_BACK_M, _add_yield_sign))
    if side.length_m > 40.0 and rng.random() < 0.6:
        spots.append((SIGN_AFTER_M, _add_limit_sign))
    for first, add in spots:
        found = _sign_place(yard, side, first)
        if found is None:
            continue
        foot, yaw = found
        yard.thing()
        yard.box(foot, (0.035, 0.035, 1.42), yaw, 0.0, Material.METAL, SemanticClass.POLE, STEEL, Shape.CYLINDER)
        add(yard, foot, yaw)


def _sign_place(yard: Yard, side: Side, first: float) -> tuple[F64, float] | None:
    """Foot and heading of a sign at arc length first, or up to SIGN_LEEWAY_M before it where corners or others are in the way."""
    for back in np.arange(0.0, SIGN_LEEWAY_M, 1.0):
        s = max(first - back, 0.0)
        yaw = side.yaw(s)
        right = np.array([math.sin(yaw), -math.cos(yaw)])
        for right_m in (0.6, 1.0, 1.4, 1.8):
            foot = beside_road(side.ground, side.place(s, right_m), right, 3.0)
            if foot is not None and yard.take(foot, (0.4, 0.4), yaw, on_paving=True):
                return foot, yaw
    return None


def _add_disc(yard: Yard, foot: F64, yaw: float, ahead_m: float, radius: float, color: Color) -> None:
    """A round plate 2.5 m up that faces those who drive along yaw; ahead_m: towards them from the pole."""
    spot = foot - ahead_m * np.array([math.cos(yaw), math.sin(yaw)])
    half = (radius, 0.012, radius)
    turned = yaw + 0.5 * math.pi
    yard.box(spot, half, turned, 2.5 - radius, Material.SIGN, SemanticClass.TRAFFIC_SIGN, color, Shape.WHEEL)


def _add_plate(yard: Yard, foot: F64, yaw: float, ahead_m: float, plate: tuple[float, ...], color: Color) -> None:
    """A plate: how far left, half width, lower edge and half height of it."""
    aside, half_width, bottom, half_height = plate
    spot = foot - ahead_m * np.array([math.cos(yaw), math.sin(yaw)]) + aside * np.array([-math.sin(yaw), math.cos(yaw)])
    half = (0.012, half_width, half_height)
    yard.box(spot, half, yaw, bottom, Material.SIGN, SemanticClass.TRAFFIC_SIGN, color)


def stop_signs(scenery: Boxes) -> NDArray[np.intp]:
    """Rows (N,) of the scenery that are the rims of stop signs: no other sign has a disc as large. They turn their backs, as
    wheels do, along yaw_rad - pi / 2."""
    discs = (scenery.semantic == SemanticClass.TRAFFIC_SIGN) & (scenery.shape == Shape.WHEEL)
    return np.flatnonzero(discs & np.isclose(scenery.half_size[:, 0], STOP_RIM_M))


def _add_stop_sign(yard: Yard, foot: F64, yaw: float) -> None:
    _add_disc(yard, foot, yaw, 0.04, STOP_RIM_M, (232, 228, 222))
    _add_disc(yard, foot, yaw, 0.06, 0.38, SIGN_RED)
    _add_plate(yard, foot, yaw, 0.075, (0.0, 0.27, 2.43, 0.07), (232, 228, 222))


def _add_yield_sign(yard: Yard, foot: F64, yaw: float) -> None:
    """A triangle on its tip, of plates that grow upwards: red, and a smaller white one in front of it."""
    for ahead_m, tip, size, color in ((0.04, 2.05, 0.80, SIGN_RED), (0.06, 2.24, 0.48, (232, 228, 222))):
        steps = 5
        for k in range(steps):
            half_width = 0.5 * size * (k + 0.7) / steps
            _add_plate(
                yard, foot, yaw, ahead_m, (0.0, half_width, tip + k * 0.87 * size / steps, 0.435 * size / steps), color
            )


def _add_limit_sign(yard: Yard, foot: F64, yaw: float) -> None:
    _add_disc(yard, foot, yaw, 0.04, 0.36, SIGN_RED)
    _add_disc(yard, foot, yaw, 0.06, 0.27, (236, 234, 228))
    for aside in (-0.09, 0.09):
        _add_plate(yard, foot, yaw, 0.075, (aside, 0.055, 2.39, 0.11), (30, 30, 32))


def _add_lamps(yard: Yard, rng: random.Random, side: Side) -> None:
    s = rng.uniform(8.0, 22.0)
    while s < side.length_m - 6.0:
        yaw = side.yaw(s)
        right = np.array([math.sin(yaw), -math.cos(yaw)])
        foot = beside_road(side.ground, side.place(s, 0.8), right, 2.0)
        if foot is not None and yard.take(foot, (0.4, 0.4), yaw, on_paving=True):
            yard.thing()
            yard.box(foot, (0.07, 0.07, 3.6), yaw, 0.0, Material.METAL, SemanticClass.POLE, STEEL, Shape.CYLINDER)
            arm = foot - 0.9 * right
            yard.box(arm, (0.05, 0.9, 0.05), yaw, 7.1, Material.METAL, SemanticClass.POLE, STEEL)
            lamp = foot - 1.7 * right
            yard.box(lamp, (0.16, 0.36, 0.05), yaw, 7.06, Material.METAL, SemanticClass.POLE, (60, 62, 66))
            yard.box(lamp, (0.13, 0.32, 0.04), yaw, 6.98, Material.LAMP_OFF, SemanticClass.POLE, (214, 206, 186))
        s += rng.uniform(26.0, 34.0)


def _add_lots(yard: Yard, rng: random.Random, side: Side) -> None:
    """Plots one after another: mostly a building, else a parking place or a garden behind a hedge or a fence."""
    s = rng.uniform(1.0, 5.0)
    while s < side.length_m - 6.0:
        frontage = min(rng.uniform(10.0, 24.0), side.length_m - s)
        middle = s + 0.5 * frontage
        edge = side.paving_end(middle)
        choice = rng.random()
        if choice < 0.68:
            _add_building(yard, rng, side, middle, edge, frontage)
        elif choice < 0.84:
            _add_parking(yard, rng, side, middle, edge, frontage)
        else:
            _add_garden(yard, rng, side, middle, edge, frontage)
        s += frontage + rng.uniform(1.0, 4.0)


def _add_building(yard: Yard, rng: random.Random, side: Side, s: float, edge: float, frontage: float) -> None:
    setback = rng.choice((2.5, 3.5, 3.5, 5.0, 6.0))
    storeys = rng.choices((1, 2, 3, 4, 5, 6), (1, 4, 5, 4, 2, 1))[0]
    height = 0.6 + 3.1 * storeys
    yaw = side.yaw(s)
    for shrink in (1.0, 0.75, 0.5):
        half = (0.5 * frontage * shrink - 0.5, 0.5 * rng.uniform(9.0, 14.0) * (0.5 + 0.5 * shrink))
        center = side.place(s, edge + setback + half[1])
        if half[0] > 3.0 and yard.take(center, (half[0] + 0.8, half[1] + 0.8), yaw):
            break
    else:
        return
    facade, roof = rng.choice(FACADES), rng.choice(ROOFS)
    yard.thing()
    yard.box(center, (*half, 0.5 * height), yaw, 0.0, Material.FACADE, SemanticClass.BUILDING, facade)
    if storeys <= 3 and rng.random() < 0.65:
        _add_gable(yard, center, half, yaw, height, rng.uniform(0.5, 0.85) * half[1], roof)
    else:
        yard.box(center, (*half, 0.3), yaw, height, Material.ROOF, SemanticClass.BUILDING, rng.choice(ROOFS[1:3]))
        hut = (min(2.0, half[0] * 0.4), min(1.5, half[1] * 0.4), 1.1)
        offset_m = rng.uniform(-0.4, 0.4) * half[0]
        spot = center + offset_m * np.array([math.cos(yaw), math.sin(yaw)])
        yard.box(spot, hut, yaw, height + 0.6, Material.ROOF, SemanticClass.BUILDING, (150, 148, 144))


def _add_gable(
    yard: Yard, center: F64, half: tuple[float, float], yaw: float, eaves_m: float, rise_m: float, color: Color
) -> None:
    """A pitched roof whose ridge runs along the house's longer street front: two wedges, back to back, and a chimney."""
    left = np.array([-math.sin(yaw), math.cos(yaw)])
    depth = 0.5 * (half[1] + 0.35)
    for side in (1.0, -1.0):
        spot = center + side * depth * left
        slope = (depth, half[0] + 0.3, 0.5 * rise_m)
        turned = yaw + side * 0.5 * math.pi
        yard.box(spot, slope, turned, eaves_m, Material.ROOF, SemanticClass.BUILDING, color, Shape.WEDGE)
    ahead = np.array([math.cos(yaw), math.sin(yaw)])
    chimney = center + 0.5 * half[0] * ahead + 0.3 * half[1] * left
    yard.box(
        chimney, (0.3, 0.3, 0.9), yaw, eaves_m + 0.55 * rise_m, Material.ROOF, SemanticClass.BUILDING, (128, 84, 70)
    )


def _add_parking(yard: Yard, rng: random.Random, side: Side, s: float, edge: float, frontage: float) -> None:
    """Cars that stand side by side on their plot, nose or tail to the street."""
    pitch = 2.7
    for k in range(int(frontage // pitch)):
        if rng.random() < 0.3:
            continue
        station = s - 0.5 * frontage + (k + 0.5) * pitch
        yaw = side.yaw(station) + rng.choice((0.5, -0.5)) * math.pi + rng.uniform(-0.04, 0.04)
        _add_car(yard, rng, side.place(station, edge + 0.9 + 2.4), yaw)


def _add_car(yard: Yard, rng: random.Random, center: F64, yaw: float) -> None:
    length, width = rng.uniform(4.0, 4.7), rng.uniform(1.74, 1.86)
    if not yard.take(center, (0.5 * length + 0.15, 0.5 * width + 0.15), yaw):
        return
    paint = rng.choice(PAINTS)
    is_van = rng.random() < 0.15
    height = 1.95 if is_van else rng.uniform(1.42, 1.6)
    yard.thing()
    ahead, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
    for part in van() if is_van else car():
        if part.reach_m <= CLOSE_M and min(part.half[0] * length, part.half[1] * width) < 0.05:
            continue  # a parked car does without the smallest
        spot = center + part.center[0] * length * ahead + part.center[1] * width * left
        half = (part.half[0] * length, part.half[1] * width, part.half[2] * height)
        painted = (int(part.own * paint[0]), int(part.own * paint[1]), int(part.own * paint[2]))
        color = painted if part.own else part.color
        bottom = part.center[2] * height - half[2]
        turned = yaw + math.pi if part.turned else yaw
        yard.box(spot, half, turned, bottom, part.material, SemanticClass.VEHICLE, color, part.shape)


def _add_garden(yard: Yard, rng: random.Random, side: Side, s: float, edge: float, frontage: float) -> None:
    """A hedge or a fence along the street, with trees behind."""
    hedge = rng.random() < 0.6
    leaf, wood = rng.choice(LEAVES), rng.choice(((186, 176, 160), (140, 120, 98), (206, 206, 202)))
    pieces = max(1, round(frontage / 5.0))
    yard.thing()
    for k in range(pieces):
        station = s - 0.5 * frontage + (k + 0.5) * frontage / pieces
        yaw = side.yaw(station)
        half = (0.5 * frontage / pieces, 0.4 if hedge else 0.06, 0.6 if hedge else 0.55)
        center = side.place(station, edge + 0.9)
        if yard.take(center, half[:2], yaw):
            if hedge:
                yard.box(center, half, yaw, 0.0, Material.FOLIAGE, SemanticClass.VEGETATION, leaf)
            else:
                yard.box(center, half, yaw, 0.0, Material.PLAIN, SemanticClass.BARRIER, wood)
    for _ in range(rng.randint(1, 3)):
        station = s + rng.uniform(-0.45, 0.45) * frontage
        _add_tree(yard, rng, side.place(station, edge + rng.uniform(3.5, 11.0)))


def _add_street_trees(yard: Yard, rng: random.Random, side: Side) -> None:
    if rng.random() < 0.25:
        return
    s = rng.uniform(5.0, 14.0)
    while s < side.length_m - 4.0:
        if rng.random() < 0.75:
            _add_tree(yard, rng, side.place(s, side.paving_end(s) + rng.uniform(0.9, 1.4)), small=True)
        s += rng.uniform(9.0, 16.0)


def _add_tree(yard: Yard, rng: random.Random, center: F64, *, small: bool = False) -> None:
    height = rng.uniform(4.5, 7.0) if small else rng.uniform(6.0, 11.0)
    crown = rng.uniform(1.1, 1.6) if small else rng.uniform(1.6, 2.6)
    if yard.over_road(center, crown * math.sqrt(1.5)) or not yard.take(center, (0.6, 0.6), 0.0):
        return
    clear = rng.uniform(2.3, 2.8)
    thick = 0.11 if small else rng.uniform(0.14, 0.24)
    leaf = rng.choice(LEAVES)
    yaw = rng.uniform(0.0, 0.5 * math.pi)
    yard.thing()
    trunk = 0.5 * (clear + 0.9)
    bark = rng.choice(BARKS)
    yard.box(center, (thick, thick, trunk), yaw, 0.0, Material.BARK, SemanticClass.VEGETATION, bark, Shape.CYLINDER)
    if rng.random() < 0.2:
        _add_conifer(yard, center, crown, clear, height)
        return
    middle = 0.5 * (height - clear)
    size = (0.82 * crown, 0.82 * crown, 0.86 * middle)
    yard.box(center, size, yaw, clear, Material.FOLIAGE, SemanticClass.VEGETATION, leaf, Shape.ELLIPSOID)
    for k in range(3):
        turn = yaw + 2.1 * k + rng.uniform(-0.4, 0.4)
        out = 0.36 * crown * np.array([math.cos(turn), math.sin(turn)])
        tone = rng.uniform(0.86, 1.06)
        tint = (int(leaf[0] * tone), int(leaf[1] * tone), int(leaf[2] * tone))
        size = (0.58 * crown, 0.52 * crown, rng.uniform(0.48, 0.6) * middle)
        foot = clear + rng.uniform(0.15, 0.75) * middle
        yard.box(center + out, size, turn, foot, Material.FOLIAGE, SemanticClass.VEGETATION, tint, Shape.ELLIPSOID)


def _add_conifer(yard: Yard, center: F64, crown: float, clear: float, height: float) -> None:
    """Flat crowns one above the other, each smaller."""
    tall = height - 0.6 * clear
    for k in range(5):
        wide = crown * (0.70, 0.60, 0.48, 0.34, 0.18)[k]
        half = (wide, wide, 0.19 * tall)
        foot = 0.6 * clear + 0.155 * k * tall
        yard.box(center, half, 0.0, foot, Material.FOLIAGE, SemanticClass.VEGETATION, (52, 80, 52), Shape.ELLIPSOID)


def _scatter_trees(yard: Yard, rng: random.Random, ground: GroundRaster) -> None:
    """Trees on what is left of the terrain within 35 m of a road, one for about 500 m2."""
    reach = cv2.distanceTransform((yard.paved == 0).astype(np.uint8), cv2.DIST_L2, 5) * PLAN_CELL_M
    rows, columns = yard.paved.shape
    for _ in range(round(rows * columns * PLAN_CELL_M**2 / 500.0)):
        row, column = rng.randrange(rows), rng.randrange(columns)
        if 3.0 < reach[row, column] < 35.0:
            _add_tree(yard, rng, ground.origin + (np.array([column, row]) + 0.5) * PLAN_CELL_M)
