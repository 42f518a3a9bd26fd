"""The network that `gddim train` trains: a small U-Net, preconditioned as a denoiser for isotropic noise.

The preconditioning is Eq. 7 and Table 1 of Karras et al., *Elucidating the Design Space of Diffusion-Based Generative
Models* (arXiv 2206.00364). The network does not depend on a diffusion: `gddim_cli.models.denoiser` turns the network
into the noise prediction of any diffusion that applies the same small matrix to every pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.models.networks.base import Interface, NetworkSpec, arguments_of
from gddim_cli.models.networks.layers import GroupNorm, attention, conv3x3
from gddim_cli.models.networks.ranges import Channels, Classes, Count, Scale, Side, Width
from gddim_cli.models.networks.resampling import Resampling

Widths = Annotated[Sequence[Width], msgspec.Meta(min_length=1, max_length=10)]


class DenoisingUNet(nn.Module):
    """`D(y; sigma) = c_skip y + c_out F(c_in y; c_noise)`, the estimate of `x_0` given `y = x_0 + N(0, sigma^2 I)`.

    With `s = sigma_data`: `c_skip = s^2 / (sigma^2 + s^2)`, `c_out = sigma s / sqrt(sigma^2 + s^2)`,
    `c_in = 1 / sqrt(sigma^2 + s^2)`, `c_noise = ln(sigma) / 4` (arXiv 2206.00364, Table 1).

    Args:
        image_channels: channels of an image.
        image_size: side of the (square) image; divisible by `patch * 2**(len(channels) - 1)`.
        sigma_data: root mean square of the training images in [-1, 1].
        patch: side of the pixel blocks that are folded into channels at the input and unfolded at the output.
        channels: width of each level; every level after the first halves the resolution.
        blocks: residual blocks per level, in the encoder and again in the decoder.
        embedding: width of the noise-level embedding.
        classes: number of class labels; 0 for an unconditional network.

    Raises:
        ValueError: `image_size` is not divisible as required, or a size is not a positive whole number.
    """

    def __init__(
        self,
        image_channels: Channels,
        image_size: Side,
        sigma_data: Scale,
        patch: Count = 2,
        channels: Widths = (64, 96),
        blocks: Count = 2,
        embedding: Width = 128,
        classes: Classes = 0,
    ) -> None:
        super().__init__()
        sizes = {"image_channels": image_channels, "patch": patch, "blocks": blocks, "embedding": embedding}
        for name, value in (*sizes.items(), *(("channels", width) for width in channels or [0])):
            if not (isinstance(value, int) and value > 0):
                raise ValueError(f"{name}: {value!r} is not a positive whole number")
        unit = patch * 2 ** (len(channels) - 1)
        if image_size % unit:
            raise ValueError(f"image_size {image_size} is not a multiple of patch * 2**(levels - 1) = {unit}")
        self.sigma_data = sigma_data
        self.patch = patch
        self.embed = NoiseEmbedding(embedding)
        self.stem = conv3x3(image_channels * patch**2, channels[0])
        self.down = nn.ModuleList()
        width = channels[0]
        for level, wide in enumerate(channels):
            stage = nn.ModuleList([ResidualBlock(wide if i else width, wide, embedding) for i in range(blocks)])
            self.down.append(stage)
            width = wide
            if level + 1 < len(channels):
                self.down.append(nn.Conv2d(wide, wide, 2, stride=2))
        self.middle = ResidualBlock(width, width, embedding)
        self.attention = SelfAttention(width)
        self.up = nn.ModuleList()
        for level, wide in reversed(list(enumerate(channels))):
            stage = nn.ModuleList([ResidualBlock(wide if i else width + wide, wide, embedding) for i in range(blocks)])
            self.up.append(stage)
            width = wide
            if level:
                self.up.append(nn.Sequential(Resampling("up"), conv3x3(wide, wide)))
        self.head = nn.Sequential(norm(width), nn.SiLU(), zero(conv3x3(width, image_channels * patch**2)))
        if classes:
            self.label = nn.Linear(classes, embedding, bias=False)

    def forward(self, y: Tensor, condition: Tensor) -> Tensor:
        """The denoised images.

        Args:
            y: noisy images, [B, C, H, W].
            condition: noise levels (standard deviations, > 0), [B], of `y`'s dtype. With class labels it is
                [B, 1 + classes], the noise level followed by the class as one-hot columns (all zero for no class).

        Returns:
            The estimate of `E[x_0 | y]`, or with labels `E[x_0 | y, class]`; [B, C, H, W], in `y`'s dtype.
        """
        sigma, labels = (condition, None) if condition.ndim == 1 else (condition[:, 0], condition[:, 1:])
        s = sigma[:, None, None, None]
        total = s**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = s * self.sigma_data / total.sqrt()
        raw = self.unet(y / total.sqrt(), sigma.log() / 4, labels)
        return c_skip * y + c_out * raw

    def unet(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The raw network `F`: images [B, C, H, W], `c_noise` [B] and labels [B, classes] to images of the same shape."""
        emb = self.embed(c_noise)
        if labels is not None:
            emb = emb + self.label(labels)
        h = self.stem(fn.pixel_unshuffle(x, self.patch))
        skips = []
        for part in self.down:
            if isinstance(part, nn.ModuleList):
                h = run_stage(part, h, emb)
                skips.append(h)
            else:
                h = part(h)
        h = self.attention(self.middle(h, emb))
        for part in self.up:
            if isinstance(part, nn.ModuleList):
                h = run_stage(part, torch.cat([h, skips.pop()], dim=1), emb)
            else:
                h = part(h)
        return fn.pixel_shuffle(self.head(h), self.patch)


class NoiseEmbedding(nn.Module):
    """Maps `c_noise` [B] to [B, width]: sines and cosines at frequencies in geometric progression, then two layers."""

    frequencies: Tensor

    def __init__(self, width: int, frequencies: int = 16) -> None:
        super().__init__()
        # c_noise lies within about +-1.7. This range spans 0.4 periods of the lowest frequency and 100 of the highest.
        self.register_buffer("frequencies", math.pi * torch.logspace(-2, 6, frequencies, base=2.0), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, c_noise: Tensor) -> Tensor:
        angle = c_noise[:, None] * self.frequencies
        return self.layers(torch.cat([angle.sin(), angle.cos()], dim=1))


class ResidualBlock(nn.Module):
    """A residual block: two convolutions, each after norm and SiLU; the embedding scales and shifts the second norm."""

    def __init__(self, width_in: int, width_out: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = norm(width_in)
        self.conv_in = conv3x3(width_in, width_out)
        self.film = nn.Linear(embedding, 2 * width_out)
        self.norm_out = norm(width_out)
        self.conv_out = zero(conv3x3(width_out, width_out))
        self.shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(fn.silu(self.norm_in(x)))
        h = self.conv_out(fn.silu(self.norm_out(h) * (1 + scale) + shift))
        return self.shortcut(x) + h


class SelfAttention(nn.Module):
    """Residual self-attention over the pixels of [B, width, H, W]; as many heads of at least 32 channels as fit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in range(max(1, width // 32), 0, -1) if width % heads == 0)
        self.norm = norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = zero(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm(x)).unflatten(1, (3, self.heads, -1)).flatten(4)
        return x + self.out(attention(*parts.unbind(1), like=x))


def run_stage(stage: nn.ModuleList, h: Tensor, emb: Tensor) -> Tensor:
    for block in stage:
        h = block(h, emb)
    return h


def norm(width: int) -> GroupNorm:
    return GroupNorm(math.gcd(width, 16), width)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Returns the layer with all its weights set to zero, so that a residual block starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


SPEC = NetworkSpec(
    "denoiser",
    "preconditioned denoiser of gddim train",
    arguments_of(DenoisingUNet),
    DenoisingUNet,
    lambda given: Interface(given.image_channels, given.image_channels, given.image_size, given.classes),
)
