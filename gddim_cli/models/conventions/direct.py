"""A network that is the denoiser itself."""

from __future__ import annotations

import torch
from torch import Tensor

from gddim_cli.models.conventions.base import Convention, ConventionSpec, Scaling


class Direct(Convention, frozen=True):
    """`D(y, sigma) = F(y; sigma)`."""

    def scaling(self, sigma: Tensor) -> Scaling:
        one = torch.ones_like(sigma)
        return Scaling(torch.zeros_like(sigma), one, one, sigma)


SPEC = ConventionSpec(name="denoiser", title="the clean image, from y and sigma", parameters=Direct)
