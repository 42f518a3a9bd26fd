"""Downsampling and upsampling of images by a factor of two with a separable filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

Resample = Literal["up", "down"] | None
BOX = (1, 1)
"""The filter that halves by averaging 2x2 pixels, and doubles by repeating every pixel four times."""
FIR = (1, 3, 3, 1)
"""The filter of StyleGAN2 and NCSN++."""


class Resampling(nn.Module):
    """Halves or doubles the side of images.

    `down` filters the image and keeps every second pixel in each direction. `up` inserts zeros between the pixels and
    then filters with gain 4.

    Args:
        resample: `up` or `down`.
        taps: the filter, an even number of taps.
    """

    taps: Tensor
    remainder: Tensor | None

    def __init__(self, resample: Resample, taps: Sequence[float] = BOX) -> None:
        super().__init__()
        self.resample = resample
        self.register_buffer("taps", separable(taps), persistent=False)
        rest = without_box(taps)
        self.register_buffer(
            "remainder", separable(rest[::-1]) if resample == "up" and rest else None, persistent=False
        )

    @property
    def reach(self) -> int:
        """The number of pixels by which the filter reaches beyond each edge of the image."""
        return (self.taps.shape[-1] - 1) // 2

    def forward(self, x: Tensor, padding: int | None = None) -> Tensor:
        """Returns x [N, C, H, W] at half or twice the side.

        Args:
            padding: the padding for `down`. Default: `reach`, which keeps the image centered.
        """
        if self.resample == "down":
            return filtered(x, self.taps, stride=2, padding=self.reach if padding is None else padding)
        if self.remainder is None or x.device.type == "cpu":
            return self.by_transposed_convolution(x)
        return self.by_repetition(x)

    def by_transposed_convolution(self, x: Tensor) -> Tensor:
        """Doubles the side in one operation, which is the fastest way on a CPU but slow on GPUs."""
        taps = 4 * expanded(self.taps, x)
        return fn.conv_transpose2d(x, taps, stride=2, padding=self.reach, groups=x.shape[1])

    def by_repetition(self, x: Tensor) -> Tensor:
        """Doubles the side by repeating every pixel four times and then applying the filter `without_box(taps)`.

        Raises ValueError if that filter does not exist.
        """
        if self.remainder is None:
            raise ValueError("this filter is not a repetition of pixels followed by another filter")
        repeated = fn.interpolate(x, scale_factor=2)
        return repeated if self.remainder.numel() == 1 else filtered(repeated, self.remainder, padding=self.reach)


def filtered(x: Tensor, taps: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolves each channel of x [N, C, H, W] with the same taps [1, 1, k, k]."""
    return fn.conv2d(x, expanded(taps, x), stride=stride, padding=padding, groups=x.shape[1])


def expanded(taps: Tensor, x: Tensor) -> Tensor:
    """The taps repeated for each channel of x, in the dtype of x, [C, 1, k, k]."""
    return taps.to(x.dtype).expand(x.shape[1], 1, -1, -1)


def separable(taps: Sequence[float]) -> Tensor:
    """The two-dimensional filter with these taps in both directions, normalized to sum 1, [1, 1, k, k]."""
    line = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(line, line)[None, None] / line.sum() ** 2


def without_box(taps: Sequence[float]) -> list[float]:
    """The filter whose convolution with (1, 1) is `taps`, e.g. [1, 2, 1] for (1, 3, 3, 1); empty if there is none."""
    rest: list[float] = []
    for tap in taps:
        rest.append(tap - (rest[-1] if rest else 0))
    return rest[:-1] if rest[-1] == 0 else []
