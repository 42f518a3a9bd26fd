"""Networks of variance preserving diffusions.

The networks take `x = alpha y` and a time, where `alpha = 1 / sqrt(1 + sigma^2)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gddim_cli.models.conventions.base import Convention, ConventionSpec, Scaling
from gddim_cli.models.conventions.schedules import LinearSchedule, Schedule


class VariancePreserving(Convention, frozen=True):
    """The base class of the three conventions below, which differ in what the network predicts.

    Attributes:
        schedule: maps a noise level to the network's time input.
    """

    schedule: Schedule = LinearSchedule()

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.schedule.sigma_range


class Noise(VariancePreserving, frozen=True):
    """The network predicts the noise eps in `x = alpha x_0 + sigma alpha eps`: `D = y - sigma eps`."""

    def scaling(self, sigma: Tensor) -> Scaling:
        return Scaling(torch.ones_like(sigma), -sigma, alpha(sigma), self.schedule.time(sigma))


class Velocity(VariancePreserving, frozen=True):
    """The network predicts `v = alpha eps - sigma alpha x_0` (Salimans & Ho, arXiv 2202.00512).

    So `D = alpha x - sigma alpha v`.
    """

    def scaling(self, sigma: Tensor) -> Scaling:
        return Scaling(alpha(sigma).square(), -sigma * alpha(sigma), alpha(sigma), self.schedule.time(sigma))


class CleanImage(VariancePreserving, frozen=True):
    """The network predicts the clean image itself: `D = F`."""

    def scaling(self, sigma: Tensor) -> Scaling:
        return Scaling(torch.zeros_like(sigma), torch.ones_like(sigma), alpha(sigma), self.schedule.time(sigma))


def alpha(sigma: Tensor) -> Tensor:
    """`1 / sqrt(1 + sigma^2)`."""
    return (1 + sigma.square()).rsqrt()


NOISE = ConventionSpec(name="vp_eps", title="the noise in a variance preserving diffusion", parameters=Noise)
VELOCITY = ConventionSpec(name="v", title="v in a variance preserving diffusion", parameters=Velocity)
CLEAN_IMAGE = ConventionSpec(
    name="x0", title="the clean image in a variance preserving diffusion", parameters=CleanImage
)
