"""Mean and covariance of features, streamed in float64 and mergeable."""

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
    """What the Frechet distance sees of a set of features.

    Attributes:
        mean: float64 [d].
        covariance: float64 [d, d], of n - 1 degrees of freedom.
        n: how many features it is of; None where that is not known.
        factor: A, [d, r], with `A A^T = covariance`, where there are no more features than dimensions: exact where the
            covariance alone would lose half its digits.
    """

    mean: Array
    covariance: Array
    n: int | None = None
    factor: Array | None = None


@dataclass
class Moments:
    """Count, mean and scatter `sum (x - mean)(x - mean)^T` of features; memory does not grow with their number.

    Attributes:
        n: features so far.
        mean: float64 [d].
        scatter: float64 [d, d].
    """

    n: int
    mean: Array
    scatter: Array

    @classmethod
    def empty(cls, dimension: int) -> Self:
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    @classmethod
    def of(cls, features: NDArray[np.floating], rows: int = 16384) -> Self:
        """Those of features [N, d], which may be a memory map, read a few rows at a time."""
        moments = cls.empty(features.shape[1])
        for first in range(0, len(features), rows):
            moments.add(features[first : first + rows])
        return moments

    def add(self, features: NDArray[np.floating]) -> None:
        """Counts features [N, d] in.

        Raises:
            DataError: they hold NaN or infinity.
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
        """Counts another set in: Chan, Golub & LeVeque's update, which subtracts no large numbers."""
        if other.n:
            self._take(other.n, other.mean, other.scatter.copy())

    def _take(self, n: int, mean: Array, scatter: Array) -> None:
        """Counts a set in; its `scatter` may be kept. In place: at 2048 features a copy is 32 MiB."""
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
            DataError: of fewer than two.
        """
        if self.n < 2:
            raise DataError(f"{self.n} image{'s' * (self.n != 1)}: a covariance needs at least two")
        return Gaussian(self.mean, self.scatter / (self.n - 1), self.n)


def gaussian_of(features: NDArray[np.floating]) -> Gaussian:
    """The Gaussian of features [N, d], with an exact factor where N <= d.

    Raises:
        DataError: fewer than two, or NaN or infinity among them.
    """
    gaussian = Moments.of(features).gaussian()
    if len(features) > features.shape[1]:
        return gaussian
    factor = (np.asarray(features, dtype=np.float64) - gaussian.mean).T / np.sqrt(len(features) - 1)
    return Gaussian(gaussian.mean, gaussian.covariance, gaussian.n, factor)


def check_finite(features: NDArray[np.floating]) -> None:
    """Raises DataError, naming the first row that holds NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise DataError(
            f"features of {len(bad)} of {len(features)} images are not finite, the first in row {bad[0]}; "
            "the network or the file that they came from is damaged"
        )
