"""Learning in chapters: each frame as often as told, whole, in an order that the seed decides; each network with its own score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import Killed
from torch import nn

from perception.labels import MAX_BOXES, BoxField, LabelledFrames
from perception.points import BevGrid
from perception.preprocess import ObservationSpec
from perception.train_perception import (
    PerceivingModule,
    PerceptionConfig,
    PerceptionError,
    descend,
    rendered_chapter,
    train_perception,
)

BATCH = 4


class Numbered:
    """A source whose frames bear their number everywhere, and that says when it was asked for them."""

    batch_size = BATCH

    def __init__(self) -> None:
        self.chapter = -1
        self.given = 0

    def begin(self, chapter: int) -> None:
        self.chapter = chapter
        self.given = 0

    def next(self) -> LabelledFrames:
        number = 1000 * self.chapter + self.given + np.arange(BATCH)
        self.given += BATCH
        picture = number[:, None, None]
        return LabelledFrames(
            observation={"ego": np.float32(number)[:, None]},
            beam=np.zeros((BATCH, 0), np.uint8),
            bev=np.uint8(picture % 7) * np.ones((BATCH, 2, 2), np.uint8),
            boxes=np.float32(picture) * np.ones((BATCH, MAX_BOXES, len(BoxField)), np.float32),
            box_count=np.int32(number),
            depth={"camera": np.float32(picture) * np.ones((BATCH, 2, 3), np.float32)},
            semantic={"camera": np.uint8(picture % 18) * np.ones((BATCH, 2, 3), np.uint8)},
            light=number % 4,
            lane=np.float32(number)[:, None] * np.ones(2, np.float32),
            expert=np.float32(picture) * np.ones((BATCH, 2, 2), np.float32),
        )


def drawn(steps: int, repeats: int, seed: int = 0) -> tuple[list[LabelledFrames], Numbered]:
    source = Numbered()
    return list(rendered_chapter(source, 3, steps, repeats, np.random.default_rng(seed))), source


def numbers(batches: list[LabelledFrames]) -> np.ndarray:
    return np.concatenate([b.observation["ego"][:, 0] for b in batches]).astype(int)


@pytest.mark.parametrize(("steps", "repeats"), [(6, 1), (6, 2), (9, 3), (1, 1)])
def test_every_frame_is_learned_from_as_often_as_told(steps: int, repeats: int) -> None:
    batches, source = drawn(steps, repeats)
    assert len(batches) == steps
    assert source.given == steps * BATCH // repeats
    value, count = np.unique(numbers(batches), return_counts=True)
    assert value.tolist() == list(range(3000, 3000 + source.given))
    assert (count == repeats).all()


@pytest.mark.parametrize(("steps", "repeats"), [(7, 2), (1, 5), (5, 3)])
def test_no_frame_is_learned_from_more_often_than_told(steps: int, repeats: int) -> None:
    batches, source = drawn(steps, repeats)
    assert len(batches) == steps
    assert source.given == BATCH * -(-steps // repeats)
    assert np.unique(numbers(batches), return_counts=True)[1].max() <= repeats


def test_frames_stay_whole_and_may_be_changed() -> None:
    for batch in drawn(8, 2)[0]:
        number = batch.observation["ego"][:, 0].astype(int)
        np.testing.assert_array_equal(batch.box_count, number)
        np.testing.assert_array_equal(batch.light, number % 4)
        np.testing.assert_array_equal(batch.bev[:, 0, 0], number % 7)
        np.testing.assert_array_equal(batch.semantic["camera"][:, 1, 2], number % 18)
        assert batch.expert is not None
        for values in (batch.boxes[:, 5, 2], batch.depth["camera"][:, 1, 1], batch.lane[:, 1], batch.expert[:, 1, 0]):
            np.testing.assert_array_equal(values, number)
        for values in (batch.boxes, batch.depth["camera"], batch.observation["ego"]):
            values[:] = -1  # the same frame comes again, unchanged


def test_neighbours_do_not_come_together_and_seeds_decide() -> None:
    first, again, other = (numbers(drawn(50, 1, seed)[0]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert np.mean(np.abs(np.diff(first)) == 1) < 0.1


def test_a_step_without_end_is_refused_before_it_is_taken() -> None:
    """A finite loss can have an infinite gradient, as the root of 0 has; the network stays as it was, and can be saved."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with pytest.raises(PerceptionError, match="gradient is no longer finite"):
        descend(model, optimizer, {}, model.weight.abs().sqrt().sum(), 1.0)
    assert model.weight.item() == 0.0


class Unpictured(Numbered):
    """Such frames of a car without cameras."""

    def next(self) -> LabelledFrames:
        return replace(super().next(), depth={}, semantic={})


class Weight(PerceivingModule):
    """One number."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.grid = ObservationSpec({}, 0), BevGrid()
        self.weight = torch.nn.Parameter(torch.ones(1))


class Memory:
    """A keeper that keeps in memory (perception.train_perception.Keeper); `die_at` is the number of an evaluation."""

    def __init__(self) -> None:
        self.saved: list[tuple[int, dict[str, float], bool]] = []
        self.evaluated, self.die_at = 0, 0

    def restore(self, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, float] | None]:
        if not self.saved:
            return 0, None
        step, curves, due = self.saved[-1]
        return step, curves if due else None

    def save(self, optimizer: torch.optim.Optimizer, step: int, curves: Mapping[str, float], due: bool = False) -> None:
        self.saved.append((step, dict(curves), due))

    def evaluate(self) -> dict[str, float]:
        self.evaluated += 1
        if self.evaluated == self.die_at:
            raise Killed
        return {"score": float(len({step for step, _, _ in self.saved}))}


def learn(keeper: Memory, out: Path) -> dict[str, float]:
    """Five chapters of a step, of which every second one and the last are evaluated."""
    model = Weight()
    config = PerceptionConfig.model_validate(
        {
            "total_frames": 5 * BATCH,
            "checkpoint_every": 1,
            "evaluate_every": 2,
            "augment": {"flip": 0.0},
        }
    )
    result = train_perception(
        model, Unpictured(), config, 0, out, keeper, lambda f, p: np.zeros((4, 4, 3), np.uint8), quiet=True,
        objective=lambda f: ({"x": model.weight.square().sum()}, model.weight.square().sum(), None),  # type: ignore[arg-type, return-value]
    )  # fmt: skip
    return result.evaluation


def test_a_network_is_saved_with_its_own_score_and_no_other(tmp_path: Path) -> None:
    keeper = Memory()
    assert learn(keeper, tmp_path) == {"score": 5.0}
    assert all(curves["frames"] == step * BATCH for step, curves, _ in keeper.saved)
    told = [(step, curves.get("score"), due) for step, curves, due in keeper.saved]
    assert told == [
        (1, None, False), (2, None, True), (2, 2.0, False), (3, None, False), (4, None, True), (4, 4.0, False), (5, None, True),
        (5, 5.0, False),
    ]  # fmt: skip


@pytest.mark.parametrize("die_at", [1, 2, 3])
def test_an_evaluation_in_which_a_run_was_killed_is_made_up_for(tmp_path: Path, die_at: int) -> None:
    unbroken, keeper = Memory(), Memory()
    learn(unbroken, tmp_path / "unbroken")
    keeper.die_at = die_at
    with pytest.raises(Killed):
        learn(keeper, tmp_path)
    assert learn(keeper, tmp_path) == {"score": 5.0}
    assert keeper.evaluated == 4
    assert [(step, curves.get("score")) for step, curves, due in keeper.saved if not due] == [
        (step, curves.get("score")) for step, curves, due in unbroken.saved if not due
    ]
