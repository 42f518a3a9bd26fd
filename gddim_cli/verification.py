"""Proofs of a diffusion and of the sampler on it, on exact scores: one-step exactness and order of convergence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.errors import UsageError
from gddim_cli.models.mixture import Mixture
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.coefficients import gddim_coefficients
from gddim_cli.samplers.gddim import corrector_integrals, predict_correct
from gddim_cli.samplers.multistep import Eps, linear
from gddim_cli.samplers.time_grids import power_grid

TWO_PIXELS = (1, 1, 2)


def example_mixture(std: float = 0.5) -> Mixture:
    """Three Gaussians in the plane of two pixels."""
    means = torch.tensor([[1.0, -0.5], [-0.8, 0.7], [0.1, 1.2]], dtype=torch.float64).view(3, *TWO_PIXELS)
    return Mixture(means, std, torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64))


def prior_states(diffusion: Diffusion, count: int) -> Tensor:
    """Draws of u_T on two pixels, float64 [count, D, 1, 1, 2], always the same."""
    z = np.random.default_rng(0).standard_normal((count, diffusion.D, *TWO_PIXELS))
    return torch.from_numpy(np.einsum("de,be...->bd...", diffusion.prior_factor, z))


def one_step_errors(diffusion: Diffusion, times: Sequence[float]) -> list[float]:
    """Largest error of one step of order 0, K = R, from `T` to each time, with the exact score of `N(m, Sigma_0)`.

    The probability flow then is `u_t = psi_t m + R_t R_T^{-1} (u_T - psi_T m)` (gDDIM, Prop. 4): the error is rounding.
    """
    point = Mixture(example_mixture().means[:1], 0.0, torch.ones(1, dtype=torch.float64))
    eps, u = point.eps(diffusion, "R"), prior_states(diffusion, 16)
    start = diffusion.sampling.t_start

    def centre(t: float) -> Tensor:
        return to_tensor_like(diffusion.Psi(t, 0.0)[:, 0], u).view(1, -1, 1, 1, 1) * point.means[:1, None]

    errors = []
    for t in times:
        step = linear(eps, u, gddim_coefficients(diffusion, np.array([start, t]), order=0, k="R"))
        turn = to_tensor_like(diffusion.R(t) @ np.linalg.inv(diffusion.R(start)), u)
        errors.append(float((step - centre(t) - combine([turn], [u - centre(start)])).abs().max()))
    return errors


def probability_flow(
    diffusion: Diffusion, eps: Eps, k: KChoice, u: Tensor, t_start: float, t_end: float
) -> Callable[[float], Tensor]:
    """The solution of `du/dt = F u + 1/2 GG K^{-T} eps(u, t)` from `u` at t_start, by DOP853 at 1e-13."""

    def drift(t: float, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(flat.reshape(u.shape))
        noise = 0.5 * diffusion.GG(t) @ np.linalg.inv(diffusion.K(t, k)).swapaxes(-1, -2)
        return (
            combine([to_tensor_like(diffusion.F(t), u), to_tensor_like(noise, u)], [state, eps(state, t)])
            .numpy()
            .ravel()
        )

    flat = u.numpy().ravel()
    solved = solve_ivp(drift, (t_start, t_end), flat, "DOP853", rtol=1e-13, atol=1e-13, dense_output=True)
    return lambda t: torch.from_numpy(solved.sol(t).reshape(u.shape))


@dataclass(frozen=True)
class ExactFlow:
    """The probability flow of a mixture from prior states, known to 1e-13."""

    diffusion: Diffusion
    k: KChoice
    eps: Eps
    start: Tensor
    at: Callable[[float], Tensor]
    t_end: float


def exact_flow(
    diffusion: Diffusion, k: KChoice = "R", t_end: float = 0.05, mixture: Mixture | None = None
) -> ExactFlow:
    """The flow of `mixture` (the example by default) from eight prior states to `t_end`."""
    eps, u = (mixture or example_mixture()).eps(diffusion, k), prior_states(diffusion, 8)
    at = probability_flow(diffusion, eps, k, u, diffusion.sampling.t_start, t_end)
    return ExactFlow(diffusion, k, eps, u, at, t_end)


def convergence(exact: ExactFlow, order: int, steps: Sequence[int]) -> tuple[list[float], list[float]]:
    """Errors at the end of gDDIM against the exact flow, for each number of steps.

    Returns:
        The errors when the history starts exact, which fall as h^(order + 1); and what the warm-up adds to the
        solution, the largest difference of the two, which falls as h^2 (its first step is of order 0).
    """
    diffusion, eps = exact.diffusion, exact.eps
    errors, warm_up = [], []
    for count in steps:
        grid = power_grid(diffusion.sampling.t_start, exact.t_end, count)
        c = gddim_coefficients(diffusion, grid, order, exact.k)
        past = [eps(exact.at(t), t) for t in c.t[:order][::-1].tolist()]
        informed = linear(eps, exact.at(float(c.t[order])), c, first_step=order, history=past)
        errors.append(float((informed - exact.at(exact.t_end)).abs().max()))
        warm_up.append(float((linear(eps, exact.start, c) - informed).abs().max()))
    return errors, warm_up


def corrected_errors(exact: ExactFlow, order: int, steps: Sequence[int]) -> list[float]:
    """Errors at the end of gDDIM with the corrector when its history starts exact: they fall as h^(order + 2)."""
    diffusion, eps = exact.diffusion, exact.eps
    errors = []
    for count in steps:
        grid = power_grid(diffusion.sampling.t_start, exact.t_end, count)
        c = gddim_coefficients(diffusion, grid, order, exact.k)
        corrector = corrector_integrals(diffusion, grid, order, exact.k)
        past = [eps(exact.at(t), t) for t in c.t[:order][::-1].tolist()]
        start = exact.at(float(c.t[order]))
        end = predict_correct(eps, start, c, corrector, first_step=order, history=past)
        errors.append(float((end - exact.at(exact.t_end)).abs().max()))
    return errors


@dataclass(frozen=True)
class Result:
    """One check: what was found, and what it is held to."""

    what: str
    value: float
    bound: float
    wanted: str
    passed: bool


def below(what: str, value: float, bound: float) -> Result:
    return Result(what, value, bound, f"below {bound:g}", value < bound)


def derivative(function: Callable[[float], Array], t: float, h: float = 1e-4) -> Array:
    """Fourth-order central difference, good to about 1e-10 of the function's size over 1e-4."""
    return (8 * (function(t + h) - function(t - h)) - (function(t + 2 * h) - function(t - 2 * h))) / (12 * h)


def equation_errors(diffusion: Diffusion, times: Sequence[float]) -> dict[str, float]:
    """The largest relative residue of each defining equation at these times, by finite differences."""
    worst: dict[str, float] = {}
    for t in times:
        f, gg, sigma, r = diffusion.F(t), diffusion.GG(t), diffusion.Sigma(t), diffusion.R(t)
        psi = diffusion.Psi(t, times[0])
        growth = f @ sigma + sigma @ f.swapaxes(-1, -2) + gg
        turned = (f + 0.5 * gg @ np.linalg.inv(sigma)) @ r
        pairs = {
            "dPsi/dt = F Psi": (derivative(lambda s: diffusion.Psi(s, times[0]), t), f @ psi),
            "dSigma/dt = F Sigma + Sigma F^T + GG": (derivative(diffusion.Sigma, t), growth),
            "dR/dt = (F + GG Sigma^-1 / 2) R": (derivative(diffusion.R, t), turned),
            "R R^T = Sigma": (r @ r.swapaxes(-1, -2), sigma),
        }
        for name, (found, wanted) in pairs.items():
            size = np.abs(wanted).max() + np.abs(f).max() + np.abs(gg).max()
            worst[name] = max(worst.get(name, 0.0), float(np.abs(found - wanted).max() / size))
    return worst


def examine(diffusion: Diffusion) -> list[Result]:
    """Everything that `gddim check` prints.

    Raises:
        NumericsError: the diffusion's matrices are not finite, or not smooth.
        UsageError: its blocks differ by frequency, which two pixels do not have.
    """
    if diffusion.spectral:
        raise UsageError(f"{diffusion.name} differs by frequency; the checks are for blocks that all pixels share")
    start, end = diffusion.sampling.t_start, 0.05
    inside = np.linspace(end, 0.95 * start, 6).tolist()
    results = [below(name, value, 1e-6) for name, value in equation_errors(diffusion, inside).items()]
    errors = one_step_errors(diffusion, [0.9 * start, 0.3, 0.1, 0.01, 1e-3])
    results.append(below("one step from T, exact score of a point", max(errors), 1e-8))
    steps, exact = [160, 320], exact_flow(diffusion, t_end=end)
    for order in range(4):
        found = slopes(steps, convergence(exact, order, steps)[0])[-1]
        passed = abs(found - order - 1) <= 0.2
        results.append(Result(f"gDDIM order {order}: error falls as h^", found, 0.2, f"{order + 1} within 0.2", passed))
    return results


def slopes(steps: Sequence[int], errors: Sequence[float]) -> list[float]:
    """`-d log(error) / d log(steps)` between neighbours."""
    return (-np.diff(np.log(errors)) / np.diff(np.log(steps))).tolist()
