"""NCSN++ and DDPM++ (Song et al., *Score-Based Generative Modeling through SDEs*, arXiv 2011.13456).

The class covers the models of gDDIM, CLD-SGM and Score-SDE in the catalogue. It does not depend on a diffusion:
`gddim_cli.models.parameterization` turns its output into a noise prediction, or `gddim_cli.models.conventions` turns it
into a denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.models.networks.base import Interface, NetworkSpec, arguments_of, check_levels
from gddim_cli.models.networks.ncsnpp_layers import (
    AttentionBlock,
    FourierEmbedding,
    PositionalEmbedding,
    PyramidStep,
    ResidualBlock,
    group_norm,
)
from gddim_cli.models.networks.ranges import Channels, Count, Multiples, Share, Side, Sides, Width
from gddim_cli.models.networks.resampling import Resample

Embedding = Literal["fourier", "positional"]
ProgressiveInput = Literal["residual", "none"]


class NCSNpp(nn.Module):
    """A U-Net of BigGAN residual blocks, conditioned on time.

    Args:
        in_channels: channels of the state: image channels times the state dimension (6 for CLD on RGB).
        out_channels: channels of the prediction.
        image_size: side of the (square) image; divisible by `2**(len(ch_mult) - 1)`.
        nf: width of the first level; divisible by 4.
        ch_mult: width of each level in units of nf; every level after the first halves the side.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more per level.
        attn_resolutions: sides at which blocks are followed by attention.
        fir: whether images are resampled with the filter [1, 3, 3, 1]. Otherwise they are halved by averaging and
            doubled by repeating pixels.
        progressive_input: `residual` adds the downsampled, convolved input at each level; `none` does not.
        embedding_type: `fourier` (of the logarithm of the time) or `positional`.
        dropout: dropout probability in training.
        centered: whether input images are in [-1, 1]; otherwise they are in [0, 1] and are rescaled first.
        scale_by_sigma: whether the output is divided by the time, which is then a noise level.

    Raises:
        ValueError: a size is not divisible as required, or `progressive_input` or `embedding_type` is unknown.
    """

    def __init__(
        self,
        in_channels: Channels,
        out_channels: Channels,
        image_size: Side,
        nf: Width = 128,
        ch_mult: Multiples = (1, 2, 2, 2),
        num_res_blocks: Count = 8,
        attn_resolutions: Sides = (16,),
        fir: bool = True,
        progressive_input: ProgressiveInput = "residual",
        embedding_type: Embedding = "fourier",
        dropout: Share = 0.1,
        centered: bool = True,
        scale_by_sigma: bool = False,
    ) -> None:
        super().__init__()
        self.centered, self.scale_by_sigma = centered, scale_by_sigma
        check(image_size, nf, ch_mult, num_res_blocks, attn_resolutions)
        check_kinds(progressive_input=progressive_input, embedding_type=embedding_type)
        make = Maker(4 * nf, fir, dropout)
        fourier = embedding_type == "fourier"
        self.embed: nn.Module = FourierEmbedding(nf) if fourier else PositionalEmbedding(nf)
        self.time_in = nn.Linear(2 * nf if fourier else nf, make.embedding)
        self.time_out = nn.Linear(make.embedding, make.embedding)
        self.conv_in = nn.Conv2d(in_channels, nf, 3, padding=1)
        widths = [nf * multiple for multiple in ch_mult]
        attends = [image_size >> level in attn_resolutions for level in range(len(widths))]
        width, pyramid, skips = nf, in_channels if progressive_input == "residual" else None, [nf]
        self.down = nn.ModuleList()
        for level, out in enumerate(widths):
            last = level + 1 == len(widths)
            self.down.append(DownStage(make, width, out, num_res_blocks, attends[level], last, pyramid))
            skips += [out] * (num_res_blocks + (not last))
            width, pyramid = out, out if pyramid else None
        self.middle = nn.ModuleList([make(width, width), AttentionBlock(width), make(width, width)])
        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            incoming = [skips.pop() for _ in range(num_res_blocks + 1)]
            self.up.append(UpStage(make, width, out, incoming, attends[level], level == 0))
            width = out
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The prediction, [B, out_channels, H, W], for states x [B, in_channels, H, W] and positive times [B]."""
        # Every block takes the swish of the embedding, so the swish is computed once, here.
        embedding = fn.silu(self.time_out(fn.silu(self.time_in(self.embed(time)))))
        x = x if self.centered else 2 * x - 1
        h, pyramid = self.conv_in(x), x
        skips = [h]
        for stage in self.down:
            h, pyramid = stage(h, pyramid, embedding, skips)
        before, attention, after = self.middle
        h = after(attention(before(h, embedding)), embedding)
        for stage in self.up:
            h = stage(h, embedding, skips)
        out = self.conv_out(fn.silu(self.norm_out(h), inplace=True))
        return out / time[:, None, None, None] if self.scale_by_sigma else out


@dataclass(frozen=True)
class Maker:
    """Builds the residual blocks of one network.

    Attributes:
        embedding: the width of the time embedding.
        fir, dropout: as in `NCSNpp`.
    """

    embedding: int
    fir: bool
    dropout: float

    def __call__(self, width_in: int, width_out: int, resample: Resample = None) -> ResidualBlock:
        return ResidualBlock(width_in, width_out, self.embedding, resample, self.fir, self.dropout)


class DownStage(nn.Module):
    """One level of the encoder: residual blocks, each with attention after it if `attends`, then downsampling by 2."""

    def __init__(
        self, make: Maker, width: int, out: int, blocks: int, attends: bool, last: bool, pyramid: int | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([make(out if i else width, out) for i in range(blocks)])
        self.attention = nn.ModuleList([AttentionBlock(out) for _ in range(blocks if attends else 0)])
        self.resample = None if last else make(out, out, "down")
        self.pyramid = None if last or pyramid is None else PyramidStep(pyramid, out, make.fir)

    def forward(self, h: Tensor, pyramid: Tensor, embedding: Tensor, skips: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the features and the input pyramid, at half the side except in the last level.

        Appends the output of every block to `skips`.
        """
        for i, block in enumerate(self.blocks):
            h = block(h, embedding)
            if self.attention:
                h = self.attention[i](h)
            skips.append(h)
        if self.resample is None:
            return h, pyramid
        h = self.resample(h, embedding)
        if self.pyramid is not None:
            h = pyramid = self.pyramid(pyramid).add_(h).mul_(math.sqrt(0.5))
        skips.append(h)
        return h, pyramid


class UpStage(nn.Module):
    """One level of the decoder: residual blocks on features and skips, attention if `attends`, then upsampling by 2."""

    def __init__(self, make: Maker, width: int, out: int, skips: list[int], attends: bool, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([make((out if i else width) + skip, out) for i, skip in enumerate(skips)])
        self.attention = AttentionBlock(out) if attends else None
        self.resample = None if last else make(out, out, "up")

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Returns the features, at twice the side except in the last level; removes its inputs from `skips`."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        if self.attention is not None:
            h = self.attention(h)
        return h if self.resample is None else self.resample(h, embedding)


def check(image_size: int, nf: int, ch_mult: Sequence[int], blocks: int, attn_resolutions: Sequence[int]) -> None:
    """Raises ValueError if sizes do not fit together; the message names the argument."""
    if not ch_mult or min(ch_mult) < 1 or blocks < 1:
        raise ValueError(f"ch_mult {list(ch_mult)} and num_res_blocks {blocks} must be positive")
    if nf < 4 or any(width % min(width // 4, 32) for width in (nf * multiple for multiple in ch_mult)):
        raise ValueError(f"nf {nf} gives widths that do not divide into groups; use a multiple of 32")
    check_levels(image_size, len(ch_mult), attn_resolutions)


def check_kinds(progressive_input: str, embedding_type: str) -> None:
    """Raises ValueError if a value is unknown; the message names the argument."""
    if progressive_input not in ("residual", "none"):
        raise ValueError(f"progressive_input '{progressive_input}' is neither residual nor none")
    if embedding_type not in ("fourier", "positional"):
        raise ValueError(f"embedding_type '{embedding_type}' is neither fourier nor positional")


SPEC = NetworkSpec(
    "ncsnpp",
    "NCSN++ or DDPM++",
    arguments_of(NCSNpp),
    NCSNpp,
    lambda given: Interface(given.in_channels, given.out_channels, given.image_size),
)
