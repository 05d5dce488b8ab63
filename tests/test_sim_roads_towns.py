"""Generated towns: the same for a seed, different between seeds, and what was asked for in the network."""

from __future__ import annotations

import numpy as np
import pytest

from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.sumo_reader import read_network
from sim.roads.towns import TOWN_KINDS, TOWN_WORDS, check_training_map, generate_town, seed_split


@pytest.fixture(scope="module", params=[("grid-small", 1), ("grid-small", 10_002), ("grid-large", 2)])
def town(request: pytest.FixtureRequest) -> RoadNetwork:
    return read_network(generate_town(*request.param))


@pytest.fixture(scope="module", params=[("town", 3), ("town", 10_004), ("radial", 5), ("radial", 20_007)])
def varied(request: pytest.FixtureRequest) -> RoadNetwork:
    return read_network(generate_town(*request.param))


def _streets(network: RoadNetwork) -> np.ndarray:
    return (network.lane_junction < 0) & (network.lane_kind == LaneKind.DRIVING)


def _followers(network: RoadNetwork, lane: int) -> list[int]:
    return network.successor[network.successor_start[lane] : network.successor_start[lane + 1]].tolist()


def test_dead_ends_apart_every_street_leads_to_every_other(varied: RoadNetwork) -> None:
    """Streets as in the names of their lanes: whoever drives on, changing lanes, gets everywhere without turning back."""
    street_of = [name.rpartition("_")[0] for name in varied.lane_name]
    onward: dict[str, set[str]] = {}
    for lane in np.flatnonzero(_streets(varied)):
        ways = {street_of[after] for inner in _followers(varied, int(lane)) for after in _followers(varied, inner)}
        onward.setdefault(street_of[lane], set()).update(ways)
    leads_on = {name for name, ways in onward.items() if ways}
    assert len(leads_on) < len(onward), "a dead end somewhere"
    reached_from: dict[str, set[str]] = {}
    for name, ways in onward.items():
        for way in ways:
            reached_from.setdefault(way, set()).add(name)
    entered = {name for name in leads_on if reached_from.get(name)}
    for links in (onward, reached_from):
        first = min(entered)
        seen, todo = {first}, [first]
        while todo:
            for name in links.get(todo.pop(), set()) - seen:
                seen.add(name)
                todo.append(name)
        assert entered <= seen


def test_a_varied_town_has_rings_one_way_streets_arterials_and_turns_a_car_can_drive(varied: RoadNetwork) -> None:
    streets = np.flatnonzero(_streets(varied))
    names = {varied.lane_name[k].rpartition("_")[0] for k in streets}
    ends = {name.rpartition(".")[0] for name in names}
    ring = [name for name in names if name.startswith("R") and name.rpartition(".")[0].count("R") == 2]
    assert len(ring) >= 3
    assert any(name.startswith("R") and name.count("R") == 1 for name in ends), "streets that leave the ring"
    lanes_of: dict[str, int] = {}
    for k in streets:
        name = varied.lane_name[k].rpartition("_")[0]
        lanes_of[name] = lanes_of.get(name, 0) + 1
    assert max(lanes_of.values()) >= 2
    assert {LaneControl.YIELD, LaneControl.PRIORITY} <= set(varied.lane_control.tolist())
    assert LaneKind.CROSSING in varied.lane_kind
    assert len(np.unique(np.round(varied.lane_limit_mps[streets] * 3.6))) >= 3
    for lane in np.flatnonzero(varied.lane_kind == LaneKind.DRIVING):
        yaw = varied.point_yaw[varied.point_start[lane] : varied.point_start[lane + 1]]
        assert np.abs(np.diff(yaw)).max(initial=0.0) / varied.lane_step_m[lane] < 1 / 4.2, varied.lane_name[lane]


def test_rings_turn_counter_clockwise_and_have_priority(varied: RoadNetwork) -> None:
    def on_ring(lane: int) -> bool:
        name = varied.lane_name[lane].rpartition("_")[0].rpartition(".")[0]
        return name.startswith("R") and name.count("R") == 2

    turned, entries = 0.0, 0
    for lane in np.flatnonzero(_streets(varied)):
        for inner in _followers(varied, int(lane)):
            (after,) = _followers(varied, inner)
            if on_ring(lane) and on_ring(after):
                first, last = varied.point_start[lane], varied.point_start[inner + 1] - 1
                path = [*range(first, varied.point_start[lane + 1]), *range(varied.point_start[inner], last + 1)]
                turned += float(
                    np.ptp(np.unwrap(varied.point_yaw[path])) * np.sign(np.diff(varied.point_yaw[path]).sum())
                )
            for c in range(varied.conflict_start[inner], varied.conflict_start[inner + 1]):
                other = varied.conflict_lane[c]
                origin = varied.predecessor[varied.predecessor_start[other]]
                if on_ring(int(origin)) and not on_ring(int(lane)) and on_ring(int(after)):
                    entries += 1
                    assert varied.conflict_yields[c] == 1, "who enters a ring gives way"
    assert turned > np.pi
    assert entries >= 3


@pytest.mark.parametrize("kind", TOWN_KINDS)
def test_a_seed_gives_the_same_bytes_and_another_seed_does_not(kind: str) -> None:
    assert generate_town(kind, 41) == generate_town(kind, 41)
    assert generate_town(kind, 41) != generate_town(kind, 42)


def test_every_lane_is_reached_from_every_other(town: RoadNetwork) -> None:
    """Following successors from any lane leads everywhere: nobody is ever trapped, and every place can be a goal."""
    driving = np.flatnonzero(town.lane_kind == LaneKind.DRIVING)
    group: dict[int, int] = {}
    for lane in driving:  # lanes side by side count as one
        left = town.lane_left[lane]
        group[int(lane)] = group.get(int(lane), int(lane))
        if left >= 0:
            group[int(left)] = group[int(lane)]
    for start, values in ((town.successor_start, town.successor), (town.predecessor_start, town.predecessor)):
        after: dict[int, set[int]] = {}
        for lane in driving:
            row = values[start[lane] : start[lane + 1]]
            after.setdefault(group[int(lane)], set()).update(group[int(k)] for k in row)
        seen, todo = set(), [group[int(driving[0])]]
        while todo:
            lane = todo.pop()
            if lane not in seen:
                seen.add(lane)
                todo.extend(after[lane])
        assert seen == set(group.values())


def test_a_town_has_signals_priority_sidewalks_crossings_and_two_limits(town: RoadNetwork) -> None:
    inner = (town.lane_junction >= 0) & (town.lane_kind == LaneKind.DRIVING)
    controls = set(town.lane_control[inner].tolist())
    assert {LaneControl.SIGNAL, LaneControl.PRIORITY, LaneControl.YIELD} <= controls
    kinds = set(town.lane_kind.tolist())
    assert {LaneKind.DRIVING, LaneKind.SIDEWALK, LaneKind.CROSSING} <= kinds
    streets = (town.lane_junction < 0) & (town.lane_kind == LaneKind.DRIVING)
    limits = np.unique(np.round(town.lane_limit_mps[streets] * 3.6))
    assert set(limits.tolist()) <= {30.0, 50.0}
    assert (town.lane_left[streets] >= 0).any()
    assert set(town.lane_turn[inner].tolist()) == {-1, 0, 1}


def test_streets_bend_gently(town: RoadNetwork) -> None:
    for lane in np.flatnonzero((town.lane_junction < 0) & (town.lane_kind == LaneKind.DRIVING)):
        yaw = town.point_yaw[town.point_start[lane] : town.point_start[lane + 1]]
        assert np.abs(np.diff(yaw)).max(initial=0.0) / town.lane_step_m[lane] < 1 / 9.0


def test_many_seeds_give_towns_that_can_be_driven() -> None:
    """Turns of 5 m radius and more, no kinks, at least two dozen lanes, over a spread of seeds of every split."""
    for seed in (7, 123, 4_567, 9_999, 10_500, 20_000, 20_999):
        network = read_network(generate_town("grid-small", seed))
        assert (network.lane_kind == LaneKind.DRIVING).sum() > 60
        for lane in np.flatnonzero(network.lane_kind == LaneKind.DRIVING):
            yaw = network.point_yaw[network.point_start[lane] : network.point_start[lane + 1]]
            assert np.abs(np.diff(yaw)).max(initial=0.0) / network.lane_step_m[lane] < 1 / 5.0, (seed, lane)


@pytest.mark.parametrize(
    ("seed", "split"),
    [
        (0, "train"), (9_999, "train"), (10_000, "validation"), (10_999, "validation"), (11_000, None),
        (19_999, None), (20_000, "test"), (20_999, "test"), (21_000, None), (-1, None),
    ],
)  # fmt: skip
def test_seeds_are_split_for_good(seed: int, split: str | None) -> None:
    assert seed_split(seed) == split


def test_unknown_kinds_and_negative_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="known: grid-small, grid-large, town, radial, highway"):
        generate_town("radial-huge", 1)
    with pytest.raises(ValueError, match="from 0 upwards"):
        generate_town("grid-small", -1)


def test_nobody_trains_on_a_town_that_is_kept_for_tests() -> None:
    for name in ("grid-small", "town:9999", "radial:0", "somewhere/Town01.xodr"):
        check_training_map(name)
    for name, split in (("town:10000", "validation"), ("radial:20000", "test"), ("highway:15000", "no split")):
        with pytest.raises(ValueError, match=f"kept for {split}; training takes"):
            check_training_map(name)


def test_every_kind_has_words() -> None:
    assert tuple(TOWN_WORDS) == TOWN_KINDS
