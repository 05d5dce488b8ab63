"""Training-only heads: what is encoded decodes again, losses are lowest at the truth, every head learns from its features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from perception.detections import decode_centers
from perception.features import FusedFeatures, SensorFeatures
from perception.heads import CenterField, HeadsConfig, PerceptionHeads, Predictions
from perception.labels import (
    LIGHT_STATES,
    MAX_BOXES,
    UNKNOWN,
    Affordance,
    BevClass,
    BoxClass,
    BoxField,
    LabelledFrames,
    PictureClass,
    closeness,
    joined,
)
from perception.losses import TASKS, affordance_loss, center_targets, focal_loss, task_losses
from perception.points import BevGrid
from perception.sensors import SemanticClass
from planning.policy import SignalState

GRID = BevGrid.of_cells(48)


def boxes(rng: np.random.Generator, frames: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes far enough apart that every one has a neighbourhood of cells to itself."""
    result = np.zeros((frames, MAX_BOXES, len(BoxField)), np.float32)
    count = rng.integers(1, most + 1, frames).astype(np.int32)
    f = BoxField
    for e in range(frames):
        places = rng.permutation(36)[: count[e]]
        for k, place in enumerate(places):
            x = GRID.x_min_m + 8 * (place // 6) + rng.uniform(2.1, 5.9)
            y = GRID.y_min_m + 8 * (place % 6) + rng.uniform(2.1, 5.9)
            size = rng.uniform([0.5, 0.5, 1.0], [6.0, 2.5, 3.0])
            row = [k % 2, x, y, rng.uniform(0.3, 2.0), *size, rng.uniform(-3.1, 3.1), *rng.uniform(-9, 9, 2), 1.0]
            result[e, k, : len(f)] = row
    return result, count


def labelled(rng: np.random.Generator, frames: int = 3) -> LabelledFrames:
    true, count = boxes(rng, frames, 8)
    return LabelledFrames(
        observation={"camera": rng.integers(1, 256, (frames, 32, 48, 3)).astype(np.uint8)},
        beam=np.zeros((frames, 0), np.uint8),
        bev=rng.integers(0, len(BevClass), (frames, 48, 48)).astype(np.uint8),
        boxes=true,
        box_count=count,
        depth={"camera": rng.uniform(2, 70, (frames, 8, 12)).astype(np.float32)},
        semantic={"camera": rng.integers(0, len(PictureClass), (frames, 8, 12)).astype(np.uint8)},
        light=rng.integers(0, LIGHT_STATES, frames),
        lane=rng.normal(size=(frames, 2)).astype(np.float32),
        affordances=(rng.random((frames, len(Affordance))) * rng.integers(0, 2, (frames, len(Affordance)))).astype(
            np.float32
        ),
    )


def perfect(frames: LabelledFrames) -> Predictions:
    """Predictions that say what the labels say."""
    targets = center_targets(torch.from_numpy(frames.boxes), torch.from_numpy(frames.box_count), GRID)
    centers = torch.zeros(len(frames), len(CenterField), 24, 24)
    centers[targets.frame, :, targets.row, targets.column] = targets.values
    centers[:, : len(BoxClass)] = torch.where(targets.heat == 1.0, 12.0, -12.0)

    def sure(classes: np.ndarray, count: int) -> torch.Tensor:
        hot = torch.nn.functional.one_hot(torch.from_numpy(classes.astype(np.int64)), count).float()
        return 30 * hot.movedim(-1, 1)

    return Predictions(
        bev=sure(frames.bev, len(BevClass)),
        centers=centers,
        semantic={name: sure(s, len(PictureClass)) for name, s in frames.semantic.items()},
        log_depth={name: torch.from_numpy(d).log() for name, d in frames.depth.items()},
        light=sure(frames.light, LIGHT_STATES),
        lane=torch.from_numpy(frames.lane),
        affordances=torch.zeros(len(frames), len(Affordance))
        if frames.affordances is None
        else torch.from_numpy(frames.affordances).nan_to_num(),
    )


@pytest.mark.parametrize("seed", range(5))
def test_boxes_that_are_encoded_decode_again(seed: int) -> None:
    frames = labelled(np.random.default_rng(seed))
    for e, (found, scores) in enumerate(decode_centers(perfect(frames).centers, GRID)):
        true = frames.boxes[e, : frames.box_count[e]]
        assert len(found) == len(true)
        assert scores.min() > 0.99
        order = [np.lexsort((b[:, BoxField.Y], b[:, BoxField.X])) for b in (true, found)]
        np.testing.assert_allclose(found[order[1]], true[order[0]], atol=2e-3)


def test_losses_are_nothing_at_the_truth_and_something_elsewhere() -> None:
    frames = labelled(np.random.default_rng(7))
    best = task_losses(perfect(frames), frames, GRID)
    assert set(best) == set(TASKS)
    assert max(float(loss) for loss in best.values()) < 1e-3
    other = labelled(np.random.default_rng(8))
    worse = task_losses(perfect(other), frames, GRID)
    assert min(float(loss) for loss in worse.values()) > 0.05


def test_one_lamp_of_the_wrong_colour_counts_however_little_of_the_picture_it_is() -> None:
    frames = labelled(np.random.default_rng(9))
    frames.semantic["camera"][:] = PictureClass.BUILDING
    no_lamp = task_losses(perfect(frames), frames, GRID)
    assert "picture_signal" not in no_lamp
    frames.semantic["camera"][1, 3, 5] = PictureClass.SIGNAL_RED
    red = perfect(frames)
    assert task_losses(red, frames, GRID)["picture_signal"] < 1e-3
    frames.semantic["camera"][1, 3, 5] = PictureClass.SIGNAL_GREEN
    losses = task_losses(red, frames, GRID)
    assert losses["picture_signal"] == pytest.approx(30.0, rel=1e-3)
    frames.semantic["camera"][0, 0, 0] = PictureClass.SIGNAL_GREEN  # called a building: not the colour's fault
    missed = task_losses(red, frames, GRID)
    assert missed["picture_signal"] == pytest.approx((30.0 + np.log(4)) / 2, rel=1e-3)


def test_what_nobody_could_see_is_neither_wanted_nor_forbidden() -> None:
    frames = labelled(np.random.default_rng(3), frames=1)
    frames.boxes[0, :, BoxField.SEEN] = 0
    targets = center_targets(torch.from_numpy(frames.boxes), torch.from_numpy(frames.box_count), GRID)
    assert len(targets.values) == 0
    assert targets.heat.max() == 0
    believed = perfect(replace(frames, boxes=np.where(frames.boxes[..., -1:] == 0, 1.0, frames.boxes)))
    row = (frames.boxes[0, 0, BoxField.X] - GRID.x_min_m) // (2 * GRID.cell_m)
    column = (frames.boxes[0, 0, BoxField.Y] - GRID.y_min_m) // (2 * GRID.cell_m)
    assert targets.weight[0, 0, int(row), int(column)] == 0
    logits = torch.full_like(believed.centers[:, :2], -12.0)
    nothing = focal_loss(logits, targets.heat, targets.weight)
    logits[0, :, int(row), int(column)] = 5.0
    assert focal_loss(logits, targets.heat, targets.weight) == nothing


def test_frames_without_labels_of_a_kind_have_no_such_loss() -> None:
    frames = labelled(np.random.default_rng(4), frames=2)
    assert frames.affordances is not None
    frames.light[:], frames.lane[:], frames.box_count[:], frames.affordances[:] = UNKNOWN, np.nan, 0, np.nan
    frames.observation["camera"][:] = 0
    losses = task_losses(perfect(labelled(np.random.default_rng(5), frames=2)), frames, GRID)
    assert set(losses) == {"bev", "heat"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    nobody = replace(labelled(np.random.default_rng(4)), affordances=None)
    assert "affordances" not in task_losses(perfect(nobody), nobody, GRID)


def test_what_is_rare_on_the_road_counts_as_much_as_that_it_is_not_there() -> None:
    wanted = torch.zeros(10, len(Affordance))
    wanted[0, Affordance.STOP_SIGN], wanted[:, Affordance.LEADER_SPEED] = 0.5, torch.nan
    missed, imagined = torch.zeros_like(wanted), wanted.nan_to_num().clone()
    imagined[:, Affordance.STOP_SIGN] = 0.5
    assert affordance_loss(wanted.nan_to_num() + 0.0, wanted) == 0
    assert affordance_loss(missed, wanted) > 0
    torch.testing.assert_close(affordance_loss(missed, wanted), affordance_loss(imagined, wanted))
    guessed = missed.clone()
    guessed[:, Affordance.LEADER_SPEED] = 7.0  # nobody knows better
    torch.testing.assert_close(affordance_loss(guessed, wanted), affordance_loss(missed, wanted))
    assert closeness(np.array([0.0, 10.0, 30.0, np.inf, -2.0])) == pytest.approx([1.0, 0.5, 0.25, 0.0, 1.0])


def test_every_head_hands_gradients_to_the_features_it_needs() -> None:
    torch.manual_seed(0)
    heads = PerceptionHeads(HeadsConfig(), GRID, ("camera",), 32, (16, 32, 64), 24, 40)
    points = tuple(torch.randn(2, c, n, n, requires_grad=True) for c, n in ((16, 24), (32, 12), (64, 6)))
    picture, bev = torch.randn(2, 32, 2, 3, requires_grad=True), torch.randn(2, 24, 6, 6, requires_grad=True)
    latent = torch.randn(2, 40, requires_grad=True)
    predictions = heads(SensorFeatures({"camera": picture}, points, {}, {}), FusedFeatures(latent, bev))
    frames = labelled(np.random.default_rng(6), frames=2)
    losses = task_losses(predictions, frames, GRID)
    leaves = {"points": points[0], "coarse": points[2], "picture": picture, "bev": bev, "latent": latent}
    needs = {"bev": {"points", "coarse", "bev"}, "heat": {"points", "coarse", "bev"}, "picture_depth": {"picture"},
             "picture_semantic": {"picture"}, "picture_signal": {"picture"}, "light": {"latent"}, "lane": {"latent"},
             "affordances": {"latent"}}  # fmt: skip
    for task, wanted in needs.items():
        gradients = torch.autograd.grad(losses[task], list(leaves.values()), retain_graph=True, allow_unused=True)
        reached = {name for name, g in zip(leaves, gradients, strict=True) if g is not None and g.abs().max() > 0}
        assert reached == wanted, task
    assert predictions.bev.shape == (2, len(BevClass), 48, 48)
    assert predictions.semantic["camera"].shape == (2, len(PictureClass), 8, 12)


def test_frames_join_in_order_and_refuse_shapes_that_do_not_fit() -> None:
    rng = np.random.default_rng(9)
    parts = [labelled(rng, 2), labelled(rng, 3)]
    together = joined(parts)
    assert len(together) == 5
    assert np.array_equal(together.boxes[2:], parts[1].boxes)
    with pytest.raises(ValueError, match="lane must have shape"):
        replace(parts[0], lane=np.zeros((1, 2), np.float32))


def test_classes_of_pictures_begin_with_those_of_sensors() -> None:
    assert [(c.name, c.value) for c in PictureClass][: len(SemanticClass)] == [(c.name, c.value) for c in SemanticClass]
    assert PictureClass.SIGNAL_GREEN - PictureClass.SIGNAL_RED == SignalState.GREEN - SignalState.RED
