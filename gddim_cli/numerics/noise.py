"""Noise by seed and image: the draws for image i depend on (seed, i) only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray
from scipy.special import ndtri

LARGEST_SEED = 2**64 - 1


def standard_normal(seed: int, indices: Sequence[int], shape: Sequence[int], stream: int = 0) -> NDArray[np.float64]:
    """Independent N(0, 1) numbers for each image, float64 [len(indices), *shape].

    The bits are the raw output of the counter-based generator Philox, keyed by (seed, index); their top 52 go through
    the inverse of the normal distribution function. Philox is a fixed algorithm (NumPy may change its
    `standard_normal`, but not this), so an image's noise does not depend on the batch, the device, the order of work or
    the version of a library.

    Args:
        seed: 0 to 2^64 - 1.
        indices: the images' indices.
        shape: the shape of one image's draw.
        stream: 0 for the prior; stochastic samplers number their steps from 1.
    """
    count = int(np.prod(shape))
    drawn = np.empty((len(indices), count))
    for row, index in zip(drawn, indices, strict=True):
        key = np.array([seed, index], dtype=np.uint64)
        bits = Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64)).random_raw(count)
        ndtri(to_unit(bits), out=row)  # image by image, while its numbers are in the processor's cache
    return drawn.reshape(len(indices), *shape)


def to_unit(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The midpoints of 2^52 equal parts of (0, 1), selected by the top 52 bits: exact in float64, never 0 or 1."""
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
