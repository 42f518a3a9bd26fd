"""Single frequencies of a diffusion in frequency space, each a diffusion with D = 1."""

from __future__ import annotations

import dataclasses

from numpy.typing import ArrayLike

from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.diffusions.parameters import parameters_of
from gddim_cli.errors import UsageError
from gddim_cli.numerics.quadrature import Array

SIDE = 4
TESTED = ((0, 0), (1, 2), (3, 3))
"""The frequencies (row, column) to test: the lowest (an image's mean), a middle one, and the highest."""


class OneFrequency(Diffusion):
    """One frequency of a spectral diffusion. Frequencies do not mix, so each can be tested separately."""

    D = 1

    def __init__(self, whole: Diffusion, row: int, column: int) -> None:
        self.whole, self.row, self.column = whole, row, column
        self.name = f"{whole.name} at frequency ({row}, {column})"  # type: ignore[misc]
        self.T = whole.T
        self.sampling: SamplingConfig = whole.sampling  # type: ignore[misc]

    def _one(self, matrices: Array) -> Array:
        return matrices if matrices.ndim == 2 else matrices[..., self.row, self.column, :, :]

    def F(self, t: ArrayLike) -> Array:
        return self._one(self.whole.F(t))

    def GG(self, t: ArrayLike) -> Array:
        return self._one(self.whole.GG(t))

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        return self._one(self.whole.Psi(t, s))

    def noise_covariance(self, t: ArrayLike) -> Array:
        return self._one(self.whole.noise_covariance(t))

    def Sigma(self, t: ArrayLike) -> Array:
        return self._one(self.whole.Sigma(t))

    def L(self, t: ArrayLike) -> Array:
        return self._one(self.whole.L(t))

    def R(self, t: ArrayLike) -> Array:
        return self._one(self.whole.R(t))

    @property
    def Sigma_0(self) -> Array:
        return self._one(self.whole.Sigma_0)

    @property
    def prior_factor(self) -> Array:
        return self._one(self.whole.prior_factor)


def parts_to_test(diffusion: Diffusion) -> list[Diffusion]:
    """The diffusion itself or, if it is in frequency space, three of its frequencies on images of 4x4 pixels.

    Raises:
        UsageError: the diffusion is in frequency space, but not a dataclass with a field `image_size`.
    """
    if not diffusion.spectral:
        return [diffusion]
    if not dataclasses.is_dataclass(diffusion) or "image_size" not in parameters_of(diffusion):
        raise UsageError(
            f"{diffusion.name} differs by frequency, and is therefore checked on images of {SIDE}x{SIDE} pixels; make "
            "it a dataclass with a field image_size"
        )
    small: Diffusion = dataclasses.replace(diffusion, image_size=SIDE)
    return [OneFrequency(small, row, column) for row, column in TESTED]
