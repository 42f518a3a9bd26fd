"""Deterministic gDDIM: a multistep exponential integrator (Zhang, Tao & Chen, arXiv 2206.05564, Eq. 19)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gddim_cli.coefficients import Coefficients

Eps = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, Tensor], None]


def gddim(
    eps: Eps,
    u: Tensor,
    coefficients: Coefficients,
    on_step: OnStep | None = None,
    first_step: int = 0,
    history: Sequence[Tensor] = (),
) -> Tensor:
    """`u_{i+1} = Psi_i u_i + sum_j C_ij eps(u_{i-j}, t_{i-j})`, then the denoising step where the coefficients have one.

    One evaluation a step and one for the denoising step. Global error of order `coefficients.order + 1` in the step
    once the history is full; without a `history` the first steps are of lower order, which leaves an h^2 term.

    Args:
        eps: the noise prediction, for the K that the coefficients are for.
        u: the state at `coefficients.t[first_step]`, [B, D, ...].
        coefficients: float64; used in u's dtype.
        on_step: called with (steps done, state) after each step.
        first_step: the step to begin with.
        history: the evaluations at the times before `t[first_step]`, the latest first.

    Returns:
        The state at the last time (denoised, where the coefficients say so), [B, D, ...].
    """
    times = coefficients.t.tolist()
    psi, c = (torch.from_numpy(m).to(u) for m in (coefficients.Psi, coefficients.C))
    past = deque(history, maxlen=coefficients.order + 1)
    for i in range(first_step, len(psi)):
        past.appendleft(eps(u, times[i]))
        u = combine([psi[i], *c[i, : len(past)]], [u, *past])
        if on_step:
            on_step(i + 1, u)
    if coefficients.last is None:
        return u
    u = combine(list(torch.from_numpy(coefficients.last).to(u)), [u, eps(u, times[-1])])
    if on_step:
        on_step(len(psi) + 1, u)
    return u


def combine(matrices: Sequence[Tensor], states: Sequence[Tensor]) -> Tensor:
    """`sum_k M_k u_k` with D x D blocks on states [B, D, ...]: one product of a [D, K D] matrix.

    Blocks [H, W, 1, 1] that differ by frequency are numbers on states [B, 1, C, H, W].
    """
    if matrices[0].dim() > 2:
        return torch.stack([m[..., 0, 0] * u for m, u in zip(matrices, states, strict=True)]).sum(0)
    stacked = torch.cat(list(states), dim=1)
    return (torch.cat(list(matrices), dim=1) @ stacked.flatten(2)).view_as(states[0])
