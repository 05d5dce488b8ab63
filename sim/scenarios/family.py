"""A family of scenarios: title, what is drawn, where it can take place, how it begins, what is checked.

Knows places, placements and checks; each family fills one in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sim.scenarios.checks import Check
from sim.scenarios.draws import Draws, Parameters
from sim.scenarios.placement import Placement
from sim.scenarios.places import Places


@dataclass(frozen=True)
class Family:
    """One kind of scenario.

    number: of its random numbers, never used twice. maps: towns by name, the first is where it takes place unless told
    otherwise. sites: everything on a map where it can take place. place: how it begins at one
    site, or None where it turns out not to fit. actors: at most so many.
    """

    name: str
    number: int
    title: str
    description: str
    maps: tuple[str, ...]
    parameters: type[Parameters]
    sites: Callable[[Places], list[Any]]
    place: Callable[[Places, Any, Any, Draws], Placement | None]
    checks: tuple[Check, ...]
    actors: int
