"""How healthy traffic is: collisions, standstills, red lights, speeds, over many kilometres of generated towns.

    python benchmarks/traffic_health.py --kilometres 1000 --towns 50 --json results.json --plot health.png
    python benchmarks/traffic_health.py Town01.xodr --kinds highway --towns 5 --kilometres 100

Each town gets a batch of environments with the rule-based expert as the ego; an episode of the ego ends as it does in the
environment, and the next one begins. Everything that drives is counted, the ego apart. A driver who breaks a rule on
purpose is not lawful; collisions in which one takes part are counted apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from planning.route_follower import RouteFollower
from sim.events import boxes_overlap
from sim.logs.log import git_commit
from sim.roads.driving_map import MapError, load_map
from sim.roads.towns import TOWN_KINDS
from sim.traffic.vehicles import BEHIND
from sim.world import TICK_S, World, WorldConfig

RED = 1
PEDESTRIAN = 6
SPEED_BINS = 30
BRAKE_BINS = 32
COUNTS = (
    "lawful_ticks", "lawful_mm", "breaker_mm", "walker_mm", "lawful_collisions", "breaker_collisions", "walker_collisions",
    "ego_collisions", "red_lawful", "red_breakers", "hard_brakes", "waiting_120s", "given_up", "appeared", "appeared_in_view",
    "vanished_in_view", "lane_changes", "share_of_limit_ppm", "ego_walker_collisions",
)  # fmt: skip
(
    LAWFUL_TICKS, LAWFUL_MM, BREAKER_MM, WALKER_MM, LAWFUL_HITS, BREAKER_HITS, WALKER_HITS, EGO_HITS, RED_LAWFUL, RED_BREAKERS,
    HARD_BRAKES, WAITING, GIVEN_UP, APPEARED, APPEARED_IN_VIEW, VANISHED_IN_VIEW, LANE_CHANGES, SHARE_PPM, EGO_WALKER_HITS,
) = range(len(COUNTS))  # fmt: skip


@njit(cache=True, parallel=True)
def tally(
    cars, paths, shown, lane_limit, lane_link, lane_junction, fresh, view_m, was_active, was_lane, touching, was_wait, count,
    speeds, brakes,
):  # fmt: skip
    """Add what the last tick brought to count (E, COUNTS) int64, speeds and brakes (E, bins) int64.

    fresh (E,): environments whose episode has just begun; there only the memory (was_*, touching) is set.
    """
    for e in prange(len(cars)):
        for i in range(1, cars.shape[1]):
            car = cars[e, i]
            lane = paths[e, i, BEHIND] if car.kind != PEDESTRIAN else -1
            dx, dy = car.x - cars[e, 0].x, car.y - cars[e, 0].y
            in_view = dx * dx + dy * dy < view_m * view_m
            if not fresh[e]:
                if car.active == 1 and was_active[e, i] == 0:
                    count[e, APPEARED] += 1
                    count[e, APPEARED_IN_VIEW] += in_view
                if car.active == 0 and was_active[e, i] == 1:
                    count[e, VANISHED_IN_VIEW] += in_view
                    count[e, GIVEN_UP] += was_wait[e, i] > 600
                if car.active == 1 and was_active[e, i] == 1:
                    moved_mm = int(car.speed * TICK_S * 1000.0)
                    if car.kind == PEDESTRIAN:
                        count[e, WALKER_MM] += moved_mm
                    elif car.breaks != 0:
                        count[e, BREAKER_MM] += moved_mm
                    else:
                        count[e, LAWFUL_MM] += moved_mm
                        count[e, LAWFUL_TICKS] += 1
                        count[e, HARD_BRAKES] += car.acceleration < -4.0
                        share = car.speed / lane_limit[lane]
                        count[e, SHARE_PPM] += int(1e6 * share)
                        speeds[e, min(int(share * 20.0), SPEED_BINS - 1)] += 1
                        brakes[e, min(max(int((car.acceleration + 8.0) * 3.0), 0), BRAKE_BINS - 1)] += 1
                        count[e, WAITING] += car.wait == 1200
                    if lane >= 0 and lane != was_lane[e, i]:
                        link = lane_link[lane]
                        if lane_junction[lane] < 0 and was_lane[e, i] >= 0 and lane_junction[was_lane[e, i]] < 0:
                            count[e, LANE_CHANGES] += 1
                        if link >= 0 and shown[e, link] == RED:
                            lawful = car.breaks == 0 and car.siren == 0
                            count[e, RED_LAWFUL if lawful else RED_BREAKERS] += 1
            was_active[e, i], was_lane[e, i], was_wait[e, i] = car.active, lane, car.wait
        for i in range(cars.shape[1]):
            a = cars[e, i]
            for j in range(i):
                b = cars[e, j]
                hit = (
                    a.active == 1
                    and b.active == 1
                    and not (a.kind == PEDESTRIAN and b.kind == PEDESTRIAN)
                    and boxes_overlap(
                        a.x, a.y, a.yaw, 0.5 * a.length, 0.5 * a.width, b.x, b.y, b.yaw, 0.5 * b.length, 0.5 * b.width
                    )
                )
                if hit and touching[e, i, j] == 0 and not fresh[e]:
                    walker = a.kind == PEDESTRIAN or b.kind == PEDESTRIAN
                    if j == 0:
                        count[e, EGO_WALKER_HITS if walker else EGO_HITS] += 1
                    elif a.breaks != 0 or b.breaks != 0:
                        count[e, BREAKER_HITS] += 1
                    elif walker:
                        count[e, WALKER_HITS] += 1
                    else:
                        count[e, LAWFUL_HITS] += 1
                touching[e, i, j] = hit


@dataclass
class Watch:
    """What is remembered from tick to tick, and the sums; arrays as `tally` takes them."""

    was_active: NDArray[np.int8]
    was_lane: NDArray[np.int32]
    touching: NDArray[np.uint8]
    was_wait: NDArray[np.int32]
    count: NDArray[np.int64]
    speeds: NDArray[np.int64]
    brakes: NDArray[np.int64]

    @staticmethod
    def of(envs: int, agents: int) -> Watch:
        return Watch(
            np.zeros((envs, agents), np.int8), np.full((envs, agents), -1, np.int32),
            np.zeros((envs, agents, agents), np.uint8), np.zeros((envs, agents), np.int32),
            np.zeros((envs, len(COUNTS)), np.int64), np.zeros((envs, SPEED_BINS), np.int64),
            np.zeros((envs, BRAKE_BINS), np.int64),
        )  # fmt: skip


def drive(name: str, kilometres: float, envs: int, config: WorldConfig, verbose: bool) -> dict[str, Any]:
    """Drive at least that far on one map; counts, and histograms of speed and acceleration."""
    town = load_map(name)
    world, driver, watch = World(town, config, envs), RouteFollower(), Watch.of(envs, config.agents)
    network, hidden = town.network, world._hidden
    episode = np.zeros(envs, np.int64)
    seed = np.arange(envs, dtype=np.uint64)
    fresh = np.ones(envs, np.bool_)
    world.reset(fresh, seed, episode)
    ticks, longest_wait = 0, 0
    while watch.count[:, [LAWFUL_MM, BREAKER_MM]].sum() < kilometres * 1e6 and ticks < 200_000:
        before = watch.count.copy() if verbose else watch.count
        tally(
            hidden.cars, hidden.paths, world.state.signal, network.lane_limit_mps, network.lane_signal_link,
            network.lane_junction, fresh, config.respawn_distance_m, watch.was_active, watch.was_lane, watch.touching,
            watch.was_wait, watch.count, watch.speeds, watch.brakes,
        )  # fmt: skip
        if verbose:
            for e, k in np.argwhere(watch.count - before > 0):
                if k in (LAWFUL_HITS, WALKER_HITS, EGO_HITS, EGO_WALKER_HITS, RED_LAWFUL, WAITING, VANISHED_IN_VIEW):
                    tick = int(world.state.tick[e])
                    pairs = np.argwhere(watch.touching[e] == 1).tolist()
                    print(f"{name} seed {e} episode {episode[e]} tick {tick}: {COUNTS[k]} {pairs}", flush=True)
        events = world.events
        ended = (events.collision != 0) | (events.arrived != 0) | (events.off_road != 0) | (events.stuck != 0)
        ended |= (events.off_route != 0) | (world.state.tick >= 6000)
        fresh = ended & ~fresh
        if fresh.any():
            episode[fresh] += 1
            world.reset(fresh, seed, episode)
        else:
            world.step(driver.act({}, world.situation()))
        longest_wait = max(longest_wait, int(watch.was_wait[:, 1:].max()))
        ticks += 1
    return {
        "hours": ticks * envs * TICK_S / 3600.0,
        "episodes": int(episode.sum()) + envs,
        "longest_wait_s": longest_wait * TICK_S,
        "map": Path(name).name,
        "speeds": watch.speeds.sum(axis=0),
        "brakes": watch.brakes.sum(axis=0),
        **dict(zip(COUNTS, watch.count.sum(axis=0).tolist(), strict=True)),
    }


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of simulator health over all rows."""
    total = {name: sum(row[name] for row in rows) for name in COUNTS}
    lawful_km = total["lawful_mm"] / 1e6
    ticks = max(total["lawful_ticks"], 1)
    return {
        "hours": sum(row["hours"] for row in rows),
        "minutes_an_episode": 60.0 * sum(row["hours"] for row in rows) / sum(row["episodes"] for row in rows),
        "longest_wait_s": max(row["longest_wait_s"] for row in rows),
        "lawful_km": lawful_km,
        "breaker_km": total["breaker_mm"] / 1e6,
        "walker_km": total["walker_mm"] / 1e6,
        "lawful_collisions_per_1000_km": 1000.0 * total["lawful_collisions"] / max(lawful_km, 1e-9),
        "walker_collisions_per_1000_km": 1000.0 * total["walker_collisions"] / max(lawful_km, 1e-9),
        "collisions_with_breakers": total["breaker_collisions"],
        "collisions_of_the_ego": total["ego_collisions"],
        "collisions_of_the_ego_with_walkers": total["ego_walker_collisions"],
        "standstills_of_120_s": total["waiting_120s"],
        "given_up": total["given_up"],
        "red_lights_run_by_lawful": total["red_lawful"],
        "red_lights_run_by_others": total["red_breakers"],
        "mean_speed_mps": total["lawful_mm"] / 1000.0 / ticks / TICK_S,
        "mean_share_of_limit": total["share_of_limit_ppm"] / 1e6 / ticks,
        "hard_braking_share": total["hard_brakes"] / ticks,
        "lane_changes_per_km": total["lane_changes"] / max(lawful_km + total["breaker_mm"] / 1e6, 1e-9),
        "appeared": total["appeared"],
        "appeared_in_view": total["appeared_in_view"],
        "vanished_in_view": total["vanished_in_view"],
    }


def table_by_kind(rows: list[dict[str, Any]]) -> Table:
    """What decides about health, for each kind of town and for the imported maps by themselves."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        kind = row["map"].partition(":")[0]
        groups.setdefault(kind if kind in TOWN_KINDS else "imported", []).append(row)
    chosen = (
        "lawful_km", "lawful_collisions_per_1000_km", "walker_collisions_per_1000_km", "standstills_of_120_s",
        "longest_wait_s", "red_lights_run_by_lawful", "mean_speed_mps", "mean_share_of_limit", "hard_braking_share",
    )  # fmt: skip
    table = Table("maps", "number", *(name.replace("_", " ") for name in chosen))
    for kind, group in groups.items():
        values = figures(group)
        table.add_row(kind, str(len(group)), *(f"{values[name]:.4g}" for name in chosen))
    return table


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Histograms of speed as a share of the limit and of acceleration, as a PNG."""
    canvas = np.full((420, 1000, 3), 255, np.uint8)
    panels = (
        ("speed / limit", sum(row["speeds"] for row in rows), 0.0, SPEED_BINS / 20.0, 40),
        ("acceleration, m/s2", sum(row["brakes"] for row in rows), -8.0, -8.0 + BRAKE_BINS / 3.0, 530),
    )
    for title, values, low, high, left in panels:
        share = values / max(values.sum(), 1)
        width, height, bottom = 420, 300, 370
        top = max(share.max(), 1e-9)
        for k, v in enumerate(share):
            x0, x1 = left + k * width // len(share), left + (k + 1) * width // len(share) - 2
            cv2.rectangle(canvas, (x0, bottom - int(height * v / top)), (x1, bottom), (160, 96, 40), -1, cv2.LINE_AA)
        cv2.line(canvas, (left, bottom), (left + width, bottom), (60, 60, 60), 1, cv2.LINE_AA)
        for t in range(5):
            x, value = left + t * width // 4, low + (high - low) * t / 4
            text = f"{value:.1f}"
            cv2.putText(
                canvas, text, (x - 14, bottom + 22), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (60, 60, 60), 1, cv2.LINE_AA
            )
        note = f"{title} (share of vehicle time, highest bar {100 * top:.0f} %)"
        cv2.putText(canvas, note, (left, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), canvas)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", nargs="*", help="map files to drive on beside the generated towns")
    parser.add_argument("--kilometres", type=float, default=1000.0, help="in all, shared equally among the maps")
    parser.add_argument(
        "--towns", type=int, default=10, help="generated towns: of each kind in turn, with seeds 0, 1, ..."
    )
    parser.add_argument("--kinds", nargs="+", choices=TOWN_KINDS, default=list(TOWN_KINDS), help="of generated towns")
    parser.add_argument("--envs", type=int, default=2)
    parser.add_argument("--agents", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--plot", type=Path, help="write histograms of speed and acceleration there, as PNG")
    parser.add_argument("--verbose", action="store_true", help="say where each collision was")
    args = parser.parse_args()

    # Long routes, so that an episode lasts long enough for standstills to build up.
    config = WorldConfig(agents=args.agents, spawn_radius_m=200.0, route_min_m=2000.0, route_max_m=4000.0)
    kinds = args.kinds
    names = [f"{kinds[k % len(kinds)]}:{k // len(kinds)}" for k in range(args.towns)] + args.maps
    try:
        rows = [
            drive(name, args.kilometres / len(names), args.envs, config, args.verbose)
            for name in track(names, description="Driving", disable=args.verbose)
        ]
    except MapError as error:
        parser.error(str(error))
    result = figures(rows)
    table = Table("figure", "value", title=f"Traffic over {len(names)} maps")
    for name, value in result.items():
        table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    by_kind = table_by_kind(rows)
    Console(width=150).print(by_kind)
    if args.plot:
        plot(rows, args.plot)
    if args.json:
        maps = [{k: v for k, v in row.items() if k not in ("speeds", "brakes")} for row in rows]
        record = {
            "config": config.model_dump(),
            "commit": git_commit(),
            "figures": result,
            "maps": maps,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    healthy = (
        result["lawful_collisions_per_1000_km"] < 1.0
        and result["standstills_of_120_s"] == 0
        and result["red_lights_run_by_lawful"] == 0
        and result["appeared_in_view"] + result["vanished_in_view"] == 0
    )
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
