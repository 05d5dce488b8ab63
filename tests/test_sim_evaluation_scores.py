"""Driving scores: figures by hand, limits, and laws (more infractions never raise a score, order does not matter)."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.evaluation import pdm_score
from sim.evaluation.carla_score import (
    CARLA_KINDS,
    CARLA_VERSIONS,
    CarlaVersion,
    RouteRecord,
    completion,
    driving_score,
    is_complete,
    penalty,
)
from sim.evaluation.comfort import comfortable, fit_derivative, motion_of
from sim.evaluation.nuplan_score import (
    NuplanScores,
    drivable_area,
    driving_direction,
    ego_progress,
    making_progress,
    no_collision,
    speed_limit,
    time_to_collision,
)
from sim.evaluation.pdm_score import WindowScores, lane_keeping, mean_over_windows, windows

ORACLES = json.loads((Path(__file__).parent / "data" / "metric-oracles.json").read_text(encoding="utf-8"))
share = st.floats(0, 1)
records = st.builds(
    RouteRecord,
    share,
    st.dictionaries(st.sampled_from(CARLA_KINDS), st.integers(0, 4)),
    share,
    st.lists(share, max_size=4).map(tuple),
)


def test_carla_scores_by_hand() -> None:
    """Two vehicles and a red light on 80 % of a route, a tenth of it outside the lanes, once at half the others' speed."""
    record = RouteRecord(0.8, {"collision_vehicle": 2, "red_light": 1}, 0.1, (0.5,))
    assert driving_score(record, "1.0") == pytest.approx(80 * 0.9 * 0.6**2 * 0.7)
    assert driving_score(record, "2.0") == pytest.approx(80 * 0.9 * 0.6**2 * 0.7 * 0.85)
    assert driving_score(record, "2.1") == pytest.approx(80 * 0.9 / (1 + 2 * 0.7 + 0.4 + 0.4 * 0.5))
    emergency = RouteRecord(1.0, {"yield_emergency": 1, "scenario_timeout": 1})
    assert driving_score(emergency, "1.0") == 100.0
    assert driving_score(emergency, "2.0") == pytest.approx(49.0)
    assert driving_score(emergency, "2.1") == pytest.approx(100 / 1.8)


@pytest.mark.parametrize("version", CARLA_VERSIONS)
def test_each_infraction_alone_costs_what_the_table_says(version: CarlaVersion) -> None:
    expected = {
        "1.0": [0.5, 0.6, 0.65, 0.7, 0.8, 1.0, 1.0],
        "2.0": [0.5, 0.6, 0.65, 0.7, 0.8, 0.7, 0.7],
        "2.1": [1 / 2, 1 / 1.7, 1 / 1.6, 1 / 1.4, 1 / 1.25, 1 / 1.4, 1 / 1.4],
    }[version]
    assert [penalty(RouteRecord(1.0, {kind: 1}), version) for kind in CARLA_KINDS] == pytest.approx(expected)


@given(records, st.sampled_from(CARLA_KINDS), share)
def test_more_infractions_never_raise_a_carla_score(record: RouteRecord, kind: str, slow: float) -> None:
    more = {**record.counts, kind: record.counts.get(kind, 0) + 1}
    for version in CARLA_VERSIONS:
        score = driving_score(record, version)
        assert 0.0 <= score <= 100.0 * record.completion
        assert driving_score(replace(record, counts=more), version) <= score
        assert driving_score(replace(record, min_speed_shares=(*record.min_speed_shares, slow)), version) <= score
        assert driving_score(replace(record, off_lane_share=1.0), version) == 0.0
        assert driving_score(RouteRecord(record.completion), version) == pytest.approx(100 * record.completion)


@given(st.lists(records, min_size=1, max_size=6), st.randoms())
def test_order_of_routes_does_not_matter(routes: list[RouteRecord], random) -> None:
    shuffled = random.sample(routes, len(routes))
    for version in CARLA_VERSIONS:
        mean, other = (np.mean([driving_score(r, version) for r in rs]) for rs in (routes, shuffled))
        assert mean == pytest.approx(other)


def test_a_route_is_complete_near_its_end_only() -> None:
    assert is_complete(995.0, 1000.0)
    assert not is_complete(989.0, 1000.0)  # 98.9 %
    assert not is_complete(2985.0, 3000.0)  # 99.5 %, but 15 m are left
    assert completion(995.0, 1000.0) == 1.0
    assert completion(989.0, 1000.0) == pytest.approx(0.989)
    assert (completion(-1.0, 50.0), completion(0.0, 0.0)) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [{"completion": 1.1}, {"completion": 0.5, "counts": {"jaywalking": 1}},
                                 {"completion": 0.5, "counts": {"red_light": -1}}])  # fmt: skip
def test_a_record_that_makes_no_sense_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="got"):
        RouteRecord(**bad)


@pytest.mark.parametrize("case", ORACLES["derivatives"], ids=lambda case: f"{case['window']}-{case['derivative']}")
def test_derivatives_are_those_of_scipy(case: dict) -> None:
    ours = fit_derivative(np.array(case["values"]), case["window"], case["order"], case["derivative"], 0.1)
    assert ours == pytest.approx(case["fitted"], abs=1e-7)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.integers(15, 60))
def test_a_polynomial_is_differentiated_exactly(coefficients: list[float], count: int) -> None:
    c0, c1, c2 = coefficients
    t = 0.1 * np.arange(count)
    values = c0 + c1 * t + c2 * t**2
    assert fit_derivative(values, 15, 2, 1, 0.1) == pytest.approx(c1 + 2 * c2 * t, abs=1e-6)
    assert fit_derivative(values, 15, 2, 0, 0.1) == pytest.approx(values, abs=1e-7)


def drive(acceleration: float, yaw_rate: float, ticks: int = 60) -> np.ndarray:
    t = 0.1 * np.arange(ticks)
    speed = 5.0 + acceleration * t
    motion = motion_of(speed, np.full(ticks, acceleration), yaw_rate * t, np.full(ticks, yaw_rate), 0.1)
    return comfortable(motion)


@pytest.mark.parametrize(
    ("acceleration", "yaw_rate", "comfort"),
    [(0.0, 0.0, True), (2.3, 0.0, True), (2.5, 0.0, False), (-0.8, 0.0, True), (0.0, 0.9, True), (0.0, 1.0, False)],
)
def test_steady_driving_is_comfortable_within_the_bounds(acceleration: float, yaw_rate: float, comfort: bool) -> None:
    assert bool(drive(acceleration, yaw_rate).all()) is comfort


def test_yaw_is_taken_from_five_ticks_and_not_smoothed_away() -> None:
    """A jerk of the wheel of 0.4 s: fits over 1.5 s would not see it."""
    yaw = np.concatenate([np.zeros(30), 0.1 * np.arange(1, 6), np.full(30, 0.5)])
    still = np.zeros(len(yaw))
    felt = motion_of(still, still, yaw, still, 0.1)
    assert felt.yaw_rate_radps.max() == pytest.approx(1.0)
    assert np.abs(felt.yaw_acceleration_radps2).max() > 2.0
    assert not comfortable(felt).all()


def test_one_fit_over_a_window_is_one_parabola() -> None:
    """Hard braking for half a second disappears in the fit over 4 s that NAVSIM's first version takes; hard turning does not."""
    still, brakes, t = np.zeros(41), np.zeros(41), 0.1 * np.arange(41)
    brakes[18:23] = -6.0
    assert not comfortable(motion_of(still, brakes, still, still, 0.1)).all()
    fitted = motion_of(still, brakes, still, still, 0.1, one_fit=True)
    assert comfortable(fitted).all()
    parabola = np.polynomial.Polynomial.fit(t, brakes, 2)
    assert fitted.longitudinal_mps2 == pytest.approx(parabola(t), abs=1e-7)
    smoothed = fit_derivative(brakes, 8, 2, 0, 0.1)
    assert fitted.longitudinal_jerk_mps3 == pytest.approx(
        np.polynomial.Polynomial.fit(t, smoothed, 2).deriv()(t), abs=1e-6
    )
    assert not comfortable(motion_of(still, still, 1.0 * t, still, 0.1, one_fit=True)).any()


def test_hard_braking_and_jerk_are_felt_where_they_happen() -> None:
    speed, acceleration = np.full(100, 10.0), np.zeros(100)
    acceleration[50:60] = -6.0
    felt = ~comfortable(motion_of(speed, acceleration, np.zeros(100), np.zeros(100), 0.1))
    assert felt[50:60].any()
    assert not felt[:40].any()
    assert not felt[70:].any()
    assert len(comfortable(motion_of(*np.zeros((4, 1)), 0.1))) == 1


def test_nuplan_multipliers_by_hand() -> None:
    assert no_collision({}) == 1.0
    assert [no_collision({"static": n}) for n in (1, 2)] == [0.5, 0.0]
    assert no_collision({"vehicle": 1}) == no_collision({"pedestrian": 2, "static": 1}) == 0.0
    assert drivable_area(np.array([0.0, 0.29])) == 1.0
    assert drivable_area(np.array([0.0, 0.3])) == 0.0
    assert [driving_direction(np.array([0.0] * 30 + [d] * 10 + [0.0] * 5), 0.1) for d in (0.19, 0.3, 0.61)] == [
        1,
        0.5,
        0,
    ]
    assert driving_direction(np.full(100, 0.18), 0.1) == 1.0  # only a second counts, not the sum
    assert driving_direction(np.full(11, 0.19), 0.1) == 0.5  # and the tick itself
    assert driving_direction(np.full(10, 0.19), 0.1) == 1.0
    assert [ego_progress(p, 100.0) for p in (0.0, 50.0, 150.0)] == [0.02, 0.5, 1.0]
    assert ego_progress(0.0, 0.0) == 1.0
    assert [making_progress(ep) for ep in (0.19, 0.2)] == [0.0, 1.0]
    assert [time_to_collision(np.array([np.inf, t])) for t in (0.9, 0.95)] == [0.0, 1.0]
    assert speed_limit(np.full(51, 11.0), np.full(51, 10.0), 0.1) == pytest.approx(1 - 51 / 50 / 2.23)
    assert speed_limit(np.full(1, 11.0), np.full(1, 10.0), 0.1) == 1.0
    assert speed_limit(np.full(50, 9.0), np.full(50, 10.0), 0.1) == 1.0
    assert speed_limit(np.full(50, 20.0), np.full(50, 10.0), 0.1) == 0.0


def test_nuplan_total_by_hand() -> None:
    best = NuplanScores(1, 1, 1, 1, 1, 1, 1, 1)
    assert best.total() == 1.0
    assert replace(best, ep=0.5, ttc=0, sl=0.5, c=0).total() == pytest.approx((2.5 + 2) / 16)
    assert replace(best, nc=0.5, ddc=0.5).total() == 0.25
    for name in ("nc", "dac", "mp", "ddc"):
        assert replace(best, **{name: 0.0}).total() == 0.0


sub_scores = st.builds(WindowScores, *[share] * 10)


@given(sub_scores, st.sampled_from([*WindowScores.__dataclass_fields__]), share)
def test_pdm_scores_lie_in_their_range_and_fall_with_every_part(scores: WindowScores, name: str, factor: float) -> None:
    worse = replace(scores, **{name: getattr(scores, name) * factor})
    for total in (WindowScores.pdms, WindowScores.epdms_without_plans):
        assert 0.0 <= total(scores) <= 1.0 + 1e-12
        assert total(worse) <= total(scores) + 1e-12


def test_pdm_scores_by_hand() -> None:
    assert WindowScores().pdms() == WindowScores().epdms_without_plans() == 1.0
    assert WindowScores(ep=0.5, c=0.0).pdms() == pytest.approx(7.5 / 12)
    assert WindowScores(ep=0.5, c=0.0).epdms_without_plans() == 1.0
    assert WindowScores(extended_ep=0.5).pdms() == 1.0
    assert WindowScores(extended_ep=0.5).epdms_without_plans() == pytest.approx(11.5 / 14)
    assert WindowScores(tlc=0.0).pdms() == 1.0
    assert WindowScores(tlc=0.0).epdms_without_plans() == 0.0
    assert WindowScores(lk=0.0, hc=0.0, ttc=0.0).epdms_without_plans() == pytest.approx(5 / 14)
    waived = WindowScores(tlc=0.0, lk=0.0, ep=0.3, hc=0.0).waived_by(WindowScores(tlc=0.0, ep=0.0, hc=0.0))
    assert waived == WindowScores(tlc=1.0, lk=0.0, ep=0.3, hc=0.0)
    assert [pdm_score.no_collision(hit) for hit in ([], ["static"] * 3, ["static", "vehicle"])] == [1.0, 0.5, 0.0]


@given(st.integers(0, 400))
def test_windows_cover_the_path_once(ticks: int) -> None:
    found = windows(ticks, 0.1)
    assert sum(last - first for first, last in found) == max(ticks - 1, 0)
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert all(0 < last - first <= 40 for first, last in found)


SAFE, HIT, SCRAPED, RED = WindowScores(), WindowScores(nc=0.0), WindowScores(nc=0.5), WindowScores(tlc=0.0)


@pytest.mark.parametrize(
    ("own", "progress_m", "human", "human_progress_m", "ep", "extended_ep"),
    [
        (SAFE, 4.9, SAFE, 2.0, 1.0, 1.0),  # nobody gets ahead
        (SAFE, 10.0, SAFE, 40.0, 0.25, 0.25),
        (SAFE, 40.0, SAFE, 10.0, 1.0, 1.0),
        (SAFE, 10.0, HIT, 40.0, 1.0, 1.0),  # who hits somebody got nowhere
        (SAFE, 0.0, HIT, 40.0, 1.0, 1.0),
        (HIT, 10.0, SAFE, 40.0, 0.0, 0.25),
        (HIT, 10.0, HIT, 40.0, 0.0, 1.0),
        (SCRAPED, 20.0, SAFE, 20.0, 0.5, 1.0),
        (RED, 20.0, SAFE, 40.0, 0.5, 0.5),
        (SAFE, 20.0, RED, 40.0, 0.5, 1.0),  # PDMS knows no red light
    ],
)
def test_progress_of_a_window(
    own: WindowScores,
    progress_m: float,
    human: WindowScores,
    human_progress_m: float,
    ep: float,
    extended_ep: float,
) -> None:
    assert own.with_progress(progress_m, human, human_progress_m) == replace(own, ep=ep, extended_ep=extended_ep)


def test_lane_keeping_of_a_window() -> None:
    off, on = np.full(20, 0.6), np.zeros(21)
    nowhere, here = np.zeros(41, np.bool_), np.arange(41) < 30
    assert lane_keeping(np.concatenate([on, off]), nowhere, 0.1) == 0.0
    assert lane_keeping(np.concatenate([on, off[1:], [0.0]]), nowhere, 0.1) == 1.0
    assert lane_keeping(np.concatenate([on, off]), ~nowhere, 0.1) == 1.0
    assert lane_keeping(np.concatenate([on, off]), here, 0.1) == 1.0
    # A junction in between neither counts nor excuses: 10 ticks before it and 10 after it are 20.
    assert lane_keeping(np.full(41, 0.6), (np.arange(41) >= 10) & (np.arange(41) < 31), 0.1) == 0.0
    assert lane_keeping(np.full(41, 0.6), (np.arange(41) >= 10) & (np.arange(41) < 32), 0.1) == 1.0
    assert lane_keeping(np.full(41, np.nan), nowhere, 0.1) == 0.0
    assert mean_over_windows([1.0, 0.0], [(0, 40), (40, 50)]) == pytest.approx(0.8)
    assert mean_over_windows([], []) == 0.0
