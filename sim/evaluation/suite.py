"""Suites: fixed lists of episodes, read from TOML, whose seeds and towns no training may touch.

Knows the form of a suite and of an environment's configuration; knows nothing about running or scoring.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.config import ConfigError, load_config
from sim.drive_batch import EnvConfig
from sim.roads.driving_map import RECORDING_SUFFIX
from sim.roads.importer import SUFFIXES
from sim.roads.towns import SPLITS, TOWN_KINDS, seed_split
from sim.sensors.light import WeatherName

Condition = Literal["day", "dusk", "night", "rain", "fog"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
FREE, PLAYBACK = "free", "playback"
FOLDER = Path("configs/suites")  # from where the command runs, or else beside the package, where a checkout has it
_NO_SUITES = f"no suites in {FOLDER}: go to the folder that holds it, or give the path of a .toml file"
TICKS_PER_S = 10


class SuiteEpisode(BaseModel):
    """One episode. map: may be left out where a scenario brings its own; for where a file is looked for see `env_config`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    map: str | None = Field(
        default=None, description="town such as town:10003, a .xodr, .osm or .net.xml file, or a recording"
    )
    scenario: str | None = Field(default=None, description="family of scenarios; without one, free driving")
    seed: int = Field(ge=0, lt=2**62, description="seed of the episode")
    weather: WeatherName = Field(default="clear-noon", description="one weather by name")

    @model_validator(mode="after")
    def _check(self) -> SuiteEpisode:
        if self.map is None and self.scenario is None:
            raise ValueError("an episode needs a map or a scenario that brings one")
        return self

    @property
    def family(self) -> str:
        """What the table of families calls it."""
        recorded = (
            self.map is not None and self.map.partition(":")[0] not in TOWN_KINDS and not self.map.endswith(SUFFIXES)
        )
        return self.scenario or (PLAYBACK if recorded else FREE)

    @property
    def condition(self) -> Condition:
        """Light and weather in one word; rain and fog count as such at any hour."""
        kind, _, hour = self.weather.rpartition("-")
        if "rain" in kind:
            return "rain"
        if kind == "fog":
            return "fog"
        return "night" if hour == "night" else "dusk" if hour in ("dusk", "sunset") else "day"


class SuiteSettings(BaseModel):
    """What all episodes of a suite share."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    agents: int = Field(default=40, ge=1, le=256, description="agents of an environment, the ego included")
    route_min_m: float = Field(default=300.0, ge=20, description="shortest route of free driving")
    route_max_m: float = Field(default=1000.0, le=10_000, description="longest route of free driving")
    rule_breaker_share: float = Field(default=0.1, ge=0, le=1, description="share of drivers who break a rule")
    timeout_s: float = Field(default=400.0, gt=0, le=3600, description="simulated time after which an episode ends")


class Suite(BaseModel):
    """A list of episodes by name. split: where it says validation or test, seeds and towns must be of that split."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=r"^[a-z0-9-]+$", description="short name")
    description: str = Field(min_length=1, description="one sentence")
    split: Literal["any", "validation", "test"] = Field(description="whose seeds and towns it may use")
    settings: SuiteSettings = SuiteSettings()
    episodes: tuple[SuiteEpisode, ...] = Field(min_length=1, max_length=10_000, strict=False, description="the list")

    @model_validator(mode="after")
    def _check(self) -> Suite:
        if self.settings.route_max_m < self.settings.route_min_m + 10.0:
            raise ValueError("settings.route_max_m must exceed settings.route_min_m by 10 m or more")
        if len(set(self.episodes)) != len(self.episodes):
            twice = next(e for k, e in enumerate(self.episodes) if e in self.episodes[:k])
            raise ValueError(f"the same episode stands twice: {twice.family} on {twice.map}, seed {twice.seed}")
        if self.split != "any":
            numbers = SPLITS[self.split]
            span = f"{numbers.start} to {numbers.stop - 1}"
            for episode in self.episodes:
                if episode.seed not in numbers:
                    raise ValueError(f"seed {episode.seed} is not of the split {self.split!r}: {span}")
                if episode.map is not None and _town_split(episode.map) not in (self.split, None):
                    raise ValueError(
                        f"town {episode.map!r} is not of the split {self.split!r}: :{span.replace(' to ', ' to :')}"
                    )
        return self

    def id_of(self, index: int) -> str:
        """Name of an episode in this suite, fit for a file."""
        episode = self.episodes[index]
        place = Path(episode.map or "own").name.split(".")[0].replace(":", "-")
        return f"{index:04d}-{episode.family}-{place}-{episode.seed}"

    def index_of(self, name: str) -> int:
        """The index of an episode given by its id, or by its number.

        Raises:
            ConfigError: the suite has no such episode.
        """
        number = name.split("-")[0]
        index = int(number) if number.isdecimal() else -1
        if not 0 <= index < len(self.episodes) or (name != number and self.id_of(index) != name):
            raise ConfigError(
                f"suite {self.name!r} has no episode {name!r}; it has {self.id_of(0)} to {self.id_of(len(self.episodes) - 1)}"
            )
        return index

    def digest(self) -> str:
        """SHA-256 over everything that decides what is driven, 16 hex digits."""
        return hashlib.sha256(self.model_dump_json(exclude={"description"}).encode()).hexdigest()[:16]


def _town_split(name: str) -> str | None:
    """Split of a town given by name; None for a map file."""
    kind, _, number = name.partition(":")
    if kind not in TOWN_KINDS:
        return None
    return seed_split(int(number or 0)) or "no split" if number.isdecimal() or not number else "no split"


def load_suite(name: str) -> tuple[Suite, Path]:
    """A suite by the path of its file, or by name from configs/suites; and the file.

    Raises:
        ConfigError: there is no such suite, or it is not as it must be.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = _suite_files().get(name, FOLDER / f"{name}.toml")
    if not path.is_file():
        names = sorted(_suite_files())
        if not names:
            raise ConfigError(f"no suite {name!r}, and {_NO_SUITES}")
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"no suite {name!r}; known: {', '.join(names)}; or give the path of a .toml file.{guess}")
    return load_config(Suite, path), path


def list_suites() -> list[Suite]:
    """All suites of configs/suites, by name.

    Raises:
        ConfigError: there are none, or one is not as it must be.
    """
    files = _suite_files()
    if not files:
        raise ConfigError(_NO_SUITES)
    return [load_suite(str(path))[0] for _, path in sorted(files.items())]


def _suite_files() -> dict[str, Path]:
    """File of each suite that can be named."""
    beside = Path(__file__).resolve().parents[2] / FOLDER
    return {path.stem: path for folder in (beside, FOLDER) for path in folder.glob("*.toml")}


def env_config(
    suite: Suite, index: int, suite_file: Path, rig: str, observation: str, maps_dir: Path | None = None
) -> EnvConfig:
    """The environment of an episode: CARLA's rules of ending, traffic and routes of the suite.

    maps_dir: where map files are looked for first; after that where the command runs, then beside the suite.

    Raises:
        ConfigError: a map file is missing, or this version does not know the scenario.
    """
    episode, settings = suite.episodes[index], suite.settings
    values: dict[str, Any] = {
        "rig": rig,
        "observation": observation,
        "weather": episode.weather,
        "max_steps": round(settings.timeout_s * TICKS_PER_S),
        "end_on_infraction": False,
        "world": {
            "agents": settings.agents,
            "route_min_m": settings.route_min_m,
            "route_max_m": settings.route_max_m,
            "rule_breaker_share": settings.rule_breaker_share,
            "replan": False,  # all three protocols judge against the route that was given
        },
    }
    if episode.map is not None:
        values["map"] = _map_path(episode.map, suite_file, maps_dir)
    if episode.scenario is not None:
        if "scenario" not in EnvConfig.model_fields:
            raise ConfigError(f"episode {suite.id_of(index)}: this version stages no scenarios")
        values["scenario"] = episode.scenario
    return EnvConfig.of(**values)


def _map_path(name: str, suite_file: Path, maps_dir: Path | None) -> str:
    """A town as it is; a map file or a recording at the first place that has it."""
    if name.partition(":")[0] in TOWN_KINDS:
        return name
    places = [*([maps_dir] if maps_dir is not None else []), Path(), suite_file.parent]
    for place in places:
        if (place / name).exists():
            return str(place / name)
    if not name.endswith((*SUFFIXES, RECORDING_SUFFIX)) and "/" not in name:
        return name  # no file: who loads maps says which towns there are
    looked = ", ".join(dict.fromkeys(str(place.resolve()) for place in places))
    raise ConfigError(
        f"no map file {name!r} in {looked}: put or link it into one of them, or name its folder with --maps-dir"
    )
