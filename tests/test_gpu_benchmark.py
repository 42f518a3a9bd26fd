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
    error, within = names.index("error of an evaluation"), names.index("within one gray level")
    for row in found:
        exact = row[0].startswith("fp32")
        assert 0 < float(row[error]) < (1e-5 if exact else 0.05), row
        assert float(row[within].removesuffix(" %")) > (99.9 if exact else 50), row
    for words in (
        "random weights",
        "times the plain network",
        "against float64",
        "`--batch-size auto` takes",
        "Inception's features",
        "- the complete tool, files included, 2 batches of",
        "images/s as npz",
        "- the complete tool with --lambda 0.3, files included",
        "- bf16 products: ",
        "- out of memory, simulated with 0.60 of what a batch of 2 takes: survived in batches of 1, 100.00 % of pixels",
        "- out of memory, simulated with 1.10 of what a batch of 2 takes: survived in batches of 2, 100.00 % of pixels",
        "- two processes on one device, 32 images in",
        "images, completed on the CPU: RMS 0.000 gray levels from the CPU's images, 100.00 % of pixels within one",
        "- `gddim train`, 10 steps",
        "- `gddim tune --nfe 3 --num 2`: ",
        "- final states of the bundled model in fp32: 0.0e+00 from the CPU's",
        "- goal: final states in fp32 within 1e-4 of the CPU's: 0, met",
        "- goal: at least 4 times the plain TF32 loop: not measured",
    ):
        assert words in said.out
    assert "not measured**" not in said.out
    assert "failed**" not in said.out


def test_time_that_ends_leaves_out_the_rest_and_says_so(benchmark, capsys) -> None:
    from gpu_budget import Budget

    budget = Budget(100, reserved=60)
    assert budget.allows("a row", 30)
    assert not budget.allows("a compiled row", 50)
    assert "a compiled row: left out, since only 40.0 s are left" in capsys.readouterr().err
    assert budget.lines("a check", lambda: ["- done"]) == ["- done"]
    assert budget.lines("a check", lambda: ["- done"], 50) == ["- a check: **not measured**, no time left"]

    def fail() -> list[str]:
        raise RuntimeError("CUDA error: unspecified\nand more")

    assert budget.lines("a check", fail) == ["- a check: **failed**: CUDA error: unspecified"]
    model = benchmark.random_model(True, 3)
    rows = benchmark.all_rows(model, [2], torch.device("cpu"), torch.zeros(2, 3, 8, 8), (), Budget(0))
    assert rows == []
    assert "fp32, batch 2: left out" in capsys.readouterr().err


def test_goals_are_met_or_not_by_their_figures(benchmark) -> None:
    import gpu_table

    model = benchmark.random_model(True, 50)
    flop = model.flop * model.nfe / 1e12
    row = gpu_table.Row("bf16", 64, 1.0, 400.0, 404.0, 0, 1e-3, np.zeros((2, 8, 8, 3), np.uint8))
    told = gpu_table.goals(row, model, {"a loop, tf32": 90.0}, {"bf16": 404 * flop / 0.6}, 500.0, 2e-4)
    figures = ["0.0002, NOT MET", "4.44, met", "0.6, met", "3.75, met", "0.0099, met"]
    assert [line.rpartition(": ")[2] for line in told] == figures
    only = "- goal: final states in fp32 within 1e-4 of the CPU's: 0, met"
    assert gpu_table.goals(None, model, {}, {}, 1.0, 0.0) == [only]


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


def test_sizes_that_do_not_fit_leave_a_table(benchmark, monkeypatch, capsys) -> None:
    """Not even float32's: there is no loop to compare with, no distance, and the rest is said."""
    import gpu_table

    def short(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = benchmark.random_model(True, 3)
    monkeypatch.setattr(benchmark, "looped", short)
    assert benchmark.plain(model, False, [2, 4], torch.device("cpu")) is None
    row = gpu_table.Row("bf16", 2, 1.0, 2.0, 2.5, 0, 1e-3, np.zeros((2, 8, 8, 3), np.uint8))
    assert gpu_table.table([row], model, None)[-1].endswith("| - | - |")
    assert gpu_table.fastest([row], None) is None
    assert "fp32 has no row" in "".join(gpu_table.conclusion(None, {}))


def test_what_the_tool_has_not_is_not_its_fastest_setting(benchmark) -> None:
    import gpu_table

    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    rows = [
        gpu_table.Row(name, 2, 1.0, rate, 2.5, 0, 1e-3, made)
        for name, rate, made in [
            ("fp32", 1.0, pixels), ("tf32", 2.0, pixels), (f"tf32, {gpu_table.CUDNN}", 3.0, pixels), ("bf16", 4.0, pixels + 9)
        ]
    ]  # fmt: skip
    assert gpu_table.fastest(rows, pixels).name == "tf32"
    assert "2.00 times the loop" in gpu_table.conclusion(rows[1], {"the loop": 1.0})[-1]
