"""Restricts sampling to the noise levels `sigma_eff(t)` that a denoiser supports."""

from __future__ import annotations

import dataclasses

import numpy as np

from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.errors import UsageError
from gddim_cli.models.denoiser import isotropic_view
from gddim_cli.numerics.quadrature import Array

ROUNDING = 1e-6
"""Relative tolerance: a noise level that exceeds a limit by no more than this counts as within the limit."""


def sigma_eff(diffusion: Diffusion, t: float) -> float:
    """The noise level that a denoiser sees for a state at time t (see `isotropic_view`)."""
    return isotropic_view(diffusion, t)[1]


def within_range(
    diffusion: Diffusion, config: SamplingConfig, levels: tuple[float, float] | None
) -> tuple[SamplingConfig, list[str]]:
    """The configuration, with t_start and t_end moved to supported noise levels if necessary, and a note for each move.

    Args:
        levels: the lowest and the highest noise level that the model supports; None for no limits.

    Raises:
        UsageError: no supported noise level lies between t_start and t_end.
    """
    if levels is None or diffusion.spectral:
        return config, []
    lowest, highest = levels
    start, end = sigma_eff(diffusion, config.t_start), sigma_eff(diffusion, config.t_end)
    if start <= lowest or end >= highest:
        raise UsageError(
            f"the model supports noise levels {lowest:g} to {highest:g}, but {diffusion.name} from "
            f"t = {config.t_start:g} to {config.t_end:g} has {start:.4g} to {end:.4g}; use another --diffusion"
        )
    notes = []
    if start > highest * (1 + ROUNDING):
        t = time_of(diffusion, highest, config)
        notes.append(
            f"starting at t = {t:.4g}, noise level {highest:g}, the highest that the model supports (instead of {start:.4g})"
        )
        config = dataclasses.replace(config, t_start=t)
    if end < lowest * (1 - ROUNDING):
        t = time_of(diffusion, lowest, config)
        notes.append(
            f"ending at t = {t:.4g}, noise level {lowest:g}, the lowest that the model supports (instead of {end:.4g})"
        )
        config = dataclasses.replace(config, t_end=t)
    return config, notes


def time_of(diffusion: Diffusion, level: float, config: SamplingConfig) -> float:
    """The time between t_end and t_start at which `sigma_eff` is `level`."""
    from scipy.optimize import brentq  # Imported here, since it takes 0.2 s and is rarely needed.

    def distance(log_t: float) -> float:
        return float(np.log(sigma_eff(diffusion, float(np.exp(log_t))) / level))

    ends = np.log([config.t_end, config.t_start])
    return float(np.clip(np.exp(brentq(distance, *ends, xtol=1e-12)), config.t_end, config.t_start))


def start_factor(diffusion: Diffusion, t_start: float, prior_time: float) -> Array:
    """`S` with `u_{t_start} = S z`, `z ~ N(0, I)`, [D, D].

    Let t be `t_start`, and let T be `prior_time`, the time of the prior. If t = T, then S is `prior_factor`. If t < T,
    then S is `R_t R_T^{-1} prior_factor`: the draw from the prior follows the probability flow for data that are all 0,
    from T to t. The same z then yields a similar image from t as from T.
    """
    if t_start == prior_time:
        return diffusion.prior_factor
    return np.asarray(
        diffusion.R(t_start) @ np.linalg.inv(diffusion.R(prior_time)) @ diffusion.prior_factor, dtype=np.float64
    )
