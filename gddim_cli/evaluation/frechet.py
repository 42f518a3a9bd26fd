"""The Frechet distance between two Gaussians (Dowson & Landau 1982; FID: Heusel et al., arXiv 1706.08500, Eq. 6)."""

from __future__ import annotations

import numpy as np

from gddim_cli.errors import DataError, NumericsError
from gddim_cli.evaluation.moments import Gaussian
from gddim_cli.panels import Array

EPS = float(np.finfo(np.float64).eps)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """`|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^{1/2}`.

    With `S = A A^T`, `tr (S_a S_b)^{1/2}` is the sum of the singular values of `A_a^T A_b`: no matrix square root, no
    complex numbers, and no square roots of rounded eigenvalues, which would cost half the digits where a covariance is
    (nearly) singular.

    Raises:
        DataError: different dimensions.
        NumericsError: not finite, or negative beyond rounding.
    """
    if a.mean.shape != b.mean.shape:
        raise DataError(f"features of {len(a.mean)} numbers against a reference of {len(b.mean)}: not the same network")
    shift = a.mean - b.mean
    traces = float(np.trace(a.covariance) + np.trace(b.covariance))
    try:
        overlap = float(np.linalg.svd(factor(a).T @ factor(b), compute_uv=False).sum())
    except np.linalg.LinAlgError as error:
        raise NumericsError(f"the Frechet distance was not found: {error}; are the covariances finite?") from error
    distance = float(shift @ shift) + traces - 2 * overlap
    rounding = 100 * len(shift) * EPS * (traces + float(shift @ shift))
    if not np.isfinite(distance) or distance < -rounding:
        raise NumericsError(f"the Frechet distance comes out as {distance:g}; a covariance is damaged")
    return max(distance, 0.0)


def factor(gaussian: Gaussian) -> Array:
    """A, [d, r], with `A A^T = covariance`: Cholesky's where it is well conditioned, else from the eigenvectors.

    Raises:
        DataError: the covariance has a negative eigenvalue beyond rounding, or is not symmetric.
    """
    if gaussian.factor is not None:
        return gaussian.factor
    covariance = gaussian.covariance
    noise = len(covariance) * EPS * float(np.abs(covariance).max())
    try:
        lower: Array = np.linalg.cholesky(covariance).astype(np.float64, copy=False)
        if float(np.diag(lower).min()) ** 2 > 1e3 * noise:
            return lower
    except np.linalg.LinAlgError:
        pass  # not positive definite: the eigenvectors tell by how much
    values, vectors = np.linalg.eigh(covariance)
    floor = len(values) * EPS * float(values[-1])
    if float(values[0]) < -1e3 * floor:
        raise DataError(f"a covariance has the eigenvalue {values[0]:g}: it is none; the statistics are damaged")
    kept = values > floor
    root: Array = vectors[:, kept] * np.sqrt(values[kept])
    return root
