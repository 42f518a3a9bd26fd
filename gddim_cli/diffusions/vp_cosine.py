"""The variance preserving diffusion with the cosine schedule (Nichol & Dhariwal, arXiv 2102.09672)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.diffusions.known_variance import KnownVariance
from gddim_cli.diffusions.parameters import Positive
from gddim_cli.numerics.quadrature import Array


@dataclass(frozen=True)
class VPCosine(KnownVariance):
    """`alpha_t = cos^2((t + 0.004) / 1.008 pi/2)`; `Psi(t, s) = sqrt(alpha_t / alpha_s)`, `K_t = sqrt(1 - alpha_t)`.

    `F = (log sqrt(alpha))'`, `GG = -(log alpha)'`. BDM is this diffusion with a blur. At t = 0 there is already noise,
    of variance `Sigma_0 = 1 - alpha_0 = 3.9e-5`.

    Attributes:
        offset: 0.004 in the formula for alpha; 1.008 is `1 + 2 offset`. The offset keeps alpha below 1 at t = 0
            and above 0 at t = 1.
    """

    name = "vp-cosine"

    offset: Positive = 0.004

    def angle(self, t: ArrayLike) -> Array:
        """`(t + 0.004) / 1.008 pi/2`.

        The cosine of this angle is `sqrt(alpha)`, and its sine is the noise's standard deviation.
        """
        return (np.asarray(t, dtype=np.float64) + self.offset) / (1 + 2 * self.offset) * np.pi / 2

    def F(self, t: ArrayLike) -> Array:
        return (-np.tan(self.angle(t)) * np.pi / (2 * (1 + 2 * self.offset)))[..., None, None]

    def GG(self, t: ArrayLike) -> Array:
        return -2 * self.F(t)

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        return (np.cos(self.angle(t)) / np.cos(self.angle(s)))[..., None, None]

    def Sigma(self, t: ArrayLike) -> Array:
        return (np.sin(self.angle(t)) ** 2)[..., None, None]
