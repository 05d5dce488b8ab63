"""Frames as frozen encoders see them, on disk, for all that lies behind the encoders to learn from again and again.

Knows files and tokens; knows nothing about who drives or where frames come from. A shard is a folder of `.npy` files, read as
memory maps and never as pickles: what is learned from may be larger than memory.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.features import SensorTokens
from perception.labels import Affordance
from planning.action import ACTION_SIZE

_TOKENS, _PRESENT, _ENCODERS = "tokens-", "present-", "encoders.sha256"
# Whether the system takes advice on what is read. Left to itself it reads ahead of rows that are drawn at random, and throws out
# others for it: a round of 700 steps on 27 GB of frames and 24 GB of memory takes 333 s with advice, 1,013 s without.
_ADVISED = hasattr(mmap, "MADV_WILLNEED")
_LABELS: dict[str, tuple[str, tuple[int, ...]]] = {
    "expert": ("float32", (ACTION_SIZE, 2)),
    "light": ("int64", ()),
    "lane": ("float32", (2,)),
    "affordances": ("float32", (len(Affordance),)),
}


class KeptFramesError(ValueError):
    """A folder that holds no usable shard, or a shard that cannot be written; the message is one line."""


@dataclass(frozen=True)
class KeptFrames:
    """B frames: tokens, and the labels `expert`, `light`, `lane`, `affordances` of `perception.labels.LabelledFrames`."""

    tokens: SensorTokens
    expert: Tensor
    light: Tensor
    lane: Tensor
    affordances: Tensor

    def __len__(self) -> int:
        return len(self.expert)


def encoders_digest(network: nn.Module) -> str:
    """SHA-256 of the weights that make tokens, in hexadecimal; of 16 bits of each, so that an exported network has the same."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if name.startswith(("camera.", "points.")):
            digest.update(name.encode())
            digest.update(tensor.detach().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def require_encoders(folder: Path, encoders: str) -> None:
    """Whether a shard's tokens are of these encoders (`encoders_digest`); one of older versions does not say, and may be of any.

    Raises KeptFramesError where they are of others."""
    path = folder / _ENCODERS
    if path.exists() and path.read_bytes() != encoders.encode():
        raise KeptFramesError(
            f"{folder}: frames as other encoders see them than those of this network; give it frames of its own, or delete these"
        )


def write_shard(folder: Path, parts: Sequence[KeptFrames], encoders: str | None = None) -> int:
    """Write frames as one shard, all or nothing; tokens with 16 bits a number. Returns how many.

    encoders: whose tokens they are, for `require_encoders`.
    Raises KeptFramesError where there is none, or no room on the disk."""
    if not parts:
        raise KeptFramesError(f"{folder}: nothing was kept of this shard; let more be driven, or more of it be kept")
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        for name in parts[0].tokens.values:
            _write(unfinished / f"{_TOKENS}{name}", [part.tokens.values[name].half() for part in parts])
        for name in parts[0].tokens.present:
            _write(unfinished / f"{_PRESENT}{name}", [part.tokens.present[name] for part in parts])
        for name in _LABELS:
            _write(unfinished / name, [getattr(part, name) for part in parts])
        if encoders is not None:
            (unfinished / _ENCODERS).write_text(encoders, encoding="ascii")
        os.replace(unfinished, folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise KeptFramesError(
            f"{folder}: cannot be written: {' '.join(str(error).split())}; make room and go on with --resume"
        ) from None
    return sum(len(part) for part in parts)


def _write(path: Path, parts: Sequence[Tensor]) -> None:
    np.save(path.with_suffix(".npy"), torch.cat(list(parts)).numpy(), allow_pickle=False)


class FrameStore:
    """Shards of one run, opened as they are added."""

    def __init__(self) -> None:
        self._shards: list[dict[str, NDArray[np.generic]]] = []
        self._first = [0]  # number of each shard's first frame, and of the frame after the last

    def __len__(self) -> int:
        return self._first[-1]

    def add(self, folder: Path) -> None:
        """Open one more shard.

        Raises:
            KeptFramesError: files are missing, damaged, or do not belong to the shards before.
        """
        try:
            arrays = {
                path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))
            }
        except (OSError, ValueError, EOFError) as error:
            raise KeptFramesError(f"{folder}: {' '.join(str(error).split())[:200]}; delete this shard") from None
        like = self._shards[0] if self._shards else arrays
        shapes = {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
        fits = shapes == {name: (array.dtype, array.shape[1:]) for name, array in like.items()}
        told = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in _LABELS.items()}
        fits &= told.items() <= shapes.items() and len({len(array) for array in arrays.values()}) == 1
        if not fits:
            raise KeptFramesError(
                f"{folder}: no shard of frames like those before; delete it, or start in a new folder"
            )
        for array in arrays.values():
            if (file := _fetched(array)) is not None:
                file.madvise(mmap.MADV_RANDOM)
        self._shards.append(arrays)
        self._first.append(self._first[-1] + len(arrays["expert"]))

    def affordances(self) -> NDArray[np.float32]:
        """Those of all frames (N, len(Affordance)), copied."""
        return np.concatenate([shard["affordances"] for shard in self._shards]).astype(np.float32)

    def expect(self, numbers: NDArray[np.intp]) -> None:
        """Have the system fetch the frames with these numbers (B,) from disk while something else is computed.

        Changes nothing but the time that `frames` takes, where shards are larger than memory. Cost: five system calls a frame."""
        ordered = np.sort(numbers)
        bounds = np.searchsorted(ordered, self._first)
        for k, shard in enumerate(self._shards):
            rows = ordered[bounds[k] : bounds[k + 1]] - self._first[k]
            for array in shard.values():
                file = _fetched(array)
                if file is not None:
                    begin, size = len(file) - array.nbytes, array.strides[0]
                    for at in (begin + rows * size).tolist():
                        page = at - at % mmap.PAGESIZE
                        file.madvise(mmap.MADV_WILLNEED, page, at + size - page)

    def frames(self, numbers: NDArray[np.intp]) -> KeptFrames:
        """The frames with these numbers (B,), in that order, copied."""
        self.expect(numbers)
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        bounds = np.searchsorted(ordered, self._first)
        arrays = {
            name: np.empty((len(numbers), *array.shape[1:]), array.dtype) for name, array in self._shards[0].items()
        }
        for k, shard in enumerate(self._shards):
            mine = slice(bounds[k], bounds[k + 1])
            for name, array in shard.items():
                arrays[name][order[mine]] = array[ordered[mine] - self._first[k]]
        return _frames_of({name: torch.from_numpy(array) for name, array in arrays.items()})


def _fetched(array: NDArray[np.generic]) -> mmap.mmap | None:
    """The file of an array whose rows are fetched one by one: those that fill pages. Small ones all lie in memory soon."""
    base: object = array.base
    return base if _ADVISED and isinstance(base, mmap.mmap) and array.strides[0] >= mmap.PAGESIZE else None


def _frames_of(arrays: Mapping[str, Tensor]) -> KeptFrames:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    values = {name: array.float() for name, array in under(_TOKENS).items()}
    return KeptFrames(SensorTokens(values, under(_PRESENT)), **{name: arrays[name] for name in _LABELS})
