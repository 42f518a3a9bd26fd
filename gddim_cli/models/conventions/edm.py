"""EDM's preconditioned network (Karras et al., arXiv 2206.00364, Table 1)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import Tensor

from gddim_cli.models.conventions.base import Convention, ConventionSpec, Scaling


class EDM(Convention, frozen=True):
    """`c_skip = s^2 / (sigma^2 + s^2)`, `c_out = sigma s / sqrt(sigma^2 + s^2)`, `c_in = 1 / sqrt(sigma^2 + s^2)`.

    `c_noise = ln(sigma) / 4`; s is `sigma_data`.

    Attributes:
        sigma_data: standard deviation of the training images.
    """

    sigma_data: Annotated[float, msgspec.Meta(gt=0, le=1e3)] = 0.5

    def scaling(self, sigma: Tensor) -> Scaling:
        total = sigma.square() + self.sigma_data**2
        root = total.sqrt()
        return Scaling(self.sigma_data**2 / total, sigma * self.sigma_data / root, 1 / root, sigma.log() / 4)


SPEC = ConventionSpec(name="edm", title="EDM's preconditioned F", parameters=EDM)
