"""Every product of a run is computed without TF32, whatever the process has set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gddim_cli as gddim
from gddim_cli.diffusions.registry import make_diffusion
from gddim_cli.runs.prepare import prepare
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.runtime.rounding import Switches

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {"nfe": 3},
        {"nfe": 30, "sampler": "rk45"},
        {"nfe": 4, "lam": 0.5},
        {"nfe": 3, "sampler": "heun", "diffusion": "vp"},
    ],
    ids=str,
)
def test_a_run_from_its_noise_to_its_images(tiny: Path, products, settings: dict) -> None:
    given = {"checkpoint": str(tiny), **{("lambda" if key == "lam" else key): value for key, value in settings.items()}}
    prepared = prepare(SamplingRequest.of(given), CPU)
    prepared.images(prepared.run(range(2)))
    assert products.on == 0
    assert products.off > settings["nfe"]


def test_a_run_in_frequency_space_turns_spectra_into_images(tiny: Path, products) -> None:
    prepared = prepare(SamplingRequest.of({"checkpoint": str(tiny), "nfe": 3}), CPU)
    prepared.diffusion = make_diffusion("bdm")
    prepared.decode(torch.ones(2, 1, 1, 8, 8))
    assert (products.on, products.off > 0) == (0, True)


def test_a_sampler_step_by_step(tiny: Path, products) -> None:
    for _ in gddim.Sampler(gddim.load_model(str(tiny), device="cpu"), nfe=3, num=2):
        assert Switches.read() == Switches.all(tf32=True)
    assert products.on == 0
    assert products.off > 3


def test_a_fit_of_a_solver(gddim_command, tiny: Path, products, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path))
    words = ["--checkpoint", tiny, "--nfe", 2, "--num", 2, "--device", "cpu", "--out", tmp_path / "solver.json"]
    result = gddim_command("tune", *words)
    assert result.status == 0, result.err
    assert products.on == 0
    assert products.off > 1000
