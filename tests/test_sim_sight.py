"""What is seen: with everybody in sight it is what the world itself knows, and the hidden take no part."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

import sim.sight
import sim.world
from planning.blind import BlindDriver
from planning.route_follower import RouteFollower
from sim.drive_batch import DriveBatch, EnvConfig
from sim.episode import run_episodes
from sim.evaluation.track_observer import TrackObserver
from sim.observation import (
    PRIVILEGED_SIZE,
    PrivilegedScalar,
    VehicleField,
    WalkerField,
    privileged_space,
)
from sim.roads.driving_map import DrivingMap, load_map
from sim.sight import SEEN_VEHICLES, SEEN_WALKERS, SIGHT_RANGE_M, Observer, Road
from sim.step import Step, StepObserver
from sim.threads import over_environments
from sim.world import EGO, ActorKind

ENVS = 12
FIRST_VEHICLE = len(PrivilegedScalar) + 40
FIRST_WALKER = FIRST_VEHICLE + SEEN_VEHICLES * len(VehicleField)


@pytest.fixture(scope="module")
def crooked() -> DrivingMap:
    """A town with roundabouts, stop signs and crosswalks."""
    return load_map("town")


@pytest.fixture
def batch(crooked: DrivingMap) -> DriveBatch:
    batch = DriveBatch(EnvConfig.of(map="town", observation="privileged"), ENVS, crooked)
    batch.reset(np.ones(ENVS, np.bool_), np.arange(ENVS, dtype=np.uint64), np.zeros(ENVS, np.int64))
    return batch


def everybody(observer: Observer, batch: DriveBatch) -> None:
    """Make the observer see every agent, wherever it is."""
    agents = batch.world.state.x_m.shape[1]
    observer._seen[:] = -1
    for e in range(ENVS):
        others = np.flatnonzero(batch.world.state.active[e, 1:]) + 1
        observer._seen[e, : len(others)] = others
    assert observer._seen.shape == (ENVS, agents)


def test_who_sees_everybody_knows_what_the_world_knows(batch: DriveBatch, crooked: DrivingMap) -> None:
    observer, driver = Observer(crooked, batch.world), RouteFollower()
    leaders = yields = swings = 0
    for _ in range(400):
        everybody(observer, batch)
        sight, situation = observer.follow(np.arange(ENVS)), batch.situation
        road = sight.road
        assert (road[:, Road.LEADER_GAP] == situation.leader_gap_m).all()
        assert (road[:, Road.LEADER_SPEED] == situation.leader_speed_mps).all()
        stop = road[:, [Road.YIELD_DISTANCE, Road.WALKER_DISTANCE, Road.DETOUR_DISTANCE]].min(axis=1)
        assert (stop == situation.yield_distance_m).all()
        assert sight.path_in_ego.tobytes() == situation.path_in_ego.tobytes()
        leaders += np.isfinite(situation.leader_gap_m).sum()
        yields += np.isfinite(situation.yield_distance_m).sum()
        swings += (situation.path_in_ego != situation.route_in_ego).any(axis=(1, 2)).sum()
        batch.step(driver.act(batch.observation, situation))
    assert leaders > 100
    assert yields > 100
    assert swings > 0


def test_who_sees_nobody_has_no_leader_and_gives_way_to_nobody(batch: DriveBatch, crooked: DrivingMap) -> None:
    observer, driver = Observer(crooked, batch.world), RouteFollower()
    signs = 0
    for _ in range(400):
        observer._seen[:] = -1
        sight = observer.follow(np.arange(ENVS))
        assert np.isinf(sight.road[:, [Road.LEADER_GAP, Road.WALKER_DISTANCE, Road.DETOUR_DISTANCE]]).all()
        at_sign = sight.road[:, Road.YIELD_DISTANCE] == sight.road[:, Road.STOP_SIGN_DISTANCE]
        assert (np.isinf(sight.road[:, Road.YIELD_DISTANCE]) | at_sign).all()
        assert (sight.vehicles == -1).all()
        assert (sight.walkers == -1).all()
        assert np.abs(sight.path_in_ego - batch.situation.route_in_ego).max() < 1e-5
        signs += np.isfinite(sight.road[:, Road.YIELD_DISTANCE]).sum()
        batch.step(driver.act(batch.observation, batch.situation))
    assert signs > 0


def test_whoever_begins_anew_does_not_make_others_look_again(
    batch: DriveBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[list[int]] = []

    def over(kernel: object, which: np.ndarray, *args: object) -> None:
        looked.append(which.tolist())
        over_environments(kernel, which, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(sim.sight, "over_environments", over)
    monkeypatch.setattr(sim.world, "over_environments", over)
    observed = batch.observation["privileged"].copy()
    third = np.arange(ENVS) == 3
    batch.reset(third, np.arange(ENVS, dtype=np.uint64) + 100, np.zeros(ENVS, np.int64))
    assert looked[-2:] == [[3], [3]]
    assert (batch.observation["privileged"] == observed).all(axis=1).tolist() == (~third).tolist()


def test_observed_places_are_those_of_agents_in_sight_nearest_first(batch: DriveBatch) -> None:
    driver = RouteFollower()
    for _ in range(80):
        batch.step(driver.act(batch.observation, batch.situation))
    out, state = batch.observation["privileged"], batch.world.state
    assert out.shape == (ENVS, PRIVILEGED_SIZE)
    assert all(privileged_space().contains(row) for row in out)
    vehicles = out[:, FIRST_VEHICLE:FIRST_WALKER].reshape(ENVS, SEEN_VEHICLES, len(VehicleField))
    walkers = out[:, FIRST_WALKER:].reshape(ENVS, SEEN_WALKERS, len(WalkerField))
    present = 0
    for fields, on_foot in ((vehicles, False), (walkers, True)):
        for e in range(ENVS):
            x0, y0, yaw = state.x_m[e, EGO], state.y_m[e, EGO], state.yaw_rad[e, EGO]
            axle = state.rear_axle_m[e, EGO]
            origin = np.array([x0 - axle * np.cos(yaw), y0 - axle * np.sin(yaw)])
            turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
            others = np.flatnonzero((state.active[e] == 1) & ((state.kind[e] == ActorKind.PEDESTRIAN) == on_foot))
            places = np.column_stack([state.x_m[e, others], state.y_m[e, others]])
            before = 0.0
            for row in fields[e]:
                if row[0] == 0.0:
                    assert (row == 0.0).all()
                    continue
                place = turn @ (50.0 * row[1:3].astype(float)) + origin
                away = np.hypot(*(places - place).T)
                assert away.min() < 1e-3
                distance = np.hypot(*(place - [x0, y0]))
                assert before - 3.0 < distance < SIGHT_RANGE_M + 3.0  # they are sorted as seen from the roof
                before, present = distance, present + 1
    assert present > ENVS


def test_standing_somewhere_hidden_is_not_observed(batch: DriveBatch) -> None:
    """Nobody who is observed is missing from the line-of-sight list, and some who are near are missing from both."""
    driver = RouteFollower()
    hidden = 0
    for _ in range(60):
        batch.step(driver.act(batch.observation, batch.situation))
        observer, state = batch._privileged.observer, batch.world.state
        for e in range(ENVS):
            seen = set(observer._seen[e][observer._seen[e] >= 0].tolist())
            shown = {*observer.sight.vehicles[e].tolist(), *observer.sight.walkers[e].tolist()} - {-1}
            assert shown <= seen
            near = np.hypot(state.x_m[e] - state.x_m[e, 0], state.y_m[e] - state.y_m[e, 0]) < 60.0
            hidden += len(set(np.flatnonzero(near & (state.active[e] == 1)).tolist()) - seen - {0})
    assert hidden > 0


class _StopSignTicks:
    """Notes the ticks at which the environment says that a stop sign was run."""

    def __init__(self) -> None:
        self.ticks: list[int] = []

    def on_step(self, step: Step) -> None:
        if "stop_sign" in step.events:
            self.ticks.append(step.tick)

    def close(self) -> None:
        """Nothing is held open."""


def _both(observers: Sequence[StepObserver], seed: int) -> Sequence[StepObserver]:
    return observers


def test_the_stop_sign_is_run_where_the_evaluation_says_so(crooked: DrivingMap) -> None:
    """A driver that yields to nobody, against the track observer, which watches distances and speeds by itself."""

    config = EnvConfig.of(
        map="town", observation="privileged", end_on_infraction=False, max_steps=900, world={"agents": 2}
    )
    batch = DriveBatch(config, 1, crooked)
    noticed = []
    for driver in (BlindDriver(), RouteFollower()):
        for seed in range(6):
            track, events = TrackObserver(), _StopSignTicks()
            run_episodes(batch, driver, [seed], partial(_both, (track, events)))
            assert events.ticks == [i.tick for i in track.track().infractions if i.kind == "stop_sign"]
            noticed.append(len(events.ticks))
    assert sum(noticed[:6]) > 0
    assert sum(noticed[6:]) == 0


def test_training_can_ask_for_more_of_a_standstill_than_scores_do(crooked: DrivingMap) -> None:
    """Who brakes no more below 0.3 m/s, and rolls on before it stands, has stopped by the scores' rule, not by a stricter one."""
    run = []
    for below in (0.1, 0.02):
        world = {"agents": 2, "stop_below_mps": below}
        config = EnvConfig.of(map="town", observation="privileged", end_on_infraction=False, max_steps=900, world=world)
        batch, driver = DriveBatch(config, 6, crooked), RouteFollower()
        batch.reset(np.ones(6, bool), np.arange(6, dtype=np.uint64), np.zeros(6, np.int64))
        ran = 0
        for _ in range(850):
            speed, action = batch.world.state.speed_mps[:, EGO], driver.act(batch.observation, batch.situation)
            throttle = np.where(speed < 0.08, 0.2, 0.0)
            action[:, 1] = np.where(speed < 0.3, np.maximum(action[:, 1], throttle), action[:, 1])
            batch.step(action)
            ran += int(batch.world.ran_stop_sign.sum())
        run.append(ran)
    assert run[0] == 0
    assert run[1] > 0
