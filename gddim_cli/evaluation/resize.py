"""Pillow's bicubic resize as two small matrix products."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from gddim_cli.numerics.quadrature import Array


@cache
def bicubic_matrix(size: int, target: int) -> Array:
    """The matrix of Pillow's bicubic filter (a = -1/2, widened when shrinking) from `size` to `target` pixels.

    Returns:
        float64 [target, size].

    Row i weighs the pixels around `(i + 1/2) size / target` by Keys' cubic, truncated at the border and normalized.
    """
    scale = size / target
    stretch = max(scale, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * scale
    # Pillow rounds both ends of the filter's support to whole pixels and weighs the pixels between them.
    pixels = np.arange(size)[None]
    first, last = np.trunc(centre - 2 * stretch + 0.5), np.trunc(centre + 2 * stretch + 0.5)
    weights = keys((pixels + 0.5 - centre) / stretch) * ((pixels >= first.clip(min=0)) & (pixels < last))
    return weights / weights.sum(axis=1, keepdims=True)


def keys(x: Array) -> Array:
    """Keys' cubic convolution kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def bicubic(images: Tensor, target: int) -> Tensor:
    """Resizes images [N, C, H, W] of numbers in [0, 255] to [N, C, target, target] and clips them to [0, 255].

    Equals clean-fid's resize (`Image.resize(..., BICUBIC)` of each channel in mode F, then `clip(0, 255)`) to within
    1e-4, but uses two matrix products, one along the rows and one along the columns.
    """
    rows, columns = (torch.from_numpy(bicubic_matrix(n, target)).to(images) for n in images.shape[2:])
    return (rows @ (images @ columns.T)).clamp_(0, 255)
