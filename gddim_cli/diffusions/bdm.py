"""The blurring diffusion (Hoogeboom & Salimans, arXiv 2209.05557): VP with a blur. The schedules are gDDIM's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import SamplingConfig
from gddim_cli.diffusions.known_variance import KnownVariance
from gddim_cli.diffusions.parameters import NonNegative, Positive, Side
from gddim_cli.numerics.quadrature import Array

OFFSET, SPAN = 0.004, 1.008


@dataclass(frozen=True)
class BDM(KnownVariance):
    """A diffusion of the image's orthonormal DCT-II. Matrices are [..., H, W, 1, 1]: one number per frequency (i, j).

    `u_t = sqrt(abar_t) d_t x_0 + sqrt(1 - abar_t) eps`, `abar = cos^2((t + 0.004) / 1.008 pi/2)`,
    `d = e^{-lambda tau} (1 - m) + m`, `lambda = (pi i / H)^2 + (pi j / W)^2`, `tau = (s sin^2(pi t / 2))^2 / 2`.

    Written as a linear diffusion, it has `F = (log(sqrt(abar) d))'` and `GG = -abar'/abar - 2 (d'/d) (1 - abar)`. At
    time 0 there is already noise, of variance `Sigma_0 = 1 - abar_0 = 3.9e-5`, and the mean of `u_0` is
    `sqrt(abar_0) x_0`.

    Attributes:
        sigma_blur_max: s, the blur at t = 1, in pixels. The value used for the released checkpoint has not been
            published.
        min_scale: m, the lower bound of d.
        image_size: H = W, in pixels.
    """

    name = "bdm"
    spectral = True
    sampling = SamplingConfig(t_start=0.9959797892563502, t_end=1e-5)

    sigma_blur_max: NonNegative = 10.0
    min_scale: Positive = 0.001
    image_size: Side = 32

    @cached_property
    def rates(self) -> Array:
        """`lambda` of each frequency, [H, W]."""
        squares = (np.pi * np.arange(self.image_size) / self.image_size) ** 2
        return np.add.outer(squares, squares)

    def mean(self, t: ArrayLike) -> Array:
        """`sqrt(abar_t) d_t`, the factor of the image's spectrum in u_t, [..., H, W, 1, 1]."""
        left, _ = self._blur(t)
        return matrices(np.cos(self._angle(t)) * left)

    def F(self, t: ArrayLike) -> Array:
        left, loss = self._blur(t)
        return matrices(-self._angular_rate(t) - loss / left)

    def GG(self, t: ArrayLike) -> Array:
        left, loss = self._blur(t)
        return matrices(2 * self._angular_rate(t) + 2 * loss / left * np.sin(self._angle(t)) ** 2)

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        return self.mean(t) / self.mean(s)

    def Sigma(self, t: ArrayLike) -> Array:
        return self.L(t) ** 2

    def L(self, t: ArrayLike) -> Array:
        """`sqrt(1 - abar_t)`, the same for all frequencies."""
        return matrices(np.sin(self._angle(t)) * np.ones_like(self.rates))

    @staticmethod
    def _angle(t: ArrayLike) -> Array:
        """`(t + 0.004) / 1.008 pi/2`, [..., 1, 1].

        The cosine of this angle is `sqrt(abar)`, and its sine is the noise's standard deviation.
        """
        return (np.asarray(t, dtype=np.float64)[..., None, None] + OFFSET) / SPAN * np.pi / 2

    def _angular_rate(self, t: ArrayLike) -> Array:
        """`-(log sqrt(abar))'`, [..., 1, 1]."""
        return np.tan(self._angle(t)) * np.pi / (2 * SPAN)

    def _blur(self, t: ArrayLike) -> tuple[Array, Array]:
        """`(d, -d')`, [..., H, W]."""
        phase = np.asarray(t, dtype=np.float64)[..., None, None] * np.pi / 2
        sin, cos = np.sin(phase), np.cos(phase)
        tau, speed = self.sigma_blur_max**2 * sin**4 / 2, self.sigma_blur_max**2 * np.pi * sin**3 * cos
        kept = (1 - self.min_scale) * np.exp(-self.rates * tau)
        return kept + self.min_scale, self.rates * speed * kept


def matrices(values: Array) -> Array:
    """Numbers [...] as 1 x 1 matrices, [..., 1, 1]."""
    return values[..., None, None]
