"""The ego's kinematic single track: symmetry, convergence, closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planning.route_follower import RouteFollower
from sim import dynamics
from sim.dynamics import advance_ego

DT = 0.02


def drive(inputs, speed=0.0, dt=DT, steer_rad=0.0, drive_mps2=0.0):
    """Rows x, y, yaw, speed, drive, wheel angle, yaw rate after each of the inputs (steer, throttle)."""
    state = (0.0, 0.0, 0.0, speed, drive_mps2, steer_rad)
    rows = []
    for steer, throttle in inputs:
        *state, yaw_rate = advance_ego(*state, steer, throttle, dt)
        rows.append([*state, yaw_rate])
    return np.array(rows)


controls = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=60)


@settings(max_examples=50, deadline=None)
@given(controls, st.floats(0, 30))
def test_mirrored_input_gives_mirrored_path(inputs, speed):
    path = drive(inputs, speed)
    mirrored = drive([(-steer, throttle) for steer, throttle in inputs], speed)
    np.testing.assert_allclose(mirrored, path * [1, -1, -1, 1, 1, -1, -1], atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(controls)
def test_never_backwards_and_still_without_throttle(inputs):
    assert (drive(inputs)[:, 3] >= 0).all()
    still = drive([(steer, min(throttle, 0.0)) for steer, throttle in inputs])
    assert (still[:, :4] == 0).all()


def test_wheels_turn_no_faster_than_their_rate():
    path = drive([(1.0, 0.0)] * 30 + [(-1.0, 0.0)] * 120, speed=5.0)
    assert np.abs(np.diff(path[:, 5], prepend=0.0)).max() <= dynamics.STEER_RATE_RADPS * DT + 1e-12
    assert path[29, 5] > 0.4
    assert path[-1, 5] == pytest.approx(-dynamics.MAX_STEER_RAD, abs=0.01)


def test_circle_in_closed_form():
    wheels = 0.3
    radius = dynamics.WHEELBASE_M / math.tan(wheels)
    path = drive([(wheels / dynamics.MAX_STEER_RAD, 0.1)] * 400, speed=4.0, steer_rad=wheels)
    distance = np.hypot(path[:, 0], path[:, 1] - radius)
    np.testing.assert_allclose(distance, radius, atol=1e-9)


def test_half_the_substep_converges():
    def end(dt):
        times = np.arange(0, 6, dt)
        return drive([(0.5 * math.sin(t), 0.6 * math.cos(0.7 * t)) for t in times], speed=8.0, dt=dt)[-1, :3]

    coarse, middle, fine = end(0.04), end(0.02), end(0.01)
    assert np.linalg.norm(middle - fine) < 0.65 * np.linalg.norm(coarse - middle)
    assert np.linalg.norm(middle - fine) < 0.1


def test_full_brake_stops_within_the_distance_of_its_deceleration():
    speed = 15.0
    path = drive([(0.0, -1.0)] * 200, speed=speed)
    assert path[-1, 3] == 0.0
    ideal = speed**2 / (2 * dynamics.MAX_BRAKE_MPS2)
    assert ideal * 0.9 < path[-1, 0] < ideal + speed * 2 * dynamics.THROTTLE_LAG_S


def test_acceleration_falls_with_speed_and_lateral_acceleration_is_bounded():
    speeds = drive([(0.0, 1.0)] * 3000)[:, 3]
    gain = np.diff(speeds)
    assert gain[50:].argmax() < 300
    assert gain[-1] < 0.3 * gain[50:].max()
    fast = drive([(1.0, 0.0)] * 200, speed=25.0)
    assert (np.abs(fast[:, 6]) * fast[:, 3]).max() < dynamics.MAX_LATERAL_MPS2 * 1.02


def test_the_route_follower_knows_its_car():
    driver = RouteFollower()
    assert driver.wheelbase_m == dynamics.WHEELBASE_M
    assert driver.max_steer_rad == dynamics.MAX_STEER_RAD
    assert driver.max_acceleration_mps2 == dynamics.MAX_ACCELERATION_MPS2
    assert driver.power_wpkg == dynamics.POWER_PER_MASS_WPKG
    assert driver.max_brake_mps2 == dynamics.MAX_BRAKE_MPS2
    assert driver.rolling_mps2 == dynamics.ROLLING_MPS2
    assert driver.drag_per_m == dynamics.DRAG_PER_M
