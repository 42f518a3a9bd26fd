"""Piecewise Gauss-Legendre quadrature on panels that shrink until a function is resolved.

Matrices of a diffusion turn fast near t = 0 (the rotation rate of R_t is about -1.6e3 there on the released CLD
schedule) and slowly elsewhere. Panels that halve where the Legendre series of a function has not decayed find that
by themselves, and serve integrals and antiderivatives alike, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from gddim_cli.errors import NumericsError

Array = NDArray[np.float64]
NODES = 20
RESOLVED = 1e-13
NARROWEST = 2.0**-45
MOST_PANELS = 1000


@cache
def rule() -> tuple[Array, Array, Array]:
    """Gauss-Legendre nodes and weights on [-1, 1], and the matrix from values at the nodes to Legendre coefficients."""
    nodes, weights = legendre.leggauss(NODES)
    degrees = np.arange(NODES)
    to_series = (degrees[:, None] + 0.5) * legendre.legvander(nodes, NODES - 1).T * weights
    return nodes, weights, to_series


def nodes_and_weights(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights, each [P, NODES], of the panels between the `P + 1` rising `edges`."""
    nodes, weights, _ = rule()
    half = np.diff(edges)[:, None] / 2
    return edges[:-1, None] + half * (1 + nodes), half * weights


def resolving_edges(function: Callable[[Array], Array], start: float, end: float) -> Array:
    """Edges of panels from `start` to `end` on each of which `function` is a resolved polynomial.

    Args:
        function: [n] times to [n, m] values, smooth inside (start, end).

    Returns:
        Rising edges, [P + 1].

    Raises:
        NumericsError: the function is not finite, or a thousand panels, or ones of 2^-45 of the interval, do not resolve it.
    """
    _, _, to_series = rule()
    done: list[tuple[float, float]] = []
    pending = np.array([[start, end]])
    while len(pending):
        nodes = np.concatenate([nodes_and_weights(panel)[0] for panel in pending])
        values = function(nodes.ravel()).reshape(len(pending), NODES, -1)
        if not np.isfinite(values).all():
            bad = nodes[~np.isfinite(values).all(axis=2)][0]
            raise NumericsError(f"the diffusion's matrices are not finite at t = {bad:.6g}; start or end elsewhere")
        series = np.abs(np.einsum("kn,pnm->pkm", to_series, values))
        # Against all components at once: one that should be zero is rounding noise, and noise is never resolved.
        size = np.maximum(series.max(axis=(1, 2)), 1e-3 * series.max())
        resolved = series[:, -2:].max(axis=(1, 2)) <= RESOLVED * size
        done += [tuple(panel) for panel in pending[resolved]]
        rough = pending[~resolved]
        if len(rough) > MOST_PANELS or (len(rough) and np.diff(rough).min() < NARROWEST * (end - start)):
            raise NumericsError(f"the diffusion's matrices are not smooth near t = {rough[0, 0]:.6g}")
        middle = rough.mean(axis=1)
        pending = np.concatenate([np.stack([rough[:, 0], middle], 1), np.stack([middle, rough[:, 1]], 1)])
    return np.array([left for left, _ in sorted(done)] + [end])


@dataclass(frozen=True)
class Antiderivative:
    """`int_start^t f`, for scalar `f`, anywhere in [start, end]; made by `antiderivative`."""

    edges: Array
    series: Array  # [P, NODES + 1]: each panel's integral from its left edge, on [-1, 1]
    before: Array  # [P]: the integral up to each panel's left edge

    def __call__(self, t: Array) -> Array:
        panel = np.clip(np.searchsorted(self.edges, t, side="right") - 1, 0, len(self.before) - 1)
        left, right = self.edges[panel], self.edges[panel + 1]
        x = (2 * t - left - right) / (right - left)
        polynomials = legendre.legvander(x, NODES).reshape(*np.shape(x), NODES + 1)  # legvander makes a number [1]
        return self.before[panel] + np.einsum("...k,...k->...", polynomials, self.series[panel])


def antiderivative(function: Callable[[Array], Array], start: float, end: float) -> Antiderivative:
    """The integral of a scalar `function` ([n] to [n]) from `start`, to about 1e-13 of its size.

    Raises:
        NumericsError: as `resolving_edges`.
    """
    edges = resolving_edges(lambda t: function(t)[:, None], start, end)
    nodes, _ = nodes_and_weights(edges)
    _, _, to_series = rule()
    values = np.einsum("kn,pn->pk", to_series, function(nodes.ravel()).reshape(nodes.shape))
    series = legendre.legint(values, lbnd=-1, axis=1) * (np.diff(edges)[:, None] / 2)
    totals = series.sum(axis=1)  # every Legendre polynomial is 1 at the right edge
    return Antiderivative(edges, series, np.concatenate([[0.0], np.cumsum(totals)[:-1]]))
