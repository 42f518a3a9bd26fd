"""The probability flow by scipy's adaptive RK45 (Dormand-Prince)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import RK45
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.errors import NumericsError
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.multistep import Eps, OnStep, apply_denoising_step

LOOSEST, TIGHTEST = 3.0, -10.0
MOST_STEPS = 20_000


@dataclass(frozen=True)
class ProbabilityFlow:
    """`du/dt = F u + 1/2 GG K^{-T} eps(u, t)` from t_start to t_end.

    A batch is one system with one step size, chosen for its root mean square error: its images depend on each other
    within the tolerance.

    Attributes:
        last: the denoising step, or None.
    """

    diffusion: Diffusion
    k: KChoice
    t_start: float
    t_end: float
    last: Array | None = None

    def solve(self, eps: Eps, u: Tensor, rtol: float, atol: float, on_step: OnStep | None = None) -> Tensor:
        """The states at the end, [B, D, ...], by scipy's RK45 in float64.

        Raises:
            NumericsError: the step size vanished.
        """

        def drift(t: float, flat: np.ndarray) -> np.ndarray:
            state = torch.from_numpy(flat.reshape(u.shape)).to(u)
            noise = 0.5 * self.diffusion.GG(t) @ np.linalg.inv(self.diffusion.K(t, self.k)).swapaxes(-1, -2)
            change = combine([to_tensor_like(self.diffusion.F(t), u), to_tensor_like(noise, u)], [state, eps(state, t)])
            return change.double().cpu().numpy().ravel()

        solver = RK45(drift, self.t_start, u.double().cpu().numpy().ravel(), self.t_end, rtol=rtol, atol=atol)
        steps = 0
        while solver.status == "running":
            message = solver.step()
            steps += 1
            if steps > MOST_STEPS:
                raise NumericsError(
                    f"RK45 has taken {MOST_STEPS} steps and is at t = {solver.t:.3g}; give a looser --rtol or --atol"
                )
            if solver.status == "failed":
                raise NumericsError(f"RK45 stopped at t = {solver.t:.3g}: {message}; give a looser --rtol or --atol")
            if on_step:
                on_step(steps, torch.from_numpy(solver.y.reshape(u.shape)).to(u))
        return apply_denoising_step(
            eps, torch.from_numpy(solver.y.reshape(u.shape)).to(u), self.last, self.t_end, steps, on_step
        )


def tolerance_for(flow: ProbabilityFlow, eps: Eps, u: Tensor, budget: int) -> float:
    """The tolerance (relative and absolute alike) whose solution of `u` takes as near to `budget` evaluations as it can.

    As the paper tuned its RK45 rows. Bisection on its logarithm between 1e3 and 1e-10, on a few pilot states.
    """
    count = 0

    def counted(state: Tensor, t: float) -> Tensor:
        nonlocal count
        count += 1
        return eps(state, t)

    loose, tight = LOOSEST, TIGHTEST
    best, nearest = loose, np.inf
    for exponent in (loose, *[None] * 10):
        tried = (loose + tight) / 2 if exponent is None else exponent
        count = 0
        flow.solve(counted, u, 10.0**tried, 10.0**tried)
        if abs(count - budget) < nearest:
            best, nearest = tried, abs(count - budget)
        if count > budget:
            tight = tried
        else:
            loose = tried
        if nearest == 0 or (exponent is not None and count >= budget):
            break
    return float(10.0**best)
