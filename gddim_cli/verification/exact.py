"""Exact probability flows of mixtures of Gaussians, and the errors of gDDIM compared with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.models.mixture import Mixture
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.samplers.base import Eps
from gddim_cli.samplers.coefficients import gddim_coefficients
from gddim_cli.samplers.corrector import corrector_integrals, predict_correct_steps
from gddim_cli.samplers.multistep import final_state, multistep
from gddim_cli.samplers.time_grids import power_grid

TWO_PIXELS = (1, 1, 2)


def example_mixture(std: float = 0.5) -> Mixture:
    """A mixture of three Gaussians, over images of two pixels."""
    means = torch.tensor([[1.0, -0.5], [-0.8, 0.7], [0.1, 1.2]], dtype=torch.float64).view(3, *TWO_PIXELS)
    return Mixture(means, std, torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64))


def prior_states(diffusion: Diffusion, count: int) -> Tensor:
    """Draws from the prior for images of two pixels, float64 [count, D, 1, 1, 2]; every call returns the same draws."""
    z = np.random.default_rng(0).standard_normal((count, diffusion.D, *TWO_PIXELS))
    return torch.from_numpy(np.einsum("de,be...->bd...", diffusion.prior_factor, z))


@dataclass(frozen=True)
class PointFlow:
    """The probability flow for data that consist of one image m, starting from 16 draws of the prior.

    `u_t = psi_t m + R_t R_T^{-1} (u_T - psi_T m)` (gDDIM, Prop. 4), where psi_t is the first column of `Psi(t, 0)` and
    T is `t_start`. One step of gDDIM of order 0 with K = R is exact on this flow, whatever the length of the step.
    """

    diffusion: Diffusion

    @cached_property
    def point(self) -> Mixture:
        """The image, as a mixture of a single Gaussian with standard deviation 0."""
        return Mixture(example_mixture().means[:1], 0.0, torch.ones(1, dtype=torch.float64))

    def at(self, t: float) -> Tensor:
        """The states u_t, [16, D, 1, 1, 2]."""
        start, u = self.diffusion.sampling.t_start, prior_states(self.diffusion, 16)
        turn = to_tensor_like(self.diffusion.R(t) @ np.linalg.inv(self.diffusion.R(start)), u)
        return self._mean(t) + combine([turn], [u - self._mean(start)])

    def _mean(self, t: float) -> Tensor:
        psi = torch.from_numpy(np.ascontiguousarray(self.diffusion.Psi(t, 0.0)[:, 0]))
        return psi.view(1, -1, 1, 1, 1) * self.point.means[:1, None]

    def step_error(self, s: float, t: float) -> float:
        """The largest error of a step of order 0 from s to t with K = R and the exact score; ideally, rounding only."""
        c = gddim_coefficients(self.diffusion, np.array([s, t]), order=0, k="R")
        end = final_state(multistep(self.point.eps(self.diffusion, "R"), self.at(s), c))
        return float((end - self.at(t)).abs().max())


def one_step_errors(diffusion: Diffusion, times: Sequence[float]) -> list[float]:
    """The largest error of one step of order 0 from `t_start` to each time, with the exact score of one image."""
    flow = PointFlow(diffusion)
    return [flow.step_error(diffusion.sampling.t_start, t) for t in times]


@dataclass(frozen=True)
class ExactFlow:
    """The probability flow of a mixture from a few draws of the prior, accurate to about 1e-13.

    Attributes:
        start: the states at the diffusion's `t_start`, [B, D, 1, 1, 2].
        at: gives the states at a time; the time must lie between `t_end` and the diffusion's `t_start`.
        t_end: the last time.
    """

    diffusion: Diffusion
    mixture: Mixture
    k: KChoice
    start: Tensor
    at: Callable[[float], Tensor]
    t_end: float

    @property
    def eps(self) -> Eps:
        """The exact noise prediction."""
        return self.mixture.eps(self.diffusion, self.k)


def exact_flow(
    diffusion: Diffusion, k: KChoice = "R", t_end: float = 0.05, mixture: Mixture | None = None
) -> ExactFlow:
    """The flow of `mixture` (by default the example) from eight draws of the prior to `t_end`."""
    mixture, u = mixture or example_mixture(), prior_states(diffusion, 8)
    return ExactFlow(diffusion, mixture, k, u, probability_flow(diffusion, mixture, u, t_end), t_end)


def probability_flow(diffusion: Diffusion, mixture: Mixture, u: Tensor, t_end: float) -> Callable[[float], Tensor]:
    """The solution of `du/dt = F u - 1/2 GG grad log p_t(u)` from `u` at t_start to t_end, by DOP853 to about 1e-13."""
    score = mixture.score(diffusion)

    def drift(t: float, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(flat.reshape(u.shape))
        matrices = [to_tensor_like(m, u) for m in (diffusion.F(t), -0.5 * diffusion.GG(t))]
        return combine(matrices, [state, score(state, t)]).numpy().ravel()

    times = (diffusion.sampling.t_start, t_end)
    solved = solve_ivp(drift, times, u.numpy().ravel(), "DOP853", rtol=1e-13, atol=1e-13, dense_output=True)
    return lambda t: torch.from_numpy(solved.sol(t).reshape(u.shape))


def informed_end(exact: ExactFlow, order: int, steps: int) -> Tensor:
    """The final states of gDDIM without warm-up: its first `order` evaluations are taken on the exact flow."""
    c = gddim_coefficients(exact.diffusion, grid_of(exact, steps), order, exact.k)
    times = c.t.tolist()
    eps = exact.mixture.eps(exact.diffusion, exact.k, times=times)
    past = [eps(exact.at(t), t) for t in times[:order][::-1]]
    return final_state(multistep(eps, exact.at(times[order]), c, first_step=order, history=past))


def error_of(exact: ExactFlow, end: Tensor) -> float:
    """The largest error of the states `end`, compared with the exact flow at its end."""
    return float((end - exact.at(exact.t_end)).abs().max())


def grid_of(exact: ExactFlow, steps: int) -> np.ndarray:
    """The quadratic grid from `t_start` to the flow's end."""
    return power_grid(exact.diffusion.sampling.t_start, exact.t_end, steps)


def convergence(exact: ExactFlow, order: int, steps: Sequence[int]) -> tuple[list[float], list[float]]:
    """Errors of gDDIM at the end of the flow, for each number of steps.

    Returns:
        The errors with an exact history, and the effects of the warm-up. The errors fall as h^(order + 1), where h is
        the step size. An effect of the warm-up is the largest difference between the final states with and without an
        exact history. It falls as h^2, because the first step of the warm-up has order 0.
    """
    errors, warm_up = [], []
    for count in steps:
        informed = informed_end(exact, order, count)
        c = gddim_coefficients(exact.diffusion, grid_of(exact, count), order, exact.k)
        eps = exact.mixture.eps(exact.diffusion, exact.k, c.t.tolist())
        errors.append(error_of(exact, informed))
        warm_up.append(float((final_state(multistep(eps, exact.start, c)) - informed).abs().max()))
    return errors, warm_up


def corrected_errors(exact: ExactFlow, order: int, steps: Sequence[int]) -> list[float]:
    """Errors of gDDIM with the corrector and an exact history. They fall as h^(order + 2), where h is the step size."""
    errors = []
    for count in steps:
        grid = grid_of(exact, count)
        c = gddim_coefficients(exact.diffusion, grid, order, exact.k)
        corrector = corrector_integrals(exact.diffusion, grid, order, exact.k)
        times = grid.tolist()
        eps = exact.mixture.eps(exact.diffusion, exact.k, times=times)
        past = [eps(exact.at(t), t) for t in times[:order][::-1]]
        steps_taken = predict_correct_steps(eps, exact.at(times[order]), c, corrector, first_step=order, history=past)
        errors.append(error_of(exact, final_state(steps_taken)))
    return errors


def slopes(steps: Sequence[int], errors: Sequence[float]) -> list[float]:
    """`-d log(error) / d log(steps)`, from each number of steps to the next."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (-np.diff(np.log(errors)) / np.diff(np.log(steps))).tolist()
