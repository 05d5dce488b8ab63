"""Collisions of oriented boxes against OpenCV, and the ego's events where it is put on purpose."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perception.sensors import SemanticClass
from planning.policy import SignalState
from sim.events import CORNER_TOLERANCE_M, boxes_overlap, build_surroundings, collision_of, is_off_road
from sim.roads.driving_map import DrivingMap, GroundRaster
from sim.solids import Boxes, Material
from sim.traffic.vehicles import CAR
from sim.world import CollisionKind, World, WorldConfig

coordinate, angle, size = st.floats(-6, 6), st.floats(-7, 7), st.floats(0.3, 6)


@settings(max_examples=300, deadline=None)
@given(coordinate, coordinate, angle, size, size, angle, size, size)
def test_overlap_agrees_with_opencv(x, y, a_yaw, a_length, a_width, b_yaw, b_length, b_width):
    ours = boxes_overlap(0.0, 0.0, a_yaw, a_length, a_width, x, y, b_yaw, b_length, b_width)

    def overlap(grow):
        first = ((0.0, 0.0), (2 * a_length + grow, 2 * a_width + grow), float(np.degrees(a_yaw)))
        second = ((x, y), (2 * b_length, 2 * b_width), float(np.degrees(b_yaw)))
        kind, points = cv2.rotatedRectangleIntersection(first, second)
        return kind != cv2.INTERSECT_NONE and points is not None and cv2.contourArea(points) > 1e-4

    assume(overlap(0.02) == overlap(-0.02))  # leave out boxes that just touch
    assert ours == overlap(0.0)


def put_ego(world: World, x: float, y: float, yaw: float) -> None:
    world.state.x_m[0, 0], world.state.y_m[0, 0], world.state.yaw_rad[0, 0] = x, y, yaw
    world.state.speed_mps[0, 0] = 0.0
    world.step(np.array([[0.0, -1.0]], np.float32))


def alone(town: DrivingMap) -> World:
    return World(town, WorldConfig(agents=1, stuck_after_s=3.0), 1)


def boxes(center: list[float]) -> Boxes:
    """One post of 0.4 m x 0.4 m x 2 m."""
    return Boxes(
        np.array([center]),
        np.array([[0.2, 0.2, 1.0]]),
        np.array([0.3]),
        np.array([Material.CONCRETE], np.uint8),
        np.array([SemanticClass.BARRIER], np.uint8),
        np.array([1_000_000], np.int32),
        np.zeros((1, 3), np.uint8),
        np.zeros(1, np.uint8),
    )


def test_nothing_happens_to_an_ego_that_stands_on_its_lane(town):
    world = alone(town)
    put_ego(world, *world.route_line(0)[0])
    events = world.events
    assert events.collision[0] == CollisionKind.NONE
    for flag in (events.red_light, events.off_road, events.off_route, events.wrong_way, events.stuck, events.arrived):
        assert flag[0] == 0
    assert abs(events.lateral_m[0]) < 1e-6


def test_wrong_way_off_route_and_off_road(town):
    world = alone(town)
    x, y, yaw = world.route_line(0)[5]
    put_ego(world, x, y, yaw + np.pi)
    assert world.events.wrong_way[0] == 1
    put_ego(world, x - 2.0 * np.sin(yaw), y + 2.0 * np.cos(yaw), yaw)
    assert world.events.lateral_m[0] == pytest.approx(2.0, abs=0.05)
    put_ego(world, x + 31.0 * np.sin(yaw), y - 31.0 * np.cos(yaw), yaw)
    assert world.events.off_route[0] == 1
    put_ego(world, town.ground.origin[0] + 1.0, town.ground.origin[1] + 1.0, 0.0)
    assert world.events.off_road[0] == 1


@pytest.mark.parametrize(("back_m", "off"), [(10.0, 0), (25.0, 0), (35.0, 1), (800.0, 1)])
def test_whoever_drives_away_from_the_beginning_is_off_the_route(town, back_m, off):
    world = World(town, WorldConfig(agents=1, replan=False), 1)
    x, y, yaw = world.route_line(0)[0]
    put_ego(world, x - back_m * np.cos(yaw), y - back_m * np.sin(yaw), yaw + np.pi)
    assert world.events.off_route[0] == off


def test_a_vehicle_counts_before_people_and_these_before_things(town):
    around = build_surroundings(town.ground, boxes([0.0, 0.0, 1.0]))
    cars = np.zeros(4, CAR)
    cars["length"], cars["width"], cars["active"], cars["kind"] = 4.0, 2.0, [1, 0, 0, 0], [0, 7, 6, 1]
    found = []
    for j in range(4):
        cars["active"][j] = 1
        found.append(CollisionKind(collision_of(cars, around)))
    kind = CollisionKind
    assert found == [kind.STATIC, kind.STATIC, kind.PEDESTRIAN, kind.VEHICLE]


def test_a_stop_sign_counts_however_short_its_lane_is(town):
    world = alone(town)
    world.reset(np.ones(1, np.bool_), np.zeros(1, np.uint64), np.zeros(1, np.int64))
    egos, run = world._hidden.egos, world._run
    at = int(egos["at"][0])

    def three_lanes_on(*args):
        run(*args)
        egos["at"][0] = at + 3

    world._run = three_lanes_on
    for sign in range(5):
        egos["at"][0] = at
        world._stop_sign[:] = False
        world._stop_sign[world._hidden.route_lane[0, at + sign]] = True
        world.step(np.zeros((1, 2), np.float32))
        assert world.ran_stop_sign[0] == (1 <= sign <= 3)


def test_arrives_at_the_end_of_the_route(town):
    world = alone(town)
    for x, y, yaw in world.route_line(0)[:-4:4]:
        assert world.events.arrived[0] == 0
        put_ego(world, x, y, yaw)
    put_ego(world, *world.route_line(0)[-1])
    assert world.events.arrived[0] == 1
    assert world.events.progress_m[0] == pytest.approx(world.events.route_length_m[0], abs=2.5)


def test_off_road_begins_where_a_corner_leaves_the_drivable_ground():
    drivable = np.ones((400, 400), np.uint8)
    drivable[:, 300:] = 0
    around = build_surroundings(
        GroundRaster(drivable, drivable, np.zeros(2), 0.1, np.zeros_like(drivable)), boxes([0.0, 0.0, 1.0])
    )
    me = np.zeros(1, CAR)
    me["length"], me["width"], me["y"] = 4.0, 2.0, 20.0
    edge = 30.0 - 2.0 + CORNER_TOLERANCE_M
    for x, off in [(edge - 0.05, False), (edge + 0.05, True), (500.0, True)]:
        me["x"] = x
        assert is_off_road(me[0], around) == off


@pytest.mark.parametrize(("bottom", "expected"), [(0.0, CollisionKind.STATIC), (4.0, CollisionKind.NONE)])
def test_static_solids_are_hit_below_and_passed_above(town, bottom, expected):
    x, y, yaw = alone(town).route_line(0)[3]
    world = alone(DrivingMap(**{**town.__dict__, "scenery": boxes([x, y, bottom + 1.0])}))
    put_ego(world, x, y, yaw)
    assert world.events.collision[0] == expected


def test_red_light_is_an_event_where_the_front_or_only_the_tail_passes_the_line_at_red(town):
    """Egos follow their routes whatever lights show; every second one waits for red once its front is over a line before red."""
    world = World(town, WorldConfig(agents=1), 12)
    world.reset(np.ones(12, bool), np.arange(12, dtype=np.uint64), np.zeros(12, np.int64))
    lines = [world.route_line(e) for e in range(12)]
    seen, last, front_at_red, waits = set(), [(-1, 0.0)] * 12, [False] * 12, [False] * 12
    for _ in range(500):
        for e in range(12):
            at = min(int(world.events.progress_m[e]) + 1, len(lines[e]) - 1)
            if not waits[e]:
                world.state.x_m[e, 0], world.state.y_m[e, 0], world.state.yaw_rad[e, 0] = lines[e][at]
            world.state.speed_mps[e, 0] = 0.0
        world.step(np.tile(np.array([0.0, -1.0], np.float32), (12, 1)))
        for e in range(12):
            standing = world.standing(e)
            link, distance, length = standing.signal, standing.signal_distance_m, standing.length_m
            before = last[e][1] if link == last[e][0] else np.inf
            last[e] = link, distance if distance is not None else np.inf
            if distance is None:
                assert not world.events.red_light[e]
                continue
            red = world.state.signal[e, link] == SignalState.RED
            front, tail = before > 0 >= distance, before > -length >= distance
            if front:
                front_at_red[e] = red
            waits[e] = e % 2 == 1 and not red and -length < distance <= 0
            seen.add((front, tail, bool(red), front_at_red[e] and tail))
            assert world.events.red_light[e] == (red and (front or (tail and not front_at_red[e])))
    assert {
        (True, False, True, False),
        (True, False, False, False),
        (False, True, True, True),
        (False, True, True, False),
    } <= seen


def test_standing_without_a_reason_becomes_stuck(town):
    world = alone(town)
    ticks = 0
    while not world.events.stuck[0] and ticks < 60:
        world.step(np.array([[0.0, -1.0]], np.float32))
        ticks += 1
    assert ticks == 30
