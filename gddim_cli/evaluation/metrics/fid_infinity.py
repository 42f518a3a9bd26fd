"""The Frechet distance extrapolated to infinitely many images (Chong & Forsyth, arXiv 1911.07023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from gddim_cli.evaluation.metrics.base import MetricSpec, OnStep
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.evaluation.metrics.base import Features
    from gddim_cli.evaluation.statistics import Reference

LEAST = 5
"""The extrapolation needs at least this many images per dimension of the features."""


class InfinityOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the extrapolation."""

    points: Annotated[
        int, about("Number of random subsets whose distances are extrapolated.", panel="Metrics", ge=3, le=1000)
    ] = 15


def compute(features: Features, reference: Reference, options: InfinityOptions, on_step: OnStep) -> dict[str, float]:
    """`value`, the distance extrapolated to N -> infinity by a straight line in 1/N, and its 95 % interval.

    The bias of the distance is c/N plus higher orders in 1/N, which are negligible only if N is well above the
    dimension d. The line is therefore fitted to random subsets whose sizes are evenly spaced from `max(N/5, 2.5 d)` to
    N. The value is a linear combination `sum_k b_k D(S_k)` of the distances of the subsets S_k. In the expansion that
    gives the interval (see `intervals`), image i therefore has the weight `sum_k b_k [i in S_k] / |S_k|`. The pair of
    images i and j has the weight `sum_k b_k [i, j in S_k] / |S_k|^2`.
    """
    import numpy as np

    from gddim_cli.evaluation.frechet import frechet_distance
    from gddim_cli.evaluation.intervals import frechet_expansion
    from gddim_cli.evaluation.moments import gaussian_of

    n, d = features.shape
    draw = np.random.default_rng(0)
    sizes = np.round(np.linspace(max(n / 5, 2.5 * d), n, options.points)).astype(int)
    members, values = np.zeros((len(sizes), n)), []
    for subset, size in zip(members, sizes, strict=True):
        rows = draw.choice(n, size, replace=False)
        subset[rows] = 1
        values.append(frechet_distance(gaussian_of(features[rows]), reference.gaussian))
        on_step(1 / (len(sizes) + 1))
    line = np.linalg.pinv(np.vander(1 / sizes, 2))[1]
    value = float(line @ values)
    expansion = frechet_expansion(features, gaussian_of(features), reference.gaussian)
    on_step(1 / (len(sizes) + 1))
    if expansion is None:
        return {"value": value}
    common, scale = members @ members.T, np.outer(sizes, sizes)
    weights, pairs = line @ (common / scale) @ line, line @ (common * (common - 1) / scale**2) @ line
    return {"value": value, **expansion.interval(value, float(weights), float(pairs))}


def least_images(dimension: int, _options: InfinityOptions) -> int:
    """The minimum number of images for the extrapolation."""
    return LEAST * dimension


FID_INFINITY = MetricSpec(
    "fid-infinity",
    "FID-infinity",
    compute,
    generic_title="FD-infinity",
    lower_is_better=True,
    depends_on_count=False,
    options=InfinityOptions,
    least_images=least_images,
)
