"""Functions of small symmetric matrices."""

from __future__ import annotations

import numpy as np

from gddim_cli.numerics.quadrature import Array


def symmetric_square_root(covariance: Array) -> Array:
    """The symmetric square root of positive semidefinite matrices [..., D, D], float64.

    Negative eigenvalues are rounding errors and are treated as zero.
    """
    values, vectors = np.linalg.eigh(covariance)
    scaled = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    return np.asarray(scaled @ vectors.swapaxes(-1, -2), dtype=np.float64)
