"""The kernels that reset and step the world, one thread for each environment.

Puts traffic, the ego, events and the driver's view together in the order of a tick; knows nothing about sensors, rewards
or torch. Environments share nothing that is written, so the bytes do not depend on threads, batch size or slot.
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
from sim.events import (
    ARRIVAL_M,
    OFF_ROUTE_M,
    PEDESTRIAN_KIND,
    RED,
    Surroundings,
    collision_of,
    is_off_road,
    is_wrong_way,
)
from sim.lane_graph import LaneGraph, wrapped
from sim.numba_setup import INNER, UNLOCKED
from sim.rerouting import has_left_route, progress_of
from sim.roads.network import FAST_ROAD_MPS
from sim.routes import draw_route, lay_out_route, point_on_route
from sim.situation import MOST_EGO_SPANS, add_spans_of_box, ego_leader, follow_route, next_signal, route_ahead
from sim.traffic.bus_stops import bus_stop_distance
from sim.traffic.lane_changes import UNDONE_M, change_lanes, cross_over
from sim.traffic.playback import Playback, begin_playback, play_tick
from sim.traffic.right_of_way import (
    IGNORES_SIGNALS,
    KEEPS_SIGNALS,
    LATE_MS,
    RUNS_SIGNALS,
    STOP_SIGN_MPS,
    list_claims,
    note_standstill,
    stop_distance,
    waited,
)
from sim.traffic.scripts import (
    ACTING,
    BIG,
    CURVE_FACTOR,
    DONE,
    IGNORES_LEADER,
    IGNORES_PRIORITY,
    OFF_LANE,
    ON_LANE,
    UNSCRIPTED,
    advance_scripts,
    begin_scripts,
    is_kept_clear,
    scripted_acceleration,
    scripted_speed,
)
from sim.traffic.scripts import IGNORES_SIGNALS as SCRIPT_IGNORES_SIGNALS
from sim.traffic.signals import SignalPrograms, show_signals
from sim.traffic.spans import ASIDE_M, SPANS, find_leader, list_spans
from sim.traffic.spawning import BICYCLE_OFFSET_M, RUNS_RED, complete_path, ends_soon, spawn
from sim.traffic.vehicles import (
    BEHIND,
    HARDEST_BRAKE_MPS2,
    PATH,
    STANDSTILL_GAP_M,
    idm,
    move,
    path_distance,
    update_pose,
    wanted_speed,
)
from sim.traffic.walk_graph import WalkGraph
from sim.traffic.walkers import move_walkers, spawn_walker, walker_stop_distance
from sim.world_arrays import Events, Hidden, Rules, State, View

TICK_MS = 100
CHANGE_SIGNAL_M = 20.0  # the ego signals a lane change of its route from here on
LINE_GAP_M = 0.8  # where vehicles stop before a line
STILL_MPS = 0.1
BICYCLE_INSIDE_M = -0.5  # where bicycles ride in junctions and just before
REASON_M = 10.0  # what stands within this distance is a reason to stand still
GIVE_UP_TICKS = 600  # a vehicle that has stood that long, out of sight, drives on elsewhere
RESET_GAP_M = 9.0
RESPAWN_GAP_M = 16.0
BOX_M = 2.0  # by which the middle of a box may lie from the place that was looked for
DESPAWN_FACTOR = 1.25
FLOW_SHARE = 0.7  # speed of an ego that begins on a fast road, of the limit
SHIFT_RANGE_MS = 600_000
_COUNT, _ROUTE, _SHIFT = int(Purpose.COUNT), int(Purpose.ROUTE), int(Purpose.SIGNAL_SHIFT)


@njit(**INNER)
def _decide(
    graph: LaneGraph,
    walk: WalkGraph,
    walkers: NDArray[np.void],
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    claims: NDArray[np.void],
    num_claims: int,
    spans: NDArray[np.void],
    num_spans: int,
    shown: NDArray[np.int8],
    late: NDArray[np.int8],
    scripts: NDArray[np.void],
    ego: np.void,
) -> None:
    """Accelerations of all vehicles but the ego, from the state of the last tick."""
    last = len(cars) - len(walkers)
    for i in range(1, last):
        if cars[i].active == 1 and scripts[i].mode != OFF_LANE:
            find_leader(graph, cars[i], paths[i], spans, num_spans, i, 60.0 + 3.0 * cars[i].speed)
    for i in range(1, last):
        car = cars[i]
        if car.active == 0 or scripts[i].mode == OFF_LANE:
            continue
        wanted = wanted_speed(graph, paths[i], car.s, car.factor, car.fastest, car.speed)
        ignored = 0
        if scripts[i].mode == ON_LANE:
            ignored = scripts[i].ignores if scripts[i].stage != DONE else 0
            if ignored & IGNORES_LEADER:
                car.gap = np.inf
        acceleration = idm(car.speed, wanted, car.gap, car.gap_speed, car.headway, car.most)
        if scripts[i].mode == ON_LANE:
            asked = scripted_speed(scripts[i], car, cars[0], ego)
            if asked >= 0.0:
                curve = wanted_speed(graph, paths[i], car.s, CURVE_FACTOR, car.fastest, car.speed)
                acceleration = scripted_acceleration(scripts[i], car.speed, min(asked, curve))
                acceleration = min(acceleration, idm(car.speed, BIG, car.gap, car.gap_speed, car.headway, car.most))
        heed = RUNS_SIGNALS if car.breaks == RUNS_RED else IGNORES_SIGNALS if car.siren == 1 else KEEPS_SIGNALS
        if ignored & SCRIPT_IGNORES_SIGNALS:
            heed = IGNORES_SIGNALS
        line = np.inf
        if not ignored & IGNORES_PRIORITY:
            line = stop_distance(graph, cars, paths, claims, num_claims, shown, np.int64(i), late, heed)
            line = min(line, walker_stop_distance(graph, walk, car, paths[i], cars, walkers, shown))
        car.waiting = 1 if line < np.inf else 0
        line = min(line, bus_stop_distance(graph, car, paths[i]))
        for k in range(BEHIND + 1, PATH):
            if paths[i, k] < 0:
                if graph.lanes[paths[i, k - 1]].leaves == 0:
                    line = min(line, path_distance(graph, paths[i], car.s, k))
                break
        if line < np.inf:
            at_line = idm(car.speed, wanted, line - LINE_GAP_M + STANDSTILL_GAP_M, 0.0, 0.6, car.most)
            acceleration = min(acceleration, at_line)
        car.acceleration = max(acceleration, -HARDEST_BRAKE_MPS2)


@njit(**INNER)
def _change_lanes(
    graph: LaneGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    last: int,
    spans: NDArray[np.void],
    num_spans: int,
    seed: np.uint64,
    episode: int,
    tick: int,
    scripts: NDArray[np.void],
) -> None:
    """Lane changes of all vehicles but the ego. Who begins one is seen on its new lane by those that come after."""
    count = num_spans
    for i in range(1, last):
        car = cars[i]
        if car.active == 0:
            continue
        if scripts[i].mode == UNSCRIPTED:
            begun = change_lanes(graph, cars, paths[i], spans, count, i, seed, episode, tick)
        else:
            begun = _change_as_written(graph, car, paths[i], scripts[i], seed, episode, i)
        if begun:
            span = spans[count]
            span.lane, span.car, span.narrow = paths[i, BEHIND], i, 0
            span.rear, span.front, span.speed, span.low, span.high = car.s - car.length, car.s, car.speed, -2.0, 2.0
            count += 1


@njit(**INNER)
def _change_as_written(
    graph: LaneGraph, car: np.void, path: NDArray[np.int32], script: np.void, seed: np.uint64, episode: int, i: int
) -> bool:
    """The lane change that a script asks for, if there is a lane on that side; True where it has begun now."""
    if car.from_lane >= 0 and abs(car.lateral - car.offset) < UNDONE_M:
        car.from_lane = -1
    if script.mode != ON_LANE or script.change == 0 or script.stage != ACTING:
        return False
    record = graph.lanes[path[BEHIND]]
    target = record.left if script.change > 0 else record.right
    script.change = 0
    if target < 0 or record.junction >= 0:
        return False
    cross_over(graph, car, path, target, seed, episode, i)
    return True


@njit(**INNER)
def _indicator_of(graph: LaneGraph, path: NDArray[np.int32], s: float) -> int:
    """1 left, -1 right, 0 none: the turn of the junction lane the vehicle is on or comes to within 30 m."""
    distance = -s
    for k in range(BEHIND, PATH):
        if path[k] < 0 or distance > 30.0:
            break
        record = graph.lanes[path[k]]
        if record.junction >= 0:
            return 1 if record.turn > 0 else record.turn
        distance += record.length
    return 0


@njit(**INNER)
def _move_traffic(
    graph: LaneGraph,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    last: int,
    seed: np.uint64,
    episode: int,
    scripts: NDArray[np.void],
) -> None:
    """Move all vehicles but the ego along their paths for one tick."""
    for i in range(1, last):
        car = cars[i]
        if car.active == 0 or scripts[i].mode == OFF_LANE:
            continue
        move(car)
        path = paths[i]
        while car.s > graph.lanes[path[BEHIND]].length:
            if path[BEHIND + 1] < 0:
                if graph.lanes[path[BEHIND]].leaves == 0:
                    car.s, car.speed = graph.lanes[path[BEHIND]].length, 0.0
                break
            car.s -= graph.lanes[path[BEHIND]].length
            for k in range(PATH - 1):
                path[k] = path[k + 1]
            complete_path(graph, path, car, seed, episode, i, PATH - 1)
        car.wait = waited(car.wait, car.speed)
        note_standstill(graph, car, path, STOP_SIGN_MPS)
        if graph.lanes[path[BEHIND]].junction >= 0:
            car.from_lane = -1
        if car.narrow == 1:
            inside = graph.lanes[path[BEHIND]].junction >= 0 or graph.lanes[path[BEHIND]].length - car.s < 8.0
            car.offset = BICYCLE_INSIDE_M if inside else BICYCLE_OFFSET_M
        car.indicator = _indicator_of(graph, path, car.s)
        if car.signals == 1 and car.change != 0:
            car.indicator = car.change
        elif car.signals == 1 and car.from_lane >= 0:
            car.indicator = -1 if car.lateral > car.offset else 1
        update_pose(graph, path, car)


@njit(**INNER)
def _recycle(
    graph: LaneGraph,
    walk: WalkGraph,
    walkers: NDArray[np.void],
    rules: Rules,
    cars: NDArray[np.void],
    paths: NDArray[np.int32],
    paint: NDArray[np.uint8],
    seed: np.uint64,
    episode: int,
    tick: int,
    scripts: NDArray[np.void],
    scene: np.void,
) -> None:
    """Take away vehicles that are too far from the ego, or out of its sight and beyond the map or standing for too long, and put
    others in."""
    furthest = rules.spawn_radius_m * DESPAWN_FACTOR
    last = len(cars) - len(walkers)
    vehicles, people = _num_wanted(rules, last - 1), _num_wanted(rules, len(walkers))
    for i in range(1, len(cars)):
        car = cars[i]
        if car.active == 1:
            d2 = (car.x - cars[0].x) ** 2 + (car.y - cars[0].y) ** 2
            hidden = d2 > rules.respawn_distance_m * rules.respawn_distance_m
            staged = scripts[i].mode != UNSCRIPTED and scripts[i].stage != DONE
            gone = i < last and scripts[i].mode == UNSCRIPTED and car.s > graph.lanes[paths[i, BEHIND]].length
            if not staged and (d2 > furthest * furthest or (hidden and (gone or car.wait > GIVE_UP_TICKS))):
                car.active, scripts[i].mode = 0, UNSCRIPTED
        elif i >= last:
            if i - last < people:
                spawn_walker(
                    walk, cars, walkers[i - last], paint[i], i, seed, episode, tick,
                    rules.respawn_distance_m + BOX_M, rules.spawn_radius_m * 1.1,
                )  # fmt: skip
        elif i <= vehicles:
            spawn(
                graph, cars, paths[i], paint[i], i, seed, episode, tick,
                rules.respawn_distance_m + BOX_M, rules.spawn_radius_m * 1.1, RESPAWN_GAP_M, rules.speed_factor_spread,
                rules.rule_breakers,
            )  # fmt: skip
            if car.active == 1 and is_kept_clear(scene, car.x, car.y):
                car.active = 0


@njit(**INNER)
def _num_wanted(rules: Rules, slots: int) -> int:
    return math.floor(rules.traffic_density * slots + 0.5)


@njit(**INNER)
def _move_ego(car: np.void, state: State, e: int, ego: np.void, me: np.void, steer: float, throttle: float) -> None:
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
def _publish(state: State, cars: NDArray[np.void], walkers: int, e: int) -> None:
    """Copy the records of all vehicles but the ego into the public state."""
    last = len(cars) - walkers
    for i in range(1, len(cars)):
        car = cars[i]
        state.active[e, i], state.kind[e, i] = car.active, car.kind
        yaw_rate = 0.0
        if car.active == 1:
            yaw_rate = wrapped(car.yaw - state.yaw_rad[e, i]) / 0.1
        state.yaw_rate_radps[e, i] = yaw_rate if abs(yaw_rate) < 2.0 else 0.0
        state.x_m[e, i], state.y_m[e, i], state.yaw_rad[e, i] = car.x, car.y, car.yaw
        state.length_m[e, i], state.width_m[e, i], state.height_m[e, i] = car.length, car.width, car.height
        state.rear_axle_m[e, i] = car.front_axle + car.wheelbase - 0.5 * car.length
        state.speed_mps[e, i], state.acceleration_mps2[e, i] = car.speed, car.acceleration
        braking = car.acceleration < -0.6 or car.speed < STILL_MPS
        state.brake_light[e, i] = 1 if braking and i < last and car.kind != PEDESTRIAN_KIND else 0
        state.indicator[e, i] = car.indicator


@njit(**INNER)
def _look(graph: LaneGraph, walk: WalkGraph, rules: Rules, state: State, hidden: Hidden, view: View, e: int) -> None:
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
    state.indicator[e, 0] = _indicator_of(graph, paths[0], me.s)
    route_ahead(me, ego, state.rear_axle_m[e, 0], line, view.route_in_ego[e], view.path_in_ego[e])
    command, away = next_command(graph, ego, hidden.route_lane[e], hidden.route_from[e])
    view.command[e], view.command_distance_m[e] = command, away
    if away < CHANGE_SIGNAL_M and command in (CHANGE_LEFT, CHANGE_RIGHT):
        state.indicator[e, 0] = 1 if command == CHANGE_LEFT else -1


@njit(**INNER)
def _judge(
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
) -> None:
    """Collisions, and lane, light and route events of the tick. was_at: route lane under the front bumper before it."""
    ego, cars = hidden.egos[e], hidden.cars[e]
    me = cars[0]
    events.collision[e] = collision_of(cars, around)
    events.off_road[e] = 1 if is_off_road(me, around) else 0
    scene = hidden.scenes[e]
    excused = scene.given == 1 and scene.cross_from <= ego.s <= scene.cross_to and math.cos(ego.heading) > 0.3
    events.wrong_way[e] = 1 if not excused and is_wrong_way(me, graph) else 0
    events.off_route[e] = 1 if abs(ego.lateral) > OFF_ROUTE_M else 0
    events.red_light[e] = 0
    for k in range(was_at + 1, ego.at + 1):
        link = graph.lanes[hidden.route_lane[e, k]].link
        if link >= 0 and state.signal[e, link] == RED and abs(ego.lateral) < 6.0:
            events.red_light[e] = 1
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
def _speed_at_start(
    graph: LaneGraph, route_lane: NDArray[np.int32], route_from: NDArray[np.float64], lanes: int
) -> float:
    """An ego begins at rest, but on a fast road with the traffic, from where it can stop in comfort if its lane ends."""
    record = graph.lanes[route_lane[0]]
    if record.limit <= FAST_ROAD_MPS:
        return 0.0
    speed = FLOW_SHARE * record.limit
    if lanes > 1 and ends_soon(graph, route_lane[1]):
        room = record.length + route_from[0] - 8.0
        speed = min(speed, math.sqrt(2.0 * 1.5 * max(room, 0.0)))
    return speed


@njit(**INNER)
def _start_ego(graph: LaneGraph, rules: Rules, playback: Playback, state: State, hidden: Hidden, e: int) -> None:
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
def _begin_episode(
    graph: LaneGraph,
    walk: WalkGraph,
    programs: SignalPrograms,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    e: int,
    seed: np.uint64,
    episode: int,
) -> None:
    """Route, ego, signals and traffic of a new episode in environment e."""
    cars, paths = hidden.cars[e], hidden.paths[e]
    state.seed[e], state.episode[e], state.tick[e] = seed, episode, 0
    for i in range(len(cars)):
        car = cars[i]
        car.active, car.speed, car.acceleration, car.x, car.y, car.yaw = 0, 0.0, 0.0, 0.0, 0.0, 0.0
        car.s, car.gap, car.gap_speed, car.wait, car.waiting, car.indicator = 0.0, np.inf, 0.0, 0, 0, 0
        car.lateral, car.from_lane, car.narrow, car.siren = 0.0, -1, 0, 0
        car.blind, car.sideways, car.drift, car.stop, car.stood = 0, 0.0, 0.0, -1, 0
        paths[i, :] = -1
    _start_ego(graph, rules, playback, state, hidden, e)
    show_signals(programs, hidden.egos[e].shift_ms, state.signal[e])
    if len(playback.line) > 0:
        begin_playback(playback, cars, hidden.followers[e], state.paint[e], seed, episode)
        for i in range(1, len(cars)):
            state.yaw_rad[e, i] = cars[i].yaw
        return
    begin_scripts(graph, cars, paths, state.paint[e], hidden.scripts[e], hidden.script_paths[e], seed, episode)
    last, scene = len(cars) - hidden.walkers.shape[1], hidden.scenes[e]
    for i in range(1, 1 + _num_wanted(rules, last - 1)):
        if hidden.scripts[e, i].mode != UNSCRIPTED:
            continue
        spawn(
            graph, cars, paths[i], state.paint[e, i], np.int64(i), seed, episode, np.int64(state.tick[e]),
            0.0, rules.spawn_radius_m, RESET_GAP_M, rules.speed_factor_spread, rules.rule_breakers,
        )  # fmt: skip
        if cars[i].active == 1 and is_kept_clear(scene, cars[i].x, cars[i].y):
            cars[i].active = 0
    for n in range(_num_wanted(rules, hidden.walkers.shape[1])):
        spawn_walker(
            walk, cars, hidden.walkers[e, n], state.paint[e, last + n], last + n, seed, episode, np.int64(state.tick[e]),
            RESET_GAP_M, rules.spawn_radius_m,
        )  # fmt: skip
    for i in range(1, len(cars)):
        state.yaw_rad[e, i] = cars[i].yaw


@njit(**INNER)
def _tick(
    graph: LaneGraph,
    walk: WalkGraph,
    programs: SignalPrograms,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    e: int,
    steer: float,
    throttle: float,
) -> None:
    """Signals, decisions and five substeps of one tick of environment e."""
    cars, paths = hidden.cars[e], hidden.paths[e]
    seed, episode = state.seed[e], state.episode[e]
    state.tick[e] += 1
    now_ms = state.tick[e] * TICK_MS + hidden.egos[e].shift_ms
    show_signals(programs, now_ms, state.signal[e])
    show_signals(programs, now_ms - LATE_MS, hidden.late[e])
    if len(playback.line) > 0:
        play_tick(playback, cars, hidden.followers[e], state.yaw_rad[e], state.tick[e], state.yaw_rate_radps[e, 0])
        state.last_action[e, 0], state.last_action[e, 1] = steer, throttle
        _move_ego(rules.car[0], state, e, hidden.egos[e], cars[0], steer, throttle)
        return
    walkers, scripts, ego = hidden.walkers[e], hidden.scripts[e], hidden.egos[e]
    last = len(cars) - len(walkers)
    advance_scripts(cars, scripts, ego)
    _decide(
        graph, walk, walkers, cars, paths, hidden.claims[e], hidden.num_claims[e], hidden.spans[e], hidden.num_spans[e],
        state.signal[e], hidden.late[e], scripts, ego,
    )  # fmt: skip
    _change_lanes(graph, cars, paths, last, hidden.spans[e], hidden.num_spans[e], seed, episode, state.tick[e], scripts)
    move_walkers(graph, walk, cars, paths, walkers, state.signal[e], seed, episode)
    state.last_action[e, 0], state.last_action[e, 1] = steer, throttle
    _move_ego(rules.car[0], state, e, ego, cars[0], steer, throttle)
    _move_traffic(graph, cars, paths, last, seed, episode, scripts)
    _recycle(
        graph, walk, walkers, rules, cars, paths, state.paint[e], seed, episode, state.tick[e], scripts, hidden.scenes[e]
    )  # fmt: skip


@njit(**INNER)
def _run_env(
    graph: LaneGraph,
    walk: WalkGraph,
    programs: SignalPrograms,
    around: Surroundings,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    events: Events,
    view: View,
    e: int,
    starting: bool,
    seed: np.uint64,
    episode: int,
    steer: float,
    throttle: float,
) -> None:
    """Begin an episode of environment e, or drive it one tick on; then events and the driver's view."""
    if starting:
        _begin_episode(graph, walk, programs, rules, playback, state, hidden, e, seed, episode)
    else:
        _tick(graph, walk, programs, rules, playback, state, hidden, e, steer, throttle)
    _publish(state, hidden.cars[e], hidden.walkers.shape[1], e)
    was_at = hidden.egos[e].at
    _look(graph, walk, rules, state, hidden, view, e)
    _judge(graph, around, rules, playback, state, hidden, events, view, e, was_at)
    if starting:
        hidden.egos[e].still = 0


@njit(**UNLOCKED)
def run_world(
    k: int,
    which: NDArray[np.intp],
    graph: LaneGraph,
    walk: WalkGraph,
    programs: SignalPrograms,
    around: Surroundings,
    rules: Rules,
    playback: Playback,
    state: State,
    hidden: Hidden,
    events: Events,
    view: View,
    starting: bool,
    seed: NDArray[np.uint64],
    episode: NDArray[np.int64],
    actions: NDArray[np.float32],
) -> None:
    """Begin the given episodes (starting), or drive one tick on, in the environments `which`; for `threads.over_environments`.

    One kernel for both, because compiling it takes most of the time of a first start.
    """
    for e in which:
        _run_env(
            graph, walk, programs, around, rules, playback, state, hidden, events, view, e, starting, seed[e], episode[e],
            actions[e, 0], actions[e, 1],
        )  # fmt: skip
