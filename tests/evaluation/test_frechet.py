"""The Frechet distance against closed forms, exact low-rank values and clean-fid's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from gddim_cli.errors import DataError, NumericsError
from gddim_cli.evaluation.frechet import factor, frechet_distance
from gddim_cli.evaluation.moments import Gaussian, Moments, gaussian_of


def cleanfid_distance(a: Gaussian, b: Gaussian) -> float:
    """`cleanfid.fid.frechet_distance`, through a shim that restores the argument `disp`, which scipy has dropped.

    scipy warns where it meets a singular matrix; the callers compare the value, so the warning is not an error here.
    """
    from cleanfid import fid

    original = linalg.sqrtm

    def sqrtm(matrix: np.ndarray, disp: bool = True) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", linalg.LinAlgWarning)
            root = original(matrix)
        return root if disp else (root, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid.linalg, "sqrtm", sqrtm)
        return float(fid.frechet_distance(a.mean, a.covariance, b.mean, b.covariance))


def features(n: int, d: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    mix = draw.standard_normal((d, d)) * np.exp(-np.arange(d) / d * 4)
    return draw.standard_normal((n, d)) @ mix + draw.standard_normal(d)


@given(st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_diagonal_gaussians_have_a_closed_form(d: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    means, variances = draw.standard_normal((2, d)), np.exp(draw.uniform(-12, 4, (2, d)))
    exact = ((means[0] - means[1]) ** 2).sum() + ((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2).sum()
    found = frechet_distance(*(Gaussian(m, np.diag(v)) for m, v in zip(means, variances, strict=True)))
    assert found == pytest.approx(exact, rel=1e-8)


@given(st.integers(2, 30), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_it_is_a_squared_distance(d: int, seed: int) -> None:
    """Symmetric, zero to itself, unchanged by a rotation of both, and its root obeys the triangle inequality."""
    a, b, c = (gaussian_of(features(3 * d, d, seed + i)) for i in range(3))
    ab, bc, ac = frechet_distance(a, b), frechet_distance(b, c), frechet_distance(a, c)
    assert ab == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) <= 1e-10 * np.trace(a.covariance)
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    turned = [Gaussian(turn @ g.mean, turn @ g.covariance @ turn.T) for g in (a, b)]
    assert frechet_distance(*turned) == pytest.approx(ab, rel=1e-8)
    assert np.sqrt(ac) <= (np.sqrt(ab) + np.sqrt(bc)) * (1 + 1e-9)


@pytest.mark.parametrize("d", [1, 16, 200])
def test_it_is_cleanfids_for_full_rank(d: int) -> None:
    a, b = gaussian_of(features(5 * d + 5, d, 1)), gaussian_of(features(6 * d + 5, d, 2))
    assert frechet_distance(a, b) == pytest.approx(cleanfid_distance(a, b), rel=1e-8)


@pytest.mark.parametrize("others", [30, 400])
def test_fewer_images_than_features_against_the_singular_values(others: int) -> None:
    """Exactly: tr (S_a S_b)^(1/2) is the sum of the singular values of the product of the centred features."""
    x, y = features(25, 100, 1), features(others, 100, 2)
    a, b = x - x.mean(0), y - y.mean(0)
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt((len(x) - 1) * (len(y) - 1))
    exact = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.cov(x.T).trace() + np.cov(y.T).trace() - 2 * overlap
    assert frechet_distance(gaussian_of(x), gaussian_of(y)) == pytest.approx(exact, rel=1e-10)


def test_covariances_of_fewer_images_than_features_without_the_features() -> None:
    """As from a statistics file: half the digits of the smallest directions are gone, the distance keeps most."""
    x, y = features(25, 100, 1), features(30, 100, 2)
    bare = [Gaussian(g.mean, g.covariance) for g in map(gaussian_of, (x, y))]
    assert frechet_distance(*bare) == pytest.approx(frechet_distance(gaussian_of(x), gaussian_of(y)), rel=1e-8)


@pytest.mark.parametrize("rank", [3, 20])
def test_a_factor_makes_its_covariance(rank: int) -> None:
    root = np.random.default_rng(0).standard_normal((20, rank))
    found = factor(Gaussian(np.zeros(20), root @ root.T))
    assert found.shape == (20, rank)
    np.testing.assert_allclose(found @ found.T, root @ root.T, atol=1e-11)


def test_what_is_no_covariance_is_refused() -> None:
    good = Gaussian(np.zeros(2), np.eye(2))
    with pytest.raises(DataError, match="eigenvalue -1"):
        frechet_distance(Gaussian(np.zeros(2), np.diag([1.0, -1.0])), good)
    with pytest.raises(DataError, match="the features have 3 dimensions, but the reference's have 2"):
        frechet_distance(Gaussian(np.zeros(3), np.eye(3)), good)
    with pytest.raises(NumericsError, match=r"damaged|not found"):
        frechet_distance(Gaussian(np.array([np.nan, 0]), np.eye(2)), good)


@given(st.integers(2, 60), st.integers(1, 8), st.integers(1, 50), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_moments_are_numpys_however_they_are_cut_and_merged(n: int, d: int, rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = (draw.standard_normal((n, d)) + 1e4).astype(np.float32)
    whole = Moments.of(x, rows)
    cut = int(draw.integers(0, n + 1))
    merged = Moments.of(x[:cut], rows)
    merged.merge(Moments.of(x[cut:], rows))
    exact = np.cov(x.astype(np.float64), rowvar=False).reshape(d, d)
    for moments in (whole, merged):
        assert moments.n == n
        np.testing.assert_allclose(moments.mean, x.astype(np.float64).mean(0), rtol=1e-14)
        np.testing.assert_allclose(moments.gaussian().covariance, exact, rtol=1e-9, atol=1e-10)


def test_moments_of_too_few_or_of_nan_are_refused() -> None:
    with pytest.raises(DataError, match="1 image: a covariance needs at least two"):
        gaussian_of(np.zeros((1, 3)))
    bad = np.zeros((5, 3))
    bad[3, 1] = np.nan
    with pytest.raises(DataError, match="1 of 5 images are not finite, the first in row 3"):
        gaussian_of(bad)
