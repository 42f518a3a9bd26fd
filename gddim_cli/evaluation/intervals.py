"""95 % intervals of metrics, from the effects of single images and of pairs of images.

Up to a constant and terms of third order, a metric of N independent images is
`sum_i a_i p(x_i) + sum_ij A_ij h(x_i, x_j) / 2` (Hoeffding's decomposition, von Mises' expansion). Its variance is
`first * sum_i a_i^2 + second * sum_{i != j} A_ij^2 / 2` with `first = Var p` and `second = E h^2`. The first term dominates
if the distribution of the images is far from the reference's. If the distributions are equal, p vanishes and only the
second term is left. The bootstrap is not used, because it would count that term more than once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddim_cli.evaluation.moments import Gaussian
from gddim_cli.images.subset import some

NORMAL = 1.959964
"""A normally distributed value lies within this many standard deviations of its mean with probability 0.95."""
FLOOR = 0.6
"""Lower bound on the variance, as a share of the second-order term, since the estimate of `first` may be negative."""
ROWS = 5000
"""Maximum number of images from which the variance of the Frechet distance is estimated. If there are more, this many
are chosen at random."""
BLOCK = 1000
PAIRS = 4000
LEAST = 2
"""Minimum number of images for the expansion of the Frechet distance, as a multiple of the features' rank."""


def interval(value: float, first: float, second: float) -> dict[str, float]:
    """`standard_error`, `low` and `high` of a value from the first- and second-order terms of its variance."""
    error = max(first + second, FLOOR * second, 0.0) ** 0.5
    return {"standard_error": error, "low": value - NORMAL * error, "high": value + NORMAL * error}


@dataclass(frozen=True)
class Expansion:
    """The variances of the two terms of a metric's expansion (see the top of this module).

    Attributes:
        first: the variance of p.
        second: the mean square of h over pairs of images.
    """

    first: float
    second: float

    def interval(self, value: float, weights: float, pair_weights: float) -> dict[str, float]:
        """The interval of a value with `weights = sum_i a_i^2` and `pair_weights = sum_{i != j} A_ij^2`."""
        return interval(value, self.first * weights, self.second * pair_weights / 2)


def frechet_expansion(features: NDArray[np.floating[Any]], gaussian: Gaussian, reference: Gaussian) -> Expansion | None:
    """The expansion, in the images, of the Frechet distance to a fixed reference; float64.

    Let m and `S = A A^T` be the mean and covariance of the images' features, m_r and S_r those of the reference's. With
    `A^T S_r A = U diag(s^2) U^T`, `c = x - m` and `w = U^T A^+ c`,

        p(x)    = 2 (m - m_r) . c + |c|^2 - sum_k s_k w_k^2
        h(x, y) = 2 sum_k s_k w_k v_k + 2 sum_kl W_kl (w_k w_l - delta_kl) (v_k v_l - delta_kl)

    where w belongs to x, v belongs to y, and `W_kl = s_k s_l / (2 (s_k + s_l))`. Here p is evaluated at the same images
    that m and S come from, which makes the variance of p too large. Two corrections compensate for this:
    `h(x, x) / (2 N)` is subtracted from p, and `second / N` from the variance.

    Args:
        features: the features, [N, d], whose mean and covariance `gaussian` holds.

    Returns:
        The expansion, or None if there are fewer than three images, fewer images than twice the features' rank, or no
        two different images.
    """
    n = len(features)
    spectrum, vectors = np.linalg.eigh(gaussian.covariance)
    kept = spectrum > len(spectrum) * np.finfo(float).eps * spectrum[-1]
    rank = int(kept.sum())
    if not rank or n < max(3, LEAST * rank):
        return None
    roots, vectors = np.sqrt(spectrum[kept]), vectors[:, kept]
    squares, turn = np.linalg.eigh((roots[:, None] * (vectors.T @ reference.covariance @ vectors)) * roots)
    s = np.sqrt(squares.clip(min=0))
    whiten = (vectors / roots) @ turn
    sums = s[:, None] + s
    pair = np.divide(s[:, None] * s, 2 * sums, out=np.zeros_like(sums), where=sums > 0)
    shift = gaussian.mean - reference.mean

    def kernel(products: NDArray[np.float64], trace: NDArray[np.float64]) -> NDArray[np.float64]:
        """`h` of pairs, from `products = w_k v_k` and `trace = sum_k s_k (w_k^2 + v_k^2) / 4`."""
        return 2 * (products @ s + ((products @ pair) * products).sum(axis=1) - trace + s.sum() / 4)

    chosen = np.random.default_rng(0).permutation(np.asarray(some(features, ROWS)))
    p, h = [], []
    for start in range(0, len(chosen), BLOCK):
        c = chosen[start : start + BLOCK].astype(np.float64) - gaussian.mean
        w = c @ whiten
        weighted = (w * w) @ s
        own = kernel(w * w, weighted / 2)
        p.append(2 * c @ shift + (c * c).sum(axis=1) - weighted - own / (2 * n))
        for step in range(1, 1 + min(-(-PAIRS // n), (len(c) - 1) // 2)):
            other, others = np.roll(w, step, axis=0), np.roll(weighted, step)
            h.append(kernel(w * other, (weighted + others) / 4))
    second = float(np.mean(np.concatenate(h) ** 2))
    return Expansion(float(np.var(np.concatenate(p), ddof=1)) - second / n, second)
