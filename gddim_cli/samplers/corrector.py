"""The predictor-corrector form of gDDIM (Zhang, Tao & Chen, arXiv 2206.05564, section 4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gddim_cli.samplers.coefficients import integrals, noise_equation

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.diffusions.base import Diffusion, KChoice
    from gddim_cli.numerics.quadrature import Array
    from gddim_cli.samplers.base import Eps, Step
    from gddim_cli.samplers.coefficients import Coefficients


def corrector_integrals(diffusion: Diffusion, t: Array, order: int, k: KChoice) -> Array:
    """gDDIM's integrals with the additional node `t_{i+1}`, [N, order + 2, D, D].

    On the second axis, index 0 belongs to `t_{i+1}` and index j + 1 to `t_{i-j}`.
    """
    return integrals(noise_equation(diffusion, k), t, order, ahead=1)


def predict_correct_steps(
    eps: Eps,
    u: Tensor,
    predictor: Coefficients,
    corrector: Array,
    first_step: int = 0,
    history: Sequence[Tensor] = (),
) -> Iterator[Step]:
    """Yields gDDIM's steps, each done twice: to predict the next state, and then with the evaluation there as a node.

    The loop takes two evaluations per step, and one for the denoising step. The global order is `predictor.order + 2`
    once the history is full. `first_step` and `history` (as in `multistep`) start the loop with a full history.
    """
    from gddim_cli.numerics.blocks import combine, to_tensor_like
    from gddim_cli.samplers.multistep import denoising_step

    times = predictor.t.tolist()
    psi, c, corrected = (to_tensor_like(m, u) for m in (predictor.Psi, predictor.C, corrector))
    past = deque(history, maxlen=predictor.order + 1)
    for i in range(first_step, len(psi)):
        past.appendleft(eps(u, times[i]))
        guess = combine([psi[i], *c[i, : len(past)]], [u, *past])
        ahead = eps(guess, times[i + 1])
        u = combine([psi[i], *corrected[i, : len(past) + 1]], [u, ahead, *past])
        yield times[i + 1], u
    yield from denoising_step(eps, u, predictor.last, times[-1])
