"""The variance preserving diffusion (Song et al., arXiv 2011.13456), linear schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.diffusions.parameters import NonNegative
from gddim_cli.diffusions.rates import LinearRate
from gddim_cli.numerics.quadrature import Array


@dataclass(frozen=True)
class VP(LinearRate, Diffusion):
    """`F = -beta/2`, `GG = beta`, `beta_t = beta_0 + beta_1 t` (by default from 0.1 to 20).

    With `alpha_t = exp(-int_0^t beta)`: `Psi(t, s) = sqrt(alpha_t / alpha_s)`, `K_t = sqrt(1 - alpha_t)`,
    `Sigma_0 = 0`. The prior is N(0, 1).
    """

    name = "vp"
    D = 1
    sampling = SamplingConfig()

    beta_0: NonNegative = 0.1
    beta_1: NonNegative = 19.9

    def F(self, t: ArrayLike) -> Array:
        return -0.5 * self.beta(t)[..., None, None]

    def GG(self, t: ArrayLike) -> Array:
        return self.beta(t)[..., None, None]

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        with np.errstate(over="ignore"):  # Backward in time, Psi grows without bound, so overflow is expected.
            return np.exp(-0.5 * self.B(t, s))[..., None, None]

    def noise_covariance(self, t: ArrayLike) -> Array:
        """`1 - alpha_t`."""
        return -np.expm1(-self.B(t, 0.0))[..., None, None]

    @cached_property
    def Sigma_0(self) -> Array:
        return np.zeros((1, 1))

    @cached_property
    def prior_factor(self) -> Array:
        return np.ones((1, 1))
