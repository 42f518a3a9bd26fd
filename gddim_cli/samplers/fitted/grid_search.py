"""The search for the times of a solver, without gradients. A grid is judged by the error of the least-squares fit on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.fitted import closed_form
from gddim_cli.samplers.fitted.closed_form import ClosedForm
from gddim_cli.samplers.fitted.family import Method
from gddim_cli.samplers.fitted.trace import Batch, errors_of, rmse

FAINTEST = 0.03
"""The smallest ratio of image to noise at the first evaluation. At smaller ratios, the network returns nearly the same
image for any state."""


class GridState(msgspec.Struct, frozen=True):
    """The state of the search after a pass over all times.

    Attributes:
        indices: the best grid, [N], as the positions of its times (without the last) on the fine grid of candidates.
        error: the root mean square error of the least-squares fit on the best grid.
        move: the number of positions by which the next pass moves each time; 0 when the search is over.
        trials: the number of grids tried.
        chosen: among the best grids of all passes, [N], the one with the lowest error on images that are not used for
            the fit.
        lowest: the error of `chosen` on these images.
    """

    indices: list[int]
    error: float
    move: int
    trials: int
    chosen: list[int]
    lowest: float


def first_time(diffusion: Diffusion, t_start: float, t_end: float) -> float:
    """The first time, going down from `t_start`, at which the ratio of image to noise is at least `FAINTEST`.

    The ratio is `|R_t^{-1} psi|`, where psi is the first column of `Psi(t, 0)`.
    """
    times = np.linspace(t_start, t_end, 1001)
    signal = np.linalg.solve(diffusion.R(times), diffusion.Psi(times, 0.0)[..., :1])
    size = np.linalg.norm(signal, axis=(-2, -1)).reshape(len(times), -1).max(axis=1)
    return float(times[np.argmax(size >= FAINTEST)])


def nearest(fine: Array, grid: Array) -> list[int]:
    """The increasing positions on the fine grid, [N], that are nearest to the first N times of a grid, [N + 1]."""
    found: list[int] = []
    for i, t in enumerate(grid[:-1]):
        wanted = int(np.argmin(np.abs(fine - t)))
        low, high = (found[-1] + 1 if found else 0), len(fine) - len(grid) + i
        found.append(min(max(wanted, low), high))
    return found


@dataclass(frozen=True)
class Solved:
    """Images with their converged states at all times of the fine grid after the first, [M, B, D, C, H, W]."""

    batch: Batch
    states: NDArray[np.floating]

    def on(self, indices: Sequence[int]) -> Batch:
        """The batch with its converged states at the times of a grid.

        Args:
            indices: the positions of these times on the fine grid, without the last time.
        """
        read = [torch.from_numpy(np.array(self.states[i - 1])) for i in [*indices[1:], len(self.states)]]
        return replace(self.batch, states=[state.to(self.batch.start) for state in read])


def first_state(
    method: Method, fine: Array, solved: Sequence[Solved], others: Sequence[Batch], indices: list[int], move: int
) -> GridState:
    """The state of a search before its first pass. It starts at the grid `indices`; for `others` see `passes`."""
    fit, error = judged(method, fine, solved, indices)
    return GridState(indices, error, move, 1, indices, rmse(others, fit.coefficients))


def passes(
    method: Method, fine: Array, solved: Sequence[Solved], others: Sequence[Batch], state: GridState, limit: int
) -> Iterator[GridState]:
    """Coordinate descent: yields the state after each pass. A pass tries to move each time of the best grid up or down.

    If a pass finds no better grid, the next one moves the times half as far. A long search finds grids that suit only
    the fitted images. The best pass is therefore chosen by the error on `others`.

    Args:
        others: images that are not used for the fit.
        fine: the times to choose from, [M + 1].
        limit: no pass begins once this number of grids has been tried.
    """
    if state.move and state.trials < limit:
        fit, _ = judged(method, fine, solved, state.indices)
    while state.move and state.trials < limit:
        best, error, trials = state.indices, state.error, state.trials
        for j, by in product(range(len(best)), (state.move, -state.move)):
            grid = [*best[:j], best[j] + by, *best[j + 1 :]]
            if all(a < b for a, b in pairwise([-1, *grid, len(fine) - 1])):
                (other, found), trials = judged(method, fine, solved, grid, fit), trials + 1
                if found < error:
                    best, error, fit = grid, found, other
        move = state.move if best != state.indices else state.move // 2
        elsewhere = rmse(others, fit.coefficients)
        chosen, lowest = (best, elsewhere) if elsewhere < state.lowest else (state.chosen, state.lowest)
        state = GridState(best, error, move, trials, chosen, lowest)
        yield state


def judged(
    method: Method,
    fine: Array,
    solved: Sequence[Solved],
    indices: Sequence[int],
    known: ClosedForm | None = None,
) -> tuple[ClosedForm, float]:
    """The least-squares fit on a grid, and its root mean square error; for `known` see `closed_form.fit`."""
    batches = [each.on(indices) for each in solved]
    found = closed_form.fit(method, fine[[*indices, -1]], batches, known)
    errors = [errors_of(trace.states[-1], batch) for trace, batch in zip(found.traces, batches, strict=True)]
    return found, float(np.sqrt(np.concatenate(errors).mean()))
