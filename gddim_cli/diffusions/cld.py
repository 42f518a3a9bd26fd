"""Critically-damped Langevin diffusion (Dockhorn, Vahdat & Kreis, arXiv 2112.07068): noise enters through a velocity.

The state u of a pixel is (x, v): the pixel's value and its velocity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc

from gddim_cli.diffusions.base import SamplingConfig
from gddim_cli.diffusions.langevin import Langevin
from gddim_cli.diffusions.parameters import NonNegative, Positive
from gddim_cli.errors import NumericsError
from gddim_cli.numerics.quadrature import Array


@dataclass(frozen=True)
class CLD(Langevin):
    """`u = (x, v)`, `F = beta [[0, 1/M], [-1, -Gamma/M]]`, `GG = diag(0, 2 Gamma beta)`, `beta_t = beta_0 + beta_1 t`.

    These are the matrices of the gDDIM authors' program; Eq. 10 of their paper (arXiv 2206.05564) prints F and G with
    wrong signs and entries.

    Attributes:
        m_inv: `1/M`, the inverse mass.
        Gamma: the friction; None for critical damping, `Gamma = 2 sqrt(M)`.
        gamma: the velocity's variance at t = 0 in units of M.
        numerical_eps: a small number that is added to both variances.
        eps_at_every_t: whether numerical_eps is added at every t, as in CLD-SGM, or only at t = 0, as in gDDIM. If it
            is added at every t, R_t is not defined, and K must be L.
    """

    name = "cld"
    sampling = SamplingConfig(denoise=True)

    beta_0: NonNegative = 4.0
    beta_1: NonNegative = 0.0
    m_inv: Positive = 4.0
    Gamma: Positive | None = None
    gamma: NonNegative = 0.04
    numerical_eps: NonNegative = 1e-6
    eps_at_every_t: bool = False

    @property
    def friction(self) -> float:
        """`Gamma`; if none was given, the value for critical damping."""
        return 2 * np.sqrt(self.M) if self.Gamma is None else self.Gamma

    @cached_property
    def A(self) -> Array:
        return np.array([[0.0, self.m_inv], [-1.0, -self.friction * self.m_inv]])

    @cached_property
    def Q(self) -> Array:
        return np.diag([0.0, 2 * self.friction])

    def noise_covariance(self, t: ArrayLike) -> Array:
        """`S - Psi S Psi^T` with `S = diag(1, M)`. At critical damping, a closed form avoids cancellation near t = 0.

        With `y = 2 B / sqrt(M)` and the regularized incomplete gamma function `P(3, y) = 1 - e^{-y} (1 + y + y^2/2)`,
        the entries are `xx = P`, `xv = sqrt(M) y^2 e^{-y} / 2` and `vv = M (P + 2 y e^{-y})`.
        """
        if self.Gamma is not None:
            return super().noise_covariance(t)
        y = 2 * self.B(t, 0.0) / np.sqrt(self.M)
        decay = np.exp(-y)
        xx = gammainc(3, y)
        xv = np.sqrt(self.M) * y * y * decay / 2
        vv = self.M * (xx + 2 * y * decay)
        return np.stack([np.stack([xx, xv], -1), np.stack([xv, vv], -1)], -2)

    def rotation_rate(self, t: ArrayLike) -> Array:
        if self.eps_at_every_t:
            raise NumericsError(
                "cld with eps_at_every_t: Sigma_t does not solve the diffusion's equation, so R_t is not defined; "
                "use K = L"
            )
        return super().rotation_rate(t)

    def Sigma(self, t: ArrayLike) -> Array:
        if not self.eps_at_every_t:
            return super().Sigma(t)
        start = np.diag([0.0, self.gamma * self.M])
        psi = self.Psi(t, 0.0)
        return psi @ start @ psi.swapaxes(-1, -2) + self.noise_covariance(t) + self.numerical_eps * np.eye(2)
