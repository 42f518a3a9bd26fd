"""NCSN++ by itself; its parity with the original programs is in tests/checkpoints/test_golden.py."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gddim_cli.models.networks.ncsnpp import NCSNpp
from gddim_cli.models.networks.ncsnpp_layers import PyramidStep

SMALL = {"in_channels": 2, "out_channels": 2, "image_size": 16, "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1}


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
        ({"image_size": 9}, "image side 9"),
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
