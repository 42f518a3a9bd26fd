"""Fits the times and matrices of a solver with Adam.

Gradients come from backpropagation, which is combined with finite differences for the times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from torch import Tensor

from gddim_cli.errors import DataError
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.quadrature import Array
from gddim_cli.runtime.memory import is_out_of_memory
from gddim_cli.samplers.coefficients import Coefficients
from gddim_cli.samplers.fitted.family import Family
from gddim_cli.samplers.fitted.trace import Batch, Trace, errors_of, traced
from gddim_cli.samplers.multistep import first_state

STEP_OF_TIMES = 0.05
"""The finite-difference step for the shifts of times in theta (see `Family`), large because networks run in float32."""
RATE_OF_TIMES, RATE_OF_OFFSETS = 0.25, 0.5
"""The highest learning rates for the two kinds of parameters in theta (see `Family`), in a solver of one step. They are
divided by the number of steps, because the effects of all parameters add up."""
WARM_UP = 10
"""The number of steps of Adam over which the learning rate rises."""
DECAY_OF_MEAN, DECAY_OF_SQUARE = 0.9, 0.99
EVEN = 0.25
"""An image's weight depends on its mean square error plus this fraction of the mean error of all images."""


@dataclass(frozen=True)
class Point:
    """The state of Adam: parameters, running means of the gradient and its square, all [P], and the step count."""

    theta: Array
    mean: Array
    square: Array
    steps: int = 0


class Progress(msgspec.Struct, frozen=True):
    """The state of a fit after a round. A round is one pass over all batches.

    Attributes:
        rounds: the number of rounds done.
        theta, mean, square: the state of Adam, see `Point`.
        best: the theta with the lowest error so far; None if no theta has a lower error than the solver to beat, which
            is gDDIM with default options. The error is measured on images that are not used for the fit.
        error: the lowest error so far, including that of the solver to beat.
    """

    rounds: int
    theta: list[float]
    mean: list[float]
    square: list[float]
    best: list[float] | None
    error: float


def differentiable(batch: Batch, t: float) -> bool:
    """Whether torch can compute the gradient of the prediction with respect to the state."""
    u = batch.start.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            torch.autograd.grad(batch.eps(u, t).sum(), u)
    except DataError:  # A user's network has failed. It made predictions before, so only the gradient fails.
        return False
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return False
    return True


def improved(family: Family, point: Point, batches: Sequence[Batch], total: int) -> Point:
    """The point after one step of Adam (arXiv 1412.6980) on each batch, in order.

    The learning rate rises for `WARM_UP` steps and then falls to 0 at step `total`, along half a cosine.
    """
    rates = np.where(np.arange(family.size) < family.free_times, RATE_OF_TIMES, RATE_OF_OFFSETS) / family.steps
    for done, batch in enumerate(batches, start=point.steps + 1):
        slope = gradient(family, point.theta, batch)
        if not np.isfinite(slope).all():
            slope = point.mean  # A batch that overflows must not change the direction.
        mean = DECAY_OF_MEAN * point.mean + (1 - DECAY_OF_MEAN) * slope
        square = DECAY_OF_SQUARE * point.square + (1 - DECAY_OF_SQUARE) * slope**2
        direction = mean / (1 - DECAY_OF_MEAN**done) / (np.sqrt(square / (1 - DECAY_OF_SQUARE**done)) + 1e-300)
        share = min(1.0, done / WARM_UP) * 0.5 * (1 + np.cos(np.pi * done / total))
        trial = point.theta - share * rates * direction
        if not family.allows(trial):
            trial[: family.free_times] = point.theta[: family.free_times]
        point = Point(trial, mean, square, done)
    return point


def weights_of(errors: Array) -> Array:
    """The weight of each image, [N], from the mean square errors. The weights have mean 1.

    A weight is about proportional to the root mean square error to the power -1/2 (see `EVEN`). A few images with large
    errors therefore do not dominate the fit.
    """
    with np.errstate(invalid="ignore"):  # NaN if an error is infinite
        found = (errors + EVEN * errors.mean()) ** -0.25
        return np.asarray(found / found.mean())


def gradient(family: Family, theta: Array, batch: Batch) -> Array:
    """Half the derivative of the batch's weighted mean square error with respect to theta, [P]; the weights are held fixed."""
    c = family.coefficients(theta)
    trace = traced(batch.eps, batch.start, c)
    after = adjoints(batch, trace, c, weights_of(errors_of(trace.states[-1], batch)))
    found = np.zeros(family.size)
    for j in range(family.free_times):
        moved = theta.copy()
        moved[j] += STEP_OF_TIMES
        found[j] = effect_of_time(batch, trace, c, family.coefficients(moved), j, after) / STEP_OF_TIMES
    for i, (at, rows, scale) in enumerate(zip(family.slices(), family.directions, family.scales, strict=True)):
        features = trace.features(i, c.order)
        outer = torch.einsum("bdn,bfn->df", after[i].flatten(2).double(), features.flatten(2).double())
        found[at] = (scale[:, None] * (outer.cpu().numpy() @ rows.T)).ravel()
    return found / batch.target.numel()


def adjoints(batch: Batch, trace: Trace, c: Coefficients, weight: Array) -> list[Tensor]:
    """Half the derivatives of the weighted square error with respect to the states after each step, each [B, D, C, H, W]."""
    steps, end = len(c.Psi), trace.states[-1]
    adjoint = torch.zeros_like(end)
    adjoint[:, 0] = (end[:, 0] - batch.target) * to_tensor_like(weight, end).view(-1, *[1] * (end.dim() - 2))
    found, of_predictions = [adjoint], [torch.zeros_like(u) for u in trace.predictions]
    for i in reversed(range(1, steps)):
        for lag in range(len(trace.past(i, c.order))):
            of_predictions[i - lag] += transposed(c.C[i, lag], adjoint)
        u = trace.states[i].detach().clone().requires_grad_()
        with torch.enable_grad():
            prediction = batch.eps(u, float(c.t[i]))
            (through,) = torch.autograd.grad(prediction, u, of_predictions[i])
        adjoint = transposed(c.Psi[i], adjoint) + through
        found.append(adjoint)
    return found[::-1]


def effect_of_time(
    batch: Batch, trace: Trace, c: Coefficients, other: Coefficients, j: int, after: Sequence[Tensor]
) -> float:
    """Half the first-order change of the error if the time at which step j starts is moved.

    The state is moved along the solution to the new time, so that the prediction hardly changes. If only the time or
    only the state were moved, the prediction would change much.

    Args:
        c, other: the coefficients before and after the move.
    """
    states, predictions = list(trace.states), list(trace.predictions)
    states[j] = trace.step(other, j - 1) if j else first_state(batch.start, other)
    predictions[j] = batch.eps(states[j], float(other.t[j]))
    changed, found = Trace(states, predictions), 0.0
    for i in range(j, min(j + 1 + c.order, len(c.Psi))):
        found += float(((changed.step(other, i) - trace.step(c, i)) * after[i]).double().sum())
    return found


def transposed(matrix: Array, adjoint: Tensor) -> Tensor:
    """The transposed block, applied to states."""
    return combine([to_tensor_like(matrix.swapaxes(-1, -2), adjoint)], [adjoint])
