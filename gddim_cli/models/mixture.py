"""Mixtures of isotropic Gaussians as data, for testing samplers: their scores are known exactly in every diffusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.diffusions.cld import CLD
from gddim_cli.models.network import Counted
from gddim_cli.numerics.blocks import to_tensor_like
from gddim_cli.samplers.base import Eps


@dataclass(frozen=True)
class Mixture:
    """A `Model` with the exact scores of images `x_0 ~ sum_k w_k N(m_k, std^2 I)`.

    Attributes:
        means: `m_k`, [K, C, H, W], float64.
        std: the standard deviation of each component; 0 if each component is a single image.
        weights: `w_k`, [K], with sum 1.
    """

    means: Tensor
    std: float
    weights: Tensor
    name: ClassVar[str] = "mixture"
    sha256: ClassVar[str] = ""
    classes: ClassVar[int] = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.means.shape
        return channels, height, width

    @cached_property
    def network(self) -> Counted:
        """The exact denoiser, wrapped to count its evaluations."""
        return Counted(self.denoiser)

    @property
    def diffusion(self) -> Diffusion:
        """CLD, the default of every denoiser."""
        return CLD()

    def sigma_range_in(self, _: Diffusion) -> None:
        """None, since there is no limit: the score is exact at every noise level."""

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """The diffusion's own defaults."""
        return diffusion.sampling

    def denoiser(self, y: Tensor, sigma: Tensor) -> Tensor:
        """`E[x_0 | y = x_0 + N(0, sigma^2 I)]` for y [B, C, H, W] and sigma [B]."""
        total = (self.std**2 + sigma**2)[:, None]
        distance = (y[:, None] - self.means).square().flatten(2).sum(2)
        share = torch.softmax(self.weights.log() - distance / (2 * total), dim=1)
        mean = torch.einsum("bk,k...->b...", share, self.means)
        gain = (self.std**2 / total).view(-1, 1, 1, 1)
        return mean + gain * (y - mean)

    def score(self, diffusion: Diffusion) -> MixtureScore:
        """The gradient of `log p_t(u)`, a function of u [B, D, C, H, W] and t."""
        return MixtureScore(self, diffusion)

    def eps(self, diffusion: Diffusion, k: KChoice, labels: Tensor | None = None, times: Sequence[float] = ()) -> Eps:  # noqa: ARG002
        """`eps(u, t) = -K_t^T grad log p_t(u)`, the exact noise prediction.

        Args:
            labels: ignored, as a mixture has no classes.
            times: times for which the matrices are computed in advance, in one batch. The matrices for any other time
                are computed when needed.
        """
        score, at = self.score(diffusion), TimeTable(lambda t: (diffusion.K(t, k).swapaxes(-1, -2),))
        score.at.fill(times)
        at.fill(times)

        def call(u: Tensor, t: float) -> Tensor:
            self.network.nfe += 1
            (transposed,) = at(t)
            return -torch.einsum("de,be...->bd...", to_tensor_like(transposed, u), score(u, t))

        return call


@dataclass
class TimeTable:
    """A function of time, with a table of values that `fill` computes in advance.

    Attributes:
        function: maps a time, or an array of times, to a tuple of arrays, whose first dimensions are those of the
            times.
        known: the values computed by `fill`, by time.
    """

    function: Callable[..., tuple[np.ndarray, ...]]
    known: dict[float, tuple[np.ndarray, ...]] = field(default_factory=dict)

    def fill(self, times: Sequence[float]) -> None:
        """Computes the values at these times with one call of the function."""
        if len(times):
            rows = zip(*self.function(np.array(times)), strict=True)
            self.known.update(zip(times, rows, strict=True))

    def __call__(self, t: float) -> tuple[np.ndarray, ...]:
        """The values at t."""
        return self.known[t] if t in self.known else self.function(t)


class MixtureScore:
    """`grad log p_t`, where `p_t = sum_k w_k N(psi m_k, Sigma_t + std^2 psi psi^T)` and `psi = Psi(t, 0) e_x`.

    e_x is the unit vector of the image component of the state.
    """

    def __init__(self, mixture: Mixture, diffusion: Diffusion) -> None:
        self.mixture, self.diffusion = mixture, diffusion
        self.at = TimeTable(self._matrices)

    def _matrices(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`psi`, [..., D], and `(Sigma_t + std^2 psi psi^T)^{-1}`, [..., D, D]."""
        psi = self.diffusion.Psi(t, 0.0)[..., 0]
        spread = self.mixture.std**2 * psi[..., :, None] * psi[..., None, :]
        return psi, np.linalg.inv(self.diffusion.Sigma(t) + spread)

    def __call__(self, u: Tensor, t: float) -> Tensor:
        """The score at u [B, D, C, H, W]."""
        psi, precision = self.at(t)
        centred = u[:, None] - to_tensor_like(psi, u).view(1, 1, -1, 1, 1, 1) * self.mixture.means[None, :, None]
        pulled = torch.einsum("de,bke...->bkd...", to_tensor_like(precision, u), centred)
        exponent = -0.5 * (centred * pulled).flatten(2).sum(2)
        share = torch.softmax(self.mixture.weights.log() + exponent, dim=1)
        return -torch.einsum("bk,bk...->b...", share, pulled)
