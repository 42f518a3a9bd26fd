"""EDM's `SongUNet` (Karras et al., arXiv 2206.00364): DDPM++ and NCSN++ of Song et al. as EDM trains them.

It is the raw network `F`; `gddim_cli.models.conventions` turns it into a denoiser. Modules and parameters are called as in
the released files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import torch
from msgspec import UNSET, UnsetType
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.models.networks.base import (
    Channels,
    Classes,
    Count,
    Interface,
    Multiples,
    NetworkSpec,
    Share,
    Side,
    Sides,
    Taps,
    Width,
    check_levels,
    split_condition,
)
from gddim_cli.models.networks.edm_layers import (
    Convolution,
    FourierEmbedding,
    PositionalEmbedding,
    Resampling,
    Style,
    UNetBlock,
    norm,
)

Embedding = Literal["positional", "fourier"]
Encoder = Literal["standard", "skip", "residual"]
Decoder = Literal["standard", "skip"]
NORM_EPS = 1e-6


class SongUNet(nn.Module):
    """A U-Net conditioned on a noise level and perhaps a class.

    Args:
        img_resolution: side of the (square) images; divisible by `2**(len(channel_mult) - 1)`.
        in_channels, out_channels: of images and prediction.
        label_dim: classes; 0 without labels.
        model_channels: width of the first level.
        channel_mult: width of each level in units of model_channels.
        channel_mult_emb, channel_mult_noise: widths of the embeddings, in the same units.
        num_blocks: residual blocks a level on the way down; one more on the way up.
        attn_resolutions: sides at which blocks have attention.
        dropout: in training.
        embedding_type: of the noise level.
        encoder_type: `residual` or `skip` adds the image itself, halved and convolved, at each level.
        decoder_type: `skip` sums an output of each level.
        resample_filter: the separable resampling filter.

    Raises:
        ValueError: sizes that do not divide.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        embedding_type: Embedding = "positional",
        channel_mult_noise: int = 1,
        encoder_type: Encoder = "standard",
        decoder_type: Decoder = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        check_levels(img_resolution, len(channel_mult), attn_resolutions)
        width_embedding, width_noise = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        self.label_dim = label_dim
        self.style = Style(width_embedding, False, math.sqrt(0.5), NORM_EPS, True, None, resample_filter, dropout)
        fourier = embedding_type == "fourier"
        self.map_noise = FourierEmbedding(width_noise) if fourier else PositionalEmbedding(width_noise, endpoint=True)
        self.map_label = nn.Linear(label_dim, width_noise) if label_dim else None
        self.map_layer0 = nn.Linear(width_noise, width_embedding)
        self.map_layer1 = nn.Linear(width_embedding, width_embedding)
        self.levels = [(img_resolution >> i, model_channels * multiple) for i, multiple in enumerate(channel_mult)]
        self.blocks, self.attends = num_blocks, set(attn_resolutions)
        self.enc, skips = self._encoder(in_channels, model_channels, encoder_type)
        self.dec = self._decoder(out_channels, skips, decoder_type)

    def _encoder(self, channels: int, width: int, kind: Encoder) -> tuple[nn.ModuleDict, list[int]]:
        """The way down, in the order of the calls, and the widths that it leaves for the way up."""
        steps, image = nn.ModuleDict(), channels
        skips: list[int] = []
        for i, (side, out) in enumerate(self.levels):
            at = f"{side}x{side}"
            steps[f"{at}_down" if i else f"{at}_conv"] = (
                UNetBlock(self.style, width, width, "down") if i else Convolution(channels, width, 3)
            )
            if i and kind == "skip":
                steps[f"{at}_aux_down"] = Resampling("down", self.style.taps)
                steps[f"{at}_aux_skip"] = Convolution(image, width, 1)
            elif i and kind == "residual":
                steps[f"{at}_aux_residual"] = Convolution(image, width, 3, "down", self.style.taps, fused=True)
                image = width
            skips.append(width)
            for block in range(self.blocks):
                steps[f"{at}_block{block}"] = UNetBlock(self.style, width, out, None, side in self.attends)
                width = out
                skips.append(width)
        return steps, skips

    def _decoder(self, channels: int, skips: list[int], kind: Decoder) -> nn.ModuleDict:
        """The way up, in the order of the calls. Takes the widths off `skips`."""
        steps, width = nn.ModuleDict(), self.levels[-1][1]
        for i, (side, out) in reversed(list(enumerate(self.levels))):
            at, lowest = f"{side}x{side}", i == len(self.levels) - 1
            if lowest:
                steps[f"{at}_in0"] = UNetBlock(self.style, width, width, None, attention=True)
                steps[f"{at}_in1"] = UNetBlock(self.style, width, width)
            else:
                steps[f"{at}_up"] = UNetBlock(self.style, width, width, "up")
            for block in range(self.blocks + 1):
                attention = block == self.blocks and side in self.attends
                steps[f"{at}_block{block}"] = UNetBlock(self.style, width + skips.pop(), out, None, attention)
                width = out
            if kind == "skip" and not lowest:
                steps[f"{at}_aux_up"] = Resampling("up", self.style.taps)
            if kind == "skip" or not i:
                steps[f"{at}_aux_norm"] = norm(width, NORM_EPS)
                steps[f"{at}_aux_conv"] = Convolution(width, channels, 3)
        return steps

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The prediction, [N, out_channels, H, W], for images x [N, in_channels, H, W].

        Args:
            condition: the level `c_noise`, [N], or [N, 1 + label_dim] with one-hot class columns.
        """
        embedding, image = self._embedded(condition), x
        skips: list[Tensor] = []
        for name, step in self.enc.items():
            role = name.partition("_")[2]
            if role == "aux_down":
                image = step(image)
            elif role == "aux_skip":
                x = skips[-1] = x + step(image)
            elif role == "aux_residual":
                x = skips[-1] = image = (x + step(image)) * math.sqrt(0.5)
            else:
                x = step(x) if role == "conv" else step(x, embedding)
                skips.append(x)
        out: Tensor | None = None
        for name, step in self.dec.items():
            role = name.partition("_")[2]
            if role == "aux_up":
                out = step(out)
            elif role == "aux_norm":
                normed = fn.silu(step(x))
            elif role == "aux_conv":
                out = step(normed) if out is None else step(normed) + out
            else:
                x = torch.cat([x, skips.pop()], dim=1) if role.startswith("block") else x
                x = step(x, embedding)
        assert out is not None
        return out

    def _embedded(self, condition: Tensor) -> Tensor:
        level, classes = split_condition(condition, self.label_dim)
        # The embedding gives cosines first; the layers after it were trained on sines first.
        found = torch.cat(self.map_noise(level).chunk(2, dim=1)[::-1], dim=1)
        if self.map_label is not None:
            found = found + self.map_label(classes * math.sqrt(self.label_dim))
        return fn.silu(self.map_layer1(fn.silu(self.map_layer0(found))))


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of `SongUNet`."""

    img_resolution: Side
    in_channels: Channels
    out_channels: Channels
    label_dim: Classes | UnsetType = UNSET
    model_channels: Width | UnsetType = UNSET
    channel_mult: Multiples | UnsetType = UNSET
    channel_mult_emb: Count | UnsetType = UNSET
    num_blocks: Count | UnsetType = UNSET
    attn_resolutions: Sides | UnsetType = UNSET
    dropout: Share | UnsetType = UNSET
    embedding_type: Embedding | UnsetType = UNSET
    channel_mult_noise: Count | UnsetType = UNSET
    encoder_type: Encoder | UnsetType = UNSET
    decoder_type: Decoder | UnsetType = UNSET
    resample_filter: Taps | UnsetType = UNSET


SPEC = NetworkSpec(
    name="songunet",
    title="EDM's DDPM++ or NCSN++ (SongUNet)",
    arguments=Arguments,
    build=SongUNet,
    interface=lambda given: Interface(
        given.in_channels, given.out_channels, given.img_resolution, given.label_dim or 0
    ),
)
