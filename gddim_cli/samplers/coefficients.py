"""The coefficients of linear samplers, precomputed in float64: `Psi`, `C_ij` and the matrices of the denoising step.

They follow gDDIM (arXiv 2206.05564), Eq. 19. Each step replaces a function f by the polynomial through the values of f
at the current and past times. f is the noise prediction eps, as in the paper, or one of two alternatives (see
`data_std` in `gddim_coefficients`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.errors import NumericsError, UsageError
from gddim_cli.numerics.flow import short_edges
from gddim_cli.numerics.quadrature import Array, nodes_and_weights, resolving_edges
from gddim_cli.samplers.gaussian_images import GaussianImages

HIGHEST_ORDER = 3


@dataclass(frozen=True)
class Coefficients:
    """Constants of a linear multistep method, float64.

    Step i is `u_{i+1} = Psi[i] u_i + sum_j C[i, j] f_{i-j} + noise[i] z_i` with `z_i ~ N(0, I)`. The denoising step, if
    any, is `u = last[0] u_N + last[1] eps(u_N, t_N)`. The prediction f_i is `eps(u_i, t_i)` or, if `prediction` is
    given, `prediction[i, 0] u_i + prediction[i, 1] eps(u_i, t_i)`.

    Attributes:
        t: the times, [N + 1], decreasing.
        Psi: [N, D, D]. If blocks differ by frequency, [H, W, 1, 1] replaces every [D, D] in this list.
        C: [N, order + 1, D, D]. In the first steps, the entries for past evaluations that do not exist yet are zero.
        k: which K (`R` or `L`) defines the noise prediction eps in the formulas above.
        last: the matrices of the denoising step, [2, D, D], or None.
        noise: [N, D, D]; step i adds noise of covariance `noise[i] noise[i]^T`. None for a deterministic method.
        prediction: [N, 2, D, D]; None if f is eps.
        first: [D, D], maps the state u_T to the state at t[0] without a network evaluation. None if u_T is already the
            state at t[0].
    """

    t: Array
    Psi: Array
    C: Array
    k: KChoice
    last: Array | None = None
    noise: Array | None = None
    prediction: Array | None = None
    first: Array | None = None

    @property
    def order(self) -> int:
        return self.C.shape[1] - 1

    @property
    def nfe(self) -> int:
        """The network evaluations of a run with these coefficients: one per step, and one for the denoising step."""
        return len(self.Psi) + (self.last is not None)


@dataclass(frozen=True)
class Equation:
    """The probability flow as `du/dt = A_t u + B_t f`. The term in u is solved exactly, and f is interpolated in t.

    Attributes:
        A, B: map times [...] to matrices [..., D, D].
        flow: maps times t and s to the transition matrix of `du/dt = A_t u` from s to t.
    """

    A: Callable[[Array], Array]
    B: Callable[[Array], Array]
    flow: Callable[[Array, Array], Array]


def noise_equation(diffusion: Diffusion, k: KChoice) -> Equation:
    """The equation for noise prediction: `A = F`, `B = 1/2 GG K^{-T}`, f = eps."""

    def rate(s: Array) -> Array:
        return 0.5 * diffusion.GG(s) @ np.linalg.inv(diffusion.K(s, k)).swapaxes(-1, -2)

    return Equation(diffusion.F, rate, diffusion.Psi)


def data_equation(diffusion: Diffusion, data_std: float) -> Equation:
    """The equation for data prediction (`data_std` = 0) or for `--predict blend` (`data_std` > 0).

    `A = F + 1/2 GG V^{-1}` and `B = -1/2 GG Sigma^{-1} Psi(s, 0)`. Here `V = Sigma + data_std^2 psi psi^T`, and psi is
    the first column of `Psi(s, 0)`; `data_prediction` defines f. For images distributed as `N(0, data_std^2 I)`, V is
    the covariance of the states, and `du/dt = A u` is their probability flow.
    """
    images = GaussianImages(diffusion, data_std) if data_std else diffusion

    def drift(s: Array) -> Array:
        return np.asarray(diffusion.F(s) + 0.5 * diffusion.GG(s) @ np.linalg.inv(images.Sigma(s)))

    def rate(s: Array) -> Array:
        return np.asarray(-0.5 * diffusion.GG(s) @ np.linalg.solve(diffusion.Sigma(s), diffusion.Psi(s, 0.0)))

    return Equation(drift, rate, lambda t, s: images.R(t) @ np.linalg.inv(images.R(s)))


def data_prediction(diffusion: Diffusion, t: Array, k: KChoice, data_std: float = 0.0) -> Array:
    """The matrices, [N, 2, D, D], that map u and eps to `f = Psi(0, t) (Sigma V^{-1} u - K eps)`.

    `data_equation` defines V and psi. `u - K eps` estimates `psi x_0`. For `data_std` = 0, V is Sigma, and the first
    component of f is the estimate of x_0. For `data_std` > 0, the best linear estimate of x_0, which is `c_skip y` in
    Karras et al. (arXiv 2206.00364), is subtracted from this component.
    """
    back = diffusion.Psi(0.0, t)
    kept = back
    if data_std:
        sigma = diffusion.Sigma(t)
        kept = back @ sigma @ np.linalg.inv(GaussianImages(diffusion, data_std).Sigma(t))
    return np.stack([kept, -back @ diffusion.K(t, k)], axis=1)


def gddim_coefficients(
    diffusion: Diffusion,
    t: Array,
    order: int = 2,
    k: KChoice = "R",
    denoise: bool = False,
    data_std: float | None = None,
) -> Coefficients:
    """Coefficients of deterministic gDDIM (Eq. 19) on the grid `t`.

    `C_ij = int_{t_i}^{t_{i+1}} flow(t_{i+1}, s) B_s l_j(s) ds`, with flow and B as in `Equation`. `l_j` are the
    Lagrange polynomials on the nodes `t_i, ..., t_{i-q}`. In the first q steps, the nodes are the times evaluated so
    far. The integrals are computed by Gauss-Legendre quadrature on panels that resolve the integrand to a relative
    accuracy of 1e-13.

    Args:
        diffusion: defines the matrices.
        t: decreasing positive times, [N + 1].
        order: q, the number of past evaluations used besides the current one, 0 to 3.
        k: which K defines eps, "R" (gDDIM) or "L" (Cholesky).
        denoise: whether a final denoising step follows.
        data_std: selects the interpolated function. None: eps, as in the paper. 0: the estimate of the image. Above 0:
            the estimate of the image minus the best linear estimate for images with this standard deviation.

    Raises:
        UsageError: the order is not from 0 to 3.
        NumericsError: the quadrature cannot resolve the integrand, or a coefficient is not finite.
    """
    if not 0 <= order <= HIGHEST_ORDER:
        raise UsageError(f"--order: {order} is not in 0..{HIGHEST_ORDER}")
    equation = noise_equation(diffusion, k) if data_std is None else data_equation(diffusion, data_std)
    transition = equation.flow(t[1:], t[:-1])
    prediction = None if data_std is None else data_prediction(diffusion, t[:-1], k, data_std)
    last = denoising_matrices(diffusion, t[-1], k) if denoise else None
    found = Coefficients(t, transition, integrals(equation, t, order), k, last, prediction=prediction)
    if not (np.isfinite(found.C).all() and np.isfinite(transition).all()):
        raise NumericsError(f"{diffusion.name}: a coefficient of the grid from {t[0]:g} to {t[-1]:g} is not finite")
    return found


def integrals(equation: Equation, t: Array, order: int, ahead: int = 0) -> Array:
    """`C_ij` of `gddim_coefficients` with `t_{i + ahead}` as the newest node, [N, order + 1 + ahead, D, D]."""

    def to_resolve(s: Array) -> Array:
        return np.concatenate([m(s).reshape(len(s), -1) for m in (equation.B, equation.A)], axis=1)

    edges = np.union1d(t, short_edges(equation.A, resolving_edges(to_resolve, t[-1], t[0])))
    nodes, weights = nodes_and_weights(edges)
    step = len(t) - 1 - np.searchsorted(t[::-1], nodes[:, 0])  # for each panel, [P], the step that contains it
    integrand = equation.flow(t[step + 1][:, None], nodes) @ equation.B(nodes)
    c = np.zeros((len(t) - 1, order + 1 + ahead, *integrand.shape[2:]))
    for j in range(order + 1 + ahead):
        weighted: Array = weights * lagrange(t, step + ahead, j, order + ahead, nodes)
        # Time decreases from t_i to t_{i+1}, so the step's integral is minus the sum over its panels.
        np.add.at(c[:, j], step, -np.einsum("pn,pn...->p...", weighted, integrand))
    return c


def lagrange(t: Array, newest: NDArray[np.intp], j: int, order: int, s: Array) -> Array:
    """The Lagrange polynomial `l_j(s)` on the nodes `t_i, t_{i-1}, ..., t_{i-order}`.

    Nodes with a negative index do not exist and are left out. If `t_{i-j}` is one of them, the result is 0.

    Args:
        t: the grid.
        newest: the index i of the newest node for each row of `s`, [P].
        j: the index of the polynomial.
        order: the highest j.
        s: the points at which the polynomial is evaluated, [P, n].
    """
    values = np.ones_like(s)
    own = t[np.maximum(newest - j, 0)][:, None]
    for other in set(range(order + 1)) - {j}:
        there = (newest >= max(other, j))[:, None]
        node = t[np.maximum(newest - other, 0)][:, None]
        values *= np.where(there, (s - node) / np.where(there, own - node, 1.0), 1.0)
    return np.where((newest >= j)[:, None], values, 0.0)


def denoising_matrices(diffusion: Diffusion, t_end: float, k: KChoice) -> Array:
    """`[I - t_end F, -t_end GG K^{-T}]` at t_end, [2, D, D]: the matrices of the denoising step.

    The denoising step is an Euler step of the reverse-time SDE from t_end to 0, without the noise:
    `u + F u dt - GG score dt` with `dt = -t_end` and `score = -K^{-T} eps`.
    """
    inverse = np.linalg.inv(diffusion.K(t_end, k)).swapaxes(-1, -2)
    f, gg = diffusion.F(t_end), diffusion.GG(t_end)
    return np.stack([np.eye(diffusion.D) - t_end * f, -t_end * gg @ inverse])
