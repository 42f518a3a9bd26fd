"""A linear diffusion: `du = F_t u dt + G_t dw`, with D x D matrices that all pixels share, in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.errors import NumericsError, UsageError
from gddim_cli.numerics.flow import Flow, short_edges
from gddim_cli.numerics.matrices import symmetric_square_root
from gddim_cli.numerics.quadrature import Antiderivative, Array, antiderivative, resolving_edges, rule

KChoice = Literal["R", "L"]
SINGULAR = 1e-14
"""`Sigma_0` counts as singular if its smallest eigenvalue is below this."""


@dataclass(frozen=True)
class SamplingConfig:
    """How a diffusion is sampled: the defaults of the diffusion, those of a model card, or the settings of one run.

    Attributes:
        t_start: the first time, at which u is drawn from the prior; at most the diffusion's T.
        t_end: the last time, above 0.
        grid_power: the time grid. A number p: times evenly spaced in `t^(1/p)`. A string: the name of another grid (see
            `samplers.time_grids`).
        denoise: whether sampling ends with a denoising step at `t_end`, which takes one more evaluation.
        k: which factor K_t defines the noise prediction, `R` (gDDIM) or `L` (Cholesky).
        quantize: how images in [-1, 1] are converted to uint8: by truncation (`floor`) or rounding (`round`).
    """

    t_start: float = 1.0
    t_end: float = 1e-3
    grid_power: float | str = 2.0
    denoise: bool = False
    k: KChoice = "R"
    quantize: Literal["floor", "round"] = "floor"


class Diffusion(ABC):
    """A linear diffusion from data at t = 0 to noise at t = T: `p(u_t | u_0) = N(Psi(t, 0) u_0, Sigma_t)`.

    The state of a pixel has D components, of which the first is the image; matrices are D x D blocks that all pixels
    share. Times are arrays of any shape `[...]`, matrices `[..., D, D]`, all float64 and without units.

    A subclass defines `name`, `D` and four members: `F`, `GG`, `Sigma_0` and `prior_factor`. The other members are
    computed from these numerically. A subclass may override them with closed forms. `gddim check` tests that the
    closed forms agree with the four members.
    """

    name: ClassVar[str]
    """The name of the diffusion in `--diffusion`, `run.json` and messages."""
    D: ClassVar[int]
    """The state dimension per pixel."""
    T: float = 1.0
    """The last time."""
    spectral: ClassVar[bool] = False
    """Whether the diffusion acts on the image's 2-D DCT-II with blocks that differ by frequency.

    Then D = 1 and matrices are [..., H, W, 1, 1].
    """
    sampling: ClassVar[SamplingConfig] = SamplingConfig()
    """The default settings for sampling, which a model card or the user may override."""

    @abstractmethod
    def F(self, t: ArrayLike) -> Array:
        """The drift matrix `F_t`, [..., D, D]."""

    @abstractmethod
    def GG(self, t: ArrayLike) -> Array:
        """`G_t G_t^T`, [..., D, D]."""

    @property
    @abstractmethod
    def Sigma_0(self) -> Array:
        """The covariance of a pixel's state at t = 0, given the image, [D, D]."""

    @property
    @abstractmethod
    def prior_factor(self) -> Array:
        """The matrix `S` for drawing from the prior: `u_T = S z` with `z ~ N(0, I)`, [D, D]."""

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        """The transition matrix: `dPsi/dt = F_t Psi`, `Psi(s, s) = I`.

        Computed by collocation on panels of [0, T] (see `numerics.flow`).

        Raises:
            NumericsError: F is not smooth or not finite, or a time is outside [0, T].
        """
        return self._transition(t, s)

    def noise_covariance(self, t: ArrayLike) -> Array:
        """`int_0^t Psi(t, s) GG_s Psi(t, s)^T ds`, which is `Sigma_t` for `Sigma_0 = 0`.

        The integral from the last panel edge before t is computed by Gauss-Legendre quadrature, and the covariance at
        that edge is propagated to t by Psi. All terms are positive semidefinite, so nothing cancels.
        """
        times = np.asarray(t, dtype=np.float64)
        edges, before = self._accumulated
        panel = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(before) - 1)
        return self._carried(times, edges[panel], before[panel])

    def _carried(self, t: Array, start: Array, before: Array) -> Array:
        """Propagates the noise covariance `before` from the time `start` to t, a time in the same panel."""
        points, weights, _ = rule()
        half = 0.5 * (t - start)[..., None]
        s = start[..., None] + half * (1 + points)
        psi = self.Psi(t[..., None], s)
        fresh = np.einsum("...n,...nij->...ij", half * weights, psi @ self.GG(s) @ psi.swapaxes(-1, -2))
        psi = self.Psi(t, start)
        return psi @ before @ psi.swapaxes(-1, -2) + fresh

    @cached_property
    def _accumulated(self) -> tuple[Array, Array]:
        """The panel edges, [P + 1], and the noise covariance at each edge except the last, [P, D, D]."""

        def both(t: Array) -> Array:
            return np.concatenate([self.F(t), self.GG(t)], axis=-1).reshape(len(t), -1)

        edges = short_edges(self.F, resolving_edges(both, 0.0, self.T))
        found = [np.zeros((self.D, self.D))]
        for start, end in pairwise(edges[:-1]):
            found.append(self._carried(end, start, found[-1]))
        return edges, np.stack(found)

    def Sigma(self, t: ArrayLike) -> Array:
        """`Sigma_t`, the solution of `dSigma/dt = F Sigma + Sigma F^T + GG` that starts from `Sigma_0`."""
        psi = self.Psi(t, 0.0)
        return psi @ self.Sigma_0 @ psi.swapaxes(-1, -2) + self.noise_covariance(t)

    def L(self, t: ArrayLike) -> Array:
        """The lower Cholesky factor of `Sigma_t` (Dockhorn et al., arXiv 2112.07068).

        Raises:
            NumericsError: `Sigma_t` is not positive definite.
        """
        try:
            return np.asarray(np.linalg.cholesky(self.Sigma(t)), dtype=np.float64)
        except np.linalg.LinAlgError as error:
            raise NumericsError(
                f"{self.name}: Sigma_t is not positive definite between t = {np.min(t):.3g} and {np.max(t):.3g}"
            ) from error

    def R(self, t: ArrayLike) -> Array:
        """The factor of `Sigma_t` with `dR/dt = (F + 1/2 GG Sigma^{-1}) R` (gDDIM, arXiv 2206.05564, Eq. 17).

        `R_0` is the symmetric root `Sigma_0^{1/2}`, as in the paper. Networks that predict eps for K = R are trained
        with this `R_0`.

        R is computed as `R_t = L_t Q_t` with an orthogonal Q_t. For D = 1, Q_t is 1. For D = 2, Q_t is a rotation, and
        its angle is found by scalar quadrature. For D > 2, Q_t is the solution of a matrix equation.

        Raises:
            NumericsError: D > 1 and `Sigma_0` is singular, so `Q_0` is not defined.
        """
        lower = self.L(t)
        if self.D == 1:
            return lower
        return lower @ (self._rotation(t) if self.D == 2 else self._turn(t) @ self._turn_at_0)

    def K(self, t: ArrayLike, choice: KChoice) -> Array:
        """The factor `K_t` that defines the noise prediction by `score = -K_t^{-T} eps`: either `R_t` or `L_t`."""
        return self.R(t) if choice == "R" else self.L(t)

    def Psi_hat(self, t: ArrayLike, s: ArrayLike, lam: float) -> Array:
        """Solves `dPsihat/dt = (F + (1 + lambda^2)/2 GG Sigma^{-1}) Psihat`, `Psihat(s, s) = I` (gDDIM, Eq. 22).

        For lambda = 0, Psihat is `R_t R_s^{-1}`. For D = 1, it is `Psi ((R_t / R_s) / Psi)^{1 + lambda^2}`. Otherwise,
        it is `L_t Y(t, s) L_s^{-1}`, where `Y' = (W + lambda^2/2 L^{-1} GG L^{-T}) Y` and W is the `rotation_rate`.
        """
        if lam == 0:
            return self.R(t) @ np.linalg.inv(self.R(s))
        if self.D == 1:
            psi = self.Psi(t, s)
            return psi * (self.R(t) / self.R(s) / psi) ** (1 + lam**2)
        return self.L(t) @ self._whitened_flow(lam)(t, s) @ np.linalg.inv(self.L(s))

    def _whitened_flow(self, lam: float) -> Flow:
        """The flow `Y` that `Psi_hat` uses, cached for each lambda."""
        flows: dict[float, Flow] = self.__dict__.setdefault("_flows", {})
        if lam not in flows:

            def rate(t: ArrayLike) -> Array:
                inverse = np.linalg.inv(self.L(t))
                return self.rotation_rate(t) + 0.5 * lam**2 * inverse @ self.GG(t) @ inverse.swapaxes(-1, -2)

            self._require_regular_start()
            flows[lam] = Flow(rate, self.D, self.T)
        return flows[lam]

    def rotation_rate(self, t: ArrayLike) -> Array:
        """The antisymmetric `W` in `dQ/dt = W Q`, where Q is the orthogonal factor in `R = L Q`, [..., D, D].

        `W = L^{-1} (F + 1/2 GG Sigma^{-1}) L - Phi(L^{-1} Sigma' L^{-T})`, where `Phi(X)` is the lower triangle of X
        with the diagonal halved. The second term is `L^{-1} L'`, since a Cholesky factor has the derivative
        `L' = L Phi(L^{-1} Sigma' L^{-T})`.
        """
        f, gg, lower = self.F(t), self.GG(t), self.L(t)
        inverse = np.linalg.inv(lower)
        drift = inverse @ f @ lower
        noise = inverse @ gg @ inverse.swapaxes(-1, -2)
        growth = drift + drift.swapaxes(-1, -2) + noise
        half_lower = np.tril(growth) - 0.5 * growth * np.eye(self.D)
        return drift + 0.5 * noise - half_lower

    def theta(self, t: ArrayLike) -> Array:
        """For D = 2, the angle theta_t in `R_t = L_t Rot(theta_t)`, in radians, [...]."""
        start = self._turn_at_0
        return self._theta(np.asarray(t, dtype=np.float64)) + np.arctan2(start[1, 0], start[0, 0])

    def _rotation(self, t: ArrayLike) -> Array:
        """`Rot(theta_t)`, [..., 2, 2]."""
        angle = self.theta(t)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)

    @cached_property
    def _theta(self) -> Antiderivative:
        """`theta_t - theta_0` as a function of t."""
        self._require_regular_start()
        return antiderivative(lambda s: self.rotation_rate(s)[:, 1, 0], 0.0, self.T)

    @cached_property
    def _turn(self) -> Flow:
        """`Q_t Q_s^{-1}` as a function of t and s."""
        self._require_regular_start()
        return Flow(self.rotation_rate, self.D, self.T)

    @cached_property
    def _turn_at_0(self) -> Array:
        """The orthogonal matrix `Q_0 = L_0^{-1} Sigma_0^{1/2}`; the identity if `Sigma_0` is diagonal."""
        sigma = np.asarray(self.Sigma_0, dtype=np.float64)
        if not np.any(sigma - np.diag(np.diag(sigma))):
            return np.eye(self.D)
        self._require_regular_start()
        return np.asarray(np.linalg.solve(np.linalg.cholesky(sigma), symmetric_square_root(sigma)), dtype=np.float64)

    @cached_property
    def _transition(self) -> Flow:
        """`Psi` by numerical integration, for subclasses without a closed form."""
        return Flow(self.F, self.D, self.T)

    def _require_regular_start(self) -> None:
        """Raises NumericsError if `Sigma_0` is singular."""
        if np.linalg.eigvalsh(self.Sigma_0).min() < SINGULAR:
            raise NumericsError(
                f"{self.name}: K = R needs a positive definite Sigma_0, but Sigma_0 is "
                f"{np.asarray(self.Sigma_0).tolist()}; add a small variance to each component, or use K = L"
            )


def check_times(diffusion: Diffusion, config: SamplingConfig) -> None:
    """Checks that the configured times lie within those of the diffusion.

    Raises:
        UsageError: `0 < t_end < t_start <= T` does not hold.
    """
    if not 0 < config.t_start <= diffusion.T:
        raise UsageError(
            f"t_start: {config.t_start:g} is not between 0 and {diffusion.T:g}, where {diffusion.name} ends; "
            f"start at {diffusion.T:g} or earlier"
        )
    if not 0 < config.t_end < config.t_start:
        raise UsageError(f"--t-end: {config.t_end:g} is not between 0 and the start, {config.t_start:g}")
