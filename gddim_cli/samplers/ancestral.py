"""Ancestral sampling, which equals DDIM with eta = 1.

Each step from t to s draws from `p(u_s | u_t, x0hat)`, where x0hat is the estimate of the image from `u_t`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gddim_cli.samplers.base import NoOptions, PreparedSampler, SamplerSpec, multistep_sampler, time_grid
from gddim_cli.samplers.ddim import ddim_coefficients
from gddim_cli.samplers.dimension_1 import SUPPORTS, require_dimension_1

if TYPE_CHECKING:
    from gddim_cli.diffusions.base import Diffusion, SamplingConfig


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: NoOptions) -> PreparedSampler:
    """Prepares ancestral sampling with one step per network evaluation.

    Raises:
        UsageError: the diffusion's state dimension is above 1, or the budget is too small for one step.
    """
    require_dimension_1(diffusion, "ancestral")
    t = time_grid(diffusion, config, budget, budget)
    return multistep_sampler(ddim_coefficients(diffusion, t, 1.0, config.denoise), options)


SPEC = SamplerSpec(
    "ancestral", "ancestral", prepare, order="1 (weak)", stochastic=True, supports=SUPPORTS, source="arXiv 2209.05557"
)
