"""Layers that several architectures share, written to be fast on CPUs and GPUs, in NCHW and in NHWC."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory layout of x: channels last if x holds images stored as NHWC, contiguous otherwise."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


class GroupNorm(nn.GroupNorm):
    """Group normalization that keeps the memory layout of its input.

    torch's own group normalization keeps the layout on the CPU only. On a GPU it copies channels-last images to NCHW,
    and the next convolution copies the result back.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes x [N, C, ...]."""
        if x.device.type == "cpu" or layout_of(x) != torch.channels_last:
            return super().forward(x)
        return self.in_any_layout(x)

    def in_any_layout(self, x: Tensor) -> Tensor:
        """Group normalization by reductions and one fused multiply-add. These operations keep any memory layout."""
        # Images in 16 bits are normalized in float32 if the weights are float32, as under autocast.
        grouped: Tensor = x.to(self.weight.dtype).unflatten(1, (self.num_groups, -1))  # type: ignore[no-untyped-call]
        variance, mean = torch.var_mean(grouped, dim=(2, 3, 4), correction=0, keepdim=True)
        scale = self.weight.view(self.num_groups, -1, 1, 1) * (variance + self.eps).rsqrt()
        shift = self.bias.view(self.num_groups, -1, 1, 1) - mean * scale
        return torch.addcmul(shift, grouped, scale).flatten(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor, *, like: Tensor) -> Tensor:
    """Attention over the pixels: `softmax(q^T k / sqrt(d)) v` for each head.

    Args:
        query, key, value: [N, heads, d, pixels], in any layout.
        like: images [N, heads * d, H, W]; the result has their shape and memory layout.
    """
    # On every device, the fast kernels need the channels of a pixel side by side in memory. Otherwise torch uses a slow
    # kernel that stores a weight for every pair of pixels.
    query, key, value = (part.transpose(2, 3).contiguous() for part in (query, key, value))
    mixed = fn.scaled_dot_product_attention(query, key, value).transpose(1, 2)  # [N, pixels, heads, d]
    images = mixed.reshape(len(like), *like.shape[2:], like.shape[1]).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=layout_of(like))


def conv3x3(width_in: int, width_out: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size of the image."""
    return nn.Conv2d(width_in, width_out, 3, padding=1)
