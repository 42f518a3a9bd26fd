"""D x D blocks on states [B, D, ...]: products, and float64 arrays brought to a state's dtype and device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def combine(matrices: Sequence[Tensor], states: Sequence[Tensor]) -> Tensor:
    """`sum_k M_k u_k` with D x D blocks on states [B, D, ...]: one product of a [D, K D] matrix.

    Blocks [H, W, 1, 1] that differ by frequency are numbers on states [B, 1, C, H, W].
    """
    if matrices[0].dim() > 2:
        return torch.stack([m[..., 0, 0] * u for m, u in zip(matrices, states, strict=True)]).sum(0)
    matrix, stacked = (one_of_many(list(parts)) for parts in (matrices, states))
    return (matrix @ stacked.flatten(2)).view(len(stacked), -1, *stacked.shape[2:])


def one_of_many(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def to_tensor_like(array: NDArray[np.floating], like: Tensor) -> Tensor:
    """A float64 array in the dtype and on the device of `like`."""
    return to_device(torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype), like.device)


def to_device(made: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; from locked memory, so that nobody waits until a GPU is through with its work."""
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)
