"""Every sampler on exact scores: what it states, it does."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.diffusions.bdm import BDM
from gddim_cli.diffusions.cld import CLD
from gddim_cli.diffusions.psld import PSLD
from gddim_cli.diffusions.ve import VE
from gddim_cli.diffusions.vp import VP
from gddim_cli.diffusions.vp_cosine import VPCosine
from gddim_cli.errors import UsageError
from gddim_cli.models.mixture import Mixture
from gddim_cli.samplers.base import PreparedSampler
from gddim_cli.samplers.coefficients import gddim_coefficients
from gddim_cli.samplers.ddim import ddim_coefficients
from gddim_cli.samplers.em import em_coefficients
from gddim_cli.samplers.multistep import final_state, multistep
from gddim_cli.samplers.registry import SAMPLERS, options_of
from gddim_cli.samplers.stochastic import step_covariance, stochastic_coefficients
from gddim_cli.samplers.time_grids import power_grid
from gddim_cli.verification.exact import TWO_PIXELS, corrected_errors, exact_flow, example_mixture, prior_states, slopes

ALL = [CLD(), VP(), VPCosine(), VE(), PSLD(), CLD(Gamma=0.6), CLD(beta_0=0.1, beta_1=8.0)]
SMALL_END = {"t_end": 0.05, "denoise": False}


def ready(name: str, diffusion: Diffusion, nfe: int, end: float = 0.05, **options: object) -> PreparedSampler:
    config = dataclasses.replace(diffusion.sampling, t_end=end, denoise=False)
    given = {"lambda" if key == "lam" else key: value for key, value in options.items()}
    return SAMPLERS[name].prepare(diffusion, config, nfe, options_of(name, given))


def normal(count: int, diffusion: Diffusion, seed: int):
    """The k-th independent draw of N(0, I), as samplers ask for it."""

    def draw(k: int) -> torch.Tensor:
        z = np.random.default_rng([seed, k]).standard_normal((count, diffusion.D, *TWO_PIXELS))
        return torch.from_numpy(z)

    return draw


def test_golden_stochastic_steps(golden: dict) -> None:
    for row in golden["stochastic"]:
        t = np.array([row["s"], row["t"]])
        found = stochastic_coefficients(CLD(), t, row["lambda"])
        assert np.abs(found.Psi[0] - np.array(row["Psi"])).max() < 1e-9
        assert np.abs(found.C[0, 0] - np.array(row["eps"])).max() < 1e-9
        assert np.abs(step_covariance(CLD(), t, row["lambda"])[0] - np.array(row["P"])).max() < 1e-9
        noise = found.noise[0]
        np.testing.assert_allclose(noise @ noise.T, row["P"], atol=1e-9)


def test_the_originals_missing_transpose_is_not_ours() -> None:
    """At lambda 0.3 from 1 to 0.796 the authors' matrix is not symmetric; the right one is this."""
    t = np.array([1.0, 0.7963822768595918])
    np.testing.assert_allclose(step_covariance(CLD(), t, 0.3)[0], [[0.249, -0.067], [-0.067, 0.059]], atol=5e-4)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(ALL), st.floats(0.0, 1.5), st.integers(1, 60), st.sampled_from([1.0, 2.0, 3.0]))
def test_step_covariances_are_covariances(diffusion, lam: float, steps: int, power: float) -> None:
    p = step_covariance(diffusion, power_grid(1.0, 1e-3, steps, power), lam)
    np.testing.assert_array_equal(p, p.swapaxes(-1, -2))
    assert np.linalg.eigvalsh(p).min() > -1e-12


@pytest.mark.parametrize("diffusion", ALL, ids=repr)
def test_without_noise_it_is_the_deterministic_one(diffusion) -> None:
    t = power_grid(1.0, 1e-3, 12)
    noiseless, order_0 = stochastic_coefficients(diffusion, t, 0.0), gddim_coefficients(diffusion, t, 0)
    size = max(1.0, np.abs(order_0.C).max())
    assert np.abs(noiseless.C - order_0.C).max() < 1e-10 * size
    assert np.abs(noiseless.noise).max() == 0


@pytest.mark.parametrize("diffusion", [VP(), VE()])
def test_lambda_1_is_eta_1(diffusion) -> None:
    t = power_grid(1.0, 1e-3, 15)
    ours, ddim = stochastic_coefficients(diffusion, t, 1.0), ddim_coefficients(diffusion, t, 1.0)
    np.testing.assert_allclose(ours.C, ddim.C, atol=1e-10)
    np.testing.assert_allclose(ours.noise, ddim.noise, atol=1e-9)


def test_ddim_in_its_own_symbols() -> None:
    """2010.02502, Eq. 12 and 16, with alpha for alpha-bar."""
    t = power_grid(1.0, 1e-3, 10)
    alpha = np.exp(-(0.1 * t + 0.5 * 19.9 * t**2))
    now, then, x, eps = alpha[1:], alpha[:-1], 0.7, -1.3
    for eta in (0.0, 0.4, 1.0):
        sigma = eta * np.sqrt((1 - now) / (1 - then)) * np.sqrt(1 - then / now)
        predicted = (x - np.sqrt(1 - then) * eps) / np.sqrt(then)
        wanted = np.sqrt(now) * predicted + np.sqrt(1 - now - sigma**2) * eps
        found = ddim_coefficients(VP(), t, eta)
        np.testing.assert_allclose(found.Psi[:, 0, 0] * x + found.C[:, 0, 0, 0] * eps, wanted, atol=1e-10)
        if eta:
            np.testing.assert_allclose(found.noise[:, 0, 0], sigma, atol=1e-10)


def test_ancestral_sampling_of_bdm_is_the_posterior() -> None:
    """Per frequency, as the blurring diffusion's paper writes it, in the symbols of Bayes' rule."""
    bdm, t = BDM(), np.array([0.6, 0.4])
    a_t, a_s = bdm.mean(0.6), bdm.mean(0.4)
    s_t, s_s = bdm.L(0.6), bdm.L(0.4)
    a = a_t / a_s
    v = s_t**2 - a**2 * s_s**2
    w = 1 / (1 / s_s**2 + a**2 / v)
    found = ddim_coefficients(bdm, t, 1.0)
    u, eps = 0.3, -0.8
    wanted = w * (a / v) * u + w * (a_s / s_s**2) * (u - s_t * eps) / a_t
    np.testing.assert_allclose(found.Psi[0] * u + found.C[0, 0] * eps, wanted, atol=1e-9)
    np.testing.assert_allclose(found.noise[0] ** 2, w, atol=1e-12)


@pytest.mark.parametrize("lam", [0.3, 1.0])
@pytest.mark.parametrize("diffusion", [CLD(), VP(), PSLD()], ids=repr)
def test_one_stochastic_step_has_the_exact_law(diffusion, lam: float) -> None:
    """From `u_s ~ N(psi_s m, Sigma_s)` with its exact score to `N(psi_t m, Sigma_t)`, 10^5 draws.

    Means are held to 5 standard errors, covariances to 5 of theirs, `sqrt((S_ii S_jj + S_ij^2) / n)`.
    """
    n, s, t = 50_000, 0.7, 0.2  # two pixels each: 10^5 blocks
    point = Mixture(example_mixture().means[:1], 0.0, torch.ones(1, dtype=torch.float64))
    centre = {time: diffusion.Psi(time, 0.0)[:, 0] for time in (s, t)}
    z = np.random.default_rng(1).standard_normal((n, diffusion.D, *TWO_PIXELS))
    means = point.means.numpy()[:, None]
    u = torch.from_numpy(np.einsum("de,be...->bd...", diffusion.L(s), z) + centre[s].reshape(1, -1, 1, 1, 1) * means)
    c = stochastic_coefficients(diffusion, np.array([s, t]), lam)
    after = final_state(multistep(point.eps(diffusion, "R"), u, c, normal(n, diffusion, 2))).numpy()
    residue = (after - centre[t].reshape(1, -1, 1, 1, 1) * means).transpose(0, 2, 3, 4, 1).reshape(-1, diffusion.D)
    sigma = diffusion.Sigma(t)
    assert (np.abs(residue.mean(0)) < 5 * np.sqrt(np.diag(sigma) / len(residue))).all()
    found = residue.T @ residue / len(residue)
    error = np.sqrt((np.outer(np.diag(sigma), np.diag(sigma)) + sigma**2) / len(residue))
    assert (np.abs(found - sigma) < 5 * error).all()


flow = cache(exact_flow)


@pytest.mark.slow
@pytest.mark.parametrize("diffusion", [CLD(), VP(), VE(), PSLD()], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("name", "choices", "order", "budgets"),
    [
        ("em", {"lam": 0.0}, 1, (1500, 3000)),
        ("heun", {}, 2, (639, 1279)),
        ("gddim", {"order": 0, "corrector": True}, 2, (640, 1280)),
        ("gddim", {"order": 1, "corrector": True}, 3, (640, 1280)),
    ],
    ids=["euler", "heun", "corrector-0", "corrector-1"],
)
def test_measured_orders(diffusion, name: str, choices: dict, order: int, budgets: tuple[int, int]) -> None:
    eps = example_mixture().eps(diffusion, "R")
    errors, steps = [], []
    for nfe in budgets:
        made = ready(name, diffusion, nfe, **choices)
        end = final_state(made.solve(eps, prior_states(diffusion, 8), normal(8, diffusion, 0)))
        errors.append(float((end - flow(diffusion).at(0.05)).abs().max()))
        steps.append(made.steps)
    assert slopes(steps, errors)[0] == pytest.approx(order, abs=0.2), errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "diffusion", "choices"),
    [
        ("gddim", CLD(), {"lam": 0.5}),
        ("gddim", VP(), {"lam": 1.0}),
        ("gddim", VE(), {"lam": 0.7}),
        ("gddim", PSLD(), {"lam": 0.5}),
        ("em", CLD(), {}),
        ("em", VP(), {"lam": 0.5}),
        ("em", PSLD(), {}),
        ("sscs", CLD(), {}),
        ("ancestral", VP(), {}),
        ("ancestral", VE(), {}),
        ("ddim", VP(), {"eta": 0.5}),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_stochastic_samplers_reach_the_law(name: str, diffusion, choices: dict) -> None:
    """3 000 draws after 400 steps beside 3 000 of the mixture: Kolmogorov-Smirnov on four projections, p above 1e-3.

    With four tests a sampler that is right fails with probability below 0.4 %; the draws are fixed.
    """
    n, mixture = 3000, example_mixture()
    made = ready(name, diffusion, 400, end=1e-3, **choices)
    x = final_state(made.solve(mixture.eps(diffusion, "R"), prior_states(diffusion, n), normal(n, diffusion, 3)))[:, 0]
    rng = np.random.default_rng(4)
    which = rng.choice(3, size=n, p=mixture.weights.numpy())
    truth = mixture.means.flatten(1).numpy()[which] + mixture.std * rng.standard_normal((n, 2))
    for angle in (0.0, 0.8, 1.6, 2.4):
        direction = np.array([np.cos(angle), np.sin(angle)])
        assert ks_2samp(x.flatten(1).numpy() @ direction, truth @ direction).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("diffusion", [CLD(), VP(), VE(), PSLD()], ids=lambda d: d.name)
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_orders_of_the_corrector_from_exact_history(diffusion, order: int) -> None:
    steps = [80, 160] if order == 3 else [160, 320]
    errors = corrected_errors(flow(diffusion), order, steps)
    assert slopes(steps, errors)[0] == pytest.approx(order + 2, abs=0.2), errors


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_step_covariances_by_frequency(lam: float) -> None:
    bdm = BDM(image_size=8)
    p = step_covariance(bdm, power_grid(bdm.sampling.t_start, 1e-5, 20), lam)
    assert p.shape == (20, 8, 8, 1, 1)
    assert p.min() > -1e-12
    t = power_grid(bdm.sampling.t_start, 1e-5, 20)
    difference = stochastic_coefficients(bdm, t, 0.0).C - gddim_coefficients(bdm, t, 0).C
    assert np.abs(difference).max() < 1e-10 * np.abs(gddim_coefficients(bdm, t, 0).C).max()


def test_few_steps_are_seen_by_the_same_test() -> None:
    """The test above can fail: Euler-Maruyama with 5 steps does."""
    n, mixture = 3000, example_mixture()
    made = ready("em", CLD(), 5, end=1e-3)
    x = (
        final_state(made.solve(mixture.eps(CLD(), "R"), prior_states(CLD(), n), normal(n, CLD(), 3)))[:, 0]
        .flatten(1)
        .numpy()
    )
    rng = np.random.default_rng(4)
    truth = mixture.means.flatten(1).numpy()[rng.choice(3, size=n, p=mixture.weights.numpy())]
    truth = truth + mixture.std * rng.standard_normal((n, 2))
    assert ks_2samp(x[:, 0], truth[:, 0]).pvalue < 1e-6


def test_rk45_spends_what_it_is_given_and_converges() -> None:
    eps, u = example_mixture().eps(VP(), "R"), prior_states(VP(), 8)
    calls = []

    def counted(state: torch.Tensor, t: float) -> torch.Tensor:
        calls.append(t)
        return eps(state, t)

    aimed = ready("rk45", VP(), 80)
    tuned = aimed.calibrate_tolerance(counted, u)
    calls.clear()
    final_state(tuned.solve(counted, u, normal(8, VP(), 0)))
    assert abs(len(calls) - 80) <= 12  # a step is six
    assert aimed.batch_dependent
    fine = ready("rk45", VP(), 80, rtol=1e-10)
    assert (final_state(fine.solve(eps, u, normal(8, VP(), 0))) - flow(VP()).at(0.05)).abs().max() < 1e-8


@pytest.mark.parametrize("budget", [1, 2, 3, 10, 11, 50])
def test_budgets_are_spent_as_far_as_they_go(budget: int) -> None:
    for name in SAMPLERS:
        diffusion = CLD() if name == "sscs" else VP()
        calls = []

        def eps(u: torch.Tensor, t: float, calls: list = calls) -> torch.Tensor:
            calls.append(t)
            return 0 * u

        for choices in [{}, {"corrector": True}] if name == "gddim" else [{}]:
            if name in ("rk45", "tuned") or (choices and budget < 2):
                continue
            calls.clear()
            made = ready(name, diffusion, budget, **choices)
            times = [t for t, _ in made.solve(eps, prior_states(diffusion, 2), normal(2, diffusion, 0))]
            assert made.nfe == len(calls)
            assert budget - 1 <= made.nfe <= budget
            assert len(times) == made.steps
            assert times == sorted(times, reverse=True)


def test_euler_is_the_reverse_drift_written_out() -> None:
    cld, t = CLD(), np.array([0.5, 0.45])
    rng = np.random.default_rng(0)
    u, score = rng.standard_normal(2), rng.standard_normal(2)
    for lam in (0.0, 0.5, 1.0):
        c = em_coefficients(cld, t, lam)
        eps = -cld.R(0.5).T @ score
        wanted = u - 0.05 * (cld.F(0.5) @ u - (1 + lam**2) / 2 * cld.GG(0.5) @ score)
        np.testing.assert_allclose(c.Psi[0] @ u + c.C[0, 0] @ eps, wanted, atol=1e-12)
        covariance = np.zeros((2, 2)) if c.noise is None else c.noise[0] @ c.noise[0].T
        np.testing.assert_allclose(covariance, lam**2 * 0.05 * cld.GG(0.5), atol=1e-14)


@pytest.mark.parametrize(
    ("name", "diffusion", "k", "choices", "message"),
    [
        ("gddm", CLD(), "R", {}, "--sampler: there is no sampler 'gddm'; did you mean 'gddim'?"),
        (
            "ancestral",
            CLD(),
            "R",
            {},
            "needs a diffusion of state dimension 1 per pixel, but cld has 2; use --sampler gddim",
        ),
        ("ddim", PSLD(), "R", {}, "but psld has 2"),
        ("sscs", VP(), "R", {}, "supports CLD only, not vp; use --sampler gddim or em"),
        ("em", CLD(), "R", {"corrector": True}, "--corrector: unsupported by em; an option of gddim"),
        ("gddim", CLD(), "R", {"corrector": True, "lam": 0.5}, "--corrector: unsupported by stochastic gDDIM"),
        ("gddim", CLD(), "R", {"order": 2, "lam": 0.5}, "--order: stochastic gDDIM has order 0"),
        ("gddim", CLD(), "L", {"lam": 0.5}, "--lambda: stochastic gDDIM needs K = R and the score of all"),
        ("gddim", CLD(), "R", {"lam": -0.1}, "--lambda: -0.1: expected a number from 0 to 10"),
        ("heun", CLD(), "R", {"order": 2}, "--order: unsupported by heun; an option of gddim"),
        ("heun", CLD(), "R", {"order": 0}, "--order: unsupported by heun; an option of gddim"),
        ("heun", CLD(), "R", {"lam": 0.0}, "--lambda: unsupported by heun; an option of gddim, em"),
        ("gddim", CLD(), "R", {"lam": 50.0}, "--lambda: 50.0: expected a number from 0 to 10"),
        ("rk45", VP(), "R", {"rtol": 1e-20}, "--rtol: 1e-20: expected a number of at least 1e-12"),
        ("heun", CLD(), "R", {"lam": 0.5}, "--lambda: unsupported by heun; an option of gddim, em"),
        ("gddim", VP(), "R", {"eta": 0.5}, "--eta: unsupported by gddim; an option of ddim"),
        ("ddim", VP(), "R", {"eta": 1.5}, "--eta: 1.5: expected a number from 0 to 1"),
        ("em", VP(), "R", {"rtol": 1e-3}, "--rtol: unsupported by em; an option of rk45"),
        ("rk45", VP(), "R", {"rtol": 0.0}, "--rtol: 0.0: expected a number of at least 1e-12"),
    ],
)
def test_bad_combinations(name: str, diffusion, k, choices: dict, message: str) -> None:
    config = dataclasses.replace(diffusion.sampling, k=k)
    given = {"lambda" if key == "lam" else key: value for key, value in choices.items()}
    with pytest.raises(UsageError) as refused:
        SAMPLERS.find(name, "--sampler").prepare(diffusion, config, 20, options_of(name, given))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("name", "diffusion", "choices"),
    [("sscs", CLD(), {}), ("em", CLD(), {}), ("em", VE(), {}), ("gddim", CLD(), {"lam": 0.5}), ("ancestral", VP(), {})],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_weak_order_of_the_mean(name: str, diffusion, choices: dict) -> None:
    """With one Gaussian as data every update is affine: without its noise it moves the mean, whose exact path is psi m."""
    single = Mixture(example_mixture().means[:1], 0.5, torch.ones(1, dtype=torch.float64))
    eps = single.eps(diffusion, "R")

    def mean(t: float) -> torch.Tensor:
        psi = torch.from_numpy(diffusion.Psi(t, 0.0)[:, 0]).view(1, -1, 1, 1, 1)
        return psi * single.means[:, None]

    steps, errors = [320, 640], []
    for count in steps:
        made = ready(name, diffusion, count, **choices)
        end = final_state(made.solve(eps, mean(1.0), lambda _: torch.zeros_like(mean(1.0))))
        errors.append(float((end - mean(0.05)).abs().max()))
    assert max(errors) < 1e-12 or slopes(steps, errors)[0] == pytest.approx(1, abs=0.2), errors
