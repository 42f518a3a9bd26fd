"""Phase-space Langevin diffusion (Pandey & Mandt, arXiv 2303.01748): noise in the pixel and in its velocity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gddim_cli.diffusions.base import SamplingConfig
from gddim_cli.diffusions.langevin import Langevin
from gddim_cli.diffusions.parameters import NonNegative, Positive
from gddim_cli.numerics.quadrature import Array


@dataclass(frozen=True)
class PSLD(Langevin):
    """`u = (x, v)`, `F = beta/2 [[-Gamma, 1/M], [-1, -nu]]`, `GG = beta diag(Gamma, M nu)`.

    The rate is `beta_t = beta_0 + beta_1 t`. Damping is critical if `1/M = (Gamma - nu)^2 / 4`. The defaults, which are
    those of the authors' CIFAR-10 model, satisfy this. With Gamma = 0, `nu = Gamma_CLD / M` and a doubled beta, PSLD is
    CLD.

    Attributes:
        m_inv: `1/M`, the inverse mass.
        Gamma: the friction of the pixel, and the strength of its noise.
        nu: the friction of the velocity, and the strength of its noise.
        gamma: the velocity's variance at t = 0 in units of M.
        numerical_eps: added to both variances at t = 0. The authors' program adds it at every t, so the program's
            Sigma_t does not solve the diffusion's equation.
    """

    name = "psld"
    sampling = SamplingConfig(denoise=True)

    beta_0: NonNegative = 8.0
    beta_1: NonNegative = 0.0
    m_inv: Positive = 4.0
    Gamma: NonNegative = 0.01
    nu: Positive = 4.01
    gamma: NonNegative = 0.04
    numerical_eps: NonNegative = 1e-9

    @cached_property
    def A(self) -> Array:
        return 0.5 * np.array([[-self.Gamma, self.m_inv], [-1.0, -self.nu]])

    @cached_property
    def Q(self) -> Array:
        return np.diag([self.Gamma, self.M * self.nu])
