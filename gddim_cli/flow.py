"""The flow of a linear matrix equation, from one time to another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from gddim_cli.errors import NumericsError
from gddim_cli.panels import Array


class Flow:
    """`X(t, s)` with `dX/dt = rate(t) X`, `X(s, s) = I`, for t and s in [0, end], to about 1e-12 of its size.

    The flow from 0 alone would do in exact arithmetic, but after a strong contraction its inverse is noise. So each of
    `PIECES` starts from I, and the pieces between s and t are multiplied.
    """

    PIECES = 32

    def __init__(self, rate: Callable[[float], Array], size: int, end: float) -> None:
        """Solves on every piece.

        Raises:
            NumericsError: the solver gave up.
        """
        self.size = size
        self.edges = np.linspace(0.0, end, self.PIECES + 1)
        identity = np.eye(size).ravel()
        self.pieces = []
        for span in zip(self.edges[:-1], self.edges[1:], strict=True):
            solved = solve_ivp(
                lambda t, x: (rate(t) @ x.reshape(size, size)).ravel(),
                span,
                identity,
                "DOP853",
                dense_output=True,
                rtol=1e-13,
                atol=1e-16,
            )
            if not solved.success:
                raise NumericsError(f"the diffusion's matrices could not be integrated: {solved.message}")
            self.pieces.append(solved.sol)
        whole = [piece(edge).reshape(size, size) for piece, edge in zip(self.pieces, self.edges[1:], strict=True)]
        # between[k, j]: from the start of piece j to the start of piece k.
        self.between = np.empty((self.PIECES, self.PIECES, size, size))
        for j in range(self.PIECES):
            self.between[j, j] = np.eye(size)
            for k in range(j + 1, self.PIECES):
                self.between[k, j] = whole[k - 1] @ self.between[k - 1, j]
                self.between[j, k] = self.between[j, k - 1] @ np.linalg.inv(whole[k - 1])

    def __call__(self, t: ArrayLike, s: ArrayLike = 0.0) -> Array:
        """X(t, s), [..., size, size]."""
        (k, local_t), (j, local_s) = self._local(t), self._local(s)
        return local_t @ self.between[k, j] @ np.linalg.inv(local_s)

    def _local(self, t: ArrayLike) -> tuple[NDArray[np.intp], Array]:
        """The piece that each time lies in, and the flow there from the piece's start."""
        times = np.asarray(t, dtype=np.float64)
        index = np.clip(np.searchsorted(self.edges, times, side="right") - 1, 0, self.PIECES - 1)
        local = np.empty((*times.shape, self.size, self.size))
        for k in np.unique(index):
            here = index == k
            local[here] = np.moveaxis(self.pieces[k](times[here]), 0, -1).reshape(-1, self.size, self.size)
        return index, local
