"""gDDIM (Zhang, Tao & Chen, arXiv 2206.05564): deterministic, with or without a corrector, and stochastic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
DEFAULT_SIGMA_DATA = 0.5
FEW = 20
"""Up to this many evaluations, `gddim sample` by default interpolates the estimate of the images (x0), not eps."""
FEW_POWER = 1.5
"""Default power of the time grid when x0 is interpolated and there are at most `FEW` evaluations."""

Corrector = Annotated[
    bool,
    about(
        "Correct each step of gddim with a second evaluation. At equal NFE, this halves the number of steps.",
        label="corrector",
    ),
]
Predict = Annotated[
    Literal["eps", "x0", "blend"],
    about(
        "Quantity that gddim interpolates between evaluations. eps: the noise, as in the paper. x0: the network's "
        "estimate of the images. blend: x0 minus what an ideal denoiser would predict if the images were Gaussian with "
        "standard deviation --sigma-data. Default: eps; gddim sample chooses x0 if the model is a denoiser and the NFE is low "
        "(see docs/few-evaluations.md).",
        label="{}",
    ),
]
SigmaData = Annotated[
    float,
    about(
        "Standard deviation that --predict blend assumes for the images (pixel values in [-1, 1]). Default: 0.5.",
        label="sigma_data {}",
        gt=0,
        le=10,
    ),
]


class GddimOptions(msgspec.Struct, frozen=True, kw_only=True, rename={"lam": "lambda"}):
    """The options of gDDIM. If the order is None, it is 2 without noise and 0 with noise."""

    order: Order | None = None
    lam: Lambda = 0.0
    corrector: Corrector = False
    predict: Predict | None = None
    sigma_data: SigmaData | None = None


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: GddimOptions) -> PreparedSampler:
    """Prepares gDDIM for `budget` evaluations, not counting the denoising step.

    Raises:
        UsageError: options exclude each other, or the budget is too small for one step.
    """
    refuse_exclusive(diffusion, config, options)
    return (
        stochastic(diffusion, config, budget, options)
        if options.lam
        else deterministic(diffusion, config, budget, options)
    )


def refuse_exclusive(diffusion: Diffusion, config: SamplingConfig, options: GddimOptions) -> None:
    """Raises UsageError for options that exclude each other, or that do not work with the configured K."""
    if options.lam and options.corrector:
        raise UsageError("--corrector: unsupported by stochastic gDDIM; leave out --lambda or --corrector")
    if options.lam and options.order:
        raise UsageError(f"--order: stochastic gDDIM has order 0; leave out --lambda {options.lam:g} or --order")
    if options.predict not in (None, "eps"):
        where = "--corrector" if options.corrector else f"--lambda {options.lam:g}" if options.lam else ""
        if where:
            raise UsageError(f"--predict {options.predict}: unsupported with {where}; leave out one of them")
        if config.k == "L" and diffusion.D > 1:
            raise UsageError(
                f"--predict {options.predict}: needs K = R and the score of all state components; use --predict eps"
            )
    if options.sigma_data is not None and options.predict != "blend":
        raise UsageError("--sigma-data: has an effect only with --predict blend; leave it out")


def deterministic(diffusion: Diffusion, config: SamplingConfig, budget: int, options: GddimOptions) -> PreparedSampler:
    """Deterministic gDDIM (Eq. 19), or its predictor-corrector form."""
    from gddim_cli.samplers.coefficients import gddim_coefficients
    from gddim_cli.samplers.corrector import corrector_integrals, predict_correct_steps

    order = DEFAULT_ORDER if options.order is None else options.order
    predict = options.predict or "eps"
    sigma_data = options.sigma_data or (DEFAULT_SIGMA_DATA if predict == "blend" else None)
    options = msgspec.structs.replace(options, order=order, predict=predict, sigma_data=sigma_data)
    if options.corrector and budget == 1:
        raise UsageError("--nfe: a corrected step takes two evaluations; give a larger --nfe, or leave out --corrector")
    t = time_grid(diffusion, config, budget, budget // 2 if options.corrector else budget)
    data_std = {"eps": None, "x0": 0.0, "blend": sigma_data}[predict]
    coefficients = gddim_coefficients(diffusion, t, order, config.k, config.denoise, data_std)
    if not options.corrector:
        return multistep_sampler(coefficients, options)
    corrected = corrector_integrals(diffusion, t, order, config.k)

    def solve(eps: Eps, u: Tensor, _draw: Draw) -> Iterator[Step]:
        return predict_correct_steps(eps, u, coefficients, corrected)

    steps = len(t) - 1
    return PreparedSampler(2 * steps + config.denoise, steps + config.denoise, solve, options)


def stochastic(diffusion: Diffusion, config: SamplingConfig, budget: int, options: GddimOptions) -> PreparedSampler:
    """Stochastic gDDIM (Eq. 22), which has order 0."""
    from gddim_cli.samplers.stochastic import stochastic_coefficients

    if config.k == "L" and diffusion.D > 1:
        raise UsageError(
            "--lambda: stochastic gDDIM needs K = R and the score of all state components; use --sampler em"
        )
    t = time_grid(diffusion, config, budget, budget)
    coefficients = stochastic_coefficients(diffusion, t, options.lam, config.k, config.denoise)
    return multistep_sampler(coefficients, msgspec.structs.replace(options, order=0, predict="eps"))


def defaults(_diffusion: Diffusion, _config: SamplingConfig, nfe: int, options: GddimOptions) -> dict[str, Any]:
    """Sets the time grid if x0 is interpolated and there are at most `FEW` evaluations; else sets nothing."""
    return {"grid_power": FEW_POWER} if options.predict == "x0" and nfe <= FEW else {}


def label(spec: SamplerSpec, options: GddimOptions, hidden: str | None) -> str:
    """The label in tables, such as `gDDIM order 2`, `gDDIM order 1 + corrector` or `gDDIM λ = 0.3`."""
    known = declared(GddimOptions)
    if options.lam or hidden == "lambda":
        return spec.title if hidden == "lambda" else f"{spec.title} {known['lambda'].labelled(options.lam)}"
    parts = [f"{spec.title} {known['order'].labelled(options.order)}"]
    if options.predict not in (None, "eps"):
        parts.append(options.predict)
    return ", ".join(parts) + (" + corrector" if options.corrector else "")


SPEC = SamplerSpec(
    "gddim",
    "gDDIM",
    prepare,
    options=GddimOptions,
    order="q + 1; q + 2 with --corrector",
    evaluations="1; 2 with --corrector",
    stochastic="lambda",
    source="arXiv 2206.05564, Eq. 19 and 22",
    uses_k=True,
    defaults=defaults,
    label=label,
)
