"""The kernel distance between two sets of features (KID: Binkowski et al., arXiv 1801.01401)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError

Indices = NDArray[np.integer[Any]]
SUBSETS = 100
LARGEST = 1000


def kernel_distance(
    x: NDArray[np.floating], y: NDArray[np.floating], subsets: Iterable[tuple[Indices, Indices]]
) -> list[float]:
    """The unbiased squared maximum mean discrepancy of each pair of subsets, kernel `(x . y / d + 1)^3`, in float64.

    Args:
        x, y: features [N, d] and [M, d].
        subsets: pairs of as many row numbers of x and of y.
    """
    found = []
    for rows, others in subsets:
        a, b = x[rows].astype(np.float64), y[others].astype(np.float64)
        within = sum(off_diagonal_mean(cubic(s, s)) for s in (a, b))
        found.append(float(within - 2 * cubic(a, b).mean()))
    return found


def cubic(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = x @ y.T / x.shape[1] + 1
    return product * product * product


def off_diagonal_mean(square: NDArray[np.float64]) -> float:
    n = len(square)
    return float((square.sum() - np.trace(square)) / (n * (n - 1)))


def kid(x: NDArray[np.floating], y: NDArray[np.floating], seed: int = 0) -> dict[str, float]:
    """`value`, the mean over 100 pairs of subsets of at most 1000 (clean-fid's defaults), and `std` among them.

    Raises:
        DataError: fewer than two features on a side.
    """
    size = min(len(x), len(y), LARGEST)
    if size < 2:
        raise DataError(f"KID needs at least two images on each side, not {len(x)} and {len(y)}")
    draw = np.random.default_rng(seed)
    subsets = ((draw.choice(len(x), size, False), draw.choice(len(y), size, False)) for _ in range(SUBSETS))
    values = kernel_distance(x, y, subsets)
    return {"value": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "subsets": SUBSETS, "size": size}
