"""`gddim check --checkpoint`: the bundled model wrapped rightly passes; wrapped wrongly, the mistake is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gddim_cli as gddim
from gddim_cli.checkpoints.load import Checkpoint
from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.registry import make_diffusion
from gddim_cli.errors import DataError, UsageError
from gddim_cli.models.conventions.vp import alpha
from gddim_cli.models.mixture import Mixture
from gddim_cli.models.network import Counted
from gddim_cli.models.parameterization import NoiseEps
from gddim_cli.verification.check_images import DrawnImages, GivenImages, fills_range
from gddim_cli.verification.denoising import LevelError, OwnDiffusionReading, levels_in
from gddim_cli.verification.linear_denoiser import LinearDenoiser
from gddim_cli.verification.model_check import ModelCheck, trusted_range

CPU = torch.device("cpu")
SHEET = Path(__file__).parent.parent / "data" / "mnist_test_200.png"


def digits() -> np.ndarray:
    """200 digits of MNIST's test set, uint8 [200, 28, 28, 1]."""
    sheet = np.asarray(Image.open(SHEET))
    rows, columns = sheet.shape[0] // 28, sheet.shape[1] // 28
    return sheet.reshape(rows, 28, columns, 28).swapaxes(1, 2).reshape(-1, 28, 28, 1)


def column(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


@pytest.fixture(scope="module")
def bundled():
    return gddim.load_model("mnist", device="cpu")


class Networks:
    """The bundled model as networks of other kinds."""

    def __init__(self, model: Checkpoint) -> None:
        self.D = lambda y, sigma: model.denoiser(y, sigma)

    def noise(self, scale: float):
        """The noise, from `y / sqrt(1 + sigma^2)` and `scale t`."""
        return lambda x, time: (lambda y, sigma: (y - self.D(y, sigma)) / column(sigma))(*seen(x, time / scale))

    def v(self, x, time):
        y, sigma = seen(x, time / 999)
        clean = self.D(y, sigma)
        return column(alpha(sigma)) * ((y - clean) / column(sigma) - column(sigma) * clean)


def seen(x, t):
    """y and sigma from what a network of a linear VP schedule sees."""
    sigma = torch.expm1(0.1 * t + 9.95 * t**2).sqrt().clamp(1e-4, 1e4)
    return x / column(alpha(sigma)), sigma


def wrapped(module, **convention):
    return gddim.Denoiser(module, (1, 28, 28), 0.001, 260.0, name="wrapped", **convention)


def vp(scale: float) -> dict:
    return {"prediction": "vp_eps", "schedule": {"kind": "linear", "time_scale": scale}}


RIGHT = {
    "denoiser": lambda n: wrapped(n.D),
    "noise": lambda n: wrapped(n.noise(999), **vp(999)),
    "v": lambda n: wrapped(n.v, prediction="v"),
    "images in [0, 1]": lambda n: wrapped(
        lambda y, sigma: (n.D(2 * y - 1, 2 * sigma) + 1) / 2, data_range=(0.0, 1.0)
    ),
}  # fmt: skip
WRONG = {
    "data in [0, 1]": (lambda n: wrapped(lambda y, s: (n.D(2 * y - 1, 2 * s) + 1) / 2), "data range", "expects [0, 1]"),
    "data in [-1, 1] declared as [0, 1]": (
        lambda n: wrapped(n.D, data_range=(0.0, 1.0)), "data range", "expects [-1, 1]"
    ),
    "sign of eps": (
        lambda n: wrapped(lambda x, t: -n.noise(999)(x, t), **vp(999)), "sign", "the sign of the network's output"
    ),
    "sign of the noise in D": (
        lambda n: wrapped(lambda y, s: 2 * y - n.D(y, s)), "sign", "the sign of the predicted noise"
    ),
    "time 1000 times too small": (lambda n: wrapped(n.noise(999), **vp(1)), "time", "expects 1000 times the value"),
    "time 1000 times too large": (lambda n: wrapped(n.noise(1), **vp(999)), "time", "expects 1/1000 of the value"),
    "sigma halved": (lambda n: wrapped(lambda y, s: n.D(y, s / 2)), "scale", "expects twice the value"),
    "v taken for eps": (lambda n: wrapped(n.v, **vp(999)), "parameterization", "the network's output is v"),
    "eps taken for x0": (
        lambda n: wrapped(n.noise(999), prediction="x0"), "parameterization", "the network's output is the noise"
    ),
    "eps taken for D": (
        lambda n: wrapped(lambda y, s: (y - n.D(y, s)) / column(s)), "parameterization", "output is the noise"
    ),
}  # fmt: skip


def check_on_digits(model):
    return ModelCheck(model, GivenImages(digits(), 16, model, CPU, "digits")).run()


QUICK = ["denoiser", "data in [0, 1]", "sign of eps", "time 1000 times too small", "sigma halved", "v taken for eps"]


def slow_unless_quick(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", slow_unless_quick(RIGHT))
def test_wrapped_rightly(bundled, name):
    report = check_on_digits(RIGHT[name](Networks(bundled)))
    assert report.passed, report.findings
    assert report.mean_ratio < 0.5
    assert report.trusted == pytest.approx((0.001, 260), rel=1e-6)


@pytest.mark.parametrize("name", slow_unless_quick(WRONG))
def test_wrapped_wrongly(bundled, name):
    wrong, kind, message = WRONG[name]
    report = check_on_digits(wrong(Networks(bundled)))
    (finding,) = report.findings
    assert finding.kind == kind
    assert message in finding.message
    assert report.trusted is None


def test_sigma_doubled_is_found_on_images(bundled):
    """The images that such a model draws are a little blurred, and would not reveal it."""
    networks = Networks(bundled)
    (finding,) = check_on_digits(wrapped(lambda y, s: networks.D(y, 2 * s))).findings
    assert (finding.kind, "expects half the value" in finding.message) == ("scale", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*QUICK, "images in [0, 1]"])
def test_without_images(bundled, name):
    """The same mistakes are found in the images that each reading of the network draws."""
    model = (RIGHT.get(name) or WRONG[name][0])(Networks(bundled))
    report = ModelCheck(model, DrawnImages(model, CPU)).run()
    if name in RIGHT:
        assert report.passed, report.findings
        assert report.trusted[0] < 0.01
        assert report.trusted[1] > 50
    else:
        assert [finding.kind for finding in report.findings] == [WRONG[name][1]]
        assert WRONG[name][2] in report.findings[0].message


def test_weights_that_no_convention_explains(bundled):
    """A network with random weights."""
    torch.manual_seed(0)
    weights = torch.randn(784, 784) / 28
    model = wrapped(lambda y, _: (y.flatten(1) @ weights).view(y.shape))
    (finding,) = check_on_digits(model).findings
    assert finding.kind == "unexplained"
    assert "check the weights" in finding.message


POINTS = Mixture(
    torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)).double() * 2 - 1,
    0.05,
    torch.ones(4).double() / 4,
)


def test_the_linear_denoiser_is_the_best_one_of_gaussian_images():
    """For images with the fitted covariance it equals the posterior mean, computed with dense matrices."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 2, 3, 3, generator=generator, dtype=torch.float64).cumsum(1)
    linear = LinearDenoiser(images)
    identity = torch.eye(18, dtype=torch.float64).view(18, 2, 3, 3)
    at_zero = linear.mean
    gain = (linear(at_zero + identity, 0.7) - at_zero).flatten(1)
    variances, basis = linear.variances, linear.basis
    torch.testing.assert_close(gain, gain.T)
    eigenvalues = torch.linalg.eigvalsh(gain)
    torch.testing.assert_close(eigenvalues, (variances / (variances + 0.49)).flatten().sort().values)
    torch.testing.assert_close(at_zero, images.mean(0))
    torch.testing.assert_close(basis.mT @ basis, torch.eye(2, dtype=torch.float64).expand_as(basis))
    # No other gain at a frequency does better on the images that it was fitted to.
    noisy = images + 0.7 * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    best = (linear(noisy, 0.7) - images).square().mean()
    assert all(best < 1.05 * (linear(noisy, sigma) - images).square().mean() for sigma in (0.35, 1.4))


@dataclasses.dataclass
class OwnNoise:
    """A mixture as a model that predicts the noise of its own diffusion."""

    diffusion: Diffusion
    k: str = "R"
    network: Counted | None = None
    name, sha256, classes, image_shape = "own", "", 0, (1, 6, 6)

    def __post_init__(self):
        def exact(x, time):
            u = x.view(len(x), self.diffusion.D, 1, 6, 6).double()
            return POINTS.eps(self.diffusion, self.k)(u, min(float(time[0]), 1.0)).to(x).flatten(1, 2)

        self.network = self.network or Counted(exact)

    def config(self, diffusion):
        return dataclasses.replace(diffusion.sampling, k=self.k)

    def eps(self, diffusion, k, labels=None):
        return NoiseEps(self.network, diffusion, "R")  # the network's prediction as it is


@pytest.mark.parametrize(("name", "k"), [("cld", "R"), ("cld", "L"), ("psld", "R"), ("vp", "R")])
def test_a_noise_prediction_of_its_own_diffusion(name, k):
    """The exact noise prediction of a mixture, as an estimate of x, equals the mixture's denoiser at the same noise level."""
    diffusion = make_diffusion(name)
    reading = OwnDiffusionReading(OwnNoise(diffusion, k), k)
    for level in levels_in(diffusion, 0.9, 0.05, 4):
        x = POINTS.means[[0, 1, 2, 3, 0]]
        y, estimate = reading(x, level.t, torch.Generator().manual_seed(1))
        exact = POINTS.denoiser(y, y.new_full((5,), level.sigma))
        torch.testing.assert_close(estimate, exact, rtol=1e-6, atol=1e-6)
        assert (y - x).std() == pytest.approx(level.sigma, rel=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net, None),
        (lambda net: lambda u, t: -net(u, t), "the sign of the network's output"),
        (lambda net: lambda u, t: net(u, (t / 1000).clamp(min=1e-4)), "expects 1000 times the value"),
    ],
)
def test_models_that_are_no_denoisers(change, message):
    generator = np.random.default_rng(0)
    means = POINTS.means[generator.integers(0, 4, 64)].numpy()
    pixels = np.clip((means + 0.05 * generator.standard_normal(means.shape) + 1) * 127.5, 0, 255).astype(np.uint8)
    right = OwnNoise(make_diffusion("cld"))
    model = dataclasses.replace(right, network=Counted(change(right.network)))
    report = ModelCheck(model, GivenImages(pixels.transpose(0, 2, 3, 1), 16, model, CPU, "points")).run()
    assert report.passed == (message is None)
    assert all(message in finding.message for finding in report.findings)
    with pytest.raises(UsageError, match="checked on given images only; add --data"):
        ModelCheck(model, DrawnImages(model, CPU))


def test_models_in_frequency_space_are_not_checked():
    with pytest.raises(UsageError, match="cannot be checked, because in bdm the noise level differs by frequency"):
        ModelCheck(OwnNoise(gddim.BDM(image_size=6)), DrawnImages(OwnNoise(gddim.BDM(image_size=6)), CPU))


def test_images_that_cannot_be_used(bundled):
    with pytest.raises(DataError, match="images of 28x28x3, but mnist makes 28x28x1"):
        GivenImages(np.zeros((32, 28, 28, 3), np.uint8), 16, bundled, CPU, "x")
    with pytest.raises(DataError, match="15 images; at least 16 are needed"):
        GivenImages(np.zeros((15, 28, 28, 1), np.uint8), 16, bundled, CPU, "x")


def test_the_longest_run_of_levels_is_trusted():
    errors = [LevelError(sigma, ratio, 1.0) for sigma, ratio in enumerate([0.5, 9, 0.1, 1.2, 1, 1.3, 0.2])]
    assert trusted_range(errors) == (2, 4)
    assert trusted_range([LevelError(1, 5, 1.0)]) is None
    assert fills_range(torch.linspace(-1, 1, 100))
    assert not fills_range(torch.linspace(0, 1, 100))
    assert not fills_range(torch.linspace(-2, 2, 100))


CLASSES = """
import torch
import gddim_cli as gddim
model = gddim.load_model("mnist", device="cpu")

def right():
    return model.denoiser, {"image_shape": (1, 28, 28), "sigma_min": 0.001, "sigma_max": 260.0}

def wrong():
    return (lambda y, sigma: 2 * y - model.denoiser(y, sigma)), right()[1]

def classes():
    offset = torch.linspace(-0.5, 0.5, 4)
    def network(y, sigma, one_hot):
        return model.denoiser(y - (one_hot @ offset).view(-1, 1, 1, 1), sigma) + (one_hot @ offset).view(-1, 1, 1, 1)
    return network, {**right()[1], "classes": 4}
"""


def test_the_command(gddim_command, tmp_path):
    (tmp_path / "mine.py").write_text(CLASSES)
    np.savez(tmp_path / "digits.npz", digits())
    call = ["check", "--data", tmp_path / "digits.npz", "--num", 8, "--device", "cpu"]
    right = gddim_command(*call, "--checkpoint", f"{tmp_path / 'mine.py'}:right", "--json")
    assert right.status == 0, right.err
    report = json.loads(right.out)
    assert report["passed"]
    assert report["trusted"] == pytest.approx([0.001, 260])
    assert [round(level["ratio"], 9) for level in report["levels"]] == [
        round(level["error"] / level["linear"], 9) for level in report["levels"]
    ]
    wrong = gddim_command(*call, "--checkpoint", f"{tmp_path / 'mine.py'}:wrong")
    assert wrong.status == 1
    assert (
        "FAILED (sign): the sign of the predicted noise looks wrong. With this corrected, the error falls from"
        in wrong.out
    )
    assert "8 images of" in wrong.err
    assert wrong.out.count("\n") > 12


def test_a_conditional_model(gddim_command, tmp_path):
    """The class of each image is the one that fits best."""
    (tmp_path / "mine.py").write_text(CLASSES)
    shifted = digits().astype(float)
    shifted = np.clip(shifted + np.linspace(-0.5, 0.5, 4)[np.arange(200) % 4, None, None, None] * 127.5, 0, 255)
    np.savez(tmp_path / "digits.npz", shifted.astype(np.uint8))
    call = ["check", "--checkpoint", f"{tmp_path / 'mine.py'}:classes", "--num", 16, "--device", "cpu", "--json"]
    report = json.loads(gddim_command(*call, "--data", tmp_path / "digits.npz").out)
    assert report["passed"], report["findings"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected either a DIFFUSION or --checkpoint"),
        (["cld", "--checkpoint", "mnist"], "expected either a DIFFUSION or --checkpoint"),
        (["cld", "--data", "x"], "--data, --key and --set require --checkpoint"),
        (["--checkpoint", "mnist", "--data", "nowhere"], "nowhere: no such file or folder"),
        (["--checkpoint", "mnits"], "did you mean 'mnist'"),
    ],
)
def test_refusals(gddim_command, words, message):
    result = gddim_command("check", *words)
    assert result.status in (1, 2)
    assert message in result.err
    assert result.err.count("\n") == 1
