"""Frames for imitation: what the expert says is what it does, the student drives where it should, chapters repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.labels import Affordance, LabelledFrames, closeness
from perception.points import BevGrid
from perception.sensors import ROUTE_POINTS
from planning.imitation import expert_distribution
from planning.policy import Situation
from sim.imitation_frames import ImitationFrames, ImitationFramesConfig, affordances_of
from sim.roads.driving_map import MapError
from sim.sensors.rig import rig
from sim.sight import Road, Sight
from sim.world import EGO, WorldConfig

GRID = BevGrid.of_cells(48)
CONFIG: dict[str, Any] = {
    "towns": ("grid-small",), "towns_at_once": 1, "envs": 6, "warm_up_ticks": 40, "weather": "clear", "noise_share": 0.0,
    "scenario_share": 0.0, "expert_chapters": 1, "ticks_between": 3,
    "world": WorldConfig(agents=8, route_min_m=60.0, route_max_m=120.0),
}  # fmt: skip


class Student:
    """Turns hard to the right at full throttle, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.seen: list[Mapping[str, NDArray[Any]]] = []

    def __call__(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        n = len(observation["ego"])
        self.asked.append(n)
        self.seen.append({key: values.copy() for key, values in observation.items()})
        return np.tile(np.array([-1.0, 1.0], np.float32), (n, 1))


def source(student: Student, **values: Any) -> ImitationFrames:
    config = ImitationFramesConfig(**{**CONFIG, **values})
    return ImitationFrames(config, rig("smoke"), GRID, 0, "train", student, lambda a, p: expert_distribution(a, 40.0))


def modes(frames: LabelledFrames) -> NDArray[np.float32]:
    assert frames.expert is not None
    return 2 * (frames.expert[..., 0] - 1) / (frames.expert.sum(-1) - 2) - 1  # type: ignore[no-any-return]


def test_where_the_expert_drives_its_label_is_what_is_done_next() -> None:
    frames = source(Student(), ticks_between=1, student_share=0.0)
    frames.begin(0)
    before = modes(frames.next())
    town = frames._driven[0]
    town.drive(1)
    alive = town.world.state.tick > 1
    assert alive.any()
    np.testing.assert_allclose(town.world.state.last_action[alive], before[alive], atol=1e-4)
    assert np.abs(before).max() > 0.05


def test_the_student_drives_its_share_after_the_first_chapters() -> None:
    student = Student()
    frames = source(student, student_share=0.5)
    frames.begin(0)
    frames.next()
    assert not student.asked
    frames.begin(1)
    frames.next()
    town = frames._driven[0]
    followed = town.followed  # type: ignore[attr-defined]
    assert 0 < followed.sum() < 6
    assert student.asked == [int(followed.sum())] * 3
    assert set(student.seen[0]) == set(frames.next().observation)
    own = town.world.state.last_action[followed & (town.world.state.tick > 1)]
    np.testing.assert_array_equal(own, np.tile([-1.0, 1.0], (len(own), 1)))
    assert (town.world.state.last_action[~followed] != [-1.0, 1.0]).any(1).all()


def test_the_student_keeps_to_its_decision_for_as_long_as_is_said() -> None:
    student = Student()
    frames = source(student, student_share=1.0, ticks_between=5, student_ticks=2)
    frames.begin(1)
    frames.next()
    assert student.asked == [6] * 3  # in ticks 0, 2 and 4
    town = frames._driven[0]
    own = town.world.state.last_action[town.world.state.tick > 1]
    np.testing.assert_array_equal(own, np.tile([-1.0, 1.0], (len(own), 1)))


def test_affordances_say_why_the_expert_slows_down() -> None:
    """Where nothing is close the expert does not brake; near a red line, a leader or a line to give way at it mostly does."""
    frames = source(Student(), student_share=0.0, ticks_between=10, envs=8, scenario_share=0.6)
    frames.begin(0)
    batches = [frames.next() for _ in range(25)]
    assert all(b.affordances is not None for b in batches)
    a = np.concatenate([b.affordances for b in batches if b.affordances is not None])
    pedal = np.concatenate([modes(b)[:, 1] for b in batches])
    speed = np.concatenate([b.observation["ego"][:, 0] for b in batches])
    of = Affordance
    distances = [of.LEADER, of.YIELD, of.WALKER, of.BLOCKED, of.STOP_SIGN, of.SIGNAL]
    assert ((a[:, distances] >= 0) & (a[:, distances] <= 1)).all()
    assert np.array_equal(np.isnan(a[:, Affordance.LEADER_SPEED]), a[:, Affordance.LEADER] == 0)
    assert np.nanmin(a[:, Affordance.SPEED_LIMIT]) * 20 > 5
    nearest = a[:, distances].max(1)
    free = (nearest < 0.15) & (speed < 4.0)
    assert free.any()
    assert (pedal[free] > 0).mean() > 0.9
    stop = closeness(np.array([4.0]))[0]
    close = (a[:, [Affordance.YIELD, Affordance.SIGNAL]].max(1) > stop) & (speed > 2.0)
    assert close.any()
    assert (pedal[close] < 0).all()


def test_a_swing_is_told_to_the_side_it_goes() -> None:
    path = np.zeros((2, ROUTE_POINTS, 2), np.float32)
    path[..., 0] = np.arange(1, ROUTE_POINTS + 1) * 2.5
    route = path.copy()
    path[0, :, 1] = 1.5
    road = np.full((2, len(Road)), np.inf)
    road[:, Road.LEADER_SPEED] = road[:, Road.STOPPED_AT_SIGN] = 0.0
    road[1, [Road.STOPPED_AT_SIGN, Road.STOP_SIGN_DISTANCE]] = 1.0, 10.0
    road[0, Road.STOP_SIGN_DISTANCE] = 10.0
    limit, none = np.full(2, 10.0), np.full(2, np.inf)
    situation = Situation(limit, limit, route, none, none, none, np.full(2, 10.0), np.array([1, 3], np.int8), none)
    sight = Sight(road, path, np.zeros((2, 0), np.int32), np.zeros((2, 0), np.int32))
    found = affordances_of(situation, sight)
    assert found[:, Affordance.SWING] == pytest.approx([0.75, 0.0])
    assert found[:, Affordance.STOP_SIGN] == pytest.approx([0.5, 0.0])
    assert found[:, Affordance.SIGNAL] == pytest.approx([0.5, 0.0])
    assert found[:, Affordance.SPEED_LIMIT] == pytest.approx([0.5, 0.5])


def test_a_network_that_is_imitated_labels_what_it_sees_and_does_not_drive() -> None:
    def label(observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return np.repeat(observation["ego"][:, :1, None] + [[[2.0, 3.0]]], 2, axis=1).astype(np.float32)

    frames, plain = source(Student(), ticks_between=2), source(Student(), ticks_between=2)
    frames.label = label
    for each in (frames, plain):
        each.begin(0)
    ours, theirs = frames.next(), plain.next()
    np.testing.assert_array_equal(ours.expert, label(ours.observation))
    assert theirs.expert is not None
    assert (ours.expert != theirs.expert).any()
    for key in ours.observation:
        np.testing.assert_array_equal(ours.observation[key], theirs.observation[key], err_msg=key)


def test_the_student_sees_the_frame_it_is_taught_on() -> None:
    student = Student()
    frames = source(student, student_share=1.0, ticks_between=1)
    frames.begin(1)
    first = frames.next()
    student.seen.clear()
    frames.next()
    for key, values in first.observation.items():
        np.testing.assert_array_equal(student.seen[0][key], values, err_msg=key)


def test_a_chapter_is_the_same_again_and_a_bad_student_s_episodes_end() -> None:
    a, b = source(Student(), student_share=1.0), source(Student(), student_share=1.0)
    a.begin(1)
    a.next()
    a.begin(2)
    b.begin(2)
    started = a._driven[0].episode.copy()
    for _ in range(25):
        ours, theirs = a.next(), b.next()
    for key in ours.observation:
        np.testing.assert_array_equal(ours.observation[key], theirs.observation[key], err_msg=key)
    assert ours.expert is not None
    assert theirs.expert is not None
    np.testing.assert_array_equal(ours.expert, theirs.expert)
    assert (a._driven[0].episode > started).all()
    assert (a._driven[0].world.state.speed_mps[:, EGO] >= 0).all()


@pytest.mark.parametrize("student_share", [0.0, 1.0])
def test_a_chapter_without_a_warm_up_knows_nothing_of_the_one_before(student_share: float) -> None:
    values = {"student_share": student_share, "warm_up_ticks": 0, "scenario_share": 0.6, "ticks_between": 8}
    seen: list[Student] = [Student(), Student()]
    a, b = (source(student, **values) for student in seen)
    a.begin(1)
    for _ in range(4):  # far enough for detours
        a.next()
    for each in (a, b):
        each.student.asked.clear()  # type: ignore[attr-defined]
        each.student.seen.clear()  # type: ignore[attr-defined]
        each.begin(2)
    for _ in range(3):
        ours, theirs = a.next(), b.next()
        np.testing.assert_array_equal(ours.expert, theirs.expert)
        np.testing.assert_array_equal(ours.affordances, theirs.affordances)
        for key in ours.observation:
            np.testing.assert_array_equal(ours.observation[key], theirs.observation[key], err_msg=key)
    for mine, other in zip(seen[0].seen, seen[1].seen, strict=True):
        np.testing.assert_array_equal(mine["camera_wide"], other["camera_wide"])


def test_an_observer_that_is_asked_at_the_start_has_forgotten_its_detours() -> None:
    frames = source(Student(), warm_up_ticks=0)
    frames.begin(0)
    frames.next()
    town = frames._driven[0]
    town.observer.observer._memory["swinging"] = 1  # type: ignore[attr-defined]
    frames.begin(1)
    frames.next()
    assert not town.observer.observer._memory["swinging"].any()  # type: ignore[attr-defined]


def test_a_town_of_another_split_is_refused() -> None:
    with pytest.raises(MapError):
        source(Student(), towns=("grid-small:10000",))
