"""UniPC (Zhao et al., arXiv 2302.04867): a predictor from the last three evaluations, and a corrector at no cost.

The corrector of a step uses the evaluation at the predicted state, which the next step needs anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gddim_cli.samplers.dimension_1 import Scales, half_log_snr_sampler, polynomial_integrals

if TYPE_CHECKING:
    from gddim_cli.numerics.quadrature import Array

EVALUATIONS = 3


def weights(at: Scales) -> Array:
    """The predictor's weights `P_ij` plus the terms that the previous step's corrector adds.

    Let `p_i` be the predicted and `c_i` the corrected state, `x0_i` the estimate of the image from `p_i`, and
    `a_i = sigma_{i+1} / sigma_i`. The predictor is `p_{i+1} = a_i c_i + sum_j P_ij x0_{i-j}`, and the corrector is
    `c_{i+1} = a_i c_i + K_i x0_{i+1} + sum_j K_ij x0_{i-j}`. Their difference gives
    `c_{i+1} = p_{i+1} + K_i x0_{i+1} + sum_j (K_ij - P_ij) x0_{i-j}`. Inserting this into the next predictor eliminates
    the `c_i` and leaves a linear multistep method in the `p_i`.
    """
    lam, carried = at.half_log_snr, at.sigma[1:] / at.sigma[:-1]
    found = np.zeros((at.steps, EVALUATIONS + 1, *lam.shape[1:]))
    for i in range(at.steps):
        past = list(range(i, max(i - EVALUATIONS, -1), -1))
        predictor, corrector = step_weights(at, i, past), step_weights(at, i, [i + 1, *past])
        found[i, : len(past)] += predictor
        if i + 1 < at.steps:
            corrector[1:] -= predictor
            found[i + 1, : len(corrector)] += carried[i + 1] * corrector
    return found


def step_weights(at: Scales, i: int, nodes: list[int]) -> Array:
    """The weights of x0 at the nodes for the step from `t_i` to `t_{i+1}`, [nodes, ...].

    The weights are `sigma_{i+1} int e^lambda l_j dlambda` with the Lagrange polynomials `l_j` on the nodes. They solve
    the paper's system of equations for every choice of the function B(h) in that system.

    The case of two nodes, `t_i` and `t_m`, is an exception: the paper sets a coefficient to 1/2 instead of solving the
    system. The weights are then those of `-alpha_{i+1} B(h) (x0_i + (x0_m - x0_i) / (2 r))`, with `B(h) = e^{-h} - 1`,
    `h = lambda_{i+1} - lambda_i` and `r = (lambda_m - lambda_i) / h`.
    """
    lam = at.half_log_snr
    if len(nodes) != 2:
        return np.array([at.sigma[i + 1] * c for c in polynomial_integrals(lam, i, nodes, 1.0)])
    other = nodes[1] if nodes[0] == i else nodes[0]
    outer = -at.alpha[i + 1] * np.expm1(lam[i] - lam[i + 1])
    share = 0.5 * outer * (lam[i + 1] - lam[i]) / (lam[other] - lam[i])
    return np.array([share if node == other else outer - share for node in nodes])


SPEC = half_log_snr_sampler("unipc", "UniPC-3", "x0", weights, order="4", source="arXiv 2302.04867")
