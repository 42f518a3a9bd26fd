"""The golden files: real formats and outputs of the original programs (tests/data/README.md)."""

import json
import lzma
from pathlib import Path

import pytest

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """`golden("ncsnpp_small_flax.msgpack")`: the unpacked file's path."""
    folder = tmp_path_factory.mktemp("golden")

    def unpack(name):
        path = folder / name
        if not path.exists():
            path.write_bytes(lzma.decompress((DATA / f"{name}.xz").read_bytes()))
        return path

    return unpack


@pytest.fixture(scope="session")
def listed():
    """`listed("cldsgm_cifar10_torch")`: names and shapes of a full-size release."""

    def read(name):
        raw = json.loads(lzma.decompress((DATA / f"{name}.json.xz").read_bytes()))
        return {key: tuple(shape) for key, shape in raw.items()}

    return read
