"""What scenarios check: gaps between boxes against OpenCV, whose trace it is, and that each check can hold and fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sim_scenarios import batch_of, start, trace_of

from sim.scenarios.catalogue import NAMES, family_of
from sim.scenarios.checks import EVERYWHERE, Trace, gap_to, judge
from sim.scenarios.placement import Actor, Placement
from sim.scenarios.recorder import TraceRecorder
from sim.traffic.spawning import CAR_KIND


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-20, 20), st.floats(-20, 20), st.floats(-3.2, 3.2), st.floats(-3.2, 3.2), st.floats(0.4, 12), st.floats(0.4, 2.5)
)  # fmt: skip
def test_gap_between_boxes_against_opencv(
    x: float, y: float, yaw: float, other: float, length: float, width: float
) -> None:
    """Corners and edges of both boxes sampled finely, and whether OpenCV says that the rectangles intersect."""
    import cv2

    trace = trace_of(np.array([[[0.0, 0.0], [x, y]]]), np.array([[yaw, other]]), [4.6, length], [1.8, width])
    rectangles = [
        ((0.0, 0.0), (4.6, 1.8), np.degrees(yaw)), ((x, y), (length, width), np.degrees(other)),
    ]  # fmt: skip
    overlap = cv2.rotatedRectangleIntersection(*rectangles)[0] != cv2.INTERSECT_NONE
    corners = [cv2.boxPoints(r).astype(np.float64) for r in rectangles]
    edges = [np.concatenate([np.linspace(c[k], c[(k + 1) % 4], 200) for k in range(4)]) for c in corners]
    exact = 0.0 if overlap else float(np.hypot(*(edges[0][:, None] - edges[1][None]).transpose(2, 0, 1)).min())
    assert gap_to(trace, 1)[0] == pytest.approx(exact, abs=0.08)


def side_by_side(gap_m: float, ticks: int = 10, **more) -> Trace:
    xy = np.zeros((ticks, 2, 2))
    xy[:, :, 0] = np.arange(ticks)[:, None]
    xy[:, 1, 1] = 1.8 + gap_m
    return trace_of(xy, 0.0, [4.5, 4.5], [1.8, 1.8], **more)


def test_a_trace_is_of_the_actors_alone_and_not_of_who_drives_in_their_places() -> None:
    """An actor's place goes to another vehicle once it is out of sight."""
    batch = batch_of("merge", 3)
    start(batch, [0, 1, 2])
    state = batch.world.state
    recorder = TraceRecorder(batch.world, 4)
    recorder.begin(np.ones(3, np.bool_))
    recorder.record()
    length, width = state.length_m[:, :5].copy(), state.width_m[:, :5].copy()
    active = [state.active[0, :5].copy()]
    for _ in range(3):
        for there, other in ((0, 0.3), (1, 1.7)):
            state.active[0, 2] = there
            state.length_m[0, 2], state.width_m[0, 2] = length[0, 2] + other, width[0, 2] + other
            recorder.record()
            active.append(state.active[0, :5].copy())
    trace = recorder.trace(0, frozenset())
    assert np.array(active)[:, 2].tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert trace.active[:, 2].tolist() == [True] + [False] * 6
    assert trace.active[:, [0, 1]].all()
    assert (trace.length_m == length[0]).all()
    assert (trace.width_m == width[0]).all()
    assert np.isinf(gap_to(trace, 2)[1:]).all()
    start(batch, [0, 1, 2])
    recorder.begin(np.array([True, False, False]))
    recorder.record()
    assert recorder.trace(0, frozenset()).active[:, 2].tolist() == [True]


def test_each_check_can_hold_and_fail() -> None:
    def placed(name: str) -> Placement:
        return Placement((0,), 0.0, 10.0, 5.0, (Actor(name, CAR_KIND),), marks={"passed_m": 5.0})

    def verdict(check: str, trace: Trace, name: str = "other") -> bool:
        checks = {c.name: c for n in NAMES for c in family_of(n).checks}
        return judge((checks[check],), trace, placed(name))[check]

    red = {"signal": np.ones(10, np.int8), "stop_line_m": np.full(10, 2.0)}
    standing = np.full((10, 2), 5.0)
    standing[7:, 0] = 0.0
    braking = np.zeros((10, 2))
    braking[4, 1] = -6.0
    pairs = {
        "no_collision": (side_by_side(3.0), side_by_side(3.0, infractions=frozenset({"collision_static"}))),
        "kept_rules": (side_by_side(3.0), side_by_side(3.0, infractions=frozenset({"wrong_way"}))),
        "arrived": (side_by_side(3.0), side_by_side(3.0, arrived=False)),
        "passed": (side_by_side(3.0), side_by_side(3.0, ticks=4)),
        "stopped_at_red": (side_by_side(3.0, speed_mps=standing, **red), side_by_side(3.0, **red)),
    }
    for check, (kept, broken) in pairs.items():
        assert verdict(check, kept)
        assert not verdict(check, broken)
    actors = {"gave_way": "priority 0", "kept_distance": "leader", "let_walk": "walker", "kept_side_gap": "cyclist"}
    for check, name in actors.items():
        assert verdict(check, side_by_side(1.3), name)
        assert not verdict(check, side_by_side(0.4), name)
        assert verdict(check, side_by_side(0.4), "somebody else")
    assert not verdict("gave_way", side_by_side(3.0, acceleration_mps2=braking), "priority 0")
    named = {check.name for name in NAMES for check in family_of(name).checks}
    assert named == {*pairs, *actors}
    assert all(family_of(name).checks[:3] == EVERYWHERE for name in NAMES)
