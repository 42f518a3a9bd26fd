"""Classifier-free guidance (Ho & Salimans, arXiv 2207.12598)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from gddim_cli.samplers.base import Eps

EVALUATIONS = 2
"""Network evaluations per guided prediction."""


def guided(conditional: Eps, unconditional: Eps, weight: float) -> Eps:
    """The guided noise prediction `eps_0 + w (eps_c - eps_0)`.

    Since eps is an affine function of the denoised image, this is the same as guiding the denoised image:
    `D_0 + w (D_c - D_0)`.

    Args:
        conditional: the noise prediction given the classes, eps_c.
        unconditional: the noise prediction without a class, eps_0.
        weight: w; 1 means no guidance, 0 ignores the classes.
    """

    def eps(u: Tensor, t: float) -> Tensor:
        without = unconditional(u, t)
        return without.lerp(conditional(u, t), weight)

    return eps
