from __future__ import annotations

import numpy as np
import pytest
import torch

from gddim_cli.checks import example_mixture, prior_states
from gddim_cli.diffusions import CLD, VP
from gddim_cli.score import Counted, DenoiserEps, isotropic_view


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


def test_evaluations_are_counted_at_the_network() -> None:
    network = Counted(example_mixture().denoiser)
    eps = DenoiserEps(network, VP(), "R")
    for t in (0.9, 0.5, 0.1):
        eps(prior_states(VP(), 3), t)
    assert network.nfe == 3
