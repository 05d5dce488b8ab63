"""Episodes of a suite over a Ray cluster: nodes drive and send back what to write, this process writes it.

Knows Ray (extra `ray`); loaded only where `--ray` asks for it. Ray runs the episodes of a worker that dies
again. Nodes need this package, and the checkpoint and map files at the same paths (or URLs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sim.config import ConfigError
from sim.evaluation.episode_run import EpisodeRunner, Job, is_users_mistake, write_atomically

DEATHS_FORGIVEN = 3
Files = dict[str, bytes]

_runner: EpisodeRunner | None = None  # of a worker process of the cluster; kept from task to task


def drive_chunk(job: Job, indices: list[int]) -> dict[int, Files | str]:
    """Drive some episodes here; the files of each, or what went wrong."""
    global _runner
    if _runner is None or _runner.job != job:
        _runner = EpisodeRunner(job)
    found: dict[int, Files | str] = {}
    for index in indices:
        try:
            found[index] = _runner.files_of(index)
        except Exception as error:
            if is_users_mistake(error):
                raise
            found[index] = f"{type(error).__name__}: {error}"
    return found


def run_on_ray(
    job: Job, chunks: list[list[int]], address: str, advance: Callable[[int, int], None]
) -> dict[int, str | None]:
    """Drive all chunks on the cluster; what went wrong with each episode, None where nothing did.

    address: as `connected` takes it.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at that address.
    """
    with connected(address) as ray:
        return _collect(ray, job, chunks, advance)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster while the body runs.

    address: of the cluster; `auto` for the one of this machine, `local` to start one for this run.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at that address.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("a Ray cluster needs Ray, which is an extra: pip install 'automedon[ray]'") from None
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no Ray cluster at {address!r} ({' '.join(str(error).split())[:120]})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _collect(ray: Any, job: Job, chunks: list[list[int]], advance: Callable[[int, int], None]) -> dict[int, str | None]:
    remote = ray.remote(num_cpus=1, max_retries=DEATHS_FORGIVEN)(drive_chunk)
    pending = {remote.remote(job, chunk): chunk for chunk in chunks}
    outcome: dict[int, str | None] = {}
    while pending:
        (done,), _ = ray.wait(list(pending), num_returns=1)
        chunk = pending.pop(done)
        try:
            found = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ValueError):
                raise ConfigError(str(error.cause)) from None
            raise
        except ray.exceptions.RayError as error:  # the worker died once too often
            found = {index: f"{type(error).__name__}: {error}" for index in chunk}
        for index, files in found.items():
            outcome[index] = files if isinstance(files, str) else None
            for name, data in files.items() if isinstance(files, dict) else ():
                write_atomically(Path(job.out) / name, data)
        advance(0, len(chunk))
    return outcome
