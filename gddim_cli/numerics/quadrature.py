"""Piecewise Gauss-Legendre quadrature on panels that are halved until a function is resolved.

The matrices of a diffusion vary fast near t = 0 and slowly elsewhere. For example, R_t rotates at a rate of -1.6e3 near
t = 0 on the released CLD schedule. A panel is halved if the Legendre series of the function on this panel has not
decayed. Integrals and antiderivatives use the same panels. All arithmetic is in float64.
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
"""Gauss-Legendre nodes on each panel."""
RESOLVED = 1e-13
"""A panel is resolved if its last two Legendre coefficients are at most this, relative to the largest coefficient."""
NARROWEST = 2.0**-45
"""The smallest allowed width of a panel, as a fraction of the interval."""
MAX_PENDING = 1000
"""The largest number of panels that may be unresolved at the same time."""
ROUNDING = 1e-9
"""A time outside the interval counts as inside if its distance is at most this fraction of the interval's length."""


@cache
def rule() -> tuple[Array, Array, Array]:
    """Gauss-Legendre nodes and weights on [-1, 1], and the matrix from values at the nodes to Legendre coefficients."""
    nodes, weights = legendre.leggauss(NODES)
    degrees = np.arange(NODES)
    to_series = (degrees[:, None] + 0.5) * legendre.legvander(nodes, NODES - 1).T * weights
    return nodes, weights, to_series


@cache
def running_integral() -> tuple[Array, Array]:
    """Two matrices that map a function's values at the nodes of [-1, 1] to its integral from -1 to x.

    Returns:
        The matrix that gives the integral's Legendre coefficients, [NODES + 1, NODES], and the matrix that gives the
        integral at the nodes, [NODES, NODES].
    """
    points, _, to_series = rule()
    series = np.asarray(legendre.legint(to_series, lbnd=-1), dtype=np.float64)
    return series, legendre.legvander(points, NODES) @ series


def nodes_and_weights(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights, each [P, NODES], on the P panels between increasing `edges` [P + 1]."""
    nodes, weights, _ = rule()
    half = np.diff(edges)[:, None] / 2
    return edges[:-1, None] + half * (1 + nodes), half * weights


def resolving_edges(function: Callable[[Array], Array], start: float, end: float) -> Array:
    """Divides [start, end] into panels, on each of which a polynomial of degree NODES - 1 resolves `function`.

    Args:
        function: maps times [n] to values [n, m]; smooth inside (start, end).

    Returns:
        The increasing edges of the panels, [P + 1].

    Raises:
        NumericsError: the function is not finite or too rough. It is too rough if a panel would become narrower than
            `NARROWEST`, or if more than `MAX_PENDING` panels are unresolved at the same time.
    """
    _, _, to_series = rule()
    done: list[tuple[float, float]] = []
    pending = np.array([[start, end]])
    while len(pending):
        nodes = np.concatenate([nodes_and_weights(panel)[0] for panel in pending])
        with np.errstate(all="ignore"):
            values = function(nodes.ravel()).reshape(len(pending), NODES, -1)
        if not np.isfinite(values).all():
            bad = nodes[~np.isfinite(values).all(axis=2)][0]
            raise NumericsError(
                f"the diffusion's matrices are not finite at t = {bad:.6g}; sample between times where they are finite"
            )
        series = np.abs(np.einsum("kn,pnm->pkm", to_series, values))
        # The last coefficients of each component are compared with the largest coefficient of any component, not of their
        # own. A component that should be zero consists of rounding errors, whose series does not decay.
        size = np.maximum(series.max(axis=(1, 2)), 1e-3 * series.max())
        resolved = series[:, -2:].max(axis=(1, 2)) <= RESOLVED * size
        done += [tuple(panel) for panel in pending[resolved]]
        rough = pending[~resolved]
        if len(rough) > MAX_PENDING or (len(rough) and np.diff(rough).min() < NARROWEST * (end - start)):
            raise NumericsError(f"the diffusion's matrices are not smooth near t = {rough[0, 0]:.6g}")
        middle = rough.mean(axis=1)
        pending = np.concatenate([np.stack([rough[:, 0], middle], 1), np.stack([middle, rough[:, 1]], 1)])
    return np.array([left for left, _ in sorted(done)] + [end])


def legendre_basis(edges: Array, t: Array) -> tuple[NDArray[np.intp], Array]:
    """The panel of each time, [...], and the values of the panel's Legendre polynomials at this time, [..., NODES + 1].

    Raises:
        NumericsError: a time is outside [edges[0], edges[-1]], or NaN.
    """
    start, end = edges[0], edges[-1]
    slack = ROUNDING * (end - start)
    inside = (t >= start - slack) & (t <= end + slack)
    if not np.all(inside):
        bad = np.extract(~inside, t)[0]
        raise NumericsError(f"t = {bad:.6g} is outside [{start:g}, {end:g}], the interval of the precomputed integral")
    panel = np.clip(np.searchsorted(edges, t, side="right") - 1, 0, len(edges) - 2)
    left, right = edges[panel], edges[panel + 1]
    x = (2 * t - left - right) / (right - left)
    polynomials = np.asarray(legendre.legvander(x, NODES), dtype=np.float64)
    return panel, polynomials.reshape(*np.shape(x), NODES + 1)  # legvander turns a number into an array [1]


@dataclass(frozen=True)
class Antiderivative:
    """`int_start^t f` of a scalar function `f` for t in [start, end], made by `antiderivative`.

    Attributes:
        edges: the edges of the panels, [P + 1].
        series: Legendre coefficients of each panel's integral from its left edge, [P, NODES + 1].
        before: the integral up to each panel's left edge, [P].
    """

    edges: Array
    series: Array
    before: Array

    def __call__(self, t: Array) -> Array:
        """The integrals from `start` to times t of any shape, in this shape.

        Raises:
            NumericsError: a time is outside [start, end].
        """
        panel, polynomials = legendre_basis(self.edges, t)
        return self.before[panel] + np.einsum("...k,...k->...", polynomials, self.series[panel])


def antiderivative(function: Callable[[Array], Array], start: float, end: float) -> Antiderivative:
    """The integral of a scalar `function`, which maps times [n] to values [n], from `start` to any time up to `end`.

    Its relative error is about 1e-13.

    Raises:
        NumericsError: under the conditions of `resolving_edges`.
    """
    edges = resolving_edges(lambda t: function(t)[:, None], start, end)
    nodes, _ = nodes_and_weights(edges)
    _, _, to_series = rule()
    values = np.einsum("kn,pn->pk", to_series, function(nodes.ravel()).reshape(nodes.shape))
    series = legendre.legint(values, lbnd=-1, axis=1) * (np.diff(edges)[:, None] / 2)
    totals = series.sum(axis=1)  # every Legendre polynomial is 1 at the right edge
    return Antiderivative(edges, series, np.concatenate([[0.0], np.cumsum(totals)[:-1]]))
