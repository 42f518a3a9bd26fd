"""Multistep methods in the half log SNR, for diffusions of state dimension 1: `u_t = alpha_t x_0 + sigma_t eps`.

With the half log SNR `lambda = log(alpha / sigma)`, the probability flow is `d(u / sigma) = e^lambda x_0 dlambda` (data
prediction) or `d(u / alpha) = -e^{-lambda} eps dlambda` (noise prediction). For a diffusion in frequency space, these
equations hold for each frequency instead of each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from gddim_cli.errors import UsageError
from gddim_cli.samplers.base import SamplerSpec, multistep_sampler, time_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import msgspec

    from gddim_cli.diffusions.base import Diffusion, SamplingConfig
    from gddim_cli.numerics.quadrature import Array
    from gddim_cli.samplers.base import PreparedSampler
    from gddim_cli.samplers.coefficients import Coefficients

SUPPORTS = "state dimension 1"
Weights: TypeAlias = "Callable[[Scales], Array]"
"""Maps the `Scales` at the grid's times to the weights `C` of `half_log_snr_coefficients`, [N, order + 1, ...]."""


@dataclass(frozen=True)
class Scales:
    """The factors of the image and of the noise at the times of a grid.

    Attributes:
        alpha, sigma: the factor of the image and that of the noise at each time, both [N + 1, 1, 1], or
            [N + 1, H, W, 1, 1] if they differ by frequency.
    """

    alpha: Array
    sigma: Array

    @property
    def half_log_snr(self) -> Array:
        """`lambda = log(alpha / sigma)`, in the shape of alpha; lambda increases along the grid."""
        return np.log(self.alpha / self.sigma)

    @property
    def steps(self) -> int:
        """The number of steps, N."""
        return len(self.alpha) - 1


def require_dimension_1(diffusion: Diffusion, sampler: str) -> None:
    """Raises UsageError if the state dimension per pixel of the diffusion is above 1."""
    if diffusion.D != 1:
        raise UsageError(
            f"--sampler {sampler}: needs a diffusion of state dimension 1 per pixel, but {diffusion.name} has "
            f"{diffusion.D}; use --sampler gddim"
        )


def half_log_snr_coefficients(
    diffusion: Diffusion, t: Array, config: SamplingConfig, predicts: Literal["x0", "eps"], weights: Weights
) -> Coefficients:
    """The coefficients of a multistep method on the grid t, [N + 1].

    Data prediction: `u_{i+1} = (sigma_{i+1} / sigma_i) u_i + sum_j C_ij x0hat_{i-j}`.
    Noise prediction: `u_{i+1} = (alpha_{i+1} / alpha_i) u_i + sum_j C_ij eps_{i-j}`.
    """
    from gddim_cli.samplers.coefficients import Coefficients, data_prediction, denoising_matrices

    at = Scales(diffusion.Psi(t, 0.0), diffusion.R(t))
    last = denoising_matrices(diffusion, t[-1], config.k) if config.denoise else None
    kept = at.sigma if predicts == "x0" else at.alpha
    prediction = data_prediction(diffusion, t[:-1], config.k) if predicts == "x0" else None
    return Coefficients(t, kept[1:] / kept[:-1], weights(at), config.k, last, prediction=prediction)


def half_log_snr_sampler(
    name: str, title: str, predicts: Literal["x0", "eps"], weights: Weights, *, order: str, source: str
) -> SamplerSpec:
    """The spec of a multistep method in the half log SNR, with one evaluation per step.

    With data prediction, the default time grid is uniform in log SNR.
    """

    def prepare(diffusion: Diffusion, config: SamplingConfig, budget: int, options: msgspec.Struct) -> PreparedSampler:
        require_dimension_1(diffusion, name)
        t = time_grid(diffusion, config, budget, budget)
        return multistep_sampler(half_log_snr_coefficients(diffusion, t, config, predicts, weights), options)

    grid = {"grid_power": "logsnr"} if predicts == "x0" else {}
    return SamplerSpec(name, title, prepare, order=order, source=source, supports=SUPPORTS, defaults=lambda *_: grid)


def polynomial_integrals(lam: Array, i: int, nodes: Sequence[int], rate: float) -> list[Array]:
    """`int e^{rate lambda} l_j dlambda` from `lambda_i` to `lambda_{i+1}` for the Lagrange polynomials l_j on `nodes`.

    Args:
        lam: lambda at the grid's times, [N + 1, ...].
        nodes: the indices of the nodes in `lam`.
    """
    from gddim_cli.numerics.quadrature import rule

    points, weights, _ = rule()
    shape = (-1, *[1] * (lam.ndim - 1))
    half = 0.5 * (lam[i + 1] - lam[i])
    x = lam[i] + half * (1 + points.reshape(shape))
    weighted = half * weights.reshape(shape) * np.exp(rate * x)
    found = []
    for j in nodes:
        factors = [(x - lam[m]) / (lam[j] - lam[m]) for m in nodes if m != j]
        found.append((weighted * np.prod(factors, axis=0)).sum(axis=0) if factors else weighted.sum(axis=0))
    return found
