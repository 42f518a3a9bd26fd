"""The flow (propagator) of a linear matrix differential equation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gddim_cli.errors import NumericsError
from gddim_cli.numerics.quadrature import (
    NODES,
    Array,
    legendre_basis,
    nodes_and_weights,
    resolving_edges,
    running_integral,
)

MAX_CHANGE = 2.0
"""The largest allowed product of a panel's width and the norm of the rate on this panel."""
MAX_PANELS = 2000
"""The largest number of panels. A rate that needs more of them is so large that the flow is nearly singular."""


class Flow:
    """`X(t, s)` with `dX/dt = rate(t) X`, `X(s, s) = I`, for t and s in [0, end]; the error is about 1e-12 |X|.

    [0, end] is divided into panels. They are so short that the rate is resolved and X changes little on each of them.
    On a panel, the equation is solved by collocation at the Gauss-Legendre nodes.

    The formula `X(t, s) = X(t, 0) X(s, 0)^{-1}` is not used: after a strong contraction, rounding errors dominate the
    inverse. Instead, the flow of every panel starts from I, and the flows of the panels between s and t are multiplied.
    """

    def __init__(self, rate: Callable[[Array], Array], size: int, end: float) -> None:
        """Solves the equation on every panel.

        Args:
            rate: maps times [n] to matrices [n, size, size], in units of 1/t.
            size: size of the matrices.
            end: the last time.

        Raises:
            NumericsError: the rate is not finite, not smooth, or too large.
        """
        self.size = size
        self.edges = short_edges(rate, resolving_edges(lambda t: rate(t).reshape(len(t), -1), 0.0, end))
        nodes, _ = nodes_and_weights(self.edges)
        rates = rate(nodes.ravel()).reshape(*nodes.shape, size, size)
        to_series, to_nodes = running_integral()
        half = np.diff(self.edges) / 2
        system = -np.einsum("pnm,pmij->pnimj", half[:, None, None] * to_nodes, rates)
        system = system.reshape(-1, NODES * size, NODES * size)
        system += np.eye(NODES * size)
        identities = np.broadcast_to(np.tile(np.eye(size), (NODES, 1)), (len(half), NODES * size, size))
        solved = np.linalg.solve(system, identities).reshape(-1, NODES, size, size)
        self.series = np.einsum("p,kn,pnij->pkij", half, to_series, rates @ solved)
        self.series[:, 0] += np.eye(size)
        self.between = self._products(self.series.sum(axis=1))  # every Legendre polynomial is 1 at the right edge

    def _products(self, whole: Array) -> Array:
        """Flows between panels, [P, P, size, size]: `[k, j]` goes from the start of panel j to the start of panel k."""
        count = len(whole)
        between = np.empty((count, count, self.size, self.size))
        back = np.linalg.inv(whole)
        between[range(count), range(count)] = np.eye(self.size)
        with np.errstate(over="ignore", invalid="ignore"):  # a flow between distant times may overflow
            for k in range(1, count):
                between[k, :k] = whole[k - 1] @ between[k - 1, :k]
                between[:k, k] = between[:k, k - 1] @ back[k - 1]
        return between

    def __call__(self, t: ArrayLike, s: ArrayLike = 0.0) -> Array:
        """X(t, s), [..., size, size].

        Raises:
            NumericsError: a time is outside [0, end].
        """
        (k, local_t), (j, local_s) = self._local(t), self._local(s)
        return np.asarray(local_t @ self.between[k, j] @ np.linalg.inv(local_s), dtype=np.float64)

    def _local(self, t: ArrayLike) -> tuple[NDArray[np.intp], Array]:
        """The panel of each time, and the flow from the panel's start to that time."""
        panel, polynomials = legendre_basis(self.edges, np.asarray(t, dtype=np.float64))
        return panel, np.einsum("...k,...kij->...ij", polynomials, self.series[panel])


def short_edges(rate: Callable[[Array], Array], edges: Array) -> Array:
    """Divides each panel on which the rate's norm times the panel's width exceeds `MAX_CHANGE`; returns all edges.

    Args:
        rate: maps times [n] to matrices [n, ..., D, D]; the norm is the largest Frobenius norm of these matrices.
        edges: increasing, [P + 1].

    Raises:
        NumericsError: more than `MAX_PANELS` panels would be needed.
    """
    nodes, _ = nodes_and_weights(edges)
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(rate(nodes.ravel()), axis=(-2, -1)).reshape(*nodes.shape, -1)
    change = norms.max(axis=(1, 2)) * np.diff(edges)
    if not change.sum() <= MAX_CHANGE * MAX_PANELS:
        raise NumericsError(
            f"the diffusion's drift is too strong to integrate: its rate times its duration is {change.sum():.3g}, "
            f"but must be at most {MAX_CHANGE * MAX_PANELS:g}; choose smaller rates"
        )
    parts = np.maximum(1, np.ceil(change / MAX_CHANGE)).astype(int)
    pieces = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(edges, edges[1:], parts, strict=False)]
    return np.concatenate([*pieces, edges[-1:]])
