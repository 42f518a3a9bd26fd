"""The golden files through reader, names and network: the original programs' outputs to 5e-6."""

import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from gddim_cli.checkpoints.formats import flax_msgpack, torch_pickle
from gddim_cli.checkpoints.formats.ncsnpp_names import rename
from gddim_cli.models.networks.ncsnpp import NCSNpp

DATA = Path(__file__).parent.parent / "data"
CASES = [
    ("flax", ".msgpack", flax_msgpack.read, "flax", 999, {"in_channels": 6, "out_channels": 6}),
    ("cldsgm", ".pth", torch_pickle.read_training_state, "torch", 1, {"in_channels": 6, "out_channels": 3}),
    (
        "scoresde",
        ".pth",
        torch_pickle.read_training_state,
        "torch",
        999,
        {"in_channels": 3, "out_channels": 3, "fir": False, "progressive_input": "none"}
        | {"embedding_type": "positional"},
    ),
]


@pytest.mark.parametrize(("name", "ending", "read", "layout", "scale", "options"), CASES)
def test_outputs_of_the_original_programs(golden_file, name, ending, read, layout, scale, options):
    network = NCSNpp(image_size=32, nf=16, num_res_blocks=1, **options).eval()
    network.load_state_dict(rename(read(golden_file(f"ncsnpp_small_{name}{ending}")), network, layout, name))
    with np.load(DATA / f"ncsnpp_small_{name}_io.npz") as file:
        x, t, expected = (torch.from_numpy(file[key]) for key in file.files)
    if layout == "flax":
        x, expected = x.permute(0, 3, 1, 2), expected.permute(0, 3, 1, 2)
    with torch.inference_mode():
        made = network(x, scale * t)
    for one, other in zip(made, expected, strict=True):
        assert (one - other).abs().max() < 5e-6 * other.abs().max()
        assert (one - other).norm() < 5e-6 * other.norm()


def test_data_is_compact():
    assert sum(path.stat().st_size for path in DATA.glob("ncsnpp_*")) < 6 << 20
    assert len(lzma.decompress((DATA / "ncsnpp_small_flax.msgpack.xz").read_bytes())) == 7_439_727
