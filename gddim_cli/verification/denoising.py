"""How well a model denoises: its errors on known images at several noise levels, relative to a linear denoiser's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.models.denoiser import isotropic_view
from gddim_cli.models.isotropic import IsotropicDenoiser
from gddim_cli.models.model import Model
from gddim_cli.models.network import Counted, Network
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.samplers.base import Eps
from gddim_cli.verification.linear_denoiser import LinearDenoiser

BATCH = 16
"""Images per batch."""
LOWEST, HIGHEST = 0.002, 80.0
"""The noise levels between which a model is tested if it does not state a range."""
TINY = 1e-15
"""Lower bound on errors, so that their ratios are neither zero nor infinite."""
DRAWN_FROM, DRAWN_TO = 80.0, 0.01
"""The noise levels between which images are drawn from a model."""


@dataclass(frozen=True)
class OwnDiffusionReading:
    """Turns a noise prediction into an estimate of the clean image x_0, on states u_t of the model's own diffusion.

    Let psi be the first column of `Psi(t, 0)`. For K = R, `u - psi x_0 = K eps` leads to the estimate `w^T (u - K eps)`
    with the weights w of `isotropic_view`. For K = L, a model may predict only the last component of eps. The estimate
    is then the solution x_0 of the last row of `K^{-1} (u - psi x_0) = eps`.

    Attributes:
        model: the model, a dataclass.
        k: the K for which the model is assumed to predict eps.
    """

    model: Model
    k: KChoice

    @cached_property
    def eps(self) -> Eps:
        """The model's noise prediction."""
        diffusion = self.model.diffusion
        return self.model.eps(diffusion, self.model.config(diffusion).k)

    def with_network(self, network: Network) -> OwnDiffusionReading:
        """The same reading with another network."""
        model: Any = self.model
        return dataclasses.replace(self, model=dataclasses.replace(model, network=Counted(network)))

    def __call__(self, x: Tensor, t: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws states at t from the images x.

        Returns:
            The isotropic views y of the states (see `isotropic_view`), and the estimates of x, both [N, C, H, W].
        """
        d = self.model.diffusion
        weights, _, psi = isotropic_view(d, t)
        z = normal((len(x), d.D, *x.shape[1:]), generator, x)
        u = to_tensor_like(psi, x).view(1, -1, 1, 1, 1) * x[:, None] + combine([to_tensor_like(d.L(t), x)], [z])
        to_y = to_tensor_like(weights, x)[None]
        y, eps = combine([to_y], [u])[:, 0], torch.cat([self.eps(u[i : i + BATCH], t) for i in range(0, len(u), BATCH)])
        if self.k == "R":
            return y, combine([to_y], [u - combine([to_tensor_like(d.K(t, "R"), x)], [eps])])[:, 0]
        row = np.linalg.inv(d.K(t, "L"))[-1:]
        return y, (combine([to_tensor_like(row, x)], [u])[:, 0] - eps[:, -1]) / float(row[0] @ psi)


Reading = IsotropicDenoiser | OwnDiffusionReading
"""An interpretation of a network's output as an estimate of the clean image."""


@dataclass(frozen=True)
class Level:
    """A noise level to test at.

    Attributes:
        sigma: the standard deviation of the noise.
        t: the time in the model's own diffusion; 0 for isotropic denoisers.
    """

    sigma: float
    t: float = 0.0


def normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers, drawn on the CPU so that they do not depend on the device."""
    return torch.randn(shape, generator=generator).to(like)


def in_batches(denoiser: IsotropicDenoiser, y: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
    """`D(y, sigma)`, [N, C, H, W]."""
    parts = [slice(i, i + BATCH) for i in range(0, len(y), BATCH)]
    levels = y.new_full((len(y),), sigma)
    return torch.cat([denoiser(y[i], levels[i], None if labels is None else labels[i]) for i in parts])


@dataclass(frozen=True)
class LevelError:
    """Mean squared errors per pixel at a noise level.

    Attributes:
        sigma: the noise level.
        model: the model's error; infinite if its output is not finite.
        linear: the linear denoiser's error.
    """

    sigma: float
    model: float
    linear: float

    @property
    def ratio(self) -> float:
        """The model's error relative to the linear denoiser's."""
        return self.model / self.linear


@torch.inference_mode()
def measure(
    reading: Reading, images: Tensor, labels: Tensor | None, level: Level, linear: LinearDenoiser
) -> LevelError:
    """The errors at a noise level, with the same noise at every call.

    Args:
        images: [N, C, H, W] in [-1, 1], on the model's device.
        labels: their classes, [N]; None for an unconditional model.
        linear: the linear denoiser, on the CPU.
    """
    generator, sigma = torch.Generator().manual_seed(0), level.sigma
    if isinstance(reading, OwnDiffusionReading):
        y, estimate = reading(images, level.t, generator)
    else:
        y = images + sigma * normal(tuple(images.shape), generator, images)
        estimate = in_batches(reading, y, sigma, labels)
    clean = images.cpu().double()
    error = float((estimate.cpu().double() - clean).square().mean())
    linear_error = float((linear(y.cpu(), sigma) - clean).square().mean())
    return LevelError(sigma, max(error, TINY) if math.isfinite(error) else math.inf, max(linear_error, TINY))


def mean_ratio(errors: Sequence[LevelError]) -> float:
    """The model's error relative to the linear denoiser's, as the geometric mean over the noise levels."""
    return math.exp(sum(math.log(error.ratio) for error in errors) / len(errors))


@torch.inference_mode()
def draw_images(
    denoiser: IsotropicDenoiser,
    count: int,
    shape: tuple[int, int, int],
    device: torch.device,
    labels: Tensor | None,
    evaluations: int,
) -> Tensor:
    """Images drawn by a two-step method along the probability flow `dy/dsigma = (y - D) / sigma`, not clipped.

    Returns:
        [count, C, H, W].
    """
    high, low = min(denoiser.sigma_max, DRAWN_FROM), max(denoiser.sigma_min, DRAWN_TO)
    sigmas = np.linspace(high ** (1 / 7), low ** (1 / 7), evaluations) ** 7
    y = high * normal((count, *shape), torch.Generator().manual_seed(0), torch.empty(0, device=device))
    before = torch.zeros_like(y)
    for number, sigma in enumerate(sigmas[:-1]):
        slope = (y - in_batches(denoiser, y, float(sigma), labels)) / sigma
        step = sigmas[number + 1] - sigma
        share = step / (sigma - sigmas[number - 1]) / 2 if number else 0.0
        y, before = y + step * (slope + share * (slope - before)), slope
    return in_batches(denoiser, y, float(sigmas[-1]), labels)


def levels_of(denoiser: IsotropicDenoiser, count: int) -> list[Level]:
    """Noise levels in geometric progression, from the lowest to the highest that a denoiser supports."""
    low, high = denoiser.sigma_min or LOWEST, denoiser.sigma_max if math.isfinite(denoiser.sigma_max) else HIGHEST
    return [Level(float(sigma)) for sigma in np.geomspace(low, high, count)]


def levels_in(diffusion: Diffusion, t_start: float, t_end: float, count: int) -> list[Level]:
    """The noise levels at times in geometric progression, from t_end to t_start."""
    times = [float(t) for t in np.geomspace(t_end, t_start, count)]
    return [Level(isotropic_view(diffusion, t)[1], t) for t in times]
