"""What a driver does on kept frames, as a loss beside the policy gradient.

A policy that learns from reward alone drifts wherever reward says little: the last metre before a stop sign is one decision in some
thousand, and what others teach moves it, too. Imitation beside reinforcement holds it (Lu et al., "Imitation Is Not Enough", 2022).
The driver is the expert, or the policy as it was at the start, which teaches nothing new and pulls only once something has moved.
Encoders and fusion are frozen then, so a kept frame is a row of features, and a loss over some hundred costs next to nothing.

Knows kept frames and networks; knows nothing about rewards or who drove.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from planning.beta import BetaActions
from planning.imitation import ImitationConfig, imitation_loss
from planning.kept_frames import FrameStore, KeptFramesError, encoders_digest, require_encoders
from planning.network import LATENT, ActorCritic, DrivingNetwork
from planning.train_kept import DrawWeights, draw, draw_weights, with_silence

CHUNK = 512  # frames that go through fusion together


class DemonstrationsConfig(BaseModel):
    """Which kept frames hold a policy, and near to whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: str = Field(
        min_length=1, description="folder of shards, as stage 3b leaves them for the network of start_from"
    )
    driver: Literal["expert", "start"] = Field(
        default="expert",
        description="who is imitated on them: the expert, as the frames say, or the policy of start_from, which so stays as it is "
        "where reward says nothing",
    )
    count: int = Field(default=100_000, ge=1, le=10_000_000, description="frames drawn of all, once, as `draws` says")
    draws: DrawWeights = DrawWeights.model_validate({})
    silent_camera: float = Field(default=0.05, ge=0, le=1, description="share of frames without any picture")
    silent_lidar: float = Field(default=0.05, ge=0, le=1, description="share of frames without a sweep")
    imitation: ImitationConfig = Field(
        default=ImitationConfig.model_validate({}), description="weights of frames in which the expert brakes or turns"
    )


def open_shards(config: DemonstrationsConfig) -> FrameStore:
    """All shards of the folder.

    Raises KeptFramesError: there are none, or one is damaged.
    """
    store = FrameStore()
    for shard in _shards(config):
        store.add(shard)
    if not len(store):
        raise KeptFramesError(
            f"demonstrations.frames: no shards of kept frames in {config.frames}; give the folder `frames` of a run of stage 3b, "
            "or set ppo.demonstration_weight=0 to do without"
        )
    return store


def _shards(config: DemonstrationsConfig) -> list[Path]:
    return sorted(Path(config.frames).glob("shard-*"))


@dataclass(frozen=True)
class Demonstrations:
    """N frames: latent (N, F) float32, driver (N, 2, 2) float32 as `perception.labels.LabelledFrames.expert` has it."""

    latent: Tensor
    driver: Tensor
    imitation: ImitationConfig

    @staticmethod
    def of(store: FrameStore, config: DemonstrationsConfig, network: DrivingNetwork, seed: int) -> Demonstrations:
        """Draw from the frames of `open_shards`, and work out their features, and what the network does there if it is the driver.

        Raises KeptFramesError: they do not fit this network.
        """
        encoders = encoders_digest(network)
        for shard in _shards(config):
            require_encoders(shard, encoders)
        draws = np.cumsum(draw_weights(store.affordances(), config.draws))
        rng, latents, drivers = np.random.default_rng(seed), [], []
        # In the order in which they lie on the disk: what is drawn later is drawn by chance again.
        numbers = np.sort(draw(rng, draws, config.count))
        for first in range(0, config.count, CHUNK):
            frames = store.frames(numbers[first : first + CHUNK])
            frames = with_silence(frames, network.spec.cameras, (config.silent_camera, config.silent_lidar), rng)
            try:
                with torch.inference_mode():
                    latents.append(network.latent_of(frames.tokens))
                    own = network.act({LATENT: latents[-1]}).concentrations()
                drivers.append(own if config.driver == "start" else frames.expert)
            except (KeyError, RuntimeError) as error:
                why = " ".join(str(error).split())[:120]
                raise KeptFramesError(f"{config.frames}: frames of a network of another shape: {why}") from None
        return Demonstrations(torch.cat(latents).clone(), torch.cat(drivers).clone(), config.imitation)

    def loss(self, network: ActorCritic, count: int, generator: torch.Generator) -> Tensor:
        """Weighted mean divergence of the policy from the driver, nats, over `count` frames drawn with repetition."""
        chosen = torch.randint(len(self.latent), (count,), generator=generator)
        driven: BetaActions = network.act({LATENT: self.latent[chosen]})
        return imitation_loss(driven, self.driver[chosen], self.imitation)[0]
