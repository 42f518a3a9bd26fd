"""DEIS (Zhang & Chen, arXiv 2204.13902), rho-AB: exponential Adams-Bashforth on eps, polynomials in log rho."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gddim_cli.samplers.base import SamplerSpec
from gddim_cli.samplers.dimension_1 import SUPPORTS, Scales, one_evaluation_a_step, polynomial_integrals

if TYPE_CHECKING:
    from gddim_cli.numerics.quadrature import Array

EVALUATIONS = 3


def weights(at: Scales) -> Array:
    """`C_ij = alpha' int l_j(log rho) drho`, `rho = sigma / alpha`, on the last three evaluations.

    Polynomials in t instead give tAB, which is gDDIM of order 2.
    """
    lam = at.half_log_snr
    found = np.zeros((at.steps, EVALUATIONS, *lam.shape[1:]))
    for i in range(at.steps):
        nodes = range(i, max(i - EVALUATIONS, -1), -1)
        found[i, : len(nodes)] = [-at.alpha[i + 1] * c for c in polynomial_integrals(lam, i, nodes, -1.0)]
    return found


SPEC = SamplerSpec(
    name="deis",
    title="DEIS",
    order="3",
    evaluations="1",
    noise="deterministic",
    supports=SUPPORTS,
    source="arXiv 2204.13902",
    prepare=one_evaluation_a_step("deis", "eps", weights),
)
