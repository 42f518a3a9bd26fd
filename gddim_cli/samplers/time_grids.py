"""Time grids `t_start = t_0 > ... > t_N = t_end`, spaced evenly in a power of t or the noise level, or in log SNR."""

from __future__ import annotations

import math

import numpy as np

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.errors import UsageError
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.noise_level import noise_level, times_of_levels

LOG_SNR = "logsnr"
RHO = "rho:"


def grid_times(diffusion: Diffusion, t_start: float, t_end: float, steps: int, grid: float | str = 2.0) -> Array:
    """The times of a grid, [steps + 1], decreasing, float64.

    Args:
        grid: how the times are spaced. A number p: evenly in `t^{1/p}`. `logsnr`: evenly in `log sigma_t`, where
            `sigma_t` is the `noise_level`. `rho:P`: evenly in `sigma_t^{1/P}`, as in Karras et al. (arXiv 2206.00364,
            Eq. 5).

    Raises:
        UsageError: there is less than one step, `0 < t_end < t_start` does not hold, the grid is unknown, or some steps
            have length zero.
    """
    if not isinstance(grid, str):
        return power_grid(t_start, t_end, steps, grid)
    check_ends(t_start, t_end, steps)
    highest, lowest = noise_level(diffusion, np.array([t_start, t_end])).tolist()
    if grid == LOG_SNR:
        levels = np.geomspace(highest, lowest, steps + 1)
    else:
        rho = rho_of(grid)
        levels = np.linspace(highest ** (1 / rho), lowest ** (1 / rho), steps + 1) ** rho
    times = times_of_levels(diffusion, levels, t_start, t_end)
    times[0], times[-1] = t_start, t_end
    return refuse_empty_steps(times, grid)


def rho_of(grid: str) -> float:
    """The number P in the name `rho:P` of a grid.

    Raises:
        UsageError: the name does not have this form.
    """
    try:
        rho = float(grid.removeprefix(RHO)) if grid.startswith(RHO) else 0.0
    except ValueError:
        rho = 0.0
    if not 0 < rho < math.inf:
        raise UsageError(f"--time-grid: '{grid}' is not a power of t, {LOG_SNR}, or {RHO}P with a positive number P")
    return rho


def power_grid(t_start: float, t_end: float, steps: int, power: float = 2.0) -> Array:
    """`t_i = (t_start^{1/p} + i/N (t_end^{1/p} - t_start^{1/p}))^p`, [steps + 1], decreasing, float64.

    Raises:
        UsageError: there is less than one step, `0 < t_end < t_start` does not hold, the power is not positive, or some
            steps have length zero.
    """
    check_ends(t_start, t_end, steps)
    if not power > 0:
        raise UsageError(f"--time-grid: the power {power:g} is not positive")
    root = np.linspace(t_start ** (1 / power), t_end ** (1 / power), steps + 1)
    grid = root**power
    grid[0], grid[-1] = t_start, t_end
    return refuse_empty_steps(grid, f"the power {power:g}")


def check_ends(t_start: float, t_end: float, steps: int) -> None:
    """Raises UsageError if there is less than one step, or if `0 < t_end < t_start` does not hold."""
    if steps < 1:
        raise UsageError(f"a time grid needs at least one step, not {steps}")
    if not 0 < t_end < t_start:
        raise UsageError(f"--t-end: {t_end:g} is not between 0 and the start, {t_start:g}")


def refuse_empty_steps(grid: Array, name: str) -> Array:
    """Returns the grid; raises UsageError if two consecutive times are equal up to rounding."""
    if not (np.diff(grid) < -1e-9 * grid[1:]).all():
        raise UsageError(
            f"--time-grid: with {len(grid) - 1} steps, {name} produces steps of length zero; give a power near 2"
        )
    return grid
