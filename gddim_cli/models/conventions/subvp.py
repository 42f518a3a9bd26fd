"""Networks of the sub-variance preserving diffusion (Song et al., arXiv 2011.13456)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gddim_cli.models.conventions.base import Convention, ConventionSpec, Scaling
from gddim_cli.models.conventions.schedules import LinearSchedule


class SubVP(Convention, frozen=True):
    """The network F predicts the noise n in `x = a x_0 + (1 - a^2) n`, where `a^2 = exp(-int beta)`.

    So `score = -F / (1 - a^2)` and `D = y - sigma F`, where `y = x / a` and `sigma = (1 - a^2) / a`.

    Attributes:
        schedule: maps a noise level to the network's time input.
    """

    schedule: LinearSchedule = LinearSchedule()

    def scaling(self, sigma: Tensor) -> Scaling:
        decay = torch.asinh(0.5 * sigma)  # this is ln(1/a), since sigma = 1/a - a
        return Scaling(torch.ones_like(sigma), -sigma, (-decay).exp(), self.schedule.time_of_integral(2 * decay))

    @property
    def sigma_range(self) -> tuple[float, float]:
        low, high = (2 * math.sinh(self.schedule.integral(t) / 2) for t in (self.schedule.t_min, self.schedule.t_max))
        return low, high


SPEC = ConventionSpec(name="subvp_eps", title="the noise in the sub-variance preserving diffusion", parameters=SubVP)
