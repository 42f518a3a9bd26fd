"""DEIS (Zhang & Chen, arXiv 2204.13902), rho-AB: eps is interpolated in log rho, where `rho = sigma / alpha`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gddim_cli.samplers.dimension_1 import Scales, half_log_snr_sampler, polynomial_integrals

if TYPE_CHECKING:
    from gddim_cli.numerics.quadrature import Array

EVALUATIONS = 3


def weights(at: Scales) -> Array:
    """`C_ij = alpha_{i+1} int l_j(log rho) drho` over step i, where `rho = sigma / alpha`.

    `l_j` are the Lagrange polynomials on the last three evaluations. With polynomials in t instead of log rho, the
    method would be tAB, which is gDDIM of order 2.
    """
    lam = at.half_log_snr
    found = np.zeros((at.steps, EVALUATIONS, *lam.shape[1:]))
    for i in range(at.steps):
        nodes = range(i, max(i - EVALUATIONS, -1), -1)
        found[i, : len(nodes)] = [-at.alpha[i + 1] * c for c in polynomial_integrals(lam, i, nodes, -1.0)]
    return found


SPEC = half_log_snr_sampler("deis", "DEIS", "eps", weights, order="3", source="arXiv 2204.13902")
