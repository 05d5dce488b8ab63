"""Labelled frames that a Ray cluster renders, a town of a chapter at a time: the same bytes as those of one machine.

Knows Ray as it is handed in (extra `ray`); loaded only where the configuration asks for it. Ray renders the part of a worker
that dies again: a part is a pure function of its numbers. Nodes need this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from perception.labels import LabelledFrames, joined
from perception.points import BevGrid
from sim.labelled_frames import DrivenFrames, FramesConfig
from sim.sensors.rig import RigConfig

DEATHS_FORGIVEN = 3
_Arguments = tuple[FramesConfig, RigConfig, BevGrid, int, Literal["train", "validation"]]

_source: tuple[_Arguments, DrivenFrames] | None = None  # of a worker process of the cluster; its last town is kept


def render_shard(arguments: _Arguments, chapter: int, place: int, batches: int) -> list[LabelledFrames]:
    """The part of a chapter that comes from one of its towns."""
    global _source
    if _source is None or _source[0] != arguments:
        _source = (arguments, DrivenFrames(*arguments))
    return _source[1].shard(chapter, place, batches)


class RayFrames:
    """A source of labelled frames (perception.train_perception.FrameSource).

    Args:
        ray: as `sim.evaluation.ray_cluster.connected` gives it.
        local: the frames that are wanted; renders nothing here.
        batches: of each chapter, all rendered at once and held by the cluster until they are asked for.
    """

    def __init__(self, ray: Any, local: DrivenFrames, batches: int) -> None:
        self._ray, self._batches = ray, batches
        self._arguments: _Arguments = (local.config, local.rig, local.grid, local.seed, local.split)
        self.batch_size = local.batch_size
        self._frames: Iterator[LabelledFrames] = iter(())

    def begin(self, chapter: int) -> None:
        """Have the chapter rendered."""
        remote = self._ray.remote(num_cpus=1, max_retries=DEATHS_FORGIVEN)(render_shard)
        towns = self._arguments[0].towns_at_once
        shards = self._ray.get([remote.remote(self._arguments, chapter, k, self._batches) for k in range(towns)])
        self._frames = (joined(parts) for parts in zip(*shards, strict=True))

    def next(self) -> LabelledFrames:
        """The next batch_size frames, which the caller may change."""
        return next(self._frames)
