"""The road network as frozen arrays, read from a SUMO network.

Knows SUMO networks; knows nothing about traffic or sensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

I32 = NDArray[np.int32]
F64 = NDArray[np.float64]

# Roads on which more is allowed are made and driven like highways, unless people walk along them.
FAST_ROAD_MPS = 19.0


class LaneKind(IntEnum):
    DRIVING = 0
    CYCLE = 1
    SIDEWALK = 2
    CROSSING = 3
    NARROW = 4  # the end of a lane for cars where none fits into it: paved and marked, and driven on by nobody


class LaneControl(IntEnum):
    """What governs entry to a junction lane (a connection)."""

    NONE = 0
    PRIORITY = 1
    YIELD = 2
    STOP = 3
    SIGNAL = 4


@dataclass(frozen=True)
class RoadNetwork:
    """L lanes as arrays. World frame, metres, radians, SI. CSR: row k is `values[start[k]:start[k + 1]]`.

    First the lanes of kind DRIVING outside junctions, then one *junction lane* of kind DRIVING for each connection
    through a junction (SUMO's chain of internal lanes merged into one), then lanes of kind CYCLE, SIDEWALK and NARROW (outside
    junctions) and CROSSING (inside one); those four have no successors, neighbours or conflicts. Lane centre lines are
    resampled so that points of lane k stand exactly `lane_step_m[k]` apart (about 1 m): arc length s is at index
    s / lane_step_m[k].

    lane_name: SUMO ids (for messages and pictures only).
    point_start: (L + 1,) int32; point_x, point_y, point_yaw: (P,) float64. point_width_m: (P,) float64, the lane's width
        there, which changes along few lanes; lane_width_m is its mean.
    lane_length_m, lane_step_m, lane_width_m, lane_limit_mps: (L,) float64.
    lane_kind: (L,) int8. lane_junction: (L,) int32, junction index or -1 outside junctions.
    lane_left, lane_right: (L,) int32, neighbour in the same direction that one may change to, or -1.
    successor_start (L + 1,), successor: lanes that follow: of a lane outside junctions its junction lanes (or directly
        the next lane where SUMO has no internal lane), of a junction lane the one lane it leads to.
    predecessor_start, predecessor: the reverse.
    lane_control: (L,) int8 `LaneControl`, NONE outside junctions.
    lane_signal_link: (L,) int32: index into the states of all signal links (0..G-1) for a junction lane governed by a
        signal, else -1.
    lane_turn: (L,) int8: -1 right, 0 straight, 1 left, 2 turn back; junction lanes only.
    conflict_start (L + 1,), conflict_lane: junction lanes whose paths cross or merge with this one.
    conflict_enter_m, conflict_exit_m: along *this* lane, where the two paths come closer than 2.2 m and part again.
    conflict_yields: uint8, 1 where this lane has to give way to the other one (SUMO's response matrix), which is so for
        exactly one of the two; with signals, it is what holds when both show green.
    signal_start: (S + 1,) int32: links of signal k are link signal_start[k] .. ; G = signal_start[-1].
    phase_start: (S + 1,) int32 into phase_duration_s (float64), and phase_state: (phases, max links of a signal) int8
        `planning.policy.SignalState`, NONE where the program is off (then priority rules hold).
        phase_minor: same shape, uint8, 1 for a green that has to give way (SUMO's "g").
    signal_offset_s: (S,) float64.
    crosswalks: list of (K, 2) polygons; junction_polygons: list of (K, 2) polygons (for the ground raster).
    sidewalk_polygons: list of (K, 2) polygons where sidewalks meet at a junction (inside its junction polygon).
    left_hand: whether everybody drives on the left.
    bounds: (4,) x_min y_min x_max y_max.
    grid_origin (2,), grid_cell_m, grid_shape (2,) int (columns, rows); grid_start (columns * rows + 1,), grid_lane:
        driving lanes with a point within half a width + grid_cell_m of each cell (cell = column + row * columns).
    """

    lane_name: tuple[str, ...]
    point_start: I32
    point_x: F64
    point_y: F64
    point_yaw: F64
    point_width_m: F64
    lane_length_m: F64
    lane_step_m: F64
    lane_width_m: F64
    lane_limit_mps: F64
    lane_kind: NDArray[np.int8]
    lane_junction: I32
    lane_left: I32
    lane_right: I32
    successor_start: I32
    successor: I32
    predecessor_start: I32
    predecessor: I32
    lane_control: NDArray[np.int8]
    lane_signal_link: I32
    lane_turn: NDArray[np.int8]
    conflict_start: I32
    conflict_lane: I32
    conflict_enter_m: F64
    conflict_exit_m: F64
    conflict_yields: NDArray[np.uint8]
    signal_start: I32
    phase_start: I32
    phase_duration_s: F64
    phase_state: NDArray[np.int8]
    phase_minor: NDArray[np.uint8]
    signal_offset_s: F64
    crosswalks: tuple[F64, ...]
    junction_polygons: tuple[F64, ...]
    bounds: F64
    grid_origin: F64
    grid_cell_m: float
    grid_shape: tuple[int, int]
    grid_start: I32
    grid_lane: I32
    sidewalk_polygons: tuple[F64, ...] = ()
    left_hand: bool = False

    @cached_property
    def lane_fast(self) -> NDArray[np.bool_]:
        """(L,) bool: lanes of fast roads, whose limit is above FAST_ROAD_MPS and along which no sidewalk leads.

        A sidewalk of the other direction (SUMO's edge of the same name with the other sign) counts too. A junction lane is fast
        by its limit, but not where it leads from one road with a sidewalk to another.
        """
        edge = [name.rsplit("_", 1)[0].removeprefix("-") for name in self.lane_name]
        walked = {edge[k] for k in np.flatnonzero(self.lane_kind == LaneKind.SIDEWALK)}
        beside = np.array([name in walked for name in edge], np.bool_)
        for lane in np.flatnonzero(self.lane_junction >= 0):
            before = self.predecessor[self.predecessor_start[lane] : self.predecessor_start[lane + 1]]
            after = self.successor[self.successor_start[lane] : self.successor_start[lane + 1]]
            beside[lane] = len(before) > 0 and len(after) > 0 and bool(beside[before].all() and beside[after].all())
        return np.asarray((self.lane_limit_mps > FAST_ROAD_MPS) & ~beside)

    @property
    def num_lanes(self) -> int:
        return len(self.lane_name)

    @property
    def num_signal_links(self) -> int:
        return int(self.signal_start[-1])
