from __future__ import annotations

import numpy as np
import pytest
import torch

from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.vp import VP
from gddim_cli.errors import NumericsError
from gddim_cli.models.denoiser import DenoiserEps, isotropic_view
from gddim_cli.models.network import Counted
from gddim_cli.models.parameterization import NoiseEps
from gddim_cli.samplers.coefficients import gddim_coefficients
from gddim_cli.samplers.multistep import final_state, multistep
from gddim_cli.samplers.time_grids import power_grid
from gddim_cli.verification.exact import example_mixture, prior_states


@pytest.mark.parametrize("k", ["R", "L"])
@pytest.mark.parametrize("diffusion", [CLD(), VP(), CLD(Gamma=0.6)], ids=str)
@pytest.mark.parametrize("std", [0.5, 0.1])
def test_denoiser_route_is_the_direct_score(diffusion, k, std: float) -> None:
    mixture = example_mixture(std)
    through, direct = DenoiserEps(mixture.denoiser, diffusion, k), mixture.eps(diffusion, k)
    u = prior_states(diffusion, 64)
    for t in (1.0, 0.5, 0.1, 0.01, 1e-3):
        spread = torch.from_numpy(diffusion.L(t)).to(u)
        state = torch.einsum("de,be...->bd...", spread, u)
        assert (through(state, t) - direct(state, t)).abs().max() < 1e-10


def test_noise_levels_of_the_released_schedule() -> None:
    """Sigma from 0.0012 at t = 1e-3 to 247.6 at t = 1."""
    assert isotropic_view(CLD(), 1.0)[1] == pytest.approx(247.6, abs=0.05)
    assert isotropic_view(CLD(), 1e-3)[1] == pytest.approx(0.0012, abs=5e-5)


def test_the_view_is_unbiased() -> None:
    """`y(psi x_0) = x_0`: the denoiser sees the image unscaled."""
    for t in np.geomspace(1e-3, 1, 7):
        to_y, _, psi = isotropic_view(CLD(), t)
        assert to_y @ psi == pytest.approx(1, abs=1e-12)


def test_a_state_without_an_image_is_refused() -> None:
    with pytest.raises(NumericsError, match="vp: the state at t = 1 contains no part of the image; choose other rates"):
        isotropic_view(VP(beta_1=1e5), 1.0)


def test_evaluations_are_counted_at_the_network() -> None:
    network = Counted(example_mixture().denoiser)
    eps = DenoiserEps(network, VP(), "R")
    for t in (0.9, 0.5, 0.1):
        eps(prior_states(VP(), 3), t)
    assert network.nfe == 3


def test_matrices_are_made_once_a_time_and_dtype() -> None:
    """A second batch sends nothing to the device: that would make a GPU wait at every step."""
    eps = DenoiserEps(example_mixture().denoiser, CLD(), "R")
    states = prior_states(CLD(), 3)
    first = [eps(states, t) for t in (0.9, 0.5)]
    assert eps._at.cache_info().misses == 2
    assert all(torch.equal(eps(states, t), before) for t, before in zip((0.9, 0.5), first, strict=True))
    assert eps._at.cache_info().misses == 2
    assert eps(states.float(), 0.5).dtype == torch.float32
    assert eps._at.cache_info().misses == 3


@pytest.mark.parametrize("k", ["R", "L"])
def test_no_number_of_a_state_is_read_while_sampling(k) -> None:
    """Tensors of the meta device have none to read: `.item()` and its like would raise."""
    cld = CLD()
    c = gddim_coefficients(cld, power_grid(1.0, 1e-3, 6), 2, k, denoise=True)
    for eps in (DenoiserEps(lambda y, _: y, cld, k), NoiseEps(lambda x, _: x, cld, k)):
        u = torch.empty(4, 2, 3, 8, 8, device="meta")
        assert final_state(multistep(eps, u, c)).shape == u.shape
