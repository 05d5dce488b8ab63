"""Traffic: the car-following law, who gives way, and signal programs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.roads.driving_map import load_map
from sim.roads.network import LaneKind
from sim.traffic.right_of_way import stops_at_yellow, travel_time
from sim.traffic.signals import SignalPrograms, build_signal_programs, show_signals
from sim.traffic.vehicles import HARDEST_BRAKE_MPS2, STANDSTILL_GAP_M, idm


def test_idm_equilibrium_gap_in_closed_form():
    for speed in (2.0, 8.0, 12.0):
        wanted, headway = 14.0, 1.4
        # The smaller of the free and the following term decides: at rest with each other at the desired gap itself.
        assert idm(speed, wanted, STANDSTILL_GAP_M + speed * headway, speed, headway, 1.5) == pytest.approx(0.0)
        # The textbook's gap adds both terms and is wider; there we may close in, but no faster than on a free road.
        gap = (STANDSTILL_GAP_M + speed * headway) / math.sqrt(1 - (speed / wanted) ** 4)
        pull = idm(speed, wanted, gap, speed, headway, 1.5)
        assert 0.0 <= pull <= 1.5 * (1 - (speed / wanted) ** 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_platoon_never_collides(seed):
    rng = np.random.default_rng(seed)
    count = 8
    position = -np.cumsum(rng.uniform(7.0, 20.0, count))
    speed = np.zeros(count)
    headway, most, wanted = rng.uniform(1.2, 2.0, count), rng.uniform(1.0, 2.6, count), rng.uniform(7.0, 16.0, count)
    order = 0.0
    for tick in range(900):
        if tick % 40 == 0:
            order = rng.choice([-6.0, -2.0, 0.0, 1.5])
        gap = position[:-1] - position[1:] - 5.0
        assert gap.min() > 0.2
        pull = np.array(
            [idm(speed[k], wanted[k], gap[k - 1], speed[k - 1], headway[k], most[k]) for k in range(1, count)]
        )
        assert (pull >= -HARDEST_BRAKE_MPS2).all()
        pull = np.concatenate([[order], pull])
        faster = np.clip(speed + 0.1 * pull, 0.0, 16.0)
        position += 0.05 * (speed + faster)
        speed = faster


@given(st.floats(0.1, 200), st.floats(0, 20), st.floats(0.5, 3), st.floats(1, 25))
def test_travel_time_covers_the_distance(distance, speed, acceleration, most):
    seconds = travel_time(distance, speed, acceleration, most)
    most = max(most, speed, 0.5)
    gaining = min((most - speed) / acceleration, seconds)
    covered = speed * gaining + 0.5 * acceleration * gaining**2 + most * (seconds - gaining)
    assert covered == pytest.approx(distance, rel=1e-9, abs=1e-9)


def test_yellow_is_run_only_where_stopping_is_harsh():
    assert stops_at_yellow(30.0, 10.0)
    assert not stops_at_yellow(10.0, 14.0)


def test_signals_keep_their_program_for_ever():
    programs = SignalPrograms(
        np.array([0, 2], np.int32),
        np.array([0, 3], np.int32),
        np.array([10_000, 13_000, 20_000]),
        np.array([[3, 1], [2, 1], [1, 3]], np.int8),
        np.array([4_000]),
    )
    shown = np.zeros(2, np.int8)
    for time_ms in [*range(0, 60_000, 100), 864_000_000, 864_000_100]:
        show_signals(programs, time_ms, shown)
        at = (time_ms - 4_000) % 20_000
        expected = [3, 1] if at < 10_000 else [2, 1] if at < 13_000 else [1, 3]
        assert shown.tolist() == expected


def test_every_signal_of_a_town_turns_green_and_red_and_shows_yellow_between():
    network = load_map("grid-small").network
    programs = build_signal_programs(network)
    shown = np.zeros((1200, int(programs.link_start[-1])), np.int8)
    for tick in range(1200):
        show_signals(programs, tick * 100, shown[tick])
    vehicles = network.lane_signal_link[network.lane_kind == LaneKind.DRIVING]
    shown = shown[:, vehicles[vehicles >= 0]]
    assert shown.size > 0
    assert (shown == 3).any(axis=0).all()
    assert (shown == 1).any(axis=0).all()
    assert not ((shown[:-1] == 3) & (shown[1:] == 1)).any()
