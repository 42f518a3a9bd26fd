"""Products of D x D blocks with states [B, D, ...], and conversion of float64 arrays to a state's dtype and device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gddim_cli.errors import NumericsError


def combine(matrices: Sequence[Tensor], states: Sequence[Tensor]) -> Tensor:
    """`sum_k M_k u_k`. Blocks that all pixels share are put side by side, so that one product suffices.

    Args:
        matrices: blocks [D, D] that all pixels share; or, for a diffusion in frequency space, one number per frequency,
            [H, W, 1, 1].
        states: one state per matrix, [B, D, C, H, W] (any shape after D), or [B, 1, C, H, W] in frequency space; with
            the dtype and device of the matrices.

    Returns:
        The sum, with the shape and dtype of a state.
    """
    if matrices[0].dim() > 2:
        return torch.stack([m[..., 0, 0] * u for m, u in zip(matrices, states, strict=True)]).sum(0)
    matrix, stacked = _side_by_side(matrices), _side_by_side(states)
    return (matrix @ stacked.flatten(2)).view(len(stacked), -1, *stacked.shape[2:])


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """The tensors concatenated along dimension 1; a single tensor is returned without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def to_tensor_like(array: NDArray[np.floating], like: Tensor) -> Tensor:
    """The array as a tensor with the dtype and device of `like`.

    Raises:
        NumericsError: the array is complex, as the coefficients of a user's sampler may be.
    """
    if np.iscomplexobj(array):
        raise NumericsError("a matrix or a time is complex; real numbers are needed")
    own = np.require(array, requirements=["C", "W"])  # torch warns about read-only arrays
    return to_device(torch.from_numpy(own).to(like.dtype), like.device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a CPU tensor to `device`. For CUDA, pinned memory is used so that the call does not wait for the GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
