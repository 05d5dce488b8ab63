"""How well drivers do in the scenarios: a table of families, by how many seeds they get through.

    python benchmarks/scenario_runs.py --seeds 20 --json

The expert sees everything; the blind driver is the same but for other road users, of whom it knows nothing: a scenario that it
survives is harmless. Each family takes place on its own town, all seeds in one batch. Exit code 1 if the expert gets through
fewer episodes than --share of all, or --least of a family.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from dataclasses import asdict

import numpy as np
from rich.console import Console
from rich.table import Table

from planning.blind import BlindDriver
from planning.policy import Policy
from planning.route_follower import RouteFollower
from sim.drive_batch import DriveBatch, EnvConfig
from sim.episode import EpisodeResult, run_episodes
from sim.scenarios.catalogue import NAMES

DRIVERS: dict[str, type[Policy]] = {"expert": RouteFollower, "blind": BlindDriver}


def run(name: str, drivers: list[str], seeds: list[int], map_name: str | None) -> dict[str, list[EpisodeResult]]:
    """One episode for each seed and driver."""
    given = {} if map_name is None else {"map": map_name}
    batch = DriveBatch(EnvConfig.of(scenario=name, observation="privileged", **given), len(seeds))
    return {driver: run_episodes(batch, DRIVERS[driver](), seeds)[0] for driver in drivers}


def failures(results: list[EpisodeResult]) -> str:
    """What went wrong, most frequent first."""
    count: collections.Counter[str] = collections.Counter()
    for result in results:
        count.update(check for check, kept in result.checks.items() if not kept)
        count.update(result.infractions.keys())
    return ", ".join(f"{kind} {times}" for kind, times in count.most_common(6))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=list(NAMES), help="all by default")
    parser.add_argument("--seeds", type=int, default=20, help="seeds first_seed, first_seed + 1, ...")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--map", help="instead of each family's own town")
    parser.add_argument("--drivers", nargs="+", choices=DRIVERS, default=list(DRIVERS))
    parser.add_argument("--share", type=float, default=0.9, help="of all episodes that the expert has to get through")
    parser.add_argument("--least", type=float, default=0.8, help="the same of each family")
    parser.add_argument("--failed", action="store_true", help="list the episodes that the expert fails")
    parser.add_argument("--json", action="store_true", help="print all results as the last line")
    args = parser.parse_args()

    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    console = Console(stderr=args.json, width=150, markup=False)
    table = Table("family", "map", *(f"{d}: success" for d in args.drivers), "triggered", "what the expert fails")
    everything: dict[str, dict[str, list[EpisodeResult]]] = {}
    for name in args.families:
        results = everything[name] = run(name, args.drivers, seeds, args.map)
        first = results[args.drivers[0]]
        shares = [f"{sum(r.success for r in results[d])} of {len(seeds)}" for d in args.drivers]
        triggered = f"{sum(r.triggered for r in first)}"
        table.add_row(name, first[0].map, *shares, triggered, failures(first))
        if args.failed:
            for result in first:
                if not result.success:
                    lost = [check for check, kept in result.checks.items() if not kept]
                    console.print(
                        f"{name} seed {result.seed}: {lost} {result.details} {result.parameters}", highlight=False
                    )
    console.print(table)
    ok = True
    if "expert" in args.drivers:
        rates = [np.mean([r.success for r in results["expert"]]) for results in everything.values()]
        console.print(
            f"expert: {100 * np.mean(rates):.1f} % of all episodes, {100 * min(rates):.0f} % of the worst family"
        )
        ok = bool(np.mean(rates) >= args.share and min(rates) >= args.least)
    if args.json:
        flat = {f: {d: [asdict(r) for r in rows] for d, rows in results.items()} for f, results in everything.items()}
        print(json.dumps(flat))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
