"""Networks trained by rectified flow, or by conditional flow matching with straight paths."""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import Tensor

from gddim_cli.models.conventions.base import Convention, ConventionSpec, Scaling


class Flow(Convention, frozen=True):
    """The network predicts `v = x - n` in `x_t = t x + (1 - t) n`, with image x and noise n (Lipman et al., arXiv 2210.02747).

    So `D = x_t + (1 - t) v`. The denoiser's input is `y = x_t / t` with `sigma = (1 - t) / t`, so
    `t = 1 / (1 + sigma)`.

    Attributes:
        time_scale: the network's time input is `time_scale t`.
    """

    time_scale: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0

    def scaling(self, sigma: Tensor) -> Scaling:
        t = 1 / (1 + sigma)
        return Scaling(t, sigma * t, t, self.time_scale * t)


SPEC = ConventionSpec(name="flow", title="the velocity of a straight path from noise to image", parameters=Flow)
