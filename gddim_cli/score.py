"""A network and a diffusion make `eps(u, t)`: one adapter for each parameterization.

`score = -K_t^{-T} eps` (gDDIM, section 3). States are [B, D, C, H, W]; matrices are float64 until they meet the state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.panels import Array

Network = Callable[[Tensor, Tensor], Tensor]


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
        self.network, self.diffusion, self.k = network, diffusion, k

    def __call__(self, u: Tensor, t: float) -> Tensor:
        """`eps_K(u, t)` for u [B, D, C, H, W], in u's dtype."""
        to_y, sigma, psi = isotropic_view(self.diffusion, t)
        inverse = np.linalg.inv(self.diffusion.K(t, self.k))
        y = torch.einsum("d,bd...->b...", tensor(to_y, u), u)
        x0 = self.network(y, torch.full((len(u),), sigma, dtype=u.dtype, device=u.device)).to(u)
        residual = u - tensor(psi, u).view(1, -1, 1, 1, 1) * x0[:, None]
        return torch.einsum("de,be...->bd...", tensor(inverse, u), residual)


def isotropic_view(diffusion: Diffusion, t: float) -> tuple[Array, float, Array]:
    """`(psi^T Sigma^{-1} / g, g^{-1/2}, psi)`: how u_t looks to a denoiser, at what noise level, and back."""
    psi = diffusion.Psi(t, 0.0)[:, 0]
    weights: Array = np.linalg.solve(diffusion.Sigma(t), psi).astype(np.float64)
    g = float(psi @ weights)
    return weights / g, float(g**-0.5), psi


def tensor(array: NDArray[np.floating], like: Tensor) -> Tensor:
    """A float64 array in the dtype and on the device of `like`."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(like)
