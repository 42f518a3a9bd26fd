"""Euler-Maruyama on the reverse equation with any noise level lambda."""

from __future__ import annotations

import numpy as np

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.coefficients import Coefficients, denoising_step
from gddim_cli.samplers.gddim import root


def em_coefficients(
    diffusion: Diffusion, t: Array, lam: float, k: KChoice = "R", denoise: bool = False
) -> Coefficients:
    """`du = [F u - (1 + lambda^2)/2 GG score] dt + lambda G dw`, one explicit step for each interval.

    `score = -K^{-T} eps`. lambda = 0 is Euler's method on the probability flow. The authors' program has
    `(1 + lambda) / 2` instead, so their cells with 0 < lambda < 1 belong to another equation.
    """
    then = t[:-1]
    dt = np.diff(t).reshape(-1, *[1] * (diffusion.GG(then).ndim - 1))
    gg, inverse = diffusion.GG(then), np.linalg.inv(diffusion.K(then, k)).swapaxes(-1, -2)
    psi = np.eye(diffusion.D) + dt * diffusion.F(then)
    c = dt * 0.5 * (1 + lam**2) * gg @ inverse
    last = denoising_step(diffusion, t[-1], k) if denoise else None
    return Coefficients(t, psi, c[:, None], k, last, lam * root(-dt * gg) if lam else None)
