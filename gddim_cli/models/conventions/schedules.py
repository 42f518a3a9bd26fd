"""Variance preserving noise schedules, which map a noise level to the network's time input.

The network takes the images `x = alpha y` with `alpha = 1 / sqrt(1 + sigma^2)`. Discrete schedules call `alpha^2`
`alphas_cumprod`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_BETA = 0.999
"""The largest beta of the cosine schedule (Nichol & Dhariwal, arXiv 2102.09672)."""

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Steps = Annotated[int, msgspec.Meta(ge=2, le=100_000)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class LinearSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="linear", tag_field="kind"):
    """Continuous time: `alpha_t^2 = exp(-(beta_0 t + beta_1 t^2 / 2))` (Song et al., arXiv 2011.13456).

    Attributes:
        beta_0, beta_1: the coefficients of `beta_t = beta_0 + beta_1 t`.
        time_scale: the network's time input is `time_scale t`.
        t_min, t_max: the lowest and the highest time t that the network was trained on.
    """

    beta_0: Positive = 0.1
    beta_1: Positive = 19.9
    time_scale: Positive = 999.0
    t_min: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-5
    t_max: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0

    def time(self, sigma: Tensor) -> Tensor:
        """The network's time for noise levels sigma, where `alpha_t^2 = 1 / (1 + sigma^2)`, [N], float64."""
        return self.time_of_integral(torch.log1p(sigma.square()))

    def time_of_integral(self, integral: Tensor) -> Tensor:
        """The network's time for a given `int_0^t beta`: t is the root of `beta_1 t^2 / 2 + beta_0 t = integral`."""
        t = 2 * integral / (self.beta_0 + (self.beta_0**2 + 2 * self.beta_1 * integral).sqrt())
        return self.time_scale * t

    def integral(self, t: float) -> float:
        """`int_0^t beta`."""
        return t * (self.beta_0 + 0.5 * self.beta_1 * t)

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The noise levels at t_min and t_max."""
        low, high = (math.sqrt(math.expm1(self.integral(t))) for t in (self.t_min, self.t_max))
        return low, high


class DiscreteSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="discrete", tag_field="kind"):
    """Discrete time: steps 0, 1, ... with `alphas_cumprod = cumprod(1 - beta)`.

    Between two steps, the time is interpolated linearly in log(sigma).

    Attributes:
        betas: `linear` and `scaled_linear` (linear in sqrt(beta)) run from beta_start to beta_end. `cosine` makes
            `alphas_cumprod` proportional to `cos^2((i/steps + 0.008) / 1.008 pi/2)`, but no beta exceeds 0.999. A
            tuple gives the beta of every step.
        steps: the number of steps.
        time_scale: the network's time input is `time_scale step`.
        nearest: whether to take the nearest step (in sigma) instead of interpolating.
    """

    betas: Literal["linear", "scaled_linear", "cosine"] | tuple[Share, ...]
    steps: Steps = 1000
    beta_start: Share = 1e-4
    beta_end: Share = 0.02
    time_scale: Positive = 1.0
    nearest: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.betas, tuple) and len(self.betas) != self.steps:
            raise ValueError(f"{len(self.betas)} betas for {self.steps} steps")

    def time(self, sigma: Tensor) -> Tensor:
        """The network's time for noise levels sigma, [N], float64. Levels out of range are clipped."""
        table = self._table(sigma.device)
        above = torch.bucketize(sigma, table).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        if self.nearest:
            step = torch.where(sigma - low < high - sigma, above - 1, above).to(sigma)
        else:
            share = ((sigma / low).log() / (high / low).log()).clamp(0, 1)
            step = above - 1 + share
        return self.time_scale * step

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The noise levels of the first and the last step."""
        levels = noise_levels(self)
        return float(levels[0]), float(levels[-1])

    def _table(self, device: torch.device) -> Tensor:
        return levels_on(self, device)


Schedule = LinearSchedule | DiscreteSchedule


def beta_values(schedule: DiscreteSchedule) -> NDArray[np.float64]:
    """`beta_i`, [steps]."""
    if isinstance(schedule.betas, tuple):
        return np.array(schedule.betas)
    start, end, steps = schedule.beta_start, schedule.beta_end, schedule.steps
    if schedule.betas == "linear":
        return np.linspace(start, end, steps)
    if schedule.betas == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, steps) ** 2
    cosine = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - cosine[1:] / cosine[:-1], MAX_BETA)


@lru_cache(maxsize=16)
def noise_levels(schedule: DiscreteSchedule) -> NDArray[np.float64]:
    """`sigma_i = sqrt(1 / alphas_cumprod_i - 1)`, rising, [steps], float64."""
    return np.sqrt(np.expm1(-np.cumsum(np.log1p(-beta_values(schedule)))))


@lru_cache(maxsize=16)
def levels_on(schedule: DiscreteSchedule, device: torch.device) -> Tensor:
    """`noise_levels` on a device."""
    return torch.from_numpy(noise_levels(schedule)).to(device)
