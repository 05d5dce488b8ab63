"""Suites are what they must be: fixed, of their split, in equal shares; and mistakes in them are told in one line."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

import sim.evaluation.suite
from sim.config import ConfigError
from sim.drive_batch import EnvConfig
from sim.evaluation.suite import CONDITIONS, Suite, SuiteEpisode, env_config, load_suite
from sim.evaluation.tables import show_suites
from sim.roads.towns import SPLITS, TOWN_KINDS
from sim.scenarios.catalogue import NAMES, family_of
from sim.sensors.light import WeatherName

SUITES = Path(__file__).resolve().parent.parent / "configs" / "suites"
FAMILIES = tuple(name for name in NAMES if name != "free_drive")
GOOD = 'name = "mine"\ndescription = "Mine."\nsplit = "validation"\nepisodes = [\n{}\n]\n'


def suite_of(tmp_path: Path, *episodes: str, text: str = GOOD) -> Suite:
    path = tmp_path / "mine.toml"
    path.write_text(text.format(",\n".join(episodes)))
    return load_suite(str(path))[0]


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_suites_load_under_their_names(path: Path) -> None:
    suite, _ = load_suite(str(path))
    assert suite.name == path.stem
    ids = [suite.id_of(k) for k in range(len(suite.episodes))]
    assert len(set(ids)) == len(ids)
    assert [suite.index_of(name) for name in ids] == list(range(len(ids)))


@pytest.mark.parametrize(("name", "count"), [("smoke", 8), ("validation", 200), ("test", 500)])
def test_suites_have_the_promised_size(name: str, count: int) -> None:
    assert len(load_suite(str(SUITES / f"{name}.toml"))[0].episodes) == count


@pytest.mark.parametrize("name", ["validation", "test"])
def test_conditions_and_towns_come_in_equal_shares(name: str) -> None:
    suite, _ = load_suite(str(SUITES / f"{name}.toml"))
    assert suite.split == name
    conditions = Counter(episode.condition for episode in suite.episodes)
    assert set(conditions) == set(CONDITIONS)
    assert max(conditions.values()) - min(conditions.values()) <= 2
    free = Counter(str(e.map).split(":")[0] for e in suite.episodes if e.family == "free")
    assert set(free) == set(TOWN_KINDS) - {"highway"}
    assert max(free.values()) - min(free.values()) <= 1
    assert len({e.seed for e in suite.episodes}) == len(suite.episodes)


def test_no_suite_touches_what_training_may() -> None:
    for name in sorted(path.stem for path in SUITES.glob("*.toml") if path.stem != "smoke"):
        suite, _ = load_suite(str(SUITES / f"{name}.toml"))
        assert all(episode.seed not in SPLITS["train"] for episode in suite.episodes)
        towns = [str(e.map) for e in suite.episodes if str(e.map).split(":")[0] in TOWN_KINDS]
        assert all(int(town.split(":")[1]) in SPLITS[suite.split] for town in towns)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_of_scenarios_has_a_suite(family: str) -> None:
    suite, _ = load_suite(str(SUITES / f"scenario-{family.replace('_', '-')}.toml"))
    validation, _ = load_suite(str(SUITES / "validation.toml"))
    assert (suite.split, suite.settings, len(suite.episodes)) == ("validation", validation.settings, 20)
    assert {episode.scenario for episode in suite.episodes} == {family}
    assert len({episode.seed for episode in suite.episodes}) == 20
    assert Counter(episode.condition for episode in suite.episodes) == dict.fromkeys(CONDITIONS, 4)
    assert {str(e.map).split(":")[0] for e in suite.episodes} <= set(family_of(family).maps)
    assert len({e.map for e in suite.episodes}) >= 4
    theirs = [episode for episode in validation.episodes if episode.scenario == family]
    assert list(suite.episodes[: len(theirs)]) == theirs


def test_suites_of_families_share_no_episode_and_leave_none_out() -> None:
    paths = sorted(SUITES.glob("scenario-*.toml"))
    assert len(paths) == len(FAMILIES)
    seeds = [episode.seed for path in paths for episode in load_suite(str(path))[0].episodes]
    assert len(set(seeds)) == len(seeds) == 20 * len(FAMILIES)


def test_weather_suite_drives_the_same_in_every_weather() -> None:
    suite, _ = load_suite(str(SUITES / "weather.toml"))
    drives = {(episode.map, episode.seed) for episode in suite.episodes}
    fixed = set(get_args(WeatherName)) - {"clear", "random"}
    assert len(suite.episodes) == len(drives) * len(fixed)
    assert {episode.weather for episode in suite.episodes} == fixed


@pytest.mark.parametrize(
    ("weather", "condition"),
    [
        ("clear-noon", "day"), ("wet-noon", "day"), ("clear-sunset", "dusk"), ("dusk", "dusk"), ("wet-night", "night"),
        ("rain-night", "rain"), ("hard-rain-noon", "rain"), ("fog-night", "fog"), ("clear", "day"), ("random", "day"),
    ],
)  # fmt: skip
def test_conditions(weather: WeatherName, condition: str) -> None:
    assert SuiteEpisode(map="town", seed=0, weather=weather).condition == condition


@pytest.mark.parametrize(
    ("episodes", "words"),
    [
        (['{ map = "town:10001", seed = 9999 }'], ["seed 9999", "10000 to 10999"]),
        (['{ map = "town:20001", seed = 10001 }'], ["town:20001", "validation"]),
        (['{ map = "town", seed = 10001 }'], ["'town'"]),
        (['{ map = "town:10001", seed = 10001 }'] * 2, ["twice", "10001"]),
        (['{ map = "town:10001", seed = 10001, weather = "hail" }'], ["weather", "hail"]),
        (['{ map = "town:10001", seed = 10001, wether = "dusk" }'], ["wether"]),
        (["{ seed = 10001 }"], ["map or a scenario"]),
        ([], ["episodes"]),
    ],
)
def test_mistakes_are_told(tmp_path: Path, episodes: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        suite_of(tmp_path, *episodes)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_an_unknown_suite_or_episode_is_told_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SUITES.parent.parent)
    with pytest.raises(ConfigError, match=r"no suite 'smok'.*scenario-cut-in.*Did you mean 'smoke'"):
        load_suite("smok")
    suite, _ = load_suite("smoke")
    for name in ("8", "0001-free-town-3", "x"):
        with pytest.raises(ConfigError, match="no episode"):
            suite.index_of(name)


def test_an_episode_becomes_an_environment_by_the_leaderboards_rules(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, '{ map = "town:10001", seed = 10001, weather = "fog-night" }')
    config = env_config(suite, 0, tmp_path / "mine.toml", "small", "sensors")
    assert (config.map, config.weather, config.end_on_infraction, config.max_steps) == (
        "town:10001",
        "fog-night",
        False,
        4000,
    )
    assert (config.world.agents, config.world.rule_breaker_share) == (40, 0.1)
    assert not config.world.replan


@pytest.mark.parametrize("name", ["Away.xodr", "Away.json", "logs/away"])
def test_map_files_are_looked_for_in_the_named_folder_then_here_then_beside_the_suite(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, maps, own = tmp_path / "here", tmp_path / "maps", tmp_path / "own"
    for folder in (here, maps, own):
        (folder / "logs").mkdir(parents=True)
    monkeypatch.chdir(here)
    suite = suite_of(own, f'{{ map = "{name}", seed = 10001 }}')

    def found(maps_dir: Path | None) -> str:
        return env_config(suite, 0, own / "mine.toml", "small", "sensors", maps_dir).map

    with pytest.raises(ConfigError) as caught:
        found(maps)
    said = str(caught.value)
    assert all(word in said for word in (name, f"{maps}, {here}, {own}", "--maps-dir")), said
    assert "\n" not in said
    (own / name).touch()
    assert found(None) == found(maps) == str(own / name)
    (here / name).touch()
    assert found(maps) == name
    (maps / name).touch()
    assert found(maps) == str(maps / name)
    assert found(None) == name


def test_a_folder_with_the_name_of_a_town_is_no_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "town:10001").mkdir()
    monkeypatch.chdir(tmp_path)
    suite = suite_of(tmp_path, '{ map = "town:10001", seed = 10001 }')
    assert env_config(suite, 0, tmp_path / "mine.toml", "small", "sensors", tmp_path).map == "town:10001"


def test_all_suites_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SUITES.parent.parent)
    rows = show_suites(Console(file=StringIO(), width=200))
    assert [row["name"] for row in rows] == sorted(path.stem for path in SUITES.glob("*.toml"))
    assert {row["name"]: row["episodes"] for row in rows}["validation"] == 200
    monkeypatch.setattr(sim.evaluation.suite, "FOLDER", Path("nowhere"))
    for ask in (lambda: show_suites(Console(file=StringIO())), lambda: load_suite("smoke")):
        with pytest.raises(ConfigError, match="no suites in configs/suites: go to the folder"):
            ask()


def test_suites_are_found_from_any_folder_and_those_of_that_folder_count_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_suite("smoke")[0] == load_suite(str(SUITES / "smoke.toml"))[0]
    own = tmp_path / "configs" / "suites"
    own.mkdir(parents=True)
    (own / "smoke.toml").write_bytes((SUITES / "scenario-cut-in.toml").read_bytes())
    assert load_suite("smoke")[0] == load_suite(str(SUITES / "scenario-cut-in.toml"))[0]


def test_scenarios_are_part_of_the_form(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, '{ scenario = "cut_in", map = "town:10001", seed = 10001 }')
    assert suite.episodes[0].family == "cut_in"
    assert suite.id_of(0) == "0000-cut_in-town-10001-10001"
    if "scenario" not in EnvConfig.model_fields:
        with pytest.raises(ConfigError, match="stages no scenarios"):
            env_config(suite, 0, tmp_path / "mine.toml", "small", "sensors")


def test_a_suites_digest_follows_what_is_driven(tmp_path: Path) -> None:
    one = suite_of(tmp_path, '{ map = "town:10001", seed = 10001 }')
    other = suite_of(tmp_path, '{ map = "town:10001", seed = 10002 }')
    assert one.digest() != other.digest()
    assert one.digest() == one.model_copy(update={"description": "Other words."}).digest()
