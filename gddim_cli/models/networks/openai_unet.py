"""The U-Net of OpenAI's improved-diffusion and guided-diffusion (Nichol & Dhariwal, 2102.09672; Dhariwal & Nichol, 2105.05233).

Modules and parameters are named as in the released files, which number every layer of a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.models.networks.base import Interface, NetworkSpec, arguments_of, check_levels, split_condition
from gddim_cli.models.networks.layers import GroupNorm, attention, conv3x3
from gddim_cli.models.networks.ranges import Channels, Classes, Count, Share, Side, Sides, Width
from gddim_cli.models.networks.resampling import Resample, Resampling

GROUPS = 32
Fractions = Annotated[Sequence[Annotated[float, msgspec.Meta(gt=0, le=32)]], msgspec.Meta(min_length=1, max_length=10)]


class OpenAIUNet(nn.Module):
    """A U-Net conditioned on a time step and optionally a class.

    Args:
        image_size: side of the (square) images.
        in_channels: channels of the images.
        out_channels: channels of the prediction; twice those of the images for a model trained with `learn_sigma`.
        num_channels: the unit of width; level i has `channel_mult[i] * num_channels` channels.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more per level.
        channel_mult: width of each level in units of num_channels.
        attention_resolutions: sides at which blocks are followed by attention.
        num_classes: number of classes; 0 without labels.
        num_heads: number of attention heads.
        num_heads_upsample: number of attention heads in the decoder. Default: `num_heads`.
        num_head_channels: channels per attention head; if given, it determines the number of heads.
        use_scale_shift_norm: whether the time embedding scales and shifts the features; otherwise it is added to them.
        resblock_updown: whether residual blocks resample; otherwise plain layers do.
        use_new_attention_order: whether channels are split into query, key and value before they are split into heads.
        dropout: dropout probability in training.

    Raises:
        ValueError: a size is not divisible as required, or neither `num_heads` nor `num_head_channels` is given.
    """

    def __init__(
        self,
        image_size: Side,
        in_channels: Channels,
        out_channels: Channels,
        num_channels: Width,
        num_res_blocks: Count,
        channel_mult: Fractions,
        attention_resolutions: Sides = (),
        num_classes: Classes = 0,
        num_heads: Count | None = None,
        num_heads_upsample: Count | None = None,
        num_head_channels: Width | None = None,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        check_levels(image_size, len(channel_mult), attention_resolutions)
        if num_heads is None and num_head_channels is None:
            raise ValueError("num_heads or num_head_channels is required")
        self.num_channels, self.num_classes = num_channels, num_classes
        style = Style(4 * num_channels, use_scale_shift_norm, use_new_attention_order, dropout)
        down = Heads(num_heads, num_head_channels, style)
        up = Heads(num_heads_upsample or num_heads, num_head_channels, style)
        self.time_embed = nn.Sequential(
            nn.Linear(num_channels, style.embedding), nn.SiLU(), nn.Linear(style.embedding, style.embedding)
        )
        if num_classes:
            self.label_emb = nn.Embedding(num_classes, style.embedding)
        levels = [(image_size >> i, int(multiple * num_channels)) for i, multiple in enumerate(channel_mult)]
        width, skips = levels[0][1], [levels[0][1]]
        self.input_blocks = nn.ModuleList([nn.ModuleList([conv3x3(in_channels, width)])])
        for i, (side, out) in enumerate(levels):
            for _ in range(num_res_blocks):
                attention = [down(out)] if side in attention_resolutions else []
                self.input_blocks.append(nn.ModuleList([ResBlock(style, width, out), *attention]))
                width = out
                skips.append(width)
            if i + 1 < len(levels):
                half = ResBlock(style, width, width, "down") if resblock_updown else Downsample(width)
                self.input_blocks.append(nn.ModuleList([half]))
                skips.append(width)
        self.middle_block = nn.ModuleList([ResBlock(style, width, width), down(width), ResBlock(style, width, width)])
        self.output_blocks = nn.ModuleList()
        for i, (side, out) in reversed(list(enumerate(levels))):
            for block in range(num_res_blocks + 1):
                steps: list[nn.Module] = [ResBlock(style, width + skips.pop(), out)]
                width = out
                if side in attention_resolutions:
                    steps.append(up(width))
                if i and block == num_res_blocks:
                    steps.append(ResBlock(style, width, width, "up") if resblock_updown else Upsample(width))
                self.output_blocks.append(nn.ModuleList(steps))
        self.out = nn.Sequential(norm(width), nn.SiLU(), conv3x3(width, out_channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The prediction, [N, out_channels, H, W], for images x [N, in_channels, H, W].

        Args:
            condition: the time step, [N], or [N, 1 + num_classes] with one-hot class columns.
        """
        time, classes = split_condition(condition, self.num_classes)
        embedding = self.time_embed(time_embedding(time, self.num_channels))
        if self.num_classes:
            embedding = embedding + classes @ self.label_emb.weight.to(classes.dtype)
        embedding, skips = fn.silu(embedding), []  # every block takes the SiLU of the embedding
        for block in self.input_blocks:
            x = run(block, x, embedding)
            skips.append(x)
        x = run(self.middle_block, x, embedding)
        for block in self.output_blocks:
            x = run(block, torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out(x)


@dataclass(frozen=True)
class Style:
    """Settings that all blocks of a network share: width and use of the embedding, order of attention, dropout."""

    embedding: int
    scale_shift: bool
    new_order: bool
    dropout: float


@dataclass(frozen=True)
class Heads:
    """Makes attention layers, with a given number of heads or with heads of a given width."""

    number: int | None
    width: int | None
    style: Style

    def __call__(self, width: int) -> AttentionBlock:
        heads = width // self.width if self.width else self.number or 0
        if not heads or width % heads or (self.width and width % self.width):
            into = f"heads of {self.width} channels" if self.width else f"{heads} heads"
            raise ValueError(f"{width} channels cannot be divided into {into} for attention")
        return AttentionBlock(width, heads, self.style.new_order)


class ResBlock(nn.Module):
    """A residual block: two convolutions, each after norm and SiLU.

    The block may resample before the first convolution; the time embedding enters at the second norm.
    """

    def __init__(self, style: Style, width_in: int, width_out: int, resample: Resample = None) -> None:
        super().__init__()
        self.style = style
        self.resample = Resampling(resample) if resample else nn.Identity()
        self.in_layers = nn.Sequential(norm(width_in), nn.SiLU(), conv3x3(width_in, width_out))
        out = 2 * width_out if style.scale_shift else width_out
        self.emb_layers = nn.Sequential(
            nn.Identity(), nn.Linear(style.embedding, out)
        )  # the original has a SiLU in place of the identity; here the network's `forward` has applied it already
        self.out_layers = nn.Sequential(
            norm(width_out), nn.SiLU(), nn.Dropout(style.dropout), conv3x3(width_out, width_out)
        )
        self.skip_connection = nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Maps x [N, width_in, H, W] and the SiLU of the embedding [N, E] to [N, width_out, H', W']."""
        normed, activation, convolution = self.in_layers
        h, x = self.resample(activation(normed(x))), self.resample(x)
        h, effect = convolution(h), self.emb_layers(embedding)[:, :, None, None]
        if self.style.scale_shift:
            scale, shift = effect.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + effect)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Residual self-attention over the pixels."""

    def __init__(self, width: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = norm(width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        # New order: the channels are split into query, key and value, and each of these into heads. Old order: the
        # channels are split into heads, and each head into query, key and value.
        parts = (
            qkv.unflatten(1, (3, self.heads, -1)).unbind(1)
            if self.new_order
            else qkv.unflatten(1, (self.heads, 3, -1)).unbind(2)
        )
        mixed = attention(*parts, like=x)
        return x + self.proj_out(mixed.flatten(2)).view_as(x)


class Downsample(nn.Module):
    """Halves the side by a strided convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Doubles the side by repeating pixels, then convolves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resample, self.conv = Resampling("up"), conv3x3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.resample(x))


def run(block: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    """Applies the layers of a block in turn."""
    assert isinstance(block, nn.ModuleList)
    for layer in block:
        x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
    return x


def time_embedding(time: Tensor, width: int) -> Tensor:
    """Maps times [N] to `[cos, sin](time 10000^{-i / (width/2)})`, [N, width]."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=time.device)
    angle = time[:, None] * torch.exp(-math.log(10000) * index / half).to(time.dtype)
    found = torch.cat([angle.cos(), angle.sin()], dim=1)
    return fn.pad(found, (0, width % 2))


def norm(width: int) -> GroupNorm:
    """Group normalization with 32 groups.

    Raises:
        ValueError: the width does not divide into 32 groups.
    """
    return GroupNorm(GROUPS, width)


SPEC = NetworkSpec(
    "openai-unet",
    "OpenAI's U-Net (improved-diffusion, guided-diffusion)",
    arguments_of(OpenAIUNet),
    OpenAIUNet,
    lambda given: Interface(given.in_channels, given.out_channels, given.image_size, given.num_classes),
)
