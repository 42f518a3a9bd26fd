"""The 95 % intervals of metrics: how often they hold the right answer, and what they are made of."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from gddim_cli.evaluation.frechet import frechet_distance
from gddim_cli.evaluation.intervals import frechet_expansion
from gddim_cli.evaluation.metrics.fid import FID
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.moments import Gaussian, gaussian_of
from gddim_cli.evaluation.statistics import Reference


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """benchmarks/intervals.py as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
    return importlib.import_module("intervals")


@pytest.mark.parametrize(
    ("metric", "case"),
    [
        ("fid", (20, 200, True, 0.0, 1.0)),
        ("fid", (20, 200, True, 0.2, 1.2)),
        ("fid", (40, 200, False, 0.0, 1.0)),
        ("fid", (40, 100, True, 0.3, 0.8)),
        ("fid-infinity", (20, 200, True, 0.0, 1.0)),
        ("fid-infinity", (20, 400, True, 0.3, 1.2)),
        ("kid", (10, 60, False, 0.0, 1.0, 60)),
        ("kid:size=50:subsets=30", (10, 200, False, 0.0, 1.0, 300)),
        ("kid:size=50:subsets=30", (10, 200, True, 0.3, 1.1, 300)),
    ],
)
def test_intervals_hold_the_right_answer_90_to_98_times_of_100(benchmark, metric: str, case: tuple) -> None:
    """Within the error of 400 draws, 1.1 %."""
    held, ratio = benchmark.coverage(metric, benchmark.Case(*case), 400)
    assert 0.889 < held < 0.991
    assert 0.85 < ratio < 1.25


def test_the_kernel_distance_of_two_gaussians_is_their_formula(benchmark) -> None:
    """The right answer of the coverage, against a sample of 20 000 on each side."""
    case = benchmark.Case(6, 20_000, True, 0.5, 1.3, m=20_000)
    draw = np.random.default_rng(0)
    roots = np.sqrt(case.variances)
    x = roots * (0.5 + 1.3 * draw.standard_normal((case.n, 6)))
    y = roots * draw.standard_normal((case.m, 6))
    metric = find_metric("kid")
    found = metric.spec.compute(x, Reference("", "", gaussian_of(y), y, ""), metric.options, lambda _: None)
    assert abs(found["value"] - benchmark.kernel(case)) < 3 * found["standard_error"] < 0.2 * found["value"]


def test_the_expansion_is_the_derivatives_by_the_weights_of_images() -> None:
    """p and h against differences of the distance of weighted images, over all pairs of 61 images."""
    n, draw, step = 61, np.random.default_rng(1), 1e-3
    x = draw.standard_normal((n, 5)) @ draw.standard_normal((5, 5)) + 0.3
    reference = gaussian_of(draw.standard_normal((500, 5)) @ draw.standard_normal((5, 5)))
    even = np.full(n, 1 / n)
    towards = (np.eye(n) - even) * step

    def gaussian(weights: np.ndarray) -> Gaussian:
        mean = weights @ x
        return Gaussian(mean, (x - mean).T @ ((x - mean) * weights[:, None]))

    def change(*steps: np.ndarray) -> float:
        """The mixed difference of the distance along these steps, over their lengths."""
        signs = itertools.product((1, -1), repeat=len(steps))
        total = sum(np.prod(s) * frechet_distance(gaussian(even + np.dot(s, steps)), reference) for s in signs)
        return total / (2 * step) ** len(steps)

    slopes, own = np.array([[change(t), change(t, t)] for t in towards]).T
    second = np.mean([change(a, b) ** 2 for a, b in itertools.combinations(towards, 2)])
    found = frechet_expansion(x, gaussian(even), reference)
    assert found is not None
    assert found.second == pytest.approx(second, rel=1e-3)
    assert found.first == pytest.approx(np.var(slopes - own / (2 * n), ddof=1) - second / n, rel=1e-3)


def test_no_interval_where_the_expansion_fails() -> None:
    """Fewer images than twice the features, or images that are all equal: the value alone."""
    draw = np.random.default_rng(2)
    reference = Reference("", "", Gaussian(np.zeros(10), np.eye(10)), None, "")
    for features in (draw.standard_normal((19, 10)), np.ones((50, 10))):
        assert set(FID.compute(features, reference, FID.options(), lambda _: None)) == {"value"}
    flat = draw.standard_normal((19, 10)) * (np.arange(10) < 9)  # of rank 9: twice as many images suffice
    assert "low" in FID.compute(flat, reference, FID.options(), lambda _: None)


def test_an_interval_shrinks_with_the_root_of_the_images() -> None:
    draw = np.random.default_rng(3)
    reference = Reference("", "", Gaussian(np.full(6, 0.5), np.eye(6)), None, "")
    errors = [
        FID.compute(draw.standard_normal((n, 6)), reference, FID.options(), lambda _: None)["standard_error"]
        for n in (500, 8000)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    fresh = draw.standard_normal((300, 500, 6))
    true = np.std([frechet_distance(gaussian_of(x), reference.gaussian) for x in fresh], ddof=1)
    assert errors[0] == pytest.approx(true, rel=0.15)
