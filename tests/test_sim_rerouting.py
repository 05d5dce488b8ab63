"""Egos that leave their route are led to the same goal anew, and progress stays honest."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from planning.route_follower import RouteFollower
from sim.drive_batch import DriveBatch, EnvConfig
from sim.episode import run_episodes
from sim.rerouting import AGAINST, CORRIDOR_M
from sim.route_planning import shortest_route
from sim.world import World, WorldConfig

STRIDE_M = 2
SEEDS = np.arange(10)


def begin(town, seeds=SEEDS, **config) -> World:
    world = World(town, WorldConfig(agents=1, **config), len(seeds))
    world.reset(np.ones(len(seeds), bool), np.asarray(seeds, np.uint64), np.zeros(len(seeds), np.int64))
    return world


def lanes_of(world: World, e: int) -> np.ndarray:
    return world._hidden.route_lane[e, : world._hidden.egos[e]["lanes"]].copy()


def points_of(world: World, lane: int) -> np.ndarray:
    """(P, 3) x, y, yaw of a lane, about a metre apart."""
    graph = world._fixed[0]
    record = graph.lanes[lane]
    points = graph.points[record["point"] : record["point"] + record["points"]]
    return np.column_stack([points["x"], points["y"], points["yaw"]])


def wrong_way_on(world: World, e: int, beyond_m: int) -> np.ndarray:
    """Poses along the route to its first junction with a choice, and past it on another way, `beyond_m` of them there."""
    graph, lanes = world._fixed[0], lanes_of(world, e)
    poses = [points_of(world, lanes[0])[int(-world._hidden.route_from[e, 0]) :]]
    for before, lane in pairwise(lanes):
        onward = graph.onward[graph.lanes[before]["next"] : graph.lanes[before]["next_end"]]
        others = onward[onward != lane]
        if len(others):
            after = int(graph.onward[graph.lanes[others[0]]["next"]])
            away = np.concatenate([points_of(world, int(others[0])), points_of(world, after)])[:beyond_m]
            return np.concatenate([*poses, away])[::STRIDE_M]
        poses.append(points_of(world, lane))
    raise AssertionError("the route has no junction with a choice")


@dataclass
class Told:
    """What was seen of E egos at every tick, (T, E) each, and the goal (E, 2) at the beginning."""

    progress: np.ndarray
    length: np.ndarray
    driven: np.ndarray
    replans: np.ndarray
    off_route: np.ndarray
    arrived: np.ndarray
    goal: np.ndarray


def stray(world: World, beyond_m: int = 30, then_ticks: int = 0) -> Told:
    """Carry every ego past its turn, then let the expert drive."""
    count, driver = world.num_envs, RouteFollower()
    paths = [wrong_way_on(world, e, beyond_m) for e in range(count)]
    goal = np.array([world.route_line(e)[-1, :2] for e in range(count)])
    rows, events, state = [], world.events, world.state
    at = np.column_stack([state.x_m[:, 0], state.y_m[:, 0]])
    driven = np.zeros(count)
    done = np.zeros(count, bool)
    for tick in range(max(map(len, paths)) + then_ticks):
        carried = np.array([tick < len(path) for path in paths])
        actions = driver.act({}, world.situation())
        for e in np.flatnonzero(carried):
            state.x_m[e, 0], state.y_m[e, 0], state.yaw_rad[e, 0] = paths[e][tick]
            state.speed_mps[e, 0] = 0.0
        actions[carried] = [0.0, -1.0]
        world.step(actions)
        now = np.column_stack([state.x_m[:, 0], state.y_m[:, 0]])
        driven, at = driven + np.hypot(*(now - at).T), now
        done |= events.arrived != 0
        row = (events.progress_m, events.route_length_m, driven, events.replans, events.off_route, done)
        rows.append([np.array(values) for values in row])
        if done.all():
            break
    return Told(*(np.array(values) for values in zip(*rows, strict=True)), goal=goal)


@pytest.fixture(scope="module")
def told(town) -> Told:
    return stray(begin(town), then_ticks=2500)


def test_who_missed_a_turn_gets_another_route_and_arrives(told):
    assert (told.replans[-1] >= 1).all()
    assert (told.off_route[~told.arrived] == 0).all()
    assert told.arrived[-1].all()


def test_progress_never_falls_and_never_exceeds_what_was_driven(told):
    until = np.where(told.arrived, np.nan, 1.0)
    step = np.diff(told.progress * until, axis=0)
    moved = np.diff(told.driven, axis=0)
    assert np.nanmin(step) >= 0.0
    assert np.nanmax(step - moved) < 1.5  # corners of the centre line, and the noise of projecting onto it
    assert np.nanmax((told.progress - told.driven) * until) < 3.0
    assert (told.length == told.length[0]).all()
    assert (told.progress <= told.length).all()


def test_the_new_route_is_the_shortest_to_the_same_goal(town):
    world = begin(town)
    first = [world._hidden.egos[e]["length"] - world._hidden.route_from[e] for e in SEEDS]
    ends = [int(np.flatnonzero(first[e][: len(lanes_of(world, e))] >= 0.0)[-1]) for e in SEEDS]
    goals = [(int(lanes_of(world, e)[ends[e]]), float(first[e][ends[e]])) for e in SEEDS]
    told, graph = stray(world), world._fixed[0]
    assert (told.replans[-1] >= 1).all()
    for e in SEEDS:
        lanes, begins = lanes_of(world, e), world._hidden.route_from[e]
        goal, goal_m = goals[e]
        expected = shortest_route(graph, int(lanes[0]), goal, max(float(-begins[0]), 0.0), goal_m)
        assert tuple(lanes[: len(expected.lanes)]) == expected.lanes
        assert world._hidden.egos[e]["length"] == pytest.approx(expected.length_m)
        line = world.route_line(e)[:, :2]
        assert np.hypot(*(line[-1] - told.goal[e])) < 2.0
        assert np.hypot(*np.diff(line, axis=0).T).max() < 1.6


def test_without_replanning_the_same_egos_are_off_route(town):
    told = stray(begin(town, replan=False), beyond_m=75)
    assert (told.replans == 0).all()
    assert told.off_route.any(axis=0).mean() > 0.5


def test_far_from_every_lane_an_ego_is_off_route_and_within_the_corridor_nothing_is_planned(town):
    world = begin(town, seeds=[0])
    x, y, yaw = world.route_line(0)[8]
    for aside, turned in [(0.5 * CORRIDOR_M, 0.0), (-0.9 * CORRIDOR_M, 0.0), (31.0, 0.0), (31.0, 0.0)]:
        assert world.events.replans[0] == 0
        world.state.x_m[0, 0], world.state.y_m[0, 0] = x - aside * np.sin(yaw), y + aside * np.cos(yaw)
        world.state.yaw_rad[0, 0], world.state.speed_mps[0, 0] = yaw + turned, 0.0
        world.step(np.array([[0.0, -1.0]], np.float32))
    graph = world._fixed[0]
    nearest = np.hypot(graph.points["x"] - world.state.x_m[0, 0], graph.points["y"] - world.state.y_m[0, 0]).min()
    assert nearest > 4.0
    assert world.events.replans[0] == 0
    assert world.events.off_route[0] == 1


def test_one_environment_equals_a_slot_of_many(town):
    batch, alone = begin(town), begin(town, seeds=SEEDS[4:5])
    many, one = stray(batch, then_ticks=100), stray(alone, then_ticks=100)
    ticks = min(len(many.progress), len(one.progress))
    for name in ("progress", "length", "replans", "off_route"):
        np.testing.assert_array_equal(getattr(many, name)[:ticks, 4], getattr(one, name)[:ticks, 0])
    assert many.replans[ticks - 1, 4] >= 1


def test_shortest_routes_lead_to_the_goals_of_random_ones(town):
    lengths = {"route_min_m": 800.0, "route_max_m": 1200.0}
    random, shortest = begin(town, **lengths), begin(town, route="shortest", **lengths)
    assert (shortest.events.route_length_m <= random.events.route_length_m + 1e-6).all()
    assert (shortest.events.route_length_m < random.events.route_length_m - 50.0).any()
    for e in SEEDS:
        np.testing.assert_array_equal(shortest.route_line(e)[0], random.route_line(e)[0])
        assert np.hypot(*(shortest.route_line(e)[-1] - random.route_line(e)[-1])[:2]) < 2.0


def test_snapshots_know_who_is_lost(town):
    """A route is planned anew one tick after it was left, whatever lies between."""
    world = begin(town, seeds=SEEDS[:3])
    poses = [wrong_way_on(world, e, 30)[-1] for e in range(3)]
    state, before = world.state, world.events.replans.copy()
    state.x_m[:, 0], state.y_m[:, 0], state.yaw_rad[:, 0] = np.array(poses).T
    stand = np.tile(np.array([[0.0, -1.0]], np.float32), (3, 1))
    world.step(stand)
    assert (world.events.replans == before).all()
    snapshot = world.snapshot()
    world.step(stand)
    after = world.snapshot()
    assert (world.events.replans > before).any()
    world.restore(snapshot)
    world.step(stand)
    for name, array in world.snapshot().arrays.items():
        np.testing.assert_array_equal(array, after.arrays[name], err_msg=name)


def test_scenarios_are_about_their_own_path():
    batch = DriveBatch(EnvConfig.of(scenario="cut_in", observation="privileged"), 1)
    batch.reset(np.ones(1, bool), np.zeros(1, np.uint64), np.zeros(1, np.int64))
    world, lanes = batch.world, lanes_of(batch.world, 0)
    for x, y, yaw in world.route_line(0)[12:4:-2]:
        world.state.x_m[0, 0], world.state.y_m[0, 0], world.state.yaw_rad[0, 0] = x, y, yaw + np.pi
        world.step(np.array([[0.0, -1.0]], np.float32))
    assert np.cos(world._hidden.egos["heading"][0]) < AGAINST
    assert world.events.replans[0] == 0
    np.testing.assert_array_equal(lanes_of(world, 0), lanes)


def test_results_of_episodes_count_replannings(town):
    config = EnvConfig.of(observation="privileged", world=WorldConfig(agents=1), max_steps=100, end_on_infraction=False)
    batch = DriveBatch(config, 1, town)

    class Stray:
        """Takes the wrong turn, then stands."""

        def __init__(self):
            self.poses = iter(())

        def reset(self, started):
            self.poses = iter(wrong_way_on(batch.world, 0, 30))

        def act(self, observation, situation):
            state, pose = batch.world.state, next(self.poses, None)
            if pose is not None:
                state.x_m[0, 0], state.y_m[0, 0], state.yaw_rad[0, 0] = pose
            return np.array([[0.0, -1.0]], np.float32)

    results, _ = run_episodes(batch, Stray(), [3])
    assert results[0].replans == batch.world.events.replans[0] > 0
    assert "off_route" not in results[0].infractions
