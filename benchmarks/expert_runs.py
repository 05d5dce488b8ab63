"""How well the route follower drives: a table of completion and infractions over maps and seeds.

    python benchmarks/expert_runs.py grid-small --seeds 20 --share 0.9
    python benchmarks/expert_runs.py grid-small:10000 grid-large:10000 town:10000 radial:10000 highway:10000 --first-seed 10000 \
        --seeds 40 --share 0.97

Each seed is one episode with traffic, all of a map in one batch; it ends at a collision, on leaving the road or route, at a
red light or stop sign that is run, when stuck, on arrival, or after three minutes. The second command is the free driving that the
expert is held to: 200 episodes on towns and seeds of validation. Exit code 1 if fewer than the given share arrive without any
infraction.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

from planning.route_follower import RouteFollower
from sim.roads.driving_map import load_map
from sim.world import TICK_S, CollisionKind, World, WorldConfig


def run(name: str, seeds: np.ndarray, config: WorldConfig, most_s: float) -> list[dict[str, object]]:
    """One episode for each seed; rows of the table."""
    count = len(seeds)
    world, driver = World(load_map(name), config, count), RouteFollower()
    world.reset(np.ones(count, np.bool_), seeds.astype(np.uint64), np.zeros(count, np.int64))
    ended = np.full(count, "", dtype=object)
    wrong_way = np.zeros(count, np.bool_)
    ticks, distance, progress = np.zeros(count), np.zeros(count), np.zeros(count)
    for _ in range(round(most_s / TICK_S)):
        world.step(driver.act({}, world.situation()))
        running = ended == ""
        ticks += running
        distance += running * world.state.speed_mps[:, 0] * TICK_S
        progress = np.where(running, world.events.progress_m, progress)
        events = world.events
        wrong_way |= running & (events.wrong_way != 0)
        for kind in (CollisionKind.VEHICLE, CollisionKind.PEDESTRIAN, CollisionKind.STATIC):
            ended[(ended == "") & (events.collision == kind)] = f"collision: {kind.name.lower()}"
        for event in ("off_road", "red_light", "off_route", "stuck", "arrived"):
            ended[(ended == "") & (getattr(events, event) != 0)] = event
        ended[(ended == "") & world.ran_stop_sign] = "stop sign"
        if (ended != "").all():
            break
    return [
        {
            "map": name,
            "seed": int(seeds[k]),
            "end": (ended[k] or "time out") + (" (wrong way)" if wrong_way[k] else ""),
            "route m": float(world.events.route_length_m[k]),
            "completion %": 100.0 * progress[k] / world.events.route_length_m[k],
            "time s": ticks[k] * TICK_S,
            "mean m/s": distance[k] / max(ticks[k] * TICK_S, TICK_S),
        }
        for k in range(count)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", nargs="+", help="town names or map files")
    parser.add_argument("--seeds", type=int, default=20, help="seeds first_seed, first_seed + 1, ...")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=180.0, help="simulated time after which an episode ends")
    parser.add_argument("--share", type=float, default=0.9, help="least share of clean arrivals")
    parser.add_argument("--agents", type=int, default=24)
    args = parser.parse_args()

    seeds = np.arange(args.first_seed, args.first_seed + args.seeds)
    rows = [row for name in args.maps for row in run(name, seeds, WorldConfig(agents=args.agents), args.seconds)]
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    clean = sum(row["end"] == "arrived" for row in rows)
    console = Console(markup=False)
    console.print(table)
    for name in args.maps:
        mine = [row for row in rows if row["map"] == name]
        console.print(f"{name}: {sum(row['end'] == 'arrived' for row in mine)} of {len(mine)}", highlight=False)
    console.print(f"{clean} of {len(rows)} arrived without an infraction")
    return 0 if clean >= args.share * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
