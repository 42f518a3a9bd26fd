"""Known solvers beside the schedulers of `diffusers`: same scales, same times, same noise, ten steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    UniPCMultistepScheduler,
)

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.diffusions.vp_cosine import VPCosine
from gddim_cli.errors import UsageError
from gddim_cli.samplers.base import PreparedSampler
from gddim_cli.samplers.multistep import final_state
from gddim_cli.samplers.noise_level import noise_level
from gddim_cli.samplers.registry import SAMPLERS, options_of
from gddim_cli.verification.exact import TWO_PIXELS, exact_flow, example_mixture, prior_states, slopes

# NumPy 2 warns of arrays that older programs make of tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
STEPS = 10
GRIDS = [2.0, "logsnr", "rho:7"]
KNOWN = ["edm", "dpm++2m", "dpm++3m", "unipc", "deis", "ipndm"]
AS_IN_THE_PAPER = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
ORACLES: dict[str, Callable[[], Any]] = {
    "dpm++2m": lambda: DPMSolverMultistepScheduler(**AS_IN_THE_PAPER, solver_order=2),
    "dpm++3m": lambda: DPMSolverMultistepScheduler(**AS_IN_THE_PAPER, solver_order=3),
    "unipc": lambda: UniPCMultistepScheduler(solver_order=3, lower_order_final=False),
    "deis": lambda: DEISMultistepScheduler(solver_order=3, lower_order_final=False),
}


def ready(name: str, diffusion: Diffusion, nfe: int, grid: float | str | None = None, end: float = 1e-3,
          denoise: bool = False, **options: Any) -> PreparedSampler:  # fmt: skip
    spec, given = SAMPLERS[name], options_of(name, options)
    config = dataclasses.replace(diffusion.sampling, **spec.defaults(diffusion, diffusion.sampling, nfe, given))
    config = dataclasses.replace(config, t_end=end, denoise=denoise, **({"grid_power": grid} if grid else {}))
    return spec.prepare(diffusion, config, nfe - denoise, given)


def recorded(eps: Callable[[torch.Tensor, float], torch.Tensor]) -> tuple[Callable[..., torch.Tensor], list[float]]:
    """eps, and the list of the times at which it is evaluated."""
    seen: list[float] = []

    def call(u: torch.Tensor, t: float) -> torch.Tensor:
        seen.append(t)
        return eps(u, t)

    return call, seen


def no_noise(_: int) -> torch.Tensor:
    raise AssertionError("this sampler is deterministic")


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("diffusion", [VP(), VPCosine()], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ORACLES)
def test_multistep_solvers_equal_their_oracle(name: str, diffusion: Diffusion, grid: float | str) -> None:
    made = ready(name, diffusion, STEPS, grid)
    eps, u = example_mixture().eps(diffusion, "R"), prior_states(diffusion, 8)
    found = final_state(made.solve(eps, u, no_noise))
    assert made.coefficients is not None
    times = made.coefficients.t
    oracle = ORACLES[name]()
    oracle.set_timesteps(STEPS)
    oracle.sigmas = torch.from_numpy(noise_level(diffusion, times))
    oracle.set_begin_index(0)
    # `diffusers` scales states to alpha^2 + sigma^2 = 1.
    factors = (1 + noise_level(diffusion, times) ** 2) ** -0.5 / diffusion.Psi(times, 0.0)[:, 0, 0]
    x = factors[0] * u
    for label, t, factor in zip(oracle.timesteps, times.tolist(), factors, strict=False):
        x = oracle.step(eps(x / factor, t), label, x).prev_sample
    assert (found - x / factors[-1]).abs().max() < 1e-5


@pytest.mark.parametrize("grid", GRIDS)
def test_ipndm_equals_its_oracle(grid: float | str) -> None:
    """Its oracle takes `v = (eps - sigma u) / alpha`, of which it makes eps again."""
    vp = VP()
    made = ready("ipndm", vp, STEPS, grid)
    eps, u = example_mixture().eps(vp, "R"), prior_states(vp, 8)
    assert made.coefficients is not None
    times = made.coefficients.t
    oracle = IPNDMScheduler()
    oracle.set_timesteps(STEPS)
    oracle.alphas = torch.from_numpy(vp.Psi(times, 0.0)[:, 0, 0])
    oracle.betas = torch.from_numpy(vp.R(times)[:, 0, 0])
    oracle.set_begin_index(0)
    x = u
    for i, label in enumerate(oracle.timesteps):
        v = (eps(x, float(times[i])) - oracle.betas[i] * x) / oracle.alphas[i]
        x = oracle.step(v, label, x).prev_sample
    assert (final_state(made.solve(eps, u, no_noise)) - x).abs().max() < 1e-5


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize("diffusion", [VP(), VE()], ids=lambda d: d.name)
def test_edm_without_noise_equals_its_oracle(diffusion: Diffusion, denoise: bool) -> None:
    """Heun's method of `diffusers` works on `x = u / alpha`; it ends at noise level 0 with Euler's step."""
    made = ready("edm", diffusion, 2 * STEPS - 1, denoise=denoise)
    eps, seen = recorded(example_mixture().eps(diffusion, "R"))
    u = prior_states(diffusion, 8)
    found = final_state(made.solve(eps, u, no_noise))
    assert made.nfe == len(seen) == 2 * STEPS - 1
    ends = [*dict.fromkeys(seen), *([] if denoise else [1e-3])]
    sigmas = [*noise_level(diffusion, np.array(ends)), *([0.0] if denoise else [])]
    oracle = HeunDiscreteScheduler(num_train_timesteps=1000)
    oracle.set_timesteps(STEPS)
    oracle.sigmas = torch.tensor([sigmas[0], *np.repeat(sigmas[1:-1], 2), sigmas[-1]], dtype=torch.float64)
    oracle.set_begin_index(0)
    time_of = dict(zip(sigmas, ends, strict=False))
    alpha = {sigma: float(diffusion.Psi(t, 0.0)[0, 0]) for sigma, t in time_of.items()}
    x = u / alpha[sigmas[0]]
    for i, label in enumerate(oracle.timesteps[: 2 * STEPS - 1]):
        sigma = float(oracle.sigmas[i])
        x = oracle.step(eps(alpha[sigma] * x, time_of[sigma]), label, x).prev_sample
    x = x * (1.0 if denoise else alpha[sigmas[-1]])
    assert (found - x).abs().max() < 1e-5


def test_edm_adds_noise_as_algorithm_2_does() -> None:
    """Algorithm 2 written out in its own symbols, for x = u / alpha, with the first level not raised."""
    vp, count = VP(), 8
    churn = {"s_churn": 4.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003}
    made = ready("edm", vp, 2 * STEPS - 1, denoise=True, **churn)
    eps, u = example_mixture().eps(vp, "R"), prior_states(vp, count)

    def draw(k: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng([5, k]).standard_normal((count, 1, *TWO_PIXELS)))

    beta = (0.1, 19.9)

    def time_at(sigma: float) -> float:
        """`sigma^2 = exp(int beta) - 1`, solved for t."""
        total = np.log1p(sigma**2)
        return float((-beta[0] + np.sqrt(beta[0] ** 2 + 2 * beta[1] * total)) / beta[1])

    def denoiser(x: torch.Tensor, sigma: float) -> torch.Tensor:
        alpha = 1 / np.sqrt(1 + sigma**2)
        return x - sigma * eps(alpha * x, time_at(sigma))

    ends = noise_level(vp, np.array([1.0, 1e-3])) ** (1 / 7)
    t = [*(np.linspace(*ends, STEPS) ** 7).tolist(), 0.0]
    x = u * np.sqrt(1 + t[0] ** 2)
    for i in range(STEPS):
        gamma = min(churn["s_churn"] / STEPS, np.sqrt(2) - 1) if churn["s_min"] <= t[i] <= churn["s_max"] else 0.0
        hat = t[i] + gamma * t[i]
        x_hat = x + np.sqrt(hat**2 - t[i] ** 2) * churn["s_noise"] * draw(i) if gamma else x
        d = (x_hat - denoiser(x_hat, hat)) / hat
        x = x_hat + (t[i + 1] - hat) * d
        if t[i + 1]:
            x = x_hat + (t[i + 1] - hat) * (0.5 * d + 0.5 * (x - denoiser(x, t[i + 1])) / t[i + 1])
    assert (final_state(made.solve(eps, u, draw)) - x).abs().max() < 1e-5


def test_edm_raises_the_level_as_its_oracle_does() -> None:
    """One step from a raised level to 0, which is Euler's: `diffusers` has that part of Algorithm 2."""
    ve, level = VE(sigma_min=0.01, sigma_max=50.0), 20.0
    start = float(np.log(level / 0.01) / np.log(50.0 / 0.01))
    oracle = EDMEulerScheduler(sigma_min=0.01, sigma_max=level, sigma_data=0.5)
    oracle.set_timesteps(1)
    oracle.sigmas = torch.tensor([10.0, 0.0], dtype=torch.float64)
    oracle.set_begin_index(0)
    from gddim_cli.samplers.edm import EdmOptions, churned, edm_steps

    ten = float(np.log(10 / 0.01) / np.log(50.0 / 0.01))
    churn = churned(ve, np.array([start, ten]), EdmOptions(s_churn=0.6, s_noise=1.01), ends_at_0=True)
    assert churn.raised[0] == start  # not beyond the start
    np.testing.assert_allclose(noise_level(ve, churn.raised[1:]), [13.0])
    eps, u = example_mixture().eps(ve, "R"), 10 * prior_states(ve, 8) / 50
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(u.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    raised = u + np.sqrt(13.0**2 - 10.0**2) * 1.01 * noise
    c_skip, c_out = 0.25 / (13.0**2 + 0.25), 13.0 * 0.5 / np.sqrt(13.0**2 + 0.25)
    raw = (raised - 13.0 * eps(raised, float(churn.raised[1])) - c_skip * raised) / c_out
    wanted = oracle.step(raw, oracle.timesteps[0], u, s_churn=0.3, s_noise=1.01, generator=generator).prev_sample
    last = dataclasses.replace(churn, **{k: v[1:] for k, v in vars(churn).items()})
    assert (final_state(edm_steps(eps, u, last, lambda _: noise)) - wanted).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("diffusion", [VP(), VE()], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("name", "order", "grid", "budgets"),
    [
        ("edm", 2, "rho:7", (639, 1279)),
        ("dpm++2m", 2, "logsnr", (320, 640)),
        ("dpm++3m", 2, "logsnr", (320, 640)),
        ("unipc", 4, "logsnr", (160, 320)),
        ("deis", 3, 2.0, (160, 320)),
    ],
)
def test_measured_orders(
    diffusion: Diffusion, name: str, order: int, grid: float | str, budgets: tuple[int, int]
) -> None:
    flow = exact_flow(diffusion)
    errors, steps = [], []
    for nfe in budgets:
        made = ready(name, diffusion, nfe, grid, end=0.05)
        end = final_state(made.solve(flow.eps, flow.start, no_noise))
        errors.append(float((end - flow.at(0.05)).abs().max()))
        steps.append(made.steps)
    assert slopes(steps, errors)[0] == pytest.approx(order, abs=0.2), errors


@pytest.mark.parametrize("name", KNOWN)
def test_they_need_state_dimension_1(name: str) -> None:
    with pytest.raises(UsageError, match=r"but cld has 2; use --sampler gddim"):
        ready(name, CLD(), 9)


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "edm"])
def test_frequencies_count_as_pixels(name: str) -> None:
    """On the lowest frequency, which the blurring diffusion does not blur, they are what they are on `vp-cosine`'s scales."""
    bdm = BDM(image_size=4)
    made = ready(name, bdm, STEPS, 2.0)
    assert made.coefficients is not None
    assert made.coefficients.C.shape[2:] == (4, 4, 1, 1)
    assert np.isfinite(made.coefficients.C).all()
    with pytest.raises(UsageError, match="differs by frequency"):
        ready("edm", bdm, 9, 2.0)


@pytest.mark.parametrize("predict", ["x0", "blend"])
@pytest.mark.parametrize("diffusion", [CLD(), VP()], ids=lambda d: d.name)
def test_other_predictions_have_the_order_of_gddim(diffusion: Diffusion, predict: str) -> None:
    flow = exact_flow(diffusion)
    errors = []
    for nfe in (160, 320):
        made = ready("gddim", diffusion, nfe, end=0.05, predict=predict, order=1)
        errors.append(float((final_state(made.solve(flow.eps, flow.start, no_noise)) - flow.at(0.05)).abs().max()))
    assert slopes([160, 320], errors)[0] == pytest.approx(2, abs=0.2), errors
