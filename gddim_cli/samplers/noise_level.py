"""The noise level of a state: the standard deviation of the noise in its best linear estimate of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gddim_cli.diffusions.base import Diffusion
    from gddim_cli.numerics.quadrature import Array

BISECTIONS = 100


def noise_level(diffusion: Diffusion, t: ArrayLike) -> Array:
    """`sigma_t = (psi^T Sigma_t^{-1} psi)^{-1/2}`, `psi = Psi(t, 0) e_x`, [...]; it rises with t.

    For D = 1 it is the noise-to-signal ratio `sqrt(Sigma_t) / psi_t`, and `-log sigma_t` is half the log SNR. In frequency
    space it is the lowest frequency's.
    """
    psi, sigma = diffusion.Psi(t, 0.0)[..., :1], diffusion.Sigma(t)
    precision = (psi.swapaxes(-1, -2) @ np.linalg.solve(sigma, psi))[..., 0, 0]
    return np.asarray((precision[..., 0, 0] if diffusion.spectral else precision) ** -0.5, dtype=np.float64)


def times_of_levels(diffusion: Diffusion, levels: Array, t_start: float, t_end: float) -> Array:
    """The times between t_end and t_start whose noise levels are `levels`, [N], by bisection in log t."""
    low, high = np.full_like(levels, np.log(t_end)), np.full_like(levels, np.log(t_start))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        below = noise_level(diffusion, np.exp(middle)) < levels
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(np.exp(0.5 * (low + high)), dtype=np.float64)
