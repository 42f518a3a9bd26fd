"""TF32 is off, or on, inside a context, whatever was set before; afterwards it is as before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from gddim_cli.runtime import rounding as module
from gddim_cli.runtime.rounding import Switches, rounding, without_tf32

NAMES = {True: "tf32", False: "ieee"}
needs_precision = pytest.mark.skipif(not module.precise(), reason="torch before 2.9 has one interface")


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    before, general = Switches.read(), getattr(torch.backends, module.PRECISION, None)
    yield
    if general is not None:
        torch.backends.fp32_precision = general
    before.write()


@pytest.mark.parametrize("tf32", [True, False])
def test_all_switches_are_set_and_put_back(tf32: bool) -> None:
    with rounding(not tf32):
        outside = Switches.read()
        with rounding(tf32):
            assert Switches.read() == Switches.all(tf32)
        assert Switches.read() == outside
        with pytest.raises(ZeroDivisionError), rounding(tf32):
            _ = 1 / 0
        assert Switches.read() == outside


@needs_precision
@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize(
    "newer", [("cuda.matmul", "tf32"), ("cuda.matmul", "ieee"), ("cudnn.conv", "ieee"), ("cudnn", "tf32"), ("", "tf32")]
)
def test_what_the_process_has_set_by_the_newer_interface_is_no_error(tf32: bool, newer: tuple[str, str]) -> None:
    """torch raises at every reading of the older switches then; inside the context its compiler can read them."""
    torch.backends.cuda.matmul.allow_tf32 = newer[1] != "tf32"
    part = torch.backends
    for name in newer[0].split(".") if newer[0] else ():
        part = getattr(part, name)
    part.fp32_precision = newer[1]
    before = Switches.read().precision
    with rounding(tf32):
        assert Switches.read() == Switches.all(tf32)
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32
    assert Switches.read().precision == before


def test_a_torch_of_one_interface_has_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul, cudnn = SimpleNamespace(allow_tf32=False), SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(module, "MATMUL", matmul)
    monkeypatch.setattr(module, "CUDNN", cudnn)
    with rounding(tf32=False):
        assert (vars(matmul), vars(cudnn)) == ({"allow_tf32": False}, {"allow_tf32": False})
    assert (vars(matmul), vars(cudnn)) == ({"allow_tf32": False}, {"allow_tf32": True})


def test_items_are_made_without_tf32_and_used_with_the_callers_own_setting() -> None:
    def items() -> Iterator[Switches]:
        yield Switches.read()
        yield Switches.read()

    with rounding(tf32=True):
        for item in without_tf32(items()):
            assert item == Switches.all(tf32=False)
            assert Switches.read() == Switches.all(tf32=True)


SCRIPT = """
import torch
from gddim_cli.runtime.rounding import rounding
def states():
    return torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
print(*states())
with rounding(tf32=False):
    print(*states())
print(*states())
"""


def test_the_environment_variable_of_nvidias_images_is_overridden() -> None:
    """It only sets what torch starts with."""
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == ["True high", "False highest", "True high"]
