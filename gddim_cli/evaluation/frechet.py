"""The Frechet distance between two Gaussians (Dowson & Landau 1982; FID: Heusel et al., arXiv 1706.08500, Eq. 6)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gddim_cli.errors import DataError, NumericsError
from gddim_cli.evaluation.moments import Gaussian

EPS = float(np.finfo(np.float64).eps)
LARGEST = 1e100
ROUNDED = 1e-5
"""A negative eigenvalue of a covariance counts as a rounding error if its magnitude is at most this fraction of the
largest eigenvalue. The fraction suits covariances that were stored in float32."""
TOLERANCE = 1e-9
"""`nuclear_norm` uses eigenvalues if the estimated relative error of the sum is at most this; otherwise it uses an SVD,
which takes four times as long."""


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """`|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^{1/2}`, in float64.

    With `S = A A^T`, `tr (S_a S_b)^{1/2}` is the sum of the singular values of `A_a^T A_b`. This avoids the square root
    of a nonsymmetric matrix, and complex numbers.

    Raises:
        DataError: the dimensions differ, or a matrix is not a covariance.
        NumericsError: the distance is not finite, or is negative beyond rounding.
    """
    if a.mean.shape != b.mean.shape:
        raise DataError(
            f"the features have {len(a.mean)} dimensions, but the reference's have {len(b.mean)}: they come from "
            "different networks"
        )
    shift = a.mean - b.mean
    traces = float(np.trace(a.covariance) + np.trace(b.covariance))
    try:
        overlap = nuclear_norm(factor(a).T @ factor(b))
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise NumericsError(
            f"the Frechet distance could not be computed: {error}; are the covariances finite?"
        ) from error
    with np.errstate(over="ignore"):  # Damaged means may overflow; the check below refuses them.
        squared = float(shift @ shift)
    distance = squared + traces - 2 * overlap
    rounding = (TOLERANCE + 100 * len(shift) * EPS) * (traces + squared)
    if not math.isfinite(distance) or distance < -rounding:
        raise NumericsError(f"the Frechet distance is {distance:g}, which is impossible; a covariance is damaged")
    return max(distance, 0.0)


def nuclear_norm(matrix: Tensor) -> float:
    """The sum of the singular values of M, computed from the eigenvalues of `M^T M` if these are accurate enough.

    The error of an eigenvalue w is about `eps w_max`, and the error of its square root is about
    `eps w_max / (2 sqrt(w))`: near w = 0, half the digits are lost.
    """
    if not min(matrix.shape):
        return 0.0
    narrow = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    values = torch.linalg.eigvalsh(narrow.T @ narrow).clamp(min=0)
    noise = 4 * EPS * float(values[-1])
    roots = values.sqrt()
    error = torch.minimum(noise / (2 * roots), torch.full_like(roots, noise**0.5)).nan_to_num(noise**0.5).sum()
    total = roots.sum()
    return float(total if error <= TOLERANCE * total else torch.linalg.svdvals(matrix).sum())


def factor(gaussian: Gaussian) -> Tensor:
    """A, [d, r], with `A A^T = covariance`: the Cholesky factor if it is well conditioned, else one from eigenvectors.

    Raises:
        DataError: the covariance is not finite, or has a negative eigenvalue beyond rounding.
    """
    if gaussian.factor is not None:
        return torch.tensor(gaussian.factor)  # A copy: torch warns about views of read-only arrays.
    covariance = torch.tensor(gaussian.covariance)
    if not covariance.isfinite().all() or float(covariance.abs().max()) > LARGEST:
        raise DataError("a covariance has infinite, NaN or impossibly large entries; the statistics are damaged")
    noise = len(covariance) * EPS * float(covariance.abs().max())
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if not failed and float(lower.diagonal().min()) ** 2 > 1e3 * noise:
        return lower
    values, vectors = torch.linalg.eigh(covariance)
    floor = len(values) * EPS * float(values[-1])
    if float(values[0]) < -ROUNDED * float(values[-1]):
        raise DataError(
            f"a covariance matrix has the negative eigenvalue {values[0]:g}, so it is not a valid covariance; the "
            "statistics are damaged"
        )
    kept = values > floor
    return vectors[:, kept] * values[kept].sqrt()
