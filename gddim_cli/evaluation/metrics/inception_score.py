"""The Inception Score (Salimans et al., arXiv 1606.03498), from class scores alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.evaluation.metrics.base import MetricSpec, OnStep
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.evaluation.metrics.base import Features

Array = NDArray[np.float64]
LEAST = 10
"""Minimum number of images in a split."""


class ScoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the Inception Score, with its authors' default."""

    splits: Annotated[
        int, about("Number of disjoint random subsets of the images to average over.", panel="Metrics", ge=1, le=1000)
    ] = 10


def compute(scores: Features, _reference: None, options: ScoreOptions, on_step: OnStep) -> dict[str, float]:
    """`value`, the mean over random splits of `exp E KL(p(y|x) || p(y))`, and the 95 % interval of its expected value.

    Let S be the score of a split of n images, r_ik the probability of class k for image i, and q_k the mean of r_ik over
    the split. The interval comes from the expansion in `intervals`, whose terms for one image and for two images are

        p(i)    = (n - 1) (S - S_i)
        h(i, j) = -S sum_k (r_ik - q_k) (r_jk - q_k) / q_k

    where S_i is the split's score without image i. The sample variance of these p(i) is too large. The excess, the
    mean square of h divided by n, is subtracted.

    Args:
        scores: class scores [N, c]; the probabilities are their softmax.
    """
    from gddim_cli.evaluation.intervals import Expansion

    order = np.random.default_rng(0).permutation(len(scores))
    values, firsts, seconds = [], [], []
    for rows in np.array_split(order, options.splits):
        log_p = log_softmax(np.asarray(scores[np.sort(rows)], dtype=np.float64))
        p = np.exp(log_p)
        n, q, own = len(p), p.mean(axis=0), (p * log_p).sum(axis=1)
        values.append(float(np.exp(own.mean() + entropy(q))))
        without = np.exp((own.sum() - own) / (n - 1) + entropy((n * q - p) / (n - 1)))
        seconds.append(values[-1] ** 2 * pair_variance(p, q))
        firsts.append((n - 1) ** 2 * float(without.var(ddof=1)) - seconds[-1] / n)
        on_step(1 / options.splits)
    value, size = float(np.mean(values)), len(scores) / options.splits
    expansion = Expansion(float(np.mean(firsts)), float(np.mean(seconds)))
    found = {"value": value, "split_deviation": float(np.std(values)), "splits": options.splits}
    found |= expansion.interval(value, weights=1 / len(scores), pair_weights=(size - 1) / (options.splits * size**3))
    # The exact value is at least 1, so `low` is raised to 1, but not above `high`, which rounding can move below 1.
    return {**found, "low": min(max(found["low"], 1.0), found["high"])}


def entropy(q: Array) -> Array:
    """`-sum_k q_k log q_k` of each row; probabilities that rounding made negative count as 0."""
    positive = q > 0
    return -(np.log(q, out=np.zeros_like(q), where=positive) * np.where(positive, q, 0)).sum(axis=-1)


def log_softmax(scores: Array) -> Array:
    """The logarithms of the softmax of each row."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def pair_variance(p: Array, q: Array) -> float:
    """The mean square of `h / S` (see `compute`) over pairs of different images.

    Args:
        p: the probabilities r_ik, [n, c].
        q: their mean, [c].
    """
    n = len(p)
    scaled = np.divide(p - q, np.sqrt(q), out=np.zeros_like(p), where=q > 0)
    product = scaled.T @ scaled if p.shape[1] < n else scaled @ scaled.T
    own = (scaled * scaled).sum(axis=1)
    return float((product * product).sum() - own @ own) / (n * (n - 1))


def least_images(_dimension: int, options: ScoreOptions) -> int:
    """The minimum number of images, so that each split has enough."""
    return LEAST * options.splits


INCEPTION_SCORE = MetricSpec(
    "is",
    "IS",
    compute,
    lower_is_better=False,
    needs_reference=False,
    needs_scores=True,
    options=ScoreOptions,
    least_images=least_images,
)
