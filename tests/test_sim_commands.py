"""Navigation commands: against SUMO's own word for each turn, in the mirror, and along a route."""

import numpy as np
import pytest
from numba import njit

from planning.policy import NavigationCommand
from planning.route_follower import RouteFollower
from sim.commands import STRAIGHT_RAD, next_command, turn_of
from sim.env import DriveEnv, DriveVectorEnv
from sim.lane_graph import LaneGraph, build_lane_graph
from sim.roads.driving_map import load_map
from sim.roads.left_hand import mirrored_network
from sim.route_planning import lane_begins
from sim.routes import EGO
from sim.world import World, WorldConfig

FRONT_M = 2.3
MIRRORED = {
    NavigationCommand.LEFT: NavigationCommand.RIGHT,
    NavigationCommand.RIGHT: NavigationCommand.LEFT,
    NavigationCommand.CHANGE_LANE_LEFT: NavigationCommand.CHANGE_LANE_RIGHT,
    NavigationCommand.CHANGE_LANE_RIGHT: NavigationCommand.CHANGE_LANE_LEFT,
}


@njit
def _ask(graph, egos, lanes, begins, out):
    lane_begins(graph, lanes, len(lanes), -begins[0], begins)
    egos[0].length = begins[len(lanes) - 1] + graph.lanes[lanes[len(lanes) - 1]].length
    command, distance = next_command(graph, egos[0], lanes, begins)
    out[0], out[1] = command, distance


def asked(graph: LaneGraph, lanes: list[int], s: float) -> tuple[NavigationCommand, float]:
    """The command of an ego at s of the first of these lanes."""
    egos, begins, out = np.zeros(1, EGO), np.zeros(len(lanes)), np.zeros(2)
    egos["lanes"], egos["front"] = len(lanes), FRONT_M
    begins[0] = -s
    _ask(graph, egos, np.array(lanes, np.int32), begins, out)
    return NavigationCommand(int(out[0])), float(out[1])


@pytest.fixture(scope="module", params=["grid-small", "town:3"])
def network(request):
    return load_map(request.param).network


def through_junctions(graph: LaneGraph) -> list[tuple[int, int, int]]:
    lanes = graph.lanes
    ways = [
        (int(before), int(lane), int(graph.onward[lanes[lane]["next"]]))
        for before in graph.start_lanes
        for lane in graph.onward[lanes[before]["next"] : lanes[before]["next_end"]]
        if lanes[lane]["junction"] >= 0
    ]
    assert len(ways) > 50
    return ways


def test_turns_agree_with_sumo(network):
    """SUMO names a turn by comparing it with the others of its junction; where it is sharp, that can be no other word."""
    graph, words = build_lane_graph(network), set()
    by_sumo = {1: NavigationCommand.LEFT, -1: NavigationCommand.RIGHT}
    for way in through_junctions(graph):
        command, distance = asked(graph, list(way), 5.0)
        turn, word = turn_of(graph, np.int64(way[1])), int(graph.lanes[way[1]]["turn"])
        if command == NavigationCommand.LANE_FOLLOW:
            continue
        words.add(command)
        assert distance == pytest.approx(graph.lanes[way[0]]["length"] - 5.0 - FRONT_M)
        if word in by_sumo and abs(turn) > 2 * STRAIGHT_RAD:
            assert command == by_sumo[word]
        if word == 0 and abs(turn) < 0.5 * STRAIGHT_RAD:
            assert command == NavigationCommand.STRAIGHT
    assert words == {NavigationCommand.LEFT, NavigationCommand.RIGHT, NavigationCommand.STRAIGHT}


def test_commands_mirror_with_the_map(network):
    graph, mirror = build_lane_graph(network), build_lane_graph(mirrored_network(network))
    ways = [list(way) for way in through_junctions(graph)]
    ways += [[int(k), int(graph.lanes[k]["left"])] for k in graph.start_lanes if graph.lanes[k]["left"] >= 0]
    ways += [[int(k), int(graph.lanes[k]["right"])] for k in graph.start_lanes if graph.lanes[k]["right"] >= 0]
    commands = set()
    for way in ways:
        (command, distance), (other, its) = asked(graph, way, 5.0), asked(mirror, way, 5.0)
        assert other == MIRRORED.get(command, command)
        assert its == pytest.approx(distance)
        commands.add(command)
    assert commands == set(NavigationCommand)


def test_along_a_route_the_distance_shrinks_by_what_is_driven_and_commands_come_in_order(town):
    world, driver = World(town, WorldConfig(agents=1), 4), RouteFollower()
    world.reset(np.ones(4, bool), np.arange(4, dtype=np.uint64), np.zeros(4, np.int64))
    situation, seen = world.situation(), [set() for _ in range(4)]
    for _ in range(900):
        before, left = situation.command_distance_m.copy(), situation.goal_distance_m.copy()
        command = situation.command.copy()
        world.step(driver.act({}, situation))
        driven = left - situation.goal_distance_m
        same = (situation.command == command) & (before > 0.0) & (situation.command_distance_m <= before)
        shrunk = (before - situation.command_distance_m)[same & (situation.command_distance_m > 0.0)]
        np.testing.assert_allclose(shrunk, driven[same & (situation.command_distance_m > 0.0)], atol=0.05)
        for e in range(4):
            seen[e].add(NavigationCommand(int(situation.command[e])))
        follow = situation.command == NavigationCommand.LANE_FOLLOW
        np.testing.assert_allclose(
            situation.command_distance_m[follow], np.maximum(situation.goal_distance_m[follow], 0)
        )
        if world.events.arrived.all():
            break
    assert {NavigationCommand.LEFT, NavigationCommand.RIGHT} <= set().union(*seen)


def test_info_says_it_in_single_and_vector_environments():
    options = {"observation": "privileged", "world": {"agents": 2, "walker_share": 0.0}, "max_steps": 12}
    single, many = DriveEnv(**options), DriveVectorEnv(3, **options)
    _, info = single.reset(seed=1)
    _, infos = many.reset(seed=0)
    space = single.observation_space
    for _ in range(12):
        assert isinstance(info["command"], NavigationCommand)
        assert infos["command"].shape == infos["command_distance_m"].shape == infos["replans"].shape == (3,)
        assert infos["command"][1] == info["command"]
        assert infos["command_distance_m"][1] == info["command_distance_m"]
        assert info["replans"] == infos["replans"][1] == 0
        *_, info = single.step(np.array([0.0, 0.4], np.float32))
        *_, infos = many.step(np.tile(np.array([0.0, 0.4], np.float32), (3, 1)))
    _, info = single.reset()  # the batch has gone on to its next episode by itself
    assert infos["_final_info"].all()
    assert infos["command_distance_m"][1] == info["command_distance_m"]
    assert infos["final_info"]["replans"].tolist() == [0, 0, 0]
    assert single.observation_space == space
