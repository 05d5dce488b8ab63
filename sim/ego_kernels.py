"""The ego in a tick: put at the start of its route, moved, told what a driver sees, and judged.

Knows one environment at a time; knows nothing about how traffic decides, about sensors or rewards.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim import dynamics
from sim.commands import CHANGE_LEFT, CHANGE_RIGHT, next_command
from sim.counter_random import Purpose, hash_key, uniform
from sim.detour import plan_swing
from sim.events import ARRIVAL_M, OFF_ROUTE_M, RED, Surroundings, collision_of, is_off_road, is_wrong_way
from sim.lane_graph import LaneGraph, wrapped
from sim.numba_setup import INNER
from sim.rerouting import has_left_route, progress_of
from sim.routes import draw_route, lay_out_route, point_on_route
from sim.situation import MOST_EGO_SPANS, add_spans_of_box, ego_leader, follow_route, next_signal, route_ahead
from sim.standing import BESIDE_ROUTE_M
from sim.traffic.moves import indicator_of
from sim.traffic.playback import Playback
from sim.traffic.right_of_way import IGNORES_SIGNALS, list_claims, note_standstill, stop_distance, waited
from sim.traffic.scripts import OFF_LANE, ON_LANE
from sim.traffic.spans import ASIDE_M, SPANS, list_spans
from sim.traffic.spawning import ends_soon
from sim.traffic.vehicles import BEHIND
from sim.traffic.walk_graph import WalkGraph
from sim.traffic.walkers import walker_stop_distance
from sim.world_arrays import Events, Hidden, Rules, State, View

CHANGE_SIGNAL_M = 20.0  # the ego signals a lane change of its route from here on
STILL_MPS = 0.1
REASON_M = 10.0  # what stands within this distance is a reason to stand still
FLOW_SHARE = 0.7  # speed of an ego that begins on a fast road, of the limit
SHIFT_RANGE_MS = 600_000
_ROUTE, _SHIFT = int(Purpose.ROUTE), int(Purpose.SIGNAL_SHIFT)


@njit(**INNER)
def _speed_at_start(
    graph: LaneGraph, route_lane: NDArray[np.int32], route_from: NDArray[np.float64], lanes: int
) -> float:
    """An ego begins at rest, but on a fast road with the traffic, from where it can stop in comfort if its lane ends."""
    record = graph.lanes[route_lane[0]]
    if record.fast == 0:
        return 0.0
    speed = FLOW_SHARE * record.limit
    if lanes > 1 and ends_soon(graph, route_lane[1]):
        room = record.length + route_from[0] - 8.0
        speed = min(speed, math.sqrt(2.0 * 1.5 * max(room, 0.0)))
    return speed


@njit(**INNER)
def start_ego(graph: LaneGraph, rules: Rules, playback: Playback, state: State, hidden: Hidden, e: int) -> None:
    """Lay out the route of environment e, drawn if it is not there yet, and put the ego, standing, at its start."""
    ego, me, line = hidden.egos[e], hidden.cars[e][0], hidden.line[e]
    scene = hidden.scenes[e]
    line[:, :] = 0.0
    if len(playback.line) > 0:
        hidden.route_lane[e, :], hidden.route_from[e, :] = 0, 0.0
        points = len(playback.line)
        for i in range(points):
            for c in range(3):
                line[i, c] = playback.line[i, c]
        hidden.route_lane[e, 0] = playback.route_lane
        lanes, length = 1, float(points - 1)
    else:
        if scene.given == 1:
            lanes, length = int(scene.lanes), scene.length
            begin = -scene.offset
            for k in range(lanes):
                hidden.route_from[e, k] = begin
                begin += graph.lanes[hidden.route_lane[e, k]].length
        elif ego.planned == 1:
            lanes, length = int(ego.lanes), ego.length
        else:
            hidden.route_lane[e, :], hidden.route_from[e, :] = 0, 0.0
            key = hash_key(state.seed[e], state.episode[e], 0, 0, _ROUTE)
            lanes, length = draw_route(
                graph, key, rules.route_min_m, rules.route_max_m, hidden.route_lane[e], hidden.route_from[e]
            )
        points = lay_out_route(graph, hidden.route_lane[e], hidden.route_from[e], lanes, line)
    ego.lanes, ego.length, ego.points = lanes, length, points
    ego.s, ego.progress, ego.drive, ego.slide, ego.at, ego.still = 0.0, 0.0, 0.0, 0.0, 0, 0
    ego.swinging, ego.swing, ego.swing_from, ego.swing_to, ego.swing_end, ego.swing_back = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    ego.done, ego.asked, ego.replans, ego.tried, ego.lost, ego.planned = 0.0, length, 0, -1, 0, 0
    ego.ran = -1
    car = rules.car[0]
    ego.shift_ms = int(uniform(hash_key(state.seed[e], state.episode[e], 0, 0, _SHIFT)) * SHIFT_RANGE_MS)
    if scene.given == 1 and scene.shift_ms >= 0:
        ego.shift_ms = scene.shift_ms
    me.x, me.y, me.yaw = point_on_route(line, points, 0.0)
    me.length, me.width, me.height = car.length, car.width, car.height
    me.front_axle, me.wheelbase = car.length / 2 + car.rear_axle - car.wheelbase, car.wheelbase
    me.speed, me.wait, me.waiting, me.active, me.kind, me.most = 0.0, 0, 0, 1, 0, 2.0
    me.drift, me.blind = 0.0, 0
    if scene.given == 1:
        me.speed = scene.speed
    elif len(playback.line) == 0:
        me.speed = _speed_at_start(graph, hidden.route_lane[e], hidden.route_from[e], lanes)
    if len(playback.line) > 0:
        me.x, me.y, me.yaw, me.speed = (
            playback.ego[0, 0],
            playback.ego[0, 1],
            wrapped(playback.ego[0, 2]),
            playback.ego[0, 3],
        )
    state.active[e, 0], state.kind[e, 0] = 1, 0
    state.x_m[e, 0], state.y_m[e, 0], state.yaw_rad[e, 0] = me.x, me.y, me.yaw
    state.length_m[e, 0], state.width_m[e, 0], state.height_m[e, 0] = me.length, me.width, me.height
    state.rear_axle_m[e, 0] = car.rear_axle
    state.speed_mps[e, 0], state.acceleration_mps2[e, 0] = me.speed, 0.0
    state.yaw_rate_radps[e, 0] = me.speed * playback.curvature
    state.steer_rad[e, 0] = math.atan(car.wheelbase * playback.curvature)
    state.brake_light[e, 0] = 1 if me.speed < STILL_MPS else 0
    state.paint[e, 0, 0], state.paint[e, 0, 1], state.paint[e, 0, 2] = 196, 30, 36
    state.last_action[e, :] = 0.0


@njit(**INNER)
def move_ego(car: np.void, state: State, e: int, ego: np.void, me: np.void, steer: float, throttle: float) -> None:
    """Five physics substeps of the ego; its box, record and public motion after them."""
    yaw, axle = state.yaw_rad[e, 0], state.rear_axle_m[e, 0]
    x = state.x_m[e, 0] - axle * math.cos(yaw)
    y = state.y_m[e, 0] - axle * math.sin(yaw)
    before = state.speed_mps[e, 0]
    speed, drive, wheels = before, ego.drive, state.steer_rad[e, 0]
    slide, turned = ego.slide, state.yaw_rate_radps[e, 0]
    for _ in range(5):
        x, y, yaw, speed, drive, wheels, slide, turned = dynamics.advance_ego(
            car, x, y, yaw, speed, drive, wheels, slide, turned, steer, throttle, 0.02
        )
    yaw = wrapped(yaw)
    ego.drive, ego.slide = drive, slide
    state.x_m[e, 0], state.y_m[e, 0] = x + axle * math.cos(yaw), y + axle * math.sin(yaw)
    state.yaw_rad[e, 0], state.speed_mps[e, 0] = yaw, speed
    state.acceleration_mps2[e, 0] = (speed - before) / 0.1
    state.yaw_rate_radps[e, 0], state.steer_rad[e, 0] = turned, wheels
    state.brake_light[e, 0] = 1 if throttle < -0.02 or (speed < STILL_MPS and throttle <= 0.0) else 0
    me.x, me.y, me.yaw, me.speed = state.x_m[e, 0], state.y_m[e, 0], yaw, speed
    me.wait = waited(me.wait, speed)


@njit(**INNER)
def look(graph: LaneGraph, walk: WalkGraph, rules: Rules, state: State, hidden: Hidden, view: View, e: int) -> None:
    """Project the ego, list what vehicles cover and come to, and fill the driver's view. The state is left alone."""
    ego, cars, paths = hidden.egos[e], hidden.cars[e], hidden.paths[e]
    me, line, shown = cars[0], hidden.line[e], state.signal[e]
    follow_route(graph, ego, me, paths[0], hidden.route_lane[e], hidden.route_from[e], line)
    count = list_spans(graph, cars, paths, len(cars) - hidden.walkers.shape[1], hidden.spans[e])
    count = add_spans_of_box(graph, me, np.int64(0), hidden.spans[e], count, MOST_EGO_SPANS)
    for i in range(1, len(cars)):
        mode = hidden.scripts[e, i].mode
        if cars[i].active == 1 and (mode == OFF_LANE or (mode == ON_LANE and abs(cars[i].lateral) > ASIDE_M)):
            count = add_spans_of_box(graph, cars[i], np.int64(i), hidden.spans[e], count, SPANS)
    hidden.num_spans[e] = count
    hidden.num_claims[e] = list_claims(graph, cars, paths, hidden.claims[e])
    # In a recording whoever stands may be waiting, and nobody has lanes: nothing is passed, nobody's next step foretold.
    recorded = hidden.followers.shape[1] > 0
    wait = np.inf
    if not recorded:
        wait = plan_swing(
            graph, cars, paths, ego, hidden.route_lane[e], hidden.route_from[e], line, state.rear_axle_m[e, 0]
        )  # fmt: skip
    gap, gap_speed = ego_leader(cars, ego, line, len(cars) if recorded else hidden.walkers.shape[1])
    me.gap, me.gap_speed = gap, gap_speed
    view.speed_mps[e] = me.speed
    view.speed_limit_mps[e] = graph.lanes[hidden.route_lane[e, ego.at]].limit
    view.goal_distance_m[e] = ego.length - ego.s
    view.leader_gap_m[e], view.leader_speed_mps[e] = gap, gap_speed
    distance, light = next_signal(graph, ego, hidden.route_lane[e], hidden.route_from[e], shown)
    view.stop_line_distance_m[e], view.signal[e] = distance, light
    view.yield_distance_m[e] = np.inf
    if paths[0, BEHIND] >= 0:
        note_standstill(graph, me, paths[0], rules.stop_below_mps)
        view.yield_distance_m[e] = stop_distance(
            graph,
            cars,
            paths,
            hidden.claims[e],
            hidden.num_claims[e],
            shown,
            np.int64(0),
            hidden.late[e],
            np.int64(IGNORES_SIGNALS),
        )
        for_walkers = walker_stop_distance(graph, walk, me, paths[0], cars, hidden.walkers[e], shown)
        view.yield_distance_m[e] = min(view.yield_distance_m[e], for_walkers)
    view.yield_distance_m[e] = min(view.yield_distance_m[e], wait)
    me.waiting = 1 if view.yield_distance_m[e] < np.inf else 0
    state.indicator[e, 0] = indicator_of(graph, paths[0], me.s)
    route_ahead(me, ego, state.rear_axle_m[e, 0], line, view.route_in_ego[e], view.path_in_ego[e])
    command, away = next_command(graph, ego, hidden.route_lane[e], hidden.route_from[e])
    view.command[e], view.command_distance_m[e] = command, away
    if away < CHANGE_SIGNAL_M and command in (CHANGE_LEFT, CHANGE_RIGHT):
        state.indicator[e, 0] = 1 if command == CHANGE_LEFT else -1


@njit(**INNER)
def judge(
    graph: LaneGraph,
    around: Surroundings,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    events: Events,
    view: View,
    e: int,
    was_at: int,
    was_front: float,
) -> None:
    """Collisions, and lane, light and route events of the tick.

    was_at, was_front: route lane under the front bumper before it, and that bumper's arc length on the route, infinite at the
    start.
    """
    ego, cars = hidden.egos[e], hidden.cars[e]
    me = cars[0]
    events.collision[e] = collision_of(cars, around)
    events.off_road[e] = 1 if is_off_road(me, around) else 0
    scene = hidden.scenes[e]
    excused = scene.given == 1 and scene.cross_from <= ego.s <= scene.cross_to and math.cos(ego.heading) > 0.3
    events.wrong_way[e] = 1 if not excused and is_wrong_way(me, graph) else 0
    # Before its beginning the line goes straight on; where s is below 0, the way back to the beginning counts, too.
    events.off_route[e] = 1 if math.hypot(min(ego.s, 0.0), ego.lateral) > OFF_ROUTE_M else 0
    events.red_light[e] = 1 if _runs_red_light(graph, state, hidden, e, was_at, was_front) else 0
    reason = (view.leader_gap_m[e] < REASON_M and view.leader_speed_mps[e] < 1.0) or view.yield_distance_m[e] < REASON_M
    if view.stop_line_distance_m[e] < REASON_M and (view.signal[e] == 1 or view.signal[e] == 2):
        reason = True
    ego.still = ego.still + 1 if me.speed < STILL_MPS and not reason else 0
    events.stuck[e] = 1 if ego.still * 0.1 >= rules.stuck_after_s else 0
    goal, over = ego.length, True
    if len(playback.line) > 0:  # to keep up with the recorded car, by the end of the recording
        goal, over = max(playback.goal_m, ARRIVAL_M), state.tick[e] >= len(playback.ego) - 1
    events.arrived[e] = 1 if over and ego.progress >= goal - ARRIVAL_M else 0
    events.progress_m[e] = progress_of(ego, goal, events.progress_m[e])
    events.route_length_m[e] = goal if ego.replans == 0 else ego.asked
    events.lateral_m[e], events.replans[e] = ego.lateral, ego.replans
    # Recordings and scenarios are about their own path.
    ego.lost = 1 if len(playback.line) == 0 and scene.given == 0 and has_left_route(ego) else 0


@njit(**INNER)
def _runs_red_light(graph: LaneGraph, state: State, hidden: Hidden, e: int, was_at: int, was_front: float) -> bool:
    """Whether in the tick the front bumper has passed a line at red, or the rear one at red a line that the front passed before.

    The latter is CARLA's rule; if it were the only one, standing across the line would cost nothing.
    """
    ego, shown, length, runs = hidden.egos[e], state.signal[e], hidden.cars[e, 0].length, False
    if abs(ego.lateral) >= BESIDE_ROUTE_M:
        return False
    for k in range(was_at + 1, ego.at + 1):
        link = graph.lanes[hidden.route_lane[e, k]].link
        if link >= 0:
            ego.ran = link if shown[link] == RED else -1
            runs = runs or ego.ran >= 0
    for k in range(ego.at, 0, -1):
        line = hidden.route_from[e, k]
        if line <= was_front - length:
            break
        link = graph.lanes[hidden.route_lane[e, k]].link
        if line <= ego.front - length and link >= 0 and shown[link] == RED and link != ego.ran:
            runs = True
    return runs
