"""Turns a denoiser for isotropic noise into the noise prediction of any diffusion that treats all pixels alike."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.errors import NumericsError, UsageError
from gddim_cli.models.network import KEPT_TIMES, Network
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.quadrature import Array

FAINTEST = float(np.finfo(np.float32).max) ** -2
"""g, as defined in `DenoiserEps`, must be above this. Otherwise float32 cannot hold the noise level `g^{-1/2}`."""


class DenoiserEps:
    """The noise prediction of any diffusion that treats all pixels alike, from an isotropic denoiser `D(y; sigma)`.

    Let `psi = Psi(t, 0) e_x`, where e_x is the unit vector of the image component, and `g = psi^T Sigma^{-1} psi`. All
    information about the image in u_t is contained in `y = psi^T Sigma^{-1} u / g = x_0 + N(0, 1/g)`. Therefore
    `E[x_0 | u_t] = D(y; g^{-1/2})` exactly, `score = -Sigma^{-1} (u - psi D)` and `eps = K^{-1} (u - psi D)`.

    Args:
        network: `D`, which maps noisy images [B, C, H, W] and their noise levels [B] to clean images.
        diffusion: any diffusion that is not in frequency space.
        k: the choice of the factor K that defines the noise prediction, `R` or `L`.
    """

    def __init__(self, network: Network, diffusion: Diffusion, k: KChoice) -> None:
        """Raises UsageError for a diffusion whose noise level depends on the frequency."""
        if diffusion.spectral:
            raise UsageError(
                f"a denoiser takes one noise level per image, but in {diffusion.name} the noise level differs by frequency; "
                "use cld, vp, vp-cosine, ve or psld"
            )
        self.network, self.diffusion, self.k = network, diffusion, k
        self._at = lru_cache(KEPT_TIMES)(self._matrices)

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
        inverse = to_tensor_like(np.linalg.inv(self.diffusion.K(t, self.k)), like)
        return to_tensor_like(to_y, like)[None], sigma, to_tensor_like(psi, like).view(1, -1, 1, 1, 1), inverse


def isotropic_view(diffusion: Diffusion, t: float) -> tuple[Array, float, Array]:
    """How the state u_t is turned into the denoiser's input y; `DenoiserEps` defines the symbols.

    Returns:
        The weights `psi^T Sigma^{-1} / g` [D] that turn u_t into y; the noise level `g^{-1/2}` of y; and `psi` [D].

    Raises:
        NumericsError: u_t does not depend on the image, a component of u_t has no noise, or float32 cannot hold the
            noise level.
    """
    psi = diffusion.Psi(t, 0.0)[:, 0]
    try:
        weights: Array = np.linalg.solve(diffusion.Sigma(t), psi).astype(np.float64)
    except np.linalg.LinAlgError as error:
        raise NumericsError(
            f"{diffusion.name}: Sigma_t is singular at t = {t:g}, where a component of the state has no noise; choose other "
            "rates, or another t_start or t_end"
        ) from error
    g = float(psi @ weights)
    if not FAINTEST < g < np.inf:
        state = "contains no part of the image" if g == 0 else "has no noise level that float32 can hold"
        raise NumericsError(
            f"{diffusion.name}: the state at t = {t:g} {state}; choose other rates, or another t_start or t_end"
        )
    return weights / g, float(g**-0.5), psi


def denoise(network: Network, y: Tensor, sigma: float | Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """`D(y, sigma)`, [N, C, H, W]; the noise level sigma is a number or a tensor [N].

    Raises:
        UsageError: y or sigma has the wrong shape.
    """
    if y.ndim != 4 or tuple(y.shape[1:]) != image_shape:
        raise UsageError(f"y has shape {list(y.shape)}; [N, {', '.join(map(str, image_shape))}] is needed")
    levels = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
    levels = levels.expand(len(y)) if levels.ndim == 0 else levels
    if levels.shape != (len(y),):
        raise UsageError(f"sigma has shape {list(levels.shape)}; a number or [{len(y)}] is needed")
    return network(y, levels)
