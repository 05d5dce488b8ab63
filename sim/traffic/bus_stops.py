"""Where buses stop, and for how long. Knows lanes; knows nothing about passengers or other vehicles.

Stops follow from the map alone: on the outer lane of some longer streets, a third of the way before their end; none on fast roads.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.counter_random import mix
from sim.lane_graph import OUTWARDS, LaneGraph, lane_beside
from sim.numba_setup import INNER
from sim.traffic.vehicles import BEHIND

BUS_KIND = 3
LEAST_LANE_M = 60.0
PLACE = 0.6  # of the lane
DWELL_TICKS = 120
STOPPED_M, STOPPED_MPS = 2.5, 0.3


@njit(**INNER)
def bus_stop_distance(graph: LaneGraph, car: np.void, path: NDArray[np.int32]) -> float:
    """Distance in m from the front bumper to a stop at which the vehicle has to stand now, inf if nowhere.

    Counts the time at the stop down, so call it once a tick.
    """
    lane = path[BEHIND]
    if car.kind != BUS_KIND or car.served == lane:
        return np.inf
    record = graph.lanes[lane]
    if record.junction >= 0 or record.length < LEAST_LANE_M or record.fast == 1:
        return np.inf
    if lane_beside(graph, lane, OUTWARDS) >= 0:
        return np.inf
    if mix(np.uint64(lane)) & np.uint64(1) == np.uint64(0):
        return np.inf
    away = PLACE * record.length - car.s
    if away < -1.0:
        return np.inf
    if away < STOPPED_M and car.speed < STOPPED_MPS:
        car.dwell = DWELL_TICKS if car.dwell == 0 else car.dwell - 1
        if car.dwell == 1:
            car.dwell, car.served = 0, lane
            return np.inf
    return max(away, 0.0) if car.speed * car.speed < 2.0 * 4.0 * max(away, 0.1) else np.inf
