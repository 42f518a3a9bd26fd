"""The best linear denoiser of images whose spatial frequencies are uncorrelated: a Wiener filter."""

from __future__ import annotations

import torch
from torch import Tensor

from gddim_cli.numerics.dct import dct, idct


class LinearDenoiser:
    """`E[x_0 | y]` for Gaussian images with the mean m of the given images and their covariance S at each frequency.

    `D(y, sigma) = m + S (S + sigma^2 I)^{-1} (y - m)` in float64. S neglects correlations between frequencies: in the
    basis of the 2-D DCT it is block-diagonal, with one block [C, C] per frequency.

    Args:
        images: [N, C, H, W].
    """

    def __init__(self, images: Tensor) -> None:
        images = images.double()
        self.mean = images.mean(0)
        spectrum = dct(images - self.mean)
        covariance = torch.einsum("nchw,ndhw->hwcd", spectrum, spectrum) / len(images)
        values, self.basis = torch.linalg.eigh(covariance)  # [H, W, C] and [H, W, C, C]
        self.variances = values.clamp(min=0)

    def __call__(self, y: Tensor, sigma: float) -> Tensor:
        """The denoised images, [N, C, H, W], float64."""
        parts = torch.einsum("hwck,nchw->nhwk", self.basis, dct(y.double() - self.mean))
        parts = parts * (self.variances / (self.variances + sigma**2))
        return self.mean + idct(torch.einsum("hwck,nhwk->nchw", self.basis, parts))
