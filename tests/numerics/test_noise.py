from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import kstest, norm

from gddim_cli.numerics.noise import LARGEST_SEED, standard_normal, to_unit

seeds = st.integers(0, LARGEST_SEED)


@given(seeds, st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.randoms())
def test_an_image_depends_on_seed_and_index_only(seed: int, indices: list[int], random) -> None:
    whole = standard_normal(seed, indices, (2, 3))
    order = list(range(len(indices)))
    random.shuffle(order)
    for row in order:
        np.testing.assert_array_equal(standard_normal(seed, [indices[row]], (2, 3))[0], whole[row])


def test_it_is_normal_and_independent() -> None:
    draws = standard_normal(3, range(100), (1000,))
    assert kstest(draws.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(draws)
    assert np.abs(correlation - np.eye(100)).max() < 6 / np.sqrt(1000)
    assert np.abs(np.corrcoef(draws[0], standard_normal(4, [0], (1000,))[0])[0, 1]) < 6 / np.sqrt(1000)
    assert np.abs(np.corrcoef(draws[0], standard_normal(3, [0], (1000,), stream=1)[0])[0, 1]) < 6 / np.sqrt(1000)


def test_extreme_bits_stay_finite() -> None:
    ends = ndtri(to_unit(np.array([0, 2**64 - 1], dtype=np.uint64)))
    assert np.isfinite(ends).all()
    assert ends[0] == -ends[1]
    assert np.isfinite(standard_normal(LARGEST_SEED, [LARGEST_SEED], (1000,))).all()


def test_the_numbers_are_a_promise() -> None:
    """A seed in a paper must give the same images years later: these may never change."""
    raw = np.random.Philox(key=np.array([7, 3], np.uint64)).random_raw(2)
    uniform = [((int(word) >> 12) + 0.5) / 2**52 for word in raw]
    draws = standard_normal(7, [3], (2,))[0]
    np.testing.assert_allclose(norm.cdf(draws), uniform, rtol=1e-13)
    np.testing.assert_allclose(draws, [-0.044811945217110585, 0.5951714761734046], rtol=1e-12)
