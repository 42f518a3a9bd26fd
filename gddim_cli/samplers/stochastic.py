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
    """The coefficients of stochastic gDDIM, which has order 0 (Eq. 22).

    A step from s to t draws from a Gaussian with mean `Psi u + (Psihat - Psi) K_s eps` and covariance
    `P_st = Sigma_t - Psihat Sigma_s Psihat^T`, where Psihat is the diffusion's `Psi_hat(t, s, lam)`.
    The mean does not depend on the choice of K, since `K_s eps = -Sigma_s score`.

    The authors' program differs in two points: its `P_st` lacks a transpose, and its last step adds no noise.
    """
    now, then = t[1:], t[:-1]
    psi, psi_hat = diffusion.Psi(now, then), diffusion.Psi_hat(now, then, lam)
    c = (psi_hat - psi) @ diffusion.K(then, k)
    last = denoising_matrices(diffusion, t[-1], k) if denoise else None
    noise = symmetric_square_root(step_covariance(diffusion, t, lam))
    return Coefficients(t, psi, c[:, None], k, last, noise)


def step_covariance(diffusion: Diffusion, t: Array, lam: float) -> Array:
    """`P_st` of each step of a grid, [N, D, D], computed as `L_t (I - Y Y^T) L_t^T` with `Y = L_t^{-1} Psihat L_s`."""
    if lam == 0:
        return np.zeros_like(diffusion.Psi(t[1:], t[:-1]))
    now, then = diffusion.L(t[1:]), diffusion.L(t[:-1])
    y = np.linalg.inv(now) @ diffusion.Psi_hat(t[1:], t[:-1], lam) @ then
    p = now @ (np.eye(diffusion.D) - y @ y.swapaxes(-1, -2)) @ now.swapaxes(-1, -2)
    return 0.5 * (p + p.swapaxes(-1, -2))
