"""The orthonormal 2-D DCT-II of images, in which blurring is diagonal (`scipy.fft.dctn(norm="ortho")`)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.fft import dct as scipy_dct
from torch import Tensor


def dct(x: Tensor) -> Tensor:
    """The spectra of images [..., H, W], with the images' shape, dtype and device."""
    rows, columns = (matrix(side, x.dtype, x.device) for side in x.shape[-2:])
    return rows @ x @ columns.T


def idct(spectrum: Tensor) -> Tensor:
    """The images of spectra [..., H, W]: the inverse of `dct`, which is also its transpose."""
    rows, columns = (matrix(side, spectrum.dtype, spectrum.device) for side in spectrum.shape[-2:])
    return rows.T @ spectrum @ columns


@lru_cache(maxsize=8)
def matrix(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The DCT-II as an orthogonal matrix, [side, side]. Since images are small, products with this matrix are fast."""
    return torch.from_numpy(scipy_dct(np.eye(side), axis=0, norm="ortho")).to(device, dtype)
