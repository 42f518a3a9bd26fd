"""Four functions of the noise level turn a prediction into a denoiser, as in Table 1 of EDM (arXiv 2206.00364)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from torch import Tensor

from gddim_cli.runtime.registry import Spec


class Scaling(NamedTuple):
    """The four functions in `D(y, sigma) = skip y + out F(inside y; level)`, each [N], float64.

    Attributes:
        skip, out: factors of the noisy images y and of the prediction F in the sum.
        inside: factor of y in the network's input.
        level: the network's time or noise-level input.
    """

    skip: Tensor
    out: Tensor
    inside: Tensor
    level: Tensor


class Convention(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The parameters of a convention. A model card stores them under `convention`."""

    def scaling(self, sigma: Tensor) -> Scaling:
        """The values of the four functions at these noise levels.

        Args:
            sigma: standard deviations of the noise, in units of the images that the network was trained on, [N], float64.
        """
        raise NotImplementedError

    @property
    def sigma_range(self) -> tuple[float, float]:
        """The lowest and the highest noise level at which the prediction is defined."""
        return 0.0, float("inf")


@dataclass(frozen=True, kw_only=True)
class ConventionSpec(Spec):
    """A convention, registered under the name that model cards give as `parameterization`.

    Attributes:
        title: what the network predicts.
        parameters: the struct of the convention's parameters.
    """

    title: str
    parameters: type[Convention]
