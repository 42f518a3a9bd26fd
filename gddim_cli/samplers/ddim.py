"""DDIM with eta (Song, Meng & Ermon, arXiv 2010.02502), for diffusions of state dimension 1 per pixel or frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np

from gddim_cli.samplers.base import PreparedSampler, SamplerSpec, multistep_sampler, time_grid
from gddim_cli.samplers.dimension_1 import SUPPORTS, require_dimension_1
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.diffusions.base import Diffusion, SamplingConfig
    from gddim_cli.numerics.quadrature import Array
    from gddim_cli.samplers.coefficients import Coefficients

Eta = Annotated[
    float,
    about("Noise of ddim: 0 is deterministic, 1 is ancestral sampling.", label="η = {}", ge=0, le=1),
]


class DdimOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of DDIM."""

    eta: Eta = 0.0


def ddim_coefficients(diffusion: Diffusion, t: Array, eta: float, denoise: bool = False) -> Coefficients:
    """Coefficients of DDIM (Eq. 12) for steps from t to s < t, where `u_t = a_t x_0 + b_t eps`.

    `u_s = a_s x0hat + sqrt(b_s^2 - sigma^2) eps + sigma z`, with `x0hat = (u_t - b_t eps) / a_t` and
    `sigma = eta (b_s / b_t) sqrt(b_t^2 - (a_t / a_s)^2 b_s^2)`.

    eta = 0 is gDDIM of order 0. eta = 1 is ancestral sampling, which draws from `p(u_s | u_t, x0hat)`. For BDM, each
    frequency is drawn separately (Hoogeboom & Salimans, arXiv 2209.05557).
    """
    from gddim_cli.samplers.coefficients import Coefficients, denoising_matrices

    then, now = diffusion.R(t[:-1]), diffusion.R(t[1:])
    back = diffusion.Psi(t[1:], t[:-1])  # a_s / a_t
    sigma = eta * now / then * np.sqrt(np.maximum(then**2 - (now / back) ** 2, 0.0))
    c = np.sqrt(np.maximum(now**2 - sigma**2, 0.0)) - back * then
    last = denoising_matrices(diffusion, t[-1], "R") if denoise else None
    return Coefficients(t, back, c[:, None], "R", last, sigma if eta else None)


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: DdimOptions) -> PreparedSampler:
    """Prepares DDIM with one step per network evaluation.

    Raises:
        UsageError: the diffusion's state dimension is above 1, or the budget is too small for one step.
    """
    require_dimension_1(diffusion, "ddim")
    t = time_grid(diffusion, config, budget, budget)
    return multistep_sampler(ddim_coefficients(diffusion, t, options.eta, config.denoise), options)


SPEC = SamplerSpec(
    "ddim",
    "DDIM",
    prepare,
    order="1",
    stochastic="eta",
    supports=SUPPORTS,
    source="arXiv 2010.02502",
    options=DdimOptions,
)
