"""The solvers among which the fit searches: gDDIM with free times and free offsets to the matrices of every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.coefficients import Coefficients, gddim_coefficients


@dataclass(frozen=True)
class Method:
    """The gDDIM method from which all solvers of a search are derived. It interpolates the noise prediction.

    Attributes:
        diffusion: defines the matrices.
        k: which K defines the noise prediction.
        order: the number of past predictions that a step uses besides the current one.
        t_start: T, the time of the prior's states.
    """

    diffusion: Diffusion
    k: KChoice
    order: int
    t_start: float

    def on(self, times: Array) -> Coefficients:
        """gDDIM's coefficients on a time grid, [N + 1].

        Before the first step, `R(t_0) R(T)^{-1}` carries the prior's noise from T to t_0. For K = L, R may be
        undefined, so the prior's states are used at t_0 unchanged.
        """
        found = gddim_coefficients(self.diffusion, times, self.order, self.k)
        if self.k != "R":
            return found
        return replace(found, first=self.diffusion.R(times[0]) @ np.linalg.inv(self.diffusion.R(self.t_start)))


@dataclass(frozen=True)
class Family:
    """A family of solvers with a parameter vector theta: shifts of all times but the last, then a matrix Z_i per step.

    The features of step i are the predictions `eps_i, ..., eps_{i-q}` and the state. gDDIM's step multiplies them by
    matrices. Side by side, these form one [D, m D] matrix, to which the offset `scales[i] Z_i directions[i]` is added.

    The directions form uncorrelated combinations of the features with mean square 1, and the scales are the residuals
    of the least-squares fit (see `closed_form`). All parameters therefore have effects of similar size.

    Attributes:
        grid: the times for theta = 0, [N + 1].
        directions: for each step, r combinations of the m features, [r, m D].
        scales: for each step, the root mean square residual of each state component, [D].
    """

    method: Method
    grid: Array
    directions: Sequence[Array]
    scales: Sequence[Array]

    @property
    def steps(self) -> int:
        """The number of steps, N."""
        return len(self.grid) - 1

    @property
    def free_times(self) -> int:
        """The number of times in theta, which are all times except the last."""
        return self.steps

    @property
    def unit(self) -> Array:
        """The unit of each time's shift, [N]: half the distance between the neighbors of this time on the grid.

        The unit of the first time is negative: a finite difference raises theta, and must not move this time beyond T.
        """
        ahead = self.grid[:-2] - self.grid[2:]
        return np.append(self.grid[1] - self.grid[0], ahead) / 2

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The shapes of the `Z_i`, (D, r)."""
        return [(len(scale), len(rows)) for scale, rows in zip(self.scales, self.directions, strict=True)]

    @property
    def size(self) -> int:
        """The length of theta."""
        return self.free_times + sum(d * r for d, r in self.shapes)

    def slices(self) -> list[slice]:
        """The slices of theta that hold the Z_i."""
        ends = self.free_times + np.cumsum([d * r for d, r in self.shapes])
        return [slice(int(end) - d * r, int(end)) for end, (d, r) in zip(ends, self.shapes, strict=True)]

    def times(self, theta: Array) -> Array:
        """The times of a solver, [N + 1]. For a large theta, they may fail to decrease; see `allows`."""
        found = self.grid.copy()
        found[:-1] += self.unit * theta[: self.free_times]
        found[0] = min(found[0], self.method.t_start)
        return found

    def allows(self, theta: Array) -> bool:
        """Whether the times decrease, and every step is longer than a hundredth of the same step for theta = 0."""
        return bool((np.diff(self.times(theta)) < 0.01 * np.diff(self.grid)).all())

    def parts(self, theta: Array) -> list[Array]:
        """The Z_i, each [D, r]."""
        return [theta[at].reshape(shape) for at, shape in zip(self.slices(), self.shapes, strict=True)]

    def offsets(self, theta: Array) -> list[Array]:
        """The offsets of the steps' matrices, each [D, m D] for m features."""
        parts = zip(self.parts(theta), self.scales, self.directions, strict=True)
        return [scale[:, None] * (z @ rows) for z, scale, rows in parts]

    def coefficients(self, theta: Array) -> Coefficients:
        """The coefficients of a solver."""
        found = self.method.on(self.times(theta))
        for i, offset in enumerate(self.offsets(theta)):
            found = with_offset(found, i, offset)
        return found


def with_offset(c: Coefficients, i: int, offset: Array) -> Coefficients:
    """The coefficients with `offset`, [D, m D], added to the matrices of step i, for all frequencies alike."""
    dimension = len(offset)
    blocks = offset.reshape(dimension, -1, dimension).swapaxes(0, 1)
    blocks = blocks.reshape(len(blocks), *[1] * (c.Psi.ndim - 3), dimension, dimension)
    psi, matrices, used = c.Psi.copy(), c.C.copy(), min(i, c.order) + 1
    matrices[i, :used] += blocks[:used]
    psi[i] += blocks[used:].sum(axis=0)
    return replace(c, Psi=psi, C=matrices)
