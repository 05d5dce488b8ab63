"""Resuming PPO: with the configuration of the run only, from a sound state only, and with all of its curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_planning_ppo import SHORT, PointMass, network, run

from planning.checkpoint import read_tensors, write_tensors
from planning.ppo import PPOConfig, train
from planning.ppo_state import STATE, PPOError

RUN_CONFIG: dict[str, Any] = {
    "threads": 2,
    "maps": ("town:1", "town:2"),
    "env": {"reward": {"end_penalty": 50.0, "route_m": None}, "max_steps": 9},
    "start_from": "a.safetensors",
}


def train_as(out: Path, run_config: dict[str, Any], updates: int = 4) -> None:
    config = PPOConfig(**{**SHORT, "total_steps": updates * 64})
    train(PointMass(8), network(False), config, out, resume=True, run_config=run_config, quiet=True)


def edit_state(out: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    header, tensors = read_tensors(out / STATE)
    edit(header["state"])
    write_tensors(out / STATE, tensors, header)


def test_a_run_goes_on_with_its_own_configuration_only(tmp_path: Path) -> None:
    train_as(tmp_path, RUN_CONFIG, updates=2)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"maps": ["town:1"]}, r"maps was \['town:1', 'town:2'\] in that run and is \['town:1'\] now"),
        (
            {"env": {"reward": {"end_penalty": 300.0, "route_m": None}, "max_steps": 9}},
            r"env\.reward\.end_penalty was 50\.0 in that run and is 300\.0 now; resume with the same value",
        ),
        (
            {"env": {"reward": {"end_penalty": 50.0, "route_m": 100.0}, "max_steps": 9}},
            r"route_m was None .* is 100\.0",
        ),
        ({"start_from": None}, r"start_from was a\.safetensors in that run and is None now"),
    ]
    for change, message in changes:
        with pytest.raises(PPOError, match=message) as caught:
            train_as(tmp_path, {**RUN_CONFIG, **change})
        assert "\n" not in str(caught.value)
    newer = {**RUN_CONFIG, "env": {**RUN_CONFIG["env"], "weather": "fog"}, "threads": 1, "retries": None}
    train_as(tmp_path, newer)  # entries that are newer than the state, and threads


def test_a_state_that_does_not_say_its_configuration_is_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path, False, updates=2)
    edit_state(tmp_path, lambda state: state.pop("run_config"))
    train_as(tmp_path, RUN_CONFIG)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("update", "many"), ("best_return", "high"), ("best_return", 10**400), ("record", {"episodes": "few"}), ("record", 3),
        ("ppo", 3),
    ],
)  # fmt: skip
def test_a_malformed_state_is_one_line(tmp_path: Path, name: str, value: Any) -> None:
    run(tmp_path, False, updates=2)
    edit_state(tmp_path, lambda state: state.update({name: value}))
    with pytest.raises(PPOError, match="the training state is malformed") as caught:
        run(tmp_path, False, resume=True)
    assert "\n" not in str(caught.value)


def test_the_curves_of_a_resumed_run_have_no_gap(tmp_path: Path) -> None:
    run(tmp_path, False, updates=2)
    run(tmp_path, False, updates=4, resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [point.step for point in events.Scalars("ppo/value_loss")] == [64, 128, 192, 256]


def test_what_an_environment_says_of_episodes_is_kept_where_it_is_a_finite_number(tmp_path: Path) -> None:
    class Unsure(PointMass):
        """Its episodes have no `speed` that is a number, and now and then no `way`."""

        def step(self, actions: NDArray[np.float32]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
            *stepped, info = super().step(actions)
            if info:
                mask = info["_final_obs"]
                nothing, way = np.full(8, np.nan), np.where(np.arange(8) < 4, np.inf, 2.0)
                info["final_info"] |= {"speed": nothing, "_speed": mask, "way": way, "_way": mask}
            return (*stepped, info)  # type: ignore[return-value]

    config = PPOConfig(**{**SHORT, "total_steps": 4 * 64, "checkpoint_every": 4})
    train(Unsure(8, reaches=0.0), network(False), config, tmp_path, quiet=True)
    record = read_tensors(tmp_path / STATE)[0]["state"]["record"]
    assert record["final_info"] == {"is_success": [0.0] * 8, "way": [2.0] * 4}
