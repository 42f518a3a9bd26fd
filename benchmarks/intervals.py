"""Measures how often the 95 % intervals of `gddim fid` contain the right answer, on Gaussian features: docs/fid.md.

python benchmarks/intervals.py [--repeats 1000] [--metrics fid,fid-infinity,kid,is]

The features of an image are drawn from N(shift sqrt(lambda), scale^2 lambda), those of the reference from N(0, lambda).
The variances lambda are all 1, or fall from 1 to e^-6. For `fid`, the right answer is the mean of the metric over all
repeats, each with N images. For `fid-infinity` and `kid`, it is the value for the two Gaussians themselves. For `is`,
it is again the mean over all repeats; the features are then the scores of d classes, and there is no reference.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddim_cli.evaluation.metrics.base import Metric
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.moments import Gaussian
from gddim_cli.evaluation.statistics import Reference

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A pair of Gaussians of dimension `d`, and the numbers of images, `n`, and of reference images (kid only), `m`."""

    d: int
    n: int
    decay: bool
    shift: float
    scale: float
    m: int = 500

    @property
    def variances(self) -> Array:
        """The variances lambda, [d]."""
        return np.exp(-6 * np.arange(self.d) / self.d) if self.decay else np.ones(self.d)

    @property
    def gaussians(self) -> tuple[Gaussian, Gaussian]:
        """The Gaussian of the images, and the Gaussian of the reference."""
        v = self.variances
        return (
            Gaussian(self.shift * np.sqrt(v), self.scale**2 * np.diag(v)),
            Gaussian(np.zeros(self.d), np.diag(v)),
        )


CASES = """
fid                      16   100   1 0    1
fid                      16   100   1 0.1  1.2
fid                      40   80    1 0    1
fid                      40   1000  0 0    1
fid                      40   1000  1 0.05 1.05
fid                      84   168   1 0.3  1.5
fid                      84   420   0 0    1
fid                      84   420   1 0    0.8
fid                      84   2000  1 0    1
fid                      84   2000  1 0.03 1.05
fid                      84   2000  1 0.3  1.5
fid-infinity             16   200   1 0.1  1.2
fid-infinity             40   200   1 0    1
fid-infinity             40   1000  1 0.05 1.05
fid-infinity             84   420   1 0.3  1.5
fid-infinity             84   2000  1 0    1
fid-infinity             84   2000  1 0.3  1.5
kid:size=100:subsets=50  8    50    0 0    1     50
kid:size=100:subsets=50  8    200   0 0.3  1     200
kid:size=100:subsets=50  40   300   0 0    1     2000
kid:size=100:subsets=50  40   300   0 0.2  1     2000
kid:size=100:subsets=50  84   1000  1 0    1     1000
kid:size=100:subsets=50  84   1000  1 0.1  1.1   1000
is                       10   200   0 0    3
is                       10   2000  0 0    1
is                       10   2000  1 1    8
is                       100  1000  0 0    4
is                       1000 2000  0 0    4
is:splits=1              10   200   0 0    3
is:splits=1              1000 1000  0 0    4
"""
"""Each line has a metric and a case: d, N, decay, shift, scale, and m if it is not 500."""


def cases() -> Iterator[tuple[Metric, Case]]:
    """The metrics with their cases."""
    for line in CASES.split("\n")[1:-1]:
        name, d, n, decay, shift, scale, *m = line.split()
        yield find_metric(name), Case(int(d), int(n), decay == "1", float(shift), float(scale), *map(int, m))


def frechet(case: Case) -> float:
    """The Frechet distance of the two Gaussians."""
    v = case.variances
    return float((case.shift**2 + (case.scale - 1) ** 2) * v.sum())


def kernel(case: Case) -> float:
    """The squared maximum mean discrepancy of the two Gaussians, kernel `(x . y / d + 1)^3`."""

    def mean(a: Gaussian, b: Gaussian) -> float:
        """The mean of the kernel for x drawn from a and y from b, by the first three moments of `t = x . y`."""
        t, through = a.mean @ b.mean, a.mean @ b.covariance
        spread, other = b.mean @ a.covariance @ b.mean, through @ a.mean
        both = np.trace(a.covariance @ b.covariance)
        second = t * t + spread + other + both
        third = t**3 + 3 * t * (spread + other + both) + 6 * through @ a.covariance @ b.mean
        return float(third / case.d**3 + 3 * second / case.d**2 + 3 * t / case.d + 1)

    images, reference = case.gaussians
    return mean(images, images) + mean(reference, reference) - 2 * mean(images, reference)


def coverage(name: str, case: Case, repeats: int, seed: int = 0) -> tuple[float, float]:
    """The share of intervals that contain the right answer, and the mean standard error divided by the true one."""
    draw = np.random.default_rng(seed)
    metric = find_metric(name)
    images, reference = case.gaussians
    roots = np.sqrt(case.variances)
    found = []
    for _ in range(repeats):
        x = images.mean + case.scale * roots * draw.standard_normal((case.n, case.d))
        y = roots * draw.standard_normal((case.m, case.d)) if metric.spec.needs_features else None
        given = Reference("reference", "", reference, y, "")
        values = metric.spec.compute(x, given, metric.options, lambda _: None)
        found.append([values[key] for key in ("value", "low", "high", "standard_error")])
    value, low, high, error = np.array(found).T
    right = {"fid-infinity": frechet, "kid": kernel}.get(metric.spec.name, lambda _: float(value.mean()))(case)
    held = float(np.mean((low <= right) & (right <= high)))
    return held, float(np.sqrt(np.mean(error**2)) / value.std(ddof=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--metrics", default="fid,fid-infinity,kid,is")
    arguments = parser.parse_args()
    chosen = arguments.metrics.split(",")
    print("| metric | d | N | variances | shift | scale | coverage | estimated standard error / true one |")
    print("|---|---|---|---|---|---|---|---|")
    for metric, case in cases():
        if metric.spec.name in chosen:
            held, ratio = coverage(metric.text, case, arguments.repeats)
            cells = [metric.text, case.d, case.n, "1 to e^-6" if case.decay else "1", case.shift, case.scale]
            print("|", " | ".join(map(str, [*cells, f"{held:.1%}", f"{ratio:.2f}"])), "|", flush=True)


if __name__ == "__main__":
    main()
