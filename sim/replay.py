"""Recorded logs through the stack: open loop against the recorded actions, and re-simulation byte for byte.

Knows steps, logs and policies; knows nothing about file formats, networks or how an environment is built.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import tee, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.sensors import CameraFrame, EgoState, LidarSweep, SensorFrame
from planning.action import Action
from planning.policy import Observation, Policy
from sim.logs.log import Log, LogHeader
from sim.step import Standing, Step, StepObserver

OPEN_LOOP_NOTE = "open loop: each recorded frame is shown to the policy, and the world does not react to its actions"


@dataclass(frozen=True)
class ReplayResult:
    """What an open-loop replay gave, as plain values (`dataclasses.asdict` is JSON).

    actions: steer and throttle of each frame.
    action_error: absolute difference to the recorded action: steer_mean, steer_p95, throttle_mean, throttle_p95 (95th
        percentile), over the compared_frames that have a recorded action; empty where there is none.
    sensor_age_ms: by sensor, `mean` and `max` age of its readings at the instants of the frames.
    silent_frames: by sensor, frames without a reading, where there are any.
    recorded_actions: "as recorded", "estimated from odometry" or "none". route: "as recorded" or "from recorded path".
    """

    frames: int
    compared_frames: int
    action_error: dict[str, float]
    sensor_age_ms: dict[str, dict[str, float]]
    silent_frames: dict[str, int]
    recorded_actions: str
    route: str
    actions: list[list[float]]
    note: str = OPEN_LOOP_NOTE


def replay_open_loop(
    log: Log,
    policy: Policy,
    to_observation: Callable[[Sequence[SensorFrame]], Observation],
    observers: Sequence[StepObserver] = (),
) -> ReplayResult:
    """Show every frame of a log to a policy and compare its actions with the recorded ones.

    Args:
        to_observation: turns frames into the batched observation that the policy was made for.
        observers: see each step with the policy's action in place of the recorded one; they are closed at the end,
            also after an error.

    Raises:
        LogError: the log cannot be read. ValueError: the policy needs what a recording does not have.
    """
    actions: list[list[float]] = []
    differences: list[tuple[float, float]] = []
    ages_ms: defaultdict[str, list[float]] = defaultdict(list)
    silent: defaultdict[str, int] = defaultdict(int)
    policy.reset(np.ones(1, np.bool_))
    try:
        for step in log.steps():
            vector = np.asarray(policy.act(to_observation([step.frame]), None), np.float32)[0]
            given = Action(*np.clip(vector, -1.0, 1.0).tolist())
            actions.append([given.steer, given.throttle])
            if step.action is not None:
                differences.append((abs(given.steer - step.action.steer), abs(given.throttle - step.action.throttle)))
            ages = step.frame.sensor_age_us()
            for name in (*step.frame.cameras, *step.frame.lidars):
                if name in ages:
                    ages_ms[name].append(ages[name] / 1000)
                else:
                    silent[name] += 1
            shown = replace(step, action=given)
            for observer in observers:
                observer.on_step(shown)
    finally:
        for observer in observers:
            observer.close()
    origin = "estimated from odometry" if log.actions_estimated else "as recorded"
    return ReplayResult(
        frames=len(actions),
        compared_frames=len(differences),
        action_error=_action_error(differences),
        sensor_age_ms={name: {"mean": float(np.mean(v)), "max": max(v)} for name, v in sorted(ages_ms.items())},
        silent_frames=dict(silent),
        recorded_actions=origin if differences else "none",
        route="from recorded path" if log.route_from_path else "as recorded",
        actions=actions,
    )


def _action_error(differences: Sequence[tuple[float, float]]) -> dict[str, float]:
    if not differences:
        return {}
    steer, throttle = np.array(differences).T
    return {
        "steer_mean": float(steer.mean()),
        "steer_p95": float(np.percentile(steer, 95)),
        "throttle_mean": float(throttle.mean()),
        "throttle_p95": float(np.percentile(throttle, 95)),
    }


@dataclass(frozen=True)
class Difference:
    """The first place where two episodes part. recorded, simulated: both values there, in words."""

    tick: int
    topic: str
    field: str
    recorded: str
    simulated: str

    def __str__(self) -> str:
        place = f"tick {self.tick}, {self.topic}, {self.field}"
        return f"{place}: recorded {self.recorded}, simulated {self.simulated}"


@dataclass(frozen=True)
class Resimulation:
    """steps: how many were compared and equal. first_difference: None where all are.

    equal: there is at least one step, none is missing between two others, and all are equal.
    after_gap: tick of the first step that the log holds after steps it lost, where it lost any; nothing can be compared from
        there on, because the actions in between are not known.
    """

    equal: bool
    steps: int
    first_difference: Difference | None
    after_gap: int | None = None


def resimulate(log: Log, make_steps: Callable[[LogHeader, Iterator[Action | None]], Iterable[Step]]) -> Resimulation:
    """Drive the simulator again from a log of ours and compare every value with the recorded one.

    Args:
        make_steps: rebuilds the environment of the header and yields its steps, applying the actions one by one.

    Raises:
        ValueError: the log is not ours, so nothing says how to simulate it.
    """
    if log.header is None:
        raise ValueError(f"{log.path} is a {log.kind}: only logs that `automedon drive --record` wrote re-simulate")
    recorded, again = tee(log.steps())
    simulated = make_steps(log.header, (step.action for step in again))
    return compare_steps(recorded, simulated, log.image_sha256 if log.header.image_format == "jpeg" else None)


def compare_steps(
    recorded: Iterable[Step],
    simulated: Iterable[Step],
    image_sha256: Mapping[tuple[int, str], str] | None = None,
) -> Resimulation:
    """Compare two episodes step by step, every value by its bytes, up to the first difference.

    Args:
        recorded: may be shorter than the other where its log was cut off; it must not be longer. Where it leaves out a
            tick that the other has, the comparison ends.
        image_sha256: (tick, camera) to the digest of the recorded picture's bytes, compared instead of the pictures.
    """
    steps, last_tick = 0, -1
    for old, new in zip_longest(recorded, simulated):
        if old is None:
            break
        if new is None:
            missing = Difference(old.tick, "/frame", "step", "one more step", "the episode is over")
            return Resimulation(False, steps, missing)
        if old.tick not in (new.tick, last_tick + 1):
            return Resimulation(False, steps, None, after_gap=old.tick)
        last_tick = old.tick
        if old.standing is None:  # logs of version 1 did not hold it
            new = replace(new, standing=None)
        elif old.standing.parked is None and new.standing is not None:
            new = replace(new, standing=_as_of_version_3(new.standing, old.standing.off_lanes))
        if old.frame.gnss is None and old.frame.imu is None:  # nor those of version 2 what GNSS and IMU say
            new = replace(new, frame=replace(new.frame, gnss=None, imu=None))
        difference = _step_difference(old, new, image_sha256)
        if difference is not None:
            return Resimulation(False, steps, difference)
        steps += 1
    return Resimulation(steps > 0, steps, None)


def _as_of_version_3(standing: Standing, off_lanes: bool) -> Standing:
    """Without what logs up to version 3 did not hold, and with their own edge of lanes, which was half a metre stricter."""
    return replace(standing, parked=None, signal=None, signal_distance_m=None, off_lanes=off_lanes)


Value = tuple[str, str, object]


def _step_difference(old: Step, new: Step, image_sha256: Mapping[tuple[int, str], str] | None) -> Difference | None:
    """The first difference of two steps; sensors come first, as they say most about the cause."""
    for (topic, name, a), (other_topic, other_name, b) in zip_longest(
        _values(old), _values(new), fillvalue=("", "", "nothing")
    ):
        if (topic, name) != (other_topic, other_name):
            here, there = f"{topic} {name}".strip() or "nothing", f"{other_topic} {other_name}".strip() or "nothing"
            return Difference(old.tick, topic or other_topic, name or other_name, here, there)
        digest = None if image_sha256 is None or name != "image" else image_sha256.get((old.tick, topic.split("/")[2]))
        if digest is not None:
            found = hashlib.sha256(np.asarray(b).tobytes()).hexdigest()
            if found != digest:
                return Difference(old.tick, topic, "image (SHA-256 of its bytes)", digest, found)
        elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if a.dtype != b.dtype or a.shape != b.shape:
                was, now = f"{a.dtype} {a.shape}", f"{b.dtype} {b.shape}"
                return Difference(old.tick, topic, f"{name} (type and shape)", was, now)
            if a.tobytes() != b.tobytes():
                index = _first_unequal(a, b)
                place = f"{name}[{', '.join(map(str, index))}]"
                return Difference(old.tick, topic, place, str(a[index]), str(b[index]))
        elif repr(a) != repr(b):  # repr of a float is exact, and equal for NaN
            return Difference(old.tick, topic, name, repr(a), repr(b))
    return None


def _first_unequal(a: NDArray[Any], b: NDArray[Any]) -> tuple[int, ...]:
    """Index of the first element whose bytes differ."""
    size = a.dtype.itemsize
    bytes_a, bytes_b = (np.frombuffer(v.tobytes(), np.uint8).reshape(-1, size) for v in (a, b))
    flat = int(np.argmax((bytes_a != bytes_b).any(axis=1)))
    return tuple(int(i) for i in np.unravel_index(flat, a.shape))


def _values(step: Step) -> Iterator[Value]:
    """Everything that a step holds as (topic of the log, field, value), in a fixed order."""
    frame = step.frame
    yield "/frame", "tick", step.tick
    yield "/frame", "timestamp_us", step.timestamp_us
    yield "/frame", "frame timestamp_us", frame.timestamp_us
    for name, camera in sorted(frame.cameras.items()):
        yield from _camera_values(f"/camera/{name}", camera)
    for name, sweep in sorted(frame.lidars.items()):
        yield from _lidar_values(f"/lidar/{name}", sweep)
    yield from _ego_values(frame.ego)
    yield "/route", "points_in_ego", frame.route_in_ego
    yield from _navigation_values(frame)
    yield "/signals", "states", step.signals
    for name in ("instance", "kind", "center", "size", "yaw_rad", "speed_mps"):
        yield "/actors", name, None if step.actors is None else getattr(step.actors, name)
    yield "/reward", "reward", float(step.reward)
    for term, value in sorted(step.reward_terms.items()):
        yield "/reward", term, float(value)
    for event, sentence in sorted(step.events.items()):
        yield "/events", event, sentence
    yield "/frame", "progress_m", None if step.progress_m is None else float(step.progress_m)
    yield "/frame", "route_length_m", None if step.route_length_m is None else float(step.route_length_m)
    for name, fact in () if step.standing is None else asdict(step.standing).items():
        yield "/standing", name, fact
    yield "/action", "steer", None if step.action is None else float(step.action.steer)
    yield "/action", "throttle", None if step.action is None else float(step.action.throttle)


def _camera_values(topic: str, camera: CameraFrame | None) -> Iterator[Value]:
    if camera is None:
        yield topic, "image", None
        return
    yield f"{topic}/image", "timestamp_us", camera.timestamp_us
    yield f"{topic}/image", "image", camera.image
    for name in ("intrinsics", "distortion", "ego_from_camera"):
        yield f"{topic}/calibration", name, getattr(camera.calibration, name)
    yield f"{topic}/calibration", "distortion_model", camera.calibration.distortion_model


def _lidar_values(topic: str, sweep: LidarSweep | None) -> Iterator[Value]:
    if sweep is None:
        yield topic, "points", None
        return
    yield f"{topic}/points", "timestamp_us", sweep.timestamp_us
    yield f"{topic}/points", "points", sweep.points
    yield f"{topic}/points", "time_offset_us", sweep.time_offset_us
    yield f"{topic}/points", "ego_from_lidar", sweep.ego_from_lidar


def _navigation_values(frame: SensorFrame) -> Iterator[Value]:
    for topic, said in (("/gnss", frame.gnss), ("/imu", frame.imu)):
        if said is None:
            yield topic, "message", None
        else:
            for field in fields(said):
                yield topic, field.name, getattr(said, field.name)


def _ego_values(ego: EgoState | None) -> Iterator[Value]:
    if ego is None:
        yield "/ego/state", "state", None
        return
    yield "/ego/state", "timestamp_us", ego.timestamp_us
    for name in ("speed_mps", "acceleration_mps2", "yaw_rate_radps", "last_steer", "last_throttle"):
        yield "/ego/state", name, float(getattr(ego, name))
    yield "/ego/state", "world_from_ego", ego.world_from_ego
