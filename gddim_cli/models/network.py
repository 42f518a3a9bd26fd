"""Counting of network evaluations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]


class Counted:
    """A network that counts its evaluations; the reported NFE is this count.

    Attributes:
        network: maps states or images [B, C, H, W] and times or noise levels [B] to a tensor [B, C', H, W].
        nfe: calls so far; a call is one evaluation, whatever the batch size.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.nfe = 0

    def __call__(self, x: Tensor, level: Tensor) -> Tensor:
        self.nfe += 1
        return self.network(x, level)


KEPT_TIMES = 4096
"""The maximum number of times t whose matrices a network adapter, such as `DenoiserEps`, keeps on the device of the
states. The times of a fixed grid recur in every batch, and copying their matrices again would make a GPU wait. The times
of an adaptive sampler do not recur, so the least recently used matrices are dropped."""
