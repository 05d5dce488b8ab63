"""Sensor synchronisation against its definition, for readings in any order."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from sim.logs.frames import MAX_HELD, Reading, in_time_order, synchronised
from sim.logs.log import LogSummary

SENSORS = ("camera", "lidar", "radar")
AGE_US, REORDER_US = 200, 500


@st.composite
def streams(draw: st.DrawFn) -> list[Reading[int]]:
    """Readings with distinct times per sensor, delivered at most REORDER_US late."""
    keys = st.tuples(st.sampled_from(SENSORS), st.integers(0, 3000))
    readings = [Reading(sensor, at, index) for index, (sensor, at) in enumerate(draw(st.sets(keys, max_size=40)))]
    delays = draw(st.lists(st.integers(0, REORDER_US), min_size=len(readings), max_size=len(readings)))
    order = sorted(range(len(readings)), key=lambda k: (readings[k].timestamp_us + delays[k], k))
    return [readings[k] for k in order]


@given(streams())
def test_frames_are_what_the_definition_says(stream: list[Reading[int]]) -> None:
    summary = LogSummary()
    frames = list(synchronised(stream, SENSORS, "lidar", summary, max_age_us=AGE_US, reorder_us=REORDER_US))
    assert [f.timestamp_us for f in frames] == sorted(r.timestamp_us for r in stream if r.sensor == "lidar")
    assert not summary.skipped
    for frame in frames:
        for sensor in SENSORS:
            before = [r for r in stream if r.sensor == sensor and r.timestamp_us <= frame.timestamp_us]
            newest = max(before, key=lambda r: r.timestamp_us, default=None)
            too_old = newest is not None and frame.timestamp_us - newest.timestamp_us > AGE_US
            assert frame.readings[sensor] == (None if too_old else newest)


@given(st.lists(st.tuples(st.sampled_from(SENSORS), st.integers(-(10**7), 10**7)), max_size=60))
def test_nothing_is_lost_silently_and_time_never_runs_back(stream: list[tuple[str, int]]) -> None:
    """Clocks may jump as they like: what does not come out is counted."""
    readings = [Reading(sensor, at, index) for index, (sensor, at) in enumerate(stream)]
    summary = LogSummary()
    out = list(in_time_order(readings, "lidar", summary, REORDER_US))
    times = [r.timestamp_us for r in out]
    assert times == sorted(times)
    assert len(out) + sum(summary.skipped.values()) == len(readings)


def test_frames_come_before_the_stream_ends() -> None:
    """Lazy: no more is held than the time that readings may be late, and the newest."""
    taken = 0

    def endless() -> Iterator[Reading[int]]:
        nonlocal taken
        while True:
            taken += 1
            yield Reading("lidar", taken * 100, taken)

    frames = synchronised(endless(), ["lidar"], "lidar", LogSummary(), reorder_us=REORDER_US)
    for wanted in range(1, 50):
        assert next(frames).timestamp_us == wanted * 100
        assert taken <= wanted + REORDER_US // 100 + 2


def test_one_stamp_in_the_future_costs_no_other_reading() -> None:
    """The camera's readings come after the LiDAR's and are of before them."""
    stream = []
    for k in range(100):
        stream.append(Reading("lidar", 100 * k + (10**9 if k == 30 else 0), k))
        stream.append(Reading("camera", 100 * k - 50, k))
    summary = LogSummary()
    out = list(in_time_order(stream, "lidar", summary, REORDER_US))
    assert not summary.skipped
    assert len(out) == 200
    assert out[-1].value == 30


def test_a_clock_that_stands_still_fills_no_memory() -> None:
    """All stamps are the same: readings come out before the stream ends, and none is lost."""
    taken = 0

    def still() -> Iterator[Reading[int]]:
        nonlocal taken
        for taken in range(1, 4 * MAX_HELD):
            yield Reading("lidar", 5, taken)

    summary = LogSummary()
    stream = in_time_order(still(), "lidar", summary)
    assert next(stream).value == 1
    assert taken == MAX_HELD + 1
    assert [reading.value for reading in stream] == list(range(2, 4 * MAX_HELD))
    assert not summary.skipped


def test_two_sweeps_of_one_time_make_one_frame() -> None:
    summary = LogSummary()
    twice = [Reading("lidar", 100, 0), Reading("lidar", 100, 1)]
    assert len(list(synchronised(twice, ["lidar"], "lidar", summary))) == 1
    assert sum(summary.skipped.values()) == 1
