"""The parts of EDM's networks (Karras et al., arXiv 2206.00364): resampling convolutions, embeddings, residual blocks.

Modules and parameters are named as in the released files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.models.networks.base import Interface
from gddim_cli.models.networks.layers import GroupNorm, attention
from gddim_cli.models.networks.resampling import BOX, Resample, Resampling

FOURIER_SCALE = 16.0


class Convolution(nn.Conv2d):
    """A convolution, optionally after resampling by 2.

    Args:
        width_in, width_out: channels.
        kernel: side of the kernel.
        resample: `up` doubles the side of the image, `down` halves it.
        taps: the resampling filter.
        fused: whether `down` filters after the convolution instead of before. The image is then padded once for both.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int,
        resample: Resample = None,
        taps: Sequence[float] = BOX,
        fused: bool = False,
    ) -> None:
        super().__init__(width_in, width_out, kernel, padding=kernel // 2)
        self.resampling = Resampling(resample, taps) if resample else None
        self.fused, self.margin = fused, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.resampling is None:
            return super().forward(x)
        if not self.fused:
            return super().forward(self.resampling(x))
        assert self.bias is not None
        h = self.resampling(fn.conv2d(x, self.weight, padding=self.margin + self.resampling.reach), padding=0)
        return h + self.bias.to(h.dtype)[:, None, None]


class PositionalEmbedding(nn.Module):
    """Maps levels [N] to `[cos, sin](level f_i)`, [N, width], with `f_i = 10000^{-i / (width/2 - endpoint)}`."""

    def __init__(self, width: int, endpoint: bool) -> None:
        super().__init__()
        self.pairs, self.last = width // 2, width // 2 - endpoint

    def forward(self, level: Tensor) -> Tensor:
        index = torch.arange(self.pairs, dtype=torch.float32, device=level.device)
        angle = level[:, None] * (1 / 10000) ** (index / self.last).to(level.dtype)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """Maps levels [N] to `[cos, sin](2 pi level f_i)`, [N, width], with fixed random frequencies f_i."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(width // 2) * FOURIER_SCALE)

    def forward(self, level: Tensor) -> Tensor:
        angle = level[:, None] * (2 * math.pi * self.freqs).to(level.dtype)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


@dataclass(frozen=True)
class Style:
    """The settings in which the residual blocks of `SongUNet` and `DhariwalUNet` differ.

    Attributes:
        embedding: width of the noise-level embedding.
        adaptive_scale: whether the embedding scales and shifts the features; otherwise it is added to them.
        skip_scale: factor by which the sum of a residual branch and its input is multiplied.
        eps: the epsilon of the group normalizations.
        project: whether blocks that resample have a 1x1 convolution in their skip connection even if the width stays
            the same.
        head_width: channels per attention head; None for a single head.
        taps: the resampling filter.
        dropout: dropout probability in training.
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
        """Number of attention heads at this width.

        Raises:
            ValueError: the width is not a multiple of `head_width`.
        """
        if self.head_width is None:
            return 1
        if width % self.head_width:
            raise ValueError(f"attention over {width} channels does not divide into heads of {self.head_width}")
        return width // self.head_width


class UNetBlock(nn.Module):
    """A residual block: two convolutions, each after norm and SiLU, then optionally attention.

    The first convolution may resample; the noise-level embedding enters at the second norm.
    """

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
        self.skip: nn.Module | None = None
        if width_in != width_out or (resample and style.project):
            self.skip = Convolution(width_in, width_out, 1, resample, style.taps)
        elif resample:
            self.skip = Resampling(resample, style.taps)
        self.heads = style.heads(width_out) if attention else 0
        if attention:
            self.norm2 = norm(width_out, style.eps)
            self.qkv = Convolution(width_out, 3 * width_out, 1)
            self.proj = Convolution(width_out, width_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Maps x [N, width_in, H, W] and the embedding [N, E] to [N, width_out, H', W']."""
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
        # The channels of qkv are ordered by head, within a head by channel, and within a channel by query, key, value.
        parts = self.qkv(self.norm2(x)).unflatten(1, (self.heads, -1, 3)).flatten(4)
        return (self.proj(attention(*parts.unbind(3), like=x)) + x) * self.style.skip_scale


@dataclass(frozen=True)
class Levels:
    """Builds the levels of `SongUNet` and `DhariwalUNet`, as modules by name in the order in which they are called.

    Attributes:
        style: the style of the blocks.
        sizes: the side and the width of each level.
        blocks: residual blocks per level of the encoder; the decoder has one more per level.
        attention: sides at which blocks have attention.
    """

    style: Style
    sizes: Sequence[tuple[int, int]]
    blocks: int
    attention: Sequence[int]

    def encoder(
        self, channels: int, width: int, extra: Callable[[int], Mapping[str, nn.Module]] = lambda _: {}
    ) -> tuple[nn.ModuleDict, list[int]]:
        """Builds the encoder; also returns the widths of its skip connections, which `decoder` needs.

        Args:
            channels: channels of the images.
            width: output channels of the first convolution.
            extra: returns the modules that follow the first module of a level, by name.
        """
        steps, skips = nn.ModuleDict(), list[int]()
        for i, (side, out) in enumerate(self.sizes):
            at = f"{side}x{side}"
            first = UNetBlock(self.style, width, width, "down") if i else Convolution(channels, width, 3)
            steps[f"{at}_down" if i else f"{at}_conv"] = first
            steps.update({f"{at}_{name}": module for name, module in extra(i).items()})
            skips.append(width)
            for block in range(self.blocks):
                steps[f"{at}_block{block}"] = UNetBlock(self.style, width, out, None, side in self.attention)
                width = out
                skips.append(width)
        return steps, skips

    def decoder(
        self,
        skips: list[int],
        attentive: Sequence[int],
        extra: Callable[[int], Mapping[str, nn.Module]] = lambda _: {},
    ) -> nn.ModuleDict:
        """Builds the decoder. Removes the widths from `skips` as it uses them.

        Args:
            attentive: the indices of the blocks that have attention, in levels that have attention.
            extra: returns the modules that follow the last block of a level, by name.
        """
        steps, width, lowest = nn.ModuleDict(), self.sizes[-1][1], len(self.sizes) - 1
        for i, (side, out) in reversed(list(enumerate(self.sizes))):
            at = f"{side}x{side}"
            if i == lowest:
                steps[f"{at}_in0"] = UNetBlock(self.style, width, width, None, attention=True)
                steps[f"{at}_in1"] = UNetBlock(self.style, width, width)
            else:
                steps[f"{at}_up"] = UNetBlock(self.style, width, width, "up")
            for block in range(self.blocks + 1):
                attention = block in attentive and side in self.attention
                steps[f"{at}_block{block}"] = UNetBlock(self.style, width + skips.pop(), out, None, attention)
                width = out
            steps.update({f"{at}_{name}": module for name, module in extra(i).items()})
        return steps


def interface(given: Any) -> Interface:
    """The interface of `SongUNet` or `DhariwalUNet`, from its arguments."""
    return Interface(given.in_channels, given.out_channels, given.img_resolution, given.label_dim)


def sizes_of(side: int, width: int, multiples: Sequence[int]) -> list[tuple[int, int]]:
    """The side and the width of each level."""
    return [(side >> level, width * multiple) for level, multiple in enumerate(multiples)]


def norm(width: int, eps: float = 1e-5) -> GroupNorm:
    """Group normalization with at most 32 groups, of at least four channels each.

    Raises:
        ValueError: the width does not divide into such groups.
    """
    return GroupNorm(max(min(32, width // 4), 1), width, eps)
