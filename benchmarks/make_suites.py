"""Writes the suites of configs/suites but `smoke`: draws episodes, keeps those that are what a suite must contain.

    python benchmarks/make_suites.py

Free driving: a route of 300 to 1,000 m through at least two junctions, 10 to 25 moving actors within 80 m of the start, towns
of all kinds in equal shares, day, dusk, night, rain and fog in equal shares. Half of the episodes of `validation` and `test` are
scenarios, their families in equal shares. Each family has a suite of 20 episodes, of which the first are those of `validation`.
Nothing looks at how anybody drives. The same version writes the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.evaluation.suite import CONDITIONS, Condition, Suite, SuiteEpisode, SuiteSettings
from sim.roads.driving_map import load_map
from sim.roads.towns import SPLITS
from sim.scenarios.catalogue import NAMES, Scenario, family_of
from sim.sensors.light import WeatherName
from sim.world import ActorKind

TARGET = Path(__file__).resolve().parent.parent / "configs" / "suites"
SETTINGS = SuiteSettings()
NEAR_M, FEWEST, MOST = 80.0, 10, 25
SUITE_TOWNS = ("grid-small", "grid-large", "town", "radial")  # highways came later, and suites do not change
LEAST_JUNCTIONS = 2
AT_ONCE = 16
KINDS = ("validation", "test", "weather", "maps", "families")
SCENARIOS = tuple(name for name in NAMES if name != "free_drive")
IMPORTED = ("Town01.xodr", "Town02.xodr", "Town10HD.xodr")
FIXED: tuple[WeatherName, ...] = tuple(name for name in get_args(WeatherName) if name not in ("clear", "random"))


def weathers() -> dict[Condition, tuple[WeatherName, ...]]:
    """The fixed weathers of each condition."""
    found: dict[Condition, list[WeatherName]] = {condition: [] for condition in CONDITIONS}
    for name in FIXED:
        found[SuiteEpisode(map="town", seed=0, weather=name).condition].append(name)
    return {condition: tuple(names) for condition, names in found.items()}


def conditions() -> Iterator[WeatherName]:
    """Weathers without end, conditions in turn, and the weathers of each in turn."""
    turns = {condition: cycle(names) for condition, names in weathers().items()}
    for condition in cycle(CONDITIONS):
        yield next(turns[condition])


def fitting_seeds(map_name: str, seeds: np.ndarray) -> list[int]:
    """Those of the seeds whose episode on that map begins as free driving must."""
    world = {"agents": SETTINGS.agents, "route_min_m": SETTINGS.route_min_m, "route_max_m": SETTINGS.route_max_m,
             "rule_breaker_share": SETTINGS.rule_breaker_share}  # fmt: skip
    batch = DriveBatch(
        EnvConfig.of(map=map_name, observation="privileged", world=world), len(seeds), load_map(map_name)
    )
    batch.reset(np.ones(len(seeds), np.bool_), seeds.astype(np.uint64), np.zeros(len(seeds), np.int64))
    state, events = batch.world.state, batch.world.events
    away = np.hypot(state.x_m[:, 1:] - state.x_m[:, :1], state.y_m[:, 1:] - state.y_m[:, :1])
    moves = (state.active[:, 1:] != 0) & (state.kind[:, 1:] <= ActorKind.PEDESTRIAN)
    near = (moves & (away < NEAR_M)).sum(axis=1)
    long = (events.route_length_m >= SETTINGS.route_min_m) & (events.route_length_m <= SETTINGS.route_max_m)
    crossed = np.array([batch.world.junctions_on_route(e) for e in range(len(seeds))])
    return [int(seed) for seed in seeds[long & (near >= FEWEST) & (near <= MOST) & (crossed >= LEAST_JUNCTIONS)]]


def free_episodes(split: str, count: int, towns_per_kind: int) -> list[SuiteEpisode]:
    """Free driving: `count` episodes over towns of all kinds, a seed for each."""
    numbers = SPLITS[split]
    maps = [f"{kind}:{numbers.start + k}" for k in range(towns_per_kind) for kind in SUITE_TOWNS]
    shares = [count // len(maps) + (k < count % len(maps)) for k in range(len(maps))]
    next_seed, weather = numbers.start, conditions()
    episodes = []
    for name, share in zip(maps, shares, strict=True):
        chosen: list[int] = []
        while len(chosen) < share:
            draw = np.arange(next_seed, min(next_seed + AT_ONCE, numbers.stop))
            if len(draw) == 0:
                raise SystemExit(f"the seeds of {split} do not suffice for {count} episodes")
            for seed in fitting_seeds(name, draw):
                if len(chosen) < share:
                    chosen.append(seed)
                    next_seed = seed + 1
            next_seed = max(next_seed, int(draw[-1]) + 1) if len(chosen) < share else next_seed
        episodes += [SuiteEpisode(map=name, seed=seed, weather=next(weather)) for seed in chosen]
        print(f"{split}: {len(episodes)} of {count}", flush=True)
    return episodes


# Families take turns among all towns, so all of them stay loaded.
kept_map = cache(load_map)


def stages(name: str, map_name: str, seed: int) -> bool:
    """Whether a town has a place for an episode of that family."""
    try:
        Scenario(name, kept_map(map_name), SETTINGS.agents).place(seed, 0)
    except ConfigError:
        return False
    return True


def scenario_episodes(split: str, count: int, towns: int) -> list[SuiteEpisode]:
    """`count` episodes over all families in equal shares, on the first towns of the split.

    Each has its turn among the towns of its family's kinds; where that one has no place for it, the next that has.
    """
    numbers, weather = SPLITS[split], conditions()
    chosen = []
    for k in range(count):
        name, turn = SCENARIOS[k % len(SCENARIOS)], k // len(SCENARIOS)
        maps = [f"{kind}:{numbers.start + t}" for t in range(towns) for kind in family_of(name).maps]
        seed = numbers.stop - 1 - k  # from the end of the split, so that no seed is that of a free drive
        town = next((m for j in range(len(maps)) if stages(name, m := maps[(turn + j) % len(maps)], seed)), None)
        if town is None:
            raise SystemExit(f"no town of {split} has a place for {name}")
        chosen.append(SuiteEpisode(map=town, scenario=name, seed=seed, weather=next(weather)))
        if (k + 1) % len(SCENARIOS) == 0:
            print(f"{split}: {k + 1} of {count} scenarios", flush=True)
    return chosen


def mixed(split: str, count: int, towns_per_kind: int) -> tuple[SuiteEpisode, ...]:
    """Half free driving and half scenarios."""
    staged = count // 2
    return (*free_episodes(split, count - staged, towns_per_kind), *scenario_episodes(split, staged, towns_per_kind))


def write_families() -> None:
    """A suite for each family of scenarios, of the same episodes as those of `validation` as far as it goes."""
    episodes = scenario_episodes("validation", 20 * len(SCENARIOS), 5)
    for name in SCENARIOS:
        own = tuple(episode for episode in episodes if episode.scenario == name)
        text = f"{family_of(name).title}: the scenario family {name}."
        short = f"scenario-{name.replace('_', '-')}"
        write(Suite(name=short, description=text, split="validation", settings=SETTINGS, episodes=own))


def weather_suite(towns_per_kind: int = 1) -> tuple[SuiteEpisode, ...]:
    """The same drives in every fixed weather."""
    drives = free_episodes("validation", 4, towns_per_kind)
    return tuple(drive.model_copy(update={"weather": name}) for drive in drives for name in FIXED)


def maps_suite() -> tuple[SuiteEpisode, ...]:
    """Imported maps, seeds of the test split in turn, in every condition."""
    weather = conditions()
    seeds = iter(SPLITS["test"])
    return tuple(
        SuiteEpisode(map=name, seed=next(seeds), weather=next(weather)) for name in IMPORTED for _ in range(10)
    )


def write(suite: Suite) -> None:
    """Write a suite as TOML, an episode a line."""
    lines = [f"# Written by benchmarks/make_suites.py; {len(suite.episodes)} episodes."]
    lines += [
        f'name = "{suite.name}"',
        f'description = "{suite.description}"',
        f'split = "{suite.split}"',
        "episodes = [",
    ]
    for episode in suite.episodes:
        fields: dict[str, Any] = episode.model_dump(exclude_none=True)
        cells = [
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in fields.items()
        ]
        lines.append(f"    {{ {', '.join(cells)} }},")
    lines += ["]", "", "[settings]"]
    lines += [f"{key} = {value}" for key, value in suite.settings.model_dump().items()]
    (TARGET / f"{suite.name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {suite.name}.toml: {len(suite.episodes)} episodes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--suite", action="append", choices=KINDS, help="only this one; families: one for each family of scenarios"
    )
    wanted = parser.parse_args().suite or KINDS
    if "validation" in wanted:
        episodes = mixed("validation", 200, 5)
        text = "Free driving and scenarios on 20 towns, for choosing between policies while they are developed."
        write(Suite(name="validation", description=text, split="validation", settings=SETTINGS, episodes=episodes))
    if "test" in wanted:
        episodes = mixed("test", 500, 10)
        text = "Free driving and scenarios on 40 towns that nothing else may touch, for figures that are reported."
        write(Suite(name="test", description=text, split="test", settings=SETTINGS, episodes=episodes))
    if "weather" in wanted:
        text = "Four drives in every weather: the same roads, traffic and route."
        write(Suite(name="weather", description=text, split="validation", settings=SETTINGS, episodes=weather_suite()))
    if "maps" in wanted:
        text = "CARLA's towns as imported maps; --maps-dir names the folder of the .xodr files."
        settings = SETTINGS.model_copy(update={"timeout_s": 600.0})
        write(Suite(name="maps", description=text, split="test", settings=settings, episodes=maps_suite()))
    if "families" in wanted:
        write_families()


if __name__ == "__main__":
    main()
