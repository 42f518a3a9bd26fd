"""EDM's `DhariwalUNet` (Karras et al., arXiv 2206.00364): the ADM network of Dhariwal & Nichol as EDM trains it.

This module has the raw network `F`; `gddim_cli.models.conventions` turns F into a denoiser. Modules and parameters are
named as in the released files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.models.networks.base import NetworkSpec, arguments_of, check_levels, split_condition
from gddim_cli.models.networks.edm_layers import (
    Convolution,
    Levels,
    PositionalEmbedding,
    Style,
    interface,
    norm,
    sizes_of,
)
from gddim_cli.models.networks.ranges import Channels, Classes, Count, Multiples, Share, Side, Sides, Width
from gddim_cli.models.networks.resampling import BOX

HEAD_WIDTH = 64


class DhariwalUNet(nn.Module):
    """A U-Net conditioned on a noise level and optionally a class.

    Args:
        img_resolution: side of the (square) images; divisible by `2**(len(channel_mult) - 1)`.
        in_channels, out_channels: channels of the images and of the prediction.
        label_dim: number of classes; 0 without labels.
        model_channels: width of the first level.
        channel_mult: width of each level in units of model_channels.
        channel_mult_emb: width of the noise-level embedding in units of model_channels.
        num_blocks: residual blocks per level of the encoder; the decoder has one more per level.
        attn_resolutions: sides at which blocks have attention.
        dropout: dropout probability in training.

    Raises:
        ValueError: a size is not divisible as required.
    """

    def __init__(
        self,
        img_resolution: Side,
        in_channels: Channels,
        out_channels: Channels,
        label_dim: Classes = 0,
        model_channels: Width = 192,
        channel_mult: Multiples = (1, 2, 3, 4),
        channel_mult_emb: Count = 4,
        num_blocks: Count = 3,
        attn_resolutions: Sides = (32, 16, 8),
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        check_levels(img_resolution, len(channel_mult), attn_resolutions)
        width_embedding = model_channels * channel_mult_emb
        self.label_dim = label_dim
        style = Style(width_embedding, True, 1.0, 1e-5, False, HEAD_WIDTH, BOX, dropout)
        self.map_noise = PositionalEmbedding(model_channels, endpoint=False)
        self.map_layer0 = nn.Linear(model_channels, width_embedding)
        self.map_layer1 = nn.Linear(width_embedding, width_embedding)
        self.map_label = nn.Linear(label_dim, width_embedding, bias=False) if label_dim else None
        levels = Levels(style, sizes_of(img_resolution, model_channels, channel_mult), num_blocks, attn_resolutions)
        width = levels.sizes[0][1]
        self.enc, skips = levels.encoder(in_channels, width)
        self.dec = levels.decoder(skips, range(num_blocks + 1))
        self.out_norm = norm(width)
        self.out_conv = Convolution(width, out_channels, 3)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The prediction, [N, out_channels, H, W], for images x [N, in_channels, H, W].

        Args:
            condition: the level `c_noise`, [N], or [N, 1 + label_dim] with one-hot class columns.
        """
        level, classes = split_condition(condition, self.label_dim)
        embedding = self.map_layer1(fn.silu(self.map_layer0(self.map_noise(level))))
        if self.map_label is not None:
            embedding = embedding + self.map_label(classes)
        embedding, skips = fn.silu(embedding), []
        for name, step in self.enc.items():
            x = step(x) if name.endswith("_conv") else step(x, embedding)
            skips.append(x)
        for name, step in self.dec.items():
            x = torch.cat([x, skips.pop()], dim=1) if "_block" in name else x
            x = step(x, embedding)
        return self.out_conv(fn.silu(self.out_norm(x)))


SPEC = NetworkSpec(
    "dhariwal-unet", "EDM's ADM network (DhariwalUNet)", arguments_of(DhariwalUNet), DhariwalUNet, interface
)
