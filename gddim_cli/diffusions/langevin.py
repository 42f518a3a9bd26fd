"""Diffusions of a pixel and its velocity whose matrices are a fixed 2x2 pair times one rate: `F = beta A`, `GG = beta Q`."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.rates import LinearRate
from gddim_cli.numerics.quadrature import Array


class Langevin(LinearRate, Diffusion):
    """`F_t = beta_t A`, `G_t G_t^T = beta_t Q` with constant A and Q, `beta_t = beta_0 + beta_1 t`.

    Attributes:
        m_inv: `1/M`, the inverse mass.
        gamma: the velocity's variance at t = 0 in units of M.
        numerical_eps: added to both variances at t = 0.
    """

    D = 2
    beta_0: float
    beta_1: float
    m_inv: float
    gamma: float
    numerical_eps: float

    @property
    @abstractmethod
    def A(self) -> Array:
        """The drift per unit of rate, [2, 2]."""

    @property
    @abstractmethod
    def Q(self) -> Array:
        """The noise per unit of rate, [2, 2]."""

    def F(self, t: ArrayLike) -> Array:
        return self.beta(t)[..., None, None] * self.A

    def GG(self, t: ArrayLike) -> Array:
        return self.beta(t)[..., None, None] * self.Q

    @property
    def M(self) -> float:
        """The mass; the stationary law is `N(0, diag(1, M))`."""
        return 1 / self.m_inv

    @cached_property
    def Sigma_0(self) -> Array:
        """`diag(e, gamma M + e)`, `e = numerical_eps`."""
        return np.diag([self.numerical_eps, self.gamma * self.M + self.numerical_eps])

    @cached_property
    def prior_factor(self) -> Array:
        """`diag(1, sqrt(M))`."""
        return np.diag([1.0, np.sqrt(self.M)])

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        """`exp(A B)`."""
        return self.exponential(self.B(t, s))

    def exponential(self, amount: ArrayLike) -> Array:
        """`exp(A b)` for b [...], in closed form at, above and below critical damping, [..., 2, 2]."""
        rate, swing, deviation = self._modes
        b = np.asarray(amount, dtype=np.float64)[..., None, None]
        square = swing * b * b
        root = np.sqrt(np.abs(square))
        # sinh(x)/x of a real or an imaginary x; its series where both are 0/0.
        even = np.where(square < 0, np.cos(root), np.cosh(root))
        odd = np.where(square < 0, np.sin(root), np.sinh(root)) / np.where(root > 1e-4, root, 1.0)
        odd = np.where(root > 1e-4, odd, 1 + square / 6)
        return np.exp(rate * b) * (even * np.eye(2) + b * odd * deviation)

    @cached_property
    def _modes(self) -> tuple[float, float, Array]:
        """`(tr A / 2, (A - tr A / 2)^2, A - tr A / 2)`: the middle one is a number, zero at critical damping."""
        rate = float(np.trace(self.A)) / 2
        deviation = self.A - rate * np.eye(2)
        return rate, -float(np.linalg.det(deviation)), deviation
