"""EDM's `SongUNet` (Karras et al., arXiv 2206.00364): DDPM++ and NCSN++ of Song et al. as EDM trains them.

This module has the raw network `F`; `gddim_cli.models.conventions` turns F into a denoiser. Modules and parameters are
named as in the released files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.models.networks.base import NetworkSpec, arguments_of, check_levels, split_condition
from gddim_cli.models.networks.edm_layers import (
    Convolution,
    FourierEmbedding,
    Levels,
    PositionalEmbedding,
    Style,
    interface,
    norm,
    sizes_of,
)
from gddim_cli.models.networks.ranges import Channels, Classes, Count, Multiples, Share, Side, Sides, Taps, Width
from gddim_cli.models.networks.resampling import BOX, Resampling

Embedding = Literal["positional", "fourier"]
Encoder = Literal["standard", "skip", "residual"]
Decoder = Literal["standard", "skip"]
NORM_EPS = 1e-6


class SongUNet(nn.Module):
    """A U-Net conditioned on a noise level and optionally a class.

    Args:
        img_resolution: side of the (square) images; divisible by `2**(len(channel_mult) - 1)`.
        in_channels, out_channels: channels of the images and of the prediction.
        label_dim: number of classes; 0 without labels.
        model_channels: width of the first level.
        channel_mult: width of each level in units of model_channels.
        channel_mult_emb: width of the embedding that the blocks take, in units of model_channels.
        channel_mult_noise: width of the first embedding of the noise level, in units of model_channels.
        num_blocks: residual blocks per level of the encoder; the decoder has one more per level.
        attn_resolutions: sides at which blocks have attention.
        dropout: dropout probability in training.
        embedding_type: the kind of noise-level embedding.
        encoder_type: with `skip`, the downsampled and convolved image is added to the features at each level after the
            first. With `residual`, the sum becomes both the features and the image that is downsampled for the next
            level. With `standard`, nothing is added.
        decoder_type: with `skip`, the prediction is the sum of one output per level; with `standard`, only the last
            level has an output.
        resample_filter: the separable resampling filter.

    Raises:
        ValueError: a size is not divisible as required.
    """

    def __init__(
        self,
        img_resolution: Side,
        in_channels: Channels,
        out_channels: Channels,
        label_dim: Classes = 0,
        model_channels: Width = 128,
        channel_mult: Multiples = (1, 2, 2, 2),
        channel_mult_emb: Count = 4,
        num_blocks: Count = 4,
        attn_resolutions: Sides = (16,),
        dropout: Share = 0.1,
        embedding_type: Embedding = "positional",
        channel_mult_noise: Count = 1,
        encoder_type: Encoder = "standard",
        decoder_type: Decoder = "standard",
        resample_filter: Taps = BOX,
    ) -> None:
        super().__init__()
        check_levels(img_resolution, len(channel_mult), attn_resolutions)
        width_embedding, width_noise = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        self.label_dim = label_dim
        style = Style(width_embedding, False, math.sqrt(0.5), NORM_EPS, True, None, resample_filter, dropout)
        fourier = embedding_type == "fourier"
        self.map_noise = FourierEmbedding(width_noise) if fourier else PositionalEmbedding(width_noise, endpoint=True)
        self.map_label = nn.Linear(label_dim, width_noise) if label_dim else None
        self.map_layer0 = nn.Linear(width_noise, width_embedding)
        self.map_layer1 = nn.Linear(width_embedding, width_embedding)
        sizes = sizes_of(img_resolution, model_channels, channel_mult)
        levels = Levels(style, sizes, num_blocks, attn_resolutions)
        into = ImagePath([width for _, width in sizes], in_channels, resample_filter)
        out = ImagePath(into.widths, out_channels, resample_filter)
        self.enc, skips = levels.encoder(in_channels, model_channels, lambda level: into.down(level, encoder_type))
        self.dec = levels.decoder(skips, [num_blocks], lambda level: out.up(level, decoder_type))

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
        # `map_noise` returns cosines before sines, but the layers after it were trained on sines before cosines.
        found = torch.cat(self.map_noise(level).chunk(2, dim=1)[::-1], dim=1)
        if self.map_label is not None:
            found = found + self.map_label(classes * math.sqrt(self.label_dim))
        return fn.silu(self.map_layer1(fn.silu(self.map_layer0(found))))


@dataclass(frozen=True)
class ImagePath:
    """Makes the modules of the side branch that carries an image through the U-Net, parallel to the features.

    In the encoder, the path carries the input, which is added to the features. In the decoder, it carries the
    prediction, which is the sum of the levels' outputs.

    Attributes:
        widths: the widths of the levels.
        channels: channels of the image.
        taps: the resampling filter.
    """

    widths: Sequence[int]
    channels: int
    taps: Sequence[float]

    def down(self, level: int, kind: Encoder) -> dict[str, nn.Module]:
        """The modules that add the image to a level's features; none at the first level, whose input is the image."""
        if not level or kind == "standard":
            return {}
        width = self.widths[level - 1]
        if kind == "skip":
            return {"aux_down": Resampling("down", self.taps), "aux_skip": Convolution(self.channels, width, 1)}
        image = self.channels if level == 1 else self.widths[level - 2]
        return {"aux_residual": Convolution(image, width, 3, "down", self.taps, fused=True)}

    def up(self, level: int, kind: Decoder) -> dict[str, nn.Module]:
        """The modules that compute a level's output from its features; none if the level has no output.

        With `skip`, they also upsample the sum of the outputs so far.
        """
        found: dict[str, nn.Module] = {}
        if kind == "skip" and level < len(self.widths) - 1:
            found["aux_up"] = Resampling("up", self.taps)
        if kind == "skip" or not level:
            width = self.widths[level]
            found |= {"aux_norm": norm(width, NORM_EPS), "aux_conv": Convolution(width, self.channels, 3)}
        return found


SPEC = NetworkSpec("songunet", "EDM's DDPM++ or NCSN++ (SongUNet)", arguments_of(SongUNet), SongUNet, interface)
