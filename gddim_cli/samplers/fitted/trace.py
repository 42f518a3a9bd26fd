"""Runs of a solver with all intermediate states and predictions, and the errors of their final states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.base import Eps
from gddim_cli.samplers.coefficients import Coefficients
from gddim_cli.samplers.multistep import final_state, first_state, multistep


@dataclass(frozen=True)
class Batch:
    """Images that are solved together.

    Attributes:
        eps: the noise prediction for these images.
        start: the states u_T, [B, D, C, H, W].
        target: the converged images, which a solver with many steps reaches from `start`, [B, C, H, W].
        states: the converged states, on the way to the target, at all times of a grid except the first, each
            [B, D, C, H, W]. The first component of the last one is the target. Empty if nothing is fitted to these
            images.
    """

    eps: Eps
    start: Tensor
    target: Tensor
    states: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Trace:
    """A run of a solver that interpolates eps: the states u_0 to u_N, and the predictions at u_0 to u_{N-1}."""

    states: list[Tensor]
    predictions: list[Tensor]

    def past(self, i: int, order: int) -> list[Tensor]:
        """The predictions that step i uses, the latest first."""
        return self.predictions[max(i - order, 0) : i + 1][::-1]

    def features(self, i: int, order: int) -> Tensor:
        """The predictions that step i uses, followed by the state before it: m features, [B, m D, C, H, W]."""
        return torch.cat([*self.past(i, order), self.states[i]], dim=1)

    def step(self, c: Coefficients, i: int) -> Tensor:
        """The state after step i of the coefficients c, computed from the states and predictions of this run."""
        past = self.past(i, c.order)
        matrices = [to_tensor_like(m, past[0]) for m in (c.Psi[i], *c.C[i, : len(past)])]
        return combine(matrices, [self.states[i], *past])


def traced(eps: Eps, u: Tensor, c: Coefficients) -> Trace:
    """A whole run from u_T."""
    trace = Trace([first_state(u, c)], [])
    for i in range(len(c.Psi)):
        trace.predictions.append(eps(trace.states[i], float(c.t[i])))
        trace.states.append(trace.step(c, i))
    return trace


def errors_of(end: Tensor, batch: Batch) -> Array:
    """The mean square errors of the images in the final states `end`, [B], float64; infinity where not finite."""
    errors = (end[:, 0] - batch.target).double().square().flatten(1).mean(1).cpu().numpy()
    return np.where(np.isfinite(errors), errors, np.inf)


def rmse(batches: Sequence[Batch], c: Coefficients) -> float:
    """The root mean square error of a solver's images; infinity if they are not finite."""
    errors = [errors_of(final_state(multistep(batch.eps, batch.start, c)), batch) for batch in batches]
    return float(np.sqrt(np.concatenate(errors).mean()))
