"""The checks of `gddim check`: equations of a diffusion's matrices, its prior, one-step exactness, orders of convergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from gddim_cli.diffusions.base import Diffusion, check_times
from gddim_cli.numerics.flow import short_edges
from gddim_cli.numerics.quadrature import Array, nodes_and_weights, resolving_edges, running_integral
from gddim_cli.samplers.time_grids import power_grid
from gddim_cli.verification.exact import ExactFlow, PointFlow, error_of, exact_flow, informed_end, slopes
from gddim_cli.verification.frequencies import parts_to_test

EQUATION_BOUND = 1e-8
ONE_STEP_BOUND = 1e-11
LARGEST_GROWTH = 1e6
"""The largest norm of Psi over a tested step. Rounding errors grow by this factor."""
IMAGE_BOUND = 0.2
PRIOR_BOUND = 0.05
SLOPE_BOUND = 0.2
FIRST_STEPS, MAX_STEPS = 160, 5120
CONVERGED = 1e-12
"""Errors up to this size are rounding errors, from which no slope can be measured."""
LAST_FRACTION = 0.05
"""Orders of convergence are measured from `t_start` to this fraction of `t_start`."""


@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    Attributes:
        check: what was tested.
        value: what was found.
        bound: the bound on the value, or on the difference between a slope and the expected slope.
        expected: the values that pass, in words.
        passed: whether it passed.
        message: for a failed check, what is wrong and what to do about it, in one sentence.
    """

    check: str
    value: float
    bound: float
    expected: str
    passed: bool
    message: str = ""


def below(check: str, value: float, bound: float, message: str) -> Result:
    """The result of a check whose value has to be below a bound; NaN fails."""
    passed = bool(value < bound)
    return Result(check, value, bound, f"below {bound:g}", passed, "" if passed else message)


class Subject:
    """A diffusion, and quantities that several of its checks share."""

    def __init__(self, diffusion: Diffusion) -> None:
        """Raises UsageError if sampling goes outside the diffusion's times."""
        check_times(diffusion, diffusion.sampling)
        self.diffusion = diffusion
        self.k, self.start, self.end = diffusion.sampling.k, diffusion.sampling.t_start, diffusion.sampling.t_end

    @cached_property
    def edges(self) -> Array:
        """The edges, [P + 1], of the panels that divide [t_end, t_start]. All matrices change little within a panel."""
        d = self.diffusion

        def matrices(t: Array) -> Array:
            noise = d.GG(t) @ np.linalg.inv(d.K(t, self.k)).swapaxes(-1, -2)
            return np.concatenate([d.F(t), d.GG(t), noise], axis=-1).reshape(len(t), -1)

        return short_edges(d.F, short_edges(self.rate, resolving_edges(matrices, self.end, self.start)))

    def rate(self, t: Array) -> Array:
        """`F + 1/2 GG Sigma^{-1}`, the matrix M of R's equation `dR/dt = M R`."""
        d = self.diffusion
        return d.F(t) + 0.5 * d.GG(t) @ np.linalg.inv(d.Sigma(t))

    @cached_property
    def nodes(self) -> Array:
        """The Gauss-Legendre nodes of the panels, [P, n]."""
        return nodes_and_weights(self.edges)[0]

    @cached_property
    def scale(self) -> Array:
        """The standard deviations `sqrt(Sigma_ii)` at the nodes, [P, n, D]."""
        return np.sqrt(np.diagonal(self.diffusion.Sigma(self.nodes), axis1=-2, axis2=-1))

    def residual(self, value: Callable[[Array], Array], rate: Callable[[Array], Array]) -> Array:
        """`X(t) - X(a) - int_a^t dX/dt`, where t is a node and a the left edge of its panel, [P, n, D, D].

        The integral is spectrally accurate and, unlike a finite difference, needs no choice of a step size.

        Args:
            value: X.
            rate: dX/dt.
        """
        _, to_nodes = running_integral()
        change = np.einsum("p,nm,pmij->pnij", np.diff(self.edges) / 2, to_nodes, rate(self.nodes))
        return np.asarray(value(self.nodes) - value(self.edges[:-1])[:, None] - change, dtype=np.float64)

    @cached_property
    def flow(self) -> ExactFlow:
        """The exact flow against which orders of convergence are measured."""
        return exact_flow(self.diffusion, self.k, LAST_FRACTION * self.start)


def largest(values: Array) -> float:
    """The largest absolute value; NaN if any value is NaN."""
    return float(np.abs(values).max(initial=0.0))


def norms(matrices: Array) -> Array:
    """The Frobenius norms, [..., 1, 1], of matrices [..., D, D]."""
    return np.linalg.norm(matrices, axis=(-2, -1), keepdims=True)


def check_psi(subject: Subject) -> Result:
    """Checks `Psi(s, s) = I`, `dPsi/dt = F Psi` and `Psi(t, s) = Psi(t, a) Psi(a, s)`.

    Here t is a node and a the left edge of its panel. The equation is checked from a to t, and the product for three
    values of s.
    """
    d, nodes, edges = subject.diffusion, subject.nodes, subject.edges
    a = edges[:-1, None]
    here = d.Psi(nodes, a)
    _, to_nodes = running_integral()
    change = np.einsum("p,nm,pmij->pnij", np.diff(edges) / 2, to_nodes, d.F(nodes) @ here)
    errors = [largest(d.Psi(edges, edges) - np.eye(d.D)), largest((here - np.eye(d.D) - change) / norms(here))]
    for s in (subject.end, 0.5 * (subject.start + subject.end), subject.start):
        whole, before = d.Psi(nodes, s), d.Psi(a, s)
        # Psi may overflow if s and t are far apart.
        finite = np.isfinite(whole).all(axis=(-2, -1)) & np.isfinite(before).all(axis=(-2, -1))
        errors.append(largest(((whole - here @ before) / (norms(here) * norms(before)))[finite]))
    message = "Psi does not solve dPsi/dt = F Psi with Psi(s, s) = I; leave Psi out to have it computed from F"
    return below("dPsi/dt = F Psi, Psi(s, s) = I", max(errors), EQUATION_BOUND, message)


def check_noise(subject: Subject) -> Result:
    """Checks that GG is symmetric and positive semidefinite. Deviations are relative to the largest entry of GG."""
    gg = subject.diffusion.GG(subject.nodes)
    transposed = gg.swapaxes(-1, -2)
    lowest = float(np.linalg.eigvalsh(0.5 * (gg + transposed)).min())
    value = max(largest(gg - transposed), -lowest) / max(largest(gg), np.finfo(float).tiny)
    message = "GG is not the product of a matrix and its transpose; give G G^T, symmetric and positive semidefinite"
    return below("GG symmetric, positive semidefinite", value, EQUATION_BOUND, message)


def check_sigma(subject: Subject) -> Result:
    """Checks `dSigma/dt = F Sigma + Sigma F^T + GG` relative to `sqrt(Sigma_ii Sigma_jj)`, and `Sigma(0) = Sigma_0`."""
    d = subject.diffusion

    def rate(t: Array) -> Array:
        moved = d.F(t) @ d.Sigma(t)
        return moved + moved.swapaxes(-1, -2) + d.GG(t)

    residual = subject.residual(d.Sigma, rate) / (subject.scale[..., :, None] * subject.scale[..., None, :])
    at_0 = largest(d.Sigma(0.0) - d.Sigma_0) / max(largest(d.Sigma_0), largest(d.Sigma(subject.end)))
    message = (
        "Sigma does not solve dSigma/dt = F Sigma + Sigma F^T + GG from Sigma_0; leave Sigma and noise_covariance out to have "
        "them computed"
    )
    return below("dSigma/dt = F Sigma + Sigma F^T + GG", max(largest(residual), at_0), EQUATION_BOUND, message)


def check_r(subject: Subject) -> Result:
    """Checks `dR/dt = (F + 1/2 GG Sigma^{-1}) R` and `R R^T = Sigma`, relative to `sqrt(Sigma_ii)`."""
    d, rows = subject.diffusion, subject.scale[..., :, None]
    r = d.R(subject.nodes)
    residual = subject.residual(d.R, lambda t: subject.rate(t) @ d.R(t)) / rows
    square = (r @ r.swapaxes(-1, -2) - d.Sigma(subject.nodes)) / (rows * rows.swapaxes(-1, -2))
    message = "R does not solve dR/dt = (F + GG Sigma^-1 / 2) R with R R^T = Sigma; leave R out to have it computed"
    value = max(largest(residual), largest(square))
    return below("dR/dt = (F + GG Sigma^-1 / 2) R, R R^T = Sigma", value, EQUATION_BOUND, message)


def check_image_left(subject: Subject) -> Result:
    """Checks how much of the image is left at t_start: `sqrt(psi^T Sigma^{-1} psi)`, `psi = Psi(t_start, 0) e_x`."""
    d = subject.diffusion
    psi = d.Psi(subject.start, 0.0)[:, 0]
    value = float(np.sqrt(psi @ np.linalg.solve(d.Sigma(subject.start), psi)))
    factor = np.asarray(d.prior_factor, dtype=np.float64)
    widths = np.sqrt(np.diagonal(factor @ factor.T))
    # Each component of the state is rescaled so that its prior is as wide as the image component's.
    left = float((np.abs(psi) * widths[0] / widths).max())
    later = (
        f"choose a later t_start (the diffusion ends at T = {d.T:g})"
        if subject.start < d.T
        else "choose stronger noise"
    )
    message = (
        f"sampling starts from noise alone, but at t_start = {subject.start:g}, {left:.0%} of the image is left in the "
        f"state ({value:.2g} times the standard deviation of the noise); {later}"
    )
    return below("what is left of the image at t_start, relative to the noise", value, IMAGE_BOUND, message)


def check_prior(subject: Subject) -> Result:
    """Checks Sigma at t_start against the prior's covariance `S S^T`: the largest `|eig(S^{-1} Sigma S^{-T}) - 1|`."""
    d = subject.diffusion
    check = "Sigma(t_start) against the prior's covariance"
    s, sigma = np.asarray(d.prior_factor, dtype=np.float64), d.Sigma(subject.start)
    if np.linalg.matrix_rank(s) < d.D:
        return below(check, np.inf, PRIOR_BOUND, f"prior_factor is singular: {s.tolist()}")
    inverse = np.linalg.inv(s)
    ratios = np.linalg.eigvalsh(inverse @ sigma @ inverse.T)
    share = " to ".join(sorted({f"{ratios.min():.0%}", f"{ratios.max():.0%}"}, key=len))
    message = (
        f"at t_start = {subject.start:g} the variances of the state are {share} of the prior's: Sigma = "
        f"{np.round(sigma, 4).tolist()}, but prior_factor prior_factor^T = {np.round(s @ s.T, 4).tolist()}"
    )
    return below(check, largest(ratios - 1), PRIOR_BOUND, message)


def check_one_step(subject: Subject) -> Result:
    """Checks that a step of order 0 from s to t is exact, given the exact score of a single image.

    The error is relative to `|Psi(t, s)| |u_s|` and is the largest over steps that cover [t_end, t_start].
    """
    d, flow, worst = subject.diffusion, PointFlow(subject.diffusion), 0.0
    for s, t in long_steps(subject):
        growth = float(np.linalg.norm(d.Psi(t, s), 2))
        worst = max(worst, flow.step_error(s, t) / (max(growth, 1.0) * max(1.0, float(flow.at(s).abs().max()))))
    message = "a step of gDDIM of order 0 should be exact but is not, so its coefficients are not accurate enough"
    return below(
        "error of one step of order 0 on one image, relative to the norm of Psi", worst, ONE_STEP_BOUND, message
    )


def long_steps(subject: Subject) -> Iterator[tuple[float, float]]:
    """Steps from s to t < s.

    The longest steps that `LARGEST_GROWTH` permits cover [t_end, t_start]. From the start of each of these, shorter
    steps are tested, too.
    """
    grid = power_grid(subject.start, subject.end, 200)
    first = 0
    while first < len(grid) - 1:
        growth = np.linalg.norm(subject.diffusion.Psi(grid[first + 1 :], grid[first]), 2, axis=(-2, -1))
        reach = max(1, int(np.argmin(growth <= LARGEST_GROWTH)) if (growth > LARGEST_GROWTH).any() else len(growth))
        for part in sorted({max(1, reach // 8), max(1, reach // 2), reach}):
            yield float(grid[first]), float(grid[first + part])
        first += reach


def check_order(order: int, subject: Subject) -> Result:
    """Checks that the error of gDDIM on a mixture falls as h^(order + 1).

    The number of steps is doubled until the measured slope settles at order + 1.
    """
    check, expected = f"gDDIM of order {order}: error falls as h^{order + 1}", f"{order + 1} within {SLOPE_BOUND:g}"
    exact, steps, errors = subject.flow, [FIRST_STEPS], []
    errors.append(error_of(exact, informed_end(exact, order, FIRST_STEPS)))
    found: list[float] = []
    while steps[-1] < MAX_STEPS:
        steps.append(2 * steps[-1])
        errors.append(error_of(exact, informed_end(exact, order, steps[-1])))
        found = slopes(steps, errors)
        if abs(found[-1] - order - 1) <= SLOPE_BOUND or errors[-1] < CONVERGED:
            return Result(check, found[-1], SLOPE_BOUND, expected, True)
        if len(found) > 1 and not max(found[-2:]) > 0.5:
            break
    measured = ", ".join(f"{slope:.2f}" for slope in found)
    message = (
        f"the slope has not settled at {order + 1} by {steps[-1]} steps: at each doubling from {FIRST_STEPS} steps on, it was "
        f"{measured}; the last error is {errors[-1]:.2g}"
    )
    return Result(check, found[-1], SLOPE_BOUND, expected, False, message)


CHECKS: tuple[Callable[[Subject], Result], ...] = (
    check_psi,
    check_noise,
    check_sigma,
    check_r,
    check_image_left,
    check_prior,
    check_one_step,
    *(partial(check_order, order) for order in range(4)),
)


def checks_of(diffusion: Diffusion) -> list[Callable[[Subject], Result]]:
    """The checks for a diffusion. If it is sampled with K = L, R may be undefined, so checks of R are left out."""
    return [check for check in CHECKS if diffusion.sampling.k == "R" or check not in (check_r, check_one_step)]


def examine(diffusion: Diffusion) -> Iterator[Result]:
    """Yields the result of each of the diffusion's checks as soon as it is known.

    Raises:
        NumericsError: the matrices are not finite or not smooth, or the K for sampling is undefined.
        UsageError: sampling goes outside the diffusion's times, or the diffusion is in frequency space and
            `parts_to_test` does not support it.
    """
    subjects = [Subject(part) for part in parts_to_test(diffusion)]
    for check in checks_of(diffusion):
        with np.errstate(all="ignore"):  # NaN and infinity make the check fail, so they need no warning.
            results = [check(subject) for subject in subjects]
        yield min(results, key=lambda result: (result.passed, -result.value))
