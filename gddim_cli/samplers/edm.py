"""EDM's sampler (Karras et al., arXiv 2206.00364, Algorithms 1 and 2): Heun's method with noise added between steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np

from gddim_cli.errors import UsageError
from gddim_cli.samplers.base import PreparedSampler, SamplerSpec, time_grid
from gddim_cli.samplers.dimension_1 import SUPPORTS, require_dimension_1
from gddim_cli.settings import about

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.diffusions.base import Diffusion, SamplingConfig
    from gddim_cli.numerics.quadrature import Array
    from gddim_cli.samplers.base import Draw, Eps, Step

MOST_GAMMA = np.sqrt(2) - 1

SChurn = Annotated[
    float,
    about(
        "Amount of noise that edm adds during sampling (S_churn); 0 is deterministic.", label="S_churn {}", ge=0, le=1e4
    ),
]
SMin = Annotated[float, about("Lowest noise level at which edm adds noise (S_min).", label="S_min {}", ge=0, le=1e6)]
SMax = Annotated[
    float,
    about("Highest noise level at which edm adds noise (S_max). Default: no limit.", label="S_max {}", gt=0, le=1e6),
]
SNoise = Annotated[
    float, about("Standard deviation of the noise that edm adds (S_noise).", label="S_noise {}", gt=0, le=10)
]


class EdmOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of EDM's sampler."""

    s_churn: SChurn = 0.0
    s_min: SMin = 0.0
    s_max: SMax | None = None
    s_noise: SNoise = 1.0


@dataclass(frozen=True)
class Churned:
    """The constants of EDM's steps.

    Each step first adds noise, which raises the noise level, and then solves the probability flow to the next time.

    Attributes:
        t: the times, [N + 1], decreasing; the last is 0 if sampling ends at noise level 0.
        raised: for each step, the time that belongs to the raised noise level, [N].
        carried, added: factors, [N]; `carried u + added z` is the state at the raised time.
        kept, weight: factors, [N]; `kept u + weight eps` is Euler's step from the raised time to the next time.
    """

    t: Array
    raised: Array
    carried: Array
    added: Array
    kept: Array
    weight: Array


def churned(diffusion: Diffusion, t: Array, options: EdmOptions, ends_at_0: bool) -> Churned:
    """The constants of the steps along the grid t, with an additional step to noise level 0 if `ends_at_0`.

    Noise raises the level `sigma_i` to `(1 + gamma_i) sigma_i`, but not above the first level of the grid.
    `gamma_i = min(S_churn / N, sqrt(2) - 1)` if `S_min <= sigma_i <= S_max`, else 0.
    """
    from gddim_cli.samplers.noise_level import noise_level, times_of_levels

    level, alpha = noise_level(diffusion, t), diffusion.Psi(t, 0.0)[:, 0, 0]
    if ends_at_0:
        t, level, alpha = (np.append(values, end) for values, end in ((t, 0.0), (level, 0.0), (alpha, 1.0)))
    steps, now = len(t) - 1, level[:-1]
    gamma = min(options.s_churn / steps, MOST_GAMMA) * ((options.s_min <= now) & (now <= (options.s_max or np.inf)))
    higher = np.minimum((1 + gamma) * now, level[0])
    raised = np.where(higher > now, times_of_levels(diffusion, higher, t[0], t[steps - 1]), t[:-1])
    alpha_raised = diffusion.Psi(raised, 0.0)[:, 0, 0]
    return Churned(
        t=t,
        raised=raised,
        carried=alpha_raised / alpha[:-1],
        added=alpha_raised * options.s_noise * np.sqrt(higher**2 - now**2),
        kept=alpha[1:] / alpha_raised,
        weight=alpha[1:] * (level[1:] - higher),
    )


def edm_steps(eps: Eps, u: Tensor, churn: Churned, draw: Draw) -> Iterator[Step]:
    """Yields steps that raise the noise level and then apply Heun's method; the last step is Euler's.

    The steps integrate `u / alpha` as a function of the noise level, where alpha is `Psi(t, 0)`. N steps take 2N - 1
    evaluations. Without added noise, the global order is 2.
    """
    steps = len(churn.raised)
    for i, (t, carried, added, kept, weight) in enumerate(
        zip(*(a.tolist() for a in (churn.raised, churn.carried, churn.added, churn.kept, churn.weight)), strict=True)
    ):
        if added:
            u = carried * u + added * draw(i)
        first, end = eps(u, t), float(churn.t[i + 1])
        guess = kept * u + weight * first
        u = kept * u + 0.5 * weight * (first + eps(guess, end)) if i + 1 < steps else guess
        yield end, u


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: EdmOptions) -> PreparedSampler:
    """Prepares EDM's sampler, which makes N steps with 2N - 1 evaluations.

    If `config.denoise` is set, the last step goes to noise level 0 and takes the place of the denoising step.

    Raises:
        UsageError: the diffusion's state dimension is above 1, it acts in frequency space, or the budget is too small
            for one step.
    """
    require_dimension_1(diffusion, "edm")
    if diffusion.spectral:
        raise UsageError(
            f"--sampler edm: the noise level of {diffusion.name} differs by frequency; use --sampler gddim"
        )
    evaluations = budget + config.denoise
    t = time_grid(diffusion, config, budget, (evaluations + 1) // 2 - config.denoise)
    churn = churned(diffusion, t, options, config.denoise)

    def solve(eps: Eps, u: Tensor, draw: Draw) -> Iterator[Step]:
        return edm_steps(eps, u, churn, draw)

    steps = len(churn.raised)
    return PreparedSampler(2 * steps - 1, steps, solve, options)


SPEC = SamplerSpec(
    "edm",
    "EDM",
    prepare,
    order="2",
    evaluations="2, and 1 in the last step",
    stochastic="s_churn",
    supports=SUPPORTS,
    source="arXiv 2206.00364, Algorithms 1 and 2",
    options=EdmOptions,
    defaults=lambda *_: {"grid_power": "rho:7", "denoise": True},
)
