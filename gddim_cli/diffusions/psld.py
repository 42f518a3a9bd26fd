"""Phase-space Langevin diffusion (Pandey & Mandt, arXiv 2303.01748): noise in the pixel and in its velocity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gddim_cli.diffusions.base import SamplingConfig
from gddim_cli.diffusions.langevin import Langevin
from gddim_cli.numerics.quadrature import Array


@dataclass(frozen=True)
class PSLD(Langevin):
    """`F = beta/2 [[-Gamma, 1/M], [-1, -nu]]`, `GG = beta diag(Gamma, M nu)`; CLD is Gamma = 0 with beta doubled.

    Critical damping is `1/M = (Gamma - nu)^2 / 4`, which the defaults (their CIFAR-10 model) meet.

    Attributes:
        Gamma: the pixel's friction, and the strength of its noise.
        nu: the velocity's.
        numerical_eps: at t = 0 only, so that one Gaussian is exactly solved; their program adds it at every t.
    """

    name = "psld"
    sampling = SamplingConfig(denoise=True)

    beta_0: float = 8.0
    beta_1: float = 0.0
    m_inv: float = 4.0
    Gamma: float = 0.01
    nu: float = 4.01
    gamma: float = 0.04
    numerical_eps: float = 1e-9

    @cached_property
    def A(self) -> Array:
        return 0.5 * np.array([[-self.Gamma, self.m_inv], [-1.0, -self.nu]])

    @cached_property
    def Q(self) -> Array:
        return np.diag([self.Gamma, self.M * self.nu])
