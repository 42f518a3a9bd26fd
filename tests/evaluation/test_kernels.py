"""KID against clean-fid's, PRDC against its definition, the resize against Pillow's, extrapolation against known laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from gddim_cli.errors import DataError
from gddim_cli.evaluation.frechet import frechet_distance
from gddim_cli.evaluation.metrics import kid as kids
from gddim_cli.evaluation.metrics.fid_infinity import FID_INFINITY
from gddim_cli.evaluation.metrics.prdc import prdc
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.moments import Gaussian, gaussian_of
from gddim_cli.evaluation.resize import bicubic
from gddim_cli.evaluation.statistics import Reference


def test_kid_is_cleanfids_with_the_same_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    from cleanfid import fid

    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((60, 32)), draw.standard_normal((80, 32)) + 0.3
    subsets = [(draw.choice(60, 20, False), draw.choice(80, 20, False)) for _ in range(7)]
    # It draws for its second set first.
    queue = [rows for a, b in subsets for rows in (b, a)]
    monkeypatch.setattr(fid.np.random, "choice", lambda n, m, replace: queue.pop(0))
    theirs = fid.kernel_distance(x, y, num_subsets=7, max_subset_size=20)
    assert not queue
    ours = [kids.Kernels.of(x[a], y[b]).distance for a, b in subsets]
    assert np.mean(ours) == pytest.approx(theirs, rel=1e-10)


def test_kid_is_unbiased() -> None:
    """Of two halves of one set it is zero within its own standard error; of shifted ones it is not."""
    draw = np.random.default_rng(1)
    x, y = draw.standard_normal((2, 4000, 8)).astype(np.float32)
    found = kids.kid(x, y)
    assert abs(found["value"]) < 2 * found["standard_error"]
    assert found["low"] < 0 < found["high"]
    assert kids.kid(x, y + 1)["low"] > 100 * found["standard_error"]
    with pytest.raises(DataError, match="at least two images"):
        kids.kid(x[:1], y)


def by_definition(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.array([[np.linalg.norm(p - q) for q in b] for p in a])

    radius_real, radius_fake = (np.sort(apart(s, s), axis=1)[:, k] for s in (real, fake))
    between = apart(real, fake)
    inside = between <= radius_real[:, None]
    return {
        "precision": inside.any(0).mean(),
        "recall": (between <= radius_fake[None]).any(1).mean(),
        "density": inside.sum() / (k * len(fake)),
        "coverage": inside.any(1).mean(),
    }


@pytest.mark.parametrize(("n", "m", "shift"), [(40, 55, 0.0), (55, 40, 1.0), (30, 30, 9.0)])
def test_prdc_is_its_definition(n: int, m: int, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddim_cli.evaluation.metrics.prdc.ROWS", 7)
    draw = np.random.default_rng(2)
    real, fake = draw.standard_normal((n, 3)), draw.standard_normal((m, 3)) * 0.8 + shift
    assert prdc(real, fake, 3) == pytest.approx(by_definition(real, fake, 3) | {"k": 3, "n": m, "reference_n": n})
    with pytest.raises(DataError, match="more than 30 images"):
        prdc(real[:30], fake, 30)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (64, 48), (299, 299), (512, 400), (5, 1)])
def test_the_resize_is_pillows(height: int, width: int) -> None:
    images = np.random.default_rng(3).integers(0, 256, (2, height, width, 3)).astype(np.float32)
    ours = bicubic(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), 299).numpy()
    for image, found in zip(images, ours, strict=True):
        for channel in range(3):
            resized = Image.fromarray(image[..., channel]).resize((299, 299), Image.Resampling.BICUBIC)
            assert np.abs(np.asarray(resized).clip(0, 255) - found[channel]).max() < 1e-4


def infinity(
    x: np.ndarray, reference: Gaussian, on_step: Callable[[float], object] = lambda _: None
) -> dict[str, float]:
    given = Reference("reference", "", reference, None, "")
    return dict(FID_INFINITY.compute(x, given, FID_INFINITY.options(), on_step))


def test_metrics_step_and_repeat() -> None:
    draw = np.random.default_rng(4)
    x, y = draw.standard_normal((200, 6)), draw.standard_normal((150, 6))
    reference = Reference("reference", "", gaussian_of(y), y, "")
    for name in ("fid", "fid-infinity", "kid", "prdc"):
        metric, steps = find_metric(name), []
        first = metric.spec.compute(x, reference, metric.options, steps.append)
        assert metric.spec.compute(x, reference, metric.options, lambda _: None) == first
        assert sum(steps) == pytest.approx(1)


@pytest.mark.parametrize(("n", "left"), [(5, 0.1), (25, 0.05)])
def test_extrapolation_takes_the_bias_away(n: int, left: float) -> None:
    """Images at a known distance from the reference: what is left of the bias is a small share of it, at any dimension."""
    d = 40
    reference, images = Gaussian(np.full(d, 0.1), np.eye(d)), np.random.default_rng(6).standard_normal((8, n * d, d))
    exact = 0.01 * d
    biased = np.mean([frechet_distance(gaussian_of(x), reference) for x in images]) - exact
    found = np.array([infinity(x, reference)["value"] for x in images]) - exact
    assert biased > 0.1
    assert abs(found.mean()) < left * biased + 2 * found.std(ddof=1) / 8**0.5
    assert FID_INFINITY.least_images(d, FID_INFINITY.options()) == 200
