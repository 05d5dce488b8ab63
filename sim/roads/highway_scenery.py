"""Puts what stands beside highways and their ramps: guard rails, a wall in the median, marker posts, signs before exits.

Knows road networks and the roadside; knows nothing about traffic or sensors. Nothing here is drawn by lot.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.roads.network import LaneKind, RoadNetwork
from sim.roads.roadside import Side, Yard
from sim.solids import Color, Material, Shape

F64 = NDArray[np.float64]

PIECE_M = 6.0
RAIL_GAP_M = 0.8  # from the paving to the rail
WALL_HALF_M = 0.28
OVERLAP_M = 0.4  # pieces that follow each other claim so much less at their ends
POSTS_EVERY = 8  # pieces of rail
EXIT_SIGN_M = (190.0, 40.0)  # before a lane begins that leads off
SIGN_GAP_M = 1.6
REACH = 3  # lanes from a fast one that still belong to it: approaches and ramps
ZINC: Color = (168, 172, 174)
CONCRETE: Color = (176, 174, 168)
WHITE: Color = (236, 236, 232)
BLUE: Color = (28, 78, 156)
BLACK: Color = (34, 34, 36)


def highway_lanes(network: RoadNetwork) -> set[int]:
    """Driving lanes outside junctions that are fast, or all of whose ways come from or lead to such lanes, as ramps do."""
    roads = (network.lane_kind == LaneKind.DRIVING) & (network.lane_junction < 0)
    found = {int(k) for k in np.flatnonzero(roads & network.lane_fast)}
    if not found:
        return found
    neighbours = [
        [{far for near in _row(*way, int(k)) for far in _row(*way, near)} for way in _ways(network)]
        for k in range(network.num_lanes)
    ]
    for _ in range(REACH):
        beside = {
            int(k) for k in np.flatnonzero(roads) if any(lanes and lanes <= found for lanes in neighbours[int(k)])
        }
        found |= beside
    return found


def _ways(network: RoadNetwork) -> tuple[tuple[NDArray[np.int32], NDArray[np.int32]], ...]:
    return (network.successor_start, network.successor), (network.predecessor_start, network.predecessor)


def _row(start: NDArray[np.int32], values: NDArray[np.int32], lane: int) -> list[int]:
    return [int(k) for k in values[start[lane] : start[lane + 1]]]


def line_highway(yard: Yard, network: RoadNetwork, side: Side, lane: int) -> None:
    """Everything beside one lane of a highway: on the right of the outermost, and in the median left of the innermost."""
    if network.lane_right[lane] < 0 and not _has_lane_outside(network, lane):
        _add_exit_signs(yard, network, side, lane)
        _add_rail(yard, side)
    if network.lane_left[lane] < 0 and network.lane_fast[lane]:
        _add_wall(yard, side)


def _has_lane_outside(network: RoadNetwork, lane: int) -> bool:
    """Whether another lane of the carriageway lies outside this one, to which nobody may change."""
    return bool((network.lane_left == lane).any())


def _add_rail(yard: Yard, side: Side) -> None:
    """A guard rail on posts along the right edge of the paving, with a marker post now and then."""
    yard.thing()
    pieces = max(1, round(side.length_m / PIECE_M))
    half_m = 0.5 * side.length_m / pieces
    for k in range(pieces):
        s = (2 * k + 1) * half_m
        yaw = side.yaw(s)
        center = side.place(s, side.paving_end(s) + RAIL_GAP_M)
        if not _claim(yard, center, half_m, 0.15, yaw):
            continue
        yard.box(center, (half_m, 0.05, 0.155), yaw, 0.44, Material.METAL, SemanticClass.BARRIER, ZINC)
        outside = center + 0.09 * np.array([math.sin(yaw), -math.cos(yaw)])
        yard.box(outside, (0.06, 0.04, 0.35), yaw, 0.0, Material.METAL, SemanticClass.BARRIER, ZINC)
        if k % POSTS_EVERY == 0:
            post = center + 0.4 * np.array([math.sin(yaw), -math.cos(yaw)])
            yard.box(post, (0.06, 0.05, 0.5), yaw, 0.0, Material.PLAIN, SemanticClass.POLE, WHITE)
            yard.box(post, (0.065, 0.055, 0.09), yaw, 0.72, Material.SIGN, SemanticClass.POLE, BLACK)


def _claim(yard: Yard, center: F64, half_m: float, half_width_m: float, yaw: float) -> bool:
    """Whether there is room for a piece, which is then taken but for its ends, where the next pieces begin."""
    free = yard.on_terrain(center, (half_m, half_width_m), yaw)
    return free and yard.take(center, (half_m - OVERLAP_M, half_width_m), yaw)


def _add_wall(yard: Yard, side: Side) -> None:
    """A concrete wall in the middle of the median, where it is wide enough; whichever carriageway comes first puts it."""
    yard.thing()
    pieces = max(1, round(side.length_m / PIECE_M))
    half_m = 0.5 * side.length_m / pieces
    for k in range(pieces):
        s = (2 * k + 1) * half_m
        gap = side.terrain_left(s)
        if gap is None:
            continue
        yaw = side.yaw(s)
        center = side.place(s, -2.0 * side.half_width_m - 0.5 * (gap[0] + gap[1]))
        if _claim(yard, center, half_m, WALL_HALF_M, yaw):
            half = (half_m, WALL_HALF_M, 0.12)
            yard.box(center, half, yaw, 0.0, Material.CONCRETE, SemanticClass.BARRIER, CONCRETE)
            half = (half_m, 0.12, 0.33)
            yard.box(center, half, yaw, 0.24, Material.CONCRETE, SemanticClass.BARRIER, CONCRETE)


def _add_exit_signs(yard: Yard, network: RoadNetwork, side: Side, lane: int) -> None:
    """Blue boards before the place where a lane begins that leads off."""
    ways = _row(network.successor_start, network.successor, lane)
    if len(ways) < 2 or not network.lane_fast[lane]:
        return
    for before_m in EXIT_SIGN_M:
        s = side.length_m - before_m
        if s < 0.0:
            continue
        yaw = side.yaw(s)
        center = side.place(s, side.paving_end(s) + RAIL_GAP_M + SIGN_GAP_M)
        if yard.take(center, (0.3, 1.5), yaw):
            _add_board(yard, center, yaw)


def _add_board(yard: Yard, center: F64, yaw: float) -> None:
    """A board on two poles that faces those who drive along yaw, with an arrow to the right."""
    ahead, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
    yard.thing()
    for aside in (-0.9, 0.9):
        pole = center + aside * left
        yard.box(pole, (0.06, 0.06, 1.9), yaw, 0.0, Material.METAL, SemanticClass.POLE, ZINC, Shape.CYLINDER)
    for behind, half_width, bottom, height, color in ((0.08, 1.4, 2.1, 1.7, WHITE), (0.1, 1.34, 2.16, 1.58, BLUE)):
        spot = center - behind * ahead
        half = (0.015, half_width, 0.5 * height)
        yard.box(spot, half, yaw, bottom, Material.SIGN, SemanticClass.TRAFFIC_SIGN, color)
    for aside, half_width, bottom, height in ((0.3, 0.75, 3.2, 0.16), (0.45, 0.6, 2.85, 0.16), (-0.75, 0.09, 2.4, 0.8)):
        spot = center - 0.12 * ahead + aside * left
        half = (0.012, half_width, 0.5 * height)
        yard.box(spot, half, yaw, bottom, Material.SIGN, SemanticClass.TRAFFIC_SIGN, WHITE)
    tip = center - 0.12 * ahead - 0.95 * left
    yard.box(tip, (0.012, 0.22, 0.09), yaw, 3.02, Material.SIGN, SemanticClass.TRAFFIC_SIGN, WHITE)
