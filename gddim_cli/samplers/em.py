"""Euler-Maruyama for the reverse-time SDE, whose noise is scaled by lambda."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from gddim_cli.samplers.base import PreparedSampler, SamplerSpec, multistep_sampler, time_grid
from gddim_cli.samplers.options import Lambda

if TYPE_CHECKING:
    from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
    from gddim_cli.numerics.quadrature import Array
    from gddim_cli.samplers.coefficients import Coefficients


class EmOptions(msgspec.Struct, frozen=True, kw_only=True, rename={"lam": "lambda"}):
    """The options of Euler-Maruyama."""

    lam: Lambda = 1.0


def em_coefficients(
    diffusion: Diffusion, t: Array, lam: float, k: KChoice = "R", denoise: bool = False
) -> Coefficients:
    """The coefficients of one Euler-Maruyama step per grid interval.

    The SDE is `du = [F u - (1 + lambda^2)/2 GG score] dt + lambda G dw` with `score = -K^{-T} eps`. For lambda = 0,
    this is Euler's method on the probability flow. The program of gDDIM's authors has `(1 + lambda)/2` instead of
    `(1 + lambda^2)/2`. It therefore solves a different equation unless lambda is 0 or 1.
    """
    from gddim_cli.numerics.matrices import symmetric_square_root
    from gddim_cli.samplers.coefficients import Coefficients, denoising_matrices

    then = t[:-1]
    dt = np.diff(t).reshape(-1, *[1] * (diffusion.GG(then).ndim - 1))
    gg, inverse = diffusion.GG(then), np.linalg.inv(diffusion.K(then, k)).swapaxes(-1, -2)
    psi = np.eye(diffusion.D) + dt * diffusion.F(then)
    c = dt * 0.5 * (1 + lam**2) * gg @ inverse
    last = denoising_matrices(diffusion, t[-1], k) if denoise else None
    return Coefficients(t, psi, c[:, None], k, last, lam * symmetric_square_root(-dt * gg) if lam else None)


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: EmOptions) -> PreparedSampler:
    """Prepares Euler-Maruyama with one step per evaluation; raises UsageError if the budget is too small."""
    t = time_grid(diffusion, config, budget, budget)
    return multistep_sampler(em_coefficients(diffusion, t, options.lam, config.k, config.denoise), options)


SPEC = SamplerSpec(
    "em", "Euler-Maruyama", prepare, order="1 (weak)", stochastic="lambda", source="Euler-Maruyama", options=EmOptions
)
