"""How sure a Frechet distance of N images is: its bias in 1/N extrapolated away, and its spread by resampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import UsageError
from gddim_cli.evaluation.frechet import frechet_distance
from gddim_cli.evaluation.moments import Gaussian, gaussian_of

POINTS = 15
DRAWS = 20
LEAST = 5
"""Images that an extrapolation needs, in units of the features' dimension."""


def infinity(
    features: NDArray[np.floating], reference: Gaussian, seed: int = 0, on_point: Callable[[], None] | None = None
) -> float:
    """The distance at N -> infinity, by a straight line in 1/N (Chong & Forsyth, arXiv 1911.07023).

    The bias of the distance is c/N up to higher orders, which tell where N is not far above the dimension d. So the line
    goes through 15 random subsets evenly spaced from `max(N/5, 2.5 d)` to N. On Gaussians of 84 dimensions it takes away
    all but a twentieth of the bias at N = 5 d, and all but a hundredth at 60 d.

    Raises:
        UsageError: fewer than 5 d images.
    """
    n, d = features.shape
    if n < LEAST * d:
        raise UsageError(
            f"--infinity: {n} images are too few to extrapolate from; {d} features need at least {LEAST * d}"
        )
    draw = np.random.default_rng(seed)
    sizes = np.round(np.linspace(max(n / 5, 2.5 * d), n, POINTS)).astype(int)
    values = []
    for size in sizes:
        values.append(frechet_distance(gaussian_of(features[draw.choice(n, size, False)]), reference))
        if on_point:
            on_point()
    return float(np.polyfit(1 / sizes, values, 1)[1])


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
