"""A checkpoint format that a program adds is recognised, converted and loaded like the built-in ones."""

import subprocess
import sys
from typing import Annotated

import msgspec
import numpy as np
import pytest
import torch

from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.checkpoints.formats.base import Contents, FormatSpec
from gddim_cli.checkpoints.formats.registry import FORMATS
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.hub.load import load
from gddim_cli.runtime.registry import register
from gddim_cli.settings import about

MAGIC = b"toy\n"
CPU = torch.device("cpu")


class ToyOptions(msgspec.Struct, frozen=True):
    sigma_data: Annotated[float, about("Root mean square of the images.", gt=0)] | None = None


def detect(path):
    return path.is_file() and path.read_bytes()[:4] == MAGIC


def read(path):
    """A line of magic, a line of JSON with the network's arguments and shapes, then float32 numbers."""
    header, _, numbers = path.read_bytes()[4:].partition(b"\n")
    facts = msgspec.json.decode(header)
    tensors, rest = {}, torch.from_numpy(np.frombuffer(numbers, np.float32).copy())
    for name, shape in facts["shapes"].items():
        size = int(np.prod(shape))
        tensors[name], rest = rest[:size].reshape(shape), rest[size:]
    return Contents(tensors, facts["network"])


def convert(contents, conversion):
    if conversion.options.sigma_data is None:
        raise UsageError(f"{conversion.path}: --set sigma_data=... is needed")
    network = {"kind": "denoiser", **contents.facts, "sigma_data": conversion.options.sigma_data}
    card = Card(conversion.name, "A toy", Images(1, network["image_size"]), network, "denoiser", {"name": "cld"})
    conversion.say("the diffusion is assumed")
    return card, contents.tensors


@pytest.fixture
def toy_format():
    """The format, registered for one test."""
    spec = register(
        FormatSpec(name="toy", title="toy format", detect=detect, read=read, convert=convert, options=ToyOptions)
    )
    yield spec
    FORMATS.remove("toy")


@pytest.fixture
def toy_file(tmp_path, tiny, tiny_card, monkeypatch):
    """A model in that format; the cache is the test's own."""
    from gddim_cli.checkpoints import native

    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))
    _, tensors = native.read(tiny)
    network = {name: value for name, value in tiny_card.network.items() if name not in ("kind", "sigma_data")}
    header = {"network": network, "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()}}
    numbers = b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    path = tmp_path / "toy.file"
    path.write_bytes(MAGIC + msgspec.json.encode(header) + b"\n" + numbers)
    return path


def test_the_command_line_converts_it(toy_format, toy_file, tmp_path, tiny, gddim):
    out = tmp_path / "out.safetensors"
    missing = gddim("convert", toy_file, out)
    assert missing.status == 2
    assert "sigma_data=... is needed" in missing.err
    wrong = gddim("convert", toy_file, out, "--set", "sigma=1")
    assert "format toy has no setting 'sigma'; did you mean 'sigma_data'?" in wrong.err
    wrong = gddim("convert", toy_file, out, "--set", "sigma_data=-1")
    assert "--set sigma_data: -1: expected a number above 0" in wrong.err
    assert not out.exists()
    made = gddim("convert", toy_file, out, "--set", "sigma_data=0.5")
    assert made.status == 0, made.err
    assert "the diffusion is assumed" in made.err
    y, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 2.0])
    torch.testing.assert_close(load(str(out), CPU).network(y, sigma), load(str(tiny), CPU).network(y, sigma))


def test_a_program_loads_it_as_it_is(toy_format, toy_file, tiny):
    model = load(str(toy_file), CPU, sigma_data=0.5)
    y, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 2.0])
    torch.testing.assert_close(model.network(y, sigma), load(str(tiny), CPU).network(y, sigma))
    again = load(str(toy_file), CPU, sigma_data=0.5)
    assert again.path == model.path
    assert again.sha256 == model.sha256
    assert load(str(toy_file), CPU, sigma_data=0.25).path != model.path
    with pytest.raises(UsageError, match=r"^sigma_data: -1: expected a number above 0"):
        load(str(toy_file), CPU, sigma_data=-1)
    with pytest.raises(UsageError, match="takes no settings"):
        load(str(tiny), CPU, sigma_data=0.5)


def test_without_it_the_file_is_refused(toy_file):
    with pytest.raises(CheckpointError, match=r"toy.file: not a checkpoint of a known format \(gddim-flax"):
        load(str(toy_file), CPU, sigma_data=0.5)


def test_two_formats_that_both_recognise_a_file(toy_format, toy_file):
    twin = register(FormatSpec(name="twin", title="t", detect=detect, read=read, convert=convert))
    try:
        with pytest.raises(CheckpointError, match="could be toy and twin; choose one with --format"):
            load(str(toy_file), CPU)
    finally:
        FORMATS.remove(twin.name)


def test_declarations_import_no_torch():
    code = "import sys, gddim_cli.checkpoints.formats.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
