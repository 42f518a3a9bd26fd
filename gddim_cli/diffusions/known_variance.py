"""Diffusions with D = 1 whose variance has a closed form at every t, including t = 0."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.numerics.quadrature import Array


class KnownVariance(Diffusion):
    """A diffusion that is defined by closed forms of `Sigma` and `Psi`, and whose prior has variance 1."""

    D = 1

    @cached_property
    def Sigma_0(self) -> Array:
        return self.Sigma(0.0)

    @cached_property
    def prior_factor(self) -> Array:
        return np.ones((1, 1))

    def noise_covariance(self, t: ArrayLike) -> Array:
        """`Sigma_t - Psi(t, 0)^2 Sigma_0`."""
        return self.Sigma(t) - self.Psi(t, 0.0) ** 2 * self.Sigma_0
