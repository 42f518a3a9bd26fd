"""Networks of the variance exploding diffusion, whose input is `y` itself, unscaled."""

from __future__ import annotations

import torch
from torch import Tensor

from gddim_cli.models.conventions.base import Convention, ConventionSpec, Scaling


class Score(Convention, frozen=True):
    """The network predicts the score (Song et al., arXiv 2011.13456): `D = y + sigma^2 F(y; sigma)`."""

    def scaling(self, sigma: Tensor) -> Scaling:
        one = torch.ones_like(sigma)
        return Scaling(one, sigma.square(), one, sigma)


class Residual(Convention, frozen=True):
    """EDM's `VEPrecond` (arXiv 2206.00364, Table 1): `D = y + sigma F(y; ln(sigma / 2))`."""

    def scaling(self, sigma: Tensor) -> Scaling:
        one = torch.ones_like(sigma)
        return Scaling(one, sigma, one, (0.5 * sigma).log())


SCORE = ConventionSpec(name="ve_score", title="the score in the variance exploding diffusion", parameters=Score)
RESIDUAL = ConventionSpec(
    name="ve_residual", title="the negative of the noise, predicted from y (EDM's VE)", parameters=Residual
)
