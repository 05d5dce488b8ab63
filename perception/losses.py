"""Losses of the training-only heads, one for each task.

Knows predictions and labels; knows nothing about networks or where labels come from. Heat maps: Zhou et al., "Objects as
points" (2019), with its penalty-reduced focal loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from perception.heads import VELOCITY_MPS, CenterField, Predictions
from perception.labels import UNKNOWN, BevClass, BoxClass, BoxField, LabelledFrames, PictureClass
from perception.points import BevGrid

_Class = TypeVar("_Class", BevClass, PictureClass)

NEAREST_M, FURTHEST_M = 1.0, 80.0
AFFORDANCE_SCALE = 0.1
TASKS = (
    "bev", "heat", "offset", "height", "size", "heading", "velocity", "picture_semantic", "picture_signal", "picture_depth",
    "light", "lane", "affordances",
)  # fmt: skip
# What is rare and matters weighs more; about the inverse root of how often it is seen.
_BEV_WEIGHTS = {BevClass.LANE_MARKING: 2.0, BevClass.CROSSWALK: 2.0, BevClass.VEHICLE: 3.0, BevClass.WALKER: 6.0}
_PICTURE_WEIGHTS = {
    PictureClass.LANE_MARKING: 2.0, PictureClass.CROSSWALK: 2.0, PictureClass.POLE: 2.0, PictureClass.TRAFFIC_LIGHT: 5.0,
    PictureClass.TRAFFIC_SIGN: 3.0, PictureClass.VEHICLE: 2.0, PictureClass.TWO_WHEELER: 5.0, PictureClass.PEDESTRIAN: 5.0,
    PictureClass.SIGNAL_RED: 10.0, PictureClass.SIGNAL_YELLOW: 10.0, PictureClass.SIGNAL_GREEN: 10.0, PictureClass.STOP_SIGN: 10.0,
}  # fmt: skip
_LIGHT_WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 2.0])  # cars wait at red: it is seen twice as often as green


@dataclass(frozen=True)
class CenterTargets:
    """heat: (B, classes, rows, columns) in [0, 1], 1 at centres. weight: (B, 1, rows, columns), 0 around what nobody could see.

    values: (K, len(CenterField)) of the K centres, heat columns unused; frame, row, column: (K,) int64, where they are.
    """

    heat: Tensor
    weight: Tensor
    values: Tensor
    frame: Tensor
    row: Tensor
    column: Tensor


def center_targets(boxes: Tensor, count: Tensor, grid: BevGrid) -> CenterTargets:
    """What the map of centres, with cells twice as large as the grid's, should be. boxes (B, M, fields), count (B,)."""
    rows, columns, cell = grid.rows // 2, grid.columns // 2, 2 * grid.cell_m
    f = BoxField
    row = (boxes[..., f.X] - grid.x_min_m) / cell
    column = (boxes[..., f.Y] - grid.y_min_m) / cell
    real = torch.arange(boxes.shape[1]) < count[:, None]
    # A Gaussian as wide as the object is: at least most of a cell.
    spread = (0.12 * torch.hypot(boxes[..., f.LENGTH], boxes[..., f.WIDTH]) / cell).clamp(min=0.6)
    inside = real & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    r, c = row.floor(), column.floor()
    along = torch.exp(-((torch.arange(rows) - r[..., None]) ** 2) / (2 * spread[..., None] ** 2))
    across = torch.exp(-((torch.arange(columns) - c[..., None]) ** 2) / (2 * spread[..., None] ** 2))
    bump = along[..., :, None] * across[..., None, :]
    seen = inside & (boxes[..., f.SEEN] > 0)
    kinds = []
    for kind in BoxClass:
        mine = (seen & (boxes[..., f.CLASS] == kind)).float()
        kinds.append((bump * mine[..., None, None]).amax(1))
    heat = torch.stack(kinds, dim=1)
    hidden = (bump * (inside & ~seen).float()[..., None, None]).amax(1, keepdim=True)
    centers = (heat == 1.0).any(1, keepdim=True)
    weight = ((hidden < 0.3) | centers).float()
    frame, box = seen.nonzero(as_tuple=True)
    chosen = boxes[frame, box]
    values = torch.zeros(len(chosen), len(CenterField))
    values[:, CenterField.ROW] = row[frame, box] - r[frame, box] - 0.5
    values[:, CenterField.COLUMN] = column[frame, box] - c[frame, box] - 0.5
    values[:, CenterField.Z] = chosen[:, f.Z]
    values[:, CenterField.LENGTH : CenterField.HEIGHT + 1] = chosen[:, f.LENGTH : f.HEIGHT + 1].clamp(min=0.1).log()
    values[:, CenterField.COS] = chosen[:, f.YAW].cos()
    values[:, CenterField.SIN] = chosen[:, f.YAW].sin()
    values[:, CenterField.VX : CenterField.VY + 1] = chosen[:, f.VX : f.VY + 1] / VELOCITY_MPS
    return CenterTargets(heat, weight, values, frame, r[frame, box].long(), c[frame, box].long())


def task_losses(predictions: Predictions, frames: LabelledFrames, grid: BevGrid) -> dict[str, Tensor]:
    """The mean loss of every task of TASKS that the frames have labels for. A silent camera has none."""
    bev_weights = _weights(BevClass, _BEV_WEIGHTS)
    bev = functional.cross_entropy(predictions.bev, torch.from_numpy(frames.bev.astype(np.int64)), bev_weights)
    targets = center_targets(torch.from_numpy(frames.boxes), torch.from_numpy(frames.box_count), grid)
    losses = {"bev": bev, **_center_losses(predictions.centers, targets)}
    if predictions.semantic:
        losses |= _picture_losses(predictions, frames)
    affordances = None if frames.affordances is None else torch.from_numpy(frames.affordances)
    said = (predictions.light, predictions.lane, predictions.affordances)
    return losses | outlook_losses(said, torch.from_numpy(frames.light), torch.from_numpy(frames.lane), affordances)


def outlook_losses(
    said: tuple[Tensor, Tensor, Tensor], light: Tensor, lane: Tensor, affordances: Tensor | None
) -> dict[str, Tensor]:
    """Of what is `said` of light, lane and affordances (as in `Predictions`), where `LabelledFrames` has such labels."""
    losses = {}
    if bool((light != UNKNOWN).any()):
        losses["light"] = functional.cross_entropy(said[0], light, _LIGHT_WEIGHTS, ignore_index=UNKNOWN)
    known = torch.isfinite(lane).all(1)
    if bool(known.any()):
        scaled = (said[1][known] - lane[known]) / torch.tensor([0.3, 0.1])
        losses["lane"] = functional.smooth_l1_loss(scaled, torch.zeros_like(scaled))
    if affordances is not None and bool(torch.isfinite(affordances).any()):
        losses["affordances"] = affordance_loss(said[2], affordances)
    return losses


def affordance_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean over the columns, both (B, len(Affordance)), wanted NaN where unknown; frames in which there is something (another value
    than 0) count as much as all those together in which there is nothing: stop signs and people who cross are rare."""
    error = functional.smooth_l1_loss(
        predicted / AFFORDANCE_SCALE, wanted.nan_to_num() / AFFORDANCE_SCALE, reduction="none"
    )
    kinds = torch.stack([(wanted != 0) & ~wanted.isnan(), wanted == 0])  # (2, B, columns)
    means = (error * kinds).sum(1) / kinds.sum(1).clamp(min=1)
    return (means.sum(0) / kinds.any(1).sum(0).clamp(min=1)).mean()


def focal_loss(logits: Tensor, heat: Tensor, weight: Tensor) -> Tensor:
    """Penalty-reduced focal loss (alpha 2, beta 4) over the number of centres; heat is 1 exactly at those."""
    p = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    center = heat == 1.0
    at_centers = -((1 - p) ** 2) * p.log() * center
    elsewhere = -((1 - heat) ** 4) * p**2 * (1 - p).log() * ~center
    return ((at_centers + elsewhere) * weight).sum() / center.sum().clamp(min=1)


def _center_losses(centers: Tensor, targets: CenterTargets) -> dict[str, Tensor]:
    f = CenterField
    losses = {"heat": focal_loss(centers[:, : len(BoxClass)], targets.heat, targets.weight)}
    if len(targets.values) == 0:
        return losses
    found = centers[targets.frame, :, targets.row, targets.column]
    groups = {
        "offset": [f.ROW, f.COLUMN], "height": [f.Z], "size": [f.LENGTH, f.WIDTH, f.HEIGHT], "heading": [f.COS, f.SIN],
        "velocity": [f.VX, f.VY],
    }  # fmt: skip
    return losses | {
        name: functional.l1_loss(found[:, fields], targets.values[:, fields]) for name, fields in groups.items()
    }


def _picture_losses(predictions: Predictions, frames: LabelledFrames) -> dict[str, Tensor]:
    """Semantics and depth of all pixels; and of the few that show a signal or a stop sign, what they show, as a mean over these
    alone: of a thousand pixels one is a lamp, so in the loss of all its colour would hardly count."""
    weights = _weights(PictureClass, _PICTURE_WEIGHTS)
    semantic, depth, signal = [], [], []
    for name, logits in predictions.semantic.items():
        here = np.flatnonzero(frames.observation[name].reshape(len(frames), -1).max(1) > 0)
        if len(here) == 0:
            continue
        wanted = torch.from_numpy(frames.semantic[name][here].astype(np.int64))
        rows, columns = wanted.shape[1:]
        said = logits[here, :, :rows, :columns]
        semantic.append(functional.cross_entropy(said, wanted, weights))
        at_signals = wanted >= PictureClass.SIGNAL_RED
        if bool(at_signals.any()):
            shown = said.movedim(1, -1)[at_signals][:, PictureClass.SIGNAL_RED :]
            signal.append(functional.cross_entropy(shown, wanted[at_signals] - PictureClass.SIGNAL_RED))
        metres = torch.from_numpy(frames.depth[name][here])
        solid = (metres > 0).float()
        error = predictions.log_depth[name][here, :rows, :columns] - metres.clamp(NEAREST_M, FURTHEST_M).log()
        depth.append((error.abs() * solid).sum() / solid.sum().clamp(min=1))
    if not semantic:
        return {}
    losses = {"picture_semantic": torch.stack(semantic).mean(), "picture_depth": torch.stack(depth).mean()}
    return losses | ({"picture_signal": torch.stack(signal).mean()} if signal else {})


def _weights(classes: Iterable[_Class], special: Mapping[_Class, float]) -> Tensor:
    """The weight of each class, 1 where nothing else is said."""
    return torch.tensor([special.get(c, 1.0) for c in classes])
