"""A diffusion whose images are Gaussian, so that the states are Gaussian too and their probability flow is linear."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.numerics.quadrature import Array


class GaussianImages(Diffusion):
    """The diffusion `base`, applied to images that are distributed as `N(0, std^2 I)`.

    F and G are unchanged, and `Sigma_t` grows by `std^2 psi_t psi_t^T`, where `psi_t` is the first column of
    `Psi(t, 0)`. `R_t` is computed from this `Sigma_t`, so `R_t R_s^{-1}` is the probability-flow map from s to t for
    such images.
    """

    def __init__(self, base: Diffusion, std: float) -> None:
        self.base, self.std = base, std
        self.name, self.D, self.T = base.name, base.D, base.T  # type: ignore[misc]
        self.spectral, self.sampling = base.spectral, base.sampling  # type: ignore[misc]

    def F(self, t: ArrayLike) -> Array:
        return self.base.F(t)

    def GG(self, t: ArrayLike) -> Array:
        return self.base.GG(t)

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        return self.base.Psi(t, s)

    def noise_covariance(self, t: ArrayLike) -> Array:
        return self.base.noise_covariance(t)

    def Sigma(self, t: ArrayLike) -> Array:
        psi = self.base.Psi(t, 0.0)[..., :1]
        return np.asarray(self.base.Sigma(t) + self.std**2 * psi @ psi.swapaxes(-1, -2))

    @property
    def Sigma_0(self) -> Array:
        return self.Sigma(0.0)

    @property
    def prior_factor(self) -> Array:
        return self.base.prior_factor
