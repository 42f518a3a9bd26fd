"""The fit of every step's matrices in closed form, on the states that the solver itself reaches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.fitted.family import Family, Method, with_offset
from gddim_cli.samplers.fitted.trace import Batch, Trace
from gddim_cli.samplers.multistep import first_state

CORRELATED = 1e-7
"""Combinations of features with a smaller share of the largest mean square are not fitted."""
TINY = 1e-12


def fit(method: Method, grid: Array, batches: Sequence[Batch]) -> tuple[Family, Array, list[Trace]]:
    """The family around gDDIM on a time grid, [N + 1], and the theta of its least-squares fit.

    Step by step: from the states that the fitted steps before have reached, the offset M of step i minimises
    `|u_{i+1} - gDDIM's step - M features|^2` over all pixels and images, u the converged states; then that step is taken.

    Returns:
        The family, theta, and for each batch the run of the fitted solver.
    """
    c = method.on(grid)
    traces = [Trace([first_state(batch.start, c)], []) for batch in batches]
    directions, scales, found = [], [], []
    for i in range(len(grid) - 1):
        for batch, trace in zip(batches, traces, strict=True):
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
    return family, np.concatenate([np.zeros(family.free_times), *(z.ravel() for z in found)]), traces


def columns(states: Tensor) -> Array:
    """States or features [B, n, C, H, W] with a column for each pixel of each image, [n, m], float64."""
    return np.asarray(states.transpose(0, 1).flatten(1).double().cpu().numpy(), dtype=np.float64)


def least_squares(features: Sequence[Array], wanted: Sequence[Array]) -> tuple[Array, Array, Array]:
    """The least-squares solution of `z directions features = wanted`.

    Returns:
        The directions, [r, F], for which `directions features` are uncorrelated and have mean square 1; z, [D, r]; and the
        root mean square of the residual, [D].
    """
    count = sum(x.shape[1] for x in features)
    values, vectors = np.linalg.eigh(sum(x @ x.T for x in features) / count)
    kept = values > CORRELATED * values.max()
    rows = (vectors[:, kept] / np.sqrt(values[kept])).T
    z = sum(y @ (rows @ x).T for x, y in zip(features, wanted, strict=True)) / count
    left = sum(np.square(y - z @ (rows @ x)).sum(axis=1) for x, y in zip(features, wanted, strict=True)) / count
    return rows, z, np.sqrt(left) + TINY
