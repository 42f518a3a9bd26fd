"""gDDIM (Zhang, Tao & Chen, arXiv 2206.05564): deterministic of any order, stochastic, and with a corrector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec

from gddim_cli.errors import UsageError
from gddim_cli.samplers.base import PreparedSampler, SamplerSpec, multistep_sampler, time_grid
from gddim_cli.samplers.options import Lambda, Order
from gddim_cli.settings import about, declared

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.diffusions.base import Diffusion, SamplingConfig
    from gddim_cli.samplers.base import Draw, Eps, Step

DEFAULT_ORDER = 2

Corrector = Annotated[
    bool,
    about("Correct each gddim step with one more evaluation; --nfe then gives half as many steps.", label="corrector"),
]


class GddimOptions(msgspec.Struct, frozen=True, kw_only=True, rename={"lam": "lambda"}):
    """The options of gDDIM; an order of None stands for 2, or for 0 if `lam` is above 0."""

    order: Order | None = None
    lam: Lambda = 0.0
    corrector: Corrector = False


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: GddimOptions) -> PreparedSampler:
    """gDDIM for `budget` evaluations, not counting the denoising step.

    Raises:
        UsageError: options that exclude each other, or too few evaluations.
    """
    return (
        stochastic(diffusion, config, budget, options)
        if options.lam
        else deterministic(diffusion, config, budget, options)
    )


def deterministic(diffusion: Diffusion, config: SamplingConfig, budget: int, options: GddimOptions) -> PreparedSampler:
    """Deterministic gDDIM (Eq. 19), with or without a corrector."""
    from gddim_cli.samplers.coefficients import gddim_coefficients
    from gddim_cli.samplers.corrector import corrector_integrals, predict_correct_steps

    order = DEFAULT_ORDER if options.order is None else options.order
    options = msgspec.structs.replace(options, order=order)
    if options.corrector and budget == 1:
        raise UsageError("--nfe: a corrected step takes two evaluations; give a larger --nfe, or leave out --corrector")
    t = time_grid(config, budget, budget // 2 if options.corrector else budget)
    coefficients = gddim_coefficients(diffusion, t, order, config.k, config.denoise)
    if not options.corrector:
        return multistep_sampler(coefficients, options)
    corrected = corrector_integrals(diffusion, t, order, config.k)

    def solve(eps: Eps, u: Tensor, _draw: Draw) -> Iterator[Step]:
        return predict_correct_steps(eps, u, coefficients, corrected)

    steps = len(t) - 1
    return PreparedSampler(2 * steps + config.denoise, steps + config.denoise, solve, options)


def stochastic(diffusion: Diffusion, config: SamplingConfig, budget: int, options: GddimOptions) -> PreparedSampler:
    """Stochastic gDDIM (Eq. 22), of order 0."""
    from gddim_cli.samplers.stochastic import stochastic_coefficients

    if options.corrector:
        raise UsageError("--corrector: unsupported by stochastic gDDIM; leave out --lambda or --corrector")
    if options.order:
        raise UsageError(f"--order: stochastic gDDIM has order 0; leave out --lambda {options.lam:g} or --order")
    if config.k == "L" and diffusion.D > 1:
        raise UsageError(
            "--lambda: stochastic gDDIM needs K = R and the whole score, which K = L or a mixed-score model do not give; "
            "use --sampler em"
        )
    t = time_grid(config, budget, budget)
    coefficients = stochastic_coefficients(diffusion, t, options.lam, config.k, config.denoise)
    return multistep_sampler(coefficients, msgspec.structs.replace(options, order=0))


def label(spec: SamplerSpec, options: GddimOptions, hidden: str | None) -> str:
    """`gDDIM order 2`, `gDDIM order 1 + corrector`, `gDDIM λ = 0.3`."""
    known = declared(GddimOptions)
    if options.lam or hidden == "lambda":
        return spec.title if hidden == "lambda" else f"{spec.title} {known['lambda'].labelled(options.lam)}"
    return f"{spec.title} {known['order'].labelled(options.order)}" + (" + corrector" if options.corrector else "")


SPEC = SamplerSpec(
    name="gddim",
    title="gDDIM",
    order="q + 1; q + 2 with --corrector",
    evaluations="1; 2 with --corrector",
    noise="deterministic; stochastic with --lambda above 0",
    source="arXiv 2206.05564, Eq. 19 and 22",
    prepare=prepare,
    options=GddimOptions,
    uses_k=True,
    is_deterministic=lambda options: not options.lam,
    label=label,
)
