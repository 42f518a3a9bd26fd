"""The blurring diffusion against the authors' program, against its own differential equations, and where it is exact."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.registry import make_diffusion
from gddim_cli.errors import UsageError
from gddim_cli.models.denoiser import DenoiserEps
from gddim_cli.numerics.dct import dct, idct
from gddim_cli.samplers.coefficients import gddim_coefficients
from gddim_cli.samplers.multistep import final_state, multistep
from gddim_cli.samplers.time_grids import power_grid

GOLDEN = Path(__file__).parent.parent / "data" / "bdm_coefficients.json.xz"
TIMES = np.array([1e-5, 0.01, 0.3, 0.7, 0.99])


def derivative(function, t, h=1e-6):
    return (function(t + h) - function(t - h)) / (2 * h)


def test_against_the_authors_program():
    golden = json.loads(lzma.decompress(GOLDEN.read_bytes()))
    told = golden["diffusion"]
    bdm = make_diffusion("bdm", {key: told[key] for key in ("sigma_blur_max", "min_scale", "image_size")})
    assert bdm.sampling.t_start == told["T_sampling"]
    assert bdm.sampling.t_end == told["t_end"]
    for at in golden["at"]:
        mean = bdm.mean(at["t"])[..., 0, 0]
        np.testing.assert_allclose(mean[0], at["mean_row0"], rtol=1e-9)
        np.testing.assert_allclose(np.diag(mean), at["mean_diag"], rtol=1e-9)
        np.testing.assert_allclose(bdm.K(at["t"], "R"), at["std"], rtol=1e-9)


@pytest.mark.parametrize("bdm", [BDM(image_size=8), BDM(sigma_blur_max=3.0, min_scale=0.05, image_size=4)])
def test_its_own_differential_equations(bdm):
    middle = TIMES[1:]
    np.testing.assert_allclose(derivative(lambda t: np.log(bdm.mean(t)), middle), bdm.F(middle), rtol=1e-6)
    sigma = bdm.Sigma(middle)
    np.testing.assert_allclose(
        derivative(bdm.Sigma, middle), 2 * bdm.F(middle) * sigma + bdm.GG(middle), rtol=1e-6, atol=1e-8
    )
    np.testing.assert_allclose(bdm.Sigma(TIMES), bdm.Psi(TIMES, 0.0) ** 2 * bdm.Sigma_0 + bdm.noise_covariance(TIMES))
    assert (bdm.GG(TIMES) > 0).all()


def test_matrices_are_one_a_frequency():
    bdm = BDM(image_size=8)
    assert bdm.F(0.5).shape == bdm.Psi(0.5, 0.1).shape == bdm.K(0.5, "L").shape == (8, 8, 1, 1)
    assert bdm.GG(TIMES).shape == bdm.R(TIMES).shape == (5, 8, 8, 1, 1)


def test_coefficients_satisfy_the_identity_of_gddim():
    """`sum_j C_ij = R_{i+1} - Psi(t_{i+1}, t_i) R_i` for every frequency."""
    bdm = BDM()
    t = power_grid(bdm.sampling.t_start, bdm.sampling.t_end, 20)
    made = gddim_coefficients(bdm, t, order=2)
    assert made.C.shape == (20, 3, 32, 32, 1, 1)
    np.testing.assert_allclose(made.C.sum(1), bdm.R(t[1:]) - bdm.Psi(t[1:], t[:-1]) * bdm.R(t[:-1]), atol=1e-11)


def test_dct_is_scipys():
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    np.testing.assert_allclose(dct(torch.from_numpy(x)), dctn(x, axes=(2, 3), norm="ortho"), atol=1e-13)
    np.testing.assert_allclose(idct(dct(torch.from_numpy(x))), x, atol=1e-13)


def test_one_step_is_exact_for_one_image():
    bdm = BDM(image_size=8)
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.randn(1, 1, 3, 8, 8, dtype=torch.float64, generator=generator)
    noise = torch.randn(4, 1, 3, 8, 8, dtype=torch.float64, generator=generator)

    def at(t):
        return torch.from_numpy(bdm.mean(t)[..., 0, 0]) * spectrum + torch.from_numpy(bdm.K(t, "R")[..., 0, 0]) * noise

    made = final_state(multistep(lambda *_: noise, at(0.9), gddim_coefficients(bdm, np.array([0.9, 0.2]), 0)))
    torch.testing.assert_close(made, at(0.2), rtol=1e-10, atol=1e-11)


def test_denoising_step_has_a_number_for_each_frequency():
    bdm = BDM(image_size=8)
    made = gddim_coefficients(bdm, np.array([0.5, 0.1]), 0, denoise=True)
    assert made.last.shape == (2, 8, 8, 1, 1)
    u, eps = torch.randn(2, 1, 3, 8, 8).double(), torch.randn(2, 1, 3, 8, 8).double()
    plain = gddim_coefficients(bdm, np.array([0.5, 0.1]), 0)
    before, after = (final_state(multistep(lambda *_: eps, u, c)).numpy()[:, 0] for c in (plain, made))
    drift = bdm.F(0.1)[..., 0, 0] * before + (bdm.GG(0.1) / bdm.K(0.1, "R"))[..., 0, 0] * eps.numpy()[:, 0]
    np.testing.assert_allclose(after, before - 0.1 * drift, atol=1e-12)


def test_an_isotropic_denoiser_is_refused():
    with pytest.raises(UsageError, match="differs by frequency"):
        DenoiserEps(lambda x, _: x, BDM(), "R")
