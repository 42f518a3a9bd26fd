"""DPM-Solver++ (3M), which uses the last three evaluations, as in the code of Lu et al. (arXiv 2211.01095)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gddim_cli.samplers.dimension_1 import Scales, half_log_snr_sampler
from gddim_cli.samplers.dpm_solver_2m import weights as weights_2m

if TYPE_CHECKING:
    from gddim_cli.numerics.quadrature import Array


def weights(at: Scales) -> Array:
    """The weights of the last three estimates x0 in `alpha_{i+1} [-(e^{-h} - 1) x0_i + phi_2 D_1 - phi_3 D_2]`.

    lambda is the half log SNR, `h = h_i = lambda_{i+1} - lambda_i`, `phi_2 = (e^{-h} - 1)/h + 1` and
    `phi_3 = phi_2/h - 1/2`. With `r_k = h_{i-1-k} / h_i` and the divided differences
    `d_k = (x0_{i-k} - x0_{i-k-1}) / r_k`: `D_2 = (d_0 - d_1) / (r_0 + r_1)` and `D_1 = d_0 + r_0 D_2`. The first two
    steps are those of DPM-Solver++ (2M).

    `D_2` approximates `h^2 x0'' / 2` (derivatives with respect to lambda), but phi_3 is the weight for `h^2 x0''`. The
    method therefore has order 2 instead of 3. We keep the formula to match other implementations.
    """
    h = np.diff(at.half_log_snr, axis=0)
    found = np.concatenate([weights_2m(at), np.zeros_like(h)[:, None]], axis=1)
    now, r_0, r_1 = h[2:], h[1:-1] / h[2:], h[:-2] / h[2:]
    phi_2 = np.expm1(-now) / now + 1
    phi_3 = phi_2 / now - 0.5
    by_d_0 = phi_2 * (1 + r_0 / (r_0 + r_1)) - phi_3 / (r_0 + r_1)
    by_d_1 = -phi_2 * r_0 / (r_0 + r_1) + phi_3 / (r_0 + r_1)
    columns = [-np.expm1(-now) + by_d_0 / r_0, -by_d_0 / r_0 + by_d_1 / r_1, -by_d_1 / r_1]
    found[2:] = at.alpha[3:, None] * np.stack(columns, axis=1)
    return found


SPEC = half_log_snr_sampler("dpm++3m", "DPM-Solver++ 3M", "x0", weights, order="2", source="arXiv 2211.01095")
