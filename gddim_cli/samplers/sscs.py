"""SSCS, the symmetric splitting sampler of CLD (Dockhorn, Vahdat & Kreis, arXiv 2112.07068, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gddim_cli.errors import UsageError
from gddim_cli.samplers.base import NoOptions, PreparedSampler, SamplerSpec, time_grid

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
    from gddim_cli.diffusions.cld import CLD
    from gddim_cli.numerics.quadrature import Array
    from gddim_cli.samplers.base import Draw, Eps, Step


@dataclass(frozen=True)
class Splitting:
    """Constants of SSCS, float64. Each step is an exact half step, an Euler step, and another exact half step.

    The half steps solve `du = beta [[0, -1/M], [1, -Gamma/M]] u dtau + diag(0, sqrt(2 Gamma beta)) dw` in reversed time
    tau. They preserve `N(0, diag(1, M))`. The Euler step accounts for the rest of the reverse-time SDE, which contains
    the score.

    Attributes:
        t: the grid, [N + 1].
        middle: the times at which the score is evaluated, [N].
        half: the matrices of the two half steps of each step, [N, 2, 2, 2].
        half_noise: the matrices that multiply the noise in these half steps, [N, 2, 2, 2].
        kick: the matrices for u and eps in the Euler step, [N, 2, 2, 2]:
            `[I + 2 beta Gamma h diag(0, 1/M), -2 beta Gamma h diag(0, 1) K^{-T}]`, where h is the length of the step.
        last: the matrices of the denoising step, or None.
    """

    t: Array
    middle: Array
    half: Array
    half_noise: Array
    kick: Array
    last: Array | None


def splitting(cld: CLD, t: Array, k: KChoice, denoise: bool) -> Splitting:
    """The constants on a time grid. beta may depend on time; it is integrated over each half step."""
    from gddim_cli.numerics.matrices import symmetric_square_root
    from gddim_cli.samplers.coefficients import denoising_matrices

    middle = 0.5 * (t[1:] + t[:-1])
    edges = np.stack([t[:-1], middle, t[1:]], axis=1)
    spent = cld.B(edges[:, :-1], edges[:, 1:])  # int beta over each half, [N, 2]
    # In reversed time the velocity changes sign, so the half step is Psi with flipped signs off the diagonal.
    flip = np.diag([1.0, -1.0])
    half = flip @ cld.exponential(spent) @ flip
    stationary = cld.prior_factor @ cld.prior_factor.T
    noise = symmetric_square_root(stationary - half @ stationary @ half.swapaxes(-1, -2))
    size = (2 * cld.friction * spent.sum(axis=1))[:, None, None]
    score = np.diag([0.0, 1.0])
    kick = np.stack(
        [
            np.eye(2) + size * cld.m_inv * score,
            -size * score @ np.linalg.inv(cld.K(middle, k)).swapaxes(-1, -2),
        ],
        axis=1,
    )
    return Splitting(t, middle, half, noise, kick, denoising_matrices(cld, t[-1], k) if denoise else None)


def sscs_steps(eps: Eps, u: Tensor, constants: Splitting, draw: Draw) -> Iterator[Step]:
    """Yields the steps described in `Splitting`, then the denoising step.

    The Euler step is `v += 2 beta Gamma (score_v + v/M) h`. Each step takes one evaluation, at the midpoint of its
    interval; the denoising step takes one more.
    """
    from gddim_cli.numerics.blocks import combine, to_tensor_like
    from gddim_cli.samplers.multistep import denoising_step

    half, noise, kick = (to_tensor_like(m, u) for m in (constants.half, constants.half_noise, constants.kick))
    for i, t in enumerate(constants.middle.tolist()):
        u = combine([half[i, 0], noise[i, 0]], [u, draw(2 * i)])
        u = combine(list(kick[i]), [u, eps(u, t)])
        u = combine([half[i, 1], noise[i, 1]], [u, draw(2 * i + 1)])
        yield float(constants.t[i + 1]), u
    yield from denoising_step(eps, u, constants.last, float(constants.t[-1]))


def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: NoOptions) -> PreparedSampler:
    """Prepares SSCS with one step per evaluation.

    Raises:
        UsageError: the diffusion is not CLD, or the budget is too small for one step.
    """
    from gddim_cli.diffusions.cld import CLD

    if not isinstance(diffusion, CLD):
        raise UsageError(f"--sampler sscs: supports CLD only, not {diffusion.name}; use --sampler gddim or em")
    constants = splitting(diffusion, time_grid(diffusion, config, budget, budget), config.k, config.denoise)

    def solve(eps: Eps, u: Tensor, draw: Draw) -> Iterator[Step]:
        return sscs_steps(eps, u, constants, draw)

    return PreparedSampler(budget + config.denoise, budget + config.denoise, solve, options)


SPEC = SamplerSpec(
    "sscs", "SSCS", prepare, order="1 (weak)", stochastic=True, supports="cld", source="arXiv 2112.07068"
)
