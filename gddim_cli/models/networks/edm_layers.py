"""The parts of EDM's networks (Karras et al., arXiv 2206.00364): resampling convolutions, embeddings, residual blocks.

Modules and parameters are called as in the released files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

Resample = Literal["up", "down"] | None
FOURIER_SCALE = 16.0


class Convolution(nn.Module):
    """A convolution that may resample by 2 with a separable filter before it, or, `fused`, in one step with it.

    Args:
        width_in, width_out: channels.
        kernel: side of the kernel; 0: no weights, only resampling.
        resample: `up` doubles the side of the image, `down` halves it.
        taps: the separable filter, for example (1, 3, 3, 1).
        fused: the image is padded once, for filter and kernel together.
    """

    taps: Tensor

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int,
        resample: Resample = None,
        taps: Sequence[float] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.empty(width_out)) if kernel else None
        self.resample, self.padding, self.fused = resample, kernel // 2, fused and kernel > 0
        line = torch.tensor(taps, dtype=torch.float32)
        self.register_buffer("taps", torch.outer(line, line)[None, None] / line.sum() ** 2, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        channels, reach = x.shape[1], (self.taps.shape[-1] - 1) // 2
        taps = self.taps.to(x.dtype).expand(channels, 1, -1, -1)
        if self.resample == "up":
            margin = max(reach - padding, 0) if self.fused else reach
            x = fn.conv_transpose2d(x, taps * 4, stride=2, padding=margin, groups=channels)
            padding = max(padding - reach, 0) if self.fused else padding
        elif self.resample == "down" and not self.fused:
            x = fn.conv2d(x, taps, stride=2, padding=reach, groups=channels)
        elif self.resample == "down":
            assert self.weight is not None
            x = fn.conv2d(x, self.weight, padding=padding + reach)
            width = x.shape[1]
            x = fn.conv2d(x, self.taps.to(x.dtype).expand(width, 1, -1, -1), stride=2, groups=width)
            return self._biased(x)
        return x if self.weight is None else self._biased(fn.conv2d(x, self.weight, padding=padding))

    def _biased(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return x + self.bias.to(x.dtype)[:, None, None]


class PositionalEmbedding(nn.Module):
    """`[cos, sin](level f_i)`, `f_i = 10000^{-i / (width/2 - e)}`, [N] to [N, width]; e is 1 where the last f is 1/10000."""

    def __init__(self, width: int, endpoint: bool) -> None:
        super().__init__()
        self.pairs, self.last = width // 2, width // 2 - endpoint

    def forward(self, level: Tensor) -> Tensor:
        index = torch.arange(self.pairs, dtype=torch.float32, device=level.device)
        angle = level[:, None] * (1 / 10000) ** (index / self.last).to(level.dtype)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """`[cos, sin](2 pi level f_i)` at fixed random frequencies, [N] to [N, width]."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(width // 2) * FOURIER_SCALE)

    def forward(self, level: Tensor) -> Tensor:
        angle = level[:, None] * (2 * math.pi * self.freqs).to(level.dtype)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


@dataclass(frozen=True)
class Style:
    """In what the residual blocks of the two networks differ.

    Attributes:
        embedding: width of the noise-level embedding.
        adaptive_scale: the embedding scales and shifts; else it is added.
        skip_scale: of the sum of a branch and its input.
        eps: of the norms.
        project: blocks that resample have a 1x1 convolution on their skip even where the width stays.
        head_width: channels of an attention head; None: one head.
        taps: the resampling filter.
        dropout: in training.
    """

    embedding: int
    adaptive_scale: bool
    skip_scale: float
    eps: float
    project: bool
    head_width: int | None
    taps: Sequence[float]
    dropout: float

    def heads(self, width: int) -> int:
        """Attention heads at this width.

        Raises:
            ValueError: the width is not a multiple of the heads' width.
        """
        if self.head_width is None:
            return 1
        if width % self.head_width:
            raise ValueError(f"attention over {width} channels does not divide into heads of {self.head_width}")
        return width // self.head_width


class UNetBlock(nn.Module):
    """Norm, SiLU, (resampling) convolution, the noise level, norm, SiLU, convolution; then perhaps attention."""

    def __init__(
        self, style: Style, width_in: int, width_out: int, resample: Resample = None, attention: bool = False
    ) -> None:
        super().__init__()
        self.style = style
        self.norm0 = norm(width_in, style.eps)
        self.conv0 = Convolution(width_in, width_out, 3, resample, style.taps)
        self.affine = nn.Linear(style.embedding, width_out * (2 if style.adaptive_scale else 1))
        self.norm1 = norm(width_out, style.eps)
        self.conv1 = Convolution(width_out, width_out, 3)
        kernel = 1 if style.project or width_in != width_out else 0
        changes = width_in != width_out or resample is not None
        self.skip = Convolution(width_in, width_out, kernel, resample, style.taps) if changes else None
        self.heads = style.heads(width_out) if attention else 0
        if attention:
            self.norm2 = norm(width_out, style.eps)
            self.qkv = Convolution(width_out, 3 * width_out, 1)
            self.proj = Convolution(width_out, width_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [N, width_in, H, W] and the embedding [N, E] to [N, width_out, H', W']."""
        h = self.conv0(fn.silu(self.norm0(x)))
        effect = self.affine(embedding)[:, :, None, None]
        if self.style.adaptive_scale:
            scale, shift = effect.chunk(2, dim=1)
            h = fn.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = fn.silu(self.norm1(h + effect))
        h = self.conv1(fn.dropout(h, self.style.dropout, self.training))
        h = (h + (x if self.skip is None else self.skip(x))) * self.style.skip_scale
        return self._attended(h) if self.heads else h

    def _attended(self, x: Tensor) -> Tensor:
        # Channels of qkv: for each head, for each of its channels, query, key and value.
        parts = self.qkv(self.norm2(x)).unflatten(1, (self.heads, -1, 3)).flatten(4)
        query, key, value = (part.transpose(2, 3) for part in parts.unbind(3))
        mixed = fn.scaled_dot_product_attention(query, key, value)
        return (self.proj(mixed.transpose(2, 3).reshape(x.shape)) + x) * self.style.skip_scale


def norm(width: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Groups of at least four channels, 32 at most.

    Raises:
        ValueError: the width does not divide into them.
    """
    return nn.GroupNorm(max(min(32, width // 4), 1), width, eps)
