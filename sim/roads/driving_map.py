"""Everything that is fixed about a place: roads, ground, scenery, signal heads.

Knows nothing about traffic or sensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sim.roads.network import RoadNetwork
from sim.solids import Boxes


class GroundClass(IntEnum):
    """Class of a cell of the ground raster, uint8."""

    TERRAIN = 0
    ROAD = 1
    LINE_WHITE = 2
    LINE_YELLOW = 3
    STOP_LINE = 4
    CROSSWALK = 5
    SIDEWALK = 6
    KERB = 7


@dataclass(frozen=True)
class GroundRaster:
    """What lies on the ground, cell by cell: cell [r, c] has its centre at origin + (c + 0.5, r + 0.5) * cell_m.

    classes: (rows, columns) uint8 `GroundClass`, C order. origin: (2,) float64, world metres.
    drivable: (rows, columns) uint8, 1 where a wheel may be (road and markings on it).
    """

    classes: NDArray[np.uint8]
    drivable: NDArray[np.uint8]
    origin: NDArray[np.float64]
    cell_m: float


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
class DrivingMap:
    """name: as the user gave it. net_xml: the SUMO network's bytes (attached to logs). digest: SHA-256 hex of net_xml.

    scenery: static solids (buildings, trees, poles, parked cars), never on a driving lane.
    """

    name: str
    network: RoadNetwork
    ground: GroundRaster
    scenery: Boxes
    signal_heads: SignalHeads
    net_xml: bytes
    digest: str
