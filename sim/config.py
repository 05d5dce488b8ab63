"""Configuration files: TOML with values only, `key=value` overrides, and errors that somebody can act on.

Knows TOML and pydantic; each model stands beside what it configures.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

MAX_CONFIG_BYTES = 1_000_000
Model = TypeVar("Model", bound=BaseModel)


class ConfigError(ValueError):
    """A configuration that cannot be used: file, key or value; the message is one line for people."""


def load_config(model: type[Model], path: str | Path | None, overrides: Sequence[str] = ()) -> Model:
    """Read a TOML file (or nothing) and apply `key.path=value` overrides, values written as in TOML.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or a value that is not allowed.
    """
    values: dict[str, Any] = {} if path is None else read_toml(Path(path))
    for override in overrides:
        _apply(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        key, _ = _place(model, error.errors()[0]["loc"])
        given = [override.partition("=")[0].strip().split(".") for override in overrides]
        overridden = any(names[: len(key)] == key[: len(names)] for names in given)  # then the file is not to blame
        source = "" if path is None or overridden else f"{path}: "
        raise ConfigError(source + validation_message(error, model)) from None


def read_stage(path: str | Path, overrides: Sequence[str] = ()) -> str:
    """The value of `stage` in a file with overrides applied, which says what the rest of it means; "policy" without one.

    Raises:
        ConfigError: no such file, or no TOML.
    """
    values = read_toml(Path(path))
    for override in overrides:
        _apply(values, override)
    return str(values.get("stage", "policy"))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: the file is missing, too large, or no TOML.
    """
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        hint = f"; there are: {', '.join(near)}" if near else "; see configs/ for examples"
        raise ConfigError(f"no configuration file {str(path)!r}{hint}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: {path.stat().st_size} bytes, but a configuration has at most {MAX_CONFIG_BYTES}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML: {error}") from None


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise ConfigError(f"cannot read {override!r}; overrides look like ppo.learning_rate=0.0003")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = values
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"cannot set {key!r}: {name!r} is a value, not a section")
    table[names[-1]] = value


def validation_message(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation as one line: which key, what was given, what is allowed."""
    problem = error.errors()[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        parts, tables = _place(model, problem["loc"][:-1])
        key = ".".join([*parts, str(problem["loc"][-1])])
        known = sorted({name for table in tables for name in table.model_fields})
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        return f"unknown key {key!r}{hint} Known: {', '.join(known)}{more}"
    key = ".".join(_place(model, problem["loc"])[0])
    words = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] == "missing" or ", got " in words else f", got {problem['input']!r}"
    if not key:  # of the whole, as `require_finite` says it
        return f"{words}{given}{more}"
    return f"{key}: {words[:1].lower()}{words[1:]}{given}{more}"


def require_finite(config: Model) -> Model:
    """The configuration itself, for validators of what is written as JSON, which has no infinity.

    Raises ValueError naming the first entry that is infinite or no number."""
    found = _not_finite(config.model_dump(), "")
    if found is not None:
        raise ValueError(f"{found[0]}: must be a finite number, got {found[1]}")
    return config


def _not_finite(value: Any, name: str) -> tuple[str, float] | None:
    """Name and value of the first float within that is not finite."""
    parts: Iterable[tuple[object, Any]]
    match value:
        case float() if not math.isfinite(value):
            return name, value
        case dict():
            parts = value.items()
        case list() | tuple():
            parts = enumerate(value)
        case _:
            return None
    found = (_not_finite(part, f"{name}.{key}" if name else str(key)) for key, part in parts)
    return next(filter(None, found), None)


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], list[type[BaseModel]]]:
    """Where that is: the key as a file has it, part by part, and the tables that may stand there.

    pydantic also names the kind that it took a value for, where several are allowed; no file has that part.
    """
    parts: list[str] = []
    tables = [model]
    for part in location:
        fields = [table.model_fields[str(part)] for table in tables if str(part) in table.model_fields]
        if fields or isinstance(part, int) or not tables:
            parts.append(str(part))
        if fields:
            tables = [table for field in fields for table in _tables_in(field.annotation)]
    return parts, tables


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    """The tables among the types that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]
