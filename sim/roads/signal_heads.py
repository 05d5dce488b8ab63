"""Where the heads of traffic signals hang, and the poles and arms that carry them.

Knows road networks and the ground; knows nothing about how signals change or how a head looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.roads.ground import GroundRaster, lane_line
from sim.roads.network import LaneKind, RoadNetwork

F64 = NDArray[np.float64]

SIDE_HEAD_Z_M = 3.0
OVERHEAD_Z_M = 5.2
POLE_BESIDE_ROAD_M = 0.7
POLE_BEHIND_LINE_M = 0.8
FAR_SIDE_M = 1.5
LONGEST_ARM_M = 14.0
FURTHEST_HEAD_M = 45.0


@dataclass(frozen=True)
class SignalHeads:
    """H signal heads, world frame.

    x_m, y_m, z_m: centre of the housing; yaw_rad: the direction its lamps look; link: (H,) int32 signal link.
    """

    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    z_m: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    link: NDArray[np.int32]


@dataclass(frozen=True)
class SignalMast:
    """A pole at `foot` (2,), as high as `top_m`, and the places (2,) that arms at that height reach."""

    foot: F64
    top_m: float
    reached: tuple[F64, ...]


def signal_heads(network: RoadNetwork, ground: GroundRaster) -> tuple[SignalHeads, tuple[SignalMast, ...]]:
    """Heads for each approach to a signal: at the right of the stop line, and over each lane on the far side.

    A lane whose movements have different programs gets a head for each of them. The far head is what a driver at the
    stop line sees; the near one is what a driver who comes closer sees.
    """
    rows: list[tuple[float, float, float, float, int]] = []
    masts: list[SignalMast] = []
    for approach in _approaches(network):
        line = lane_line(network, approach[0])
        yaw = float(network.point_yaw[network.point_start[approach[0] + 1] - 1])
        ahead, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
        edge = line[-1] - left * 0.5 * network.lane_width_m[approach[0]]
        foot = beside_road(ground, edge + POLE_BEHIND_LINE_M * ahead, -left)
        near = _movements(network, approach[:1])
        if foot is not None:
            for number, link in enumerate(near):
                spot = foot - 0.45 * number * left
                rows.append((spot[0], spot[1], SIDE_HEAD_Z_M, yaw + math.pi, link))
            masts.append(SignalMast(foot, SIDE_HEAD_Z_M + 0.5, tuple(foot - 0.45 * n * left for n in range(len(near)))))
        span = _far_side(network, ground, approach)
        hanging: list[F64] = []
        for lane in approach:
            end = lane_line(network, lane)[-1]
            links = _movements(network, [lane])
            for number, link in enumerate(links):
                spot = end + span * ahead - 0.5 * (number - 0.5 * (len(links) - 1)) * left
                rows.append((spot[0], spot[1], OVERHEAD_Z_M, yaw + math.pi, link))
                hanging.append(spot)
        behind = 0.35 * ahead
        far_foot = beside_road(ground, edge + span * ahead + behind, -left, LONGEST_ARM_M)
        if far_foot is None:
            far_foot = beside_road(ground, edge + (span + 2.0) * ahead, ahead, LONGEST_ARM_M)
        if far_foot is not None:
            masts.append(SignalMast(far_foot, OVERHEAD_Z_M + 0.4, tuple(spot + behind for spot in hanging)))
    table = np.array(rows, np.float64).reshape(-1, 5)
    x, y, z, look = (np.ascontiguousarray(table[:, k]) for k in range(4))
    return SignalHeads(x, y, z, look, table[:, 4].astype(np.int32)), tuple(masts)


def beside_road(ground: GroundRaster, start: F64, direction: F64, reach_m: float = 6.0) -> F64 | None:
    """The first place from `start` (2,) along `direction` that stands free of the roadway, or None within reach_m."""
    for distance in np.arange(0.0, reach_m, 0.2):
        spot = start + distance * direction
        around = [spot + POLE_BESIDE_ROAD_M * np.array([math.cos(a), math.sin(a)]) for a in np.arange(8) * math.pi / 4]
        if not any(is_drivable(ground, place) for place in [spot, *around]):
            return np.asarray(spot)
    return None


def is_drivable(ground: GroundRaster, place: F64) -> bool:
    """Whether a wheel may be at that place (2,), metres in the world."""
    column, row = np.floor((place - ground.origin) / ground.cell_m).astype(int)
    rows, columns = ground.drivable.shape
    return bool(0 <= row < rows and 0 <= column < columns and ground.drivable[row, column])


def signalled_lanes(network: RoadNetwork) -> NDArray[np.bool_]:
    """(L,) true for a driving lane outside junctions whose stop line has a signal."""
    signalled = np.zeros(network.num_lanes, np.bool_)
    for lane in np.flatnonzero((network.lane_signal_link >= 0) & (network.lane_kind == LaneKind.DRIVING)):
        signalled[network.predecessor[network.predecessor_start[lane]]] = True
    return signalled


def _approaches(network: RoadNetwork) -> list[list[int]]:
    """Lanes side by side that end at one stop line with a signal, the rightmost first."""
    signalled = signalled_lanes(network)
    approaches = []
    for lane in np.flatnonzero(signalled & ((network.lane_right < 0) | ~signalled[network.lane_right])):
        group = [int(lane)]
        while (beside := int(network.lane_left[group[-1]])) >= 0 and signalled[beside]:
            group.append(beside)
        approaches.append(group)
    return approaches


def _junction_lanes(network: RoadNetwork, lane: int) -> list[int]:
    return [int(k) for k in network.successor[network.successor_start[lane] : network.successor_start[lane + 1]]]


def _movements(network: RoadNetwork, lanes: list[int]) -> list[int]:
    """One signal link for each different program of these lanes' movements: straight first, then left, then right."""
    found: dict[bytes, int] = {}
    order = {0: 0, 1: 1, -1: 2, 2: 3}
    inner = [k for lane in lanes for k in _junction_lanes(network, lane) if network.lane_signal_link[k] >= 0]
    for k in sorted(inner, key=lambda k: order[int(network.lane_turn[k])]):
        link = int(network.lane_signal_link[k])
        signal = int(np.searchsorted(network.signal_start, link, side="right")) - 1
        phases = slice(network.phase_start[signal], network.phase_start[signal + 1])
        program = network.phase_state[phases, link - network.signal_start[signal]].tobytes()
        found.setdefault(program, link)
    return list(found.values())


def _far_side(network: RoadNetwork, ground: GroundRaster, approach: list[int]) -> float:
    """Distance ahead of the stop line at which the far heads hang.

    Where a lane goes straight on: just beyond the junction. Else, at a T: beyond the road that crosses.
    """
    straight, any_way = 0.0, 4.0
    for lane in approach:
        start = lane_line(network, lane)[-1]
        yaw = network.point_yaw[network.point_start[lane + 1] - 1]
        ahead = np.array([math.cos(yaw), math.sin(yaw)])
        for inner in _junction_lanes(network, lane):
            reach = float(((lane_line(network, inner) - start) @ ahead).max())
            any_way = max(any_way, reach)
            if network.lane_turn[inner] == 0:
                straight = max(straight, reach)
    if straight > 0.0:
        return min(straight + FAR_SIDE_M, FURTHEST_HEAD_M)
    far = beside_road(ground, start + any_way * ahead, ahead, 15.0)
    return min(any_way + FAR_SIDE_M if far is None else float((far - start) @ ahead), FURTHEST_HEAD_M)
