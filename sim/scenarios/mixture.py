"""Free drives and scenarios of every family that a map has room for, mixed.

Knows families and maps; knows nothing about how a world runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.config import ConfigError
from sim.roads.driving_map import DrivingMap
from sim.scenarios.catalogue import NAMES, Scenario, ScenarioName
from sim.scenarios.draws import Draws
from sim.scenarios.placement import Placement
from sim.world import WorldConfig

MIXTURE = 100  # of its random numbers; no family has it
FREE = Placement((), 0.0, 0.0, 0.0)


class Mixture:
    """Which family an episode is of, and how it begins, depends on map, shares, seed and episode number alone."""

    def __init__(
        self,
        driving_map: DrivingMap,
        world: WorldConfig,
        share: float,
        more_of: Sequence[ScenarioName] = (),
        times: int = 1,
    ) -> None:
        """world: of the environments. share: of the episodes that are scenarios, in [0, 1].

        more_of: families that come so many `times` as often as others.
        """
        self._share = share
        self._scenarios: list[Scenario] = []
        for name in NAMES[1:] if share > 0 else ():
            try:
                scenario = Scenario(name, driving_map, world)
            except ConfigError:  # this map has no place for it, or the world too few agents
                continue
            self._scenarios += [scenario] * (times if name in more_of else 1)

    @property
    def names(self) -> tuple[str, ...]:
        """The families that are staged here."""
        return tuple(dict.fromkeys(scenario.family.name for scenario in self._scenarios))

    def place(self, seed: int, episode: int) -> Placement:
        """How an episode begins: every family as often as any other, or as said; where one finds no place, a free drive."""
        draws = Draws(seed, episode, MIXTURE)
        if draws.share() >= self._share or not self._scenarios:
            return FREE
        try:
            return draws.choice(self._scenarios).place(seed, episode)
        except ConfigError:  # none of the places that were tried is large enough
            return FREE
