"""Adapters that turn a network into the noise prediction `eps(u, t)` of the diffusion it was trained for.

There is one adapter for each parameterization. `score = -K_t^{-T} eps` defines eps (gDDIM, arXiv 2206.05564, section
3). States are [B, D, C, H, W]; matrices are float64 until they are multiplied by a state.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gddim_cli.diffusions.base import Diffusion, KChoice
from gddim_cli.errors import UsageError
from gddim_cli.models.network import KEPT_TIMES, Network
from gddim_cli.numerics.blocks import combine, to_tensor_like
from gddim_cli.numerics.dct import dct, idct


class NoiseEps:
    """Adapter for a network that predicts `eps_R` directly, as in gDDIM (CLD and BDM) and in Score-SDE (VP).

    For K = L, `eps_L = L^T R^{-T} eps_R`. In frequency space (BDM) the state is a spectrum but the network takes an
    image, so `eps = DCT(net(IDCT(u), t))`.

    Args:
        network: maps states [B, D C, H, W] (D components in turn, each with C channels) and times [B] to a tensor of
            the shape of the states.
        time_scale: the network's time input is `time_scale t`.
    """

    def __init__(self, network: Network, diffusion: Diffusion, k: KChoice, time_scale: float = 1.0) -> None:
        self.network, self.diffusion, self.k, self.time_scale = network, diffusion, k, time_scale
        self._at = lru_cache(KEPT_TIMES)(self._to_k)

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
        return to_tensor_like(np.linalg.solve(turned, lower).T, torch.empty(0, dtype=dtype, device=device))


class MixedScoreEps:
    """Adapter for CLD-SGM's networks (Dockhorn et al., arXiv 2112.07068), for K = L only.

    Their score is `score_v = -v / Sigma_vv + n(t) net` with `n = -1 / L_vv`, so
    `eps_v = -L_vv score_v = L_vv v / Sigma_vv + net`. The model does not define the x component of eps, which is set to
    0. No sampler with K = L uses the x component, because the x column of `GG L^{-T}` is zero.

    Args:
        network: maps states [B, 2 C, H, W] and times [B] to [B, C, H, W].
        time_scale: the network's time input is `time_scale t`.
    """

    def __init__(self, network: Network, diffusion: Diffusion, k: KChoice, time_scale: float = 1.0) -> None:
        """Raises UsageError for K = R."""
        if k != "L":
            raise UsageError(
                "--k R: this model predicts the score of the velocity only, but K = R and stochastic gDDIM need the whole "
                "score; use --k L"
            )
        self.network, self.diffusion, self.time_scale = network, diffusion, time_scale

    def __call__(self, u: Tensor, t: float) -> Tensor:
        """`(0, eps_v)`, [B, 2, C, H, W], for u of that shape, in u's dtype."""
        time = torch.full((len(u),), self.time_scale * t, dtype=u.dtype, device=u.device)
        gain = float(self.diffusion.L(t)[1, 1] / self.diffusion.Sigma(t)[1, 1])
        eps_v = gain * u[:, 1] + self.network(u.flatten(1, 2), time).to(u)
        return torch.stack([torch.zeros_like(eps_v), eps_v], dim=1)
