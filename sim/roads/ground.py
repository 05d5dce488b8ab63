"""Draws what lies on the ground: road, markings, crosswalks, sidewalks and kerbs, as a raster of classes.

Knows road networks; knows nothing about what stands on the ground, sensors or traffic.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.roads.cache import read_cached, write_cached
from sim.roads.map_xml import MapError
from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.polyline import headings, offset, ribbon

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

# Raise it with every change of what is drawn: it is part of the name of the cached file.
DRAWING_VERSION = 5
CELL_SIZES_M = (0.1, 0.125, 0.16, 0.2, 0.25, 0.4, 0.5)
MAX_BYTES = 300_000_000
MARGIN_M = 12.0
SUBPIXEL_BITS = 4

LINE_WIDTH_M = 0.15
STOP_LINE_DEPTH_M = 0.4
STOP_LINE_SETBACK_M = 0.15
YIELD_DASH_M = 0.5
DASH_M, DASH_GAP_M = 3.0, 4.5
STRIPE_M = 0.5
KERB_M = 0.2
FARTHEST_ROAD_M = 4.0
NARROWEST_MARKED_M = 0.5  # a lane that ends has lines as long as there is room for two
PAVED_MARGIN_M = 1.2  # of fast roads
DRIVABLE_BIT = 128


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


MARKINGS = (GroundClass.LINE_WHITE, GroundClass.LINE_YELLOW, GroundClass.STOP_LINE, GroundClass.CROSSWALK)
PAINT_SCALE = 4
TILE_CELLS = 512


@dataclass(frozen=True)
class GroundRaster:
    """What lies on the ground, cell by cell: cell [r, c] has its centre at origin + (c + 0.5, r + 0.5) * cell_m.

    classes: (rows, columns) uint8 `GroundClass`, C order. origin: (2,) float64, world metres.
    drivable: (rows, columns) uint8, 1 where a wheel may be (road and markings on it). paint: (rows, columns) uint8, share of
    the cell under a marking times 255.
    """

    classes: NDArray[np.uint8]
    drivable: NDArray[np.uint8]
    origin: NDArray[np.float64]
    cell_m: float
    paint: NDArray[np.uint8]


def draw_ground(network: RoadNetwork) -> GroundRaster:
    """The ground of a network, in the finest cells (0.1 m at best) that stay under 300 MB, with 12 m of terrain around.

    Raises MapError where the network is so large that even cells of 0.5 m would take more.
    """
    origin = network.bounds[:2] - MARGIN_M
    extent = network.bounds[2:] + MARGIN_M - origin
    fitting = [cell for cell in CELL_SIZES_M if 2 * np.prod(np.ceil(extent / cell)) <= MAX_BYTES]
    if not fitting:
        raise MapError(
            f"{extent[0] / 1000:.1f} km x {extent[1] / 1000:.1f} km of ground, and at most"
            f" {0.5 * MAX_BYTES * CELL_SIZES_M[-1] ** 2 / 1e6:.1f} square km are drawn; cut out a smaller region"
        )
    cell_m = fitting[0]
    columns, rows = np.ceil(extent / cell_m).astype(int)
    brush = Brush(np.zeros((rows, columns), np.uint8), origin, cell_m)
    _draw_surfaces(network, brush)
    drivable = (brush.classes == GroundClass.ROAD).view(np.uint8)
    _draw_lines(network, brush)
    _draw_lines_through(network, brush)
    _draw_stop_lines(network, brush)
    _draw_crosswalks(network, brush)
    for strip in _strips(rows):
        classes = brush.classes[strip]
        lost = (classes >= GroundClass.LINE_WHITE) & (classes <= GroundClass.CROSSWALK) & (drivable[strip] == 0)
        np.copyto(classes, brush.surface[strip], where=lost)
    brush.surface = brush.classes
    paint = brush.paint()
    paint *= drivable
    return GroundRaster(brush.classes, drivable, origin, cell_m, paint)


def _strips(rows: int) -> Iterator[slice]:
    """Rows in parts, so that what is only needed on the way to a raster stays small beside it."""
    for first in range(0, rows, TILE_CELLS):
        yield slice(first, min(first + TILE_CELLS, rows))


def load_ground(network: RoadNetwork, digest: str) -> GroundRaster:
    """`draw_ground`, kept in the user's cache folder under the digest of the network's source.

    A cache that cannot be written or read is drawn anew. Raises MapError as `draw_ground` does.
    """
    name = f"ground-{digest[:32]}-v{DRAWING_VERSION}.npz"
    kept = read_cached(name)
    if kept is not None:
        try:
            with np.load(io.BytesIO(kept), allow_pickle=False) as file:
                packed, paint, origin = file["packed"], file["paint"], file["origin"]
                cell_m = float(file["cell_m"])
            sound = packed.dtype == paint.dtype == np.uint8 and packed.ndim == 2 and paint.shape == packed.shape
            if sound and origin.shape == (2,):
                return GroundRaster(packed & (DRIVABLE_BIT - 1), packed // DRIVABLE_BIT, origin, cell_m, paint)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            pass  # damaged
    ground = draw_ground(network)
    stream = io.BytesIO()
    packed = ground.classes | ground.drivable * np.uint8(DRIVABLE_BIT)
    np.savez_compressed(stream, packed=packed, paint=ground.paint, origin=ground.origin, cell_m=ground.cell_m)
    write_cached(name, stream.getvalue())
    return ground


class Brush:
    """A raster of classes and the drawing of world polygons on it. `surface` is the state before markings."""

    def __init__(self, classes: U8, origin: F64, cell_m: float) -> None:
        self.classes = classes
        self.surface = classes
        self.origin = origin
        self.cell_m = cell_m
        self.painted: list[F64] = []

    def fill(self, polygons: Sequence[F64], value: GroundClass, raster: U8 | None = None) -> None:
        scale = (1 << SUBPIXEL_BITS) / self.cell_m
        half = (1 << SUBPIXEL_BITS) // 2
        if value in MARKINGS:
            self.painted += polygons
        for polygon in polygons:
            corners = np.rint((polygon - self.origin) * scale).astype(np.int32) - half
            cv2.fillPoly(self.classes if raster is None else raster, [corners], int(value), cv2.LINE_8, SUBPIXEL_BITS)

    def paint(self) -> U8:
        """Share of each cell under the markings filled so far, times 255: drawn PAINT_SCALE times as fine, tile by tile."""
        rows, columns = self.classes.shape
        paint = np.zeros((rows, columns), np.uint8)
        outlines = [(polygon - self.origin) / self.cell_m for polygon in self.painted]
        tiles: dict[tuple[int, int], list[F64]] = {}
        for outline in outlines:
            low = np.maximum(np.floor(outline.min(axis=0) / TILE_CELLS).astype(int), 0)
            high = np.floor(outline.max(axis=0) / TILE_CELLS).astype(int)
            for row in range(low[1], high[1] + 1):
                for column in range(low[0], high[0] + 1):
                    tiles.setdefault((row, column), []).append(outline)
        for (row, column), inside in tiles.items():
            top, left = row * TILE_CELLS, column * TILE_CELLS
            height, width = min(TILE_CELLS, rows - top), min(TILE_CELLS, columns - left)
            if height <= 0 or width <= 0:
                continue
            fine = np.zeros((height * PAINT_SCALE, width * PAINT_SCALE), np.uint8)
            for outline in inside:
                corners = np.rint(((outline - (left, top)) * PAINT_SCALE - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
                cv2.fillPoly(fine, [corners], 255, cv2.LINE_8, SUBPIXEL_BITS)
            paint[top : top + height, left : left + width] = cv2.resize(
                fine, (width, height), interpolation=cv2.INTER_AREA
            )
        return paint

    def near(self, mask: U8, distance_m: float) -> U8:
        """The mask grown by that distance."""
        size = 2 * max(1, round(distance_m / self.cell_m)) + 1
        return np.asarray(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))), np.uint8)


def lane_line(network: RoadNetwork, lane: int) -> F64:
    """(N, 2) the centre line of a lane."""
    part = slice(network.point_start[lane], network.point_start[lane + 1])
    return np.stack([network.point_x[part], network.point_y[part]], axis=1)


def lane_widths(network: RoadNetwork, lane: int) -> F64:
    """(N,) the width of a lane in each point of its centre line."""
    return network.point_width_m[network.point_start[lane] : network.point_start[lane + 1]]


def _lanes_of(network: RoadNetwork, *kinds: LaneKind) -> list[int]:
    return [int(k) for k in np.flatnonzero(np.isin(network.lane_kind, kinds))]


def _draw_surfaces(network: RoadNetwork, brush: Brush) -> None:
    """Junctions, then sidewalks, then the lanes themselves, so that a lane is never under a sidewalk."""

    def ribbons(lanes: list[int], extra_m: float = 0.0) -> list[F64]:
        return [ribbon(lane_line(network, k), lane_widths(network, k) + extra_m) for k in lanes]

    inside = network.lane_junction >= 0
    driving = _lanes_of(network, LaneKind.DRIVING, LaneKind.NARROW)
    fast = [k for k in driving if network.lane_fast[k]]
    brush.fill(ribbons(fast, 2.0 * PAVED_MARGIN_M), GroundClass.ROAD)
    brush.fill(network.junction_polygons, GroundClass.ROAD)
    brush.fill(network.sidewalk_polygons, GroundClass.SIDEWALK)
    brush.fill(ribbons(_lanes_of(network, LaneKind.SIDEWALK)), GroundClass.SIDEWALK)
    brush.fill(ribbons(_lanes_of(network, LaneKind.CROSSING)), GroundClass.ROAD)
    brush.fill(network.sidewalk_polygons, GroundClass.SIDEWALK)
    brush.fill(ribbons(_lanes_of(network, LaneKind.CYCLE)), GroundClass.ROAD)
    brush.fill(ribbons([k for k in driving if not inside[k]]), GroundClass.ROAD)
    brush.fill(ribbons([k for k in driving if inside[k]], -0.5), GroundClass.ROAD)
    road = (brush.classes == GroundClass.ROAD).view(np.uint8)
    _drop_useless_road(network, brush, road)
    reach = max(1, round(KERB_M / brush.cell_m))
    for strip in _strips(len(road)):
        first = max(strip.start - reach, 0)
        near = brush.near(road[first : strip.stop + reach], KERB_M)[strip.start - first :][: strip.stop - strip.start]
        classes = brush.classes[strip]
        classes[(near == 1) & (classes == GroundClass.SIDEWALK)] = GroundClass.KERB
    brush.surface = brush.classes.copy()


def _drop_useless_road(network: RoadNetwork, brush: Brush, road: U8) -> None:
    """Turns road into terrain where a junction's polygon reaches far from every lane, or beyond its own sidewalks."""
    lanes = np.zeros_like(road)
    for k in _lanes_of(network, LaneKind.DRIVING, LaneKind.CYCLE, LaneKind.CROSSING, LaneKind.NARROW):
        brush.fill([ribbon(lane_line(network, k), lane_widths(network, k))], GroundClass.ROAD, lanes)
    for polygon in network.junction_polygons:
        low = np.floor((polygon.min(axis=0) - brush.origin - FARTHEST_ROAD_M) / brush.cell_m).astype(int)
        high = np.ceil((polygon.max(axis=0) - brush.origin + FARTHEST_ROAD_M) / brush.cell_m).astype(int)
        part = np.s_[max(low[1], 0) : high[1], max(low[0], 0) : high[0]]
        here, used = road[part], lanes[part]
        away = cv2.distanceTransform(1 - used, cv2.DIST_L2, 3) * brush.cell_m > FARTHEST_ROAD_M
        here[away] = 0
        _, label = cv2.connectedComponents(here, connectivity=4, ltype=cv2.CV_32S)
        under_lane = np.zeros(int(label.max()) + 1, np.uint8)
        under_lane[label[used == 1]] = 1
        here &= under_lane[label]
        lost = (here == 0) & (brush.classes[part] == GroundClass.ROAD)
        brush.classes[part][lost] = GroundClass.TERRAIN


def _draw_lines(network: RoadNetwork, brush: Brush) -> None:
    """Dashed white between lanes of one direction, solid yellow between directions, solid white at the edges."""
    owner = _LaneOwners(network)
    for lane in _lanes_of(network, LaneKind.DRIVING, LaneKind.NARROW):
        if network.lane_junction[lane] >= 0:
            continue
        line = lane_line(network, lane)
        half = 0.5 * lane_widths(network, lane)
        marked = 2.0 * half > NARROWEST_MARKED_M
        for side, neighbour in ((1, network.lane_left[lane]), (-1, network.lane_right[lane])):
            border = offset(line, side * half)
            if neighbour >= 0:
                if side > 0:
                    draw_dashes(brush, border, network.lane_step_m[lane])
                continue
            other = owner.at(offset(line, side * (half + 0.6)), lane)
            turned = np.cos(owner.yaw(offset(line, side * (half + 0.6))) - headings(line)) < 0
            opposite = (other >= 0) & turned & marked
            alone = (other < 0) & marked
            inset = offset(line, side * (half - 0.2))
            for first, last in _runs(opposite):
                brush.fill([ribbon(border[first:last], LINE_WIDTH_M)], GroundClass.LINE_YELLOW)
            for first, last in _runs(alone):
                brush.fill([ribbon(inset[first:last], LINE_WIDTH_M)], GroundClass.LINE_WHITE)
            if side > 0:
                for first, last in _runs((other >= 0) & ~turned & marked):
                    brush.fill([ribbon(border[first:last], LINE_WIDTH_M)], GroundClass.LINE_WHITE)


def _draw_lines_through(network: RoadNetwork, brush: Brush) -> None:
    """Lines of fast roads go on where lanes begin, leave, join and end.

    They are dashed between lanes that stay neighbours, and solid where a lane has none before and after.
    """
    left, right = network.lane_left, network.lane_right
    fast = (network.lane_junction >= 0) & network.lane_fast
    through = [k for k in _lanes_of(network, LaneKind.DRIVING) if fast[k]]
    before = {k: int(network.predecessor[network.predecessor_start[k]]) for k in through}
    after = {k: int(network.successor[network.successor_start[k]]) for k in through}
    ways = {(before[k], after[k]) for k in through}
    for lane in through:
        origin, target = before[lane], after[lane]
        line, half = lane_line(network, lane), 0.5 * lane_widths(network, lane)
        if left[origin] >= 0 and (left[origin], left[target]) in ways:
            draw_dashes(brush, offset(line, half), network.lane_step_m[lane])
        elif left[origin] < 0 and left[target] < 0:
            brush.fill([ribbon(offset(line, half - 0.2), LINE_WIDTH_M)], GroundClass.LINE_WHITE)
        joined = any(left[a] == origin and b == target for a, b in ways)
        if right[origin] < 0 and right[target] < 0 and not joined:
            brush.fill([ribbon(offset(line, 0.2 - half), LINE_WIDTH_M)], GroundClass.LINE_WHITE)


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[first, last) of each run of true, runs of a single point left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= 2]


def draw_dashes(brush: Brush, border: F64, step_m: float, value: GroundClass = GroundClass.LINE_WHITE) -> None:
    """A dashed line along points (N, 2) that stand step_m apart."""
    length = step_m * (len(border) - 1)
    stations = np.arange(len(border)) * step_m
    for begin in np.arange(0.5 * DASH_GAP_M, length - 0.5 * DASH_M, DASH_M + DASH_GAP_M):
        s = np.linspace(begin, min(begin + DASH_M, length), 4)
        points = np.stack([np.interp(s, stations, border[:, 0]), np.interp(s, stations, border[:, 1])], axis=1)
        brush.fill([ribbon(points, LINE_WIDTH_M)], value)


class _LaneOwners:
    """Which lane for cars outside junctions covers a place, from a raster of half-metre cells."""

    CELL_M = 0.5

    def __init__(self, network: RoadNetwork) -> None:
        self.origin = network.bounds[:2] - MARGIN_M
        columns, rows = np.ceil((network.bounds[2:] + MARGIN_M - self.origin) / self.CELL_M).astype(int)
        self.lane = np.full((rows, columns), -1, np.int32)
        self.heading = np.zeros((rows, columns), np.float32)
        for k in _lanes_of(network, LaneKind.DRIVING, LaneKind.NARROW):
            if network.lane_junction[k] >= 0:
                continue
            line, half = lane_line(network, k), 0.5 * lane_widths(network, k)
            edge_left, edge_right = offset(line, half), offset(line, -half)
            yaw = headings(line)
            for i in range(len(line) - 1):
                quad = np.stack([edge_left[i], edge_left[i + 1], edge_right[i + 1], edge_right[i]])
                corners = np.rint((quad - self.origin) / self.CELL_M * 16).astype(np.int32) - 8
                cv2.fillConvexPoly(self.lane, corners, k, cv2.LINE_8, 4)
                cv2.fillConvexPoly(self.heading, corners, float(yaw[i]), cv2.LINE_8, 4)

    def _cells(self, points: F64) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        column, row = np.floor((points - self.origin) / self.CELL_M).astype(np.intp).T
        return np.clip(row, 0, self.lane.shape[0] - 1), np.clip(column, 0, self.lane.shape[1] - 1)

    def at(self, points: F64, except_lane: int) -> NDArray[np.int32]:
        lanes = self.lane[self._cells(points)]
        return np.where(lanes == except_lane, np.int32(-1), lanes)

    def yaw(self, points: F64) -> NDArray[np.float32]:
        return self.heading[self._cells(points)]


def _draw_stop_lines(network: RoadNetwork, brush: Brush) -> None:
    """A solid line before signals and stop signs, a row of blocks where one yields, across each lane's end.

    Not where a lane of a fast road ends: who merges there gives way without a line.
    """
    for lane in _lanes_of(network, LaneKind.DRIVING):
        if network.lane_junction[lane] >= 0:
            continue
        follow = network.successor[network.successor_start[lane] : network.successor_start[lane + 1]]
        controls = set(network.lane_control[follow].tolist())
        line = lane_line(network, lane)
        end, yaw = line[-1], headings(line)[-1]
        ahead, aside = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        front, back = end - STOP_LINE_SETBACK_M * ahead, end - (STOP_LINE_SETBACK_M + STOP_LINE_DEPTH_M) * ahead
        half = 0.5 * lane_widths(network, lane)[-1] - 0.1
        if controls & {LaneControl.SIGNAL, LaneControl.STOP}:
            pieces = [(-half, half)]
        elif LaneControl.YIELD in controls and not network.lane_fast[lane]:
            starts = np.arange(-half, half - 0.5 * YIELD_DASH_M, 2 * YIELD_DASH_M)
            pieces = [(start, min(start + YIELD_DASH_M, half)) for start in starts]
        else:
            continue
        for a, b in pieces:
            corners = np.stack([front + a * aside, front + b * aside, back + b * aside, back + a * aside])
            brush.fill([corners], GroundClass.STOP_LINE)


def _draw_crosswalks(network: RoadNetwork, brush: Brush) -> None:
    """Zebra stripes along the direction of driving, half a metre wide, on the road part of each crossing."""
    for lane in _lanes_of(network, LaneKind.CROSSING):
        line = lane_line(network, lane)
        stations = np.arange(len(line)) * network.lane_step_m[lane]
        for begin in np.arange(0.5 * STRIPE_M, stations[-1] - STRIPE_M, 2 * STRIPE_M):
            s = np.array([begin, begin + STRIPE_M])
            points = np.stack([np.interp(s, stations, line[:, 0]), np.interp(s, stations, line[:, 1])], axis=1)
            brush.fill([ribbon(points, network.lane_width_m[lane])], GroundClass.CROSSWALK)
