"""Red lights and stop signs, counted by where the car is as it passes their lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from test_sim_evaluation_tracks import ROOMY, step_at

from planning.policy import SignalState
from sim.evaluation.track import Track
from sim.evaluation.track_observer import track_of
from sim.step import Step


def stop_drive(speeds: list[float]) -> Track:
    steps, x = [], 0.0
    for tick, speed in enumerate(speeds):
        x += 0.1 * speed
        distance = 20.0 - x
        standing = replace(
            ROOMY, stop_sign=42 if distance > -8 else -1, stop_sign_distance_m=distance if distance > -8 else None
        )
        steps.append(step_at(tick, x, speed, standing))
    return track_of(steps)


def signal_drive(speeds: list[float], red_from: int, red_until: int, known: bool = True) -> list[str]:
    """Infractions of an ego whose front is 10 m before a line, whose signal is red from a tick to another and else yellow."""
    steps, x = [], 0.0
    for tick, speed in enumerate(speeds):
        x += 0.1 * speed
        seen = known and 10.0 - x > -10.0
        link = (1 if seen else -1) if known else None
        standing = replace(ROOMY, signal=link, signal_distance_m=10.0 - x if seen else None)
        events = {} if known or not 10.0 <= x < 10.0 + 0.1 * speed else {"red_light": "crossed a stop line at red"}
        state = SignalState.RED if red_from <= tick < red_until else SignalState.YELLOW
        step = step_at(tick, x, speed, standing, **events)
        steps.append(replace(step, signals=np.array([SignalState.RED, state], np.int8)))
    return [infraction.kind for infraction in track_of(steps).infractions]


def test_a_red_light_is_run_when_the_tail_passes_the_line() -> None:
    """The front passes it at tick 9, the tail 4.6 m later, at tick 14."""
    through = [10.0] * 40
    assert signal_drive(through, 0, 40) == ["red_light"]
    assert signal_drive(through, 12, 40) == ["red_light"]  # yellow when the front passed
    assert signal_drive(through, 0, 12) == []  # red when the front passed, no more when the tail did
    assert signal_drive(through, 16, 40) == []
    waits_on_the_line = [10.0] * 11 + [0.0] * 60 + [5.0] * 30
    assert signal_drive(waits_on_the_line, 0, 60) == []
    assert signal_drive(waits_on_the_line, 0, 200) == ["red_light"]
    assert signal_drive(through, 0, 0, known=False) == ["red_light"]  # logs of version 3 say it of the front


def test_a_stop_sign_wants_a_standstill_before_its_line() -> None:
    def kinds(speeds: list[float]) -> list[str]:
        return [infraction.kind for infraction in stop_drive(speeds).infractions]

    assert kinds([5.0] * 80) == ["stop_sign"]
    assert kinds([5.0] * 36 + [0.0] * 3 + [5.0] * 40) == []
    assert kinds([5.0] * 20 + [0.0] * 3 + [5.0] * 60) == ["stop_sign"]  # 10 m before it
    assert kinds([5.0] * 30 + [0.0] * 60) == []  # never passed


def test_a_stop_sign_is_judged_each_time_it_is_passed() -> None:
    def lap(first: int, stops: bool) -> list[Step]:
        ways = [(6.0, 5.0), (3.0, 0.0 if stops else 5.0), (-1.0, 5.0), (-3.0, 5.0), (None, 5.0)]
        signs = [replace(ROOMY, stop_sign=-1 if at is None else 42, stop_sign_distance_m=at) for at, _ in ways]
        return [step_at(first + k, 0.5 * (first + k), ways[k][1], sign) for k, sign in enumerate(signs)]

    track = track_of([step for n, stops in enumerate((False, True, False)) for step in lap(5 * n, stops)])
    assert [(infraction.kind, infraction.tick) for infraction in track.infractions] == [
        ("stop_sign", 2),
        ("stop_sign", 12),
    ]
