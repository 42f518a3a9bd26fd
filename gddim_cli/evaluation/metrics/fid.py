"""The Frechet distance between the Gaussians of two sets of features (FID: Heusel et al., arXiv 1706.08500)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gddim_cli.evaluation.metrics.base import MetricSpec, NoOptions, OnStep
from gddim_cli.evaluation.protocols import FULL

if TYPE_CHECKING:
    from gddim_cli.evaluation.metrics.base import Features
    from gddim_cli.evaluation.statistics import Reference

FEW = 4
"""A reference with at most this many images per dimension of the features biases the distance noticeably."""


def compute(features: Features, reference: Reference, _options: NoOptions, on_step: OnStep) -> dict[str, float]:
    """`value`, the Frechet distance of features [N, d] to the reference, and a 95 % interval.

    The interval is for the mean of the distance over random sets of N images. There is none if N is less than twice the
    rank of the features.
    """
    from gddim_cli.evaluation.frechet import frechet_distance
    from gddim_cli.evaluation.intervals import frechet_expansion
    from gddim_cli.evaluation.moments import gaussian_of

    n, gaussian = len(features), gaussian_of(features)
    found = {"value": frechet_distance(gaussian, reference.gaussian)}
    on_step(0.5)
    expansion = frechet_expansion(features, gaussian, reference.gaussian)
    if expansion:
        found |= expansion.interval(found["value"], weights=1 / n, pair_weights=(n - 1) / n**3)
        found["low"] = max(found["low"], 0.0)
    on_step(0.5)
    return found


def notes(features: Features, reference: Reference) -> Iterator[str]:
    """Notes about small numbers of images, which bias the distance."""
    n, dimension = features.shape
    if n <= dimension:
        yield f"{n} images are too few for {dimension} features: the distance is strongly biased upwards"
    elif n < FULL:
        yield (
            f"with {n} images instead of {FULL}, the distance is biased upwards; compare it only with distances of {n} images"
        )
    if reference.n is not None and reference.n <= FEW * dimension:
        yield f"the reference has only {reference.n} images, which also biases the distance upwards"


FID = MetricSpec("fid", "FID", compute, generic_title="FD", lower_is_better=True, notes=notes)
