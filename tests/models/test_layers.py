"""Shared layers against torch's own, in both memory layouts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as fn

from gddim_cli.models.networks.layers import GroupNorm, attention, layout_of

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def images(channels: int = 16, layout: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    return torch.randn(3, channels, 4, 6, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)


def test_layouts_are_told_apart() -> None:
    assert layout_of(images()) == torch.contiguous_format
    assert layout_of(images(layout=torch.channels_last)) == torch.channels_last
    assert layout_of(torch.randn(2, 8, 1, 1)) == torch.contiguous_format
    assert layout_of(torch.randn(2, 8, 5)) == torch.contiguous_format


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("groups", "offset"), [(1, 0.0), (4, 0.0), (16, 3.0)])
def test_group_norm_in_any_layout_is_torchs(layout: torch.memory_format, groups: int, offset: float) -> None:
    norm = GroupNorm(groups, 16, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = images(layout=layout) + offset
    made, expected = norm.in_any_layout(x), norm(x)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6 * (1 + offset))
    assert made.is_contiguous(memory_format=layout)
    exact = norm.double()
    torch.testing.assert_close(exact.in_any_layout(x.double()), exact(x.double()), rtol=1e-12, atol=1e-12)


def test_group_norm_of_16_bits_is_autocasts() -> None:
    """In float32, from rounded images."""
    norm, x = GroupNorm(4, 16), images(layout=torch.channels_last).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        made = norm.in_any_layout(x)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, fn.group_norm(x.float(), 4), rtol=1e-5, atol=1e-5)


def test_torch_normalises_nchw_on_every_device_and_channels_last_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[torch.device] = []
    monkeypatch.setattr(GroupNorm, "in_any_layout", lambda self, x: used.append(x.device))
    for device in ("cpu", "meta"):
        norm = GroupNorm(4, 16, device=device)
        for layout in LAYOUTS:
            norm(images(layout=layout).to(device))
    assert used == [torch.device("meta")]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_softmax_of_products_and_keeps_the_layout(layout: torch.memory_format, heads: int) -> None:
    x = images(layout=layout)
    parts = images(48, layout).unflatten(1, (heads, -1, 3)).flatten(4).unbind(3)  # channels three apart
    made = attention(*parts, like=x)
    query, key, value = (part.double() for part in parts)
    shares = (torch.einsum("nhdi,nhdj->nhij", query, key) * (16 / heads) ** -0.5).softmax(-1)
    expected = torch.einsum("nhij,nhdj->nhdi", shares, value).reshape(3, 16, 4, 6)
    torch.testing.assert_close(made.double(), expected, rtol=1e-5, atol=1e-6)
    assert made.is_contiguous(memory_format=layout)


def test_attention_gets_channels_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would be computed the slow way, which writes out all pairs of pixels."""
    real, strides = fn.scaled_dot_product_attention, []

    def record(*parts: torch.Tensor) -> torch.Tensor:
        strides.extend(part.stride(-1) for part in parts)
        return real(*parts)

    monkeypatch.setattr(fn, "scaled_dot_product_attention", record)
    for layout in LAYOUTS:
        attention(*images(48, layout).unflatten(1, (4, -1, 3)).flatten(4).unbind(3), like=images(16, layout))
    assert strides == [1] * 6
