"""What scripts that train several variants share: each is measured once and written at once, so an interrupted script goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sim.evaluation.episode_run import write_atomically
from sim.logs.log import cpu_model, git_commit

Scores = dict[str, float]


class Unkept:
    """A run that is not written, and scored at its end alone (perception.train_perception.Keeper)."""

    def __init__(self, score: Callable[[], Scores]) -> None:
        self.evaluate = score

    def restore(self, optimizer: torch.optim.Optimizer) -> tuple[int, None]:
        return 0, None

    def save(self, optimizer: torch.optim.Optimizer, step: int, curves: Mapping[str, float], due: bool = False) -> None:
        pass


def measured(out: Path, runs: Mapping[str, Callable[[], Scores]]) -> dict[str, Scores]:
    """Measure the runs that the file does not hold yet, by name; all that it holds then."""
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    results: dict[str, Scores] = report.setdefault("results", {})
    for name, run in runs.items():
        if name not in results:
            results[name] = run()
            report |= {"cpu": cpu_model(), "commit": git_commit()}
            write_atomically(out, (json.dumps(report, indent=1) + "\n").encode())
            print(name, results[name], flush=True)
    return results
