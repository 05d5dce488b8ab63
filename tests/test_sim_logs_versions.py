"""Logs of every version of the format read, and are compared by what they hold."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from test_sim_logs_reader import SAMPLE

from perception.sensors import ImuSamples
from sim.logs.reader import open_log
from sim.replay import compare_steps
from sim.step import ParkedVehicle

FIX = (-67.06815373229, [0.29056491451634336, -1.5641198470124649, -0.9617679017183549])


def test_sample_of_version_1_reads() -> None:
    """A log that was written once and is never written again."""
    with open_log(SAMPLE) as log:
        steps = list(log.steps())
        assert log.header is not None
        assert (log.header.format_version, log.header.seed, log.header.episode) == (1, 2**61 + 1, 3)
        digests = []
        for step in steps:
            front, top = step.frame.cameras["front"], step.frame.lidars["top"]
            assert front is not None
            assert top is not None
            digests.append(hashlib.sha256(front.image.tobytes() + top.points.tobytes()).hexdigest()[:16])
        assert digests == ["c93b1ac759201cc2", "aa38c25280530ba7", "6fe59cdbc524662a"]
        assert [step.reward for step in steps] == [-1.161873305834576, -1.342972718457158, -0.27536744137430996]
        assert steps[1].frame.ego is not None
        assert steps[1].frame.ego.speed_mps == -0.8966814169071501
        assert steps[2].action is None
        assert log.summary.lines() == []


def test_sample_of_version_2_reads() -> None:
    """As that of version 1, and it says where the ego stood."""
    with open_log(SAMPLE.with_name("log-v2.mcap")) as log:
        steps = list(log.steps())
        assert log.header is not None
        assert log.header.format_version == 2
        assert [step.standing is None for step in steps] == [False, True, False]
        first, last = steps[0].standing, steps[2].standing
        assert first is not None
        assert last is not None
        assert (first.lane_offset_m, first.stop_sign_distance_m, first.touched) == (0.0, None, ())
        assert (last.lane_offset_m, last.stop_sign_distance_m, last.touched) == (None, 7.5, (3, -12))
        assert log.summary.lines() == []


def test_sample_of_version_3_reads() -> None:
    """As that of version 2, and it says what GNSS and IMU said."""
    with open_log(SAMPLE.with_name("log-v3.mcap")) as log:
        steps = list(log.steps())
        assert log.header is not None
        assert log.header.format_version == 3
        assert [step.frame.gnss is None for step in steps] == [False, True, False]
        fix, samples = steps[2].frame.gnss, steps[2].frame.imu
        assert fix is not None
        assert samples is not None
        assert (fix.latitude_deg, fix.velocity_mps.tolist()) == (FIX[0], FIX[1])
        assert samples.timestamp_us.tolist() == list(range(110_000, 200_001, 10_000))
        assert samples.acceleration_mps2.shape == samples.angular_rate_radps.shape == (10, 3)
        assert log.summary.lines() == []


def test_sample_of_version_4_reads() -> None:
    """As that of version 3, and it says who is parked ahead, and where the next signal's line is."""
    with open_log(SAMPLE.with_name("log-v4.mcap")) as log:
        steps = list(log.steps())
        assert log.header is not None
        assert log.header.format_version == 4
        first, last = steps[0].standing, steps[2].standing
        assert first is not None
        assert last is not None
        assert first.parked == ()
        assert (first.signal, first.signal_distance_m, last.signal, last.signal_distance_m) == (2, 3.25, -1, None)
        assert last.parked == (ParkedVehicle(-12, 0.2, -3.5, 1.57, 4.25, 1.8),)
        assert log.summary.lines() == []


def test_a_log_of_version_3_is_compared_without_the_parked_and_with_its_own_edge_of_lanes() -> None:
    with open_log(SAMPLE.with_name("log-v3.mcap")) as log:
        old = list(log.steps())
    with open_log(SAMPLE.with_name("log-v4.mcap")) as log:
        new = list(log.steps())
    assert [step.standing is None or step.standing.parked is step.standing.signal is None for step in old] == [True] * 3
    assert compare_steps(old, new).equal
    last = new[2].standing
    assert last is not None
    less_strict = [*new[:2], replace(new[2], standing=replace(last, off_lanes=not last.off_lanes))]
    assert compare_steps(old, less_strict).equal
    assert not compare_steps(new, less_strict).equal
    without = [
        step if step.standing is None else replace(step, standing=replace(step.standing, signal=-1)) for step in new
    ]
    assert compare_steps(old, without).equal
    assert not compare_steps(new, without).equal
    moved = replace(last, parked=(ParkedVehicle(-12, 0.3, -3.5, 1.57, 4.25, 1.8),))
    difference = compare_steps(new, [*new[:2], replace(new[2], standing=moved)]).first_difference
    assert difference is not None
    assert (difference.tick, difference.topic, difference.field) == (2, "/standing", "parked")


def test_a_log_without_gnss_and_imu_is_compared_without_them() -> None:
    with open_log(SAMPLE.with_name("log-v2.mcap")) as log:
        old = list(log.steps())
    newer = [replace(step, frame=replace(step.frame, imu=samples)) for step, samples in zip(old, _imu(), strict=True)]
    assert compare_steps(old, newer).equal
    difference = compare_steps(newer, old).first_difference
    assert difference is not None
    assert difference.topic == "/imu"


def _imu() -> list[ImuSamples]:
    with open_log(SAMPLE.with_name("log-v3.mcap")) as log:
        return [step.frame.imu for step in log.steps() if step.frame.imu is not None]
