"""Kernels and networks spread over threads by environment.

Knows that both release Python's lock; knows nothing about what they do. Numba's own parallel loops compile twice as long, and a
forked process inherits a thread pool that does not run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

MOST_THREADS: int = numba.config.NUMBA_NUM_THREADS
_pool: ThreadPoolExecutor | None = None
T = TypeVar("T")


def over_environments(kernel: Callable[..., Any], which: NDArray[np.intp], *args: Any) -> None:
    """Call kernel(k, part, *args) with the environments `which` (N,) in parts, k from 0 to below MOST_THREADS.

    As many at a time as `numba.get_num_threads()`; this thread does the first part. k is nobody else's meanwhile, so scratch can be
    addressed by it.
    """
    count = min(numba.get_num_threads(), len(which))
    if count <= 1:
        kernel(0, which, *args)
        return
    pool = _threads()
    parts = np.array_split(which, count)
    others = [pool.submit(kernel, k, part, *args) for k, part in enumerate(parts[1:], 1)]
    kernel(0, parts[0], *args)
    for other in others:
        other.result()


def limit_torch(count: int) -> None:
    """Let torch compute with `count` threads from here on.

    Numba starts its OpenMP threads at the first need and sets their number for everybody who uses the same OpenMP, torch
    too. So they start here, before torch is told: otherwise a first run sums in another order than a second one.
    """
    import torch

    numba.get_num_threads()
    torch.set_num_threads(count)


def over_torch_threads(infer: Callable[[slice], T], count: int) -> list[T]:
    """infer(part) of `count` environments in as many parts as torch has threads, in order; each part on one thread alone.

    So threads wait for each other once, not at every operation (measured: a tenth faster for 32 frames on two threads). For
    inference: nothing in it has gradients.
    """
    import torch

    threads = torch.get_num_threads()
    edges = [count * k // threads for k in range(threads + 1)]
    parts = [slice(first, last) for first, last in pairwise(edges) if first < last]

    def alone(part: slice) -> T:
        torch.set_num_threads(1)
        with torch.inference_mode():
            return infer(part)

    try:
        others = [_threads().submit(alone, part) for part in parts[1:]]
        return [alone(parts[0]), *(other.result() for other in others)] if parts else []
    finally:
        torch.set_num_threads(threads)


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="automedon")
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
