"""Noise that is a function of the seed and the image index only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray
from scipy.special import ndtri

LARGEST_SEED = 2**64 - 1


def standard_normal(seed: int, indices: Sequence[int], shape: Sequence[int], stream: int = 0) -> NDArray[np.float64]:
    """Independent N(0, 1) numbers for each image, float64 [len(indices), *shape].

    The random bits are the raw output of the counter-based generator Philox, keyed by (seed, index). The top 52 of
    every 64 bits select a number in (0, 1), and the inverse normal CDF maps this number to the result. NumPy may change
    its `standard_normal`, but Philox is a fixed algorithm. An image's noise therefore does not depend on the batch, the
    device, the order of work or the version of a library.

    Args:
        seed: 0 to 2^64 - 1.
        indices: the indices of the images.
        shape: the shape of the noise of one image.
        stream: 0 for the prior; the steps of stochastic samplers have the streams 1, 2, ...
    """
    count = int(np.prod(shape))
    drawn = np.empty((len(indices), count))
    for row, index in zip(drawn, indices, strict=True):
        key = np.array([seed, index], dtype=np.uint64)
        bits = Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64)).random_raw(count)
        ndtri(to_unit(bits), out=row)  # one image at a time, while its numbers are in the CPU cache
    return drawn.reshape(len(indices), *shape)


def to_unit(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Divides (0, 1) into 2^52 equal parts; the top 52 bits select one, whose midpoint is returned (never 0 or 1)."""
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
