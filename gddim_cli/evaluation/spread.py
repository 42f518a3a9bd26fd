"""How sure a Frechet distance of N images is: its bias in 1/N extrapolated away, and its spread by resampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.evaluation.frechet import frechet_distance
from gddim_cli.evaluation.moments import Gaussian, gaussian_of

POINTS = 15
DRAWS = 20
FEWEST = 50


def infinity(
    features: NDArray[np.floating], reference: Gaussian, seed: int = 0, on_point: Callable[[], None] | None = None
) -> tuple[float, float]:
    """The distance at N -> infinity, and the standard error of that fit (Chong & Forsyth, arXiv 1911.07023).

    The bias of the distance is nearly c/N. So it is measured on random subsets of 15 sizes, evenly spaced in 1/N from a
    tenth of the images to all, and the straight line in 1/N is read at 0.

    Raises:
        DataError: fewer than 50 images.
    """
    n = len(features)
    if n < FEWEST:
        raise DataError(f"{n} images are too few to extrapolate from; {FEWEST} is the least, and thousands are better")
    draw = np.random.default_rng(seed)
    sizes = np.round(1 / np.linspace(10 / n, 1 / n, POINTS)).astype(int)
    values = []
    for size in sizes:
        values.append(frechet_distance(gaussian_of(features[draw.choice(n, size, False)]), reference))
        if on_point:
            on_point()
    fit, covariance = np.polyfit(1 / sizes, values, 1, cov=True)
    return float(fit[1]), float(np.sqrt(covariance[1, 1]))


def bootstrap(
    features: NDArray[np.floating], reference: Gaussian, seed: int = 0, on_point: Callable[[], None] | None = None
) -> float:
    """The standard deviation of the distance over 20 resamplings of the images with replacement.

    The spread of the value, not an interval around it: resampling repeats images, which raises the distance itself.

    Raises:
        DataError: fewer than two images.
    """
    draw = np.random.default_rng(seed)
    values = []
    for _ in range(DRAWS):
        values.append(
            frechet_distance(gaussian_of(features[draw.integers(len(features), size=len(features))]), reference)
        )
        if on_point:
            on_point()
    return float(np.std(values, ddof=1))
