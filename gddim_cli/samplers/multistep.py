"""The loop that most samplers run: the next state is a fixed linear map of the state, of evaluations and of noise."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.base import Draw, Eps, Step
from gddim_cli.samplers.coefficients import Coefficients


def multistep(
    eps: Eps,
    u: Tensor,
    coefficients: Coefficients,
    draw: Draw | None = None,
    first_step: int = 0,
    history: Sequence[Tensor] = (),
) -> Iterator[Step]:
    """Yields the steps `u_{i+1} = Psi_i u_i + sum_j C_ij f_{i-j} + noise_i z_i`, then the denoising step.

    The prediction f_i is `eps(u_i, t_i)`, or a linear combination of u_i and `eps(u_i, t_i)` if
    `coefficients.prediction` is given. The loop takes one evaluation per step, and one for the denoising step. With the
    coefficients of gDDIM, the steps are Eq. 19 of arXiv 2206.05564.

    Args:
        eps: the noise prediction for `K = coefficients.k`.
        u: the state at `coefficients.t[first_step]`, [B, D, ...], or the state at T if `first_step` is 0 and
            `coefficients.first` is given.
        coefficients: the coefficients in float64; converted to u's dtype.
        draw: maps i to the noise `z_i`. Required if the coefficients have noise.
        first_step: the index of the first step to take.
        history: the predictions at the times before `t[first_step]`, the latest first.

    Raises:
        ValueError: the coefficients have noise, but `draw` is None.
    """
    times = coefficients.t.tolist()
    psi, c = (to_tensor_like(m, u) for m in (coefficients.Psi, coefficients.C))
    noise = None if coefficients.noise is None else to_tensor_like(coefficients.noise, u)
    if noise is not None and draw is None:
        raise ValueError("these coefficients have noise: a stochastic sampler needs `draw`")
    prediction = None if coefficients.prediction is None else to_tensor_like(coefficients.prediction, u)
    u = first_state(u, coefficients) if first_step == 0 else u
    past = deque(history, maxlen=coefficients.order + 1)
    for i in range(first_step, len(psi)):
        found = eps(u, times[i])
        past.appendleft(found if prediction is None else combine(list(prediction[i]), [u, found]))
        matrices, states = [psi[i], *c[i, : len(past)]], [u, *past]
        if noise is not None and draw is not None:
            matrices.append(noise[i])
            states.append(draw(i))
        u = combine(matrices, states)
        yield times[i + 1], u
    yield from denoising_step(eps, u, coefficients.last, times[-1])


def first_state(u: Tensor, coefficients: Coefficients) -> Tensor:
    """Maps the state at T to the state at `coefficients.t[0]`, [B, D, ...]."""
    return u if coefficients.first is None else combine([to_tensor_like(coefficients.first, u)], [u])


def denoising_step(eps: Eps, u: Tensor, last: Array | None, t_end: float) -> Iterator[Step]:
    """Yields the denoising step `last[0] u + last[1] eps(u, t_end)` (one evaluation), or nothing if `last` is None."""
    if last is not None:
        yield 0.0, combine(list(to_tensor_like(last, u)), [u, eps(u, t_end)])


def final_state(steps: Iterable[Step]) -> Tensor:
    """The state after the last step."""
    *_, (_, u) = steps
    return u
