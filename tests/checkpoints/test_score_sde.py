"""Score-SDE's VE and subVP networks: the original program's scores, and what the files and options say of their SDE."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import arrays_of

from gddim_cli.checkpoints.formats.registry import FORMATS
from gddim_cli.errors import UsageError
from gddim_cli.hub.load import load
from gddim_cli.hub.store import card_of

DATA = Path(__file__).parent.parent / "data"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))


def column(values):
    return values[:, None, None, None]


def test_ve_scores_of_the_original_program(golden_file):
    path, said = golden_file("scoresde_small_ve.pth"), []
    assert [spec.name for spec in FORMATS.values() if spec.detect(path)] == ["score-sde"]
    model, arrays = load(str(path), CPU, say=said.append), arrays_of(DATA / "scoresde_small_ve_io.npz")
    assert any("sde=vesde is assumed" in text for text in said)
    assert (model.card.parameterization, model.card.data_range) == ("ve_score", (0, 1))
    assert model.sigma_range == pytest.approx((0.02, 100))
    x, sigma, score = arrays["x"], arrays["std"], arrays["score"]
    with torch.inference_mode():
        made = model.network(x, sigma)
    for one, other in zip(made, score, strict=True):
        assert (one - other).norm() < 5e-6 * other.norm()
    # The denoiser for images in [-1, 1]: D_01 = y_01 + sigma_01^2 score.
    clean = 2 * (x + column(sigma**2) * score) - 1
    denoised = model(2 * x - 1, 2 * sigma)
    assert (denoised - clean).norm() < 1e-5 * clean.norm()


def test_subvp_scores_of_the_original_program(golden_file):
    model = load(str(golden_file("scoresde_small_subvp.pth")), CPU, sde="subvpsde")
    arrays = arrays_of(DATA / "scoresde_small_subvp_io.npz")
    assert model.card.parameterization == "subvp_eps"
    x, t, std, score = arrays["x"], arrays["t"].double(), arrays["std"], arrays["score"]
    with torch.inference_mode():
        made = -model.network(x, 999 * arrays["t"]) / column(std)
    for one, other in zip(made, score, strict=True):
        assert (one - other).norm() < 5e-6 * other.norm()
    # x = a x_0 + (1 - a^2) n, so y = x / a has the noise level (1 - a^2) / a, and D = (x + std^2 score) / a.
    a = torch.exp(-0.5 * (0.1 * t + 0.5 * 19.9 * t**2))
    clean = (x.double() + column((1 - a**2) ** 2) * score.double()) / column(a)
    denoised = model((x.double() / column(a)).float(), ((1 - a**2) / a).float())
    for one, other, scale in zip(denoised, clean, x.double() / column(a), strict=True):
        assert (one - other).norm() < 2e-5 * scale.norm()


def test_a_vp_network_is_a_denoiser_in_any_diffusion(golden_file, gddim, tmp_path):
    path = golden_file("ncsnpp_small_scoresde.pth")
    model = load(str(path), CPU)
    assert model.card.parameterization == "eps"
    assert model.sigma_range == pytest.approx((0.001, 152.17), rel=1e-3)
    with np.load(DATA / "ncsnpp_small_scoresde_io.npz") as file:
        x, t, eps = (torch.from_numpy(file[key]) for key in file.files)
    sigma = torch.expm1(0.1 * t.double() + 0.5 * 19.9 * t.double() ** 2).sqrt()
    alpha = (1 + sigma**2) ** -0.5
    y = x.double() / column(alpha)
    denoised = model(y.float(), sigma.float())
    torch.testing.assert_close(denoised, (y - column(sigma) * eps).float(), rtol=1e-4, atol=2e-3)
    for diffusion in ("vp", "cld"):
        words = ("--nfe", 3, "--num", 2, "--diffusion", diffusion, "--out", tmp_path / diffusion)
        done = gddim("sample", "--checkpoint", path, *words)
        assert done.status == 0, done.err


def test_options_of_the_sde(golden_file):
    path = str(golden_file("scoresde_small_ve.pth"))
    assert load(path, CPU, sde="vesde", sigma_max=90.0).sigma_range == pytest.approx((0.02, 180))
    vp = str(golden_file("scoresde_small_subvp.pth"))
    assert load(vp, CPU, sde="vpsde", beta_max=10.0).card.diffusion["beta_1"] == pytest.approx(9.9)
    with pytest.raises(UsageError, match="'ddpm': expected one of vesde, vpsde, subvpsde"):
        load(vp, CPU, sde="ddpm")


@pytest.mark.parametrize("name", ["ve-cifar10", "ve-cifar10-deep", "vp-cifar10-ddpmpp", "subvp-cifar10"])
def test_cards_of_the_released_models(name):
    from gddim_cli.checkpoints.load import convention_of, empty_network

    card = card_of(name)
    network = empty_network(card, Path(name))
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(62.8 if "deep" not in name else 107.6, rel=0.05)
    assert convention_of(card) is not None
    assert card.noise_range
