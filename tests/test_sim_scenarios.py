"""Scenarios: where they take place, that they are the same bytes in any slot, that triggers fire, and that checks can fail."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from planning.blind import BlindDriver
from planning.constant import IDLE
from planning.route_follower import RouteFollower
from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.dynamics import VehiclePreset, vehicle_of
from sim.episode import EpisodeResult, run_episodes
from sim.roads.driving_map import DrivingMap, load_map
from sim.roads.network import LaneKind
from sim.scenarios.catalogue import NAMES, Scenario, describe, family_of
from sim.scenarios.checks import EVERYWHERE, Trace, gap_to
from sim.scenarios.draws import Draws, bounds_of, draw_parameters
from sim.scenarios.mixture import Mixture
from sim.scenarios.places import Places
from sim.world import ActorKind, WorldConfig, num_walkers

STAGED = tuple(name for name in NAMES if name != "free_drive")
SEEDS = range(20)


def own_map(name: str) -> DrivingMap:
    return load_map(family_of(name).maps[0])


def batch_of(name: str, envs: int) -> DriveBatch:
    return DriveBatch(EnvConfig.of(scenario=name, observation="privileged"), envs)


def start(batch: DriveBatch, seeds) -> None:
    batch.reset(np.ones(len(seeds), np.bool_), np.asarray(seeds, np.uint64), np.zeros(len(seeds), np.int64))


@pytest.mark.parametrize(
    ("name", "parameter", "actors"),
    [
        ("traffic_jam", "vehicles", ""), ("merge", "vehicles", "priority"), ("unprotected_left", "vehicles", "priority"),
        ("priority_junction", "vehicles", "priority"), ("blocked_lane", "oncoming", "oncoming"),
        ("road_works", "oncoming", "oncoming"), ("cyclist_overtaken", "oncoming", "oncoming"),
    ],
)  # fmt: skip
def test_as_many_vehicles_are_reported_as_there_are(name: str, parameter: str, actors: str) -> None:
    """Lanes may be too short for as many vehicles as are drawn."""
    scenario = Scenario(name, own_map(name), WorldConfig())
    short = 0
    for seed in range(80):
        drawn = draw_parameters(scenario.family.parameters, Draws(seed, 0, scenario.family.number))
        placed = sum(actor.name.startswith(actors) or not actors for actor in scenario.place(seed, 0).actors)
        assert scenario.parameters(seed, 0) == drawn.model_copy(update={parameter: placed})
        short += placed < drawn.model_dump()[parameter]
    assert 0 < short < 40


@pytest.mark.parametrize("name", STAGED)
def test_the_start_is_reported_as_it_is(name: str) -> None:
    """Speed of the ego, and the time to whoever is in front."""
    driving_map = own_map(name)
    scenario = Scenario(name, driving_map, WorldConfig())
    for seed in range(40):
        placement, told = scenario.place(seed, 0), scenario.parameters(seed, 0).model_dump()
        limit = driving_map.network.lane_limit_mps[placement.lanes[0]]
        assert told["start_share"] * limit == pytest.approx(placement.speed_mps, rel=1e-3)
        if "headway_s" in told:
            assert told["headway_s"] * placement.speed_mps > 8.99  # nobody stands nearer than 9 m


@pytest.mark.parametrize("name", ["following", "hard_brake", "cut_in", "cut_out", "traffic_jam", "cyclist_overtaken"])
def test_whoever_is_in_front_begins_as_far_from_any_ego(name: str) -> None:
    """Distances are between bumpers, however long the ego is; its centre begins at the same place."""
    bumpers, driving_map = [], own_map(name)
    for vehicle in get_args(VehiclePreset):
        placement = Scenario(name, driving_map, WorldConfig(vehicle=vehicle)).place(1, 0)
        ahead = next(actor for actor in placement.actors if actor.path)
        bumpers.append(ahead.s_m - placement.offset_m - 0.5 * vehicle_of(vehicle, "kinematic").length)
    assert bumpers == pytest.approx([bumpers[0]] * 4)


def test_the_exit_of_a_roundabout_is_reported_as_it_is() -> None:
    """Some ways into the ring of this town are one-way streets: there the ring has no exit."""
    scenario = Scenario("roundabout", own_map("roundabout"), WorldConfig())
    places, other = Places(own_map("roundabout").network, own_map("roundabout").scenery), 0
    for seed in range(40):
        placement = scenario.place(seed, 0)
        roads, taken = placement.lanes[2::2], 0  # between them lie the junctions of the ring
        for k in takewhile(places.rings.__contains__, roads):
            taken += len(places.successors(k)) > 1
        drawn = draw_parameters(scenario.family.parameters, Draws(seed, 0, scenario.family.number))
        assert scenario.parameters(seed, 0) == drawn.model_copy(update={"exits": taken})
        other += drawn.model_dump()["exits"] != taken
    assert 0 < other < 20


@pytest.mark.parametrize("name", STAGED)
def test_every_family_has_a_place_for_twenty_seeds(name: str) -> None:
    driving_map = own_map(name)
    network = driving_map.network
    scenario = Scenario(name, driving_map, WorldConfig())
    seen = set()
    for seed in SEEDS:
        placement = scenario.place(seed, 0)
        assert placement == scenario.place(seed, 0)
        seen.add((placement.lanes[0], placement.speed_mps))
        assert len(placement.actors) <= scenario.family.actors
        for lane, onward in zip(placement.lanes, placement.lanes[1:], strict=False):
            row = network.successor[network.successor_start[lane] : network.successor_start[lane + 1]]
            assert onward in row
        assert (network.lane_kind[list(placement.lanes)] == LaneKind.DRIVING).all()
        ends = np.cumsum(network.lane_length_m[list(placement.lanes)])
        goal = placement.offset_m + placement.length_m
        assert network.lane_junction[placement.lanes[int(np.searchsorted(ends, goal))]] < 0, "the goal is in a junction"
        assert ends[-1] > goal
        for actor in placement.actors:
            if actor.path:
                assert 0.0 < actor.s_m <= network.lane_length_m[actor.path[0]] + 1e-6, actor.name
    assert len(seen) >= 15, "seeds hardly differ"


@pytest.mark.parametrize("name", STAGED)
def test_nobody_overlaps_at_the_start_and_everybody_is_where_the_script_says(name: str) -> None:
    batch = batch_of(name, 4)
    start(batch, [3, 4, 5, 6])
    state = batch.world.state
    for e in range(4):
        placement = batch.world.placements[e]
        assert placement is not None
        columns = len(placement.actors) + 1
        assert batch.world.events.collision[e] == 0
        assert state.speed_mps[e, 0] == pytest.approx(placement.speed_mps)
        assert batch.world.events.route_length_m[e] == pytest.approx(placement.length_m)
        for k, actor in enumerate(placement.actors, start=1):
            assert state.active[e, k] == 1
            assert state.kind[e, k] == actor.kind
            if not actor.path:
                assert (state.x_m[e, k], state.y_m[e, k]) == (actor.x_m, actor.y_m)
        trace = trace_of(
            np.stack([state.x_m[e, :columns], state.y_m[e, :columns]], axis=-1)[None],
            state.yaw_rad[e : e + 1, :columns], state.length_m[e, :columns], state.width_m[e, :columns],
        )  # fmt: skip
        assert all(gap_to(trace, k).min() > 0.5 for k in range(1, columns))


def test_no_place_of_an_actor_is_given_to_somebody_on_foot() -> None:
    """With as few agents as are allowed, and with others than actors on foot."""
    driving_map = own_map("road_works")
    fewest = {"agents": 16, "walker_share": 0.25}
    assert num_walkers(driving_map, WorldConfig(**fewest)) == 4
    with pytest.raises(ConfigError, match="a smaller env"):
        Scenario("road_works", driving_map, WorldConfig(agents=16, walker_share=0.4))
    assert "road_works" not in Mixture(driving_map, WorldConfig(agents=15), 1.0).names
    batch = DriveBatch(EnvConfig.of(scenario="road_works", observation="privileged", world=fewest), 8)
    start(batch, range(8))
    for e, placement in enumerate(batch.world.placements):
        assert placement is not None
        assert batch.world.state.kind[e, 1 : len(placement.actors) + 1].tolist() == [a.kind for a in placement.actors]
    assert (batch.world.state.kind[:, 12:] == ActorKind.PEDESTRIAN).any()


@pytest.mark.parametrize("name", ["cut_in", "blocked_lane", "roundabout", "pedestrian_crossing", "emergency_vehicle"])
def test_an_episode_is_the_same_in_any_slot(name: str) -> None:
    many, one = batch_of(name, 5), batch_of(name, 1)
    start(many, [11, 12, 13, 14, 15])
    start(one, [14])
    driver = RouteFollower()
    for _ in range(120):
        for field in ("x_m", "y_m", "yaw_rad", "speed_mps", "active", "kind", "paint", "signal"):
            assert getattr(many.world.state, field)[3].tobytes() == getattr(one.world.state, field)[0].tobytes(), field
        assert many.observation["privileged"][3].tobytes() == one.observation["privileged"][0].tobytes()
        many.step(driver.act({}, many.situation))
        one.step(driver.act({}, one.situation))


def drive(name: str, policy, seeds=range(6)) -> list[EpisodeResult]:
    return run_episodes(batch_of(name, len(seeds)), policy, list(seeds))[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGED)
def test_the_expert_gets_through_what_the_blind_do_not(name: str) -> None:
    seen, blind = drive(name, RouteFollower()), drive(name, BlindDriver())
    assert all(result.triggered for result in seen)
    assert sum(result.success for result in seen) >= 5, [r.details for r in seen]
    if name != "red_light":  # whose signal the blind driver sees
        assert sum(result.success for result in blind) <= 3, "harmless"
    assert all(set(r.checks) == {c.name for c in family_of(name).checks} for r in seen)


def test_who_stands_arrives_nowhere_and_its_checks_say_so() -> None:
    batch = DriveBatch(EnvConfig.of(scenario="following", observation="privileged", max_steps=60), 2)
    for result in run_episodes(batch, IDLE, [0, 1])[0]:
        assert not result.success
        assert result.checks["no_collision"]
        assert not result.checks["arrived"]


def test_triggers_wait_for_the_ego() -> None:
    """Somebody steps out when the ego comes, not before, and never if it does not come."""
    batch = batch_of("occluded_pedestrian", 2)
    start(batch, [0, 1])
    stopping = np.array([[0.0, -1.0], [0.0, 0.3]], np.float32)
    before = batch.world.state.y_m.copy()
    for _ in range(80):
        batch.step(stopping)
        stages = batch.world.stages()
        if stages[1, 2] == 0:
            assert batch.world.state.speed_mps[1, 2] == 0.0
    assert stages[0, 2] == 0
    assert batch.world.state.y_m[0, 2] == before[0, 2]
    assert stages[1, 2] == 1


def test_what_stands_never_moves() -> None:
    batch = batch_of("road_works", 3)
    start(batch, [0, 1, 2])
    state, driver = batch.world.state, RouteFollower()
    kinds = state.kind.copy()
    still = np.isin(kinds, [ActorKind.BARRIER, ActorKind.CONE]) & (state.active == 1)
    assert still.any(axis=1).all()
    x, y = state.x_m[still].copy(), state.y_m[still].copy()
    for _ in range(100):
        batch.step(driver.act({}, batch.situation))
    assert (state.x_m[still] == x).all()
    assert (state.y_m[still] == y).all()


def test_a_board_is_hit_like_something_that_stands() -> None:
    results = drive("road_works", BlindDriver(), range(3))
    assert {kind for r in results for kind in r.infractions if kind.startswith("collision")} == {"collision_static"}


def test_the_oncoming_lane_is_open_only_beside_what_blocks_the_own() -> None:
    batch = batch_of("blocked_lane", 1)
    start(batch, [0])
    placement, driver, world = batch.world.placements[0], RouteFollower(), batch.world
    assert placement is not None
    lateral, excused = [], []
    while not batch.terminated[0] and world.state.tick[0] < 1000:
        batch.step(driver.act({}, batch.situation))
        lateral.append(float(world.events.lateral_m[0]))
        excused.append(placement.cross[0] <= world.events.progress_m[0] <= placement.cross[1])
        assert world.events.wrong_way[0] == 0
    assert world.events.arrived[0]
    assert max(lateral) > 1.5
    assert max(x for x, inside in zip(lateral, excused, strict=True) if not inside) < 1.0


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_within_their_bounds_and_are_refused_outside(name: str) -> None:
    model = family_of(name).parameters
    drawn = [draw_parameters(model, Draws(seed, 0, family_of(name).number)) for seed in range(50)]
    for key in model.model_fields:
        low, high = bounds_of(model, key)
        values = [getattr(p, key) for p in drawn]
        assert low <= min(values) <= max(values) <= high
        assert len(set(values)) > 1
        with pytest.raises(ValidationError):
            model(**{**drawn[0].model_dump(), key: high + 1})
    assert [p["name"] for p in describe(name)["parameters"]] == list(model.model_fields)


def test_families_share_no_random_numbers() -> None:
    assert len({family_of(name).number for name in NAMES}) == len(NAMES)


def test_wrong_names_and_maps_are_said_in_one_line(town: DrivingMap) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cut_in'"):
        family_of("cutin")
    with pytest.raises(ConfigError, match=r"no place for scenario 'roundabout'; towns that do: radial, town"):
        Scenario("roundabout", town, WorldConfig())
    with pytest.raises(
        ConfigError, match=r"needs 11 agents beside .*agents = 12 there are 8; give more, or .*walker_share"
    ):
        Scenario("road_works", load_map("town"), WorldConfig(agents=12))
    mirrored = replace(town, network=replace(town.network, left_hand=True))
    with pytest.raises(ConfigError, match="right-hand traffic"):
        Scenario("following", mirrored, WorldConfig())


def test_a_scenario_brings_its_map_unless_one_is_given() -> None:
    assert EnvConfig.of(scenario="roundabout").map == "radial"
    assert EnvConfig.of(scenario="roundabout", map="town").map == "town"
    assert EnvConfig.of().scenario is None
    again = EnvConfig.model_validate_json(EnvConfig.of(scenario="merge").model_dump_json())
    assert (again.scenario, again.map) == ("merge", "town")


def test_rings_are_the_lanes_of_roundabouts() -> None:
    """SUMO's own word for it against what the geometry says."""
    for name in ("radial", "town"):
        driving_map = load_map(name)
        places = Places(driving_map.network, driving_map.scenery)
        edges = driving_map.net_xml.decode().split('<roundabout nodes="')[1:]
        ring_edges = {edge for part in edges for edge in part.split('edges="')[1].split('"')[0].split()}
        names = {driving_map.network.lane_name[k].rsplit("_", 1)[0] for k in places.rings}
        assert names == ring_edges


def test_signal_timelines_are_what_the_world_shows(town: DrivingMap) -> None:
    places = Places(town.network, town.scenery)
    batch = batch_of("red_light", 3)
    start(batch, [0, 1, 2])
    shift = [p.shift_ms for p in batch.world.placements if p is not None]
    for tick in range(100):
        for e in range(3):
            time_ms = shift[e] + 100 * tick
            if time_ms % 500 == 0:
                shown = [places.timeline(link)[time_ms // 500] for link in range(town.network.num_signal_links)]
                assert batch.world.state.signal[e].tolist() == shown
        batch.step(np.zeros((3, 2), np.float32))


def trace_of(xy, yaw, length, width, **more) -> Trace:
    """A trace of positions (T, C, 2)."""
    ticks, columns = xy.shape[:2]
    values = {
        "ego_s_m": np.arange(ticks) * 1.0, "speed_mps": np.full((ticks, columns), 5.0),
        "acceleration_mps2": np.zeros((ticks, columns)), "active": np.ones((ticks, columns), np.bool_),
        "stage": np.ones((ticks, columns), np.int8), "stop_line_m": np.full(ticks, np.inf),
        "signal": np.zeros(ticks, np.int8), "arrived": True, "infractions": frozenset(),
    } | more  # fmt: skip
    return Trace(
        x_m=xy[..., 0], y_m=xy[..., 1], yaw_rad=np.broadcast_to(yaw, (ticks, columns)), length_m=np.asarray(length),
        width_m=np.asarray(width), **values,
    )  # fmt: skip


def test_a_log_of_a_scenario_resimulates_to_the_byte(tmp_path) -> None:
    from rich.console import Console

    from sim.drive import DriveConfig, drive
    from sim.replay_command import replay_logs

    env = EnvConfig.of(scenario="occluded_pedestrian", rig="smoke", max_steps=50)
    report = drive(DriveConfig(seed=3, env=env), record=tmp_path)
    (log,) = report.logs
    assert log is not None
    assert "occluded_pedestrian" in log.name
    assert report.as_json()["episodes"][0]["scenario"] == "occluded_pedestrian"
    assert report.as_json()["episodes"][0]["checks"].keys() == {"no_collision", "kept_rules", "arrived", "let_walk"}
    (replayed,) = replay_logs([log], None, True, None, Console(quiet=True))
    assert replayed["resimulation"] == {"equal": True, "steps": 51, "first_difference": None, "after_gap": None}


def test_a_failed_episode_says_how_to_reproduce_it() -> None:
    from sim.drive import DriveConfig, reproducing_command

    config = DriveConfig(policy="idle", seed=4, episodes=3, env=EnvConfig.of(scenario="merge"))
    command = reproducing_command(config, 6, None, ["env.max_steps=100"])
    assert command == (
        "automedon drive --scenario merge --map town --rig small --weather clear --seed 6 --episodes 1 --policy idle "
        "--set env.max_steps=100"
    )


def test_the_document_lists_every_family_parameter_and_check() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "scenarios.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name in NAMES:
        family = describe(name)
        assert family["title"] in rows[name]
        for parameter in family["parameters"]:
            assert f"`{parameter['name']}` {parameter['allowed']}" in rows[name]
        for check in family_of(name).checks:
            assert f"`{check.name}`" in (text if check in EVERYWHERE else rows[name])
