"""Damaged files of every format: read, or refused in one line; nothing else ever escapes."""

import io
import lzma
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.convert import convert_file
from gddim_cli.checkpoints.formats import flax_msgpack, openai, torch_pickle
from gddim_cli.checkpoints.formats.ncsnpp import infer
from gddim_cli.checkpoints.formats.registry import recognize
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.hub.store import card_of

DATA = Path(__file__).parent.parent / "data"

STATE = {
    "optimizer": {"lr": np.float64(1)},
    "model": {"module.all_modules.0.weight": torch.ones(2)},
    "ema": {"shadow_params": [torch.ones(2)]},
    "step": 1,
}


def flax_state():
    def array(values):
        return msgpack.ExtType(1, msgpack.packb((values.shape, values.dtype.name, values.tobytes())))

    kernel, bias = array(np.ones((3, 3, 2, 2), np.float32)), array(np.ones(2, np.float32))
    weights = {f"Conv_{i}": {"kernel": kernel, "bias": bias} for i in range(2)}
    return msgpack.packb({"step": array(np.array(3)), "optimizer": weights, "params_ema": weights, "lr": 1e-4})


def torch_state(new):
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def read_flax(path):
    infer({name: tuple(tensor.shape) for name, tensor in flax_msgpack.read(path).items()}, "flax", path)


CASES = {
    "flax": (flax_state(), read_flax),
    "torch": (torch_state(True), torch_pickle.read_training_state),
    "old torch": (torch_state(False), torch_pickle.read_training_state),
    "native": (save({"a": torch.ones(3)}, metadata={native.CARD: '{"name": "x"}'}), native.read),
}
BYTES = st.one_of(st.sampled_from([0x00, 0x80, 0xC9, 0xDD, 0xDF, 0xFF]), st.integers(0, 255))
DAMAGE = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 8), st.lists(BYTES, max_size=8)), max_size=5
)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE)
def test_damaged_files_are_read_or_refused(tmp_path, name, damage):
    whole, read = CASES[name]
    content = bytearray(whole)
    for place, removed, added in damage:
        at = int(place * len(content))
        content[at : at + removed] = bytes(added)
    path = tmp_path / "damaged"
    path.write_bytes(content)
    try:
        read(path)
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


def openai_state(new):
    """A dictionary with the names that OpenAI's networks have."""
    buffer = io.BytesIO()
    weights = {name: torch.ones(4, 4, 1, 1) for name in openai.NAMES}
    torch.save(weights, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def edm_state():
    """The beginning of a pickle of EDM's program, which holds its first tensors."""
    return lzma.decompress((DATA / "edm_small_vp.pkl.xz").read_bytes())[:40_000]


FILES = {
    "flax": flax_state(),
    "torch": torch_state(True),
    "old torch": torch_state(False),
    "openai": openai_state(True),
    "old openai": openai_state(False),
    "edm": edm_state(),
    "json": b'{"_class_name": "UNet2DModel", "sample_size": 16}',
}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE)
def test_damaged_files_are_recognised_or_refused(tmp_path, name, damage):
    """The whole way that a file of unknown origin takes, up to the network."""
    content = bytearray(FILES[name])
    for place, removed, added in damage:
        at = int(place * len(content))
        content[at : at + removed] = bytes(added)
    path = tmp_path / "damaged"
    path.write_bytes(content)
    options = {"sde": "vpsde", "image_size": 16, "num_heads": 1, "noise_schedule": "linear", "diffusion_steps": 1000}
    try:
        spec = recognize(path)
        known = spec.options.__struct_fields__
        given = {key: value for key, value in options.items() if key in known}
        convert_file(path, tmp_path / "out.safetensors", spec, given, card_of, lambda _: None)
    except (CheckpointError, UsageError) as error:
        assert str(path) in str(error) or "--set" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
