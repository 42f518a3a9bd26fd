"""What several tests share: a tiny checkpoint, the command run in this process, and the golden coefficients."""

from __future__ import annotations

import json
import lzma
import math
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.card import Card, Images
from gddim_cli.cli.main import main
from gddim_cli.models.networks.unet import DenoisingUNet
from gddim_cli.runtime.rounding import Switches, rounding

DATA = Path(__file__).parent / "data"
TINY = {"image_channels": 1, "image_size": 8, "sigma_data": 0.5, "channels": [16], "blocks": 1, "embedding": 16}

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In a script's background job (`pytest &`) SIGINT is ignored, also by the processes that tests start and stop with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> dict:
    """Coefficients of the released CLD, float64, good to 1e-11."""
    return json.loads(lzma.decompress((DATA / "cld_coefficients.json.xz").read_bytes()))


@pytest.fixture(scope="session")
def tiny_card() -> Card:
    return Card("tiny", "A test's network", Images(1, 8), {"kind": "denoiser", **TINY}, "denoiser", {"name": "cld"})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_card: Card) -> Path:
    """A checkpoint of random weights, 8x8 gray images."""
    torch.manual_seed(0)
    network = DenoisingUNet(**TINY)
    for parameter in network.parameters():  # the zeroed layers would hide the rest
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    native.write(path, tiny_card, network.state_dict())
    return path


class Result(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return self.err.strip().rpartition("\n")[2]


@pytest.fixture
def gddim_command(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `gddim WORDS` in this process."""

    def run(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["gddim", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def gddim(gddim_command: Callable[..., Result]) -> Callable[..., Result]:
    """`gddim_command` by the command's name."""
    return gddim_command


@pytest.fixture(scope="session")
def ranks_of() -> Callable[[int], dict[int, int]]:
    """The processes of a torchrun by rank."""

    def ranks(launcher: int) -> dict[int, int]:
        """The launcher's processes by rank."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == launcher:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                    found.update({int(e[5:]): int(entry.name) for e in environment if e.startswith(b"RANK=")})
            except (OSError, ValueError):  # it has ended meanwhile
                continue
        return found

    return ranks


@pytest.fixture(scope="session")
def golden_file(tmp_path_factory):
    """`golden_file("ncsnpp_small_flax.msgpack")`: the unpacked file's path."""
    folder = tmp_path_factory.mktemp("golden")
    weights = json.loads(lzma.decompress((DATA / "golden_weights.json.xz").read_bytes()))

    def unpack(name):
        path = folder / name
        if not path.exists():
            content = bytearray(lzma.decompress((DATA / f"{name}.xz").read_bytes()))
            fill(content, **weights.get(name, {"seed": 0, "tensors": []}))
            path.write_bytes(content)
        return path

    return unpack


def fill(content, seed, tensors):
    """Puts the random weights back into a file: torch's normal numbers, in the order of the tensors.

    Args:
        tensors: where each begins, its shape, and whether it is a norm's gain.
    """
    generator = torch.Generator().manual_seed(seed)
    for at, shape, gain in tensors:
        drawn = torch.randn(shape, generator=generator)
        values = drawn * (0.9 / math.sqrt(math.prod(shape[1:]))) if len(shape) > 1 else gain + 0.1 * drawn
        numbers = values.numpy().tobytes()
        content[at : at + len(numbers)] = numbers


@pytest.fixture(scope="session")
def listed():
    """`listed("cldsgm_cifar10_torch")`: names and shapes of a full-size release."""

    def read(name):
        raw = json.loads(lzma.decompress((DATA / f"{name}.json.xz").read_bytes()))
        return {key: tuple(shape) for key, shape in raw.items()}

    return read


class ProductWatch(TorchDispatchMode):
    """Counts torch's matrix products and convolutions, by whether TF32 is on."""

    NAMES = ("mm", "bmm", "addmm", "matmul", "einsum", "linear", "conv2d", "convolution", "attention")

    def __init__(self) -> None:
        super().__init__()
        self.on, self.off = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in function.__name__.partition(".")[0].split("_") for name in self.NAMES):
            off = Switches.read() == Switches.all(tf32=False)
            self.on, self.off = self.on + (not off), self.off + off
        return function(*args, **(kwargs or {}))


@pytest.fixture
def products() -> Iterator[ProductWatch]:
    """The products of a process that uses TF32 everywhere, as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 sets it."""
    with rounding(tf32=True), ProductWatch() as watch:
        torch.ones(2, 2).mm(torch.ones(2, 2))
        assert (watch.on, watch.off) == (1, 0)
        watch.on = 0
        yield watch
        assert Switches.read() == Switches.all(tf32=True)
