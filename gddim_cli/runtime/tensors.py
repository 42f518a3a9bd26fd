"""Recognizes tensors that ordinary operations do not take, and keeps torch's defaults from being changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def unlike_dense(value: object) -> str | None:
    """A description of a value that is not a dense tensor with data, for an error message; None for a dense tensor."""
    if type(value) not in (Tensor, nn.Parameter):  # a subclass may redefine every operation
        return type(value).__name__
    assert isinstance(value, Tensor)
    if value.is_nested:  # a nested tensor has no layout, and its shape raises an error
        return "a nested tensor"
    if value.is_quantized:
        return "a quantized tensor"
    if value.layout != torch.strided:
        return f"a tensor of layout {str(value.layout).removeprefix('torch.')}"
    return "a tensor without data (device meta)" if value.device.type == "meta" else None


def is_real(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers of at least 16 bits; torch does not calculate with shorter ones."""
    return tensor.is_floating_point() and tensor.element_size() > 1


@contextmanager
def same_defaults() -> Iterator[None]:
    """Restores torch's default dtype and device, which a user's file may change, when the context is left."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
