"""The road of a recorded scene as a `RoadNetwork`: its lanes, and the route of the recorded car as a lane of its own.

Knows recorded scenes and road networks; knows nothing about how they are drawn or driven on.
"""

from __future__ import annotations

import numpy as np

from sim.playback.recorded_scene import RecordedScene
from sim.playback.scene_route import SceneRoute
from sim.roads.assembly import LaneRecord, SignalPrograms, assemble
from sim.roads.network import LaneKind, RoadNetwork
from sim.roads.polyline import arc_lengths

ROUTE_LANE = "route"
ROUTE_WIDTH_M = 2.6
LEAST_LANE_M = 0.5
MOST_FOLLOWERS = 8


def scene_network(scene: RecordedScene, route: SceneRoute) -> RoadNetwork:
    """Lanes and their links; no junctions, signals, neighbours or right of way, as recordings do not say them.

    The last driving lane, named `ROUTE_LANE`, is the route.
    """
    driving: list[LaneRecord] = []
    beside: list[LaneRecord] = []
    number: dict[int, int] = {}
    for k, lane in enumerate(scene.road.lanes):
        if arc_lengths(lane.points)[-1] < LEAST_LANE_M:
            continue
        kind = LaneKind.CYCLE if lane.bicycles else LaneKind.DRIVING
        record = LaneRecord(f"lane-{k}", kind, lane.points, lane.width_m, scene.limit_mps)
        if not lane.bicycles:
            number[k] = len(driving)
        (beside if lane.bicycles else driving).append(record)
    lanes = scene.road.lanes
    direct = [(number[k], number[n]) for k in number for n in lanes[k].followers[:MOST_FOLLOWERS] if n in number]
    driving.append(LaneRecord(ROUTE_LANE, LaneKind.DRIVING, route.points, ROUTE_WIDTH_M, scene.limit_mps))
    nobody = np.full(len(driving), -1, np.int32)
    return assemble(driving, [], beside, nobody, nobody, direct, [], _no_signals(), [])


def route_lane(network: RoadNetwork) -> int:
    """Number of the lane that is the route."""
    return network.lane_name.index(ROUTE_LANE)


def _no_signals() -> SignalPrograms:
    empty = np.zeros(0)
    table = np.zeros((0, 0), np.int8)
    zero = np.zeros(1, np.int32)
    return SignalPrograms({}, zero, zero.copy(), empty, table, table.astype(np.uint8), empty.copy())
