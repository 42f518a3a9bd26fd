"""NCSN++ by itself; its parity with the original programs is in tests/checkpoints/test_golden.py."""

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch.utils.flop_counter import FlopCounterMode

from gddim_cli.models.networks.ncsnpp import NCSNpp
from gddim_cli.models.networks.ncsnpp_layers import PyramidStep, downsample, upsample

SMALL = {"in_channels": 2, "out_channels": 2, "image_size": 16, "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1}
FIR = np.array([1, 3, 3, 1]) / 8


def filtered(x, up, down, pad):
    """FIR along both sides by scipy, cut to what the originals keep."""
    for axis in (2, 3):
        spread = upfirdn(FIR * up, x, up, 1, axis=axis)
        spread = np.take(spread, range(pad, spread.shape[axis]), axis=axis)
        x = np.take(spread, range(0, spread.shape[axis], down), axis=axis)
    return x


def test_fir_resampling_against_scipy():
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    down = downsample(torch.from_numpy(x), fir=True).numpy()
    np.testing.assert_allclose(down, filtered(x, 1, 2, 2)[:, :, :4, :4], atol=1e-14)
    up = upsample(torch.from_numpy(x), fir=True).numpy()
    np.testing.assert_allclose(up, filtered(x, 2, 1, 1)[:, :, :16, :16], atol=1e-14)


def test_plain_resampling():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert downsample(x, fir=False).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(downsample(upsample(x, fir=False), fir=False), x)


def test_resampling_keeps_constants_inside():
    ones = torch.ones(1, 2, 16, 16)
    for made in (downsample(ones, True), upsample(ones, True)):
        torch.testing.assert_close(made[:, :, 1:-1, 1:-1], torch.ones_like(made[:, :, 1:-1, 1:-1]))


@pytest.mark.parametrize("fir", [True, False])
def test_pyramid_step_halves_any_even_side(fir):
    assert PyramidStep(3, 5, fir)(torch.zeros(2, 3, 14, 14)).shape == (2, 5, 7, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fir": False},
        {"fir": False, "progressive_input": "none", "embedding_type": "positional"},
        {"image_size": 24, "ch_mult": [1, 1, 2], "attn_resolutions": [12, 6]},
        {"attn_resolutions": [], "num_res_blocks": 2},
        {"in_channels": 6, "out_channels": 3, "ch_mult": [2]},
    ],
)
def test_shapes_of_any_configuration(changes):
    network = NCSNpp(**{**SMALL, **changes}).eval()
    inputs, side = network.conv_in.in_channels, {**SMALL, **changes}["image_size"]
    made = network(torch.randn(3, inputs, side, side), torch.tensor([0.5, 1.0, 999.0]))
    assert made.shape == (3, network.conv_out.out_channels, side, side)
    assert torch.isfinite(made).all()


def test_same_numbers_in_channels_last_and_other_batches():
    torch.manual_seed(0)
    network = NCSNpp(**SMALL).eval()
    x, t = torch.randn(4, 2, 16, 16), torch.rand(4) + 0.1
    with torch.inference_mode():
        plain = network(x, t)
        torch.testing.assert_close(network(x[1:2], t[1:2]), plain[1:2], rtol=1e-5, atol=1e-5)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), t), plain, rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert (network(x, t).float() - plain).norm() < 0.05 * plain.norm()


def test_runs_in_float64_and_learns():
    network = NCSNpp(**SMALL).double()
    made = network(torch.randn(1, 2, 16, 16, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    assert made.dtype == torch.float64
    made.square().mean().backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 9}, "image_size 9"),
        ({"attn_resolutions": [7]}, r"\[16, 8\]"),
        ({"nf": 6, "ch_mult": [1, 3]}, "nf 6"),
        ({"nf": 2}, "nf 2"),
        ({"ch_mult": []}, "ch_mult"),
        ({"num_res_blocks": 0}, "num_res_blocks 0"),
        ({"progressive_input": "input_skip"}, "input_skip"),
        ({"embedding_type": "sine"}, "sine"),
    ],
)
def test_refuses_what_makes_no_network(changes, named):
    with pytest.raises(ValueError, match=named):
        NCSNpp(**{**SMALL, **changes})


@pytest.mark.parametrize(
    ("options", "numbers", "gflop"),
    [
        ({"in_channels": 6, "out_channels": 6}, 107_597_446, 37.2),
        ({"in_channels": 6, "out_channels": 3}, 107_593_987, 37.2),
        (
            {"in_channels": 3, "out_channels": 3, "fir": False, "progressive_input": "none"}
            | {"embedding_type": "positional"},
            106_632_579,
            37.1,
        ),
    ],
)
def test_released_sizes(options, numbers, gflop):
    with torch.device("meta"):
        network = NCSNpp(image_size=32, **options)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, options["in_channels"], 32, 32), torch.empty(1))
    assert sum(p.numel() for p in network.parameters()) == numbers
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, abs=0.06)
