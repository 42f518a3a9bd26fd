"""EDM's SongUNet by itself: the skips of encoder and decoder that no released file has. Parity: tests/checkpoints/test_edm.py."""

import pytest
import torch
from torch.nn import functional as fn

from gddim_cli.models.networks.songunet import SongUNet

SMALL = {"img_resolution": 16, "in_channels": 3, "out_channels": 3, "model_channels": 8, "channel_mult": [1, 2, 2],
         "num_blocks": 1, "attn_resolutions": [8]}  # fmt: skip
LEVELS = ["16x16", "8x8", "4x4"]


@pytest.fixture
def traced():
    """`traced(**arguments)`: a network with random weights, its input and output, and the output of every step by name."""

    def trace(**arguments):
        torch.manual_seed(0)
        network = SongUNet(**SMALL, **arguments).double().eval().requires_grad_(False)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        seen = {}
        for part in ("enc", "dec"):
            for name, step in getattr(network, part).items():
                step.register_forward_hook(
                    lambda _step, inputs, out, key=f"{part}.{name}": seen.__setitem__(key, (inputs[0], out))
                )
        x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        with torch.no_grad():
            out = network(x, torch.tensor([0.3, -1.0], dtype=torch.float64))
        return network, x, out, seen

    return trace


def convolved(step, x):
    return fn.conv2d(x, step.weight, step.bias, padding=step.weight.shape[-1] // 2)


def test_the_encoder_adds_the_smaller_image(traced):
    """`skip`: at each level below the first, the image averaged over 2x2 pixels, through a 1x1 convolution."""
    network, image, _, seen = traced(encoder_type="skip")
    for level in LEVELS[1:]:
        image = fn.avg_pool2d(image, 2)
        expected = seen[f"enc.{level}_down"][1] + convolved(network.enc[f"{level}_aux_skip"], image)
        torch.testing.assert_close(seen[f"enc.{level}_block0"][0], expected)
        # The way up sees the sum, too.
        torch.testing.assert_close(seen[f"dec.{level}_block1"][0][:, -expected.shape[1] :], expected)


def test_the_encoder_adds_what_it_added_before(traced):
    """`residual`: the sum at one level, convolved and halved, is added to the next, over sqrt(2)."""
    network, image, _, seen = traced(encoder_type="residual")
    for level in LEVELS[1:]:
        step = network.enc[f"{level}_aux_residual"]
        halved = fn.avg_pool2d(fn.conv2d(image, step.weight, padding=1), 2) + step.bias[:, None, None]
        image = (seen[f"enc.{level}_down"][1] + halved) / 2**0.5
        torch.testing.assert_close(seen[f"enc.{level}_block0"][0], image)


@pytest.mark.parametrize("encoder", ["standard", "skip", "residual"])
def test_the_decoder_sums_an_output_of_each_level(traced, encoder):
    network, _, out, seen = traced(encoder_type=encoder, decoder_type="skip")
    total = 0.0
    for level in LEVELS[::-1]:
        norm = network.dec[f"{level}_aux_norm"]
        x = seen[f"dec.{level}_block1"][1]
        assert torch.equal(seen[f"dec.{level}_aux_norm"][0], x)
        normed = fn.group_norm(x, norm.num_groups, norm.weight, norm.bias, 1e-6)
        larger = fn.interpolate(total, scale_factor=2, mode="nearest") if level != LEVELS[-1] else 0.0
        total = larger + convolved(network.dec[f"{level}_aux_conv"], fn.silu(normed))
    torch.testing.assert_close(out, total)


def test_standard_skips(traced):
    """No step beside the blocks, and one output, at the first level."""
    network, _, out, seen = traced()
    assert not [name for name in network.enc if "aux" in name]
    assert [name for name in network.dec if "aux" in name] == ["16x16_aux_norm", "16x16_aux_conv"]
    assert torch.equal(out, seen["dec.16x16_aux_conv"][1])


@pytest.mark.parametrize("encoder", ["standard", "residual"])
def test_the_first_convolution_does_not_widen(encoder):
    """It gives `model_channels`, also where the first level is wider, as in the CIFAR-10 models; its block then projects."""
    network = SongUNet(**SMALL | {"channel_mult": [3, 2, 2]}, encoder_type=encoder)
    assert network.enc["16x16_conv"].weight.shape == (8, 3, 3, 3)
    assert network.enc["16x16_block0"].skip.weight.shape == (24, 8, 1, 1)
    assert network.dec["16x16_block1"].conv0.weight.shape == (24, 24 + 8, 3, 3)
    assert network(torch.randn(2, 3, 16, 16), torch.zeros(2)).shape == (2, 3, 16, 16)
