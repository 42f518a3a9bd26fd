"""Time grids: `t_start = t_0 > t_1 > ... > t_N = t_end`."""

from __future__ import annotations

import numpy as np

from gddim_cli.errors import UsageError
from gddim_cli.numerics.quadrature import Array


def power_grid(t_start: float, t_end: float, steps: int, power: float = 2.0) -> Array:
    """`t_i = (t_start^{1/p} + i/N (t_end^{1/p} - t_start^{1/p}))^p`, [steps + 1], decreasing, float64.

    Raises:
        UsageError: fewer than one step, times that are not `0 < t_end < t_start`, a power that is not positive, or a power
            at which steps vanish.
    """
    if steps < 1:
        raise UsageError(f"a time grid needs at least one step, not {steps}")
    if not 0 < t_end < t_start:
        raise UsageError(f"--t-end: {t_end:g} is not between 0 and the start, {t_start:g}")
    if not power > 0:
        raise UsageError(f"--time-grid: the power {power:g} is not positive")
    root = np.linspace(t_start ** (1 / power), t_end ** (1 / power), steps + 1)
    grid = root**power
    grid[0], grid[-1] = t_start, t_end
    if not (np.diff(grid) < -1e-9 * grid[1:]).all():
        raise UsageError(
            f"--time-grid: with {steps} steps the power {power:g} makes steps of length zero; give one near 2"
        )
    return grid
