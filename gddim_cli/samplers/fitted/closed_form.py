"""Fits the matrices of every step by least squares, on the states that the fitted solver itself reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.coefficients import Coefficients
from gddim_cli.samplers.fitted.family import Family, Method, with_offset
from gddim_cli.samplers.fitted.trace import Batch, Trace
from gddim_cli.samplers.multistep import first_state

CORRELATED = 1e-7
"""A combination of features is not fitted if its mean square is below this fraction of the largest mean square."""
TINY = 1e-12


@dataclass(frozen=True)
class ClosedForm:
    """A fit of all steps.

    Attributes:
        family: the solvers that `theta` parameterizes: gDDIM on the time grid, with shifts of its times and offsets to
            gDDIM's matrices.
        theta: the parameters of the fit; all shifts are 0.
        coefficients: the coefficients of the fitted solver.
        traces: the fitted solver's run on each batch.
    """

    family: Family
    theta: Array
    coefficients: Coefficients
    traces: list[Trace]


def fit(method: Method, grid: Array, batches: Sequence[Batch], known: ClosedForm | None = None) -> ClosedForm:
    """The least-squares fit of every step on a time grid, [N + 1].

    The steps are fitted one after the other. Step i starts from the states that the fitted steps before it have
    reached. The offset M of its matrices (see `Family`) minimizes `|u_{i+1} - (gDDIM's step) - M features|^2`, summed
    over all pixels and images. Here `u_{i+1}` is the converged state.

    Args:
        known: an earlier fit to the same images, on a grid of the same length. Steps that end before the first time at
            which the grids differ are copied from this fit.
    """
    c = method.on(grid)
    same = int(np.argmin([*(grid == known.family.grid), False])) if known else 0
    done = max(same - 1, 0)  # Number of known steps; the prediction at their end is known, too.
    traces = [Trace([first_state(batch.start, c)], []) for batch in batches]
    directions, scales, found = [], [], []
    if known and same:
        fitted = known.coefficients
        psi, matrices = (np.concatenate([a[:done], b[done:]]) for a, b in ((fitted.Psi, c.Psi), (fitted.C, c.C)))
        c = replace(c, Psi=psi, C=matrices)
        traces = [Trace(trace.states[: done + 1], trace.predictions[: done + 1]) for trace in known.traces]
        directions, scales = [*known.family.directions[:done]], [*known.family.scales[:done]]
        found = known.family.parts(known.theta)[:done]
    for i in range(done, len(grid) - 1):
        for batch, trace in zip(batches, traces, strict=True):
            if len(trace.predictions) == i:
                trace.predictions.append(batch.eps(trace.states[i], float(grid[i])))
        features = [columns(trace.features(i, c.order)) for trace in traces]
        missing = [columns(batch.states[i] - trace.step(c, i)) for trace, batch in zip(traces, batches, strict=True)]
        rows, z, scale = least_squares(features, missing)
        directions.append(rows)
        scales.append(scale)
        found.append(z / scale[:, None])
        c = with_offset(c, i, z @ rows)
        for trace in traces:
            trace.states.append(trace.step(c, i))
    family = Family(method, grid, directions, scales)
    theta = np.concatenate([np.zeros(family.free_times), *(z.ravel() for z in found)])
    return ClosedForm(family, theta, c, traces)


def columns(states: Tensor) -> Array:
    """States or features [B, n, C, H, W] as a float64 matrix [n, m] with a column for each pixel of each image."""
    return np.asarray(states.transpose(0, 1).flatten(1).double().cpu().numpy(), dtype=np.float64)


def least_squares(features: Sequence[Array], wanted: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Solves `z @ directions @ features = wanted` for z by least squares, with directions computed from the features.

    Returns:
        The directions, [r, F], chosen so that `directions @ features` has uncorrelated rows of mean square 1;
        z, [D, r]; and the root mean square of the residual, [D].
    """
    count = sum(x.shape[1] for x in features)
    values, vectors = np.linalg.eigh(sum(x @ x.T for x in features) / count)
    kept = values > CORRELATED * values.max()
    rows = (vectors[:, kept] / np.sqrt(values[kept])).T
    z = sum(y @ (rows @ x).T for x, y in zip(features, wanted, strict=True)) / count
    left = sum(np.square(y - z @ (rows @ x)).sum(axis=1) for x, y in zip(features, wanted, strict=True)) / count
    return rows, z, np.sqrt(left) + TINY
