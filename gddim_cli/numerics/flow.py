"""The flow of a linear matrix equation, from one time to another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray

from gddim_cli.numerics.quadrature import NODES, Array, nodes_and_weights, resolving_edges, rule

LONGEST = 2.0


class Flow:
    """`X(t, s)` with `dX/dt = rate(t) X`, `X(s, s) = I`, for t and s in [0, end], to about 1e-12 of its size.

    By collocation at the Gauss-Legendre nodes of panels that resolve the rate and are short beside it. The flow from 0
    alone would do in exact arithmetic, but after a strong contraction its inverse is noise; so every panel starts from
    I, and the panels between s and t are multiplied.
    """

    def __init__(self, rate: Callable[[Array], Array], size: int, end: float) -> None:
        """Solves on every panel.

        Args:
            rate: times [n] to matrices [n, size, size].

        Raises:
            NumericsError: the rate is not finite or not smooth.
        """
        self.size = size
        self.edges = short_edges(rate, resolving_edges(lambda t: rate(t).reshape(len(t), -1), 0.0, end))
        nodes, _ = nodes_and_weights(self.edges)
        rates = rate(nodes.ravel()).reshape(*nodes.shape, size, size)
        points, _, to_series = rule()
        # From values at the nodes to the series of their integral from the left edge, and to its values at the nodes.
        integral = legendre.legint(to_series, lbnd=-1)
        half = np.diff(self.edges) / 2
        at_nodes = half[:, None, None] * (legendre.legvander(points, NODES) @ integral)
        system = -np.einsum("pnm,pmij->pnimj", at_nodes, rates).reshape(-1, NODES * size, NODES * size)
        system += np.eye(NODES * size)
        identities = np.broadcast_to(np.tile(np.eye(size), (NODES, 1)), (len(half), NODES * size, size))
        solved = np.linalg.solve(system, identities).reshape(-1, NODES, size, size)
        self.series = np.einsum("p,kn,pnij->pkij", half, integral, rates @ solved)
        self.series[:, 0] += np.eye(size)
        self.between = self._products(self.series.sum(axis=1))  # every Legendre polynomial is 1 at the right edge

    def _products(self, whole: Array) -> Array:
        """`[k, j]`: the flow from the start of panel j to the start of panel k, either way, [P, P, size, size]."""
        count = len(whole)
        between = np.empty((count, count, self.size, self.size))
        back = np.linalg.inv(whole)
        between[range(count), range(count)] = np.eye(self.size)
        for k in range(1, count):
            between[k, :k] = whole[k - 1] @ between[k - 1, :k]
            between[:k, k] = between[:k, k - 1] @ back[k - 1]
        return between

    def __call__(self, t: ArrayLike, s: ArrayLike = 0.0) -> Array:
        """X(t, s), [..., size, size]."""
        (k, local_t), (j, local_s) = self._local(t), self._local(s)
        return np.asarray(local_t @ self.between[k, j] @ np.linalg.inv(local_s), dtype=np.float64)

    def _local(self, t: ArrayLike) -> tuple[NDArray[np.intp], Array]:
        """The panel that each time lies in, and the flow there from the panel's start."""
        times = np.asarray(t, dtype=np.float64)
        panel = np.clip(np.searchsorted(self.edges, times, side="right") - 1, 0, len(self.series) - 1)
        left, right = self.edges[panel], self.edges[panel + 1]
        x = (2 * times - left - right) / (right - left)
        polynomials = legendre.legvander(x, NODES).reshape(*times.shape, NODES + 1)
        return panel, np.einsum("...k,...kij->...ij", polynomials, self.series[panel])


def short_edges(rate: Callable[[Array], Array], edges: Array) -> Array:
    """The edges, and more between them where the rate times the width of a panel is above `LONGEST`."""
    nodes, _ = nodes_and_weights(edges)
    strength = np.linalg.norm(rate(nodes.ravel()), axis=(1, 2)).reshape(nodes.shape).max(axis=1)
    parts = np.maximum(1, np.ceil(strength * np.diff(edges) / LONGEST)).astype(int)
    pieces = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(edges, edges[1:], parts, strict=False)]
    return np.concatenate([*pieces, edges[-1:]])
