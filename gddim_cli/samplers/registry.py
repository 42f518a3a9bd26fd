"""The samplers that there are, what each can do, and a plan from a person's choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.diffusions.cld import CLD
from gddim_cli.errors import UsageError, nearest
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.coefficients import Coefficients, denoising_step, gddim_coefficients
from gddim_cli.samplers.ddim import ddim_coefficients
from gddim_cli.samplers.em import em_coefficients
from gddim_cli.samplers.gddim import corrector_integrals, predict_correct, stochastic_coefficients
from gddim_cli.samplers.heun import heun
from gddim_cli.samplers.multistep import Draw, Eps, OnStep, linear
from gddim_cli.samplers.rk45 import ProbabilityFlow, tolerance_for
from gddim_cli.samplers.sscs import splitting, sscs
from gddim_cli.samplers.time_grids import power_grid

Solve = Callable[[Eps, Tensor, Draw, OnStep | None], Tensor]


@dataclass(frozen=True)
class Choices:
    """What a person may choose beside the grid; None and the zeros are the method's own defaults."""

    order: int | None = None
    lam: float | None = None
    eta: float | None = None
    corrector: bool = False
    rtol: float | None = None
    atol: float | None = None


@dataclass(frozen=True)
class Plan:
    """A sampler made ready for one diffusion, grid and budget.

    Attributes:
        nfe: evaluations that a run makes, which may be one below the budget; None for an adaptive method.
        steps: of the grid; calls of `on_step`, the denoising step included.
        solve: `(eps, u_T, draw, on_step)` to the final state.
        order: polynomial order, where the method has one.
        coefficients: where the method is a linear one.
        batch_dependent: whether the images of a batch depend on each other.
        tolerance: of an adaptive method.
        fixed: the plan with a tolerance that was found earlier; None where nothing is tuned.
        tune: from eps and a few states u_T to the plan whose tolerance spends the budget; None where nothing is tuned.
    """

    nfe: int | None
    steps: int
    solve: Solve
    order: int | None = None
    coefficients: Coefficients | None = None
    batch_dependent: bool = False
    tolerance: float | None = None
    tune: Callable[[Eps, Tensor], Plan] | None = None
    fixed: Callable[[float], Plan] | None = None


@dataclass(frozen=True)
class Method:
    """One sampler.

    Attributes:
        order: global order, in words.
        evaluations: per step, in words.
        noise: deterministic, stochastic, or by which option.
        suits: which diffusions, in words.
        source: where it comes from.
        options: the `Choices` that it has.
    """

    name: str
    order: str
    evaluations: str
    noise: str
    suits: str
    source: str
    build: Callable[[Diffusion, SamplingConfig, int, Choices], Plan]
    options: tuple[str, ...] = field(default=())


def plan(name: str, diffusion: Diffusion, defaults: SamplingConfig, nfe: int, choices: Choices) -> Plan:
    """The sampler `name` for a budget of `nfe` evaluations, the denoising step included.

    Raises:
        UsageError: an unknown method, an option it has not, a diffusion it does not suit, or no step in the budget.
    """
    if name not in METHODS:
        raise UsageError(f"--sampler: there is no '{name}'; {nearest(name, METHODS)}")
    method = METHODS[name]
    for option in ("order", "lam", "eta", "corrector", "rtol", "atol"):
        value = getattr(choices, option)
        if value is not None and value is not False and option not in method.options:
            have = [m.name for m in METHODS.values() if option in m.options]
            verb = "has" if len(have) == 1 else "have"
            raise UsageError(f"--{WORDS.get(option, option)}: {name} has none; {', '.join(have)} {verb}")
    if choices.lam is not None and choices.lam > LARGEST_LAMBDA:
        raise UsageError(
            f"--lambda: {choices.lam:g} is above {LARGEST_LAMBDA:g}, where noise is all there is; 0 to 1 is usual"
        )
    for tolerance in (choices.rtol, choices.atol):
        if tolerance is not None and 0 < tolerance < TIGHTEST_TOLERANCE:
            raise UsageError(
                f"--rtol, --atol: {tolerance:g} is below {TIGHTEST_TOLERANCE:g}, which float64 cannot reach"
            )
    for option, lowest in (("lam", "from 0 up"), ("eta", "from 0 up"), ("rtol", "above 0"), ("atol", "above 0")):
        value = getattr(choices, option)
        if value is not None and not (0 <= value < inf and (value > 0 or lowest == "from 0 up")):
            raise UsageError(f"--{WORDS.get(option, option)}: {value:g} is not a number {lowest}")
    return method.build(diffusion, defaults, nfe - defaults.denoise, choices)


WORDS = {"lam": "lambda"}
LARGEST_LAMBDA = 10.0
TIGHTEST_TOLERANCE = 1e-12


def grid(defaults: SamplingConfig, budget: int, steps: int) -> Array:
    """The time grid of so many steps.

    Raises:
        UsageError: the budget leaves no step.
    """
    if steps < 1:
        what = "beside the denoising step " if defaults.denoise else ""
        raise UsageError(f"--nfe: {budget + defaults.denoise} is too few: {what}{budget} evaluations make no step")
    return power_grid(defaults.t_start, defaults.t_end, steps, defaults.grid_power)


def linear_plan(coefficients: Coefficients, order: int | None = None) -> Plan:
    def solve(eps: Eps, u: Tensor, draw: Draw, on_step: OnStep | None) -> Tensor:
        return linear(eps, u, coefficients, draw, on_step)

    return Plan(coefficients.nfe, coefficients.nfe, solve, order, coefficients)


def build_gddim(diffusion: Diffusion, defaults: SamplingConfig, budget: int, choices: Choices) -> Plan:
    lam, denoise = choices.lam or 0.0, defaults.denoise
    if lam > 0:
        if choices.corrector:
            raise UsageError("--corrector: stochastic gDDIM has none; leave out --lambda or --corrector")
        if choices.order:
            raise UsageError(f"--order: stochastic gDDIM is of order 0; leave out --lambda {lam:g} or --order")
        if defaults.k == "L" and diffusion.D > 1:
            raise UsageError(
                "--lambda: stochastic gDDIM needs K = R and the whole score, not K = L (a mixed-score model has only that); "
                "--sampler em works"
            )
        t = grid(defaults, budget, budget)
        return linear_plan(stochastic_coefficients(diffusion, t, lam, defaults.k, denoise), 0)
    order = choices.order if choices.order is not None else 0 if choices.lam is not None else 2
    if choices.corrector and budget == 1:
        raise UsageError("--nfe: a corrected step takes two evaluations; give one more, or leave out --corrector")
    t = grid(defaults, budget, budget // 2 if choices.corrector else budget)
    coefficients = gddim_coefficients(diffusion, t, order, defaults.k, denoise)
    if not choices.corrector:
        return linear_plan(coefficients, order)
    corrected = corrector_integrals(diffusion, t, order, defaults.k)

    def solve(eps: Eps, u: Tensor, _draw: Draw, on_step: OnStep | None) -> Tensor:
        return predict_correct(eps, u, coefficients, corrected, on_step)

    steps = len(t) - 1
    return Plan(2 * steps + denoise, steps + denoise, solve, order)


def build_em(diffusion: Diffusion, defaults: SamplingConfig, budget: int, choices: Choices) -> Plan:
    lam = 1.0 if choices.lam is None else choices.lam
    t = grid(defaults, budget, budget)
    return linear_plan(em_coefficients(diffusion, t, lam, defaults.k, defaults.denoise))


def build_ddim(ancestral: bool, diffusion: Diffusion, defaults: SamplingConfig, budget: int, choices: Choices) -> Plan:
    name = "ancestral" if ancestral else "ddim"
    if diffusion.D != 1:
        raise UsageError(
            f"--sampler {name}: {diffusion.name} has {diffusion.D} numbers a pixel, it needs one; gddim works"
        )
    eta = 1.0 if ancestral else choices.eta or 0.0
    if eta > 1:
        raise UsageError(f"--eta: {eta:g} is above 1, where the noise of a step would exceed what there is")
    return linear_plan(ddim_coefficients(diffusion, grid(defaults, budget, budget), eta, defaults.denoise))


def build_heun(diffusion: Diffusion, defaults: SamplingConfig, budget: int, _choices: Choices) -> Plan:
    t = grid(defaults, budget, (budget + 1) // 2)
    coefficients = gddim_coefficients(diffusion, t, 0, defaults.k, defaults.denoise)
    steps = len(t) - 1

    def solve(eps: Eps, u: Tensor, _draw: Draw, on_step: OnStep | None) -> Tensor:
        return heun(eps, u, coefficients, on_step)

    return Plan(2 * steps - 1 + defaults.denoise, steps + defaults.denoise, solve)


def build_sscs(diffusion: Diffusion, defaults: SamplingConfig, budget: int, _choices: Choices) -> Plan:
    if not isinstance(diffusion, CLD):
        raise UsageError(f"--sampler sscs: it splits CLD's equation, not that of {diffusion.name}; gddim and em work")
    constants = splitting(diffusion, grid(defaults, budget, budget), defaults.k, defaults.denoise)

    def solve(eps: Eps, u: Tensor, draw: Draw, on_step: OnStep | None) -> Tensor:
        return sscs(eps, u, constants, draw, on_step)

    return Plan(budget + defaults.denoise, budget + defaults.denoise, solve)


def build_rk45(diffusion: Diffusion, defaults: SamplingConfig, budget: int, choices: Choices) -> Plan:
    t_end = float(grid(defaults, budget, budget)[-1])
    last = denoising_step(diffusion, t_end, defaults.k) if defaults.denoise else None
    flow = ProbabilityFlow(diffusion, defaults.k, defaults.t_start, t_end, last)

    def at(rtol: float, atol: float) -> Plan:
        def solve(eps: Eps, u: Tensor, _draw: Draw, on_step: OnStep | None) -> Tensor:
            return flow.solve(eps, u, rtol, atol, on_step)

        return Plan(None, max(1, budget // 6), solve, batch_dependent=True, tolerance=rtol)

    if choices.rtol is None and choices.atol is None:

        def tune(eps: Eps, pilot: Tensor) -> Plan:
            tolerance = tolerance_for(flow, eps, pilot, budget + defaults.denoise)
            return at(tolerance, tolerance)

        return replace(at(1e-3, 1e-3), tune=tune, fixed=lambda tolerance: at(tolerance, tolerance))
    return at(choices.rtol or choices.atol or 0.0, choices.atol or choices.rtol or 0.0)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("gddim", "q + 1; q + 2 with --corrector", "1; 2 with --corrector", "deterministic; --lambda above 0",
               "all", "arXiv 2206.05564, Eq. 19 and 22", build_gddim, ("order", "lam", "corrector")),
        Method("em", "1 (weak)", "1", "--lambda (default 1); 0 is Euler's method", "all", "Euler-Maruyama", build_em,
               ("lam",)),
        Method("heun", "2", "2, 1 in the last step", "deterministic", "all", "arXiv 2206.00364", build_heun),
        Method("rk45", "5, adaptive", "6", "deterministic", "all", "Dormand & Prince; scipy", build_rk45,
               ("rtol", "atol")),
        Method("sscs", "1 (weak)", "1", "stochastic", "cld", "arXiv 2112.07068", build_sscs),
        Method("ddim", "1", "1", "--eta (default 0)", "one number a pixel", "arXiv 2010.02502", partial(build_ddim, False),
               ("eta",)),
        Method("ancestral", "1 (weak)", "1", "stochastic", "one number a pixel", "arXiv 2209.05557", partial(build_ddim, True)),
    )
}  # fmt: skip
