"""The verb `evaluate`: a suite of episodes over worker processes, resumable, with a summary.

Composes suites, episode runs and results.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.precision import bfloat16_is_faster
from planning.sense import Sense
from planning.shipped import SHIPPED, SHIPPED_FILE
from sim.config import ConfigError
from sim.drive import RULE_BASED, load_policy
from sim.evaluation.episode_run import EpisodeRunner, Job, is_users_mistake, write_atomically
from sim.evaluation.results import read_report, read_reports, summarise, write_parquet
from sim.evaluation.suite import Suite, env_config, load_suite
from sim.evaluation.training_curve import keep_training_curves
from sim.evaluation.worst_episodes import keep_worst
from sim.logs.log import cpu_model, git_commit
from sim.workers import serve_parent

MOST_AT_ONCE = 8  # episodes of one map that a worker takes together, because loading a map takes seconds
MOST_RESTARTS = 3
Progress = Callable[[int, int], None]
Outcome = dict[int, str | None]  # index to what went wrong, None where nothing did


@dataclass(frozen=True)
class EvaluationReport:
    """folder: of the run. summary: as `evaluate --json` prints it. commands: id of each episode to what repeats it."""

    folder: Path
    summary: dict[str, Any]
    reports: list[dict[str, Any]]
    commands: dict[str, str]


def evaluate(
    suite_name: str,
    policy: str,
    *,
    rig: str = "small",
    workers: int = 1,
    ray: str | None = None,
    out: Path | None = None,
    resume: bool = False,
    only: Sequence[str] = (),
    worst: int = 0,
    maps_dir: Path | None = None,
    without: Sequence[Sense] = (),
    on_progress: Progress | None = None,
) -> EvaluationReport:
    """Drive the episodes of a suite that have no report in the run's folder yet, and sum up.

    ray: address of a Ray cluster that drives them in place of worker processes. worst: of how many of the worst episodes a log
    and a video are kept, in the run's folder; each is driven again for it. maps_dir: where map files are looked for first.
    without: sensors that the policy drives without.

    Raises:
        ConfigError: a mistake in what was asked for, or the folder holds another run.
    """
    suite, suite_file = load_suite(suite_name)
    senses = tuple(sorted(set(without)))
    load_policy(policy, without=without)  # a mistake in its name is told before anything runs
    if maps_dir is not None and not maps_dir.is_dir():
        raise ConfigError(f"--maps-dir {maps_dir} is no folder: give the one that holds the suite's map files")
    chosen = sorted({suite.index_of(name) for name in only}) or list(range(len(suite.episodes)))
    for index in chosen:
        env_config(suite, index, suite_file, rig, "privileged", maps_dir)
    name = "-".join(
        ["repeat" if only else "evaluate", suite.name, Path(policy).stem, *[f"without-{s}" for s in senses]]
    )
    folder = Path("runs") / name if out is None else out
    begun_at = _open_run(folder, suite, policy, rig, senses, resume=resume, repeated=bool(only))
    job = Job(suite, str(suite_file), policy, rig, str(folder), None if maps_dir is None else str(maps_dir), senses)
    if only:
        for index in chosen:
            job.forget(index)
    todo = [k for k in chosen if read_report(job.episode_file(k)) is None]
    advance = on_progress or (lambda steps, episodes: None)
    advance(0, len(chosen) - len(todo))
    outcome = _run(job, todo, workers, advance) if ray is None else _run_on_ray(job, todo, ray, advance)
    errors = {k: problem for k, problem in outcome.items() if problem is not None}
    reports = read_reports(folder, [suite.id_of(k) for k in chosen])
    episodes = [suite.episodes[k] for k in chosen]
    summary = {
        "suite": suite.name, "policy": policy, "rig": rig, "without": list(senses),
        **summarise(reports, [e.family for e in episodes], [e.condition for e in episodes]),
        "errors": {suite.id_of(k): problem for k, problem in sorted(errors.items())},
        "warning": _mixture(folder, begun_at),
        "out": str(folder),
    }  # fmt: skip
    if not only:
        write_atomically(folder / "summary.json", (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode())
        write_parquet(folder / "episodes.parquet", reports)
        keep_training_curves(folder, policy)
        keep_worst(job, reports, worst)
    return EvaluationReport(folder, summary, reports, {suite.id_of(k): job.command(k) for k in chosen})


def _open_run(
    folder: Path, suite: Suite, policy: str, rig: str, without: Sequence[Sense], *, resume: bool, repeated: bool
) -> str:
    """Make the run's folder, or see that the run in it is the same one; the commit at which it was begun."""
    wanted: dict[str, Any] = {
        "suite": suite.name, "suite_digest": suite.digest(), "policy": _policy_digest(policy), "rig": rig,
        "without": list(without),
    }  # fmt: skip
    path = folder / "run.json"
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ConfigError(f"{path} is damaged: choose another folder with --out") from None
        found = {"without": [], **found}  # runs of older versions had all sensors
        different = [name for name, value in wanted.items() if found.get(name) != value]
        if different:
            raise ConfigError(
                f"{folder} holds another run (its {different[0]} is {found.get(different[0])!r}, not "
                f"{wanted[different[0]]!r}): choose another folder with --out"
            )
        if not resume and not repeated:
            raise ConfigError(f"{folder} holds a run already: --resume goes on with it, --out names another folder")
        return str(found.get("git_commit", "unknown"))
    if resume:
        raise ConfigError(f"nothing to resume in {folder}: leave --resume out, or name the run's folder with --out")
    run = {**wanted, "git_commit": git_commit(), "cpu_model": cpu_model()}
    write_atomically(path, (json.dumps(run, indent=1) + "\n").encode())
    return str(run["git_commit"])


def _mixture(folder: Path, begun_at: str) -> str | None:
    """A line for people where the run was begun at another commit, whose results may differ; None where it was not."""
    now = git_commit()
    if begun_at == now:
        return None
    return f"{folder} was begun at commit {begun_at}, and this is {now}: it may hold results of both"


def _policy_digest(policy: str) -> str:
    """What tells one policy from another: its name, or the SHA-256 of its file."""
    path = SHIPPED_FILE if policy == SHIPPED else Path(policy)
    if policy in RULE_BASED or not path.is_file():
        return policy
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _run(job: Job, todo: Sequence[int], workers: int, advance: Progress) -> Outcome:
    """Drive the episodes; what went wrong with each. A report is on disk as soon as its episode is over."""
    if workers == 1:
        outcome: Outcome = {}
        worker = EpisodeRunner(job) if todo else None
        for index in sorted(todo, key=lambda k: str(job.suite.episodes[k].map)):
            assert worker is not None
            outcome[index] = _attempt(worker, index)
            advance(0, 1)
        return outcome
    return _run_in_processes(job, todo, workers, advance)


def _run_in_processes(job: Job, todo: Sequence[int], workers: int, advance: Progress) -> Outcome:
    """As `_run`, in processes of their own; where one dies, its episodes are driven again, alone."""
    outcome: Outcome = {}
    if job.policy not in RULE_BASED:
        bfloat16_is_faster()  # once for all processes
    left = list(chunks(job.suite, todo, workers))
    for restart in range(MOST_RESTARTS + 1):
        if not left:
            break
        waiting, left = left, []
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(waiting)), context, _begin_worker, (job,)) as pool:
            pending: dict[Future[Outcome], list[int]] = {pool.submit(_work, chunk): chunk for chunk in waiting}
            try:
                while pending:
                    done, _ = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        chunk = pending.pop(future)
                        try:
                            outcome |= future.result()
                            advance(0, len(chunk))
                        except BrokenProcessPool:
                            left += [[k] for k in chunk if read_report(job.episode_file(k)) is None]
            except BaseException:  # an interrupt, or a user's mistake: what runs comes to its end and is kept
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        if restart == MOST_RESTARTS:
            outcome |= {chunk[0]: "its worker process died" for chunk in left}
    return outcome


def _run_on_ray(job: Job, todo: Sequence[int], address: str, advance: Progress) -> Outcome:
    from sim.evaluation.ray_cluster import run_on_ray  # Ray is an extra, and loaded for nobody else

    return run_on_ray(job, list(chunks(job.suite, todo, len(todo))), address, advance)


def chunks(suite: Suite, todo: Sequence[int], workers: int) -> Iterator[list[int]]:
    """Episodes in bundles of one map, small enough that no worker is left without."""
    most = max(1, min(MOST_AT_ONCE, len(todo) // (2 * workers)))
    by_map: dict[str, list[int]] = {}
    for index in todo:
        by_map.setdefault(str(suite.episodes[index].map), []).append(index)
    for indices in by_map.values():
        for first in range(0, len(indices), most):
            yield indices[first : first + most]


_worker: EpisodeRunner | None = None  # of this worker process


def _begin_worker(job: Job) -> None:
    global _worker
    serve_parent()
    _worker = EpisodeRunner(job)


def _work(indices: list[int]) -> Outcome:
    assert _worker is not None
    return {index: _attempt(_worker, index) for index in indices}


def _attempt(worker: EpisodeRunner, index: int) -> str | None:
    """Drive an episode; what went wrong, if it is not the user's to put right (that is raised)."""
    try:
        worker.run(index)
    except Exception as error:
        if is_users_mistake(error):
            raise
        return f"{type(error).__name__}: {error}"
    return None
