"""Levenberg and Marquardt's method: curvature from a few images by finite differences, slope from all by the chain rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.base import Eps
from gddim_cli.samplers.coefficients import Coefficients
from gddim_cli.samplers.fitted.family import Family
from gddim_cli.samplers.fitted.trace import Batch, Trace, ended, squared_errors, traced

STEP_OF_TIMES, STEP_OF_OFFSETS = 0.05, 0.3
"""Steps of the finite differences in units of theta; large, because networks run in float32."""
LONGEST = 0.3
"""The largest change of a time in one step, in units of theta."""
FAILURES = 8
"""Steps in a row that may fail."""
LEAST_DAMPING, MOST_DAMPING = 1e-4, 10.0
EVEN = 0.25
"""The share of the mean square error that is added to an image's own in its weight."""


@dataclass(frozen=True)
class Point:
    """The state of the search: the parameters, [P], and the damping of the next step."""

    theta: Array
    damping: float = 1e-2


def weights_of(errors: Array) -> Array:
    """The weight of each image, [N], with mean 1: the inverse of its root mean square error, so that few bad images do not
    decide everything."""
    found = (errors + EVEN * errors.mean()) ** -0.5
    return np.asarray(found / found.mean())


def improved(family: Family, point: Point, batches: Sequence[Batch], curved: Sequence[Batch], steps: int) -> Point:
    """The point after up to `steps` successful steps; none raises the weighted mean square error.

    A step is `-(H + damping diag H)^{-1} g`, g the gradient over all images, H Gauss and Newton's approximation of the
    Hessian from the images `curved`, which is computed once.

    Args:
        batches: all images.
        curved: some of them.
    """
    theta, damping = point.theta, min(max(point.damping, LEAST_DAMPING), MOST_DAMPING)
    errors = squared_errors(batches, family.coefficients(theta))
    weights = weights_of(errors)
    loss = float(weights @ errors) / len(errors)
    parts = np.split(weights, np.cumsum([len(batch.start) for batch in batches])[:-1])
    hessian = curvature(family, theta, curved)
    diagonal = hessian.diagonal() + 1e-12 * hessian.diagonal().max() + 1e-300
    failures, slope = 0, None
    while steps and failures < FAILURES:
        if slope is None:
            slope = gradient(family, theta, batches, parts)
        delta = -np.linalg.solve(hessian + damping * np.diag(diagonal), slope)
        longest = np.abs(delta[: family.inner_times]).max(initial=0.0)
        trial = theta + delta * min(1.0, LONGEST / max(longest, 1e-300))
        found = np.inf
        if family.allows(trial):
            found = float(weights @ squared_errors(batches, family.coefficients(trial))) / len(errors)
        if found < loss:
            theta, loss, slope, damping, failures, steps = trial, found, None, damping / 3, 0, steps - 1
        else:
            damping, failures = 4 * damping, failures + 1
    return Point(theta, damping)


def gradient(family: Family, theta: Array, batches: Sequence[Batch], weights: Sequence[Array]) -> Array:
    """Half the derivative of the weighted mean square error with respect to theta, [P].

    Args:
        weights: of each batch's images.
    """
    c = family.coefficients(theta)
    moved = [family.coefficients(shifted(theta, j)) for j in range(family.inner_times)]
    found = np.zeros(family.size)
    for batch, weight in zip(batches, weights, strict=True):
        found += batch_gradient(family, c, moved, batch, weight)
    return found / sum(batch.target.numel() for batch in batches)


def shifted(theta: Array, j: int) -> Array:
    """theta with the inner time j moved by the step of finite differences."""
    found = theta.copy()
    found[j] += STEP_OF_TIMES
    return found


def batch_gradient(
    family: Family, c: Coefficients, moved: Sequence[Coefficients], batch: Batch, weight: Array
) -> Array:
    """`gradient` of one batch, as a sum over its pixels."""
    trace = traced(batch.eps, batch.start, c)
    after = adjoints(batch, trace, c, weight)
    found = np.zeros(family.size)
    for j, other in enumerate(moved):
        found[j] = effect_of_time(batch.eps, trace, c, other, j, after) / STEP_OF_TIMES
    for i, (at, rows, scale) in enumerate(zip(family.slices(), family.directions, family.scales, strict=True)):
        features = trace.features(i, c.order, family.method.frees_state and i + 1 == family.steps)
        outer = torch.einsum("bdn,bfn->df", after[i].flatten(2).double(), features.flatten(2).double())
        found[at] = (scale[:, None] * (outer.cpu().numpy() @ rows.T)).ravel()
    return found


def adjoints(batch: Batch, trace: Trace, c: Coefficients, weight: Array) -> list[Tensor]:
    """Half the derivative of the weighted square error with respect to the state after each step, each [B, D, C, H, W]."""
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
    eps: Eps, trace: Trace, c: Coefficients, other: Coefficients, j: int, after: Sequence[Tensor]
) -> float:
    """The change of the error to first order if the time after step j moves, which makes `other` of the coefficients c.

    State and prediction there move together: along a solution the prediction hardly changes, but each of the two alone
    changes it much.
    """
    states, predictions = list(trace.states), list(trace.predictions)
    states[j + 1] = trace.step(other, j)
    predictions[j + 1] = eps(states[j + 1], float(other.t[j + 1]))
    changed, found = Trace(states, predictions), 0.0
    for i in range(j + 1, min(j + 2 + c.order, len(c.Psi))):
        found += float(((changed.step(other, i) - trace.step(c, i)) * after[i]).double().sum())
    return found


def transposed(matrix: Array, adjoint: Tensor) -> Tensor:
    """The transpose of a block times states."""
    return combine([to_tensor_like(matrix.swapaxes(-1, -2), adjoint)], [adjoint])


def curvature(family: Family, theta: Array, batches: Sequence[Batch]) -> Array:
    """`J J^T` per pixel, [P, P], J the derivative of the images with respect to theta, by forward differences.

    Each parameter acts from one step on; only the steps after that are repeated.
    """
    c = family.coefficients(theta)
    moved = [family.coefficients(shifted(theta, j)) for j in range(family.inner_times)]
    found = np.zeros((family.size, family.size))
    for batch in batches:
        rows = jacobian(family, c, moved, batch)
        found += (rows @ rows.T).double().cpu().numpy()
    return found / sum(batch.target.numel() for batch in batches)


def jacobian(family: Family, c: Coefficients, moved: Sequence[Coefficients], batch: Batch) -> Tensor:
    """The derivative of a batch's images with respect to theta, [P, B C H W]; `moved` have one inner time moved each."""
    trace = traced(batch.eps, batch.start, c)
    end = trace.states[-1][:, 0]
    rows = torch.zeros(family.size, end.numel(), dtype=end.dtype, device=end.device)
    for j, other in enumerate(moved):
        u = trace.step(other, j)  # the step that ends at the moved time
        rows[j] = ((ended(batch.eps, u, other, j + 1, trace.predictions) - end) / STEP_OF_TIMES).flatten()
    for row, i, change in offset_changes(family, trace, c.order):
        u = trace.states[i + 1] + STEP_OF_OFFSETS * change
        rows[row] = ((ended(batch.eps, u, c, i + 1, trace.predictions) - end) / STEP_OF_OFFSETS).flatten()
    return rows


def offset_changes(family: Family, trace: Trace, order: int) -> Iterator[tuple[int, int, Tensor]]:
    """For each offset in theta: its index, its step, and what one unit of it adds to the state after that step.

    Offsets of the last step's other components than the first are left out: they do not change the image.
    """
    for i, (at, rows, scale) in enumerate(zip(family.slices(), family.directions, family.scales, strict=True)):
        last = i + 1 == family.steps
        features = trace.features(i, order, family.method.frees_state and last)
        directions = torch.einsum("rf,bf...->br...", to_tensor_like(rows, features), features)
        for d in range(1 if last else len(scale)):
            for r in range(len(rows)):
                change = torch.zeros_like(trace.states[i])
                change[:, d] = float(scale[d]) * directions[:, r]
                yield at.start + d * len(rows) + r, i, change
