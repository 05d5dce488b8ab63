"""Heads that only training has: what a network must know of the scene if its features are any good.

Bird's-eye semantics and centres (CenterPoint, Yin et al., CVPR 2021), semantics and depth of pictures, signal
ahead, lane, affordances.
Knows features and the bird's-eye grid; knows nothing about encoders, fusion, losses or where labels come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from perception.camera import GroupNorm
from perception.features import FusedFeatures, SensorFeatures
from perception.labels import LABEL_STRIDE, LIGHT_STATES, Affordance, BevClass, BoxClass, PictureClass
from perception.points import BevGrid

RARE = 0.01  # share of cells that hold a centre, as the heat map first believes (focal loss, Lin et al., ICCV 2017)
VELOCITY_MPS = 5.0
OUTLOOK_SIZE = LIGHT_STATES + 2 + len(Affordance)  # state of the signal ahead, place in the lane, affordances
_UP = 16 // LABEL_STRIDE  # from features of stride 16 to labels


class CenterField(IntEnum):
    """Channels of the map of centres."""

    HEAT_VEHICLE = 0  # logits; one for each `BoxClass`
    HEAT_WALKER = 1
    ROW = 2  # from the middle of the cell, in cells
    COLUMN = 3
    Z = 4  # m
    LENGTH = 5  # logarithm of metres
    WIDTH = 6
    HEIGHT = 7
    COS = 8
    SIN = 9
    VX = 10  # m/s / VELOCITY_MPS
    VY = 11


class HeadsConfig(BaseModel):
    """Widths of the training-only heads."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bev_width: int = Field(32, ge=8, le=256, multiple_of=8, description="channels of the bird's-eye decoder")
    picture_width: int = Field(64, ge=8, le=256, multiple_of=8, description="channels of the decoder of pictures")
    hidden: int = Field(128, ge=8, le=1024, description="hidden layer of the heads on the latent")


@dataclass(frozen=True)
class Predictions:
    """What the heads say of B frames.

    bev: (B, len(BevClass), rows, columns) logits. centers: (B, len(CenterField), rows / 2, columns / 2).
    semantic: by camera, (B, len(PictureClass), H / 4, W / 4) logits. log_depth: by camera, (B, H / 4, W / 4), log metres.
    light: (B, LIGHT_STATES) logits. lane: (B, 2) metres and radians. affordances: (B, len(Affordance)).
    """

    bev: Tensor
    centers: Tensor
    semantic: Mapping[str, Tensor]
    log_depth: Mapping[str, Tensor]
    light: Tensor
    lane: Tensor
    affordances: Tensor


class PerceptionHeads(nn.Module):
    """All heads.

    Args:
        config: widths. grid: of the bird's-eye maps. cameras: names, whose features have `picture_channels`. point_channels: of
        the maps with strides 2, 4 and 8, empty without a LiDAR. bev_channels, latent: sizes of what fusion gives; latent is None
        where the network itself has an outlook.
    """

    def __init__(
        self,
        config: HeadsConfig,
        grid: BevGrid,
        cameras: tuple[str, ...],
        picture_channels: int,
        point_channels: tuple[int, ...],
        bev_channels: int,
        latent: int | None,
    ) -> None:
        super().__init__()
        self.grid, self.cameras = grid, cameras
        width = config.bev_width
        self.fused = nn.Conv2d(bev_channels, width, 1)
        self.lateral = nn.ModuleList([nn.Conv2d(c, width, 1) for c in point_channels])
        self.at_quarter, self.at_half = _block(width, width), _block(width, width)
        self.bev = nn.Conv2d(width, 4 * len(BevClass), 1)
        self.center_block, self.center_map = _block(width, width), nn.Conv2d(width, len(CenterField), 1)
        if cameras:
            self.picture = nn.Sequential(
                _block(picture_channels, config.picture_width),
                nn.Conv2d(config.picture_width, (len(PictureClass) + 1) * _UP**2, 1),
            )
        if latent is not None:
            self.state = outlook_head(latent, config.hidden)
        with torch.no_grad():
            self.center_map.bias[: len(BoxClass)] = torch.logit(torch.tensor(RARE))  # type: ignore[index]

    def forward(self, features: SensorFeatures, fused: FusedFeatures) -> Predictions:
        """What the heads say."""
        x = self._bird_view(features, fused)
        semantic, log_depth = {}, {}
        for name in self.cameras:
            decoded = functional.pixel_shuffle(self.picture(features.pictures[name].float()), _UP)
            semantic[name], log_depth[name] = decoded[:, :-1], decoded[:, -1] + 2.5  # 12 m to begin with
        light, lane, affordances = outlook_parts(self.state(fused.latent) if fused.outlook is None else fused.outlook)
        return Predictions(
            bev=functional.pixel_shuffle(self.bev(x), 2),
            centers=self.center_map(self.center_block(x)),
            semantic=semantic,
            log_depth=log_depth,
            light=light,
            lane=lane,
            affordances=affordances,
        )

    def _bird_view(self, features: SensorFeatures, fused: FusedFeatures) -> Tensor:
        """(B, bev_width, rows / 2, columns / 2): a feature pyramid from coarse to fine, fusion's map added at its place."""
        rows, columns = self.grid.rows // 8, self.grid.columns // 8
        places = self.fused(fused.bev)
        x = _resized(places, rows, columns)
        if features.points:
            x = x + self.lateral[2](features.points[2].float())
        x = functional.interpolate(x, scale_factor=2, mode="nearest") + _resized(places, 2 * rows, 2 * columns)
        if features.points:
            x = x + self.lateral[1](features.points[1].float())
        x = functional.interpolate(self.at_quarter(x), scale_factor=2, mode="nearest")
        if features.points:
            x = x + self.lateral[0](features.points[0].float())
        return self.at_half(x)  # type: ignore[no-any-return]


def outlook_parts(outlook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Light, lane and affordances, as in `Predictions`, of an outlook (B, OUTLOOK_SIZE)."""
    light, lane, affordances = torch.split(outlook, [LIGHT_STATES, 2, len(Affordance)], dim=1)
    return light, lane, affordances


def outlook_head(latent: int, hidden: int) -> nn.Sequential:
    """What is ahead, (B, OUTLOOK_SIZE) of a latent (B, latent): logits of the signal, lane and affordances of `Predictions`."""
    return nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, OUTLOOK_SIZE))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), GroupNorm.of(outputs), nn.ReLU())


def _resized(x: Tensor, rows: int, columns: int) -> Tensor:
    if x.shape[2] == 1:
        return x.expand(-1, -1, rows, columns)
    return functional.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=False)
