"""The variance exploding diffusion (Song et al., arXiv 2011.13456), geometric schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.diffusions.parameters import Positive
from gddim_cli.errors import UsageError
from gddim_cli.numerics.quadrature import Array


@dataclass(frozen=True)
class VE(Diffusion):
    """`F = 0`, `GG = (sigma^2)'`, `sigma_t = sigma_min (sigma_max / sigma_min)^t`; `Psi = 1`, `K_t = sigma_t`.

    At t = 0 there is already noise, of variance `Sigma_0 = sigma_min^2`.

    Attributes:
        sigma_min: the noise's standard deviation at t = 0.
        sigma_max: the noise's standard deviation at t = 1. It should be well above the largest Euclidean distance
            between two images.

    Raises:
        UsageError: sigma_min is not below sigma_max.
    """

    name = "ve"
    D = 1
    sampling = SamplingConfig(t_end=1e-5)

    sigma_min: Positive = 0.01
    sigma_max: Positive = 50.0

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise UsageError(f"diffusion ve: sigma_min {self.sigma_min:g} is not below sigma_max {self.sigma_max:g}")

    def sigma(self, t: ArrayLike) -> Array:
        """`sigma_t`, the noise's standard deviation."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** np.asarray(t, dtype=np.float64)

    def F(self, t: ArrayLike) -> Array:
        return np.zeros((*np.shape(t), 1, 1))

    def GG(self, t: ArrayLike) -> Array:
        return (2 * np.log(self.sigma_max / self.sigma_min) * self.sigma(t) ** 2)[..., None, None]

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        return np.ones((*np.broadcast_shapes(np.shape(t), np.shape(s)), 1, 1))

    def noise_covariance(self, t: ArrayLike) -> Array:
        """`sigma_t^2 - sigma_0^2`."""
        return (self.sigma(t) ** 2 - self.sigma_min**2)[..., None, None]

    def Sigma(self, t: ArrayLike) -> Array:
        return (self.sigma(t) ** 2)[..., None, None]

    @cached_property
    def Sigma_0(self) -> Array:
        return np.full((1, 1), self.sigma_min**2)

    @cached_property
    def prior_factor(self) -> Array:
        return np.full((1, 1), self.sigma_max)
