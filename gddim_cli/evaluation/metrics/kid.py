"""The kernel distance between two sets of features (KID: Binkowski et al., arXiv 1801.01401)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import DataError
from gddim_cli.evaluation.metrics.base import MetricSpec, OnStep
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.evaluation.statistics import Reference

Indices = NDArray[np.integer[Any]]


class KidOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of KID; the defaults are clean-fid's."""

    subsets: Annotated[int, about("Pairs of random subsets to average over.", panel="Metrics", ge=1, le=10_000)] = 100
    size: Annotated[int, about("Largest size of a subset.", panel="Metrics", ge=2, le=100_000)] = 1000


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


def kid(
    x: NDArray[np.floating], y: NDArray[np.floating], options: KidOptions | None = None, seed: int = 0
) -> dict[str, float]:
    """`value`, the mean over random pairs of subsets.

    Args:
        x, y: features [N, d] and [M, d].

    Raises:
        DataError: fewer than two features on a side.
    """
    options = options or KidOptions()
    size = min(len(x), len(y), options.size)
    if size < 2:
        raise DataError(f"KID needs at least two images on each side, not {len(x)} and {len(y)}")
    draw = np.random.default_rng(seed)
    subsets = ((draw.choice(len(x), size, False), draw.choice(len(y), size, False)) for _ in range(options.subsets))
    values = kernel_distance(x, y, subsets)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"value": float(np.mean(values)), "std": std, "subsets": options.subsets, "size": size}


def compute(
    features: NDArray[np.floating], reference: Reference, options: KidOptions, on_step: OnStep
) -> dict[str, float]:
    """KID of features [N, d] to the reference's, as `kid` returns it."""
    assert reference.features is not None
    found = kid(features, reference.features, options)
    on_step(1.0)
    return found


KID = MetricSpec(
    name="kid",
    title="KID",
    lower_is_better=True,
    needs_features=True,
    depends_on_count=False,
    options=KidOptions,
    compute=compute,
)
