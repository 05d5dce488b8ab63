"""Random numbers of one scenario's episode, by counter, and parameters drawn within the bounds that their model states.

Knows pydantic and the counter-based generator; knows nothing about maps or traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, get_args

import annotated_types
import numpy as np
from pydantic import BaseModel, ConfigDict

from sim.counter_random import Purpose, hash_key, nth_uniform

T = TypeVar("T")


class Draws:
    """A row of random numbers that depends on seed, episode and the number of the scenario's family alone."""

    def __init__(self, seed: int, episode: int, family: int) -> None:
        self._key = np.uint64(hash_key(np.uint64(seed), episode, 0, family, int(Purpose.SCENARIO)))
        self._count = 0

    def share(self) -> float:
        """The next number in [0, 1)."""
        self._count += 1
        return float(nth_uniform(self._key, self._count))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.share()

    def choice(self, values: Sequence[T]) -> T:
        return values[int(self.share() * len(values))]


class Parameters(BaseModel):
    """What is drawn for one episode of a scenario. Every field states its bounds (ge, le) or its choices (Literal)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


P = TypeVar("P", bound=Parameters)


def bounds_of(model: type[Parameters], name: str) -> tuple[float, float] | tuple[Any, ...]:
    """Bounds (low, high) of a number, or the choices of a Literal."""
    field = model.model_fields[name]
    if field.annotation in (int, float):
        low = next(m.ge for m in field.metadata if isinstance(m, annotated_types.Ge))
        high = next(m.le for m in field.metadata if isinstance(m, annotated_types.Le))
        return float(low), float(high)  # type: ignore[arg-type]
    return get_args(field.annotation)


def draw_parameters(model: type[P], draws: Draws) -> P:
    """Every field drawn evenly within its bounds or among its choices, in the order in which they are declared."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        allowed = bounds_of(model, name)
        if field.annotation is float:
            values[name] = round(draws.uniform(*allowed), 3)
        elif field.annotation is int:
            values[name] = int(allowed[0]) + int(draws.share() * (allowed[1] - allowed[0] + 1))
        else:
            values[name] = draws.choice(allowed)
    return model(**values)
