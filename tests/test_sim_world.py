"""The batched world: reproducible to the byte, routes as asked for, traffic that behaves."""

from itertools import pairwise

import numba
import numpy as np
import pytest
from pydantic import ValidationError

from perception.geometry import transform
from perception.sensors import ROUTE_POINTS, ROUTE_SPACING_M
from planning.constant import IDLE
from planning.route_follower import RouteFollower
from sim.events import boxes_overlap
from sim.scenarios.mixture import FREE
from sim.world import ActorKind, World, WorldConfig


def same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    """Byte for byte, field by field: the padding of records is nobody's."""
    if a.dtype.names is None:
        return a.tobytes() == b.tobytes()
    return all(a[name].tobytes() == b[name].tobytes() for name in a.dtype.names)


def begin(world: World, seeds, episodes=None) -> None:
    count = world.num_envs
    episodes = np.zeros(count, np.int64) if episodes is None else np.asarray(episodes, np.int64)
    world.reset(np.ones(count, np.bool_), np.asarray(seeds, np.uint64), episodes)


def actions_at(tick: int, seeds) -> np.ndarray:
    """Some driving that depends on the episode alone."""
    phase = np.asarray(seeds, float)
    return np.stack([0.2 * np.sin(0.1 * tick + phase), 0.6 * np.cos(0.05 * tick + phase)], axis=1).astype(np.float32)


def run(town, seeds, ticks, threads=1):
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    world = World(town, WorldConfig(), len(seeds))
    begin(world, seeds, np.asarray(seeds) % 3)
    for tick in range(ticks):
        world.step(actions_at(tick, seeds))
    numba.set_num_threads(before)
    return world.snapshot().arrays


def test_one_environment_equals_a_slot_of_many_whatever_the_threads(town):
    seeds = np.arange(16) + 40
    batch, again = run(town, seeds, 50), run(town, seeds, 50, min(2, numba.config.NUMBA_NUM_THREADS))
    for slot in (0, 11):
        single = run(town, seeds[slot : slot + 1], 50)
        for name, array in single.items():
            if name.startswith(("Hidden.claims", "Hidden.spans")):
                continue  # scratch: what lies beyond its used part is left over
            assert same_bytes(array[0], batch[name][slot]), name
    for name, array in batch.items():
        assert same_bytes(array, again[name]), name


def test_reset_of_some_leaves_the_others_alone_and_repeats_an_episode(town):
    world, seeds = World(town, WorldConfig(), 4), np.arange(4)
    begin(world, seeds)
    start = world.snapshot().arrays
    for tick in range(30):
        world.step(actions_at(tick, seeds))
    later = world.snapshot().arrays
    world.reset(np.array([False, True, False, True]), seeds.astype(np.uint64), np.zeros(4, np.int64))
    now = world.snapshot().arrays
    for name in ("State.x_m", "State.speed_mps", "State.signal", "View.route_in_ego", "Hidden.line"):
        assert same_bytes(now[name][[0, 2]], later[name][[0, 2]]), name
        assert same_bytes(now[name][[1, 3]], start[name][[1, 3]]), name
    assert not same_bytes(now["State.x_m"][[1, 3]], later["State.x_m"][[1, 3]])


def test_worlds_share_what_a_map_says_of_roads_and_none_writes_into_it(town):
    world = World(town, WorldConfig(), 4)
    assert all(a is b for a, b in zip(world._fixed, World(town, WorldConfig(agents=2), 1)._fixed, strict=True))
    arrays = [(name, array) for part in world._fixed for name, array in part._asdict().items()]
    before = [np.copy(array) for _, array in arrays]
    begin(world, range(4))
    for tick in range(300):
        world.step(actions_at(tick, range(4)))
    world.reset(np.array([True, False, True, False]), np.arange(9, 13, dtype=np.uint64), np.ones(4, np.int64))
    world.step(actions_at(0, range(4)))
    for (name, array), old in zip(arrays, before, strict=True):
        assert same_bytes(np.asarray(array), old), name


def test_snapshot_and_restore(town):
    world, seeds = World(town, WorldConfig(), 3), np.arange(3)
    begin(world, seeds)
    for tick in range(20):
        world.step(actions_at(tick, seeds))
    snapshot = world.snapshot()
    kept = {name: array.copy() for name, array in snapshot.arrays.items()}
    for tick in range(20, 50):
        world.step(actions_at(tick, seeds))
    ahead = world.snapshot().arrays
    assert not same_bytes(ahead["State.x_m"], kept["State.x_m"])
    world.restore(snapshot)
    for tick in range(20, 50):
        world.step(actions_at(tick, seeds))
    for name, array in world.snapshot().arrays.items():
        assert same_bytes(array, ahead[name]), name
        assert same_bytes(snapshot.arrays[name], kept[name]), name
    with pytest.raises(ValueError, match="another world"):
        World(town, WorldConfig(), 2).restore(snapshot)


def test_a_stop_sign_that_was_run_is_in_the_snapshot(town):
    world = World(town, WorldConfig(agents=2), 3)
    world.ran_stop_sign[:] = [True, False, True]
    all_of_them, first = world.snapshot(), world.snapshot(0)
    world.step(np.zeros((3, 2), np.float32))
    assert not world.ran_stop_sign.any()
    world.restore(first, 1)
    assert world.ran_stop_sign.tolist() == [False, True, False]
    world.restore(all_of_them)
    assert world.ran_stop_sign.tolist() == [True, False, True]


def test_a_scenario_is_placed_only_for_episodes_that_are_asked_for(town):
    """A map may have no place for others: how many environments there are must not matter."""
    asked = []

    def place(seed, episode):
        asked.append((seed, episode))
        return FREE

    world = World(town, WorldConfig(agents=2), 3, place)
    assert asked == []
    begin(world, [7, 8, 9], [0, 2, 1])
    assert asked == [(7, 0), (8, 2), (9, 1)]
    assert world.placements == [FREE] * 3


def test_episodes_differ_by_seed_and_by_episode(town):
    world = World(town, WorldConfig(), 40)
    begin(world, np.repeat([1, 2], 20), np.tile(np.arange(20), 2))
    assert len(np.unique(world.state.x_m[:, 0])) == 40
    assert len(np.unique(world.events.route_length_m)) > 30


@pytest.mark.parametrize(("least", "most"), [(60.0, 100.0), (300.0, 600.0)])
def test_routes_are_as_long_as_asked_for_and_connected(town, least, most):
    world = World(town, WorldConfig(route_min_m=least, route_max_m=most, agents=1), 64)
    begin(world, np.arange(64))
    length, network = world.events.route_length_m, town.network
    assert (length >= least).all()
    assert (length <= most).all()
    for e in range(64):
        steps = np.diff(world.route_line(e)[:, :2], axis=0)
        assert np.hypot(steps[:, 0], steps[:, 1]).max() < 2.0
        count = world._hidden.egos[e]["lanes"]
        lanes, starts = world._hidden.route_lane[e, :count], world._hidden.route_from[e, :count]
        for a, b in pairwise(lanes):
            assert b in network.successor[network.successor_start[a] : network.successor_start[a + 1]]
        goal_lane = lanes[np.searchsorted(starts, length[e], side="right") - 1]
        assert network.lane_junction[goal_lane] < 0


def test_route_points_lie_on_the_route_ahead(town):
    world, driver = World(town, WorldConfig(), 8), RouteFollower()
    begin(world, np.arange(8))
    for _ in range(150):
        world.step(driver.act({}, world.situation()))
    for e in range(8):
        points = np.column_stack([world.route_in_ego[e], np.zeros(ROUTE_POINTS)])
        in_world = transform(world.world_from_ego(e), points)[:, :2]
        line = world.route_line(e)[:, :2]
        off = np.hypot(*(in_world[:, None] - line[None]).transpose(2, 0, 1)).min(axis=1)
        assert off.max() < 0.6
        assert np.hypot(*world.route_in_ego[e][0]) == pytest.approx(ROUTE_SPACING_M, abs=0.8)
        assert world.route_in_ego[e][0, 0] > 0


def overlapping(state, e):
    boxes = [
        (state.x_m[e, i], state.y_m[e, i], state.yaw_rad[e, i], 0.5 * state.length_m[e, i], 0.5 * state.width_m[e, i])
        for i in np.flatnonzero(state.active[e])
    ]
    foot = state.kind[e, state.active[e] == 1] == ActorKind.PEDESTRIAN  # who may brush past each other
    pairs = [(a, b) for a in range(len(boxes)) for b in range(a) if not (foot[a] and foot[b])]
    return [(a, b) for a, b in pairs if boxes_overlap(*boxes[a], *boxes[b])]


def test_traffic_keeps_apart_moves_and_appears_out_of_sight(town):
    count, config = 6, WorldConfig()
    world, driver = World(town, config, count), RouteFollower()
    begin(world, np.arange(count) + 300)
    state = world.state
    active, x, y, moved = state.active.copy(), state.x_m.copy(), state.y_m.copy(), 0.0
    running = np.ones(count, np.bool_)  # beyond its goal the ego is no part of traffic
    for tick in range(400):
        world.step(driver.act({}, world.situation()))
        away = np.hypot(state.x_m - state.x_m[:, :1], state.y_m - state.y_m[:, :1])
        appeared = (state.active == 1) & (active == 0)
        assert (away[appeared] > config.respawn_distance_m - 15.0).all()
        assert (state.yaw_rate_radps[appeared] == 0.0).all()
        near = (state.active == 1) & (active == 1) & (away < config.respawn_distance_m - 5.0)
        jump = np.hypot(state.x_m - x, state.y_m - y)[near]
        assert jump.max() < 3.0
        moved += jump.sum()
        active, x, y = state.active.copy(), state.x_m.copy(), state.y_m.copy()
        if tick % 10 == 0:
            running &= world.events.arrived == 0
            assert not any(overlapping(state, e) for e in np.flatnonzero(running))
    assert moved / (count * 40) > 20.0  # metres a second of all that are near an ego
    assert world._hidden.cars["wait"][:, 1:].max() < 600
    assert state.active[:, 1:].mean() > 0.8


def test_traffic_stops_behind_an_ego_that_stands_in_the_lane(town):
    world, policy = World(town, WorldConfig(stuck_after_s=600.0), 24), IDLE
    begin(world, np.arange(24))
    observation = {"ego": np.zeros((24, 5), np.float32)}
    for _ in range(300):
        world.step(policy.act(observation, world.situation()))
        assert (world.events.collision == 0).all()
    assert (world.state.speed_mps[:, 0] == 0).all()


def test_the_expert_arrives_without_an_infraction(town):
    count = 6
    world, driver = World(town, WorldConfig(route_min_m=150.0, route_max_m=300.0), count), RouteFollower()
    begin(world, np.arange(count) + 70)
    arrived = np.zeros(count, bool)
    for _ in range(1500):
        world.step(driver.act({}, world.situation()))
        events, running = world.events, ~arrived
        for flag in (events.collision, events.red_light, events.off_road, events.off_route, events.stuck):
            assert (flag[running] == 0).all()
        assert np.abs(events.lateral_m[running]).max(initial=0.0) < 1.2
        arrived |= events.arrived == 1
        if arrived.all():
            break
    assert arrived.all()


def test_bad_configurations_say_what_is_allowed():
    with pytest.raises(ValidationError, match="route_max_m must exceed route_min_m"):
        WorldConfig(route_min_m=300.0, route_max_m=300.0)
    with pytest.raises(ValidationError, match="respawn_distance_m must be below spawn_radius_m"):
        WorldConfig(respawn_distance_m=200.0)
    with pytest.raises(ValidationError, match="agents"):
        WorldConfig(agents=0)
    with pytest.raises(ValidationError, match="Extra inputs"):
        WorldConfig(cars=3)  # type: ignore[call-arg]


def test_bad_arguments_are_named(town):
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        World(town, WorldConfig(), 0)
    world = World(town, WorldConfig(agents=2), 2)
    with pytest.raises(ValueError, match=r"actions must have shape \(2, 2\), got \(3, 2\)"):
        world.step(np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="finite"):
        world.step(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="seed must have shape"):
        world.reset(np.ones(2, bool), np.zeros(3, np.uint64), np.zeros(2, np.int64))
