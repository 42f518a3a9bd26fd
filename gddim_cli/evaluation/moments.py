"""Mean and covariance of features in float64, accumulated batch by batch. Results of several sets can be merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.numerics.quadrature import Array


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set of n feature vectors of dimension d.

    Attributes:
        mean: float64 [d].
        covariance: float64 [d, d], with n - 1 degrees of freedom.
        n: the number of feature vectors; None if unknown.
        factor: A, [d, r], with `A A^T = covariance`; given if n <= d, where the covariance is singular. A square root
            computed from a singular covariance would have only half the digits.
    """

    mean: Array
    covariance: Array
    n: int | None = None
    factor: Array | None = None


@dataclass
class Moments:
    """Number, mean and scatter `sum (x - mean)(x - mean)^T` of feature vectors. The memory used does not grow with n.

    Attributes:
        n: the number of feature vectors so far.
        mean: float64 [d].
        scatter: float64 [d, d].
    """

    n: int
    mean: Array
    scatter: Array

    @classmethod
    def empty(cls, dimension: int) -> Self:
        """The moments of an empty set of feature vectors of this dimension."""
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    @classmethod
    def of(cls, features: NDArray[np.floating], rows: int = 16384) -> Self:
        """The moments of features [N, d], which may be a memory map and are read `rows` rows at a time."""
        moments = cls.empty(features.shape[1])
        for first in range(0, len(features), rows):
            moments.add(features[first : first + rows])
        return moments

    def add(self, features: NDArray[np.floating]) -> None:
        """Adds features [N, d] to the set.

        Raises:
            DataError: the features hold NaN or infinity.
        """
        if not len(features):
            return
        x = np.array(features, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            mean = x.mean(axis=0)
        if not np.isfinite(mean).all():
            check_finite(x)
        x -= mean
        self._take(len(x), mean, x.T @ x)

    def merge(self, other: Moments) -> None:
        """Adds another set by the update of Chan, Golub & LeVeque, which avoids cancellation between large numbers."""
        if other.n:
            self._take(other.n, other.mean, other.scatter.copy())

    def _take(self, n: int, mean: Array, scatter: Array) -> None:
        """Adds a set in place. May keep the array `scatter` itself, because at d = 2048 a copy would take 32 MiB."""
        if not self.n:
            self.n, self.mean, self.scatter = n, mean, scatter
            return
        total = self.n + n
        shift = mean - self.mean
        self.scatter += scatter
        step = torch.from_numpy(shift)
        torch.from_numpy(self.scatter).addr_(step, step, alpha=self.n * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = total

    def gaussian(self) -> Gaussian:
        """The Gaussian of these moments.

        Raises:
            DataError: there are fewer than two feature vectors.
        """
        if self.n < 2:
            raise DataError(f"{self.n} image{'s' * (self.n != 1)}: a covariance needs at least two")
        return Gaussian(self.mean, self.scatter / (self.n - 1), self.n)


def gaussian_of(features: NDArray[np.floating]) -> Gaussian:
    """The Gaussian of features [N, d], with an exact factor if N <= d.

    Raises:
        DataError: there are fewer than two feature vectors, or the features hold NaN or infinity.
    """
    gaussian = Moments.of(features).gaussian()
    if len(features) > features.shape[1]:
        return gaussian
    factor = (np.asarray(features, dtype=np.float64) - gaussian.mean).T / np.sqrt(len(features) - 1)
    return Gaussian(gaussian.mean, gaussian.covariance, gaussian.n, factor)


def check_finite(features: NDArray[np.floating]) -> None:
    """Raises DataError if a row holds NaN or infinity; the message names the first such row."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise DataError(
            f"features of {len(bad)} of {len(features)} images are not finite, the first in row {bad[0]}; "
            "the network or the file that they come from is damaged"
        )
