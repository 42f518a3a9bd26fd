"""A network that counts its evaluations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]


class Counted:
    """A network that counts its evaluations: the NFE that is reported."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.nfe = 0

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        self.nfe += 1
        return self.network(x, level)


KEPT_TIMES = 4096
"""Times whose matrices an adapter keeps where the states are: a grid's are met in every batch, and what is sent to a GPU
makes it wait. An adaptive sampler's are forgotten."""
