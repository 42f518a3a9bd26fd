"""The parts of NCSN++ (Song et al., arXiv 2011.13456, appendix H): embeddings, resampling, residual and attention blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from gddim_cli.models.networks.layers import GroupNorm, attention
from gddim_cli.models.networks.resampling import BOX, FIR, Resample, Resampling, filtered, separable

FOURIER_SCALE = 16.0


class FourierEmbedding(nn.Module):
    """Maps times [B] to `[sin, cos](2 pi w ln(time))`, [B, 2 nf], with fixed random frequencies w."""

    def __init__(self, nf: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(nf) * FOURIER_SCALE, requires_grad=False)

    def forward(self, time: Tensor) -> Tensor:
        angle = time.log()[:, None] * self.frequencies * (2 * math.pi)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class PositionalEmbedding(nn.Module):
    """Maps times [B] to `[sin, cos](time * 10000^{-i / (nf/2 - 1)})`, [B, nf]."""

    def __init__(self, nf: int) -> None:
        super().__init__()
        self.pairs = nf // 2

    def forward(self, time: Tensor) -> Tensor:
        index = torch.arange(self.pairs, dtype=time.dtype, device=time.device)
        angle = time[:, None] * torch.exp(index * (-math.log(10000) / (self.pairs - 1)))
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class PyramidStep(nn.Module):
    """One step of the input pyramid: a strided 3x3 convolution from [B, width_in, H, W] to [B, width_out, H/2, W/2]."""

    taps: Tensor

    def __init__(self, width_in: int, width_out: int, fir: bool) -> None:
        super().__init__()
        self.fir = fir
        self.register_buffer("taps", separable(FIR), persistent=False)
        self.conv = nn.Conv2d(width_in, width_out, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if not self.fir:
            return self.conv(fn.pad(x, (0, 1, 0, 1)))
        # With a padding of 2 the filtered image has side H + 1, from which the strided convolution makes side H/2.
        return self.conv(filtered(x, self.taps, padding=2))


class ResidualBlock(nn.Module):
    """BigGAN's residual block: norm, swish, resampling, convolution, time embedding, norm, swish, convolution.

    The result is the sum of this branch and the (resampled) input, divided by sqrt(2).

    Args:
        width_in: input channels.
        width_out: output channels.
        embedding: width of the time embedding.
        resample: `down` halves the side, `up` doubles it.
        fir: whether the block resamples with the FIR filter.
        dropout: dropout probability in training, before the last convolution.
    """

    def __init__(
        self, width_in: int, width_out: int, embedding: int, resample: Resample, fir: bool, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.resample = Resampling(resample, FIR if fir else BOX) if resample else nn.Identity()
        self.norm_in = group_norm(width_in)
        self.conv_in = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.time = nn.Linear(embedding, width_out)
        self.norm_out = group_norm(width_out)
        self.conv_out = nn.Conv2d(width_out, width_out, 3, padding=1)
        changes = width_in != width_out or resample is not None
        self.skip = nn.Conv2d(width_in, width_out, 1) if changes else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Maps x [B, width_in, H, W] and the swish of the time embedding [B, E] to [B, width_out, H', W']."""
        # Operations are done in place if their input is not needed again: on a CPU, allocating new memory takes as long
        # as the arithmetic.
        h, x = self.resample(fn.silu(self.norm_in(x), inplace=True)), self.resample(x)
        h = self.conv_in(h).add_(self.time(embedding)[:, :, None, None])
        h = fn.dropout(fn.silu(self.norm_out(h), inplace=True), self.dropout, self.training)
        return self.conv_out(h).add_(x if self.skip is None else self.skip(x)).mul_(math.sqrt(0.5))


class AttentionBlock(nn.Module):
    """Self-attention with one head over the pixels of [B, C, H, W]; the sum with the input is divided by sqrt(2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.query, self.key, self.value, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        query, key, value = (part(h).flatten(2)[:, None] for part in (self.query, self.key, self.value))
        return self.out(attention(query, key, value, like=x)).add_(x).mul_(math.sqrt(0.5))


def group_norm(width: int) -> GroupNorm:
    """Group normalization with at most 32 groups, of at least four channels each."""
    return GroupNorm(min(width // 4, 32), width, eps=1e-6)
