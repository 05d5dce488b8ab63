"""What an ego's driver knows who sees only what its sensors can see: leader, right of way, detours, and the road ahead.

The rules are those of all traffic and of `sim.situation`; only, whoever is hidden takes no part. Roads, signs and the route are
known as a map knows them. What others are about to do (the way they take, whether they wait) is taken as if it showed.
Knows visibility, routes, lanes and right of way; knows nothing about observations or who drives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.sensors import ROUTE_POINTS
from sim.detour import WALKER_KIND, plan_swing, swing_at
from sim.lane_graph import CURVE_BRAKE_MPS2, LaneGraph, cap_at, turn_side
from sim.numba_setup import INNER, UNLOCKED
from sim.roads.driving_map import DrivingMap
from sim.roads.network import LaneControl
from sim.routes import EGO as EGO_RECORD
from sim.situation import ego_leader, route_ahead
from sim.threads import MOST_THREADS, over_environments
from sim.traffic.right_of_way import IGNORES_SIGNALS, list_claims, stop_distance
from sim.traffic.vehicles import BEHIND, CAR, CLAIM, CLAIMS
from sim.traffic.walk_graph import CROSSWALK, WalkGraph
from sim.traffic.walkers import walker_stop_distance
from sim.visibility import BoxGrid, hiding, scratch_for, visible_actors
from sim.world import World
from sim.world_arrays import Hidden, State

SIGHT_RANGE_M = 80.0
AHEAD_M = 60.0  # so far ahead the road is looked at
SEEN_VEHICLES = 8
SEEN_WALKERS = 4
_STOP = int(LaneControl.STOP)


class Road(IntEnum):
    """Columns of `Sight.road`, m, m/s, rad and flags; distances from the front bumper, inf where there is none."""

    LEADER_GAP = 0
    LEADER_SPEED = 1  # along the route
    YIELD_DISTANCE = 2  # where right of way has to be given now
    WALKER_DISTANCE = 3  # where somebody on foot has to be let by now
    DETOUR_DISTANCE = 4  # where to wait before what cannot be passed yet
    SWING = 5  # how far left of the route the path lies here
    HEADING = 6  # against the route
    CURVE_SPEED = 7  # from which limits and curves ahead are reached in comfort
    STOP_SIGN_DISTANCE = 8
    STOPPED_AT_SIGN = 9
    JUNCTION_DISTANCE = 10  # negative within it
    JUNCTION_TURN = 11  # -1 right, 1 left
    JUNCTION_MINOR = 12  # somebody there has priority over the route
    CROSSWALK_DISTANCE = 13
    LANE_LEFT = 14
    LANE_RIGHT = 15
    HALF_WIDTH = 16
    WAITED = 17  # s


(
    _LEADER_GAP, _LEADER_SPEED, _YIELD, _WALKER, _DETOUR, _SWING, _HEADING, _CURVE_SPEED, _SIGN, _STOPPED, _JUNCTION, _TURN,
    _MINOR, _CROSSWALK, _LEFT, _RIGHT, _HALF_WIDTH, _WAITED,
) = (int(column) for column in Road)  # fmt: skip


@dataclass(frozen=True)
class Sight:
    """Of E egos; arrays owned by the `Observer` that fills them.

    road: (E, len(Road)) float64. path_in_ego: (E, ROUTE_POINTS, 2) float32, m, the route swung around what is seen in the way.
    vehicles: (E, SEEN_VEHICLES) and walkers: (E, SEEN_WALKERS) int32, agents in sight, nearest first, -1 where there are fewer.
    """

    road: NDArray[np.float64]
    path_in_ego: NDArray[np.float32]
    vehicles: NDArray[np.int32]
    walkers: NDArray[np.int32]


@njit(**INNER)
def _look_along(
    graph: LaneGraph, walk: WalkGraph, me: np.void, ego: np.void, lanes: NDArray[np.int32], start: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:  # fmt: skip
    """The road within AHEAD_M along the route: curves, stop sign, junction, crosswalk, neighbouring lanes."""
    out[_SIGN], out[_STOPPED], out[_JUNCTION], out[_TURN], out[_MINOR], out[_CROSSWALK] = (
        np.inf, 0.0, np.inf, 0.0, 0.0, np.inf,
    )  # fmt: skip
    here = graph.lanes[lanes[ego.at]]
    out[_LEFT] = 1.0 if here.left >= 0 else 0.0
    out[_RIGHT] = 1.0 if here.right >= 0 else 0.0
    out[_HALF_WIDTH] = here.half_width
    fastest = np.inf
    for k in range(ego.at, ego.lanes):
        away = start[k] - ego.front
        if away > AHEAD_M:
            break
        lane = lanes[k]
        record = graph.lanes[lane]
        cap = cap_at(graph.lanes, graph.points, lane, max(-away, 0.0))
        fastest = min(fastest, math.sqrt(cap * cap + 2.0 * CURVE_BRAKE_MPS2 * max(away, 0.0)))
        if record.junction >= 0 and out[_JUNCTION] == np.inf:
            out[_JUNCTION] = away
            out[_TURN] = float(turn_side(graph, lane))
            for q in range(record.conflict, record.conflict_end):
                if graph.conflicts[q].yields == 1:
                    out[_MINOR] = 1.0
        if record.control == _STOP and away >= 0.0 and out[_SIGN] == np.inf:
            out[_SIGN] = away
            out[_STOPPED] = 1.0 if me.stop == lane else 0.0
        for row in range(walk.lane_start[lane], walk.lane_start[lane + 1]):
            crossing = walk.crossings[walk.lane_crossing[row]]
            to = away + crossing.enter
            if to > -1.0 and walk.ways[crossing.way].kind == CROSSWALK:
                out[_CROSSWALK] = min(out[_CROSSWALK], to)
    out[_CURVE_SPEED] = fastest


@njit(**INNER)
def _see(
    graph: LaneGraph, walk: WalkGraph, state: State, hidden: Hidden, seen: NDArray[np.int32], memory: NDArray[np.void],
    cars: NDArray[np.void], claims: NDArray[np.void], route: NDArray[np.float32], e: int, road: NDArray[np.float64],
    path: NDArray[np.float32], vehicles: NDArray[np.int32], people: NDArray[np.int32],
) -> None:  # fmt: skip
    """Fill road, path, vehicles and people of environment e from those of its agents that are listed in seen."""
    ego = memory[e]
    swinging, swing = ego.swinging, ego.swing
    begins, full, ends, back = ego.swing_from, ego.swing_to, ego.swing_end, ego.swing_back
    memory[e] = hidden.egos[e]
    ego.swinging, ego.swing = swinging, swing
    ego.swing_from, ego.swing_to, ego.swing_end, ego.swing_back = begins, full, ends, back
    if state.tick[e] == 0:
        ego.swinging = 0
    for i in range(len(cars)):
        cars[i] = hidden.cars[e, i]
        if i > 0:
            cars[i].active = 0
    vehicles[:], people[:] = -1, -1
    some, many = 0, 0
    for n in range(len(seen)):
        i = seen[n]
        if i < 0:
            break
        cars[i].active = 1
        if cars[i].kind == WALKER_KIND:
            if some < len(people):
                people[some] = i
                some += 1
        elif many < len(vehicles):
            vehicles[many] = i
            many += 1
    me, line, lanes, start = cars[0], hidden.line[e], hidden.route_lane[e], hidden.route_from[e]
    rear_axle = state.rear_axle_m[e, 0]
    recorded = hidden.followers.shape[1] > 0
    road[_DETOUR] = np.inf
    if not recorded:
        road[_DETOUR] = plan_swing(graph, cars, hidden.paths[e], ego, lanes, start, line, rear_axle)
    gap, gap_speed = ego_leader(cars, ego, line, len(cars) if recorded else hidden.walkers.shape[1])
    me.gap, me.gap_speed = gap, gap_speed
    road[_LEADER_GAP], road[_LEADER_SPEED] = gap, gap_speed
    road[_YIELD], road[_WALKER] = np.inf, np.inf
    if hidden.paths[e, 0, BEHIND] >= 0:
        count = list_claims(graph, cars, hidden.paths[e], claims)
        road[_YIELD] = stop_distance(
            graph, cars, hidden.paths[e], claims, count, state.signal[e], np.int64(0), hidden.late[e],
            np.int64(IGNORES_SIGNALS),
        )  # fmt: skip
        road[_WALKER] = walker_stop_distance(
            graph, walk, me, hidden.paths[e, 0], cars, hidden.walkers[e], state.signal[e]
        )
    road[_SWING] = swing_at(ego, ego.s - rear_axle)
    road[_HEADING] = ego.heading
    road[_WAITED] = 0.1 * me.wait
    _look_along(graph, walk, me, ego, lanes, start, road)
    route_ahead(me, ego, rear_axle, line, route, path)


@njit(**UNLOCKED)
def _see_all(
    k: int, which: NDArray[np.intp], graph: LaneGraph, walk: WalkGraph, state: State, hidden: Hidden,
    seen: NDArray[np.int32], memory: NDArray[np.void], cars: NDArray[np.void], claims: NDArray[np.void],
    route: NDArray[np.float32], road: NDArray[np.float64], path: NDArray[np.float32], vehicles: NDArray[np.int32],
    people: NDArray[np.int32],
) -> None:  # fmt: skip
    """`_see` for the environments `which`; cars, claims and route are scratch, one row for each thread k."""
    for e in which:
        _see(
            graph, walk, state, hidden, seen[e], memory, cars[k], claims[k], route[k], e, road[e], path[e], vehicles[e],
            people[e],
        )  # fmt: skip


class Observer:
    """Sees for all egos of a world. It remembers the detour that each is on, as far as what it saw led to one."""

    def __init__(self, driving_map: DrivingMap, world: World) -> None:
        num_envs, agents = world.state.x_m.shape
        self._world, self._everybody = world, np.arange(num_envs)
        self._grid = BoxGrid(hiding(driving_map.scenery))
        self._boxes = scratch_for(agents)
        self._seen = np.full((num_envs, agents), -1, np.int32)
        self._count = np.zeros(num_envs, np.int32)
        self._memory = np.zeros(num_envs, EGO_RECORD)
        self._before = self._memory.copy()  # what it remembered when it looked last
        self._cars = np.zeros((MOST_THREADS, agents), CAR)
        self._claims = np.zeros((MOST_THREADS, agents * CLAIMS), CLAIM)
        self._route = np.zeros((MOST_THREADS, ROUTE_POINTS, 2), np.float32)
        self.sight = Sight(
            np.zeros((num_envs, len(Road))), np.zeros((num_envs, ROUTE_POINTS, 2), np.float32),
            np.full((num_envs, SEEN_VEHICLES), -1, np.int32), np.full((num_envs, SEEN_WALKERS), -1, np.int32),
        )  # fmt: skip

    def saved(self, env: int) -> NDArray[np.void]:
        """What it remembered of one environment before it looked last, for `restore`."""
        return self._before[env : env + 1].copy()

    def restore(self, env: int, saved: NDArray[np.void]) -> None:
        """Remember of one environment what was saved; it has to be looked at again."""
        self._memory[env] = saved[0]

    def look(self, only: NDArray[np.bool_] | None = None) -> Sight:
        """What is seen now, of the environments where `only` (N,) is true; of others it stays as it is.

        To be asked once a tick: whether a detour goes on depends on whether it went on when this was asked before. Cost: sight
        lines past scenery, and once more the rules that `World.step` applies for the ego.
        """
        state, grid = self._world.state, self._grid
        which = self._everybody if only is None else np.flatnonzero(only)
        over_environments(
            visible_actors, which, state.active, state.x_m, state.y_m, state.yaw_rad, state.length_m, state.width_m,
            state.height_m, state.rear_axle_m, grid.boxes, grid.start, grid.origin, grid.cell_m, grid.columns, grid.rows,
            grid.reach_m, SIGHT_RANGE_M, self._boxes, self._seen, self._count,
        )  # fmt: skip
        return self.follow(which)

    def follow(self, which: NDArray[np.intp]) -> Sight:
        """What follows from whom `look` has found in sight in the environments `which`."""
        sight = self.sight
        self._before[which] = self._memory[which]
        self._world.over_environments(
            _see_all, which, self._seen, self._memory, self._cars, self._claims, self._route, sight.road, sight.path_in_ego,
            sight.vehicles, sight.walkers,
        )  # fmt: skip
        return sight
