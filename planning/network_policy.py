"""A trained network as a `Policy`. Knows networks and checkpoints; knows nothing about sensors or the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from planning.checkpoint import load_checkpoint
from planning.network import ActorCritic
from planning.policy import Observation, Situation
from planning.sense import Sense


class ObservationError(ValueError):
    """An observation that the network was not made for."""


class NetworkPolicy:
    """Drives by the mode of the network's distribution: the same observation gives the same action.

    It has no memory, so `reset` does nothing. Actions are the same bytes for the same batch size; between batch sizes
    they agree within rounding (measured: 1e-6, and 1e-3 where the encoders compute in bfloat16 for a single car).
    """

    def __init__(self, network: ActorCritic, name: str = "network", without: Sequence[Sense] = ()) -> None:
        """without: what the network is to drive without, as if these sensors had failed.

        Raises ObservationError where it has no such sensors.
        """
        self.network = network.eval()
        cameras, lidar = set(network.spec.cameras), {"points", "point_count"} if network.spec.max_points else set()
        self._silent: set[str] = set()
        for sense in without:
            keys = cameras if sense == Sense.CAMERAS else lidar
            if not keys:
                raise ObservationError(f'policy "{name}" has no {sense} that it could drive without')
            self._silent |= keys
        self.name = name
        self._shapes = network.spec.shapes()
        if network.config.kind == "privileged":
            self._shapes = {"privileged": self._shapes["privileged"]}
        else:
            self._shapes.pop("privileged", None)  # only the critic looks at it

    @staticmethod
    def load(path: str | Path, name: str | None = None, without: Sequence[Sense] = ()) -> NetworkPolicy:
        """The policy in a checkpoint, a local path or an fsspec URL; called by the file's name if no other is given.

        Raises:
            CheckpointError: the file is no usable checkpoint.
        """
        return NetworkPolicy(load_checkpoint(path).network, Path(str(path)).stem if name is None else name, without)

    def reset(self, started: NDArray[np.bool_]) -> None:
        """Nothing is remembered."""

    def act(self, observation: Observation, situation: Situation | None) -> NDArray[np.float32]:
        """Actions (N, 2) float32 in [-1, 1] for a batched observation; keys the network does not use are ignored.

        Raises:
            ObservationError: a key is missing, or its shape or dtype is not what the network was trained on.
        """
        tensors = {}
        for key, (shape, dtype) in self._shapes.items():
            if key not in observation:
                has = ", ".join(observation) or "nothing"
                raise ObservationError(
                    f'policy "{self.name}" needs {key}, but the observation has {has}; use the rig it was trained with'
                )
            values = observation[key]
            if values.ndim == 0 or values.dtype != dtype or values[:1].size not in (0, int(np.prod(shape))):
                raise ObservationError(
                    f'policy "{self.name}" takes {key} as {dtype} {shape} per car, got {values.dtype} '
                    f"{values.shape[1:]}; use the rig it was trained with"
                )
            if key in self._silent:
                values = np.zeros_like(values)
            tensors[key] = torch.from_numpy(np.ascontiguousarray(values).reshape(len(values), *shape))
        with torch.inference_mode():
            return self.network.act(tensors).mode().numpy()  # type: ignore[no-any-return]
