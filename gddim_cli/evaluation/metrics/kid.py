"""The kernel distance between two sets of features (KID: Binkowski et al., arXiv 1801.01401)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.evaluation.metrics.base import MetricSpec, OnStep
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.evaluation.statistics import Reference

Array = NDArray[np.float64]


class KidOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of KID; the defaults are clean-fid's."""

    subsets: Annotated[
        int, about("Number of pairs of random subsets to average over.", panel="Metrics", ge=1, le=10_000)
    ] = 100
    size: Annotated[int, about("Maximum number of images in a subset.", panel="Metrics", ge=2, le=100_000)] = 1000


@dataclass(frozen=True)
class Kernels:
    """Values of the kernel `(x . y / d + 1)^3` for two subsets x and y of n feature vectors each, in float64.

    Attributes:
        xx, yy, xy: the values within x, within y, and between x and y, each [n, n].
    """

    xx: Array
    yy: Array
    xy: Array

    @classmethod
    def of(cls, x: NDArray[np.floating], y: NDArray[np.floating]) -> Kernels:
        """The values for features x and y, both [n, d]."""
        a, b = x.astype(np.float64), y.astype(np.float64)
        return cls(cubic(a, a), cubic(b, b), cubic(a, b))

    @property
    def distance(self) -> float:
        """The unbiased squared maximum mean discrepancy."""
        return float(others_mean(self.xx).mean() + others_mean(self.yy).mean() - 2 * self.xy.mean())

    def components(self) -> Array:
        """Unbiased estimates of the five variances in the expansion of the distance (see `intervals`), [5].

        Two are of first order: the variance of `E k(x, x') - E k(x, y)` over x, and its counterpart over y. Three are
        of second order: the mean squares of xx, yy and xy, with row and column means subtracted.
        """
        n = len(self.xx)
        xx, yy = (centred(k - np.diag(np.diag(k)), others_mean(k), others_mean(k)) for k in (self.xx, self.yy))
        xy = centred(self.xy, self.xy.mean(axis=1), self.xy.mean(axis=0))
        pairs = [square_sum(k - np.diag(np.diag(k))) / max(n * (n - 3), 1) for k in (xx, yy)]
        pairs.append(square_sum(xy) / (n - 1) ** 2)
        rows = others_mean(self.xx) - self.xy.mean(axis=1), others_mean(self.yy) - self.xy.mean(axis=0)
        single = [r.var(ddof=1) - own / (n - 1) - pairs[2] / n for r, own in zip(rows, pairs, strict=False)]
        return np.array([*single, *pairs])


def cubic(x: Array, y: Array) -> Array:
    """The kernel `(x . y / d + 1)^3`, [n, m], of features [n, d] and [m, d]."""
    product: Array = x @ y.T / x.shape[1] + 1
    return product * product * product


def others_mean(square: Array) -> Array:
    """The mean of each row without the diagonal."""
    return (square.sum(axis=1) - np.diag(square)) / (len(square) - 1)


def centred(kernel: Array, rows: Array, columns: Array) -> Array:
    """A kernel matrix with its row and column means subtracted."""
    return kernel - rows[:, None] - columns + rows.mean()


def square_sum(matrix: Array) -> float:
    """The sum of the squares of a matrix's entries."""
    return float(np.vdot(matrix, matrix))


def kid(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    options: KidOptions | None = None,
    on_step: OnStep = lambda _: None,
) -> dict[str, float]:
    """`value`, the mean distance of random pairs of subsets, and a 95 % interval.

    The interval is for the distance between the distributions from which x and y are drawn. It accounts for images,
    and pairs of images, that occur in several subsets. If the subsets are the whole sets, the sets are compared only
    once.

    Args:
        x, y: features [N, d] and [M, d].

    Raises:
        DataError: x or y has fewer than two rows.
    """
    from gddim_cli.evaluation.intervals import interval

    options = options or KidOptions()
    n = min(len(x), len(y), options.size)
    if n < 2:
        raise DataError(f"KID needs at least two images on each side, not {len(x)} and {len(y)}")
    subsets = 1 if len(x) == len(y) == n else options.subsets
    draw = np.random.default_rng(0)
    in_x, in_y = np.zeros((subsets, len(x))), np.zeros((subsets, len(y)))
    values, components = [], []
    for of_x, of_y in zip(in_x, in_y, strict=True):
        rows, others = draw.choice(len(x), n, False), draw.choice(len(y), n, False)
        of_x[rows] = of_y[others] = 1
        kernels = Kernels.of(x[rows], y[others])
        values.append(kernels.distance)
        components.append(kernels.components())
        on_step(1 / subsets)
    found = {"value": float(np.mean(values)), "subsets": subsets, "size": n}
    if n < 4:
        return found
    single_x, single_y, xx, yy, xy = np.mean(components, axis=0)
    # For every two subsets of x (of y): the number of images that are in both.
    both_x, both_y = in_x @ in_x.T, in_y @ in_y.T
    first = 4 * (single_x * both_x.sum() + single_y * both_y.sum()) / (subsets * n) ** 2
    within = (xx * (both_x * (both_x - 1)).sum() + yy * (both_y * (both_y - 1)).sum()) / (subsets * n * (n - 1)) ** 2
    between = xy * (both_x * both_y).sum() / (subsets * n * n) ** 2
    return found | interval(found["value"], float(first), float(2 * within + 4 * between))


def compute(
    features: NDArray[np.floating], reference: Reference, options: KidOptions, on_step: OnStep
) -> dict[str, float]:
    """KID of features [N, d] against the reference's features, as `kid` returns it."""
    assert reference.features is not None
    return kid(features, reference.features, options, on_step)


KID = MetricSpec(
    "kid", "KID", compute, lower_is_better=True, needs_features=True, depends_on_count=False, options=KidOptions
)
