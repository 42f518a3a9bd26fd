"""DPM-Solver++ (2M) (Lu et al., arXiv 2211.01095, Algorithm 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gddim_cli.samplers.dimension_1 import Scales, half_log_snr_sampler

if TYPE_CHECKING:
    from gddim_cli.numerics.quadrature import Array


def weights(at: Scales) -> Array:
    """The weights of x0_i and x0_{i-1} in `-alpha_{i+1} (e^{-h_i} - 1) [(1 + 1/(2 r)) x0_i - 1/(2 r) x0_{i-1}]`.

    `x0_i` is the estimate of the image at `t_i`, lambda is the half log SNR, `h_i = lambda_{i+1} - lambda_i` and
    `r = h_{i-1} / h_i`. The first step has order 1.
    """
    h = np.diff(at.half_log_snr, axis=0)
    outer = -at.alpha[1:] * np.expm1(-h)
    share = np.zeros_like(h)
    share[1:] = h[1:] / (2 * h[:-1])
    return np.stack([outer * (1 + share), -outer * share], axis=1)


SPEC = half_log_snr_sampler("dpm++2m", "DPM-Solver++ 2M", "x0", weights, order="2", source="arXiv 2211.01095")
