"""The world benchmark runs and reports what others rely on; CarRacing itself is an extra."""

import pytest

from sim.bench_world import _Driven, bench_world


def test_report_has_the_keys_that_others_rely_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("Box2D", reason="CarRacing needs the extra `bench`")
    pytest.importorskip("pygame", reason="CarRacing needs the extra `bench`")
    for name in ("SENSOR_ENVS", "PRIVILEGED_ENVS", "SMALL_BATCH"):
        monkeypatch.setattr(f"sim.bench_world.{name}", 2)
    monkeypatch.setattr("sim.bench_world.LARGE_BATCH", 4)
    report = bench_world(rounds=2, steps=2, resets=3, drives=False)
    for key in (
        "sensor_steps_per_s",
        "carracing_steps_per_s",
        "sensor_ratio",
        "privileged_steps_per_s",
        "batch_cost_ratio",
    ):
        assert report[key] > 0, key
    assert abs(report["rss_growth"]) < 0.5
    assert report["agents"] == 21


def test_seconds_are_those_of_one_step_of_one_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    driven = _Driven(4, 5, observation="privileged")
    monkeypatch.setattr(driven, "_step", lambda: 0.2)
    assert driven() == pytest.approx(0.05)
