"""All families of scenarios, and a scenario on a map: what the world, the environment and the command line ask for.

Knows families, maps and traces; knows nothing about how a world runs.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, get_args

from sim.config import ConfigError
from sim.dynamics import vehicle_of
from sim.roads.driving_map import DrivingMap
from sim.scenarios.ahead import CUT_IN, CUT_OUT, FOLLOWING, HARD_BRAKE, TRAFFIC_JAM
from sim.scenarios.checks import EVERYWHERE, Trace, judge
from sim.scenarios.draws import Draws, Parameters, bounds_of, draw_parameters
from sim.scenarios.family import Family
from sim.scenarios.junctions import (
    EMERGENCY_VEHICLE,
    MERGE,
    PRIORITY_JUNCTION,
    RED_LIGHT,
    RED_LIGHT_RUNNER,
    ROUNDABOUT,
    UNPROTECTED_LEFT,
)
from sim.scenarios.obstacles import BLOCKED_LANE, CYCLIST_OVERTAKEN, ONCOMING_OVERTAKER, ROAD_WORKS
from sim.scenarios.people import OCCLUDED_PEDESTRIAN, PEDESTRIAN_CROSSING
from sim.scenarios.placement import Placement
from sim.scenarios.places import Places
from sim.world import WorldConfig, num_walkers

ScenarioName = Literal[
    "free_drive", "following", "hard_brake", "cut_in", "cut_out", "blocked_lane", "merge", "roundabout", "unprotected_left",
    "priority_junction", "red_light", "red_light_runner", "pedestrian_crossing", "occluded_pedestrian", "cyclist_overtaken",
    "road_works", "traffic_jam", "oncoming_overtaker", "emergency_vehicle",
]  # fmt: skip
NAMES: tuple[ScenarioName, ...] = get_args(ScenarioName)
SITE_ATTEMPTS = 60


class NoParameters(Parameters):
    """Nothing is drawn but what every episode draws."""


FREE_DRIVE = Family(
    "free_drive", 1, "Free drive", "A route through normal traffic; nothing is staged.",
    ("grid-small", "town", "radial", "grid-large"), NoParameters, lambda places: [None],
    lambda places, site, parameters, draws: Placement((), 0.0, 0.0, 0.0), EVERYWHERE, 0,
)  # fmt: skip


def family_of(name: str) -> Family:
    """The family of that name.

    Raises:
        ConfigError: there is none.
    """
    match name:
        case "free_drive":
            return FREE_DRIVE
        case "following":
            return FOLLOWING
        case "hard_brake":
            return HARD_BRAKE
        case "cut_in":
            return CUT_IN
        case "cut_out":
            return CUT_OUT
        case "blocked_lane":
            return BLOCKED_LANE
        case "merge":
            return MERGE
        case "roundabout":
            return ROUNDABOUT
        case "unprotected_left":
            return UNPROTECTED_LEFT
        case "priority_junction":
            return PRIORITY_JUNCTION
        case "red_light":
            return RED_LIGHT
        case "red_light_runner":
            return RED_LIGHT_RUNNER
        case "pedestrian_crossing":
            return PEDESTRIAN_CROSSING
        case "occluded_pedestrian":
            return OCCLUDED_PEDESTRIAN
        case "cyclist_overtaken":
            return CYCLIST_OVERTAKEN
        case "road_works":
            return ROAD_WORKS
        case "traffic_jam":
            return TRAFFIC_JAM
        case "oncoming_overtaker":
            return ONCOMING_OVERTAKER
        case "emergency_vehicle":
            return EMERGENCY_VEHICLE
    close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"no scenario named {name!r}. Known: {', '.join(NAMES)}.{guess}")


def describe(name: str) -> dict[str, Any]:
    """What people want to know about a family, as plain values: name, title, description, maps, parameters, checks."""
    family = family_of(name)
    parameters = []
    for key, field in family.parameters.model_fields.items():
        bounds = bounds_of(family.parameters, key)
        number = field.annotation in (int, float)
        allowed = f"{bounds[0]:g} to {bounds[1]:g}" if number else ", ".join(map(str, bounds))
        parameters.append({"name": key, "allowed": allowed, "description": field.description or ""})
    return {
        "name": name, "title": family.title, "description": family.description, "maps": list(family.maps),
        "parameters": parameters, "checks": {check.name: check.words for check in family.checks},
    }  # fmt: skip


class Scenario:
    """A family on a map. What an episode is depends on map, family, seed and episode number alone."""

    def __init__(self, name: str, driving_map: DrivingMap, world: WorldConfig) -> None:
        """world: of the environments in which it is staged.

        Raises:
            ConfigError: the map has no place for the scenario, drives on the left or is a recording, or there are too few agents
                beside the ego and people on foot.
        """
        self.family = family_of(name)
        if driving_map.network.left_hand:
            raise ConfigError(
                f"scenario {name!r} is written for right-hand traffic; {driving_map.name!r} drives on the left"
            )
        if driving_map.recording is not None:
            raise ConfigError(
                f"scenario {name!r} cannot be staged on the recording {driving_map.name!r}; give a town or a map"
            )
        actors, left = self.family.actors, world.agents - 1 - num_walkers(driving_map, world)
        if left < actors:
            raise ConfigError(
                f"scenario {name!r} needs {actors} agents beside the ego and people on foot, and of env.world.agents ="
                f" {world.agents} there are {left}; give more, or a smaller env.world.walker_share"
            )
        self._map_name = driving_map.name
        ego = vehicle_of(world.vehicle, world.vehicle_model)
        self._places = Places(driving_map.network, driving_map.scenery, 0.5 * ego.length)
        self._sites = self.family.sites(self._places)
        if not self._sites:
            raise self._no_place()

    def _no_place(self) -> ConfigError:
        towns = ", ".join(self.family.maps)
        return ConfigError(
            f"map {self._map_name!r} has no place for scenario {self.family.name!r}; towns that do: {towns}"
        )

    def parameters(self, seed: int, episode: int) -> Parameters:
        """What is drawn for an episode, and where its place does not allow that, what it has instead.

        Raises:
            ConfigError: as `place` does.
        """
        drawn = draw_parameters(self.family.parameters, Draws(seed, episode, self.family.number))
        return drawn.model_copy(update=dict(self.place(seed, episode).given))

    def place(self, seed: int, episode: int) -> Placement:
        """How an episode begins.

        Raises:
            ConfigError: none of the places that were tried is large enough.
        """
        draws = Draws(seed, episode, self.family.number)
        parameters = draw_parameters(self.family.parameters, draws)
        for _ in range(SITE_ATTEMPTS):
            placement = self.family.place(self._places, draws.choice(self._sites), parameters, draws)
            if placement is not None:
                return placement
        raise self._no_place()

    def judge(self, trace: Trace, placement: Placement) -> dict[str, bool]:
        """The family's checks by name, and whether each holds."""
        return judge(self.family.checks, trace, placement)
