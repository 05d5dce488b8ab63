"""Trainings that are killed on the way, for tests of resuming."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


class Killed(Exception):
    """Raised in place of the step at which a training is killed."""


def killed(*_: Any) -> Any:
    """In place of what runs when a training is killed."""
    raise Killed


def kill_at_step(loop: ModuleType, step: int, run: Callable[[], Any]) -> None:
    """Run a training whose loop learns in `loop._learn`, and kill it in place of its step-th call, counted from 1."""
    learn, calls = loop._learn, []

    def learn_until_killed(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == step:
            raise Killed
        return learn(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_learn", learn_until_killed)
        with pytest.raises(Killed):
            run()
