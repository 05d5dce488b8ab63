"""The ego's single tracks: symmetry, energy, convergence, closed forms, and commonroad-vehicle-models."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planning.route_follower import RouteFollower
from sim.drive import load_policy
from sim.dynamics import COMPACT, SEDAN, TRUCK, VAN, Vehicle, advance_ego, vehicle_of

DT = 0.02
PRESETS = (COMPACT, SEDAN, VAN, TRUCK)
X, Y, YAW, SPEED, DRIVE, WHEELS, SLIDE, YAW_RATE = range(8)


def drive(inputs, speed=0.0, dt=DT, steer_rad=0.0, drive_mps2=0.0, car=SEDAN):
    """Rows x, y, yaw, speed, drive, wheel angle, slide, yaw rate after each of the inputs (steer, throttle)."""
    state = (0.0, 0.0, 0.0, speed, drive_mps2, steer_rad, 0.0, 0.0)
    rows = []
    for steer, throttle in inputs:
        state = advance_ego(car, *state, steer, throttle, dt)
        rows.append(state)
    return np.array(rows)


def dynamic(car: Vehicle) -> Vehicle:
    return car._replace(dynamic=1.0)


cars = st.sampled_from([*PRESETS, *map(dynamic, PRESETS)])
controls = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=60)


@settings(max_examples=50, deadline=None)
@given(cars, controls, st.floats(0, 30))
def test_mirrored_input_gives_mirrored_path(car, inputs, speed):
    path = drive(inputs, speed, car=car)
    mirrored = drive([(-steer, throttle) for steer, throttle in inputs], speed, car=car)
    np.testing.assert_allclose(mirrored, path * [1, -1, -1, 1, 1, -1, -1, -1], atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(cars, controls)
def test_never_backwards_and_still_without_throttle(car, inputs):
    assert (drive(inputs, car=car)[:, SPEED] >= 0).all()
    still = drive([(steer, min(throttle, 0.0)) for steer, throttle in inputs], car=car)
    assert (still[:, :4] == 0).all()


def test_wheels_turn_no_faster_than_their_rate():
    path = drive([(1.0, 0.0)] * 30 + [(-1.0, 0.0)] * 120, speed=5.0)
    assert np.abs(np.diff(path[:, WHEELS], prepend=0.0)).max() <= SEDAN.steer_rate * DT + 1e-12
    assert path[29, WHEELS] > 0.4
    assert path[-1, WHEELS] == pytest.approx(-SEDAN.max_steer, abs=0.01)


def test_circle_in_closed_form():
    wheels = 0.3
    radius = SEDAN.wheelbase / math.tan(wheels)
    path = drive([(wheels / SEDAN.max_steer, 0.1)] * 400, speed=4.0, steer_rad=wheels)
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
    assert path[-1, SPEED] == 0.0
    ideal = speed**2 / (2 * SEDAN.max_brake)
    assert ideal * 0.9 < path[-1, 0] < ideal + speed * 2 * SEDAN.throttle_lag


def test_acceleration_falls_with_speed_and_lateral_acceleration_is_bounded():
    speeds = drive([(0.0, 1.0)] * 3000)[:, SPEED]
    gain = np.diff(speeds)
    assert gain[50:].argmax() < 300
    assert gain[-1] < 0.3 * gain[50:].max()
    fast = drive([(1.0, 0.0)] * 200, speed=25.0)
    assert (np.abs(fast[:, YAW_RATE]) * fast[:, SPEED]).max() < SEDAN.max_lateral * 1.02


@pytest.mark.parametrize("preset", ["sedan", "compact", "van", "truck"])
def test_the_route_follower_knows_its_car(preset):
    car = vehicle_of(preset, "kinematic")
    driver = load_policy("expert", car)
    assert driver.wheelbase_m == car.wheelbase
    assert driver.max_steer_rad == car.max_steer
    assert driver.max_acceleration_mps2 == car.max_acceleration
    assert driver.power_wpkg == car.power
    assert driver.max_brake_mps2 == car.max_brake
    assert driver.rolling_mps2 == car.rolling
    assert driver.drag_per_m == car.drag
    assert (driver == RouteFollower()) == (preset == "sedan")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PRESETS), controls, st.floats(0, 35), st.floats(-6, 6), st.floats(-1, 1))
def test_no_energy_from_nowhere(car, inputs, speed, slide, yaw_rate):
    """Kinetic energy, of turning included, grows by no more than the drive force gave, even out of a spin."""
    car = dynamic(car)

    def energy(state):
        moving = state[SPEED] ** 2 + state[SLIDE] ** 2
        return 0.5 * car.mass * moving + 0.5 * car.inertia * state[YAW_RATE] ** 2

    state = (0.0, 0.0, 0.0, speed, 0.0, 0.0, slide, yaw_rate)
    for steer, throttle in inputs:
        before, state = state, advance_ego(car, *state, steer, throttle, DT)
        fastest = max(before[SPEED], state[SPEED], math.hypot(before[SPEED], before[SLIDE]))
        work = car.mass * max(state[DRIVE], 0.0) * fastest * DT + car.mass * (max(state[DRIVE], 0.0) * DT) ** 2
        assert energy(state) <= energy(before) + work + 1e-9 * (1.0 + energy(before))


def test_a_car_without_throttle_slows_down_whatever_the_wheels_do():
    for car in PRESETS:
        for model in (car, dynamic(car)):
            path = drive([(math.sin(0.05 * k), 0.0) for k in range(500)], speed=20.0, car=model)
            moving = car.mass * (path[:, SPEED] ** 2 + path[:, SLIDE] ** 2) + car.inertia * path[:, YAW_RATE] ** 2
            assert (np.diff(moving if model.dynamic else path[:, SPEED]) < 0).all()


def oracle_parameters(car):
    return SimpleNamespace(
        a=car.front, b=car.wheelbase - car.front, h_s=car.gravity_height, m=car.mass, I_z=car.inertia,
        tire=SimpleNamespace(p_dy1=car.friction, p_ky1=-car.friction * car.front_stiffness),
        steering=SimpleNamespace(min=-2.0, max=2.0, v_min=-10.0, v_max=10.0),
        longitudinal=SimpleNamespace(v_min=-100.0, v_max=100.0, v_switch=50.0, a_max=50.0),
    )  # fmt: skip


def integrated(derivative, state, inputs, parameters, fine=4):
    """Fourth-order Runge-Kutta with inputs constant over each DT."""
    state, h = np.array(state, float), DT / fine
    for given_input in inputs:
        for _ in range(fine):
            k1 = np.array(derivative(state, given_input, parameters))
            k2 = np.array(derivative(state + 0.5 * h * k1, given_input, parameters))
            k3 = np.array(derivative(state + 0.5 * h * k2, given_input, parameters))
            k4 = np.array(derivative(state + h * k3, given_input, parameters))
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state


def maneuvers():
    """Ten seconds each of steer and throttle, by name, with the speed at the start."""
    t = np.arange(0, 10, DT)
    return {
        "slalom": (10.0, 0.12 * np.sin(1.3 * t), 0.2 * np.cos(0.5 * t)),
        "turn": (8.0, np.minimum(0.05 * t, 0.2), np.full_like(t, 0.1)),
        "brake in a bend": (18.0, np.full_like(t, 0.05), np.where(t > 4, -0.15, 0.1)),
        "lane change": (25.0, 0.03 * np.sin(2 * np.pi * t / 4) * (t < 4), np.full_like(t, 0.1)),
    }


@pytest.mark.parametrize("name", maneuvers())
@pytest.mark.parametrize("car", PRESETS)
def test_ten_seconds_agree_with_commonroad(car, name):
    """Within 1 % of the distance; both get the wheels' and the speed's rates of change that our actuators gave."""
    models = pytest.importorskip(
        "vehiclemodels.vehicle_dynamics_ks", reason="commonroad-vehicle-models is not installed"
    )
    dynamics_st = pytest.importorskip("vehiclemodels.vehicle_dynamics_st").vehicle_dynamics_st
    speed, steer, throttle = maneuvers()[name]
    parameters = oracle_parameters(car)

    def inputs_of(path):
        """commonroad's speed is that along the path, ours that along the car."""
        wheel_rate = np.diff(path[:, WHEELS], prepend=0.0) / DT
        return np.column_stack([wheel_rate, np.diff(np.hypot(path[:, SPEED], path[:, SLIDE]), prepend=speed) / DT])

    path = drive(zip(steer, throttle, strict=True), speed=speed, car=car)
    distance = path[:, SPEED].sum() * DT
    theirs = integrated(models.vehicle_dynamics_ks, [0, 0, 0, speed, 0], inputs_of(path), parameters)
    assert np.hypot(*(path[-1, [X, Y]] - theirs[:2])) < 0.01 * distance

    equal_tyres = dynamic(car)._replace(rear_stiffness=car.front_stiffness)
    path = drive(zip(steer, throttle, strict=True), speed=speed, car=equal_tyres)
    distance, rear = path[:, SPEED].sum() * DT, car.wheelbase - car.front
    theirs = integrated(dynamics_st, [rear, 0, 0, speed, 0, 0, 0], inputs_of(path), parameters)
    gravity = path[-1, [X, Y]] + rear * np.array([math.cos(path[-1, YAW]), math.sin(path[-1, YAW])])
    assert np.hypot(*(gravity - theirs[:2])) < 0.01 * distance
    assert path[-1, YAW] == pytest.approx(theirs[4], abs=0.03)


def test_the_dynamic_model_becomes_the_kinematic_one_when_slow():
    steer = [(0.4 * math.sin(0.02 * k), 0.12) for k in range(500)]
    slow, kinematic = drive(steer, speed=2.0, car=dynamic(SEDAN)), drive(steer, speed=2.0)
    distance = kinematic[:, SPEED].sum() * DT
    assert np.hypot(*(slow[-1, [X, Y]] - kinematic[-1, [X, Y]])) < 0.04 * distance
    crawl = drive([(1.0, 0.08)] * 300, car=dynamic(SEDAN))
    assert np.abs(crawl[-1, YAW_RATE] - crawl[-1, SPEED] * math.tan(crawl[-1, WHEELS]) / SEDAN.wheelbase) < 0.03


def test_tyres_saturate():
    """Full lock at speed: side acceleration stays below what friction allows, so the turn widens; braking takes from it."""
    for car in map(dynamic, PRESETS):
        for throttle in (0.0, -0.9):
            path = drive([(0.6, throttle)] * 150, speed=25.0, car=car)
            c, s = np.cos(path[:, YAW]), np.sin(path[:, YAW])
            velocity = np.column_stack(
                [path[:, SPEED] * c - path[:, SLIDE] * s, path[:, SPEED] * s + path[:, SLIDE] * c]
            )
            spun = np.flatnonzero(np.abs(path[:, SLIDE]) > path[:, SPEED])  # from there on the car would go backwards
            velocity = velocity[: spun[0] if len(spun) else None]
            acceleration = np.hypot(*np.diff(velocity, axis=0).T) / DT
            most = car.friction * 9.81
            assert acceleration.max() < 1.15 * most + car.rolling + car.drag * 25.0**2  # turned wheels add to the brake
            assert acceleration.max() > 0.7 * most


def test_a_heavier_car_needs_longer_and_turns_wider():
    full = [drive([(0.0, 1.0)] * 500, car=car)[-1, SPEED] for car in PRESETS]
    assert full[1] == max(full)
    assert full[3] == min(full)
    radius = [car.wheelbase / math.tan(car.max_steer) for car in PRESETS]
    assert radius[0] < radius[1] < radius[2]


def test_half_the_substep_converges_with_slipping_tyres():
    def end(dt):
        times = np.arange(0, 6, dt)
        inputs = [(0.15 * math.sin(t), 0.4 * math.cos(0.7 * t)) for t in times]
        return drive(inputs, speed=12.0, dt=dt, car=dynamic(SEDAN))[-1, :3]

    coarse, middle, fine = end(0.04), end(0.02), end(0.01)
    assert np.linalg.norm(middle - fine) < 0.65 * np.linalg.norm(coarse - middle)
    assert np.linalg.norm(middle - fine) < 0.5
