"""benchmarks/gpu.py, which needs a GPU to say anything, runs to its end without one."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module; `torch.compile` without its code generator."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield importlib.import_module("gpu")
    torch._dynamo.reset()


@pytest.mark.slow
def test_every_setting_that_the_cpu_has_gets_a_row(benchmark, capsys) -> None:
    benchmark.main(["--device", "cpu", "--small", "--nfe", "3", "--batches", "2", "3"])
    said = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.out.splitlines() if line.startswith("| ")]
    names, found = rows[0], rows[1:]
    on_cpu = [name for name, speed in benchmark.SETTINGS.items() if not (speed.tf32 or speed.cuda_graph)]
    assert {row[0] for row in found} == set(on_cpu)
    assert len(found) == sum(1 if benchmark.SETTINGS[name].compile else 2 for name in on_cpu)
    assert all(len(row) == len(names) for row in found)
    error, within = names.index("error of an evaluation"), names.index("within one grey level")
    for row in found:
        exact = row[0].startswith("fp32")
        assert 0 < float(row[error]) < (1e-5 if exact else 0.05), row
        assert float(row[within].removesuffix(" %")) > (99.9 if exact else 50), row
    for words in (
        "random weights",
        "times the plain network",
        "beside float64",
        "`--batch-size auto` takes",
        "Inception's features",
    ):
        assert words in said.out


def test_distances_are_in_grey_levels(benchmark) -> None:
    black = np.zeros((3, 2, 2, 1), np.uint8)
    other = black[:2].copy()
    other[0, 0, 0, 0], other[0, 0, 1, 0] = 1, 4
    rms, within = benchmark.distance(other, black)
    assert rms == pytest.approx(np.sqrt(17 / 8))
    assert within == 7 / 8


def test_a_setting_without_memory_or_compiler_leaves_the_others(benchmark, capsys) -> None:
    from gddim_cli.errors import GddimError

    def short() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def uncompiled() -> None:
        raise GddimError("--compile: torch cannot")

    def broken() -> None:
        raise ValueError("a mistake")

    assert benchmark.row_or_reason(short) is None
    assert benchmark.row_or_reason(uncompiled) is None
    assert "not enough memory" in (said := capsys.readouterr().err)
    assert "--compile: torch cannot" in said
    with pytest.raises(ValueError, match="a mistake"):
        benchmark.row_or_reason(broken)
