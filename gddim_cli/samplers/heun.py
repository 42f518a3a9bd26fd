"""Heun's method of order 2 on the exponential-integrator form."""

from __future__ import annotations

import torch
from torch import Tensor

from gddim_cli.numerics.blocks import combine
from gddim_cli.samplers.coefficients import Coefficients
from gddim_cli.samplers.multistep import Eps, OnStep, apply_denoising_step


def heun(eps: Eps, u: Tensor, coefficients: Coefficients, on_step: OnStep | None = None) -> Tensor:
    """`u* = Psi u + C eps(u, t)`, then `Psi u + C (eps(u, t) + eps(u*, t')) / 2`; the last step is Euler's, `u*` itself.

    `Psi` and `C` are gDDIM's of order 0, so the linear part is exact; for VP it is Heun's method in the rescaled
    variables `x / sqrt(alpha)` and `sigma / sqrt(alpha)`, for VE in `sigma`, as in Karras et al. (2206.00364).
    2N - 1 evaluations for N steps, and one for the denoising step. Global order 2.
    """
    times = coefficients.t.tolist()
    psi, c = torch.from_numpy(coefficients.Psi).to(u), torch.from_numpy(coefficients.C[:, 0]).to(u)
    for i in range(len(psi)):
        first = eps(u, times[i])
        guess = combine([psi[i], c[i]], [u, first])
        if i + 1 < len(psi):
            u = combine([psi[i], c[i]], [u, 0.5 * (first + eps(guess, times[i + 1]))])
        else:
            u = guess
        if on_step:
            on_step(i + 1, u)
    return apply_denoising_step(eps, u, coefficients.last, times[-1], len(psi), on_step)
