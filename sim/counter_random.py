"""Counter-based random numbers: a hash of (seed, episode, tick, agent, purpose), in kernels and in numpy.

There is no state, so an episode draws the same numbers whatever runs beside it. Knows nothing about what the numbers
are for, except that each use has its own `Purpose`. The mixing function is the finalizer of SplitMix64 (Steele, Lea
and Flood, 2014).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from sim.numba_setup import KERNEL

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MUL_1 = np.uint64(0xBF58476D1CE4E5B9)
_MUL_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11, _32 = (np.uint64(n) for n in (30, 27, 31, 11, 32))
_UNIT = 2.0**-53


class Purpose(IntEnum):
    """What a random number decides; one value never serves two purposes."""

    ROUTE = 1
    SIGNAL_SHIFT = 2
    SPAWN = 3
    PROFILE = 4
    TURN = 5
    COUNT = 6
    WEATHER = 7
    NOISE = 8
    WALKER_SPAWN = 20
    WALKER_PROFILE = 21
    WALKER_TURN = 22
    CAMERA_NOISE = 30
    GNSS = 31
    IMU = 32
    RAIN = 40
    MESH = 33
    SCENARIO = 50


@njit(**KERNEL)
def mix(value: np.uint64) -> np.uint64:
    """SplitMix64's finalizer of a uint64 (scalar or array)."""
    value = (value ^ (value >> _30)) * _MUL_1
    value = (value ^ (value >> _27)) * _MUL_2
    return value ^ (value >> _31)


@njit(**KERNEL)
def hash_key(seed: np.uint64, episode: int, tick: int, agent: int, purpose: int) -> np.uint64:
    """The uint64 of one counter; `uniform` of it, or of `mix(key + n)` for the n-th of a row of numbers."""
    key = mix(np.uint64(seed) + _GOLDEN)
    key = mix(key ^ (np.uint64(episode) + _GOLDEN))
    key = mix(key ^ (np.uint64(tick) + _GOLDEN))
    return mix(key ^ ((np.uint64(agent) << _32) | np.uint64(purpose)))


@njit(**KERNEL)
def uniform(key: np.uint64) -> float:
    """Number in [0, 1) with 53 random bits, of a key."""
    return float(key >> _11) * _UNIT


@njit(**KERNEL)
def nth_uniform(key: np.uint64, n: int) -> float:
    """The n-th number in [0, 1) of the row that a key opens."""
    return float(mix(key + np.uint64(n) * _GOLDEN) >> _11) * _UNIT


def uniform_array(
    seed: ArrayLike, episode: ArrayLike, tick: ArrayLike, agent: ArrayLike, purpose: int
) -> NDArray[np.float64]:
    """The same numbers as `uniform(hash_key(...))`, broadcast over arrays, in numpy."""
    values = [np.atleast_1d(np.asarray(v)).astype(np.uint64) for v in (seed, episode, tick, agent)]

    def mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        value = (value ^ (value >> _30)) * _MUL_1
        value = (value ^ (value >> _27)) * _MUL_2
        return value ^ (value >> _31)

    key = mixed(values[0] + _GOLDEN)
    key = mixed(key ^ (values[1] + _GOLDEN))
    key = mixed(key ^ (values[2] + _GOLDEN))
    key = mixed(key ^ ((values[3] << _32) | np.uint64(purpose)))
    shape = np.broadcast_shapes(*(np.shape(v) for v in (seed, episode, tick, agent)))
    return ((key >> _11).astype(np.float64) * _UNIT).reshape(shape)
