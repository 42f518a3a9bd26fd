"""Images at half and twice the side, by a separable filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

Resample = Literal["up", "down"] | None
BOX = (1, 1)
"""Means of 2x2 pixels; every pixel four times."""
FIR = (1, 3, 3, 1)
"""The filter of StyleGAN2 and NCSN++."""


class Resampling(nn.Module):
    """Half the side: every second pixel after the filter. Twice: the filter, with gain 4, after zeros between the pixels.

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
        """The number of pixels that the filter reaches to each side."""
        return (self.taps.shape[-1] - 1) // 2

    def forward(self, x: Tensor, padding: int | None = None) -> Tensor:
        """x [N, C, H, W] at half or twice the side.

        Args:
            padding: padding of the image that is halved; by default the amount that keeps it in place.
        """
        if self.resample == "down":
            return filtered(x, self.taps, stride=2, padding=self.reach if padding is None else padding)
        if self.remainder is None or x.device.type == "cpu":
            return self.by_transposed_convolution(x)
        return self.by_repetition(x)

    def by_transposed_convolution(self, x: Tensor) -> Tensor:
        """Twice the side in one operation, the fastest on a CPU; libraries for GPUs are slow at it."""
        taps = 4 * expanded(self.taps, x)
        return fn.conv_transpose2d(x, taps, stride=2, padding=self.reach, groups=x.shape[1])

    def by_repetition(self, x: Tensor) -> Tensor:
        """Twice the side: every pixel four times, then `without_box` of the filter; raises ValueError if that is empty."""
        if self.remainder is None:
            raise ValueError("this filter does not begin with a repetition of pixels")
        repeated = fn.interpolate(x, scale_factor=2)
        return repeated if self.remainder.numel() == 1 else filtered(repeated, self.remainder, padding=self.reach)


def filtered(x: Tensor, taps: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Each channel of x [N, C, H, W] convolved with the same taps [1, 1, k, k]."""
    return fn.conv2d(x, expanded(taps, x), stride=stride, padding=padding, groups=x.shape[1])


def expanded(taps: Tensor, x: Tensor) -> Tensor:
    """The taps for each channel of x, in its dtype, [C, 1, k, k]."""
    return taps.to(x.dtype).expand(x.shape[1], 1, -1, -1)


def separable(taps: Sequence[float]) -> Tensor:
    """The filter in both directions, with sum 1, [1, 1, k, k]."""
    line = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(line, line)[None, None] / line.sum() ** 2


def without_box(taps: Sequence[float]) -> list[float]:
    """The filter whose convolution with (1, 1) is `taps`: [1, 2, 1] for (1, 3, 3, 1). Empty if there is none."""
    rest: list[float] = []
    for tap in taps:
        rest.append(tap - (rest[-1] if rest else 0))
    return rest[:-1] if rest[-1] == 0 else []
