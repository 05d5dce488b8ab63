"""Route fusion: what the sensors found along the way ahead, looked up at each point of the route, then attention.

How far it is to a leader, a stop line or somebody on a crosswalk is a matter of places on the route. Attention over coarse cells
has to learn where these lie; here each point of the route brings what the bird's-eye maps hold at and beside it, and what the
cameras see where it lies on the ground. The route begins ahead of the car, so whoever passes something does not find there where
it ends: `surroundings` brings what the finest bird's-eye map holds beside the car and behind it. Queries, ego and route look at all
tokens of the sensors, which stay as they are (Perceiver, Jaegle et al., ICML 2021). Knows torch and calibrations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.attention import BEV_TOKENS, POINTS, TransformerLayer, tokens_of
from perception.features import FusedFeatures, SensorFeatures
from perception.geometry import inverse, transform
from perception.points import BevGrid
from perception.preprocess import project_rays
from perception.sensors import CameraCalibration

ROUTE = "route"
NEAR_ASIDE_M = (-3.5, -1.75, 0.0, 1.75, 3.5)  # left of the route: its lane, the edges of that, and the next lanes
NEAR_ALONG = (0.0, 0.5)  # of the way to the next point
WIDE_ASIDE_M = (-3.5, 0.0, 3.5)
AROUND = "around"
# Places around the car in ego, in the middle of cells of a metre: rows of two metres along x, one token each.
AROUND_ROWS_M = tuple(range(-8, 10, 2))
AROUND_ALONG_M = (0.5, 1.5)
AROUND_ASIDE_M = tuple(k + 0.5 for k in range(-5, 5))


class RouteFusion(nn.Module):
    """Tokens of all sensors and of the route to a latent (B, queries * width).

    Args:
        sources: name of a group of sensor tokens to (number, channels), pictures and `points`.
        vectors: the same of `route`, which must be there, and `ego`.
        cameras: geometry of each camera. picture_channels: of their features.
        points: channels of the bird's-eye maps with strides 2 and 4, empty without a LiDAR.
        surroundings: whether places around the car are looked up too, where there is a LiDAR.
        route_scale_m: what a route of 1 stands for.
        width, layers, heads, queries: of the transformer.

    Raises:
        ValueError: there is no route to look along.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[int, int]],
        vectors: Mapping[str, tuple[int, int]],
        cameras: Mapping[str, CameraCalibration],
        picture_channels: int,
        points: tuple[int, ...],
        grid: BevGrid,
        route_scale_m: float,
        width: int,
        layers: int,
        heads: int,
        queries: int,
        surroundings: bool = False,
    ) -> None:
        super().__init__()
        if ROUTE not in vectors:
            raise ValueError("route fusion looks along the route, which this observation lacks; take another fusion")
        self.cameras, self.grid, self.route_scale_m = dict(cameras), grid, route_scale_m
        self.sources, self.readers = dict(sources), dict(vectors)
        if surroundings and points:
            of_row = len(AROUND_ALONG_M) * len(AROUND_ASIDE_M) * points[0]
            self.sources[AROUND] = (len(AROUND_ROWS_M), of_row)
        self.out_features, self.bev_channels = queries * width, width if POINTS in sources else queries * width
        looked: dict[str, int] = {}
        if points:
            looked[POINTS] = len(NEAR_ALONG) * len(NEAR_ASIDE_M) * points[0] + len(WIDE_ASIDE_M) * points[1]
        self._looked = {
            **looked,
            **dict.fromkeys(cameras, picture_channels),
        }  # channels a token of the route has of each
        counted = {**self.sources, **self.readers}
        inputs = {name: channels for name, (_, channels) in counted.items()}
        inputs[ROUTE] += sum(self._looked.values())
        self.embed = nn.ModuleDict({name: nn.Linear(channels, width) for name, channels in inputs.items()})
        self.position = nn.ParameterDict(
            {name: nn.Parameter(0.02 * torch.randn(n, width)) for name, (n, _) in counted.items()}
        )
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.layers = nn.ModuleList([TransformerLayer(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def latent(self, features: SensorFeatures) -> Tensor:
        """Latent (B, queries * width) float32 of the features of all sensors."""
        return self.forward(self.tokens(features), features.present)

    def forward(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Latent (B, queries * width) of `tokens`; present[name] (B,) bool, True if left out."""
        return self._read(tokens, present, len(self.queries), ())[:, : len(self.queries)].flatten(1)

    def tokens(self, features: SensorFeatures) -> dict[str, Tensor]:
        """Tokens (B, T, channels) float32 of all sources and vectors; those of the route with what the maps hold along it."""
        tokens = {**tokens_of(features), ROUTE: self.along_route(features)}
        if AROUND in self.sources:
            tokens[AROUND] = self.around(features)
        return tokens

    def fuse(self, features: SensorFeatures) -> FusedFeatures:
        """The latent, and what the tokens of the bird's-eye grid read in all sensors, (B, width, 6, 6)."""
        count = len(self.queries)
        if POINTS not in self.sources:
            latent = self.latent(features)
            return FusedFeatures(latent, latent[:, :, None, None])
        read = self._read(self.tokens(features), features.present, None, (POINTS,))
        places = read[:, -(BEV_TOKENS**2) :].transpose(1, 2)
        return FusedFeatures(read[:, :count].flatten(1), places.reshape(*places.shape[:2], BEV_TOKENS, BEV_TOKENS))

    def _read(
        self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor], wanted: int | None, more: Sequence[str]
    ) -> Tensor:
        """(B, wanted or all readers, width): queries, then ego and route, then copies of the sensors in `more`, who read too.

        Nobody reads those copies, so the others find the same with and without them.
        """
        tokens = {**tokens, ROUTE: self._without_silent(tokens[ROUTE], present)}
        embedded = {name: self.embed[name](tokens[name]) + self.position[name] for name in self.embed}
        batch = len(tokens[ROUTE])
        own = torch.cat([self.queries.expand(batch, -1, -1), *[embedded[name] for name in self.readers]], dim=1)
        rest = torch.cat([own[:, :0], *[embedded[name] for name in self.sources]], dim=1)
        seen = [torch.ones(batch, len(self.queries), dtype=torch.bool)]
        for name in (*self.readers, *self.sources):
            here = present.get(POINTS if name == AROUND else name, torch.ones(batch, dtype=torch.bool))
            seen.append(here.view(batch, 1).expand(batch, embedded[name].shape[1]))
        mask = torch.cat(seen, dim=1)[:, None, None, :]
        copies = [embedded[name] for name in more]
        for layer in self.layers:
            last = layer is self.layers[-1]
            count = wanted if last and wanted is not None else own.shape[1]
            read = layer(torch.cat([own, rest], dim=1), mask, count)
            copies = [self._copy_reads(layer, copy, own, rest, mask) for copy in copies]
            own = read
        return self.norm(torch.cat([own, *copies], dim=1))  # type: ignore[no-any-return]

    @staticmethod
    def _copy_reads(layer: nn.Module, copy: Tensor, own: Tensor, rest: Tensor, mask: Tensor) -> Tensor:
        """The copy (B, n, width) after the layer; it looks at everybody, but at no copy, not even itself."""
        batch, n = copy.shape[:2]
        nobody = torch.zeros(batch, 1, 1, n, dtype=torch.bool)
        return layer(torch.cat([copy, own, rest], dim=1), torch.cat([nobody, mask], dim=3), n)  # type: ignore[no-any-return]

    def along_route(self, features: SensorFeatures) -> Tensor:
        """(B, T, channels) float32: each point of the route, and what the maps and pictures hold there."""
        route = features.vectors[ROUTE]
        metres = route * self.route_scale_m
        parts = [route]
        if features.points:
            half, quarter = features.points[0].float(), features.points[1].float()
            parts.append(self._on_map(half, beside(metres, NEAR_ASIDE_M, NEAR_ALONG)))
            parts.append(self._on_map(quarter, beside(metres, WIDE_ASIDE_M, (0.0,))))
        for name, camera in self.cameras.items():
            where = torch.from_numpy(on_ground(camera, metres.detach().numpy()))
            looked = functional.grid_sample(features.pictures[name].float(), where[:, :, None], align_corners=False)
            parts.append(looked[..., 0].transpose(1, 2))
        return torch.cat(parts, dim=2)

    def around(self, features: SensorFeatures) -> Tensor:
        """(B, rows, channels) float32: what the finest map holds around the car, row after row of `AROUND_ROWS_M`."""
        half = features.points[0].float()
        rows, along, aside = (
            torch.tensor(m, dtype=torch.float32) for m in (AROUND_ROWS_M, AROUND_ALONG_M, AROUND_ASIDE_M)
        )
        x = (rows[:, None] + along).repeat_interleave(len(aside), dim=1)
        places = torch.stack([x, aside.repeat(len(along)).expand_as(x)], dim=-1)
        return self._on_map(half, places.expand(len(half), -1, -1, -1))

    def _without_silent(self, route: Tensor, present: Mapping[str, Tensor]) -> Tensor:
        """Tokens of the route (B, T, channels) with 0 for what sensors that are silent would hold there."""
        parts = list(torch.split(route, [2, *self._looked.values()], dim=2))
        for k, name in enumerate(self._looked, start=1):
            if name in present:
                parts[k] = parts[k] * present[name][:, None, None]
        return torch.cat(parts, dim=2)

    def _on_map(self, bev: Tensor, places: Tensor) -> Tensor:
        """(B, T, K * C) of a map (B, C, rows, columns) at places (B, T, K, 2), metres; 0 beyond the map."""
        grid = self.grid
        x = (places[..., 0] - grid.x_min_m) / (grid.rows * grid.cell_m) * 2.0 - 1.0
        y = (places[..., 1] - grid.y_min_m) / (grid.columns * grid.cell_m) * 2.0 - 1.0
        found = functional.grid_sample(bev, torch.stack([y, x], dim=-1), align_corners=False)
        return found.permute(0, 2, 3, 1).flatten(2)


def beside(route: Tensor, aside_m: Sequence[float], along: Sequence[float]) -> Tensor:
    """Places (B, T, len(along) * len(aside_m), 2) `aside_m` left of a route (B, T, 2), metres, and `along` of a step ahead."""
    step = torch.cat([route[:, 1:], 2.0 * route[:, -1:] - route[:, -2:-1]], dim=1) - route
    ahead = step / step.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    left = torch.stack([-ahead[..., 1], ahead[..., 0]], dim=-1)[:, :, None]
    offsets = torch.tensor(aside_m)[:, None]
    return torch.cat([(route + share * step)[:, :, None] + offsets * left for share in along], dim=2)


def on_ground(camera: CameraCalibration, route: np.ndarray) -> np.ndarray:
    """Where a camera sees points (B, T, 2) on the ground, metres in ego: (B, T, 2) float32, x and y in [-1, 1] across the picture.

    What it cannot see is far outside.
    """
    flat = np.zeros((route.size // 2, 3))
    flat[:, :2] = route.reshape(-1, 2)
    pixels = project_rays(camera, transform(inverse(camera.ego_from_camera), flat))
    across = 2.0 * (pixels + 0.5) / [camera.width_px, camera.height_px] - 1.0
    return np.clip(np.nan_to_num(across, nan=-3.0), -3.0, 3.0).astype(np.float32).reshape(route.shape)
