"""What a linear diffusion is: `du = F_t u dt + G_t dw` on small blocks of numbers per pixel, in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from gddim_cli.errors import NumericsError
from gddim_cli.numerics.flow import Flow, short_edges
from gddim_cli.numerics.quadrature import Antiderivative, Array, antiderivative, resolving_edges, rule

KChoice = Literal["R", "L"]


@dataclass(frozen=True)
class SamplingConfig:
    """How a diffusion is sampled where neither the checkpoint's card nor the person says otherwise."""

    t_start: float = 1.0
    t_end: float = 1e-3
    grid_power: float = 2.0
    denoise: bool = False
    k: KChoice = "R"
    quantize: Literal["floor", "round"] = "floor"


class Diffusion(ABC):
    """A linear diffusion with D x D blocks, from data at t = 0 to noise at t = T.

    A new one needs `F`, `GG`, `Sigma_0` and `prior_factor`; everything else has a numerical version here, which a closed
    form may replace. Times are arrays of any shape `[...]`, matrices `[..., D, D]`, all float64.

    `p(u_t | u_0) = N(Psi(t, 0) u_0, Sigma_t)`; the image is the first of the D numbers of a pixel.
    """

    name: ClassVar[str]
    D: ClassVar[int]
    T: float = 1.0
    spectral: ClassVar[bool] = False
    """Whether blocks differ by frequency: matrices [..., H, W, D, D] on the image's orthonormal 2-D DCT-II."""
    sampling: ClassVar[SamplingConfig] = SamplingConfig()

    @abstractmethod
    def F(self, t: ArrayLike) -> Array:
        """The drift matrix `F_t`."""

    @abstractmethod
    def GG(self, t: ArrayLike) -> Array:
        """`G_t G_t^T`."""

    @property
    @abstractmethod
    def Sigma_0(self) -> Array:
        """The covariance at t = 0 of a pixel whose image is known, [D, D]."""

    @property
    @abstractmethod
    def prior_factor(self) -> Array:
        """`S` with `u_T = S z`, `z ~ N(0, I)`, [D, D]."""

    def Psi(self, t: ArrayLike, s: ArrayLike) -> Array:
        """The transition matrix: `dPsi/dt = F_t Psi`, `Psi(s, s) = I`. Here from ODE solutions on short pieces of [0, T]."""
        return self._transition(t, s)

    def noise_covariance(self, t: ArrayLike) -> Array:
        """`int_0^t Psi(t, s) GG_s Psi(t, s)^T ds`: `Sigma_t` without `Sigma_0`, a sum of positive terms.

        Here by Gauss-Legendre quadrature from the last panel edge before t, on panels that resolve F and GG and are
        short beside F; what came before the edge is carried on by Psi.
        """
        times = np.asarray(t, dtype=np.float64)
        edges, before = self._accumulated
        panel = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(before) - 1)
        return self._carried(times, edges[panel], before[panel])

    def _carried(self, t: Array, start: Array, before: Array) -> Array:
        """The noise covariance at t from the one at `start`, not far before."""
        points, weights, _ = rule()
        half = 0.5 * (t - start)[..., None]
        s = start[..., None] + half * (1 + points)
        psi = self.Psi(t[..., None], s)
        fresh = np.einsum("...n,...nij->...ij", half * weights, psi @ self.GG(s) @ psi.swapaxes(-1, -2))
        psi = self.Psi(t, start)
        return psi @ before @ psi.swapaxes(-1, -2) + fresh

    @cached_property
    def _accumulated(self) -> tuple[Array, Array]:
        """Panel edges, and the noise covariance at each but the last."""

        def both(t: Array) -> Array:
            return np.concatenate([self.F(t), self.GG(t)], axis=-1).reshape(len(t), -1)

        edges = short_edges(self.F, resolving_edges(both, 0.0, self.T))
        found = [np.zeros((self.D, self.D))]
        for start, end in pairwise(edges[:-1]):
            found.append(self._carried(end, start, found[-1]))
        return edges, np.stack(found)

    def Sigma(self, t: ArrayLike) -> Array:
        """`Sigma_t`: `dSigma/dt = F Sigma + Sigma F^T + GG`, from `Sigma_0`."""
        psi = self.Psi(t, 0.0)
        return psi @ self.Sigma_0 @ psi.swapaxes(-1, -2) + self.noise_covariance(t)

    def L(self, t: ArrayLike) -> Array:
        """The lower Cholesky factor of `Sigma_t` (Dockhorn et al., 2112.07068)."""
        try:
            return np.asarray(np.linalg.cholesky(self.Sigma(t)), dtype=np.float64)
        except np.linalg.LinAlgError as error:
            raise NumericsError(f"{self.name}: Sigma_t is not positive definite at t from {np.min(t):.3g}") from error

    def R(self, t: ArrayLike) -> Array:
        """The factor of `Sigma_t` with `dR/dt = (F + 1/2 GG Sigma^{-1}) R`, `R_0 = Sigma_0^{1/2}` (gDDIM, Eq. 17).

        `R_t = L_t Q_t` with `Q_t` orthogonal: 1 for D = 1, a rotation by one scalar quadrature for D = 2, an ODE beyond.

        Raises:
            NumericsError: D > 1 and `Sigma_0` is singular, so that R_0 has no turn to start from.
        """
        lower = self.L(t)
        if self.D == 1:
            return lower
        return lower @ (self._rotation(t) if self.D == 2 else self._turn(t))

    def K(self, t: ArrayLike, choice: KChoice) -> Array:
        """`K_t` of the noise prediction `score = -K_t^{-T} eps`: `R_t` or `L_t`."""
        return self.R(t) if choice == "R" else self.L(t)

    def Psi_hat(self, t: ArrayLike, s: ArrayLike, lam: float) -> Array:
        """`dPsihat/dt = (F + (1 + lambda^2)/2 GG Sigma^{-1}) Psihat`, `Psihat(s, s) = I` (gDDIM, Eq. 22).

        At lambda = 0 it is `R_t R_s^{-1}`. For D = 1, `Psi ((R_t / R_s) / Psi)^{1 + lambda^2}`. Otherwise
        `L_t Y(t, s) L_s^{-1}` with `Y' = (W + lambda^2/2 L^{-1} GG L^{-T}) Y`, `W` the `rotation_rate`.
        """
        if lam == 0:
            return self.R(t) @ np.linalg.inv(self.R(s))
        if self.D == 1:
            psi = self.Psi(t, s)
            return psi * (self.R(t) / self.R(s) / psi) ** (1 + lam**2)
        return self.L(t) @ self._whitened_flow(lam)(t, s) @ np.linalg.inv(self.L(s))

    def _whitened_flow(self, lam: float) -> Flow:
        flows: dict[float, Flow] = self.__dict__.setdefault("_flows", {})
        if lam not in flows:

            def rate(t: ArrayLike) -> Array:
                inverse = np.linalg.inv(self.L(t))
                return self.rotation_rate(t) + 0.5 * lam**2 * inverse @ self.GG(t) @ inverse.swapaxes(-1, -2)

            self._require_regular_start()
            flows[lam] = Flow(rate, self.D, self.T)
        return flows[lam]

    def rotation_rate(self, t: ArrayLike) -> Array:
        """`W` with `Q' = W Q` for `R = L Q`: the antisymmetric part that Cholesky's derivative leaves, [..., D, D].

        `W = L^{-1} (F + 1/2 GG Sigma^{-1}) L - Phi(L^{-1} Sigma' L^{-T})`, `Phi` the lower triangle with half the diagonal.
        """
        f, gg, sigma = self.F(t), self.GG(t), self.Sigma(t)
        lower = np.linalg.cholesky(sigma)
        inverse = np.linalg.inv(lower)
        drift = inverse @ f @ lower
        noise = inverse @ gg @ inverse.swapaxes(-1, -2)
        growth = drift + drift.swapaxes(-1, -2) + noise
        half_lower = np.tril(growth) - 0.5 * growth * np.eye(self.D)
        return drift + 0.5 * noise - half_lower

    def theta(self, t: ArrayLike) -> Array:
        """The angle of `R_t = L_t Rot(theta_t)` for D = 2, in radians."""
        return self._theta(np.asarray(t, dtype=np.float64))

    def _rotation(self, t: ArrayLike) -> Array:
        angle = self.theta(t)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)

    @cached_property
    def _theta(self) -> Antiderivative:
        self._require_regular_start()
        return antiderivative(lambda s: self.rotation_rate(s)[:, 1, 0], 0.0, self.T)

    @cached_property
    def _turn(self) -> Flow:
        self._require_regular_start()
        return Flow(self.rotation_rate, self.D, self.T)

    @cached_property
    def _transition(self) -> Flow:
        return Flow(self.F, self.D, self.T)

    def _require_regular_start(self) -> None:
        if np.linalg.eigvalsh(self.Sigma_0).min() < 1e-14:
            raise NumericsError(
                f"{self.name}: R_t needs a positive definite Sigma_0 to start from, this one is "
                f"{self.Sigma_0.tolist()}; give it a small numerical_eps, or use K = L"
            )
