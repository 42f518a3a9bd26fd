"""Solves the probability flow with scipy's adaptive RK45 (Dormand-Prince)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np

from gddim_cli.errors import NumericsError
from gddim_cli.samplers.base import PreparedSampler, SamplerSpec, time_grid
from gddim_cli.settings import about, declared

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
    from gddim_cli.numerics.quadrature import Array
    from gddim_cli.samplers.base import Draw, Eps, Step

LOOSEST, TIGHTEST = 3.0, -10.0
"""Exponents of 10 that bound the search for a tolerance."""
TRIES = 11
"""Maximum number of tolerances that the search tries. If the loosest already spends the budget, no other is tried."""
FEWEST = 21
"""Network evaluations at the loosest tolerance, measured on CLD with the denoising step; used to estimate run times."""
MAX_STEPS = 1_000
"""Maximum number of steps of one batch, unless `--nfe` asks for more. With an rtol of 1e-9, the bundled model needs about 700."""

Rtol = Annotated[
    float,
    about(
        "Relative tolerance for rk45. Default: same as --atol. If neither is given, both are calibrated so that rk45 "
        "uses about --nfe evaluations.",
        label="rtol {}",
        metavar="X",
        ge=1e-12,
        lt=1e300,
    ),
]
Atol = Annotated[
    float,
    about("Absolute tolerance for rk45. Default: same as --rtol.", label="atol {}", metavar="X", ge=1e-12, lt=1e300),
]


class Rk45Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of RK45. If neither is given, both are set to one tolerance, which is calibrated to the budget."""

    rtol: Rtol | None = None
    atol: Atol | None = None


@dataclass(frozen=True)
class ProbabilityFlow:
    """The ODE `du/dt = F u + 1/2 GG K^{-T} eps(u, t)` from t_start to t_end.

    A batch is solved as one system. The step size is chosen from the root mean square error over the whole batch, so
    the images of a batch depend on each other (within the tolerance).

    Attributes:
        last: the matrices of the denoising step, or None.
        max_steps: maximum number of steps of one batch; beyond it, `NumericsError` is raised.
    """

    diffusion: Diffusion
    k: KChoice
    t_start: float
    t_end: float
    last: Array | None = None
    max_steps: int = MAX_STEPS

    def steps(self, eps: Eps, u: Tensor, rtol: float, atol: float) -> Iterator[Step]:
        """Yields the steps of scipy's RK45 in float64, then the denoising step, if any.

        Raises:
            NumericsError: the step size becomes too small, or there are too many steps.
        """
        import torch
        from scipy.integrate import RK45

        from gddim_cli.numerics.blocks import combine, to_tensor_like
        from gddim_cli.samplers.multistep import denoising_step

        def state(flat: Array) -> Tensor:
            return torch.from_numpy(flat.reshape(u.shape)).to(u)

        def drift(t: float, flat: Array) -> Array:
            noise = 0.5 * self.diffusion.GG(t) @ np.linalg.inv(self.diffusion.K(t, self.k)).swapaxes(-1, -2)
            here = state(flat)
            change = combine([to_tensor_like(self.diffusion.F(t), u), to_tensor_like(noise, u)], [here, eps(here, t)])
            return change.double().cpu().numpy().ravel()

        solver = RK45(drift, self.t_start, u.double().cpu().numpy().ravel(), self.t_end, rtol=rtol, atol=atol)
        taken = 0
        while solver.status == "running":
            message = solver.step()
            taken += 1
            if taken > self.max_steps:
                raise NumericsError(
                    f"RK45 has reached only t = {solver.t:.3g} after {self.max_steps} steps; give a looser --rtol or --atol"
                )
            if solver.status == "failed":
                raise NumericsError(f"RK45 stopped at t = {solver.t:.3g}: {message}; give a looser --rtol or --atol")
            yield float(solver.t), state(solver.y)
        yield from denoising_step(eps, state(solver.y), self.last, self.t_end)


def tolerance_for(flow: ProbabilityFlow, eps: Eps, u: Tensor, budget: int) -> float:
    """The tolerance, used as both rtol and atol, with which solving from `u` takes about `budget` evaluations.

    It is found by bisection on its logarithm, between 1e3 and 1e-10. The gDDIM paper calibrated RK45 in this way.

    Args:
        u: a few states u_T.
    """
    from gddim_cli.samplers.multistep import final_state

    count = 0

    def counted(state: Tensor, t: float) -> Tensor:
        nonlocal count
        count += 1
        return eps(state, t)

    loose, tight = LOOSEST, TIGHTEST
    best, nearest = loose, np.inf
    for exponent in (loose, *[None] * (TRIES - 1)):
        tried = (loose + tight) / 2 if exponent is None else exponent
        count = 0
        final_state(flow.steps(counted, u, 10.0**tried, 10.0**tried))
        if abs(count - budget) < nearest:
            best, nearest = tried, abs(count - budget)
        if count > budget:
            tight = tried
        else:
            loose = tried
        if nearest == 0 or (exponent is not None and count >= budget):
            break
    return float(10.0**best)


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: Rk45Options) -> PreparedSampler:
    """Prepares RK45 with the given tolerances. If none is given, the result still has to be calibrated.

    Raises:
        UsageError: the budget is too small for one step.
    """
    from gddim_cli.samplers.coefficients import denoising_matrices

    t_end = float(time_grid(diffusion, config, budget, budget)[-1])
    last = denoising_matrices(diffusion, t_end, config.k) if config.denoise else None
    flow = ProbabilityFlow(diffusion, config.k, config.t_start, t_end, last, max(MAX_STEPS, budget // 3))

    def at(rtol: float, atol: float) -> PreparedSampler:
        def solve(eps: Eps, u: Tensor, _draw: Draw) -> Iterator[Step]:
            return flow.steps(eps, u, rtol, atol)

        return PreparedSampler(None, max(1, budget // 6), solve, options, batch_dependent=True, tolerance=rtol)

    given = options.rtol or options.atol
    if given:
        options = Rk45Options(rtol=options.rtol or given, atol=options.atol or given)
        return at(options.rtol or given, options.atol or given)

    def calibrate(eps: Eps, pilot: Tensor) -> PreparedSampler:
        tolerance = tolerance_for(flow, eps, pilot, whole)
        return at(tolerance, tolerance)

    whole = budget + config.denoise
    return replace(
        at(1e-3, 1e-3),
        expected=(max(whole, FEWEST), FEWEST if whole <= FEWEST else TRIES * whole),
        tolerance=None,
        calibrate_tolerance=calibrate,
        with_tolerance=lambda tolerance: at(tolerance, tolerance),
    )


def label(spec: SamplerSpec, options: Rk45Options, _hidden: str | None) -> str:
    """The label in tables: `RK45`, or `RK45 rtol 0.001, atol 0.001` if a tolerance was given."""
    known = declared(Rk45Options)
    given = [known[key].labelled(value) for key, value in (("rtol", options.rtol), ("atol", options.atol)) if value]
    return " ".join([spec.title, ", ".join(given)]).strip()


SPEC = SamplerSpec(
    "rk45",
    "RK45",
    prepare,
    order="5, adaptive",
    evaluations="6",
    source="Dormand & Prince; scipy",
    options=Rk45Options,
    uses_time_grid=False,
    label=label,
)
