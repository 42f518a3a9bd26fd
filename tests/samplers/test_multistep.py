"""The deterministic sampler on exact scores."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.diffusions.vp_cosine import VPCosine
from gddim_cli.samplers.coefficients import gddim_coefficients
from gddim_cli.samplers.multistep import final_state, multistep
from gddim_cli.samplers.stochastic import stochastic_coefficients
from gddim_cli.samplers.time_grids import power_grid
from gddim_cli.verification.exact import convergence, exact_flow, example_mixture, one_step_errors, prior_states, slopes


@pytest.mark.parametrize(
    "diffusion", [CLD(), VP(), VPCosine(), VE(), PSLD(), CLD(beta_0=0.1, beta_1=8.0), CLD(Gamma=0.6)], ids=str
)
def test_one_step_is_exact_for_the_exact_score(diffusion) -> None:
    times = [0.99, 0.7, 0.3, 0.1, 0.01, 1e-3]
    assert max(one_step_errors(diffusion, times)) < 1e-9


flow = cache(exact_flow)


@pytest.mark.slow
@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("diffusion", "k"),
    [(CLD(), "R"), (CLD(), "L"), (VP(), "R"), (VE(), "R"), (PSLD(), "R")],
    ids=lambda v: getattr(v, "name", v),
)
def test_order_of_convergence(diffusion, k, order: int) -> None:
    """Order q falls as h^(q+1) from exact history; the warm-up, whose first step is of order 0, leaves h^2."""
    steps = [160, 320, 640]
    errors, warm_up = convergence(flow(diffusion, k), order, steps)
    assert slopes(steps, errors)[-1] == pytest.approx(order + 1, abs=0.2)
    if order == 0:
        assert max(warm_up) == 0
    else:
        assert slopes(steps, warm_up)[-1] == pytest.approx(2, abs=0.2)


def test_evaluations_and_steps_are_counted() -> None:
    vp = VP()
    eps = example_mixture().eps(vp, "R")
    calls, seen = [], []

    def counted(u: torch.Tensor, t: float) -> torch.Tensor:
        calls.append(t)
        return eps(u, t)

    for denoise in (False, True):
        calls.clear()
        seen.clear()
        c = gddim_coefficients(vp, power_grid(1.0, 1e-3, 7), 2, denoise=denoise)
        seen += [t for t, _ in multistep(counted, prior_states(vp, 2), c)]
        assert len(calls) == c.nfe == 7 + denoise
        assert seen == [*c.t[1:].tolist(), *([0.0] if denoise else [])]
        assert calls[:7] == c.t[:7].tolist()


def test_state_keeps_its_dtype_and_k_its_meaning() -> None:
    """With many steps K = R and K = L solve the same equation."""
    cld = CLD()
    u = prior_states(cld, 4)
    ends = {}
    for k in ("R", "L"):
        c = gddim_coefficients(cld, power_grid(1.0, 0.05, 500), 3, k)
        ends[k] = final_state(multistep(example_mixture().eps(cld, k), u, c))
    assert (ends["R"] - ends["L"]).abs().max() < 2e-3
    single = final_state(multistep(lambda u, t: u, u.float(), gddim_coefficients(cld, power_grid(1.0, 1e-3, 3), 1)))
    assert single.dtype == torch.float32


def test_samples_of_a_mixture_have_its_moments() -> None:
    """From prior draws to the data law: mean and covariance of 20 000 draws within five standard errors."""
    vp, mixture = VP(), example_mixture()
    c = gddim_coefficients(vp, power_grid(1.0, 1e-3, 40), 2, denoise=True)
    x = final_state(multistep(mixture.eps(vp, "R"), prior_states(vp, 20_000), c))[:, 0].flatten(1).numpy()
    means, weights = mixture.means.flatten(1).numpy(), mixture.weights.numpy()
    mean = weights @ means
    covariance = (means - mean).T @ ((means - mean) * weights[:, None]) + mixture.std**2 * np.eye(2)
    error = np.sqrt(np.diag(covariance) / len(x))
    assert (np.abs(x.mean(0) - mean) < 5 * error + 2e-3).all()
    assert np.abs(np.cov(x.T) - covariance).max() < 5 * np.sqrt(2 / len(x)) * covariance.max() + 5e-3


def test_noise_without_a_draw_is_refused() -> None:
    c = stochastic_coefficients(VP(), power_grid(1.0, 1e-3, 4), 0.5)
    with pytest.raises(ValueError, match="a stochastic sampler needs `draw`"):
        final_state(multistep(lambda u, _: u, prior_states(VP(), 2), c))
