"""Who is in sight: against Embree's rays between the same points, and in cases that one can see."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from sim.roads.driving_map import load_map
from sim.sensors.cast import BOX_COLUMNS, COS, CX, CZ, HX, HZ, SIN
from sim.sensors.embree_oracle import EmbreeScene
from sim.solids import Boxes, Material
from sim.visibility import ROOF_HEIGHT_M, BoxGrid, hiding, scratch_for, visible_actors
from sim.world import World, WorldConfig

RANGE_M = 60.0
REAR_AXLE_M = 1.4


def walls(rows: NDArray[np.float64]) -> Boxes:
    """Static boxes of rows x y z yaw hx hy hz."""
    n = len(rows)
    return Boxes(
        center=rows[:, :3], half_size=rows[:, 4:7], yaw_rad=rows[:, 3], material=np.full(n, int(Material.CONCRETE), np.uint8),
        semantic=np.full(n, int(SemanticClass.BUILDING), np.uint8), instance=np.arange(n, dtype=np.int32),
        color=np.zeros((n, 3), np.uint8), shape=np.zeros(n, np.uint8),
    )  # fmt: skip


class Street:
    """One environment: the ego at the origin heading east, other actors of rows x y yaw, all as big as cars."""

    def __init__(self, actors: NDArray[np.float64], solids: NDArray[np.float64]) -> None:
        self.actors = np.vstack([[0.0, 0.0, 0.0], np.asarray(actors, np.float64).reshape(-1, 3)])
        self.solids = np.asarray(solids, np.float64).reshape(-1, 7)
        self.active = np.ones((1, len(self.actors)), np.uint8)

    def seen(self, keep: int = 40) -> list[int]:
        n = len(self.actors)
        grid = BoxGrid(walls(self.solids))
        sizes = [np.full((1, n), size) for size in (4.6, 1.8, 1.5, REAR_AXLE_M)]
        nearest, count = np.zeros((1, keep), np.int32), np.zeros(1, np.int32)
        visible_actors(
            0, np.arange(1), self.active,
            *(np.ascontiguousarray(self.actors[None, :, c]) for c in range(3)), *sizes, grid.boxes, grid.start,
            grid.origin, grid.cell_m, grid.columns, grid.rows, grid.reach_m, RANGE_M, scratch_for(n), nearest, count,
        )  # fmt: skip
        assert (nearest[0, count[0] :] == -1).all()
        return [int(a) for a in nearest[0, : count[0]]]


WALL = [20.0, 0.0, 2.0, 0.0, 0.5, 6.0, 2.0]


def test_a_wall_hides_what_is_behind_it_and_nothing_else() -> None:
    street = Street(np.array([[30.0, 0.0, 0.0], [10.0, 0.0, 0.0], [30.0, 20.0, 0.0]]), np.array([WALL]))
    assert street.seen() == [2, 3]


def test_a_low_wall_hides_no_car_that_stands_out_above_it() -> None:
    low = [20.0, 0.0, 0.2, 0.0, 0.5, 6.0, 0.2]
    assert Street(np.array([[30.0, 0.0, 0.0]]), np.array([low])).seen() == [1]


def test_what_hangs_above_hides_nothing() -> None:
    bridge = [20.0, 0.0, 6.0, 0.0, 0.5, 6.0, 1.0]
    assert Street(np.array([[30.0, 0.0, 0.0]]), np.array([bridge])).seen() == [1]


def test_left_out_is_only_what_hides_nobody() -> None:
    """Over a whole town the same actors are in sight past what hides as past all solids, but for one in some hundred."""
    town = load_map("grid-small")
    fewer = hiding(town.scenery)
    assert len(fewer) < 0.4 * len(town.scenery)
    world = World(town, WorldConfig(agents=40), 40)
    world.reset(np.ones(40, np.bool_), np.arange(40, dtype=np.uint64), np.zeros(40, np.int64))
    state, found = world.state, []
    for solids in (town.scenery, fewer):
        grid = BoxGrid(solids)
        nearest, count = np.zeros((40, 40), np.int32), np.zeros(40, np.int32)
        visible_actors(
            0, np.arange(40), state.active, state.x_m, state.y_m, state.yaw_rad, state.length_m, state.width_m, state.height_m,
            state.rear_axle_m, grid.boxes, grid.start, grid.origin, grid.cell_m, grid.columns, grid.rows, grid.reach_m, RANGE_M,
            scratch_for(8000), nearest, count,
        )  # fmt: skip
        found.append([set(nearest[e, : count[e]].tolist()) for e in range(40)])
    both = sum(len(a & b) for a, b in zip(*found, strict=True))
    either = sum(len(a | b) for a, b in zip(*found, strict=True))
    assert either > 200
    assert both >= 0.97 * either
    assert all(a <= b for a, b in zip(*found, strict=True))


def test_beyond_the_range_and_inactive_is_not_seen() -> None:
    street = Street(np.array([[RANGE_M + 5.0, 0.0, 0.0], [30.0, 0.0, 0.0]]), np.zeros((0, 7)))
    assert street.seen() == [2]
    street.active[0, 2] = 0
    assert street.seen() == []


def test_far_from_all_solids_none_is_looked_at() -> None:
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_sim_visibility import Street\n"
        "for x in (-500.0, 500.0):\n"
        "    for y in (-500.0, 0.0, 500.0):\n"
        "        print(Street([[30.0, 0.0, 0.0]], [[x, y, 2.0, 0.0, 0.5, 6.0, 2.0]]).seen())\n"
    )
    as_python = {**os.environ, "NUMBA_DISABLE_JIT": "1"}  # which checks every index
    done = subprocess.run([sys.executable, "-c", program], env=as_python, capture_output=True, text=True, timeout=300)
    assert (done.stdout.split("\n")[:6], done.returncode) == (["[1]"] * 6, 0), done.stderr


def test_the_nearest_come_first_and_no_more_than_asked_for() -> None:
    actors = np.array([[40.0, 8.0, 0.0], [10.0, -6.0, 1.0], [25.0, 15.0, 2.0]])
    assert Street(actors, np.zeros((0, 7))).seen() == [2, 3, 1]
    assert Street(actors, np.zeros((0, 7))).seen(keep=2) == [2, 3]


@pytest.mark.parametrize("seed", range(12))
def test_lines_of_sight_agree_with_embree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    actors = np.column_stack([rng.uniform(-50, 50, (14, 2)), rng.uniform(-3, 3, 14)])
    actors = actors[np.hypot(actors[:, 0], actors[:, 1]) > 6]
    solids = np.column_stack(
        [rng.uniform(-40, 40, (25, 2)), np.zeros(25), rng.uniform(-3, 3, 25), rng.uniform(0.2, 4, (25, 3))]
    )
    solids = solids[np.hypot(solids[:, 0], solids[:, 1]) > 7]
    solids[:, 2] = solids[:, 6]
    street = Street(actors, solids)
    cars = street.actors[1:]
    boxes = np.zeros((len(cars) + len(solids), BOX_COLUMNS), np.float32)
    boxes[: len(cars), [CX, CX + 1]], boxes[: len(cars), CZ] = cars[:, :2], 0.75
    boxes[: len(cars), HX : HZ + 1] = [2.3, 0.9, 0.75]
    boxes[len(cars) :, [CX, CX + 1, CZ]], boxes[len(cars) :, HX : HZ + 1] = solids[:, :3], solids[:, 4:7]
    yaw = np.concatenate([cars[:, 2], solids[:, 3]])
    boxes[:, COS], boxes[:, SIN] = np.cos(yaw), np.sin(yaw)
    eye = np.array([1.2 - REAR_AXLE_M, 0.0, ROOF_HEIGHT_M])
    expected = set()
    for a, (x, y, heading) in enumerate(cars):
        others = EmbreeScene(np.delete(boxes, a, axis=0))
        places = [(0, 0, 0.95)] + [(u, v, 0.75) for u in (0.4, -0.4) for v in (0.4, -0.4)]
        targets = np.array(
            [
                [
                    x + np.cos(heading) * u * 4.6 - np.sin(heading) * v * 1.8,
                    y + np.sin(heading) * u * 4.6 + np.cos(heading) * v * 1.8,
                    z * 1.5,
                ]
                for u, v, z in places
            ]
        )
        rays = np.column_stack([np.broadcast_to(eye, targets.shape), targets - eye]).astype(np.float32)
        distance, _ = others.cast(rays)
        if (distance >= 1.0).any() and np.hypot(x - eye[0], y - eye[1]) <= RANGE_M:
            expected.add(a + 1)
    assert len(expected) > 0
    assert set(street.seen()) == expected
