"""Counter-based random numbers: the same in kernels and numpy, and statistically sane."""

import numpy as np

from sim.counter_random import Purpose, hash_key, mix, nth_uniform, uniform, uniform_array


def test_kernel_and_numpy_agree():
    rng = np.random.default_rng(0)
    seed = rng.integers(0, 2**63, 50).astype(np.uint64)
    episode, tick, agent = rng.integers(0, 10_000, (3, 50))
    ours = uniform_array(seed, episode, tick, agent, Purpose.SPAWN)
    kernel = [
        uniform(np.uint64(hash_key(s, int(e), int(t), int(a), int(Purpose.SPAWN))))
        for s, e, t, a in zip(seed, episode, tick, agent, strict=True)
    ]
    np.testing.assert_array_equal(ours, kernel)


def test_finalizer_is_splitmix64():
    # First output of SplitMix64 with state 0 is the finalizer of the golden gamma (reference implementation, S. Vigna).
    assert int(mix(np.uint64(0x9E3779B97F4A7C15))) == 0xE220A8397B1DCDAF


def test_uniform_over_every_counter():
    n = 40_000
    index = np.arange(n)
    for counters in [(index, 0, 0, 0), (1, index, 0, 0), (1, 2, index, 0), (1, 2, 3, index)]:
        values = uniform_array(*counters, Purpose.TURN)
        assert values.min() >= 0.0
        assert values.max() < 1.0
        counts = np.bincount((values * 64).astype(int), minlength=64)
        chi_squared = ((counts - n / 64) ** 2 / (n / 64)).sum()
        assert chi_squared < 63 + 5 * np.sqrt(2 * 63)
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 5 / np.sqrt(n)


def test_purposes_are_independent():
    seeds = np.arange(20_000)
    values = [uniform_array(seeds, 0, 0, 0, purpose) for purpose in Purpose]
    correlation = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlation).max() < 5 / np.sqrt(len(seeds))


def test_row_of_numbers_of_one_key():
    key = np.uint64(hash_key(np.uint64(5), 1, 2, 3, 4))
    row = np.array([nth_uniform(key, k) for k in range(5000)])
    assert len(np.unique(row)) == len(row)
    assert abs(row.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(row))
