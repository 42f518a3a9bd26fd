from __future__ import annotations

import pytest
import torch

from gddim_cli.models.networks.unet import DenoisingUNet, SelfAttention


@pytest.mark.parametrize("width", [8, 16, 32, 48, 64, 96, 112, 128, 176, 192, 208, 240, 256, 31, 37])
def test_attention_at_any_width(width: int) -> None:
    attention = SelfAttention(width)
    assert width % attention.heads == 0
    assert attention.heads == 1 or width // attention.heads >= 32
    assert not [more for more in range(attention.heads + 1, width + 1) if width % more == 0 and width // more >= 32]
    x = torch.randn(2, width, 4, 4)
    assert attention(x).shape == x.shape


def test_widths_of_whole_heads_keep_their_heads() -> None:
    """Weights of released checkpoints depend on them: 32 channels a head."""
    assert [SelfAttention(width).heads for width in (32, 64, 96, 128, 256)] == [1, 2, 3, 4, 8]


@pytest.mark.parametrize("channels", [(16,), (64, 112), (32, 208)])
def test_it_starts_as_the_skip_connection(channels: tuple[int, ...]) -> None:
    """Its last layer starts at zero: D = c_skip y."""
    network, y, sigma = (
        DenoisingUNet(1, 8, 0.5, channels=channels, blocks=1),
        torch.randn(3, 1, 8, 8),
        torch.rand(3) + 0.1,
    )
    skip = 0.25 / (sigma**2 + 0.25)
    torch.testing.assert_close(network(y, sigma), skip.view(-1, 1, 1, 1) * y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 9}, r"image_size 9 is not a multiple of patch \* 2\*\*\(levels - 1\) = 4"),
        ({"blocks": 0}, "blocks: 0 is not a positive whole number"),
        ({"channels": ()}, "channels: 0 is not a positive whole number"),
    ],
)
def test_bad_sizes(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenoisingUNet(**{"image_channels": 1, "image_size": 8, "sigma_data": 0.5, **arguments})
