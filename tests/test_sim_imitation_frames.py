"""Frames for imitation: what the expert says is what it does, the student drives where it should, chapters repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.labels import LabelledFrames
from perception.points import BevGrid
from planning.imitation import expert_distribution
from sim.imitation_frames import ImitationFrames, ImitationFramesConfig
from sim.roads.driving_map import MapError
from sim.sensors.rig import rig
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


def test_a_town_of_another_split_is_refused() -> None:
    with pytest.raises(MapError):
        source(Student(), towns=("grid-small:10000",))
