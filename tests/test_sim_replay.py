"""Replay: actions against recorded ones, and re-simulation down to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_steps import header, synthetic_steps

from perception.sensors import SensorFrame
from planning.action import Action
from planning.policy import Observation, Situation
from sim.logs.log import Log, LogHeader
from sim.logs.reader import open_log
from sim.logs.writer import LogWriter
from sim.replay import compare_steps, replay_open_loop, resimulate
from sim.step import Step


def written(path: Path, steps: Sequence[Step]) -> Path:
    writer = LogWriter(path, header())
    for step in steps:
        writer.on_step(step)
    writer.close()
    return path


class Echo:
    """A policy that gives what the observation holds, and counts."""

    name = "echo"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def reset(self, started: NDArray[np.bool_]) -> None:
        self.calls.append(f"reset {started.tolist()}")

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        assert situation is None
        self.calls.append("act")
        return np.asarray(observation["wanted"], np.float32)


class Watcher:
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.closed = 0

    def on_step(self, step: Step) -> None:
        self.steps.append(step)

    def close(self) -> None:
        self.closed += 1


def test_open_loop_errors_are_the_differences(tmp_path: Path) -> None:
    """A policy that is off by known amounts; the errors are theirs."""
    steps = list(synthetic_steps(41))
    recorded = np.array([[s.action.steer, s.action.throttle] for s in steps[:-1] if s.action]) * 0.5
    steps = [
        replace(step, action=Action(*pair.tolist())) for step, pair in zip(steps[:-1], recorded, strict=True)
    ] + steps[-1:]
    off = np.abs(np.random.default_rng(5).normal(size=(40, 2))) * 0.1
    wanted = np.vstack([recorded + off, [[2.0, -2.0]]])  # the last one is out of range, and not compared
    policy, watcher, asked = Echo(), Watcher(), iter(wanted)

    def observation_of(frames: Sequence[SensorFrame]) -> dict[str, NDArray[Any]]:
        assert len(frames) == 1
        return {"wanted": next(asked)[None]}

    with open_log(written(tmp_path / "a.mcap", steps)) as log:
        result = replay_open_loop(log, policy, observation_of, [watcher])
    assert policy.calls == ["reset [True]", *["act"] * 41]
    assert (result.frames, result.compared_frames) == (41, 40)
    expected = {
        "steer_mean": off[:, 0].mean(), "steer_p95": np.percentile(off[:, 0], 95),
        "throttle_mean": off[:, 1].mean(), "throttle_p95": np.percentile(off[:, 1], 95),
    }  # fmt: skip
    assert result.action_error == pytest.approx(expected, abs=1e-6)
    assert result.actions[-1] == [1.0, -1.0]
    assert result.sensor_age_ms["front"] == {"mean": 10.0, "max": 10.0}
    assert result.silent_frames == {"side": 20}
    assert (result.recorded_actions, result.route) == ("as recorded", "as recorded")
    assert "does not react" in result.note
    assert json.loads(json.dumps(asdict(result)))["frames"] == 41
    assert watcher.closed == 1
    assert [s.action.steer for s in watcher.steps if s.action] == [a[0] for a in result.actions]


def test_observers_are_closed_when_the_policy_fails(tmp_path: Path) -> None:
    watcher = Watcher()
    with open_log(written(tmp_path / "a.mcap", list(synthetic_steps(3)))) as log, pytest.raises(KeyError):
        replay_open_loop(log, Echo(), lambda frames: {}, [watcher])
    assert (watcher.closed, watcher.steps) == (1, [])


def test_real_recording_through_a_policy(shared_data: Path) -> None:
    with open_log(shared_data / "pandaset" / "ros2_mcap") as log:
        result = replay_open_loop(log, Echo(), lambda frames: {"wanted": np.zeros((1, 2))})
    assert (result.frames, result.compared_frames) == (12, 11)
    assert result.recorded_actions == "estimated from odometry"
    assert result.route == "from recorded path"
    assert result.sensor_age_ms["front"]["mean"] == pytest.approx(50, abs=3)
    assert result.action_error["throttle_mean"] > 0.3


def mutated(step: Step, kind: str) -> Step:
    frame = step.frame
    front, top, ego = frame.cameras["front"], frame.lidars["top"], frame.ego
    assert front is not None
    assert top is not None
    assert ego is not None
    match kind:
        case "image":
            image = front.image.copy()
            image[3, 4, 2] ^= 1
            return replace(step, frame=replace(frame, cameras={**frame.cameras, "front": replace(front, image=image)}))
        case "points":
            points = top.points.copy()
            points[7, 3] = np.nextafter(points[7, 3], np.float32(9))
            return replace(step, frame=replace(frame, lidars={"top": replace(top, points=points)}))
        case "ego":
            return replace(
                step, frame=replace(frame, ego=replace(ego, speed_mps=float(np.nextafter(ego.speed_mps, 9))))
            )
        case "route":
            assert frame.route_in_ego is not None
            return replace(step, frame=replace(frame, route_in_ego=-frame.route_in_ego))
        case "signals":
            assert step.signals is not None
            return replace(step, signals=step.signals + np.int8(1))
        case "actors":
            assert step.actors is not None
            return replace(step, actors=replace(step.actors, yaw_rad=step.actors.yaw_rad + 1e-15))
        case "reward":
            return replace(step, reward_terms={**step.reward_terms, "progress": 0.0})
        case "events":
            return replace(step, events={})
        case "sensor":
            return replace(step, frame=replace(frame, cameras={"front": front}))
        case _:
            return replace(step, frame=replace(frame, cameras={**frame.cameras, "side": None}))


@pytest.mark.parametrize(
    ("kind", "topic", "field"),
    [
        ("image", "/camera/front/image", "image[3, 4, 2]"),
        ("points", "/lidar/top/points", "points[7, 3]"),
        ("ego", "/ego/state", "speed_mps"),
        ("route", "/route", "points_in_ego[0, 0]"),
        ("signals", "/signals", "states[0]"),
        ("actors", "/actors", "yaw_rad["),
        ("reward", "/reward", "progress"),
        ("events", "/events", "red_light"),
        ("sensor", "/camera/side", ""),
        ("silent", "/camera/side", ""),
    ],
)
def test_first_difference_is_named_by_tick_topic_and_field(kind: str, topic: str, field: str) -> None:
    """The smallest change that a value can take, at tick 4 and again at tick 6."""
    steps = list(synthetic_steps(8))
    changed = [mutated(step, kind) if step.tick in (4, 6) else step for step in steps]
    result = compare_steps(steps, changed)
    assert not result.equal
    assert result.steps == 4
    difference = result.first_difference
    assert difference is not None
    assert difference.tick == 4
    assert difference.topic.startswith(topic)
    assert difference.field.startswith(field)
    assert difference.recorded != difference.simulated
    assert f"tick 4, {difference.topic}" in str(difference)


def test_an_episode_equals_itself_and_its_cut_off_log() -> None:
    steps = list(synthetic_steps(6))
    whole, cut, ended = compare_steps(steps, steps), compare_steps(steps[:4], steps), compare_steps(steps, steps[:4])
    assert (whole.equal, whole.steps) == (True, 6)
    assert (cut.equal, cut.steps) == (True, 4)
    assert not ended.equal
    assert ended.first_difference is not None
    assert ended.first_difference.tick == 4


def test_nothing_equals_nothing_and_nothing_is_compared_behind_a_gap() -> None:
    steps = list(synthetic_steps(6))
    nothing, gap = compare_steps([], steps), compare_steps(steps[:2] + steps[4:], steps)
    assert (nothing.equal, nothing.steps, nothing.after_gap) == (False, 0, None)
    assert (gap.equal, gap.steps, gap.first_difference, gap.after_gap) == (False, 2, None, 4)


def test_resimulation_feeds_the_recorded_actions(tmp_path: Path) -> None:
    """A stand-in for the simulator whose next speed depends on the last action."""

    def simulate(log_header: LogHeader, actions: Iterator[Action | None], error: float = 0.0) -> Iterator[Step]:
        assert log_header.seed == header().seed
        speed = 5.0
        for step, action in zip(synthetic_steps(12), actions, strict=True):
            assert step.frame.ego is not None
            ego = replace(step.frame.ego, speed_mps=speed)
            yield replace(step, frame=replace(step.frame, ego=ego), action=action)
            if action is not None:
                speed += action.throttle + (error if step.tick == 6 else 0.0)

    random = np.random.default_rng(2)
    chosen = [Action(*random.uniform(-1, 1, 2).tolist()) for _ in range(11)]
    episode = list(simulate(header(), chain(iter(chosen), [None])))
    with open_log(written(tmp_path / "a.mcap", episode)) as log:
        result = resimulate(log, simulate)
        assert (result.equal, result.steps) == (True, 12)
        different = resimulate(log, lambda h, a: simulate(h, a, error=1e-12)).first_difference
    assert different is not None
    assert (different.tick, different.topic, different.field) == (7, "/ego/state", "speed_mps")


def test_only_our_logs_resimulate(shared_data: Path) -> None:
    def never(log_header: LogHeader, actions: Iterator[Action | None]) -> Iterator[Step]:
        raise AssertionError

    with open_log(shared_data / "pandaset" / "ros1.bag") as log:
        assert isinstance(log, Log)
        with pytest.raises(ValueError, match=r"ros1\.bag is a ROS 1 bag: only logs"):
            resimulate(log, never)
