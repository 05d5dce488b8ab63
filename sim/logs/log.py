"""What a log is to whoever reads one: header, topics, problems, and a lazy stream of steps.

Knows steps; knows nothing about file formats.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sim.step import Step

FORMAT_VERSION = 4
READ_VERSIONS = (1, 2, 3, 4)
RECORDED_LIBRARIES = ("numba", "llvmlite", "numpy", "opencv-python-headless", "foxglove-sdk")

ImageFormat = Literal["png", "jpeg"]


class LogError(ValueError):
    """A log that cannot be read or written: one line that names the file and says what to do."""


@dataclass(frozen=True)
class LogHeader:
    """Where a log of ours comes from: what re-simulation needs, and what explains a difference.

    config: the resolved configuration as JSON text. seed, episode: those of the episode. map_name: as the user gave it.
    git_commit, cpu_model, versions (library to version): of the machine that recorded.
    image_format: `png` holds every byte of a picture; `jpeg` is small, and holds a SHA-256 of the bytes instead.
    """

    config: str
    seed: int
    episode: int
    policy: str
    map_name: str
    git_commit: str = "unknown"
    cpu_model: str = "unknown"
    versions: Mapping[str, str] = field(default_factory=dict)
    image_format: ImageFormat = "png"
    format_version: int = FORMAT_VERSION

    @staticmethod
    def of_this_machine(
        config: str, seed: int, episode: int, policy: str, map_name: str, image_format: ImageFormat = "png"
    ) -> LogHeader:
        """A header whose commit, CPU and library versions are those of the running process."""
        return LogHeader(
            config=config,
            seed=seed,
            episode=episode,
            policy=policy,
            map_name=map_name,
            git_commit=git_commit(),
            cpu_model=cpu_model(),
            versions={name: _version(name) for name in RECORDED_LIBRARIES},
            image_format=image_format,
        )

    def as_metadata(self) -> dict[str, str]:
        """The header as the text fields of the metadata record `automedon`."""
        return {
            "format_version": str(self.format_version),
            "config": self.config,
            "seed": str(self.seed),
            "episode": str(self.episode),
            "policy": self.policy,
            "map_name": self.map_name,
            "git_commit": self.git_commit,
            "cpu_model": self.cpu_model,
            "versions": json.dumps(dict(self.versions), sort_keys=True),
            "image_format": self.image_format,
        }

    @staticmethod
    def from_metadata(path: Path, fields: Mapping[str, str]) -> LogHeader:
        """The header that those text fields hold.

        Raises:
            LogError: a field is missing or malformed, or the format version is not known.
        """
        try:
            version = int(fields["format_version"])
            if version not in READ_VERSIONS:
                known = ", ".join(map(str, READ_VERSIONS))
                raise LogError(
                    f"{path} has log format version {version}; this program reads versions {known}: "
                    "read it with the release that wrote it"
                )
            versions = json.loads(fields["versions"])
            if not isinstance(versions, dict):
                raise TypeError("versions is not an object")
            json.loads(fields["config"])
            image_format = fields["image_format"]
            if image_format not in ("png", "jpeg"):
                raise TypeError(f"image_format {image_format!r} is neither png nor jpeg")
            seed, episode = int(fields["seed"]), int(fields["episode"])
            if not (0 <= seed < 2**64 and 0 <= episode < 2**63):
                raise ValueError(f"seed {seed} and episode {episode} do not fit 64 bits")
            return LogHeader(
                config=fields["config"],
                seed=seed,
                episode=episode,
                policy=fields["policy"],
                map_name=fields["map_name"],
                git_commit=fields["git_commit"],
                cpu_model=fields["cpu_model"],
                versions={str(name): str(value) for name, value in versions.items()},
                image_format="png" if image_format == "png" else "jpeg",
                format_version=version,
            )
        except LogError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise LogError(f"{path}: its metadata record 'automedon' is damaged ({error})") from None


@dataclass
class LogSummary:
    """What did not come through, filled while a log is read. Nothing is skipped silently.

    skipped: (topic or place, reason) to how often. warnings: each said once, in order.
    """

    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def skip(self, place: str, reason: str, times: int = 1) -> None:
        self.skipped[place, reason] += times

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def lines(self) -> list[str]:
        """All problems, one line each."""
        counted = [f"{place}: {reason} ({times} times)" for (place, reason), times in self.skipped.items()]
        return [*self.warnings, *counted]


@dataclass(frozen=True)
class TopicInfo:
    """type: name of the message schema. messages: how many the log holds."""

    type: str
    messages: int


class Log:
    """An open log; a context manager.

    path, kind (a few words, e.g. "ROS 1 bag"), topics by name. header: None where the log is not ours.
    start_us, end_us: of the first and last message, 0 in a log without messages.
    actions_estimated: the recorded actions were derived from odometry. route_from_path: the route was derived from
        where the car drove later. road_network: bytes of the attached SUMO network, or None. recorded_scene: bytes of
        the attached scene (`sim.playback.scene_bytes`), or None.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        topics: Mapping[str, TopicInfo],
        span_us: tuple[int, int],
        steps: Callable[[Log], Iterator[Step]],
        *,
        header: LogHeader | None = None,
        road_network: bytes | None = None,
        recorded_scene: bytes | None = None,
        summary: LogSummary | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.kind = kind
        self.topics = topics
        self.start_us, self.end_us = span_us
        self.header = header
        self.road_network = road_network
        self.recorded_scene = recorded_scene
        self.summary = summary or LogSummary()
        self.actions_estimated = header is None
        self.route_from_path = header is None
        self.image_sha256: dict[tuple[int, str], str] = {}
        self._steps = steps
        self._close = close

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last message."""
        return (self.end_us - self.start_us) / 1e6

    def steps(self) -> Iterator[Step]:
        """The steps in time order, lazily; may be called again for another pass.

        `summary` fills as the steps are drawn, and `image_sha256` ((tick, camera) to the digest of the picture's bytes)
        where the log holds JPEG pictures of ours.

        Raises:
            LogError: something that makes the rest unreadable.
        """
        return self._steps(self)

    def close(self) -> None:
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def git_commit() -> str:
    """Commit of the checkout that holds this module, "-dirty" appended where it differs; "unknown" elsewhere."""
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", here.name) is None:  # installed inside somebody else's checkout
        return "unknown"
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or "unknown"


def cpu_model() -> str:
    """Name of the CPU as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
