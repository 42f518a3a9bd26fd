"""Heun's method, of order 2, for the probability flow in exponential-integrator form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gddim_cli.samplers.base import NoOptions, PreparedSampler, SamplerSpec, time_grid

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.diffusions.base import Diffusion, SamplingConfig
    from gddim_cli.samplers.base import Draw, Eps, Step
    from gddim_cli.samplers.coefficients import Coefficients


def heun_steps(eps: Eps, u: Tensor, coefficients: Coefficients) -> Iterator[Step]:
    """Yields Heun steps from t to t': `u* = Psi u + C eps(u, t)`, then `Psi u + C (eps(u, t) + eps(u*, t')) / 2`.

    The last step is Euler's: its result is `u*`. `Psi` and `C` are those of gDDIM of order 0, so the linear part is
    solved exactly. For VE, this is Heun's method for u as a function of the noise level, as in Karras et al. (arXiv
    2206.00364). For VP, it is the same method for `u / sqrt(alpha)`. N steps take 2N - 1 evaluations, and the denoising
    step takes one more. The global order is 2.
    """
    from gddim_cli.numerics.blocks import combine, to_tensor_like
    from gddim_cli.samplers.multistep import denoising_step

    times = coefficients.t.tolist()
    psi, c = to_tensor_like(coefficients.Psi, u), to_tensor_like(coefficients.C[:, 0], u)
    for i in range(len(psi)):
        first = eps(u, times[i])
        guess = combine([psi[i], c[i]], [u, first])
        if i + 1 < len(psi):
            u = combine([psi[i], c[i]], [u, 0.5 * (first + eps(guess, times[i + 1]))])
        else:
            u = guess
        yield times[i + 1], u
    yield from denoising_step(eps, u, coefficients.last, times[-1])


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: NoOptions) -> PreparedSampler:
    """Prepares Heun's method with N = (budget + 1) // 2 steps; raises UsageError if the budget is too small."""
    from gddim_cli.samplers.coefficients import gddim_coefficients

    t = time_grid(diffusion, config, budget, (budget + 1) // 2)
    coefficients = gddim_coefficients(diffusion, t, 0, config.k, config.denoise)

    def solve(eps: Eps, u: Tensor, _draw: Draw) -> Iterator[Step]:
        return heun_steps(eps, u, coefficients)

    steps = len(t) - 1
    return PreparedSampler(2 * steps - 1 + config.denoise, steps + config.denoise, solve, options)


SPEC = SamplerSpec(
    "heun", "Heun", prepare, order="2", evaluations="2, and 1 in the last step", source="arXiv 2206.00364", uses_k=True
)
