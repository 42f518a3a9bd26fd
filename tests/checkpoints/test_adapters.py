"""The parameterizations of the released models, on mixtures whose score is known."""

import numpy as np
import pytest
import torch

from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.registry import make_diffusion
from gddim_cli.errors import UsageError
from gddim_cli.models.mixture import Mixture
from gddim_cli.models.parameterization import MixedScoreEps, NoiseEps
from gddim_cli.numerics.dct import idct
from gddim_cli.samplers.coefficients import gddim_coefficients
from gddim_cli.samplers.multistep import final_state, multistep
from gddim_cli.samplers.time_grids import power_grid

CLD = make_diffusion("cld")
SGM = make_diffusion("cld", {"numerical_eps": 1e-9, "eps_at_every_t": True})
RANDOM = torch.Generator().manual_seed(0)
MEANS = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=RANDOM)
MIXTURE = Mixture(MEANS, 0.2, torch.tensor([0.5, 0.2, 0.3]).double())


def states(blocks, count=5):
    return torch.randn(count, blocks, 2, 4, 4, dtype=torch.float64, generator=RANDOM)


def noise_network(diffusion, scale):
    """A network as the authors': channels, times in other units, eps_R."""
    exact = MIXTURE.eps(diffusion, "R")

    def network(x, time):
        assert x.dim() == 4
        assert (time == time[0]).all()
        return exact(x.unflatten(1, (diffusion.D, -1)), float(time[0]) / scale).flatten(1, 2)

    return network


@pytest.mark.parametrize("k", ["R", "L"])
@pytest.mark.parametrize("t", [1e-3, 0.2, 1.0])
def test_a_network_of_eps_r_serves_both_k(k, t):
    u = states(2)
    adapter = NoiseEps(noise_network(CLD, 999), CLD, k, 999)
    torch.testing.assert_close(adapter(u, t), MIXTURE.eps(CLD, k)(u, t), rtol=1e-8, atol=1e-9)


def test_vp_has_one_k():
    vp, u = make_diffusion("vp"), states(1)
    for k in ("R", "L"):
        adapter = NoiseEps(noise_network(vp, 999), vp, k, 999)
        torch.testing.assert_close(adapter(u, 0.3), MIXTURE.eps(vp, "R")(u, 0.3), rtol=1e-8, atol=1e-9)


def mixed_network(diffusion):
    """`net = (score_v + v / Sigma_vv) / n`, `n = -sqrt(Sigma_xx / det)`: the network's target as Dockhorn et al. have it."""
    exact = MIXTURE.eps(diffusion, "L")

    def network(x, time):
        t, u = float(time[0]), x.unflatten(1, (2, -1))
        sigma = diffusion.Sigma(t)
        score = -torch.einsum("ed,be...->bd...", torch.from_numpy(np.linalg.inv(diffusion.L(t))), exact(u, t))
        n = -np.sqrt(sigma[0, 0] / np.linalg.det(sigma))
        return (score[:, 1] + u[:, 1] / sigma[1, 1]) / n

    return network


@pytest.mark.parametrize("t", [1e-3, 0.2, 1.0])
def test_mixed_score_gives_the_velocity_part(t):
    u = states(2)
    made, exact = MixedScoreEps(mixed_network(SGM), SGM, "L")(u, t), MIXTURE.eps(SGM, "L")(u, t)
    torch.testing.assert_close(made[:, 1], exact[:, 1], rtol=1e-6, atol=1e-7)
    assert (made[:, 0] == 0).all()


def test_mixed_score_samples_as_the_whole_score_does():
    u = states(2)
    for denoise in (True, False):
        coefficients = gddim_coefficients(SGM, power_grid(1.0, 1e-3, 15), 2, "L", denoise)
        made = final_state(multistep(MixedScoreEps(mixed_network(SGM), SGM, "L"), u, coefficients))
        whole = final_state(multistep(MIXTURE.eps(SGM, "L"), u, coefficients))
        torch.testing.assert_close(made, whole, rtol=1e-5, atol=1e-6)


def test_mixed_score_refuses_k_r_with_the_reason():
    with pytest.raises(UsageError, match=r"velocity only.*--k L"):
        MixedScoreEps(mixed_network(SGM), SGM, "R")


def test_bdm_network_sees_the_image():
    bdm, seen = BDM(image_size=4), []

    def network(x, time):
        seen.append((x, float(time[0])))
        return x

    u = states(1)
    torch.testing.assert_close(NoiseEps(network, bdm, "R", 999)(u, 0.5), u)
    torch.testing.assert_close(seen[0][0], idct(u[:, 0]))
    assert seen[0][1] == pytest.approx(499.5)
