"""Mixtures of isotropic Gaussians under any diffusion: exact scores, to prove samplers on."""

from __future__ import annotations

from dataclasses import dataclass
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
    """Images `x_0 ~ sum_k w_k N(m_k, std^2 I)`.

    Attributes:
        means: [K, C, H, W], float64.
        std: of each component; 0 makes each a point.
        weights: [K], summing to 1.
    """

    means: Tensor
    std: float
    weights: Tensor
    name: ClassVar[str] = "mixture"
    sha256: ClassVar[str] = ""
    sigma_range: ClassVar[None] = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a model says it."""
        _, channels, height, width = self.means.shape
        return channels, height, width

    @cached_property
    def network(self) -> Counted:
        """The exact denoiser, which counts its evaluations."""
        return Counted(self.denoiser)

    @property
    def diffusion(self) -> Diffusion:
        """CLD, as for every denoiser."""
        return CLD()

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """The diffusion's own defaults."""
        return diffusion.sampling

    def denoiser(self, y: Tensor, sigma: Tensor) -> Tensor:
        """`E[x_0 | y = x_0 + N(0, sigma^2 I)]` for y [B, C, H, W], sigma [B]."""
        total = (self.std**2 + sigma**2)[:, None]
        distance = (y[:, None] - self.means).square().flatten(2).sum(2)
        share = torch.softmax(self.weights.log() - distance / (2 * total), dim=1)
        mean = torch.einsum("bk,k...->b...", share, self.means)
        gain = (self.std**2 / total).view(-1, 1, 1, 1)
        return mean + gain * (y - mean)

    def eps(self, diffusion: Diffusion, k: KChoice) -> Eps:
        """`eps = -K^T score` of `p_t = sum_k w_k N(psi m_k, Sigma_t + std^2 psi psi^T)`, written down directly."""

        def call(u: Tensor, t: float) -> Tensor:
            self.network.nfe += 1
            psi = diffusion.Psi(t, 0.0)[:, 0]
            precision = np.linalg.inv(diffusion.Sigma(t) + self.std**2 * np.outer(psi, psi))
            centred = u[:, None] - to_tensor_like(psi, u).view(1, 1, -1, 1, 1, 1) * self.means[None, :, None]
            pulled = torch.einsum("de,bke...->bkd...", to_tensor_like(precision, u), centred)
            exponent = -0.5 * (centred * pulled).flatten(2).sum(2)
            share = torch.softmax(self.weights.log() + exponent, dim=1)
            score = -torch.einsum("bk,bk...->b...", share, pulled)
            return -torch.einsum("ed,be...->bd...", to_tensor_like(diffusion.K(t, k), u), score)

        return call
