"""Precision, recall (Kynkaanniemi et al., arXiv 1904.06991), density and coverage (Naeem et al., arXiv 2002.09797)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.evaluation.metrics.base import MetricSpec, OnStep
from gddim_cli.images.subset import some
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.evaluation.statistics import Reference

LARGEST = 10_000
"""Maximum number of feature vectors to compare from a set. From a larger set, this many are chosen at random."""
ROWS = 500


def prdc(real: NDArray[np.floating], fake: NDArray[np.floating], k: int) -> dict[str, float]:
    """Precision, recall, density and coverage, from balls around features.

    The ball around a feature extends to the k-th nearest neighbor of the feature in its own set. Precision is the share
    of fake features that lie in the ball of a real one. Recall is the share of real features that lie in the ball of a
    fake one. Density is the mean number of real features' balls that contain a fake feature, divided by k. Coverage is
    the share of real features whose ball contains a fake one. From a set of more than 10 000 features, 10 000 are
    chosen at random.

    Args:
        real, fake: features [N, d] and [M, d].

    Raises:
        DataError: a set has at most k features.
    """
    real, fake = (np.asarray(some(side, LARGEST), dtype=np.float64) for side in (real, fake))
    if min(len(real), len(fake)) <= k:
        raise DataError(f"precision and recall need more than {k} images on each side, not {len(fake)} and {len(real)}")
    of_real, of_fake = radii(real, k), radii(fake, k)
    held, recalled, covered = np.zeros(len(fake)), np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, squares in distances(real, fake):
        inside = squares <= of_real[rows, None]
        held += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (squares <= of_fake[None]).any(axis=1)
    return {
        "precision": float((held > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(held.mean() / k),
        "coverage": float(covered.mean()),
        "k": k,
        "n": len(fake),
        "reference_n": len(real),
    }


def radii(x: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Squared distance of each feature to its k-th nearest neighbor; the 0-th neighbor is the feature itself."""
    return np.concatenate([np.partition(squares, k, axis=1)[:, k] for _, squares in distances(x, x)])


def distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yields the squared distances from a few rows of x at a time, given as a slice, to all rows of y."""
    squares_y = (y * y).sum(axis=1)
    for first in range(0, len(x), ROWS):
        part = x[first : first + ROWS]
        squares = (part * part).sum(axis=1)[:, None] + squares_y - 2 * part @ y.T
        if x is y:  # The distance of a feature to itself must be exactly 0, whatever the rounding errors.
            squares[np.arange(len(part)), first + np.arange(len(part))] = 0.0
        yield slice(first, first + len(part)), np.maximum(squares, 0.0)


class PrdcOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of precision, recall, density and coverage."""

    value: Annotated[
        Literal["precision", "recall", "density", "coverage"],
        about("Which of the four numbers to show in tables.", panel="Metrics"),
    ] = "precision"
    k: Annotated[
        int, about("The ball around a feature extends to its k-th nearest neighbor.", panel="Metrics", ge=1, le=1000)
    ] = 5


def compute(
    features: NDArray[np.floating], reference: Reference, options: PrdcOptions, on_step: OnStep
) -> dict[str, float]:
    """All four numbers for features [N, d] against the reference's; `value` is the one that the options choose."""
    assert reference.features is not None
    found = prdc(reference.features, features, options.k)
    on_step(1.0)
    return {"value": found[options.value], **found}


def least_images(_dimension: int, options: PrdcOptions) -> int:
    """The minimum number of images, so that each has k neighbors."""
    return options.k + 1


PRDC = MetricSpec(
    "prdc",
    "{value}",
    compute,
    lower_is_better=False,
    needs_features=True,
    options=PrdcOptions,
    least_images=least_images,
)
