"""iPNDM (Zhang & Chen, arXiv 2204.13902; Liu et al., arXiv 2202.09778): DDIM with Adams-Bashforth weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gddim_cli.samplers.dimension_1 import Scales, half_log_snr_sampler

if TYPE_CHECKING:
    from gddim_cli.numerics.quadrature import Array

ADAMS_BASHFORTH = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""The weights of order 1 to 4 for equal steps, the latest evaluation first."""


def weights(at: Scales) -> Array:
    """DDIM's coefficient `sigma_{i+1} - (alpha_{i+1} / alpha_i) sigma_i`, times the Adams-Bashforth weights.

    The weights combine the last four evaluations as if all steps had the same length.
    """
    ddim = at.sigma[1:] - at.alpha[1:] / at.alpha[:-1] * at.sigma[:-1]
    rows = np.array([ADAMS_BASHFORTH[min(i, 3)] for i in range(at.steps)])
    return np.asarray(rows.reshape(*rows.shape, *[1] * (ddim.ndim - 1)) * ddim[:, None])


SPEC = half_log_snr_sampler(
    "ipndm", "iPNDM", "eps", weights, order="1 (4 for equal steps in rho)", source="arXiv 2204.13902"
)
