"""A rate that changes linearly with time, shared by several diffusions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.numerics.quadrature import Array


class LinearRate:
    """`beta_t = beta_0 + beta_1 t`."""

    beta_0: float
    beta_1: float

    def beta(self, t: ArrayLike) -> Array:
        """`beta_t`, [...]."""
        return self.beta_0 + self.beta_1 * np.asarray(t, dtype=np.float64)

    def B(self, t: ArrayLike, s: ArrayLike) -> Array:
        """`int_s^t beta`, [...]."""
        t, s = np.asarray(t, dtype=np.float64), np.asarray(s, dtype=np.float64)
        return (t - s) * (self.beta_0 + 0.5 * self.beta_1 * (t + s))
