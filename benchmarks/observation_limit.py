"""What it costs the expert to know no more than sensors can see, and how often it would have wanted something else.

    python benchmarks/observation_limit.py --out benchmarks/results/DATE-observation-limit.json [--episodes 256]

The rule-based expert drives the same episodes (validation towns, half of them scenarios, over at the first infraction) twice: by
all that the simulator knows, and by what `sim.sight` says can be seen from the car. In the second it is also asked at each
moment what it would do if it knew everything: that much an imitator would be taught without a way to know why.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planning.policy import Observation, Policy, Situation
from sim.drive import load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.episode import EpisodeResult, run_episodes
from sim.evaluation.episode_run import write_atomically
from sim.labelled_frames import VALIDATION_TOWNS
from sim.logs.log import cpu_model, git_commit
from sim.mixed_env import mixed_batch

FIRST_SEED = 10_000  # of validation
APART = 0.1  # of the pedals' range of 2: a difference that counts
BRAKES = -0.1


class Limited(Policy):
    """The expert by what can be seen; notes what it would have wanted by all there is."""

    def __init__(self, batch: DriveBatch) -> None:
        self._batch, self._expert = batch, load_policy("expert")
        self.moments = self.apart = self.harder = self.unseen_brakes = self.brakes = 0

    def act(self, observation: Observation, situation: Situation) -> NDArray[np.float32]:
        seen = self._expert.act(observation, self._batch.seen_situation())
        known = self._expert.act(observation, situation)
        self.moments += len(seen)
        self.apart += int((np.abs(known - seen) > APART).any(axis=1).sum())
        self.harder += int((known[:, 1] < seen[:, 1] - APART).sum())
        self.brakes += int((known[:, 1] < BRAKES).sum())
        self.unseen_brakes += int(((known[:, 1] < BRAKES) & (seen[:, 1] >= BRAKES)).sum())
        return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=256, help="in each town")
    arguments = parser.parse_args()
    world = {"agents": 32, "route_min_m": 120.0, "route_max_m": 500.0, "rule_breaker_share": 0.1, "replan": False}
    config = EnvConfig.of(observation="privileged", max_steps=1800, world=world)
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.episodes)
    everything: list[EpisodeResult] = []
    by_sight: list[EpisodeResult] = []
    counts: Counter[str] = Counter()
    for town in VALIDATION_TOWNS:
        batch = mixed_batch(config, 64, town, 0.5)
        everything += run_episodes(batch, load_policy("expert"), seeds)[0]
        limited = Limited(batch)
        by_sight += run_episodes(batch, limited, seeds)[0]
        counts.update({name: value for name, value in vars(limited).items() if not name.startswith("_")})
    report: dict[str, Any] = {"cpu": cpu_model(), "commit": git_commit(), "episodes": len(by_sight)}
    for name, results in (("everything", everything), ("seen", by_sight)):
        failed = Counter(kind for r in results for kind in r.infractions)
        report[name] = {
            "success": float(np.mean([r.success for r in results])),
            "completion": float(np.mean([r.route_completion for r in results])),
            "infractions": dict(failed.most_common()),
        }
    report["wants something else"] = counts["apart"] / counts["moments"]
    report["would brake harder"] = counts["harder"] / counts["moments"]
    report["brakes"] = counts["brakes"] / counts["moments"]
    report["of these for what nobody sees"] = counts["unseen_brakes"] / max(counts["brakes"], 1)
    report["moments"] = counts["moments"]
    write_atomically(arguments.out, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
