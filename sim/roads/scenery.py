"""What stands beside the roads: buildings, trees, lamps, hedges, parked cars, and the poles of the signals.

Knows road networks and their ground; knows nothing about traffic or sensors. Nothing stands on anything but terrain
(signal poles also on sidewalks), so nothing stands on a lane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.roads.driving_map import GroundClass, GroundRaster, SignalHeads
from sim.roads.network import LaneKind, RoadNetwork
from sim.solids import Boxes, Material

FIRST_INSTANCE = 1_000_000
CELL_M = 0.5
MARGIN_M = 50.0
STOREY_M = 3.1
NEAR_HEAD_Z_M, FAR_HEAD_Z_M = 3.0, 5.3
STRAIGHT = 0

_FACADES = (
    (196, 186, 170), (176, 120, 96), (208, 200, 186), (150, 148, 146), (190, 160, 120), (168, 132, 112),
    (214, 206, 176), (142, 152, 160), (182, 172, 158), (160, 104, 84),
)  # fmt: skip
_PAINTS = ((210, 210, 212), (40, 42, 46), (120, 124, 130), (150, 30, 32), (36, 62, 120), (70, 84, 72), (196, 188, 170))


@dataclass
class _Builder:
    """Collects boxes and remembers which ground is taken, in cells of CELL_M."""

    ground: GroundRaster
    rng: np.random.Generator
    taken: NDArray[np.uint8] = field(init=False)
    origin: NDArray[np.float64] = field(init=False)
    rows: list[tuple[list[float], list[float], float, Material, SemanticClass, int, tuple[int, int, int]]] = field(
        default_factory=list
    )
    objects: int = 0

    def __post_init__(self) -> None:
        raster = self.ground
        self.origin = raster.origin - MARGIN_M
        size = (np.array(raster.classes.shape)[::-1] * raster.cell_m + 2 * MARGIN_M) / CELL_M
        columns, rows = np.ceil(size).astype(int)
        self.taken = np.zeros((rows, columns), np.uint8)
        r, c = np.nonzero(raster.classes != GroundClass.TERRAIN)
        at = np.stack([c + 0.5, r + 0.5]) * raster.cell_m + MARGIN_M
        columns_of, rows_of = np.floor(at / CELL_M).astype(int)
        self.taken[rows_of, columns_of] = 1
        self.taken = cv2.dilate(self.taken, np.ones((3, 3), np.uint8))

    def take(self, x: float, y: float, yaw: float, half_x: float, half_y: float) -> bool:
        """Reserve a rectangle of free terrain; False where any of it is taken."""
        c, s = math.cos(yaw), math.sin(yaw)
        corners = [
            ((x + c * u - s * v - self.origin[0]) / CELL_M, (y + s * u + c * v - self.origin[1]) / CELL_M)
            for u, v in ((half_x, half_y), (-half_x, half_y), (-half_x, -half_y), (half_x, -half_y))
        ]
        polygon = np.floor(np.array(corners)).astype(np.int32)
        low, high = polygon.min(axis=0), polygon.max(axis=0) + 1
        if (low < 0).any() or high[0] > self.taken.shape[1] or high[1] > self.taken.shape[0]:
            return False
        stamp = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillConvexPoly(stamp, polygon - low, 1)
        window = self.taken[low[1] : high[1], low[0] : high[0]]
        if (window & stamp).any():
            return False
        window |= stamp
        return True

    def start(self) -> None:
        """The boxes that follow belong to a new object."""
        self.objects += 1

    def box(
        self, center: tuple[float, float, float], half: tuple[float, float, float], yaw: float, material: Material,
        semantic: SemanticClass, color: tuple[int, int, int],
    ) -> None:  # fmt: skip
        number = FIRST_INSTANCE + self.objects
        self.rows.append((list(center), list(half), yaw, material, semantic, number, color))

    def boxes(self) -> Boxes:
        columns = list(zip(*self.rows, strict=True)) if self.rows else [[]] * 7
        return Boxes(
            center=np.array(columns[0], np.float64).reshape(-1, 3),
            half_size=np.array(columns[1], np.float64).reshape(-1, 3),
            yaw_rad=np.array(columns[2], np.float64),
            material=np.array(columns[3], np.uint8),
            semantic=np.array(columns[4], np.uint8),
            instance=np.array(columns[5], np.int32),
            color=np.array(columns[6], np.uint8).reshape(-1, 3),
        )


def build_scenery(network: RoadNetwork, ground: GroundRaster, seed: int) -> Boxes:
    """Static solids of a map; the same for the same arguments. `instance` counts objects from FIRST_INSTANCE up."""
    builder = _Builder(ground, np.random.default_rng(seed))
    _place_signal_poles(network, builder)
    edges = [lane for lane in _driving_lanes(network) if network.lane_right[lane] < 0]
    for lane in edges:
        _line_street(network, lane, builder, _place_lamp, spacing_m=(26.0, 32.0), reach_m=(0.4, 3.0))
    for lane in edges:
        _line_street(network, lane, builder, _place_building, spacing_m=(14.0, 24.0), reach_m=(4.0, 14.0))
    for lane in edges:
        _line_street(network, lane, builder, _place_parked_car, spacing_m=(18.0, 60.0), reach_m=(2.2, 6.0))
    for lane in edges:
        _line_street(network, lane, builder, _place_tree, spacing_m=(7.0, 15.0), reach_m=(1.2, 9.0))
    for lane in edges:
        _line_street(network, lane, builder, _place_hedge, spacing_m=(9.0, 30.0), reach_m=(0.8, 2.5))
    return builder.boxes()


def _driving_lanes(network: RoadNetwork) -> list[int]:
    return np.flatnonzero((network.lane_kind == LaneKind.DRIVING) & (network.lane_junction < 0)).tolist()


def _at(network: RoadNetwork, lane: int, s_m: float) -> tuple[float, float, float]:
    points = range(network.point_start[lane], network.point_start[lane + 1])
    k = points[min(max(round(s_m / network.lane_step_m[lane]), 0), len(points) - 1)]
    return float(network.point_x[k]), float(network.point_y[k]), float(network.point_yaw[k])


def _line_street(network, lane, builder, place, spacing_m, reach_m) -> None:  # type: ignore[no-untyped-def]
    """Walk along a lane and try `place(builder, x, y, yaw, sideways)` at growing distances to its right."""
    s, length = float(builder.rng.uniform(2.0, spacing_m[1] / 2)), float(network.lane_length_m[lane])
    while s < length - 2.0:
        x, y, yaw = _at(network, lane, s)
        right = (math.sin(yaw), -math.cos(yaw))
        first = _terrain_offset(builder, x, y, right, float(network.lane_width_m[lane]) / 2)
        if first is not None:
            away = first + float(builder.rng.uniform(*reach_m))
            place(builder, x, y, yaw, right, away)
        s += float(builder.rng.uniform(*spacing_m))


def _terrain_offset(builder: _Builder, x: float, y: float, right: tuple[float, float], start_m: float) -> float | None:
    """Distance to the right at which terrain begins, or None where there is none within 12 m."""
    raster = builder.ground
    rows, columns = raster.classes.shape
    for step in range(60):
        away = start_m + 0.2 * step
        c = int((x + right[0] * away - raster.origin[0]) / raster.cell_m)
        r = int((y + right[1] * away - raster.origin[1]) / raster.cell_m)
        if not (0 <= c < columns and 0 <= r < rows) or raster.classes[r, c] == GroundClass.TERRAIN:
            return away
    return None


def _place_building(b: _Builder, x: float, y: float, yaw: float, right: tuple[float, float], away: float) -> None:
    half_x, half_y = float(b.rng.uniform(4.5, 9.5)), float(b.rng.uniform(4.0, 6.5))
    cx, cy = x + right[0] * (away + half_y), y + right[1] * (away + half_y)
    if not b.take(cx, cy, yaw, half_x + 0.5, half_y + 0.5):
        return
    b.start()
    half_z = STOREY_M * int(b.rng.integers(2, 7)) / 2
    color = _FACADES[int(b.rng.integers(len(_FACADES)))]
    building = SemanticClass.BUILDING
    b.box((cx, cy, half_z), (half_x, half_y, half_z), yaw, Material.FACADE, building, color)
    roof = (70, 62, 58) if b.rng.random() < 0.6 else (110, 106, 100)
    b.box((cx, cy, 2 * half_z + 0.25), (half_x + 0.25, half_y + 0.25, 0.25), yaw, Material.ROOF, building, roof)
    if b.rng.random() < 0.5:
        b.box((cx, cy, 2 * half_z + 1.2), (half_x * 0.35, half_y * 0.4, 0.7), yaw, Material.ROOF, building, roof)


def _place_tree(b: _Builder, x: float, y: float, yaw: float, right: tuple[float, float], away: float) -> None:
    cx, cy = x + right[0] * away, y + right[1] * away
    if not b.take(cx, cy, yaw, 0.6, 0.6):
        return
    b.start()
    trunk, crown = float(b.rng.uniform(0.9, 1.3)), float(b.rng.uniform(1.1, 1.9))
    turn = float(b.rng.uniform(0, math.pi / 2))
    green = int(b.rng.integers(84, 128))
    color = (green - int(b.rng.integers(24, 48)), green, 44)
    plant = SemanticClass.VEGETATION
    b.box((cx, cy, trunk), (0.14, 0.14, trunk), turn, Material.BARK, plant, (86, 68, 52))
    low = 2 * trunk
    b.box((cx, cy, low + 0.55 * crown), (crown, crown, 0.6 * crown), turn, Material.FOLIAGE, plant, color)
    b.box(
        (cx, cy, low + 1.35 * crown), (0.72 * crown, 0.72 * crown, 0.5 * crown), turn + 0.6, Material.FOLIAGE, plant, color
    )  # fmt: skip
    b.box(
        (cx, cy, low + 2.0 * crown), (0.4 * crown, 0.4 * crown, 0.3 * crown), turn + 0.2, Material.FOLIAGE, plant, color
    )


def _place_lamp(b: _Builder, x: float, y: float, yaw: float, right: tuple[float, float], away: float) -> None:
    cx, cy = x + right[0] * away, y + right[1] * away
    if not b.take(cx, cy, yaw, 0.2, 0.2):
        return
    b.start()
    pole, grey = SemanticClass.POLE, (92, 96, 98)
    b.box((cx, cy, 3.2), (0.06, 0.06, 3.2), yaw, Material.METAL, pole, grey)
    arm_x, arm_y = cx - right[0] * 0.8, cy - right[1] * 0.8
    b.box((arm_x, arm_y, 6.4), (0.12, 0.9, 0.06), yaw, Material.METAL, pole, grey)


def _place_hedge(b: _Builder, x: float, y: float, yaw: float, right: tuple[float, float], away: float) -> None:
    half = float(b.rng.uniform(1.5, 4.5))
    cx, cy = x + right[0] * away, y + right[1] * away
    if not b.take(cx, cy, yaw, half + 0.2, 0.5):
        return
    b.start()
    if b.rng.random() < 0.6:
        b.box((cx, cy, 0.5), (half, 0.35, 0.5), yaw, Material.FOLIAGE, SemanticClass.VEGETATION, (58, 92, 44))
    else:
        b.box((cx, cy, 0.55), (half, 0.06, 0.55), yaw, Material.PLAIN, SemanticClass.BARRIER, (150, 122, 92))


def _place_parked_car(b: _Builder, x: float, y: float, yaw: float, right: tuple[float, float], away: float) -> None:
    cx, cy = x + right[0] * (away + 0.9), y + right[1] * (away + 0.9)
    across = yaw + (math.pi / 2 if b.rng.random() < 0.4 else 0.0)
    if not b.take(cx, cy, across, 2.5, 1.15):
        return
    b.start()
    car, c, s = SemanticClass.VEHICLE, math.cos(across), math.sin(across)
    paint = _PAINTS[int(b.rng.integers(len(_PAINTS)))]
    b.box((cx, cy, 0.58), (2.2, 0.9, 0.36), across, Material.PAINT, car, paint)
    b.box((cx - 0.25 * c, cy - 0.25 * s, 1.18), (1.15, 0.79, 0.25), across, Material.GLASS, car, (38, 48, 58))
    b.box((cx - 0.35 * c, cy - 0.35 * s, 1.46), (0.85, 0.76, 0.04), across, Material.PAINT, car, paint)
    for u in (-1.35, 1.35):
        b.box((cx + u * c, cy + u * s, 0.31), (0.31, 0.91, 0.31), across, Material.RUBBER, car, (24, 24, 26))


@dataclass(frozen=True)
class _Approach:
    """A lane that ends at a signal: where its line is, and the link that its head shows (straight on if there is one)."""

    x: float
    y: float
    yaw: float
    half_width: float
    far_m: float
    link: int
    outermost: bool


def _approaches(network: RoadNetwork) -> list[_Approach]:
    found = []
    for lane in _driving_lanes(network):
        first, last = network.successor_start[lane], network.successor_start[lane + 1]
        governed = [int(j) for j in network.successor[first:last] if network.lane_signal_link[j] >= 0]
        if not governed:
            continue
        shown = min(governed, key=lambda j: (network.lane_turn[j] != STRAIGHT, j))
        x, y, yaw = _at(network, lane, float(network.lane_length_m[lane]))
        far = float(np.clip(network.lane_length_m[shown], 12.0, 26.0)) + 1.5
        found.append(
            _Approach(
                x,
                y,
                yaw,
                float(network.lane_width_m[lane]) / 2,
                far,
                int(network.lane_signal_link[shown]),
                bool(network.lane_right[lane] < 0),
            )  # fmt: skip
        )
    return found


def _place_signal_poles(network: RoadNetwork, b: _Builder) -> None:
    pole, grey = SemanticClass.POLE, (70, 74, 76)
    for a in _approaches(network):
        if not a.outermost:
            continue
        right = (math.sin(a.yaw), -math.cos(a.yaw))
        b.start()
        away = a.half_width + 0.9
        x, y = a.x + right[0] * away, a.y + right[1] * away
        if not _on_road(b, x, y):
            b.box((x, y, 1.3), (0.07, 0.07, 1.3), a.yaw, Material.METAL, pole, grey)
        far_x, far_y = a.x + math.cos(a.yaw) * a.far_m, a.y + math.sin(a.yaw) * a.far_m
        offset = _verge_offset(b, far_x, far_y, right)
        if offset is None:
            continue
        offset += 0.4
        px, py = far_x + right[0] * offset, far_y + right[1] * offset
        if _on_road(b, px, py):
            continue
        b.box((px, py, 3.0), (0.10, 0.10, 3.0), a.yaw, Material.METAL, pole, grey)
        b.box(
            (far_x + right[0] * offset / 2, far_y + right[1] * offset / 2, 5.95), (0.06, offset / 2, 0.06), a.yaw,
            Material.METAL, pole, grey,
        )  # fmt: skip


def _verge_offset(b: _Builder, x: float, y: float, right: tuple[float, float]) -> float | None:
    """Distance to the right (2 to 18 m) at which the road ends, or None."""
    for k in range(8, 72):
        if not _on_road(b, x + right[0] * 0.25 * k, y + right[1] * 0.25 * k):
            return 0.25 * k
    return None


def _on_road(b: _Builder, x: float, y: float) -> bool:
    raster = b.ground
    c, r = int((x - raster.origin[0]) / raster.cell_m), int((y - raster.origin[1]) / raster.cell_m)
    if not (0 <= r < raster.classes.shape[0] and 0 <= c < raster.classes.shape[1]):
        return False
    return raster.classes[r, c] not in (GroundClass.TERRAIN, GroundClass.SIDEWALK)


def signal_heads(network: RoadNetwork) -> SignalHeads:
    """Two heads an approach lane: beside the stop line on the right (outermost lane only), and beyond the junction."""
    rows = []
    for a in _approaches(network):
        back = a.yaw + math.pi
        if a.outermost:
            away = a.half_width + 0.9
            rows.append((a.x + math.sin(a.yaw) * away, a.y - math.cos(a.yaw) * away, NEAR_HEAD_Z_M, back, a.link))
        far = a.far_m
        rows.append((a.x + math.cos(a.yaw) * far, a.y + math.sin(a.yaw) * far, FAR_HEAD_Z_M, back, a.link))
    table = np.array(rows, np.float64).reshape(-1, 5)
    return SignalHeads(
        table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy(), table[:, 3].copy(), table[:, 4].astype(np.int32)
    )  # fmt: skip
