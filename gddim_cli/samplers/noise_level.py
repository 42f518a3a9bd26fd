"""The noise level at a time: the standard deviation of the noise in the best unbiased linear estimate of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gddim_cli.diffusions.base import Diffusion
    from gddim_cli.numerics.quadrature import Array

BISECTIONS = 100


def noise_level(diffusion: Diffusion, t: ArrayLike) -> Array:
    """`sigma_t = (psi^T Sigma_t^{-1} psi)^{-1/2}`, [...], where psi is the first column of `Psi(t, 0)`.

    The noise level increases with t. For D = 1, it is the noise-to-signal ratio `sqrt(Sigma_t) / psi`, and
    `-log sigma_t` is half the log SNR. For a diffusion in frequency space, it is the noise level of the lowest
    frequency.
    """
    psi, sigma = diffusion.Psi(t, 0.0)[..., :1], diffusion.Sigma(t)
    precision = (psi.swapaxes(-1, -2) @ np.linalg.solve(sigma, psi))[..., 0, 0]
    return np.asarray((precision[..., 0, 0] if diffusion.spectral else precision) ** -0.5, dtype=np.float64)


def times_of_levels(diffusion: Diffusion, levels: Array, t_start: float, t_end: float) -> Array:
    """The times between t_end and t_start whose noise levels are `levels`, [N], found by bisection in log t."""
    low, high = np.full_like(levels, np.log(t_end)), np.full_like(levels, np.log(t_start))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        below = noise_level(diffusion, np.exp(middle)) < levels
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(np.exp(0.5 * (low + high)), dtype=np.float64)
