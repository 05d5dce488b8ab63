"""Lanes against numpy: what eight values at once do must be what numpy does with each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import TypingError
from numpy.typing import NDArray

from sim import simd, simd_memory
from sim.simd import (
    WIDTH,
    all_lanes,
    any_lane,
    blend,
    first_false,
    floor,
    fma,
    greatest,
    lane,
    lane_numbers,
    largest,
    least,
    lowest_bit,
    mask_bits,
    shift_right,
    signs,
    smallest,
    splat,
    sqrt,
    to_float,
    to_int,
    where,
)
from sim.simd_memory import gather, gather_pair, load, load2, load_rows, prefetch_places, store, store2, store_rgb

KERNEL: dict[str, Any] = {"_nrt": False, "error_model": "numpy"}
floats = st.lists(st.floats(width=32), min_size=WIDTH, max_size=WIDTH).map(lambda values: np.array(values, np.float32))
moderate = st.lists(st.floats(-1e6, 1e6, width=32), min_size=WIDTH, max_size=WIDTH).map(
    lambda v: np.array(v, np.float32)
)
whole = st.lists(st.integers(-(2**31), 2**31 - 1), min_size=WIDTH, max_size=WIDTH).map(lambda v: np.array(v, np.int32))


@njit(**KERNEL)
def float_operations(a, b, s, out):
    x, y = load(a, 0), load(b, 0)
    store2(out, 0, 0, x + y)
    store2(out, 1, 0, x - s)
    store2(out, 2, 0, s * y)
    store2(out, 3, 0, x / y)
    store2(out, 4, 0, -x)
    store2(out, 5, 0, abs(x))
    store2(out, 6, 0, sqrt(x))
    store2(out, 7, 0, floor(x))
    store2(out, 8, 0, least(x, y))
    store2(out, 9, 0, greatest(x, s))
    store2(out, 10, 0, where((x < y) & ~(x == s), x, y))
    store2(out, 11, 0, where((x >= y) | (y != y), splat(s), y))


@settings(max_examples=200, deadline=None)
@given(a=floats, b=floats, s=st.floats(width=32))
def test_floats_are_those_of_ieee_754(a: NDArray[np.float32], b: NDArray[np.float32], s: float) -> None:
    out, s32 = np.zeros((12, WIDTH), np.float32), np.float32(s)
    float_operations(a, b, s32, out)
    with np.errstate(all="ignore"):
        expected = [
            a + b, a - s32, s32 * b, a / b, -a, np.abs(a), np.sqrt(a), np.floor(a), np.where(a < b, a, b),
            np.where(a > s32, a, s32), np.where((a < b) & ~(a == s32), a, b), np.where((a >= b) | np.isnan(b), s32, b),
        ]  # fmt: skip
    for row, wanted in zip(out, expected, strict=True):
        assert np.array_equal(row, np.asarray(wanted, np.float32), equal_nan=True)


@njit(**KERNEL)
def fused(a, b, c, s, out):
    x, y, z = load(a, 0), load(b, 0), load(c, 0)
    store2(out, 0, 0, fma(x, y, z))
    store2(out, 1, 0, fma(s, x, z))
    store2(out, 2, 0, blend(x, s, z))


@settings(max_examples=100, deadline=None)
@given(a=moderate, b=moderate, c=moderate, s=st.floats(-1e3, 1e3, width=32))
def test_fused_products_are_rounded_once(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32], s: float
) -> None:
    """No float32 is nearer to the exact result."""
    out = np.zeros((3, WIDTH), np.float32)
    fused(a, b, c, np.float32(s), out)
    rows = [(a, b, c), (np.full(WIDTH, s, np.float32), a, c), (c, np.float32(s) - a, a)]
    for row, factors in zip(out, rows, strict=True):
        for got, x, y, z in zip(row, *factors, strict=True):
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            error = abs(Fraction(float(got)) - exact)
            for other in (np.nextafter(got, np.float32(np.inf)), np.nextafter(got, np.float32(-np.inf))):
                assert error <= abs(Fraction(float(other)) - exact)


@njit(**KERNEL)
def whole_operations(a, b, s, out):
    x, y = load(a, 0), load(b, 0)
    store2(out, 0, 0, x + y)
    store2(out, 1, 0, x * y)
    store2(out, 2, 0, (x & y) | s)
    store2(out, 3, 0, x ^ y)
    store2(out, 4, 0, x >> 3)
    store2(out, 5, 0, x << 5)
    store2(out, 6, 0, shift_right(x, 7))
    store2(out, 7, 0, ~x - s)
    store2(out, 8, 0, least(x, y))
    store2(out, 9, 0, where(x > y, s, y))
    store2(out, 10, 0, lane_numbers())


@settings(max_examples=100, deadline=None)
@given(a=whole, b=whole, s=st.integers(-(2**31), 2**31 - 1))
def test_whole_numbers_wrap_around(a: NDArray[np.int32], b: NDArray[np.int32], s: int) -> None:
    out, s32 = np.zeros((11, WIDTH), np.int32), np.int32(s)
    whole_operations(a, b, s32, out)
    with np.errstate(all="ignore"):
        expected = [
            a + b, a * b, (a & b) | s32, a ^ b, a >> 3, a << 5, (a.view(np.uint32) >> 7).view(np.int32), ~a - s32,
            np.minimum(a, b), np.where(a > b, s32, b), np.arange(WIDTH),
        ]  # fmt: skip
    for row, wanted in zip(out, expected, strict=True):
        assert row.tolist() == np.asarray(wanted).tolist()


@njit(**KERNEL)
def reductions(a, b, numbers, counts):
    x, y = load(a, 0), load(b, 0)
    counts[0], counts[1] = mask_bits(x < y), first_false(x < y)
    counts[2], counts[3] = any_lane(x < y), all_lanes(x < y)
    numbers[0], numbers[1], numbers[2] = smallest(x), largest(x), lane(y, 3)


@settings(max_examples=200, deadline=None)
@given(a=moderate, b=moderate)
def test_reductions(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    numbers, counts = np.zeros(3, np.float32), np.zeros(4, np.int32)
    reductions(a, b, numbers, counts)
    less = a < b
    assert counts[0] == sum(int(bit) << k for k, bit in enumerate(less))
    assert counts[1] == (int(np.argmin(less)) if not less.all() else WIDTH)
    assert counts[2:].tolist() == [less.any(), less.all()]
    assert numbers.tolist() == [a.min(), a.max(), b[3]]


@njit(**KERNEL)
def conversions(a, out):
    x = load(a, 0)
    store(out, 0, to_int(x))
    store(out, WIDTH, to_int(to_float(to_int(x)) + np.float32(1.0)))


@settings(max_examples=100, deadline=None)
@given(a=moderate)
def test_conversions_cut_off_towards_zero(a: NDArray[np.float32]) -> None:
    out = np.zeros(2 * WIDTH, np.int32)
    conversions(a, out)
    assert out[:WIDTH].tolist() == np.trunc(a).astype(np.int32).tolist()
    assert out[WIDTH:].tolist() == (np.trunc(a) + np.float32(1)).astype(np.int32).tolist()


@njit(**KERNEL)
def memory(small, wide, table, at, pixels, out):
    store2(small, 1, 3, load2(small, 0, 2) + load2(wide, 1, 1))
    store2(out, 0, 0, gather(table, load(at, 0)))
    store_rgb(pixels, 1, 1, load(at, 0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.float32])
def test_memory_is_read_and_written_where_it_should(dtype: type) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (3, WIDTH + 8)).astype(np.uint8)
    wide = rng.integers(-(2**30), 2**30, (2, WIDTH + 4)).astype(np.int32)
    table = rng.integers(0, 200, 38).astype(dtype)[:35].reshape(5, 7)
    at = rng.permutation(35)[:WIDTH].astype(np.int32)
    at[:4] = 0, 1, 2, 34
    pixels, out = (
        np.full((3, WIDTH + 2, 3), 9, np.uint8),
        np.zeros((1, WIDTH), np.float32 if dtype is np.float32 else np.int32),
    )
    expected = small.copy()
    expected[1, 3 : 3 + WIDTH] = (small[0, 2 : 2 + WIDTH] + wide[1, 1 : 1 + WIDTH]).astype(np.uint8)
    memory(small, wide, table, at, pixels, out)
    assert np.array_equal(small, expected)
    assert np.array_equal(out[0], table.reshape(-1)[at])
    assert np.array_equal(pixels[1, 1 : 1 + WIDTH], np.stack([at & 255, at >> 8, at >> 16], -1).astype(np.uint8))
    untouched = np.ones((3, WIDTH + 2), bool)
    untouched[1, 1 : 1 + WIDTH] = False
    assert (pixels[untouched] == 9).all()


@njit(**KERNEL)
def pairs(table, at, out):
    first, second = gather_pair(table, load(at, 0))
    store2(out, 0, 0, first)
    store2(out, 1, 0, second)


@njit(**KERNEL)
def asked_for(table, at, out):
    prefetch_places(table, load(at, 0))
    store2(out, 0, 0, gather(table, load(at, 0)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_what_is_asked_for_is_there_and_places_beyond_do_no_harm(dtype: type) -> None:
    table = np.arange(100, dtype=dtype)[:96].reshape(8, 12)
    at, out = np.arange(0, 96, 6, np.int32), np.zeros((1, WIDTH), np.int32)
    asked_for(table, at, out)
    assert np.array_equal(out[0], at)
    njit(**KERNEL)(lambda table, at: prefetch_places(table, load(at, 0)))(table, at + 2**30)
    assert np.array_equal(table.reshape(-1), np.arange(96))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_pairs_are_neighbours(dtype: type) -> None:
    rng = np.random.default_rng(1)
    table = rng.integers(0, np.iinfo(dtype).max, (5, 7)).astype(dtype)
    at, out = rng.integers(0, 34, WIDTH).astype(np.int32), np.zeros((2, WIDTH), np.int32)
    pairs(table, at, out)
    flat = table.reshape(-1).astype(np.int64).astype(np.int32)
    assert np.array_equal(out, np.stack([flat[at], flat[at + 1]]))


WITHOUT_GATHERS = """
import numpy as np
from numba import njit
from sim.simd import WIDTH
from sim.simd_memory import gather, gather_pair, load, store2

@njit(_nrt=False)
def read(table, at, out):
    store2(out, 0, 0, gather(table, load(at, 0)))

@njit(_nrt=False)
def read_pair(table, at, out):
    first, second = gather_pair(table, load(at, 0))
    store2(out, 0, 0, first)
    store2(out, 1, 0, second)

at = np.random.default_rng(3).integers(0, 34, WIDTH).astype(np.int32)
for dtype in (np.uint8, np.uint16, np.int32, np.uint32, np.float32):
    table = np.random.default_rng(4).integers(0, 200, 38).astype(dtype)
    out = np.zeros((2, WIDTH), np.float32 if dtype is np.float32 else np.int32)
    read(table, at, out)
    assert np.array_equal(out[0], table[at]), dtype
    if dtype in (np.uint16, np.uint32):
        read_pair(table, at, out)
        assert np.array_equal(out, [table[at], table[at + 1]]), dtype
assert not any("vpgather" in asm for asm in read.inspect_asm().values())
"""


def test_processors_without_gathers_read_the_same() -> None:
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    subprocess.run([sys.executable, "-c", WITHOUT_GATHERS], check=True, env={**os.environ, **plain}, timeout=120)


@njit(**KERNEL)
def turned(table, order, rank, count, out):
    rows = load_rows(table, order, rank, count)
    for k in range(8):
        store2(out, k, 0, rows[k])


@pytest.mark.parametrize(("rank", "count"), [(0, 40), (16, 40), (32, 40), (0, 3), (0, 1)])
def test_rows_are_turned_into_columns_and_the_last_one_repeats(rank: int, count: int) -> None:
    rng = np.random.default_rng(2)
    table, order = rng.random((50, 9)).astype(np.float32), rng.permutation(50)[:count].astype(np.int32)
    out = np.zeros((8, WIDTH), np.float32)
    turned(table, order, rank, count, out)
    ranks = np.minimum(np.arange(rank, rank + WIDTH), count - 1)
    assert np.array_equal(out, table[order[ranks], :8].T)


@pytest.mark.parametrize("bits", [1, 2, 12, 128, 255, 2**31 - 2**20])
def test_lowest_bit(bits: int) -> None:
    assert njit(lambda n: lowest_bit(n))(bits) == (bits & -bits).bit_length() - 1


@njit(**KERNEL)
def corner_signs(out):
    store2(out, 0, 0, signs(1))
    store2(out, 1, 0, signs(2))
    store2(out, 2, 0, signs(4))


def test_signs_name_the_eight_corners_of_a_box() -> None:
    out = np.zeros((3, WIDTH), np.float32)
    corner_signs(out)
    assert set(np.unique(out)) == {-1.0, 1.0}
    assert len({tuple(corner) for corner in out[:, :8].T}) == 8
    assert out[:, 5].tolist() == [1.0, -1.0, 1.0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: simd_memory.load(a, 0) + 0.5,
        lambda a: simd_memory.load(a, 0) & simd_memory.load(a, 0),
        lambda a: simd.sqrt(simd.to_int(simd_memory.load(a, 0))),
        lambda a: simd.where(simd_memory.load(a, 0), simd_memory.load(a, 0), simd_memory.load(a, 0)),
        lambda a: simd_memory.load2(a, 0, 0),
    ],
    ids=["float64", "bits of floats", "root of integers", "choice without a mask", "dimensions"],
)
def test_what_does_not_fit_is_refused_at_compile_time(wrong: Any) -> None:
    inner = njit(**KERNEL)(wrong)

    @njit(**KERNEL)
    def kernel(a):
        inner(a)

    with pytest.raises(TypingError):
        kernel(np.zeros(WIDTH, np.float32))
