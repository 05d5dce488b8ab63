"""Which precision encoders compute in: asked for, or measured."""

from __future__ import annotations

import os

import pytest
import torch

from perception import precision


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_measurement_works_in_the_midst_of_inference(bfloat16: bool) -> None:
    with torch.inference_mode():
        assert precision._seconds(bfloat16) > 0


@pytest.mark.parametrize(("has", "gain", "taken"), [(True, 2.0, True), (True, 1.05, False), (False, 2.0, False)])
def test_bfloat16_is_taken_where_it_is_there_and_pays(
    monkeypatch: pytest.MonkeyPatch, has: bool, gain: float, taken: bool
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: has)
    monkeypatch.setattr(precision, "_seconds", lambda bfloat16: 1.0 if bfloat16 else gain)
    monkeypatch.delenv(precision.DECISION, raising=False)
    precision.bfloat16_is_faster.cache_clear()
    try:
        assert precision.bfloat16_is_faster() is taken
        with precision.autocast("auto"):
            y = torch.nn.Linear(4, 4)(torch.ones(1, 4))
    finally:
        os.environ.pop(precision.DECISION, None)  # where it was set before, it is again
        precision.bfloat16_is_faster.cache_clear()
    assert y.dtype == (torch.bfloat16 if taken else torch.float32)


@pytest.mark.parametrize("measured", [False, True])
def test_what_one_process_measured_holds_in_those_it_starts(monkeypatch: pytest.MonkeyPatch, measured: bool) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_seconds", lambda bfloat16: 1.0 if bfloat16 == measured else 2.0)
    monkeypatch.delenv(precision.DECISION, raising=False)
    precision.bfloat16_is_faster.cache_clear()
    try:
        assert precision.bfloat16_is_faster() is measured
        precision.bfloat16_is_faster.cache_clear()  # as in a process that inherits the environment, and measures otherwise
        monkeypatch.setattr(precision, "_seconds", lambda bfloat16: 1.0 if bfloat16 != measured else 2.0)
        assert precision.bfloat16_is_faster() is measured
    finally:
        os.environ.pop(precision.DECISION, None)
        precision.bfloat16_is_faster.cache_clear()
