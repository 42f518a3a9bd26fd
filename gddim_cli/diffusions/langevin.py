"""Diffusions of a pixel and its velocity, with constant matrices times a common rate: `F = beta A`, `GG = beta Q`."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.rates import LinearRate
from gddim_cli.numerics.quadrature import Array

SERIES_BELOW = 1e-4
"""If x is below this, `sinh(x)/x` is computed from its series."""
SCALED_ABOVE = 1.0
"""If x is above this, the growing exponential is factored out of `cosh(x)` and `sinh(x)` to avoid overflow."""


class Langevin(LinearRate, Diffusion):
    """`F_t = beta_t A`, `G_t G_t^T = beta_t Q` with constant A and Q [2, 2], `beta_t = beta_0 + beta_1 t`.

    The stationary distribution is `N(0, diag(1, M))`, which is also the prior.

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
        """The drift matrix for beta = 1, [2, 2]."""

    @property
    @abstractmethod
    def Q(self) -> Array:
        """The noise matrix `G G^T` for beta = 1, [2, 2]."""

    def F(self, t: ArrayLike) -> Array:
        return self.beta(t)[..., None, None] * self.A

    def GG(self, t: ArrayLike) -> Array:
        return self.beta(t)[..., None, None] * self.Q

    @property
    def M(self) -> float:
        """The mass."""
        return 1 / self.m_inv

    @cached_property
    def Sigma_0(self) -> Array:
        """`diag(e, gamma M + e)` with `e = numerical_eps`."""
        return np.diag([self.numerical_eps, self.gamma * self.M + self.numerical_eps])

    @cached_property
    def prior_factor(self) -> Array:
        """`diag(1, sqrt(M))`."""
        return np.diag([1.0, np.sqrt(self.M)])

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        """`exp(A B)` with `B = int_s^t beta`."""
        return self.exponential(self.B(t, s))

    def exponential(self, amount: ArrayLike) -> Array:
        """`exp(A b)` for b [...], in closed form at, below and above critical damping, [..., 2, 2].

        With `r = tr A / 2`, `N = A - r I` and `w^2 = -det N`, the result is
        `e^{r b} (cosh(w b) I + b sinh(w b) / (w b) N)`. Below critical damping, w is imaginary. For large real `w b`,
        the factor `e^{|w b|}` of cosh and sinh is combined with `e^{r b}`. Without this, cosh and sinh would overflow
        even where their product with `e^{r b}` is small.
        """
        rate, square_of_w, deviation = self._modes
        b = np.asarray(amount, dtype=np.float64)[..., None, None]
        square = square_of_w * b * b
        x = np.sqrt(np.abs(square))
        large = square > SCALED_ABOVE**2
        taken_out = np.where(large, x, 0.0)
        small = np.where(large, 0.0, x)
        faded = np.exp(-2 * taken_out)
        even = np.where(square < 0, np.cos(small), np.where(large, 0.5 * (1 + faded), np.cosh(small)))
        odd = np.where(square < 0, np.sin(small), np.where(large, 0.5 * (1 - faded), np.sinh(small)))
        odd = np.where(x > SERIES_BELOW, odd / np.where(x > SERIES_BELOW, x, 1.0), 1 + square / 6)
        # Backward in time, the exponential grows without bound, so overflow is expected.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.exp(rate * b + taken_out) * (even * np.eye(2) + b * odd * deviation))

    @cached_property
    def _modes(self) -> tuple[float, float, Array]:
        """`(r, w^2, N)` of `exponential`; w^2 is zero at critical damping."""
        rate = float(np.trace(self.A)) / 2
        deviation = self.A - rate * np.eye(2)
        return rate, -float(np.linalg.det(deviation)), deviation
