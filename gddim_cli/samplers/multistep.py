"""The loop that most samplers are: each state a fixed linear map of the last state, evaluations of eps, and noise."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from torch import Tensor

from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.coefficients import Coefficients

Eps = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, Tensor], None]
Draw = Callable[[int], Tensor]
"""The k-th independent N(0, I) of the run's states."""


def linear(
    eps: Eps,
    u: Tensor,
    coefficients: Coefficients,
    draw: Draw | None = None,
    on_step: OnStep | None = None,
    first_step: int = 0,
    history: Sequence[Tensor] = (),
) -> Tensor:
    """`u_{i+1} = Psi_i u_i + sum_j C_ij eps(u_{i-j}, t_{i-j}) + N_i z_i`, then the denoising step where there is one.

    One evaluation a step and one for the denoising step. With the coefficients of gDDIM it is Eq. 19 of 2206.05564.

    Args:
        eps: the noise prediction, for the K that the coefficients are for.
        u: the state at `coefficients.t[first_step]`, [B, D, ...].
        coefficients: float64; used in u's dtype.
        draw: the noise, where the coefficients have some; `z_i` is its i-th.
        on_step: called with (steps done, state) after each step.
        first_step: the step to begin with.
        history: the evaluations at the times before `t[first_step]`, the latest first.

    Returns:
        The state at the last time (denoised, where the coefficients say so), [B, D, ...].
    """
    times = coefficients.t.tolist()
    psi, c = (to_tensor_like(m, u) for m in (coefficients.Psi, coefficients.C))
    noise = None if coefficients.noise is None else to_tensor_like(coefficients.noise, u)
    past = deque(history, maxlen=coefficients.order + 1)
    for i in range(first_step, len(psi)):
        past.appendleft(eps(u, times[i]))
        matrices, states = [psi[i], *c[i, : len(past)]], [u, *past]
        if noise is not None and draw is not None:
            matrices.append(noise[i])
            states.append(draw(i))
        u = combine(matrices, states)
        if on_step:
            on_step(i + 1, u)
    return apply_denoising_step(eps, u, coefficients.last, times[-1], len(psi), on_step)


def apply_denoising_step(
    eps: Eps, u: Tensor, last: Array | None, t_end: float, steps: int, on_step: OnStep | None
) -> Tensor:
    """The denoising step `last[0] u + last[1] eps(u, t_end)`, one evaluation, where there is one."""
    if last is None:
        return u
    u = combine(list(to_tensor_like(last, u)), [u, eps(u, t_end)])
    if on_step:
        on_step(steps + 1, u)
    return u
