"""Generated towns: the same for a seed, different between seeds, and what was asked for in the network."""

from __future__ import annotations

import numpy as np
import pytest

from sim.roads.network import LaneControl, LaneKind, RoadNetwork
from sim.roads.sumo_reader import read_network
from sim.roads.towns import TOWN_KINDS, generate_town, seed_split


@pytest.fixture(scope="module", params=[("grid-small", 1), ("grid-small", 10_002), ("grid-large", 2)])
def town(request: pytest.FixtureRequest) -> RoadNetwork:
    return read_network(generate_town(*request.param))


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
    with pytest.raises(ValueError, match="known: grid-small, grid-large"):
        generate_town("radial-huge", 1)
    with pytest.raises(ValueError, match="from 0 upwards"):
        generate_town("grid-small", -1)
