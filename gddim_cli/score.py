"""A network and a diffusion make `eps(u, t)`: one adapter for each parameterization.

`score = -K_t^{-T} eps` (gDDIM, section 3). States are [B, D, C, H, W]; matrices are float64 until they meet the state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.errors import UsageError
from gddim_cli.frequencies import dct, idct
from gddim_cli.panels import Array
from gddim_cli.samplers.linear import combine, tensor

Network = Callable[[Tensor, Tensor], Tensor]
KEPT = 4096
"""Times whose matrices an adapter keeps where the states are: a grid's are met in every batch, and what is sent to a GPU
makes it wait. An adaptive sampler's are forgotten."""


class Counted:
    """A network that counts its evaluations: the NFE that is reported."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.nfe = 0

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        self.nfe += 1
        return self.network(x, level)


class DenoiserEps:
    """An isotropic denoiser `D(y; sigma)` as the noise prediction of any diffusion with a small block per pixel.

    With `psi = Psi(t, 0) e_x`: the image enters u_t only through `y = psi^T Sigma^{-1} u / g`, `g = psi^T Sigma^{-1} psi`,
    and `y = x_0 + N(0, 1/g)`. So `E[x_0 | u_t] = D(y; g^{-1/2})` exactly, `score = -Sigma^{-1} (u - psi D)` and
    `eps = K^{-1} (u - psi D)`.
    """

    def __init__(self, network: Network, diffusion: Diffusion, k: KChoice) -> None:
        """Raises UsageError for a diffusion whose noise level differs by frequency."""
        if diffusion.spectral:
            raise UsageError(
                f"a denoiser takes one noise level an image; in {diffusion.name} the noise level differs by frequency; "
                "cld, vp, vp-cosine, ve and psld work"
            )
        self.network, self.diffusion, self.k = network, diffusion, k
        self._at = lru_cache(KEPT)(self._matrices)

    def __call__(self, u: Tensor, t: float) -> Tensor:
        """`eps_K(u, t)` for u [B, D, C, H, W], in u's dtype."""
        to_y, sigma, psi, inverse = self._at(t, u.dtype, u.device)
        y = combine([to_y], [u])[:, 0]
        x0 = self.network(y, torch.full((len(u),), sigma, dtype=u.dtype, device=u.device)).to(u)
        residual = torch.addcmul(u, psi, x0[:, None], value=-1)
        return combine([inverse], [residual])

    def _matrices(self, t: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, float, Tensor, Tensor]:
        """`psi^T Sigma^{-1} / g` [1, D], the noise level, `psi` [1, D, 1, 1, 1] and `K^{-1}` [D, D]."""
        to_y, sigma, psi = isotropic_view(self.diffusion, t)
        like = torch.empty(0, dtype=dtype, device=device)
        inverse = tensor(np.linalg.inv(self.diffusion.K(t, self.k)), like)
        return tensor(to_y, like)[None], sigma, tensor(psi, like).view(1, -1, 1, 1, 1), inverse


class NoiseEps:
    """A network that predicts `eps_R` itself: gDDIM's CLD and BDM, Score-SDE's VP.

    K = L is served by `eps_L = L^T R^{-T} eps_R`. In a spectral diffusion (BDM) the state is a spectrum and the network
    sees the image: `eps = DCT(net(IDCT(u), t))`.

    Args:
        network: states with their D numbers a pixel as channels, [B, D C, H, W], and times [B], to the same shape.
        time_scale: what the network's time is in units of t.
    """

    def __init__(self, network: Network, diffusion: Diffusion, k: KChoice, time_scale: float = 1.0) -> None:
        self.network, self.diffusion, self.k, self.time_scale = network, diffusion, k, time_scale
        self._at = lru_cache(KEPT)(self._to_k)

    def __call__(self, u: Tensor, t: float) -> Tensor:
        """`eps_K(u, t)` for u [B, D, C, H, W], in u's dtype."""
        time = torch.full((len(u),), self.time_scale * t, dtype=u.dtype, device=u.device)
        seen = idct(u) if self.diffusion.spectral else u
        eps = self.network(seen.flatten(1, 2), time).to(u).view_as(u)
        if self.diffusion.spectral:
            return dct(eps)
        if self.k == "R" or self.diffusion.D == 1:
            return eps
        return combine([self._at(t, u.dtype, u.device)], [eps])

    def _to_k(self, t: float, dtype: torch.dtype, device: torch.device) -> Tensor:
        """`L^T R^{-T}`, [D, D]."""
        lower, turned = self.diffusion.L(t), self.diffusion.R(t)
        return tensor(np.linalg.solve(turned, lower).T, torch.empty(0, dtype=dtype, device=device))


class MixedScoreEps:
    """CLD-SGM's network (Dockhorn et al., 2112.07068): `score_v = -v / Sigma_vv + n(t) net`, `n = -1 / L_vv`; K = L only.

    `eps_v = -L_vv score_v = L_vv v / Sigma_vv + net`. The x part of eps is not defined by this model and is set to 0:
    `GG L^{-T}` has no x column, so nothing with K = L uses it.
    """

    def __init__(self, network: Network, diffusion: Diffusion, k: KChoice, time_scale: float = 1.0) -> None:
        """Raises UsageError for K = R."""
        if k != "L":
            raise UsageError(
                "--k R: this model gives the score of the velocity only, and K = R (stochastic gDDIM too) needs the "
                "whole score; use --k L"
            )
        self.network, self.diffusion, self.time_scale = network, diffusion, time_scale

    def __call__(self, u: Tensor, t: float) -> Tensor:
        """`(0, eps_v)`, [B, 2, C, H, W], for u of that shape, in u's dtype."""
        time = torch.full((len(u),), self.time_scale * t, dtype=u.dtype, device=u.device)
        gain = float(self.diffusion.L(t)[1, 1] / self.diffusion.Sigma(t)[1, 1])
        eps_v = gain * u[:, 1] + self.network(u.flatten(1, 2), time).to(u)
        return torch.stack([torch.zeros_like(eps_v), eps_v], dim=1)


def isotropic_view(diffusion: Diffusion, t: float) -> tuple[Array, float, Array]:
    """`(psi^T Sigma^{-1} / g, g^{-1/2}, psi)`: how u_t looks to a denoiser, at what noise level, and back."""
    psi = diffusion.Psi(t, 0.0)[:, 0]
    weights: Array = np.linalg.solve(diffusion.Sigma(t), psi).astype(np.float64)
    g = float(psi @ weights)
    return weights / g, float(g**-0.5), psi
