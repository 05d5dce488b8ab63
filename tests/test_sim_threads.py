"""Kernels over environments: each environment once, scratch to one thread at a time, errors not lost."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch

from sim.threads import MOST_THREADS, over_environments, over_torch_threads


@pytest.fixture
def all_threads() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(MOST_THREADS)
    yield
    numba.set_num_threads(before)


def mark(k: int, which: np.ndarray, seen: np.ndarray, by: np.ndarray) -> None:
    for e in which:
        seen[e] += 1
        by[e] = k


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("count", [0, 1, 2, 7, 64])
def test_every_environment_is_done_once(count: int) -> None:
    seen, by = np.zeros(100, np.int64), np.full(100, -1)
    which = np.random.default_rng(count).permutation(100)[:count]
    over_environments(mark, which, seen, by)
    assert seen.sum() == count
    assert (seen[which] == 1).all()
    assert set(by[which]) == set(range(min(count, MOST_THREADS)))


def fail(k: int, which: np.ndarray) -> None:
    if 3 in which:
        raise ValueError("environment 3")


@pytest.mark.usefixtures("all_threads")
def test_an_error_in_any_part_is_raised() -> None:
    for which in ([3], [0, 3], [3, 0], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="environment 3"):
            over_environments(fail, np.array(which))


@pytest.mark.parametrize(("count", "parts"), [(0, []), (1, [(0, 1)]), (2, [(0, 1), (1, 2)]), (5, [(0, 2), (2, 5)])])
def test_parts_of_a_network_are_computed_in_order_each_by_one_thread(count: int, parts: list[tuple[int, int]]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def infer(part: slice) -> tuple[int, int]:
            assert torch.get_num_threads() == 1
            assert torch.is_inference_mode_enabled()
            return part.start, part.stop

        assert over_torch_threads(infer, count) == parts
        with pytest.raises(ZeroDivisionError):
            over_torch_threads(lambda part: 1 // part.start, 2)
        assert torch.get_num_threads() == 2
        assert not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(before)


def in_child(queue: multiprocessing.Queue[int]) -> None:
    seen, by = np.zeros(8, np.int64), np.zeros(8, np.int64)
    over_environments(mark, np.arange(8), seen, by)
    queue.put(int(seen.sum()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("all_threads")
@pytest.mark.skipif(MOST_THREADS < 2, reason="one core: nothing is handed over")
def test_a_forked_process_makes_threads_of_its_own() -> None:
    over_environments(mark, np.arange(8), np.zeros(8, np.int64), np.zeros(8, np.int64))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == 8
    child.join()


STARTS_ITS_THREADS_LATE = """
import numba, torch
import sim.numba_setup
from sim.threads import limit_torch
limit_torch(1)
@numba.njit(parallel=True)
def total(n):
    s = 0
    for i in numba.prange(n):
        s += i
    return s
assert total(10) == 45
print(torch.get_num_threads())
"""


def test_kernels_that_start_their_threads_leave_those_of_torch_alone() -> None:
    done = subprocess.run([sys.executable, "-c", STARTS_ITS_THREADS_LATE], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1"
