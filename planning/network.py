"""The driving networks: observation to a distribution over actions and a value.

Knows torch and the encoders; knows nothing about training, files or the simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from fusion.attention import BEV_TOKENS, AttentionFusion
from fusion.late import LateFusion
from fusion.lift import LiftFusion
from fusion.route import RouteFusion
from perception.camera import CameraEncoder, feature_size
from perception.features import FusedFeatures, SensorFeatures, SensorTokens
from perception.heads import OUTLOOK_SIZE, outlook_head
from perception.points import BevGrid, PointEncoder
from perception.precision import Precision, autocast
from perception.preprocess import ObservationSpec
from perception.sensors import ROUTE_SPACING_M, EgoField
from planning.action import ACTION_SIZE
from planning.beta import BetaActions

Size = Literal["smoke", "small", "full"]
Tensors = Mapping[str, Tensor]

# Scales that bring `ego` to about 1: 15 m/s, 3 m/s2, 0.5 rad/s, and the actions as they are.
EGO_SCALES = (15.0, 3.0, 0.5, 1.0, 1.0)
# The speed once more, each up to 1: whether a car stands (below 0.1 m/s, as at stop signs) is lost on a scale of 15 m/s.
SLOW_MPS = (1.0, 0.2)
POLICY_GAIN = 0.01
LATENT = "latent"  # key of an observation that holds fused features in place of what sensors, ego and route say

_SIZES: dict[str, dict[str, int]] = {
    "smoke": {"camera_width": 16, "camera_blocks": 1, "points_width": 16, "points_blocks": 1, "token_width": 64,
              "bev_cells": 48, "layers": 2, "heads": 4, "queries": 4, "hidden": 128},
    "small": {"camera_width": 32, "camera_blocks": 2, "points_width": 32, "points_blocks": 1, "token_width": 128,
              "bev_cells": 96, "layers": 2, "heads": 4, "queries": 4, "hidden": 256},
    "full": {"camera_width": 64, "camera_blocks": 2, "points_width": 64, "points_blocks": 2, "token_width": 256,
             "bev_cells": 96, "layers": 2, "heads": 8, "queries": 8, "hidden": 256},
}  # fmt: skip


class NetworkConfig(BaseModel):
    """Shape of a driving network. `size` sets every width that is not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: Size = Field("small", description="preset of all widths below")
    kind: Literal["sensor", "privileged"] = Field(
        "sensor", description="sensor: camera, LiDAR, ego and route; privileged: the privileged vector only"
    )
    camera_width: Annotated[int, Field(ge=8, le=256, multiple_of=8, description="channels of the first ResNet stage")]
    camera_blocks: Annotated[int, Field(ge=1, le=4, description="basic blocks per ResNet stage")]
    camera_imagenet: bool = Field(False, description="start from ImageNet's weights (width 64, 2 blocks; a download)")
    points_width: Annotated[int, Field(ge=8, le=256, multiple_of=8, description="channels of a pillar")]
    bev_cells: Annotated[Literal[48, 96], Field(description="cells along each side of the bird's-eye grid, 48 m long")]
    points_blocks: Annotated[int, Field(ge=1, le=4, description="basic blocks per stage of the bird's-eye ResNet")]
    fusion: Literal["attention", "route", "lift", "late"] = Field(
        "attention",
        description="attention: tokens of all sensors; route: the same, and what the maps hold along the route; "
        "lift: pictures on the bird's-eye grid; late: a vector for each sensor",
    )
    surroundings: bool = Field(
        False, description="fusion route also looks up what the LiDAR's map holds beside the car and behind it"
    )
    outlook: bool = Field(
        False,
        description="the policy sees what the network says of signal, lane and affordances, and has two hidden layers",
    )
    token_width: Annotated[int, Field(ge=8, le=1024, multiple_of=8, description="width of the fusion")]
    layers: Annotated[int, Field(ge=1, le=8, description="layers of the fusion transformer")]
    heads: Annotated[int, Field(ge=1, le=16, description="attention heads; divides token_width")]
    queries: Annotated[int, Field(ge=1, le=64, description="learned queries; the latent is queries x token_width")]
    hidden: Annotated[int, Field(ge=8, le=2048, description="width of the hidden layers of policy and value")]
    past_actions: bool = Field(
        False, description="the policy sees its last action; whoever imitates would learn to repeat itself"
    )
    critic_privileged: bool = Field(True, description="the critic also sees `privileged` where there is one")
    precision: Precision = Field(
        "auto",
        description="of encoders; auto takes bfloat16 where the CPU has it and a short measurement finds it faster",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_size(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {**_SIZES.get(values.get("size", "small"), {}), **values}
        return values

    @model_validator(mode="after")
    def _check_heads(self) -> NetworkConfig:
        if self.token_width % self.heads:
            raise ValueError(f"heads must divide token_width, got {self.heads} heads and width {self.token_width}")
        if self.surroundings and self.fusion != "route":
            raise ValueError(f"surroundings are looked up by fusion 'route' only, got {self.fusion!r}")
        if self.camera_imagenet and (self.camera_width, self.camera_blocks) != (64, 2):
            raise ValueError("camera_imagenet needs camera_width = 64 and camera_blocks = 2")
        return self


def network_config(size: Size, **overrides: Any) -> NetworkConfig:
    """The preset of that size, with single fields replaced."""
    return NetworkConfig.model_validate({"size": size, **overrides})


class RunningStatistics(nn.Module):
    """Mean and variance of a stream of vectors, kept as buffers (Chan et al. 1979); changes only when told to."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (B, size) with mean 0 and variance 1, cut off at 10."""
        return ((x - self.mean) / torch.sqrt(self.variance + 1e-4)).clamp(-10.0, 10.0)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take vectors (B, size) into account."""
        total = self.count + len(x)
        difference = x.mean(0) - self.mean
        squares = self.variance * self.count + x.var(0, unbiased=False) * len(x)
        self.variance.copy_((squares + difference**2 * self.count * len(x) / total) / total)
        self.mean.add_(difference * len(x) / total)
        self.count.copy_(total)


class DrivingNetwork(nn.Module):
    """Camera, LiDAR, ego and route to a Beta policy and a value.

    Nothing here depends on the batch that a sample is in (no batch statistics) or on chance (no dropout), so the
    policy that is trained is the one that acted.
    """

    ego_scales: Tensor

    def __init__(self, config: NetworkConfig, spec: ObservationSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        if not (spec.cameras or spec.max_points or spec.ego_size or spec.route_points):
            raise ValueError("a sensor network needs at least one camera, points, ego or route to look at")
        if spec.cameras:
            self.camera = CameraEncoder(config.camera_width, config.camera_blocks, config.camera_imagenet)
        if spec.max_points:
            self.points = PointEncoder(config.points_width, config.points_blocks, BevGrid.of_cells(config.bev_cells))
        self.fusion = self._fusion()
        self.latent_size = latent = self.fusion.out_features + (
            OUTLOOK_SIZE + _ego_columns(spec) if config.outlook else 0
        )
        if config.outlook:
            self.outlook = outlook_head(self.fusion.out_features, config.hidden // 2)
            self.policy = _head(latent, config.hidden, 2 * ACTION_SIZE, POLICY_GAIN, 2, nn.ReLU)
        else:
            self.policy = _head(latent, config.hidden, 2 * ACTION_SIZE, POLICY_GAIN)
        critic_size = spec.privileged_size if config.critic_privileged else 0
        self.statistics = RunningStatistics(critic_size) if critic_size else None
        self.value = _head(latent + critic_size, config.hidden, 1, 1.0)
        scales = torch.ones(spec.ego_size)
        scales[: len(EGO_SCALES)] = torch.tensor(EGO_SCALES)[: spec.ego_size]
        self.register_buffer("ego_scales", scales, persistent=False)

    def _fusion(self) -> AttentionFusion | RouteFusion | LiftFusion | LateFusion:
        config, spec = self.config, self.spec
        vectors: dict[str, tuple[int, int]] = {}
        if spec.ego_size:
            vectors["ego"] = (1, _ego_columns(spec))
        if spec.route_points:
            vectors["route"] = (spec.route_points, 2)
        picture_channels = self.camera.out_channels if spec.cameras else 0
        point_channels = self.points.out_channels if spec.max_points else 0
        sources: dict[str, tuple[int, int]] = {}
        for name, c in spec.cameras.items():
            rows, columns = feature_size(c.height_px, c.width_px)
            sources[name] = (rows * columns, picture_channels)
        if spec.max_points:
            sources["points"] = (BEV_TOKENS**2, point_channels)
        match config.fusion:
            case "attention":
                return AttentionFusion(
                    {**sources, **vectors}, config.token_width, config.layers, config.heads, config.queries
                )
            case "route":
                finer = (point_channels // 4, point_channels // 2) if spec.max_points else ()
                return RouteFusion(
                    sources, vectors, spec.cameras, picture_channels, finer, BevGrid.of_cells(config.bev_cells),
                    spec.route_points * ROUTE_SPACING_M / 2, config.token_width, config.layers, config.heads, config.queries,
                    config.surroundings,
                )  # fmt: skip
            case "lift":
                points = (point_channels // 2, point_channels) if spec.max_points else ()
                latent = config.queries * config.token_width
                grid = BevGrid.of_cells(config.bev_cells)
                return LiftFusion(spec.cameras, picture_channels, points, vectors, config.token_width, latent, grid)
            case "late":
                pictures = dict.fromkeys(spec.cameras, picture_channels)
                latent = config.queries * config.token_width
                return LateFusion(pictures, point_channels, vectors, config.token_width, latent)

    def features(self, observation: Tensors) -> SensorFeatures:
        """What the encoders make of a batched observation. A camera whose picture is black throughout is silent."""
        pictures: dict[str, Tensor] = {}
        points: tuple[Tensor, ...] = ()
        vectors: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        with autocast(self.config.precision):
            for name in self.spec.cameras:
                pictures[name] = self.camera(observation[name])
                present[name] = observation[name].flatten(1).amax(1) > 0
            if self.spec.max_points:
                count = observation["point_count"].reshape(-1)
                points = self.points.pyramid(observation["points"].view(len(count), -1, 4), count)
                present["points"] = count > 0
        if self.spec.ego_size:
            ego = observation["ego"] / self.ego_scales
            if not self.config.past_actions:
                ego = torch.cat([ego[:, : EgoField.LAST_STEER], torch.zeros_like(ego[:, EgoField.LAST_STEER :])], dim=1)
            speed = observation["ego"][:, [EgoField.SPEED_MPS]]
            slow = [(speed / most).clamp(-1.0, 1.0) for most in SLOW_MPS]
            vectors["ego"] = torch.cat([ego, *slow], dim=1)[:, None]
        if self.spec.route_points:
            route = observation["route"].view(-1, self.spec.route_points, 2)
            vectors["route"] = route / (self.spec.route_points * ROUTE_SPACING_M / 2)
            present["route"] = (route != 0).flatten(1).any(1)
        return SensorFeatures(pictures, points, vectors, present)

    def latent(self, observation: Tensors) -> Tensor:
        """Fused features (B, F) float32 of a batched observation, or those that it already holds as `latent`."""
        if LATENT in observation:
            return observation[LATENT]
        features = self.features(observation)
        latent = self.fusion.latent(features)
        return self._with_outlook(latent, self.outlook(latent), features.vectors) if self.config.outlook else latent

    @staticmethod
    def _with_outlook(latent: Tensor, outlook: Tensor, vectors: Tensors) -> Tensor:
        """What the policy sees: a speed that counts beside a distance must not get lost on the way through fusion."""
        return torch.cat([latent, outlook, *[v.flatten(1) for n, v in vectors.items() if n == "ego"]], dim=1)

    def tokens(self, observation: Tensors) -> SensorTokens:
        """What fusion by attention looks at: all that the encoders do, so that it can be kept while the rest learns.

        Raises ValueError for a fusion without tokens."""
        if not isinstance(self.fusion, AttentionFusion | RouteFusion):
            raise ValueError(f"fusion {self.config.fusion!r} has no tokens; take attention or route")
        features = self.features(observation)
        return SensorTokens(self.fusion.tokens(features), dict(features.present))

    def act_on(self, tokens: SensorTokens) -> tuple[BetaActions, Tensor | None]:
        """Distribution over actions, and the outlook where the network has one, from tokens worked out before."""
        latent, outlook = self._look_on(tokens)
        return BetaActions.from_logits(self.policy(latent)), outlook

    def latent_of(self, tokens: SensorTokens) -> Tensor:
        """Fused features (B, F) float32, as `latent` gives them, from tokens worked out before."""
        return self._look_on(tokens)[0]

    def _look_on(self, tokens: SensorTokens) -> tuple[Tensor, Tensor | None]:
        assert isinstance(self.fusion, AttentionFusion | RouteFusion)
        latent = self.fusion(tokens.values, tokens.present)
        if not self.config.outlook:
            return latent, None
        outlook = self.outlook(latent)
        return self._with_outlook(latent, outlook, tokens.values), outlook

    def cached_shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each key of an observation (without batch) that holds features worked out before."""
        privileged = {key: shape for key, shape in self.spec.shapes().items() if key == "privileged"}
        return {LATENT: ((self.latent_size,), "float32"), **privileged}

    def freeze_features(self) -> None:
        """Encoders and fusion have no gradients from now on; policy and value do."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(("policy.", "value.")))

    def take_over(self, other: DrivingNetwork) -> None:
        """Take the weights of another network; where only the other's critic sees something else, all but those of the critic.

        Tokens of surroundings that only this one looks up are 0 at first: it drives nearly as the other does.

        Raises:
            ValueError: it has another shape or observation.
        """
        if self.same_shape(other):
            self.load_state_dict(other.state_dict())
            return
        if self.adds_surroundings_to(other):
            missing = self.load_state_dict(other.state_dict(), strict=False).missing_keys
            for name in missing:
                nn.init.zeros_(self.get_parameter(name))
            return
        if self.config != other.config or not self.spec.same_sensors(other.spec):
            raise ValueError("another shape or observation")
        weights = {n: t for n, t in other.state_dict().items() if not n.startswith(("value.", "statistics."))}
        self.load_state_dict(weights, strict=False)

    def perceive(self, observation: Tensors) -> tuple[SensorFeatures, FusedFeatures]:
        """What the encoders and what fusion make of a batched observation, maps included: what perception is trained on."""
        features = self.features(observation)
        fused = self.fusion.fuse(features)
        if self.config.outlook:
            outlook = self.outlook(fused.latent)
            fused = FusedFeatures(self._with_outlook(fused.latent, outlook, features.vectors), fused.bev, outlook)
        return features, fused

    def act(self, observation: Tensors) -> BetaActions:
        """Distribution over actions; never looks at `privileged`."""
        return BetaActions.from_logits(self.policy(self.latent(observation)))

    def forward(self, observation: Tensors) -> tuple[BetaActions, Tensor]:
        """Distribution over actions and value (B,) float32."""
        latent = self.latent(observation)
        critic = latent
        if self.statistics is not None:
            critic = torch.cat([latent, self.statistics(observation["privileged"])], dim=1)
        return BetaActions.from_logits(self.policy(latent)), self.value(critic).squeeze(-1)

    def same_shape(self, other: nn.Module) -> bool:
        """Whether weights of the other fit here and mean the same."""
        return isinstance(other, DrivingNetwork) and _shape(self) == _shape(other)

    def adds_surroundings_to(self, other: nn.Module) -> bool:
        """Whether this is the other's shape, but that surroundings are looked up here only: all weights of the other fit."""
        if not (isinstance(other, DrivingNetwork) and self.config.surroundings):
            return False
        same = other.config.model_copy(update={"surroundings": True}) == self.config
        return same and not other.config.surroundings and self.spec.to_json() == other.spec.to_json()

    def update_statistics(self, observation: Tensors) -> None:
        """Take observations (B, ...) into the normalisation of what has no physical scale (`privileged`)."""
        if self.statistics is not None:
            self.statistics.update(observation["privileged"])


class PrivilegedNetwork(nn.Module):
    """The `privileged` vector to a Beta policy and a value: two separate perceptrons with two hidden layers."""

    def __init__(self, config: NetworkConfig, spec: ObservationSpec) -> None:
        super().__init__()
        if not spec.privileged_size:
            raise ValueError("a privileged network needs the observation `privileged`, which this environment lacks")
        self.config, self.spec = config, spec
        self.statistics = RunningStatistics(spec.privileged_size)
        self.policy = _head(spec.privileged_size, config.hidden, 2 * ACTION_SIZE, POLICY_GAIN, layers=2)
        self.value = _head(spec.privileged_size, config.hidden, 1, 1.0, layers=2)

    def act(self, observation: Tensors) -> BetaActions:
        """Distribution over actions."""
        return BetaActions.from_logits(self.policy(self.statistics(observation["privileged"])))

    def forward(self, observation: Tensors) -> tuple[BetaActions, Tensor]:
        """Distribution over actions and value (B,) float32."""
        x = self.statistics(observation["privileged"])
        return BetaActions.from_logits(self.policy(x)), self.value(x).squeeze(-1)

    def same_shape(self, other: nn.Module) -> bool:
        """Whether weights of the other fit here and mean the same."""
        return isinstance(other, PrivilegedNetwork) and _shape(self) == _shape(other)

    def update_statistics(self, observation: Tensors) -> None:
        """Take observations (B, ...) into the normalisation."""
        self.statistics.update(observation["privileged"])


ActorCritic = DrivingNetwork | PrivilegedNetwork


def _ego_columns(spec: ObservationSpec) -> int:
    """Of what the network makes of `ego`."""
    return spec.ego_size + len(SLOW_MPS) if spec.ego_size else 0


def _shape(network: ActorCritic) -> tuple[NetworkConfig, str]:
    return network.config, network.spec.to_json()


def build_network(config: NetworkConfig, spec: ObservationSpec, pretrained: bool = True) -> ActorCritic:
    """The network of that kind, freshly initialised from torch's global random state.

    pretrained: whether to fetch ImageNet's weights where the config asks for them; a checkpoint brings its own.

    Raises:
        ValueError: the observation lacks what the kind needs.
    """
    match config.kind:
        case "sensor":
            network = DrivingNetwork(config, spec)
            if pretrained and config.camera_imagenet and spec.cameras:
                network.camera.load_imagenet()
            return network
        case "privileged":
            return PrivilegedNetwork(config, spec)


def _head(
    inputs: int, hidden: int, outputs: int, gain: float, layers: int = 1, activation: type[nn.Module] = nn.Tanh
) -> nn.Sequential:
    """A perceptron with orthogonal weights (gain sqrt 2 inside, `gain` at the end) and no bias at first."""
    sizes = [inputs, *[hidden] * layers]
    modules: list[nn.Module] = []
    for a, b in pairwise(sizes):
        modules += [_orthogonal(nn.Linear(a, b), 2**0.5), activation()]
    return nn.Sequential(*modules, _orthogonal(nn.Linear(sizes[-1], outputs), gain))


def _orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
