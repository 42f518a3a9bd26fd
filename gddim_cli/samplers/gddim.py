"""gDDIM (Zhang, Tao & Chen, arXiv 2206.05564): deterministic and stochastic coefficients, and the corrector's loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.numerics.blocks import combine
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.coefficients import Coefficients, denoising_step, integrals
from gddim_cli.samplers.multistep import Eps, OnStep, apply_denoising_step


def stochastic_coefficients(
    diffusion: Diffusion, t: Array, lam: float, k: KChoice = "R", denoise: bool = False
) -> Coefficients:
    """Stochastic gDDIM of order 0 (Eq. 22): mean `Psi u + (Psihat - Psi) K_s eps`, covariance `P_st`.

    `P_st = Sigma_t - Psihat Sigma_s Psihat^T`, symmetric and positive (the authors' program misses a transpose there).
    The mean is the same for every K, since `K_s eps_K = -Sigma_s score`. The last step keeps its noise (theirs drops it).
    """
    now, then = t[1:], t[:-1]
    psi, psi_hat = diffusion.Psi(now, then), diffusion.Psi_hat(now, then, lam)
    c = (psi_hat - psi) @ diffusion.K(then, k)
    last = denoising_step(diffusion, t[-1], k) if denoise else None
    return Coefficients(t, psi, c[:, None], k, last, root(step_covariance(diffusion, t, lam)))


def step_covariance(diffusion: Diffusion, t: Array, lam: float) -> Array:
    """`P_st` of every step of a grid, [N, D, D]; with `Y = L_t^{-1} Psihat L_s` it is `L_t (I - Y Y^T) L_t^T`."""
    if lam == 0:
        return np.zeros_like(diffusion.Psi(t[1:], t[:-1]))
    now, then = diffusion.L(t[1:]), diffusion.L(t[:-1])
    y = np.linalg.inv(now) @ diffusion.Psi_hat(t[1:], t[:-1], lam) @ then
    p = now @ (np.eye(diffusion.D) - y @ y.swapaxes(-1, -2)) @ now.swapaxes(-1, -2)
    return 0.5 * (p + p.swapaxes(-1, -2))


def root(covariance: Array) -> Array:
    """The symmetric square root of positive semidefinite matrices [..., D, D]; rounding below zero counts as zero."""
    values, vectors = np.linalg.eigh(covariance)
    scaled = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    return np.asarray(scaled @ vectors.swapaxes(-1, -2), dtype=np.float64)


def corrector_integrals(diffusion: Diffusion, t: Array, order: int, k: KChoice) -> Array:
    """The same integrals with the node `t_{i+1}` added, [N, order + 2, D, D]; j = 0 belongs to it, j + 1 to `t_{i-j}`."""
    return integrals(diffusion, t, order, k, ahead=1)


def predict_correct(
    eps: Eps,
    u: Tensor,
    predictor: Coefficients,
    corrector: Array,
    on_step: OnStep | None = None,
    first_step: int = 0,
    history: Sequence[Tensor] = (),
) -> Tensor:
    """Each step: predict as gDDIM does, evaluate there, and take the step again with that evaluation among the nodes.

    Two evaluations a step, and one for the denoising step. Global order `predictor.order + 2`, once the history is full;
    `first_step` and `history` (the latest first) begin with one, as in `linear`.
    """
    times = predictor.t.tolist()
    psi, c, corrected = (torch.from_numpy(m).to(u) for m in (predictor.Psi, predictor.C, corrector))
    past = deque(history, maxlen=predictor.order + 1)
    for i in range(first_step, len(psi)):
        past.appendleft(eps(u, times[i]))
        guess = combine([psi[i], *c[i, : len(past)]], [u, *past])
        ahead = eps(guess, times[i + 1])
        u = combine([psi[i], *corrected[i, : len(past) + 1]], [u, ahead, *past])
        if on_step:
            on_step(i + 1, u)
    return apply_denoising_step(eps, u, predictor.last, times[-1], len(psi), on_step)
