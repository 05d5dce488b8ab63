"""Whether networks compute in bfloat16 here. Knows torch and the processor; knows nothing about what is computed."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]
DECISION = "AUTOMEDON_BFLOAT16"  # 0 or 1 in the environment: what was measured, for processes that this one starts
LEAST_GAIN = 1.2  # below, a run on a busy machine could come out either way


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX-512 BF16 or AMX); elsewhere it would be emulated and slow."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@lru_cache(maxsize=1)
def bfloat16_is_faster() -> bool:
    """Whether bfloat16 is there and pays: convolutions forward and back, about 0.2 s, once in a process.

    Processes that are started from here on decide the same: on a busy machine each for itself might measure something else, and
    frames of one run would come from two networks.
    """
    if not cpu_has_bfloat16():
        return False
    if os.environ.get(DECISION) not in ("0", "1"):
        os.environ[DECISION] = "1" if _seconds(False) > LEAST_GAIN * _seconds(True) else "0"
    return os.environ[DECISION] == "1"


def autocast(precision: Precision) -> torch.autocast:
    """The context in which a network of that precision computes; auto takes bfloat16 where it is measured to be faster."""
    enabled = precision == "bfloat16" or (precision == "auto" and bfloat16_is_faster())
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


def _seconds(bfloat16: bool) -> float:
    """The fastest of some passes through three convolutions of a ResNet, forward and back; whoever asks first may be in the midst
    of inference."""
    with torch.inference_mode(False), torch.enable_grad():
        return _measured(bfloat16)


def _measured(bfloat16: bool) -> float:
    with torch.random.fork_rng():
        layers = nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1) for _ in range(3))).to(
            memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        x = torch.randn(8, 64, 24, 48).to(memory_format=torch.channels_last)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            y = layers(x)
        y.float().sum().backward()
        times.append(time.perf_counter() - started)
    return min(times[1:])
