"""The rule-based driver on invented situations: symmetric, stops where it must, smooth."""

import numpy as np
import pytest

from perception.sensors import ROUTE_POINTS, ROUTE_SPACING_M
from planning.constant import CONSTANT, IDLE
from planning.policy import SignalState, Situation
from planning.route_follower import RouteFollower


def situation(speed=8.0, curvature=0.0, signal=SignalState.NONE, **changes) -> Situation:
    """One ego on an arc."""
    s = ROUTE_SPACING_M * np.arange(1, ROUTE_POINTS + 1)
    if curvature:
        route = np.stack([np.sin(s * curvature) / curvature, (1 - np.cos(s * curvature)) / curvature], axis=1)
    else:
        route = np.stack([s, 0 * s], axis=1)
    values = {
        "speed_mps": speed,
        "speed_limit_mps": 13.9,
        "goal_distance_m": 300.0,
        "leader_gap_m": np.inf,
        "leader_speed_mps": 0.0,
        "stop_line_distance_m": np.inf,
        "yield_distance_m": np.inf,
        **changes,
    }
    arrays = {k: np.array([v], np.float64) for k, v in values.items()}
    return Situation(route_in_ego=route[None].astype(np.float32), signal=np.array([signal], np.int8), **arrays)


def act(**kwargs):
    return RouteFollower().act({}, situation(**kwargs))[0]


def brake_to(distance_name, line, speed=12.0, signal=SignalState.NONE):
    """Where a point mass that follows the driver comes to rest within 40 s, its speed there, and its throttles."""
    driver, position, throttles = RouteFollower(), 0.0, []
    for _ in range(400):
        view = situation(speed=speed, signal=signal, **{distance_name: line - position})
        throttle = float(driver.act({}, view)[0, 1])
        throttles.append(throttle)
        most = min(3.0, 36.0 / max(speed, 1.0))
        acceleration = throttle * (most if throttle > 0 else 8.0) - 0.12 - 0.0004 * speed**2
        faster = max(0.0, speed + 0.1 * acceleration)
        position += 0.05 * (speed + faster)
        speed = faster
    return position, speed, np.array(throttles)


def test_needs_the_privileged_view():
    with pytest.raises(ValueError, match="privileged"):
        RouteFollower().act({}, None)
    assert RouteFollower().name == "expert"


@pytest.mark.parametrize("curvature", [0.01, 0.05, 0.1])
def test_steers_along_an_arc_and_mirrors(curvature):
    left, right = act(curvature=curvature), act(curvature=-curvature)
    assert left[0] == pytest.approx(-right[0], abs=1e-5)
    assert left[0] * 0.6 == pytest.approx(np.arctan(2.8 * curvature), rel=0.05)
    assert left[1] == pytest.approx(right[1], abs=1e-5)


def test_slows_before_a_curve_and_keeps_the_limit():
    assert act(speed=13.0, curvature=0.08)[1] < -0.05
    assert act(speed=4.0, curvature=0.05)[1] > 0.05
    assert act(speed=16.0)[1] < 0.0
    assert act(speed=5.0)[1] > 0.2


@pytest.mark.parametrize(
    ("name", "signal"), [("stop_line_distance_m", SignalState.RED), ("yield_distance_m", SignalState.NONE)]
)
@pytest.mark.parametrize("speed", [3.0, 12.0])
def test_stops_a_metre_before_the_line_smoothly(name, signal, speed):
    position, rest, throttles = brake_to(name, 60.0, speed, signal)
    assert rest == 0.0
    assert 58.3 < position < 59.6
    assert throttles.min() > -0.5
    assert np.abs(np.diff(throttles)).max() < 0.3


def test_goes_on_at_green_and_runs_a_yellow_that_comes_too_late():
    assert act(stop_line_distance_m=20.0, signal=SignalState.GREEN)[1] > 0.1
    assert act(speed=12.0, stop_line_distance_m=8.0, signal=SignalState.YELLOW)[1] > 0.0
    assert act(speed=12.0, stop_line_distance_m=40.0, signal=SignalState.YELLOW)[1] < 0.0


def test_stops_behind_a_standing_leader():
    position, rest, _ = brake_to("leader_gap_m", 70.0, 12.0)
    assert rest < 0.05
    assert 66.0 < position < 69.0


def test_idle_brakes_and_constant_rolls():
    observation = {"ego": np.zeros((3, 5), np.float32)}
    assert IDLE.act(observation, None).tolist() == [[0.0, -1.0]] * 3
    assert (CONSTANT.act(observation, None) == np.float32([0.0, 0.1])).all()
