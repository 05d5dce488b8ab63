"""The plan on which things beside roads are placed so that none is in another's way, and places along the side of a lane.

Knows lanes, the ground and boxes; knows nothing about what is placed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.roads.ground import GroundClass, GroundRaster, lane_line
from sim.roads.network import RoadNetwork
from sim.solids import Boxes, BoxList, Color, Material, Shape

F64 = NDArray[np.float64]

FIRST_INSTANCE = 1_000_000
PLAN_CELL_M = 0.25


@dataclass
class Yard:
    """The boxes so far, and a plan of what is taken: 1 where a thing must not stand."""

    ground: GroundRaster
    solids: BoxList = field(default_factory=lambda: BoxList(FIRST_INSTANCE - 1))

    def __post_init__(self) -> None:
        rows, columns = self.ground.classes.shape
        scale = self.ground.cell_m / PLAN_CELL_M
        size = (max(1, math.ceil(columns * scale)), max(1, math.ceil(rows * scale)))
        self.paved = self._reduced((self.ground.classes != GroundClass.TERRAIN).astype(np.uint8), size)
        self.road = self._reduced(self.ground.drivable, size)
        self.taken = np.zeros_like(self.paved)

    @staticmethod
    def _reduced(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """A coarser mask, 1 where the fine one has any 1, and one cell around."""
        share = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.dilate((share > 0).astype(np.uint8), np.ones((3, 3), np.uint8)), np.uint8)

    def _stamp(
        self, center: F64, half: tuple[float, float], yaw: float
    ) -> tuple[slice, slice, NDArray[np.uint8]] | None:
        """The rows and columns of the plan around a rectangle and its mask there; None where it leaves the map."""
        ahead, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
        signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
        corners = np.array([center + a * half[0] * ahead + b * half[1] * left for a, b in signs])
        cells = (corners - self.ground.origin) / PLAN_CELL_M - 0.5
        low, high = np.floor(cells.min(axis=0)).astype(int) - 1, np.ceil(cells.max(axis=0)).astype(int) + 2
        if (low < 0).any() or high[0] > self.paved.shape[1] or high[1] > self.paved.shape[0]:
            return None
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillConvexPoly(mask, np.rint((cells - low) * 16).astype(np.int32), 1, cv2.LINE_8, 4)
        return slice(low[1], high[1]), slice(low[0], high[0]), mask

    def take(self, center: F64, half: tuple[float, float], yaw: float, *, on_paving: bool = False) -> bool:
        """Claims a rectangle if nothing is in the way: no roadway, nothing standing, and no paving unless allowed."""
        found = self._stamp(center, half, yaw)
        if found is None:
            return False
        rows, columns, mask = found
        blocked = self.taken[rows, columns] | (self.road if on_paving else self.paved)[rows, columns]
        if (blocked & mask).any():
            return False
        self.taken[rows, columns] |= mask
        return True

    def on_terrain(self, center: F64, half: tuple[float, float], yaw: float) -> bool:
        """Whether a rectangle lies on the map with no paving under it."""
        found = self._stamp(center, half, yaw)
        if found is None:
            return False
        rows, columns, mask = found
        return not (self.paved[rows, columns] & mask).any()

    def over_road(self, center: F64, radius_m: float) -> bool:
        """Whether anything within that radius of center (2,) reaches over the roadway."""
        low = np.floor((center - radius_m - self.ground.origin) / PLAN_CELL_M).astype(int)
        high = np.ceil((center + radius_m - self.ground.origin) / PLAN_CELL_M).astype(int)
        return bool(self.road[max(low[1], 0) : max(high[1], 0), max(low[0], 0) : max(high[0], 0)].any())

    def thing(self) -> None:
        """The boxes that follow belong to a new object."""
        self.solids.instance += 1

    def box(
        self,
        center: F64,
        half: tuple[float, float, float],
        yaw: float,
        bottom_m: float,
        material: Material,
        semantic: SemanticClass,
        color: Color,
        shape: Shape = Shape.BOX,
    ) -> None:
        """A box, or another shape in it, on `center` (2,) whose lower side is at bottom_m."""
        middle = (float(center[0]), float(center[1]), bottom_m + half[2])
        self.solids.add(middle, half, yaw, material, semantic, color, shape)

    def boxes(self) -> Boxes:
        return self.solids.boxes()


class Side:
    """The right-hand side of a lane: places at arc length s and a distance from where the paving ends."""

    def __init__(self, network: RoadNetwork, ground: GroundRaster, lane: int) -> None:
        self.line = lane_line(network, lane)
        part = slice(network.point_start[lane], network.point_start[lane + 1])
        self.yaws = network.point_yaw[part]
        self.step_m = float(network.lane_step_m[lane])
        self.length_m = float(network.lane_length_m[lane])
        self.half_width_m = 0.5 * float(network.lane_width_m[lane])
        self.limit_mps = float(network.lane_limit_mps[lane])
        follow = network.successor[network.successor_start[lane] : network.successor_start[lane + 1]]
        self.controls = set(network.lane_control[follow].tolist())
        self.ground = ground

    def yaw(self, s: float) -> float:
        return float(np.interp(s / self.step_m, np.arange(len(self.yaws)), self.yaws))

    def place(self, s: float, right_m: float) -> F64:
        """The point at arc length s, right_m to the right of the lane's edge."""
        index = np.arange(len(self.line))
        x, y = (np.interp(s / self.step_m, index, self.line[:, k]) for k in range(2))
        yaw = self.yaw(s)
        away = self.half_width_m + right_m
        return np.array([x + away * math.sin(yaw), y - away * math.cos(yaw)])

    def terrain_left(self, s: float) -> tuple[float, float] | None:
        """From and to how far left of the lane's edge there is terrain before the next paving, within 8 m; None without it."""
        left_m = np.arange(0.1, 8.0, 0.1)
        terrain = self._is_terrain(s, -2.0 * self.half_width_m - left_m)
        if not terrain.any():
            return None
        first = int(np.argmax(terrain))
        length = int(np.argmin(terrain[first:])) if not terrain[first:].all() else 0
        return (float(left_m[first]), float(left_m[first + length])) if length else None

    def paving_end(self, s: float) -> float:
        """How far right of the lane's edge the first terrain is, 8 m at most."""
        right_m = np.arange(0.1, 8.0, 0.2)
        terrain = self._is_terrain(s, right_m)
        return float(right_m[np.argmax(terrain)]) if terrain.any() else 8.0

    def _is_terrain(self, s: float, right_m: F64) -> NDArray[np.bool_]:
        """Whether places so far right of the lane's edge (N,) are terrain; beyond the map all is."""
        yaw = self.yaw(s)
        spots = self.place(s, 0.0) + right_m[:, None] * np.array([math.sin(yaw), -math.cos(yaw)])
        column, row = np.floor((spots - self.ground.origin) / self.ground.cell_m).astype(np.intp).T
        rows, columns = self.ground.classes.shape
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        terrain = ~inside
        terrain[inside] = self.ground.classes[row[inside], column[inside]] == GroundClass.TERRAIN
        return np.asarray(terrain)
