"""Coefficients of stochastic gDDIM (Zhang, Tao & Chen, arXiv 2206.05564, Eq. 22)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gddim_cli.numerics.matrices import symmetric_square_root
from gddim_cli.samplers.coefficients import Coefficients, denoising_matrices

if TYPE_CHECKING:
    from gddim_cli.diffusions.base import Diffusion, KChoice
    from gddim_cli.numerics.quadrature import Array


def stochastic_coefficients(
    diffusion: Diffusion, t: Array, lam: float, k: KChoice = "R", denoise: bool = False
) -> Coefficients:
    """Stochastic gDDIM of order 0 from s to t: mean `Psi u + (Psihat - Psi) K_s eps`, covariance `P_st` (Eq. 22).

    `P_st = Sigma_t - Psihat Sigma_s Psihat^T` is symmetric and positive; the authors' program lacks the transpose.
    The mean is the same for every K, since `K_s eps_K = -Sigma_s score`. The last step keeps its noise (the authors' program
    omits it).
    """
    now, then = t[1:], t[:-1]
    psi, psi_hat = diffusion.Psi(now, then), diffusion.Psi_hat(now, then, lam)
    c = (psi_hat - psi) @ diffusion.K(then, k)
    last = denoising_matrices(diffusion, t[-1], k) if denoise else None
    noise = symmetric_square_root(step_covariance(diffusion, t, lam))
    return Coefficients(t, psi, c[:, None], k, last, noise)


def step_covariance(diffusion: Diffusion, t: Array, lam: float) -> Array:
    """`P_st` of every step of a grid, [N, D, D]; with `Y = L_t^{-1} Psihat L_s` it is `L_t (I - Y Y^T) L_t^T`."""
    if lam == 0:
        return np.zeros_like(diffusion.Psi(t[1:], t[:-1]))
    now, then = diffusion.L(t[1:]), diffusion.L(t[:-1])
    y = np.linalg.inv(now) @ diffusion.Psi_hat(t[1:], t[:-1], lam) @ then
    p = now @ (np.eye(diffusion.D) - y @ y.swapaxes(-1, -2)) @ now.swapaxes(-1, -2)
    return 0.5 * (p + p.swapaxes(-1, -2))
